"""Bodies that pass through themselves: spheres inside of the surface, which should not overlap.

Each part of the body is cut across its bone into slabs as thick as the part is, the trunk into left and right as well;
a sphere sits in the middle of each, inside of the skin. The centres are means of vertices, so they pose as the points
of `PosedPoints` do. Pairs that are neighbours, or nearly touch in the rest pose, are left alone.

Shape legend: B batch, K sphere, Q pair that may collide, P pair that counts, J joint, C 3 coordinates, U unknowns.
Metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from metro.body.arrays import BodyData
from metro.body.joints import JOINT_SETS
from metro.fitting.points import PosedPoints

_DEEPEST = 6  # pairs of a person that count at once: a body rarely passes through itself at more places
_SIGMA = 0.01  # metres
_INSIDE = 5  # percentile of the distances of a slab's vertices that is the radius
_APART = 0.02  # metres between two spheres at rest
_MOST_SLABS = 4
_PARTS = 22  # joints that SMPL and SMPL-X share, in their common order
_TRUNK = ("pelvis", "spine1", "spine2", "spine3")


@dataclass(frozen=True)
class Contact:
    """Spheres of a body, and which pairs of them may collide."""

    points: PosedPoints
    reach_Q: Tensor
    """Sum of the radii of each pair."""
    first_Q: Tensor
    second_Q: Tensor

    @staticmethod
    def of(body: BodyData, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Contact:
        """Spheres of a body with SMPL's joints, the trunk's and the limbs'; fingers have none."""
        members, parts = _slabs(body)
        rows_KV = sparse.csr_matrix([np.isin(np.arange(body.num_vertices), v) / len(v) for v in members])
        centre_KC = rows_KV @ body.v_template
        radius_K = [
            float(np.percentile(np.linalg.norm(body.v_template[vertices] - centre_C, axis=1), _INSIDE))
            for vertices, centre_C in zip(members, centre_KC, strict=True)
        ]
        near_JJ = _near(body.parents)
        pairs = [
            (a, b)
            for a, b in combinations(range(len(members)), 2)
            if not near_JJ[parts[a], parts[b]]
            and np.linalg.norm(centre_KC[a] - centre_KC[b]) > radius_K[a] + radius_K[b] + _APART
        ]
        first_Q, second_Q = (torch.tensor(x, device=device) for x in zip(*pairs, strict=True))
        reach_Q = torch.tensor([radius_K[a] + radius_K[b] for a, b in pairs], dtype=dtype, device=device)
        return Contact(PosedPoints(body, rows_KV, device, dtype), reach_Q, first_Q, second_Q)

    def residuals(
        self, rot_CDJB: Tensor, betas_SB: Tensor, transl_CB: Tensor, tangent_DMJB: Tensor, pose: int
    ) -> tuple[Tensor, Tensor]:
        """How deep the deepest pairs overlap, in sigmas (B, P), and the derivatives by the pose (B, P, pose).

        Root and position do not change it. The shape does, but shall not: a body is not to shrink because it touches
        itself.
        """
        posed = self.points.evaluate(rot_CDJB, betas_SB, transl_CB)
        away_CQB = posed.points_CKB[:, self.first_Q] - posed.points_CKB[:, self.second_Q]
        distance_QB = away_CQB.square().sum(0).sqrt()
        depth_PB, pair_PB = (self.reach_Q[:, None] - distance_QB).topk(_DEEPEST, dim=0)
        depth_PB = depth_PB.clamp_min(0)
        if not bool(depth_PB.any()):
            return depth_PB.T, depth_PB.new_zeros(depth_PB.shape[1], _DEEPEST, pose)
        eye = torch.eye(3, dtype=depth_PB.dtype, device=depth_PB.device)[..., None, None]
        moves_CKUB = self.points.jacobian(posed, tangent_DMJB, eye.repeat(1, 1, *posed.points_CKB.shape[1:]))
        moves_CKUB = moves_CKUB[:, :, 3 : 3 + pose]
        normal_CPB = (away_CQB / distance_QB.clamp_min(1e-6)).gather(1, pair_PB.expand(3, -1, -1))
        slope_PUB = torch.zeros_like(normal_CPB[0, :, None])
        for end_Q, sign in ((self.first_Q, -1), (self.second_Q, 1)):
            of_PUB = end_Q[pair_PB][:, None].expand(-1, pose, -1)
            slope_PUB = slope_PUB + sign * sum(
                moves_CKUB[c].gather(0, of_PUB) * normal_CPB[c, :, None] for c in range(3)
            )
        return (depth_PB / _SIGMA).T, (slope_PUB * (depth_PB > 0)[:, None] / _SIGMA).permute(2, 0, 1)


def _slabs(body: BodyData) -> tuple[list[NDArray[np.intp]], list[int]]:
    """Vertices of each sphere, and the part that they belong to."""
    part_V, rest_JC = body.weights.argmax(1), body.J_regressor @ body.v_template
    slabs: list[tuple[NDArray[np.intp], int]] = []
    for part in range(_PARTS):
        vertices = np.flatnonzero(part_V == part)
        if not len(vertices):
            continue
        place_VC = body.v_template[vertices] - rest_JC[part]
        if JOINT_SETS["SMPL24"][part] in _TRUNK:
            slabs += [(vertices[place_VC[:, 0] >= 0], part), (vertices[place_VC[:, 0] < 0], part)]
            continue
        along_C = place_VC.mean(0) / np.linalg.norm(place_VC.mean(0))
        height_V = place_VC @ along_C
        thick = 2 * np.median(np.linalg.norm(place_VC - height_V[:, None] * along_C, axis=1))
        count = int(np.clip(round(float(np.ptp(height_V) / thick)), 1, _MOST_SLABS))
        slab_V = np.minimum((height_V - height_V.min()) / np.ptp(height_V) * count, count - 1).astype(int)
        slabs += [(vertices[slab_V == k], part) for k in range(count)]
    filled = [(vertices, part) for vertices, part in slabs if len(vertices)]
    return [vertices for vertices, _ in filled], [part for _, part in filled]


def _near(parents: tuple[int, ...]) -> np.ndarray:
    """(J, J) whether parts are at most three bones apart."""
    linked = np.eye(len(parents), dtype=int)
    for j, p in enumerate(parents[1:], 1):
        linked[j, p] = linked[p, j] = 1
    return np.linalg.matrix_power(linked, 3) > 0
