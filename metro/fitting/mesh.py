"""Pose, shape and position of a mesh: what `BodyModel` would have to be told to make it.

METRO predicts vertices, which need not be any body's; the nearest body is found by the solver of the fits. Its targets
are the centres of a hundred patches that cover the surface. They see every vertex, so that the errors of single ones
cancel, and where skinning is linear they are as good as points of the surface.

How far to trust a mesh is judged from the mesh: what is left after a loose fit is the sigma of the next one. So the
parameters of a body come out as they went in, and a network's output gets a human shape and human joint angles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from metro.body.arrays import BodyData
from metro.body.model import BodyModel
from metro.errors import MetroError
from metro.fitting.gate import check_metres
from metro.fitting.hypotheses import start_from_space
from metro.fitting.objective import Objective
from metro.fitting.points import PosedPoints
from metro.fitting.prior import JOINTS, PosePrior, Prior, load_prior
from metro.fitting.solver import minimise
from metro.words import Bending

Array = NDArray[np.float32]

_PATCHES = 100
_LEAST_SIGMA, _MOST_SIGMA = 0.001, 0.02  # metres: of a patch's centre, along each axis
_BATCH = 64
_HAND_SPREAD_RAD = 0.5  # of every angle about the mean pose, where there is no prior of poses


@dataclass(frozen=True)
class MeshFits:
    """Bodies nearest to N meshes, in their order."""

    pose_aa: Array
    """(N, 3 J) axis-angle, root first, as `BodyModel` and `metro.fitting.fit` take it."""
    betas: Array
    """(N, S)."""
    transl: Array
    """(N, 3) metres."""
    error: Array
    """(N,) mean distance of the body's vertices from those of the mesh, metres."""

    def __len__(self) -> int:
        return len(self.error)


def from_mesh(vertices: ArrayLike, body: BodyData, *, device: torch.device | str = "cpu") -> MeshFits:
    """Find the parameters of a body model whose mesh is nearest to given ones.

    Parameters
    ----------
    vertices
        (N, V, 3) metres, in the body's order of vertices and in any frame: the root's rotation and the translation
        lead into it. For predictions ``np.stack([p.vertices for p in predictions])``.
    body
        The body or hand that the vertices are of.
    device
        Where to compute.

    Raises
    ------
    MetroError
        The vertices are not of this body, not finite, or not in metres.
    """
    meshes_NV3 = np.asarray(vertices, np.float32)
    if meshes_NV3.ndim != 3 or meshes_NV3.shape[1:] != body.v_template.shape:
        raise MetroError(
            f"vertices have shape {meshes_NV3.shape}; the {body.kind} body takes (N, {body.num_vertices}, 3)"
        )
    broken = np.flatnonzero(~np.isfinite(meshes_NV3).all((1, 2)))
    if len(broken):
        raise MetroError(f"vertices of mesh {broken[0]} are not all finite numbers; leave it out")
    check_metres(meshes_NV3, np.ones(meshes_NV3.shape[:2], bool), "vertices")
    prior = _prior_of(body).to(device)
    model = BodyModel(body).to(device)
    patches_KV = _patches(body.v_template)
    points = PosedPoints(body, patches_KV, device)
    averages_KV = torch.as_tensor(patches_KV.toarray(), dtype=torch.float32, device=device)
    bending: Bending = "hinge" if body.num_joints == JOINTS + 1 else "none"
    found: list[tuple[torch.Tensor, ...]] = []
    for first in range(0, len(meshes_NV3), _BATCH):
        mesh_BV3 = torch.as_tensor(meshes_NV3[first : first + _BATCH], device=device)
        target_BK3 = averages_KV @ mesh_BV3
        even_BK = torch.ones_like(target_BK3[..., 0])
        task = Objective(points, prior, target_BK3, even_BK, _MOST_SIGMA, bending=bending)
        state = minimise(task, start_from_space(task, 0 * even_BK[0]), 15, relative=1e-2, absolute=0.1).state
        for relative, absolute in ((1e-2, 0.1), (1e-4, 1e-3)):
            left_BK3 = task.predict(state) - target_BK3
            sigma_B1 = left_BK3.square().mean((1, 2)).sqrt().clamp(_LEAST_SIGMA, _MOST_SIGMA)[:, None]
            task = replace(task, sigma=_LEAST_SIGMA, conf_BK=even_BK * (_LEAST_SIGMA / sigma_B1).square())
            state = minimise(task, state, 30, relative=relative, absolute=absolute).state
        # A hand's pose counts from its mean pose.
        pose_aa = state.pose_aa() - model.mean_pose_J3.flatten()
        vertices_BV3 = model(pose_aa, state.betas, state.transl).vertices
        found.append((pose_aa, state.betas, state.transl, (vertices_BV3 - mesh_BV3).norm(dim=-1).mean(1)))
    if not found:
        sizes = (3 * body.num_joints,), (body.num_betas,), (3,), ()
        return MeshFits(*(np.zeros((0, *size), np.float32) for size in sizes))
    return MeshFits(*(torch.cat(column).cpu().numpy() for column in zip(*found, strict=True)))


def _prior_of(body: BodyData) -> Prior:
    """The prior of bodies with SMPL's joints, else an even one about the mean pose."""
    if body.num_joints == JOINTS + 1:
        return load_prior()
    angles = 3 * (body.num_joints - 1)
    mean = np.zeros(angles, np.float32) if body.hands_mean is None else body.hands_mean.astype(np.float32)
    return PosePrior(torch.as_tensor(mean)[None], _HAND_SPREAD_RAD * torch.eye(angles))


def _patches(template_VC: NDArray[np.floating]) -> sparse.csr_matrix:
    """Rows (K, V) that average over patches: each vertex belongs to the nearest of K seeds.

    Each seed is the vertex farthest from those before it. Distances are whole numbers (of square micrometres) and the
    first of equals counts, so the patches are the same on every processor.
    """
    grid_VC = np.rint(np.asarray(template_VC, np.float64) * 1e6).astype(np.int64)
    nearest_V = np.zeros(len(grid_VC), np.int64)
    square_V = ((grid_VC - grid_VC[0]) ** 2).sum(1)
    for seed in range(1, _PATCHES):
        to_seed_V = ((grid_VC - grid_VC[square_V.argmax()]) ** 2).sum(1)
        nearest_V[to_seed_V < square_V] = seed
        square_V = np.minimum(square_V, to_seed_V)
    share_V = 1 / np.bincount(nearest_V)[nearest_V]
    return sparse.csr_matrix((share_V, (nearest_V, np.arange(len(grid_VC)))), (_PATCHES, len(grid_VC)))
