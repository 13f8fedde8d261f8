"""What the queries stand for: the template mesh that they start from and the joints that are read off a mesh.

Shape suffixes: T token (joints, then coarse vertices), K regressed joint, V vertex of the full mesh.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metro.body.arrays import BodyData
from metro.body.joints import JOINT_SETS, index_map
from metro.body.model import BodyModel
from metro.config import ModelConfig
from metro.mesh.sampling import Level, compose_indices

TEMPLATE_TURN = 3.1416  # official literal, not pi: y up (body model) to y down (camera)
LOWERED_ARMS = {"left_shoulder": -1.1, "right_shoulder": 1.1}  # radians about the body's z, of the `relaxed` template
MESH_JOINTS = {"J14": "h36m17", "HAND21": "hand21"}  # regressor that reads the joints off the mesh
LABEL_JOINTS = {"J14": ("J24", "Pelvis"), "HAND21": ("HAND21", "Wrist")}  # joints of the labels, and which is the root
ROOT_JOINTS = {"J14": ("R_Hip", "L_Hip"), "HAND21": ("Wrist",)}  # whose mean is the root in losses and metrics


def template_tokens(config: ModelConfig, body: BodyData, levels: Sequence[Level]) -> Tensor:
    """Query positions (T, 3): joints, then coarse vertices of the template pose, metres, root at the origin.

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
    vertices_V3 = output.vertices[0]
    # Row 0 is the root: pelvis or wrist.
    joints_K3 = (model.hand_joints(output) if body.is_hand else model.regress("h36m17", output.vertices))[0]
    coarse = torch.from_numpy(compose_indices(levels)[-1]).long()
    tokens_T3 = torch.cat([joints_K3[mesh_joint_rows(config.joint_set)], vertices_V3[coarse]])
    return tokens_T3 - joints_K3[0]


def mesh_joint_rows(joint_set: str) -> list[int]:
    """Rows of the mesh regressor, in the order of the joint tokens."""
    return index_map("H36M17", "J14") if joint_set == "J14" else list(range(len(JOINT_SETS[joint_set])))
