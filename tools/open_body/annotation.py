"""Joint regressors of the body: Human3.6M's 17 joints and METRO's 24, from posed bodies so that they hold under pose.

The targets are definitions of this project, placed on the kinematic joints and the surface as the names say; they are
not motion capture, so errors measured with them do not compare with published ones.
"""

from __future__ import annotations

import numpy as np
import torch

from metro.body.arrays import BodyData
from metro.body.joints import JOINT_SETS
from metro.body.model import BodyModel
from tools.open_body.poses import sample_poses
from tools.open_body.shape import convex_row
from tools.open_body.slots import SLOTS

COUNT = 240

_CANDIDATES = {
    **dict.fromkeys(("Pelvis", "Torso", "Spine"), 900),
    **dict.fromkeys(("Neck", "Thorax", "L_Hip"), 700),
    "L_Shoulder": 500,
}
_NEAREST = 320

# Points on the surface become soft patches instead of single vertices.
_SURFACE = ("Nose", "Head", "Top_of_Head", "Jaw", "L_Eye", "L_Ear")
_PATCH = 12
_PATCH_RADIUS = 0.012

_LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")


def annotation_regressors(body: BodyData, mirror: np.ndarray) -> dict[str, np.ndarray]:
    """Rows `h36m17`, `j24` and `coco17`, (K, V).

    Parameters
    ----------
    body
        Finished body without regressors.
    mirror
        (V,) mirrored vertices; right rows mirror left ones.
    """
    vertices, joints = _posed_bodies(body)
    rest = body.v_template.astype(np.float64)
    chin = _chin(body, rest)
    targets = _targets(vertices, joints, chin, int(rest[:, 1].argmax()))
    at_rest = _targets(rest[None], (body.J_regressor @ rest)[None], chin, int(rest[:, 1].argmax()))
    rows: dict[str, np.ndarray] = {}
    for name in targets:
        distance = np.linalg.norm(rest - at_rest[name][0], axis=1)
        row = np.zeros(len(rest))
        if name in _SURFACE:
            near = np.argsort(distance)[:_PATCH]
            row[near] = np.exp(-((distance[near] / _PATCH_RADIUS) ** 2))
            row /= row.sum()
        else:
            near = np.argsort(distance)[: _CANDIDATES.get(name, _NEAREST)]
            relative = vertices[:, near] - targets[name][:, None]
            fit = 1 / np.sqrt(3 * len(vertices))
            row[near] = convex_row(relative, np.zeros((len(vertices), 3)), fit, 10, 0.02, 60 * len(near))
        if name.startswith("L_"):
            rows[name], rows["R_" + name.removeprefix("L_")] = row, row[mirror]
        else:
            rows[name] = (row + row[mirror]) / 2
    return {key: np.stack([rows[name] for name in JOINT_SETS[key.upper()]]) for key in ("h36m17", "j24", "coco17")}


def _posed_bodies(body: BodyData) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and kinematic joints of random people in random poses."""
    poses = sample_poses(COUNT, seed=11, uniform_share=0.3, any_heading=True)
    betas = np.random.default_rng(11).normal(size=(COUNT, body.num_betas)).clip(-2.5, 2.5)
    model = BodyModel(body, dtype=torch.float64)
    out = [
        model(betas=torch.tensor(betas[i : i + 40]), pose_rot=torch.tensor(poses[i : i + 40]))
        for i in range(0, COUNT, 40)
    ]
    return torch.cat([o.vertices for o in out]).numpy(), torch.cat([o.joints for o in out]).numpy()


def _chin(body: BodyData, rest: np.ndarray) -> int:
    """Lowest vertex at the front of the face's mid-line."""
    head = body.weights[:, body.joint_names.index("head")] > 0.8
    front = rest[:, 2] > rest[SLOTS["nose"], 2] - 0.06
    members = np.flatnonzero(head & (np.abs(rest[:, 0]) < 0.012) & front)
    return int(members[np.argmin(rest[members, 1])])


def _targets(vertices: np.ndarray, joints: np.ndarray, chin: int, top: int) -> dict[str, np.ndarray]:
    """Wanted points (N, 3) by joint name; of the paired ones the left."""

    def joint(name: str) -> np.ndarray:
        return joints[:, JOINT_SETS["SMPL24"].index(name)]

    def middle(name: str) -> np.ndarray:
        return (joint(f"left_{name}") + joint(f"right_{name}")) / 2

    return {
        **{f"L_{name.capitalize()}": joint(f"left_{name}") for name in _LIMBS},
        "Pelvis": 0.5 * middle("hip") + 0.5 * joint("pelvis"),
        "Torso": 0.5 * (joint("spine2") + joint("spine1")),
        "Spine": joint("spine2"),
        "Neck": 0.5 * joint("neck") + 0.5 * middle("shoulder"),
        "Thorax": middle("shoulder"),
        "Nose": vertices[:, SLOTS["nose"]],
        "Head": vertices[:, top],
        "Top_of_Head": vertices[:, top],
        "Jaw": vertices[:, chin],
        "L_Eye": vertices[:, SLOTS["left_eye"]],
        "L_Ear": vertices[:, SLOTS["left_ear"]],
    }
