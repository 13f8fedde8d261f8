"""Regressed points of a posed body, and their derivatives, without building the mesh.

A row of a joint regressor is a weighted sum of skinned vertices, and skinning is linear in the bones, so the point is

    p_k = Σ_j  G_j a_kj(betas, pose) + c_kj P_j

over the few bones j that move its vertices. G_j and P_j are the bone's world rotation and joint position; a_kj and
c_kj are the regressor, the skinning weights and the blend shapes (pose correctives included) multiplied out once.
This is exact linear blend skinning at about a hundredth of its cost.

The batch is the last dimension of everything here: then all sums over pairs, bones and shapes are single matrix
products, and the 3 × 3 algebra runs over contiguous memory.

Shape legend: B batch, J joint (bone), K regressed point, N (point, bone) pair, E (point, moving joint) pair,
S shape coefficient, R residual rows per point, C and D 3 coordinates, M 3 rotation axes, U unknowns. Metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from metro.body.arrays import BodyData

_MIN_WEIGHT = 1e-7  # of a pair; what is left out moves a point by less than a micrometre


def right_jacobian(aa: Tensor) -> Tensor:
    """Right Jacobian of SO(3): exp(aa + d) ≈ exp(aa) exp(right_jacobian(aa) d), for (..., 3) → (..., 3, 3)."""
    square = (aa * aa).sum(-1)
    small = square < 1e-3
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    versine = torch.where(small, 0.5 - square / 24 + square**2 / 720, (1 - angle.cos()) / safe)
    remainder = torch.where(small, 1 / 6 - square / 120 + square**2 / 5040, (angle - angle.sin()) / (safe * angle))
    x, y, z = aa.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).reshape(*aa.shape[:-1], 3, 3)
    eye = torch.eye(3, dtype=aa.dtype, device=aa.device)
    return eye - versine[..., None, None] * cross + remainder[..., None, None] * (cross @ cross)


def _product(left_CDxB: Tensor, right_DMxB: Tensor) -> Tensor:
    """Matrix product over the first two dimensions, elementwise over the rest."""
    total = left_CDxB[:, 0, None] * right_DMxB[0]
    for d in (1, 2):
        total = torch.addcmul(total, left_CDxB[:, d, None], right_DMxB[d])
    return total


def _cross(left_CxB: Tensor, right_CxB: Tensor) -> Tensor:
    """Cross product over the first dimension."""
    (x, y, z), (u, v, w) = left_CxB.unbind(0), right_CxB.unbind(0)
    return torch.stack((y * w - z * v, z * u - x * w, x * v - y * u))


@dataclass
class PosedState:
    """What `PosedPoints.evaluate` computed: the points, and what their derivatives need."""

    points_CKB: Tensor
    terms_CNB: Tensor
    world_CDJB: Tensor
    place_CJB: Tensor


class PosedPoints:
    """Regressed points as a function of joint rotations, betas and translation.

    Parameters
    ----------
    body
        A body in SMPL layout, with any number of joints and shape coefficients.
    regressor
        (K, V) rows of weights over the vertices.
    device, dtype
        Where and how precisely to compute.
    """

    def __init__(
        self,
        body: BodyData,
        regressor: sparse.spmatrix | NDArray[np.floating],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        rows = sparse.csr_matrix(regressor, dtype=np.float64)
        skin_VJ = np.asarray(body.weights, np.float64)
        template_VC = np.asarray(body.v_template, np.float64)
        shapes_VCS = np.asarray(body.shapedirs, np.float64)
        correctives_VCP = np.asarray(body.posedirs, np.float64)
        to_joints_JV = np.asarray(body.J_regressor, np.float64)
        parents = [0, *map(int, body.parents[1:])]
        points, joints, betas = rows.shape[0], len(parents), shapes_VCS.shape[2]

        rest_JC = to_joints_JV @ template_VC
        rest_shape_JCS = np.einsum("jv,vcs->jcs", to_joints_JV, shapes_VCS)
        pairs, mass, offset, offset_shape, offset_pose = [], [], [], [], []
        for k in range(points):
            vertices = rows.indices[rows.indptr[k] : rows.indptr[k + 1]]
            share_VJ = rows.data[rows.indptr[k] : rows.indptr[k + 1], None] * skin_VJ[vertices]
            for j in np.flatnonzero(np.abs(share_VJ).sum(0) > _MIN_WEIGHT).tolist():
                share_V, total = share_VJ[:, j], share_VJ[:, j].sum()
                pairs.append((k, j))
                mass.append(total)
                offset.append(share_V @ template_VC[vertices] - total * rest_JC[j])
                offset_shape.append(np.tensordot(share_V, shapes_VCS[vertices], 1) - total * rest_shape_JCS[j])
                offset_pose.append(np.tensordot(share_V, correctives_VCP[vertices], 1))
        point_N, bone_N = np.array(pairs).T
        mass_N = np.array(mass)

        # carries[j, i]: bone j hangs on joint i (it is i or below it), so that rotating i moves it.
        carries_JJ = np.eye(joints, dtype=bool)
        for j in range(1, joints):
            carries_JJ[j] |= carries_JJ[parents[j]]
        moved_KJ = np.zeros((points, joints), dtype=bool)
        np.logical_or.at(moved_KJ, point_N, carries_JJ[bone_N])
        point_E, joint_E = np.nonzero(moved_KJ)
        below_EN = (point_N == point_E[:, None]) & carries_JJ[bone_N][:, joint_E].T

        link_JC, link_shape_JCS = rest_JC.copy(), rest_shape_JCS.copy()
        link_JC[1:] -= rest_JC[parents[1:]]
        link_shape_JCS[1:] -= rest_shape_JCS[parents[1:]]
        # d p_k / d beta_s = Σ_j G_j of_bone[k, s, j] + of_root[k, s]: each link turns with its parent's bone.
        of_bone_KSJD = np.zeros((points, betas, joints, 3))
        of_root_KSC = np.zeros((points, betas, 3))
        for (k, bone), total, shape_CS in zip(pairs, mass, offset_shape, strict=True):
            of_bone_KSJD[k, :, bone] += shape_CS.T
            of_root_KSC[k] += total * link_shape_JCS[0].T
            for i in np.flatnonzero(carries_JJ[bone])[1:].tolist():
                of_bone_KSJD[k, :, parents[i]] += total * link_shape_JCS[i].T

        def real(array: object) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array, np.float64), dtype=dtype, device=device)

        def index(array: object) -> Tensor:
            return torch.as_tensor(np.asarray(array, np.int64), device=device)

        self.num_points, self.num_joints, self.num_betas = points, joints, betas
        self.num_unknowns = 3 * joints + betas + 3
        self.parents = parents
        # Bones generation by generation: (joints, rows of their parents among the bones visited before).
        depth = carries_JJ.sum(1) - 1
        order = sorted(range(joints), key=lambda j: (depth[j], j))
        self._generations = [
            (index(members), index([order.index(parents[j]) for j in members]))
            for members in ([j for j in order if depth[j] == d] for d in range(1, depth.max() + 1))
        ]
        self._from_order = index(np.argsort(order))
        self._link_CJ1, self._link_shape_XS = (
            real(link_JC.T[..., None]),
            real(link_shape_JCS.swapaxes(0, 1).reshape(-1, betas)),
        )
        self._bone_N, self._mass_N1 = index(bone_N), real(mass_N[:, None])
        self._offset_X1 = real(np.array(offset).T.reshape(-1, 1))
        self._offset_shape_XS = real(np.array(offset_shape).swapaxes(0, 1).reshape(-1, betas))
        self._offset_pose_XP = real(np.array(offset_pose).swapaxes(0, 1).reshape(-1, correctives_VCP.shape[2]))
        self._sum_KN = real(np.arange(points)[:, None] == point_N)
        self._joint_E, self._point_E = index(joint_E), index(point_E)
        self._below_EN, self._mass_below_E1 = real(below_EN), real(below_EN @ mass_N[:, None])
        self._of_bone_XY = real(of_bone_KSJD.swapaxes(2, 3).reshape(points * betas, 3 * joints))
        self._of_root_CX1 = real(of_root_KSC.reshape(-1, 3).T[..., None])
        self._eye = torch.eye(3, dtype=dtype, device=device)

    def chain(self, rot_CDJB: Tensor, betas_SB: Tensor) -> tuple[Tensor, Tensor]:
        """World rotations (3, 3, J, B) and positions (3, J, B) of the bones, without translation."""
        link = self._link_CJ1 + (self._link_shape_XS @ betas_SB).unflatten(0, (3, self.num_joints))
        world, place = rot_CDJB[:, :, :1], link[:, :1]
        for members, above in self._generations:
            parent = world[:, :, above]
            moved = _product(parent, link[:, None, members])[:, 0]
            place = torch.cat((place, place[:, above] + moved), 1)
            world = torch.cat((world, _product(parent, rot_CDJB[:, :, members])), 2)
        return world[:, :, self._from_order], place[:, self._from_order]

    def evaluate(self, rot_CDJB: Tensor, betas_SB: Tensor, transl_CB: Tensor) -> PosedState:
        """Points for joint rotations relative to the parents (root first), betas and translation."""
        batch = betas_SB.shape[-1]
        world, place = self.chain(rot_CDJB, betas_SB)
        bent_PB = (rot_CDJB[:, :, 1:] - self._eye[:, :, None, None]).permute(2, 0, 1, 3).reshape(-1, batch)
        local = torch.addmm(self._offset_X1 + self._offset_shape_XS @ betas_SB, self._offset_pose_XP, bent_PB)
        local_DNB = local.reshape(3, -1, batch)
        terms = self._mass_N1 * place[:, self._bone_N] + _product(world[:, :, self._bone_N], local_DNB[:, None])[:, 0]
        return PosedState(self._sum_KN @ terms + transl_CB[:, None], terms, world, place)

    def jacobian(self, state: PosedState, tangent_DMJB: Tensor, rows_CRKB: Tensor) -> Tensor:
        """Derivatives of linear functions of the points, (R, K, U, B) with U = 3 J + S + 3.

        Row r of point k is the change of rows[:, r, k] · p_k. Column 3 j + m belongs to coordinate m of joint j, where
        a change d of the coordinates rotates the joint to rotation · exp(tangent d): the identity stands for the
        tangent space on the right, `right_jacobian` for axis-angle coordinates. Then come betas and translation.
        The change of the pose correctives with the pose is left out: it is millimetres per radian.
        """
        rows_count, points, batch = *rows_CRKB.shape[1:3], rows_CRKB.shape[-1]
        joints, betas = self.num_joints, self.num_betas
        out = rows_CRKB.new_zeros(rows_count, points, self.num_unknowns, batch)

        # Rotating joint i about world axis w moves what hangs on it by w × arm, arm being its weighted position
        # relative to i; row · (w × arm) = w · (arm × row).
        arm_CEB = self._below_EN @ state.terms_CNB - self._mass_below_E1 * state.place_CJB[:, self._joint_E]
        axes_CMJB = _product(state.world_CDJB, tangent_DMJB)
        turn_CREB = _cross(arm_CEB[:, None], rows_CRKB[:, :, self._point_E])
        columns_RMEB = _product(turn_CREB.transpose(0, 1), axes_CMJB[:, :, self._joint_E])
        by_joint = out[:, :, : 3 * joints].unflatten(2, (joints, 3))
        by_joint[:, self._point_E, self._joint_E] = columns_RMEB.transpose(1, 2)

        world_YxB = state.world_CDJB.reshape(3, 3 * joints, batch)
        shaped_CKSB = (self._of_bone_XY @ world_YxB + self._of_root_CX1).unflatten(1, (points, betas))
        into = out[:, :, 3 * joints : -3]
        torch.mul(rows_CRKB[0, :, :, None], shaped_CKSB[0], out=into)
        for c in (1, 2):
            into.addcmul_(rows_CRKB[c, :, :, None], shaped_CKSB[c])
        out[:, :, -3:] = rows_CRKB.permute(1, 2, 0, 3)
        return out
