"""Mean-pose baselines: what a predictor scores that never looks at the image.

Three of them stand beside every result, all made from the labels of the *training* sets:

- **camera mean**: the mean mesh in the camera frame. Best constant for MPJPE and MPVE, but where headings vary it is a
  collapsed column, so its PA-MPJPE is a straw man.
- **canonical mean**: the mean after undoing each sample's heading (a hand: its whole orientation). A human shape that
  faces the camera; the fair constant for PA-MPJPE.
- **canonical mean, true heading**: the canonical mean turned by the true heading of each test sample. An oracle: it
  tells how much of a gain is heading and how much is articulation.

Frames: camera frame of OpenCV (x right, y down, z forward), root-relative, metres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metro.body.figure import FIGURES
from metro.body.joints import index_map, names_of
from metro.body.model import BodyModel
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.files import read_arrays, readable

BASELINES = ("camera_mean", "canonical_mean", "canonical_true_heading")
"""Names of the baselines, in the order of tables."""


@dataclass(frozen=True)
class Baselines:
    """Mean meshes of a training set, root-relative."""

    camera_V3: np.ndarray
    """Mean in the camera frame."""
    canonical_V3: np.ndarray
    """Mean after undoing the heading (hand: the orientation); the person faces the camera."""
    count: int
    """Meshes averaged."""
    origin: str
    """Where the labels come from, for the report."""

    def predict(self, name: str, truth_BJ3: Tensor, joint_set: str) -> Tensor:
        """Prediction (B, V, 3) of the baseline `name`; only the oracle looks at the true joints."""
        mesh = torch.as_tensor(self.camera_V3 if name == "camera_mean" else self.canonical_V3).to(truth_BJ3)
        batch = mesh.expand(len(truth_BJ3), -1, -1)
        if name == "canonical_true_heading":
            batch = batch @ facing_rotation(truth_BJ3, joint_set).to(batch).transpose(1, 2)
        return batch

    def save(self, path: Path) -> None:
        """Write an npz."""
        np.savez(path, camera=self.camera_V3, canonical=self.canonical_V3, count=self.count, origin=self.origin)

    @classmethod
    def load(cls, path: Path) -> Baselines:
        """Read the npz that `save` wrote."""
        remedy = "the `catalogue` stage makes it"
        arrays = read_arrays(path, remedy)
        with readable(path, remedy):
            camera, canonical = arrays["camera"], arrays["canonical"]
            count, origin = int(arrays["count"].item()), arrays["origin"].item()
            shapes = {camera.shape, canonical.shape}
            if len(shapes) != 1 or camera.ndim != 2 or camera.shape[1] != 3 or count < 1 or not isinstance(origin, str):
                raise ValueError("no two mean meshes")
            for mesh in (camera, canonical):
                if mesh.dtype.kind != "f" or not np.isfinite(mesh).all():
                    raise ValueError("a mean mesh that is not finite")
        return cls(camera.astype(np.float32), canonical.astype(np.float32), count, origin)


def facing_rotation(joints_BJ3: Tensor, joint_set: str) -> Tensor:
    """Rotation (B, 3, 3) that turns a canonical person (facing the camera) to how each sample stands.

    A body turns about the vertical axis of the camera alone, by its heading; a hand by its whole orientation. Only
    differences between joints enter, so any root will do.
    """
    if not FIGURES[joint_set].upright:
        return _hand_frame(joints_BJ3)
    angle = heading(joints_BJ3, joint_set)
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    return torch.stack((cos, zero, -sin, zero, one, zero, sin, zero, cos), -1).reshape(-1, 3, 3)


def heading(joints_BJ3: Tensor, joint_set: str) -> Tensor:
    """Heading (B,) in radians, from joints in the camera frame: 0 faces the camera, ±π shows the back.

    Positive when the person faces the right edge of the picture. The chest points along (left side) × (upwards).
    """
    at = {name: joints_BJ3[:, j] for j, name in enumerate(names_of(joint_set))}
    left = at["L_Hip"] - at["R_Hip"] + at["L_Shoulder"] - at["R_Shoulder"]
    up = at["Neck"] - (at["L_Hip"] + at["R_Hip"]) / 2
    chest = torch.linalg.cross(left, up)
    return torch.atan2(chest[:, 0], -chest[:, 2])


def _hand_frame(joints_BJ3: Tensor) -> Tensor:
    """Rotation (B, 3, 3) whose columns are a hand's axes: towards the middle finger, across the palm, normal."""
    wrist, index, middle, pinky = (
        joints_BJ3[:, j] for j in index_map("HAND21", ("Wrist", "Index1", "Middle1", "Pinky1"))
    )
    along = torch.nn.functional.normalize(middle - wrist, dim=-1)
    across = index - pinky
    across = torch.nn.functional.normalize(across - (across * along).sum(-1, keepdim=True) * along, dim=-1)
    return torch.stack((along, across, torch.linalg.cross(along, across)), -1)


def mean_poses(
    datasets: Sequence[ShardDataset],
    body: BodyModel,
    *,
    limit: int = 2000,
    batch_size: int = 64,
    origin: str = "training labels",
) -> Baselines:
    """Mean meshes of the training labels.

    Parameters
    ----------
    datasets
        Training sets; their meshes (mocap, synthetic, or accepted fits) are averaged.
    body
        The body model, neutral, with its `variants` where people have a gender.
    limit
        Meshes used at most, spread evenly over the sets. The error of a mean of 2000 meshes is a few millimetres,
        far below what the baselines are compared with.
    origin
        What the result says about where the labels come from.

    Raises
    ------
    MetroError
        No training set has meshes.
    """
    poses, shapes, genders = [], [], []
    for dataset in datasets:
        rows = np.flatnonzero(dataset.labels["has_mesh"])
        poses.append(dataset.labels["pose_aa"][rows])
        shapes.append(dataset.labels["betas"][rows])
        genders.append(dataset.labels["gender"][rows])
    if not sum(map(len, poses)):
        raise MetroError(
            "mean-pose baselines: no training set has meshes; run its `fit@NAME` stage, or add one that has"
        )
    pose, betas, gender = (np.concatenate(column) for column in (poses, shapes, genders))
    rows = np.unique(np.linspace(0, len(pose) - 1, min(limit, len(pose))).round().astype(int))
    figure = body.figure
    device = body.template_C.device
    camera = torch.zeros(body.num_vertices, 3, dtype=torch.float64, device=device)
    canonical = torch.zeros_like(camera)
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            pose_BP, betas_BS = (torch.as_tensor(a[part], dtype=torch.float32, device=device) for a in (pose, betas))
            gender_B = torch.as_tensor(gender[part], device=device) if gender[part].any() else None
            vertices = body.of_people(pose_BP, betas_BS, gender_B).vertices
            joints = body.regress(figure.regressor, vertices)
            vertices = vertices - joints[:, :1]  # row 0 is the root: pelvis or wrist
            joints = joints[:, figure.token_rows]
            camera += vertices.double().sum(0)
            canonical += (vertices @ facing_rotation(joints, figure.joint_set)).double().sum(0)
    return Baselines(
        (camera / len(rows)).float().cpu().numpy(),
        (canonical / len(rows)).float().cpu().numpy(),
        len(rows),
        origin,
    )


def heading_degrees(joints_BJ3: Tensor, joint_set: str) -> Tensor:
    """Heading (B,) in degrees; nan for hands, which have none."""
    if not FIGURES[joint_set].upright:
        return torch.full((len(joints_BJ3),), math.nan, device=joints_BJ3.device)
    return torch.rad2deg(heading(joints_BJ3, joint_set))
