"""Small networks of the real kind, without a body model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from metro.config import BlockConfig, ModelConfig
from metro.mesh.sampling import Level
from metro.model.metro import Metro

Make = Callable[..., Metro]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def levels() -> list[Level]:
    """Meshes of 90, 30 and 10 vertices; rows of one to three entries."""
    rng = np.random.default_rng(0)
    made = []
    for fine, coarse in ((90, 30), (30, 10)):
        up = sp.lil_matrix((fine, coarse))
        for row in range(fine):
            columns = rng.choice(coarse, rng.integers(1, 4), replace=False)
            weights = rng.random(len(columns))
            up[row, columns] = weights / weights.sum()
        made.append(Level(np.arange(coarse), up.tocsr(), np.zeros((0, 3), np.int32)))
    return made


@pytest.fixture(scope="session")
def make(levels: list[Level]) -> Make:
    """Build a small network; keyword arguments go to its configuration."""

    def build(**changes: Any) -> Metro:
        tiny = (
            BlockConfig(width=24, out=16, layers=2, heads=2, ffn=40),
            BlockConfig(width=16, out=8, layers=1, heads=2, ffn=20),
            BlockConfig(width=8, out=3, layers=2, heads=2, ffn=12),
        )
        hand = changes.get("joint_set") == "HAND21"
        config = ModelConfig(
            **{"image_size": 64, "backbone": "resnet18", "blocks": tiny, "camera_width": 9, "dropout": 0.0} | changes
        )
        rng = np.random.default_rng(1)
        joints = 21 if hand else 14
        template = rng.normal(0, 0.4, (joints + 10, 3)).astype(np.float32)
        regressor = sp.csr_matrix(rng.dirichlet(np.ones(90), joints))
        vertices = np.concatenate([template[joints:], rng.normal(0, 0.4, (80, 3)).astype(np.float32)])
        strip = np.arange(88)[:, None] + np.arange(3)
        torch.manual_seed(0)
        return Metro(config, template, levels, regressor, (vertices, strip)).eval()

    return build


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
