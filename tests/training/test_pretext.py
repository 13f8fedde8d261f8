from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from metro.training.checkpoint import load_checkpoint
from metro.training.engine import train
from metro.training.pretext import location_loss
from metro.training.schedule import learning_rate
from tests.training.conftest import Setting, small_params

SIDE = 16


def labels(x: float, y: float, z: float, confidence: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A root without 2D label, and one joint at x, y (crop) and z (metres behind the root)."""
    joints_2d = torch.tensor([[[0.0, 0.0, 0.0], [x, y, confidence]]])
    joints_3d = torch.tensor([[[0.0, 0.0, 3.0, 1.0], [0.0, 0.0, 3.0 + z, confidence]]])
    return joints_2d, joints_3d


def belief(row: int, column: int) -> torch.Tensor:
    logits = torch.full((1, 2, SIDE, SIDE), -20.0)
    logits[:, :, row, column] = 20.0
    return logits.flatten(2)


def test_undecided_maps_cost_the_entropy_of_the_places():
    flat = torch.zeros(1, 2, SIDE**2)
    loss = location_loss(flat, flat, *labels(0.3, -0.2, 0.0), root=0)
    assert loss == pytest.approx(np.log(SIDE**2))


def test_the_right_place_costs_least():
    flat = torch.zeros(1, 2, SIDE**2)
    # x = -1 + (2 · 11 + 1) / 16 and y = -1 + (2 · 3 + 1) / 16 are the centre of column 11, row 3.
    truth = labels(0.4375, -0.5625, 0.0)
    costs = {(r, c): float(location_loss(belief(r, c), flat, *truth, root=0)) for r in range(SIDE) for c in range(SIDE)}
    assert min(costs, key=costs.__getitem__) == (3, 11)


def test_depth_is_read_at_the_joint():
    depth = torch.zeros(1, 2, SIDE, SIDE)
    depth[:, :, 3, 11] = 0.4
    where, truth = belief(3, 11), labels(0.4375, -0.5625, 0.4)
    without = location_loss(where, torch.zeros(1, 2, SIDE**2), *truth, root=0)
    assert location_loss(where, depth.flatten(2), *truth, root=0) < without - 1.0


@pytest.mark.parametrize("where", [(3.0, 0.0), (0.0, -2.5)])
def test_joints_outside_or_without_confidence_do_not_count(where):
    logits, depth = torch.randn(1, 2, SIDE**2), torch.randn(1, 2, SIDE**2)
    assert location_loss(logits, depth, *labels(*where, 0.2), root=0) == 0
    assert location_loss(logits, depth, *labels(0.1, 0.1, 0.2, confidence=0.0), root=0) == 0


def test_training_starts_from_the_taught_backbone_and_repeats(setting: Setting, tmp_path: Path):
    results = []
    for run in ("a", "b"):
        params = small_params(steps=1, lr=0.0, ema=None, pretext={"steps": 3, "batch_size": 4, "lr": 1e-3})
        train(params, setting.datasets, setting.body, setting.levels, tmp_path / run)
        results.append(load_checkpoint(tmp_path / run / "step-00000001").weights())
    plain = train(
        small_params(steps=1, lr=0.0, ema=None), setting.datasets, setting.body, setting.levels, tmp_path / "c"
    )
    untaught = plain.checkpoint.weights()
    name = "backbone.net.conv1.weight" if "backbone.net.conv1.weight" in untaught else next(iter(untaught))
    assert torch.equal(results[0][name], results[1][name])
    assert not torch.equal(results[0][name], untaught[name])


def test_an_interrupted_lesson_goes_on_to_the_same_backbone(setting: Setting, tmp_path: Path, monkeypatch):
    class KilledError(Exception):
        pass

    def killed_at_3(step, config):
        if step == 3 and config.steps == 4:
            raise KilledError
        return learning_rate(step, config)

    params = small_params(steps=1, save_every=2, pretext={"steps": 4, "batch_size": 4, "lr": 1e-3})
    arguments = (params, setting.datasets, setting.body, setting.levels)
    train(*arguments, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("metro.training.pretext.learning_rate", killed_at_3)
        with pytest.raises(KilledError):
            train(*arguments, tmp_path / "cut")
    assert (tmp_path / "cut" / "pretext.pt").is_file()
    train(*arguments, tmp_path / "cut")
    whole, cut = ((tmp_path / run / "pretext.safetensors").read_bytes() for run in ("whole", "cut"))
    assert cut == whole
    assert not (tmp_path / "cut" / "pretext.pt").exists()
