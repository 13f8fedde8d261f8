"""From a checkpoint's files to a network: with the levels it was trained with, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metro.body.arrays import digest
from metro.errors import MetroError
from metro.mesh.legacy import require_published
from metro.training.checkpoint import load_checkpoint, save_checkpoint
from metro.training.restore import restore
from tests.conftest import World, nearest_levels


def test_a_network_comes_back_with_its_own_levels(world: World, tmp_path: Path) -> None:
    told = {"params": world.params, "step": 1, "metrics": {}, "body_digest": digest(world.data)}
    folder = save_checkpoint(tmp_path / "c", world.model.state_dict(), levels=world.levels, **told)
    found = load_checkpoint(folder)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = world.model(images).vertices[-1]
        for network in (restore(found, world.data), restore(found, world.data, world.levels)):
            torch.testing.assert_close(network(images).vertices[-1], expected, rtol=0, atol=1e-6)
    other = nearest_levels(world.data.v_template[::-1], (300, 60))  # as many vertices, others
    with pytest.raises(MetroError, match=r"c: trained with other mesh levels \(.* set sampling\.checkpoint to it"):
        restore(found, world.data, other)


def test_official_weights_are_for_the_published_levels(world: World) -> None:
    with pytest.raises(MetroError, match=r"w\.bin: official weights belong to the published mesh levels"):
        require_published(world.levels, "w.bin")
