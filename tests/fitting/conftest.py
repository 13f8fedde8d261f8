"""Synthetic people with known pose, shape and position, and the labels a dataset would have of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from metro.body.arrays import BodyData
from metro.body.load import load_body
from metro.body.model import BodyModel
from tools.pose_prior import sample


@dataclass
class People:
    """The truth, and labels made from the mesh."""

    pose_aa: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    vertices: torch.Tensor
    labels: dict[str, np.ndarray]

    def only(self, kind: str, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Copies of the labels, of some people, with `2d` or `3d` joints alone."""
        labels = {name: values[rows].copy() for name, values in self.labels.items()}
        labels["has_2d" if kind == "3d" else "has_3d"][:] = False
        return labels


@pytest.fixture(scope="session")
def body() -> BodyData:
    return load_body("open")


@pytest.fixture(scope="session")
def model(body: BodyData) -> BodyModel:
    return BodyModel(body)


@pytest.fixture(scope="session")
def people(model: BodyModel) -> People:
    """Thirty people, facing anywhere, three to six metres away, seen by a camera of 1000 px focal length."""
    torch.set_num_threads(1)
    count, focal, rng = 30, 1000.0, np.random.default_rng(4)
    turned = Rotation.from_euler("y", rng.uniform(-180, 180, (count, 1)), degrees=True)
    tilted = Rotation.from_euler("xz", rng.normal(0, 8, (count, 2)), degrees=True)
    root = Rotation.from_euler("x", [[180.0]], degrees=True) * tilted * turned
    pose = np.c_[root.as_rotvec(), sample(count, seed=2)].astype(np.float32)
    betas = rng.normal(0, 1, (count, 10)).clip(-2.5, 2.5).astype(np.float32)
    depth = rng.uniform(3, 6, count)
    transl = np.c_[rng.uniform(-0.1, 0.1, (count, 2)) * depth[:, None], depth].astype(np.float32)
    vertices = model(*map(torch.from_numpy, (pose, betas, transl))).vertices
    joints = model.regress("j24", vertices).numpy().astype(np.float64)
    camera = np.array([[focal, 0, 500], [0, focal, 400], [0, 0, 1]])
    pixels = joints @ camera.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    low, high = pixels.min(1), pixels.max(1)
    ones = np.ones((count, 24, 1))
    labels = {
        "joints_2d": np.concatenate((pixels, ones), 2),
        "joints_3d": np.concatenate((joints, ones), 2),
        "has_2d": np.ones(count, bool),
        "has_3d": np.ones(count, bool),
        "center": (low + high) / 2,
        "scale": 1.2 * (high - low).max(1) / 200,
        "intrinsics": np.repeat(camera[None], count, 0),
    }
    return People(pose, betas, transl, vertices, labels)


def mpjpe_mm(model: BodyModel, people: People, fits, rows: slice = slice(None)) -> np.ndarray:
    """Mean error (N,) of METRO's evaluation joints relative to the pelvis, millimetres."""
    found = model(*map(torch.from_numpy, (fits.pose_aa, fits.betas, fits.transl))).vertices
    ours, true = (model.regress("h36m17", v) for v in (found, people.vertices[rows]))
    difference = (ours - ours[:, :1]) - (true - true[:, :1])
    return 1000 * difference.norm(dim=-1).mean(1).numpy()
