"""What the queries start from: the template mesh and its joints.

Shape suffixes: T token (joints, then coarse vertices), K regressed joint, V vertex of the full mesh.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metro.body.arrays import BodyData
from metro.body.figure import FIGURES
from metro.body.model import BodyModel
from metro.config import ModelConfig
from metro.mesh.sampling import Level, compose_indices

TEMPLATE_TURN = 3.1416  # official literal, not pi: y up (body model) to y down (camera)
LOWERED_ARMS = {"left_shoulder": -1.1, "right_shoulder": 1.1}  # radians about the body's z, of the `relaxed` template


def template_tokens(config: ModelConfig, mesh: tuple[Tensor, Tensor], levels: Sequence[Level]) -> Tensor:
    """Query positions (T, 3): joints, then coarse vertices of a `template_mesh`, metres, root at the origin.

    Queries with `positions: learned` are all at the origin; `queries: vertices` leaves the joints out.
    """
    vertices_V3, joints_K3 = mesh
    tokens_T3 = vertices_V3[torch.from_numpy(compose_indices(levels)[-1]).long()]
    if config.queries == "both":
        tokens_T3 = torch.cat([joints_K3[FIGURES[config.joint_set].token_rows], tokens_T3])
    return tokens_T3 if config.positions == "template" else torch.zeros_like(tokens_T3)


def template_mesh(config: ModelConfig, body: BodyData) -> tuple[Tensor, Tensor]:
    """The template pose at full resolution: vertices (V, 3) and joints (K, 3), metres, root at the origin.

    Official bodies stand in zero pose, turned by 3.1416 about x into camera axes; hands take the model's mean pose.
    """
    model = BodyModel(body)
    pose_aa = torch.zeros(1, 3 * model.num_joints)
    if not body.is_hand:  # a hand's zero pose is its mean pose
        pose_aa[0, 0] = TEMPLATE_TURN
        if config.template == "relaxed":
            for name, turn in LOWERED_ARMS.items():
                pose_aa[0, 3 * body.joint_names.index(name) + 2] = turn
    output = model(pose_aa, torch.zeros(1, model.num_betas))
    joints_K3 = model.true_joints(output)[0]  # the first is the origin: pelvis or wrist
    return output.vertices[0] - joints_K3[0], joints_K3 - joints_K3[0]
