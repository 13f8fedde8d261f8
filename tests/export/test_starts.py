"""Poses that a network sees in the people of shards: of the people asked for, in their order."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from metro.errors import MetroError
from metro.export import start
from metro.export.bundle import bundle_of
from metro.export.start import StartFrom
from tests.conftest import World


class Seer:
    """Gives the true meshes of the people whom it recognises by their pictures, pelvis at the origin."""

    def __init__(self, world: World, rows: list[int]) -> None:
        self.meta, self.faces_F3 = bundle_of(world.model, world.data, world.levels).meta, world.data.faces
        labels = world.dataset.labels
        self.pose = labels["pose_aa"][rows]
        self.vertices = world.body(
            torch.from_numpy(self.pose), torch.from_numpy(labels["betas"][rows]), torch.zeros(len(rows), 3)
        ).vertices.numpy()
        # Stored crops show the square around the person at 1.5 times its side: their middle is what is to be seen.
        self.pictures = [world.dataset.image(row)[16:80, 16:80] for row in rows]

    def __call__(self, pixels_BSS3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        away = [[np.abs(shown.astype(float) - own).mean() for own in self.pictures] for shown in pixels_BSS3]
        assert np.min(away, 1).max() < 8
        return np.zeros((len(away), 3)), np.zeros((len(away), 14, 3)), self.vertices[np.argmin(away, 1)]


def test_poses_are_those_of_the_people(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [4, 1, 7, 0]
    seer = Seer(world, rows)
    opened = []
    monkeypatch.setattr(start, "open_network", lambda source, device: opened.append(source) or seer)
    monkeypatch.setattr(start, "_BATCH", 3)
    begin = StartFrom("models/mine")
    begin.check(world.data)
    poses = pickle.loads(pickle.dumps(begin))(world.dataset.subset(rows), world.data)
    assert opened == ["models/mine", "models/mine"]  # not sent along: a process opens it for itself
    assert np.abs(poses[:, 3:] - seer.pose[:, 3:]).mean() < 0.03


def test_another_network_is_another_recipe_and_another_body_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seer = Seer(world, [0])
    monkeypatch.setattr(start, "open_network", lambda source, device: seer)
    recipe = StartFrom("a").recipe
    assert StartFrom("b").recipe == recipe
    seer.meta = seer.meta | {"origin": {"sha256": "another"}}
    assert StartFrom("a").recipe != recipe
    with pytest.raises(MetroError, match="--start a: was trained on another body"):
        StartFrom("a").check(replace(world.data, v_template=world.data.v_template * 1.01))
