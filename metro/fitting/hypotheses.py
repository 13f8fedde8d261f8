"""Where a fit starts, and the other depths an image allows.

A 2D pose does not tell a limb that points to the camera from one that points away, nor at first glance a front from a
back. So an image fit starts twice, facing the camera and turned away, and its best result is tried again with one bone
at a time mirrored in depth ("jumps", the discrete search of Sminchisescu & Triggs, CVPR 2003). A fit whose pose is
known roughly starts from that alone.

Shape legend: B batch, H hypothesis, K point.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metro.body.joints import JOINT_SETS
from metro.body.rotation import aa_from_rot, rot_from_aa
from metro.fitting.objective import Objective
from metro.fitting.state import FitState, concatenate

TORSO = ("R_Hip", "L_Hip", "R_Shoulder", "L_Shoulder", "Neck", "Pelvis", "Thorax", "Spine")
"""Points that move as one with the root, nearly."""

_SMPL = JOINT_SETS["SMPL24"].index
# (joint that turns, end of its bone): limbs; then the root, by the lean of the trunk and by the line of the hips.
_JUMPS = (
    *(
        (_SMPL(f"{side}_{top}"), _SMPL(f"{side}_{end}"), _SMPL(f"{side}_{top}"))
        for top, end in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
        for side in ("left", "right")
    ),
    (_SMPL("pelvis"), _SMPL("neck"), 0),
    (_SMPL("left_hip"), _SMPL("right_hip"), 0),
)
_LEAST_TURN = 0.25  # sine of the angle below which a mirrored bone is hardly different


def start_from_space(objective: Objective, torso_K: Tensor) -> FitState:
    """The mean pose, rigidly aligned to 3D joints, the torso counting ten times as much."""
    rest = _mean_state(objective)
    points_BKC = objective.points.evaluate(*_rest_arguments(rest)).points_CKB.permute(2, 1, 0)
    weight_BK1 = (objective.conf_BK * (1 + 9 * torso_K))[..., None]
    weight_BK1 = weight_BK1 / weight_BK1.sum(1, keepdim=True)
    here_B1C, there_B1C = (weight_BK1 * points_BKC).sum(1, True), (weight_BK1 * objective.target_BKR).sum(1, True)
    covariance = (weight_BK1 * (points_BKC - here_B1C)).mT @ (objective.target_BKR - there_B1C)
    u, _, vt = torch.linalg.svd(covariance.double())
    proper = torch.ones_like(vt[:, 0])
    proper[:, 2] = torch.linalg.det(u @ vt)
    turn = (vt.mT @ (proper[..., None] * u.mT)).to(here_B1C)
    # The root turns about the pelvis joint, not about the origin.
    pivot_BC = objective.points.chain(*_rest_arguments(rest)[:2])[1][:, 0].T
    transl = there_B1C[:, 0] - (turn @ (here_B1C[:, 0] - pivot_BC)[..., None])[..., 0] - pivot_BC
    return FitState(turn, rest.joints_aa, rest.betas, transl)


def facing(objective: Objective, yaw_deg: float) -> Tensor:
    """Root rotations (B, 3, 3) of people who stand upright, turned by `yaw_deg` from facing the camera."""
    about_x, about_y = objective.target_BKR.new_tensor([[math.pi, 0, 0], [0, math.radians(yaw_deg), 0]])
    return (rot_from_aa(about_x) @ rot_from_aa(about_y)).repeat(len(objective), 1, 1)


def start_from_image(objective: Objective, torso_K: Tensor, root_B33: Tensor) -> FitState:
    """The mean pose with a given root rotation, as far away as its spread in the image tells."""
    assert objective.focal_B2 is not None
    rest = _mean_state(objective)
    turned = FitState(root_B33, rest.joints_aa, rest.betas, rest.transl)
    points_BKC = objective.points.evaluate(*_rest_arguments(turned)).points_CKB.permute(2, 1, 0)
    weight_BK1 = (objective.conf_BK * (1 + 2 * torso_K))[..., None]
    weight_BK1 = weight_BK1 / weight_BK1.sum(1, keepdim=True)
    centre_B1C, seen_B1R = (weight_BK1 * points_BKC).sum(1, True), (weight_BK1 * objective.target_BKR).sum(1, True)
    spread_BC = (weight_BK1 * (points_BKC - centre_B1C).square()).sum(1)
    seen_BR = (weight_BK1 * (objective.target_BKR - seen_B1R).square()).sum(1)
    depth_B = (objective.focal_B2.square() * spread_BC[:, :2]).sum(1).div(seen_BR.sum(1)).sqrt()
    place_B2 = seen_B1R[:, 0] * depth_B[:, None] / objective.focal_B2
    transl = torch.cat((place_B2, depth_B[:, None]), 1) - centre_B1C[:, 0]
    return FitState(turned.root_rot, turned.joints_aa, turned.betas, transl)


def mirrored_in_depth(objective: Objective, state: FitState) -> tuple[FitState, Tensor]:
    """Every person with one bone mirrored in depth, for each bone that then points clearly elsewhere.

    Returns
    -------
    states, people
        The hypotheses, and which person (index into the batch) each is of.
    """
    rot_BJCD = torch.cat((state.root_rot[:, None], rot_from_aa(state.joints_aa.unflatten(1, (-1, 3)))), 1)
    world_CDJB, place_CJB = objective.points.chain(rot_BJCD.permute(2, 3, 1, 0), state.betas.T)
    world_BJCD, place_BJC = world_CDJB.permute(3, 2, 0, 1), place_CJB.permute(2, 1, 0)
    sight_BJC = torch.nn.functional.normalize(place_BJC + state.transl[:, None], dim=-1)
    hypotheses, people = [], []
    for begin, end, turning in _JUMPS:
        bone = torch.nn.functional.normalize(place_BJC[:, end] - place_BJC[:, begin], dim=-1)
        sight = sight_BJC[:, begin]
        mirrored = bone - 2 * (bone * sight).sum(-1, keepdim=True) * sight
        axis = torch.linalg.cross(bone, mirrored)
        sine = axis.norm(dim=-1, keepdim=True)
        angle = torch.atan2(sine, (bone * mirrored).sum(-1, keepdim=True))
        turn = rot_from_aa(axis / sine.clamp_min(1e-6) * angle)
        keep = (sine[:, 0] > _LEAST_TURN).nonzero()[:, 0]
        if turning == 0:
            changed = FitState(turn @ state.root_rot, state.joints_aa, state.betas, state.transl)
        else:
            parent = world_BJCD[:, objective.points.parents[turning]]
            joints = state.joints_aa.clone()
            joints[:, 3 * turning - 3 : 3 * turning] = aa_from_rot(parent.mT @ turn @ world_BJCD[:, turning])
            changed = FitState(state.root_rot, joints, state.betas, state.transl)
        hypotheses.append(changed.select(keep))
        people.append(keep)
    return concatenate(hypotheses), torch.cat(people)


def _mean_state(objective: Objective) -> FitState:
    batch, like = len(objective), objective.target_BKR
    return FitState(
        torch.eye(3, dtype=like.dtype, device=like.device).repeat(batch, 1, 1),
        objective.prior.mean_BD.expand(batch, -1),
        like.new_zeros(batch, objective.points.num_betas),
        like.new_zeros(batch, 3),
    )


def _rest_arguments(state: FitState) -> tuple[Tensor, Tensor, Tensor]:
    rot = torch.cat((state.root_rot[:, None], rot_from_aa(state.joints_aa.unflatten(1, (-1, 3)))), 1)
    return rot.permute(2, 3, 1, 0), state.betas.T, state.transl.T
