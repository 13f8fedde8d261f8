"""What a fit minimises (SMPLify, Bogo et al., ECCV 2016, §3.2), linearised analytically.

    Σ_k conf_k ρ(|point_k - target_k| / sigma)  +  |z(pose)|²  +  |betas|²  +  Σ bending(knees, elbows)²

in units of standard deviations, so that no weight needs tuning: ρ is Geman–McClure, z(pose) the pose prior's whitened
coordinates, and bending tells how far knees and elbows bend the wrong way: a hinge, which is 0 up to a straight limb,
or SMPLify's exponential. A root rotation that is known beforehand adds |log(known⁻¹ root) / sigma_root|².

Shape legend: B batch, K point, R residual rows per point (2 image axes or 3 space axes), X all residual rows,
H rows besides the points, Z whitened pose and betas, F = 6 root rotation and translation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metro.body.joints import JOINT_SETS
from metro.body.rotation import aa_from_rot, rot_from_aa
from metro.fitting.contact import Contact
from metro.fitting.points import PosedPoints, right_jacobian
from metro.fitting.prior import Prior
from metro.fitting.state import FitState
from metro.words import Bending

_HINGE_RAD = 0.1
# SMPLify weighs exp(angle)² by (10 · 0.317)² where half the squared Mahalanobis distance weighs 1.
_EXPONENTIAL = math.sqrt(2) * 10 * 0.317
_NEAREST_M = 0.2  # depth below which a projected point is treated as being at it
# (coordinate of the 69, sign): positive sign x value > 0 bends a knee or an elbow the wrong way.
_HINGES = tuple(
    (3 * (JOINT_SETS["SMPL24"].index(name) - 1) + axis, sign)
    for name, axis, sign in (
        ("left_knee", 0, -1.0),
        ("right_knee", 0, -1.0),
        ("left_elbow", 1, 1.0),
        ("right_elbow", 1, -1.0),
    )
)


@dataclass(frozen=True)
class Linearisation:
    """Cost and its weighted residuals to first order, per person."""

    cost_B: Tensor
    residual_BX: Tensor
    jacobian_BXZ: Tensor
    """Derivatives by the whitened pose and the betas."""
    jacobian_BXF: Tensor
    """Derivatives by the root's right tangent and the translation."""
    prior_BZ: Tensor
    """Where the state is in the whitened coordinates."""
    spread_DD: Tensor
    """(D, D), or (B, D, D) where people have priors of their own: pose step of a step of the whitened pose."""


@dataclass(frozen=True)
class Objective:
    """Targets of a batch of people, and how they are weighed."""

    points: PosedPoints
    prior: Prior
    target_BKR: Tensor
    """R = 3: metres in the camera frame. R = 2: image, with the principal point at 0, in units of the box side."""
    conf_BK: Tensor
    """Weights of the points; 0 for a missing one."""
    sigma: float
    """Standard deviation of a target at confidence 1, in the target's unit."""
    focal_B2: Tensor | None = None
    """R = 2: focal length along x and y, in units of the box side."""
    robust: float | None = None
    """Scale of Geman–McClure in sigmas; none: least squares."""
    fixed_betas: bool = False
    """Whether the shape stays as it is."""
    bending: Bending = "hinge"
    """How knees and elbows are kept from bending the wrong way; `none` for what has not SMPL's joints."""
    contact: Contact | None = None
    """Keeps the body from passing through itself."""
    root_B33: Tensor | None = None
    """Root rotations that are known beforehand, to `sigma_root`."""
    sigma_root: float = 1.0
    """Radians along each axis."""

    def __len__(self) -> int:
        return len(self.conf_BK)

    def select(self, index: Tensor) -> Objective:
        """The people at `index`."""
        return replace(
            self,
            prior=self.prior.select(index),
            target_BKR=self.target_BKR[index],
            conf_BK=self.conf_BK[index],
            focal_B2=None if self.focal_B2 is None else self.focal_B2[index],
            root_B33=None if self.root_B33 is None else self.root_B33[index],
        )

    def predict(self, state: FitState) -> Tensor:
        """(B, K, R) where the targets should be."""
        points_CKB = self.points.evaluate(*_arguments(state)[:3]).points_CKB
        return (points_CKB if self.focal_B2 is None else self._project(points_CKB)[0]).permute(2, 1, 0)

    def plausible(self, state: FitState) -> Tensor:
        """(B,) whether a state may be stepped to: finite, and in front of the camera if there is one."""
        depth = state.transl[:, 2]
        return depth.isfinite() if self.focal_B2 is None else depth > 1.5 * _NEAREST_M

    def linearise(self, state: FitState) -> Linearisation:
        """Cost, residuals and derivatives at a state."""
        rot, betas, transl, tangent = _arguments(state)
        posed = self.points.evaluate(rot, betas, transl)
        target_RKB, conf_KB = self.target_BKR.permute(2, 1, 0), self.conf_BK.T
        if self.focal_B2 is None:
            predicted, rows = posed.points_CKB, torch.eye(3, dtype=rot.dtype, device=rot.device)[..., None, None]
        else:
            predicted, rows = self._project(posed.points_CKB)
        residual_RKB = (predicted - target_RKB) / self.sigma
        square_KB = residual_RKB.square().sum(0)
        if self.robust is None:
            weight_KB, cost = conf_KB, conf_KB * square_KB
        else:
            inlier = self.robust**2 / (self.robust**2 + square_KB)
            weight_KB, cost = conf_KB * inlier.square(), conf_KB * inlier * square_KB
        root_weight_KB = weight_KB.sqrt()
        jacobian_RKUB = self.points.jacobian(posed, tangent, rows * (root_weight_KB / self.sigma))

        batch, pose = len(state), state.joints_aa.shape[1]
        jacobian_BXU = jacobian_RKUB.flatten(0, 2).T.contiguous().reshape(batch, -1, self.points.num_unknowns)
        residual_BX = (root_weight_KB * residual_RKB).flatten(0, 1).T
        beside_BH, pose_BHD, free_BHF = self._beside_points(state)
        below = (0, 0, 0, beside_BH.shape[1])
        prior, excess_B = self.prior.at(state.joints_aa)
        pose_BXD = torch.cat((jacobian_BXU[..., 3 : 3 + pose], pose_BHD), 1) @ prior.spread_DD
        others = jacobian_BXU[..., 3 + pose : -3] * (0.0 if self.fixed_betas else 1.0)
        free = torch.cat((jacobian_BXU[..., :3], jacobian_BXU[..., -3:]), -1)
        prior_BZ = torch.cat((prior.whiten(state.joints_aa), state.betas), 1)
        return Linearisation(
            cost.sum(0) + prior_BZ.square().sum(1) + beside_BH.square().sum(1) + excess_B,
            torch.cat((residual_BX, beside_BH), 1),
            torch.cat((pose_BXD, torch.nn.functional.pad(others, below)), 2),
            torch.cat((free, free_BHF), 1),
            prior_BZ,
            prior.spread_DD,
        )

    def _beside_points(self, state: FitState) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals (B, H) that are not of points, their derivatives by the pose and by root and translation.

        Bending comes first, then the turn from the root that is known.
        """
        joints, pose = state.joints_aa, state.joints_aa.shape[1]
        hinges = () if self.bending == "none" else _HINGES
        columns = torch.tensor([c for c, _ in hinges], dtype=torch.long, device=joints.device)
        signs = torch.tensor([s for _, s in hinges], dtype=joints.dtype, device=joints.device)
        if self.bending == "exponential":
            bent_BH = _EXPONENTIAL * (joints[:, columns] * signs).exp()
            slope_BH = bent_BH * signs
        else:
            signs = signs / _HINGE_RAD
            bent_BH = (joints[:, columns] * signs).clamp_min(0)
            slope_BH = (bent_BH > 0) * signs
        pose_BHD = joints.new_zeros(len(joints), len(hinges), pose)
        pose_BHD[:, torch.arange(len(hinges), device=joints.device), columns] = slope_BH
        free_BHF = joints.new_zeros(len(joints), len(hinges), 6)
        if self.contact is not None:
            deep_BP, slope_BPD = self.contact.residuals(*_arguments(state), pose)
            bent_BH, pose_BHD = torch.cat((bent_BH, deep_BP), 1), torch.cat((pose_BHD, slope_BPD), 1)
            free_BHF = torch.nn.functional.pad(free_BHF, (0, 0, 0, deep_BP.shape[1]))
        if self.root_B33 is None:
            return bent_BH, pose_BHD, free_BHF
        turn_B3 = aa_from_rot(self.root_B33.mT @ state.root_rot)
        by_root_B33 = torch.linalg.inv(right_jacobian(turn_B3)) / self.sigma_root
        return (
            torch.cat((bent_BH, turn_B3 / self.sigma_root), 1),
            torch.cat((pose_BHD, pose_BHD.new_zeros(len(joints), 3, pose)), 1),
            torch.cat((free_BHF, torch.nn.functional.pad(by_root_B33, (0, 3))), 1),
        )

    def _project(self, points_CKB: Tensor) -> tuple[Tensor, Tensor]:
        """Image points (2, K, B) and the rows (3, 2, K, B) that project a small displacement."""
        assert self.focal_B2 is not None
        depth = points_CKB[2].clamp_min(_NEAREST_M)
        scale_RKB = self.focal_B2.T[:, None] / depth
        image_RKB = points_CKB[:2] * scale_RKB
        rows = points_CKB.new_zeros(3, 2, *depth.shape)
        rows[0, 0], rows[1, 1] = scale_RKB
        rows[2] = -image_RKB / depth
        return image_RKB, rows


def _arguments(state: FitState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rotations, betas, translation and tangent maps of a state, with the batch last."""
    joints_BJ3 = state.joints_aa.unflatten(1, (-1, 3))
    rot_BJCD = torch.cat((state.root_rot[:, None], rot_from_aa(joints_BJ3)), 1)
    eye = torch.eye(3, dtype=rot_BJCD.dtype, device=rot_BJCD.device).expand(len(state), 1, 3, 3)
    tangent_BJDM = torch.cat((eye, right_jacobian(joints_BJ3)), 1)
    return (
        rot_BJCD.permute(2, 3, 1, 0).contiguous(),
        state.betas.T.contiguous(),
        state.transl.T.contiguous(),
        tangent_BJDM.permute(2, 3, 1, 0).contiguous(),
    )
