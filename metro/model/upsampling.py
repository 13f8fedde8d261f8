"""Finer meshes from the coarse one, without weights to learn: interpolated, or by pieces that keep their shape.

What a network says of neighbouring vertices differs by centimetres where it is unsure, and interpolated triangles
between them crumple. `RigidUpsampling` cuts the template into patches that overlap (`metro.mesh.patches`), turns and
shifts each to where its coarse vertices lie on average, and lets a vertex follow the patches that it belongs to. Errors
of single vertices average out; face, hands and feet keep the template's shape. It is Müller et al., "Meshless
Deformations Based on Shape Matching", 2005, as a layer: smooth in the vertices, without decompositions, exportable.

Shape suffixes: B image, P patch and coarse vertex, V vertex of the full mesh, 3 xyz, 4 quaternion.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from metro.mesh.patches import make_patches

SQUARINGS = 10
"""Of a matrix whose largest eigenvector is wanted: 1,024 steps of the power method."""


class FixedUpsampling(nn.Module):
    """Barycentric matrix with K entries a row at most, as K weighted gathers; nothing to train, nothing to store."""

    index_KV: Tensor
    weight_KV: Tensor

    def __init__(self, up: sparse.csr_matrix) -> None:
        super().__init__()
        up = sparse.csr_matrix(up)
        counts = np.diff(up.indptr)
        slot = np.arange(up.nnz) - np.repeat(up.indptr[:-1], counts)
        row = np.repeat(np.arange(up.shape[0]), counts)
        index_KV = np.zeros((counts.max(initial=1), up.shape[0]), dtype=np.int32)
        weight_KV = np.zeros(index_KV.shape, dtype=np.float32)
        index_KV[slot, row], weight_KV[slot, row] = up.indices, up.data
        self.register_buffer("index_KV", torch.from_numpy(index_KV), persistent=False)
        self.register_buffer("weight_KV", torch.from_numpy(weight_KV), persistent=False)

    def forward(self, coarse_BVD: Tensor) -> Tensor:
        """Rows (B, V, D) of the finer mesh."""
        # One row per vertex with the batch inside (X = B · D): gathering whole rows is 10 times faster than per image.
        coarse_VX = coarse_BVD.transpose(0, 1).flatten(1)
        fine_VX = coarse_VX.new_zeros(())
        for index_V, weight_V in zip(self.index_KV, self.weight_KV, strict=True):
            fine_VX = torch.addcmul(fine_VX, coarse_VX.index_select(0, index_V), weight_V[:, None])
        return fine_VX.unflatten(1, (-1, coarse_BVD.shape[2])).transpose(0, 1)


class RigidUpsampling(nn.Module):
    """Overlapping patches of a template, each moved as its coarse vertices are; nothing to train, nothing to store.

    Parameters
    ----------
    template_V3, faces_F3
        The template at full resolution.
    kept
        Which of its vertices each coarser level has, fine to coarse.
    """

    template_V3: Tensor
    rest_P3: Tensor
    mean_P3: Tensor
    members_PP: Tensor

    def __init__(self, template_V3: np.ndarray, faces_F3: np.ndarray, kept: Sequence[np.ndarray]) -> None:
        super().__init__()
        *self.between, middle_P = kept
        members_PP, blend = make_patches(template_V3, faces_F3, middle_P)
        self.blend = FixedUpsampling(blend)
        rest_P3 = template_V3[middle_P]
        mean_P3 = members_PP @ rest_P3
        held = {"template_V3": template_V3, "rest_P3": rest_P3, "mean_P3": mean_P3, "members_PP": members_PP}
        for name, array in held.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array, np.float32)), persistent=False)

    def forward(self, coarse_BP3: Tensor) -> list[Tensor]:
        """The finer meshes (B, V, 3) of coarse ones, coarse to full."""
        rest_P3, mean_P3, members_PP = self.rest_P3, self.mean_P3, self.members_PP
        product_BP9 = (coarse_BP3[..., None] * rest_P3[:, None]).flatten(2)
        mean_BP3 = members_PP @ coarse_BP3
        crossed_BP33 = (members_PP @ product_BP9).unflatten(2, (3, 3)) - mean_BP3[..., None] * mean_P3[:, None]
        turn_BP33 = nearest_rotation(crossed_BP33)
        shift_BP3 = mean_BP3 - (turn_BP33 @ mean_P3[..., None]).squeeze(-1)
        motion_BP34 = torch.cat([turn_BP33, shift_BP3[..., None]], -1)
        motion_BV34 = self.blend(motion_BP34.flatten(2)).unflatten(2, (3, 4))
        full_BV3 = (motion_BV34[..., :3] @ self.template_V3[..., None]).squeeze(-1) + motion_BV34[..., 3]
        return [*(full_BV3[:, kept_V] for kept_V in reversed(self.between)), full_BV3]


def nearest_rotation(moved: Tensor) -> Tensor:
    """Rotations R (…, 3, 3) that bring points x nearest to points y, from the sums (…, 3, 3) of y xᵀ.

    Horn's way ("Closed-form solution of absolute orientation using unit quaternions", 1987): the quaternion q is the
    largest eigenvector of a symmetric matrix. Its outer product q qᵀ is what powers of the matrix tend to, and R is
    linear in that. Points that leave the rotation open, as those of a line do, get a mean of the rotations in question.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in moved.unbind(-2))  # of y, then of x
    matrix = _matrix(
        (xx + yy + zz, zy - yz, xz - zx, yx - xy),
        (zy - yz, xx - yy - zz, xy + yx, zx + xz),
        (xz - zx, xy + yx, yy - xx - zz, yz + zy),
        (yx - xy, zx + xz, yz + zy, zz - xx - yy),
    )
    size = matrix.square().sum((-2, -1), keepdim=True).clamp(min=torch.finfo(moved.dtype).tiny).sqrt()
    power = matrix / size + torch.eye(4, device=moved.device, dtype=moved.dtype)  # no eigenvalue is below 0
    for _ in range(SQUARINGS):
        power = power @ power
        power = power / power.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    (ww, wx, wy, wz), (_, xx, xy, xz), (_, _, yy, yz), (_, _, _, zz) = (row.unbind(-1) for row in power.unbind(-2))
    return _matrix(
        (ww + xx - yy - zz, 2 * (xy - wz), 2 * (xz + wy)),
        (2 * (xy + wz), ww - xx + yy - zz, 2 * (yz - wx)),
        (2 * (xz - wy), 2 * (yz + wx), ww - xx - yy + zz),
    )


def _matrix(*rows: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.stack(tuple(row), -1) for row in rows], -2)
