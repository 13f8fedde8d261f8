"""What is frozen stays as it is, and nothing is kept or computed for its gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metro.errors import MetroError
from metro.model.metro import build_model
from metro.training.checkpoint import load_checkpoint
from metro.training.engine import build_optimizer, train
from metro.training.freeze import Frozen
from tests.training.conftest import Setting, small_params


def test_a_frozen_backbone_has_no_graph_and_keeps_its_statistics(setting: Setting):
    metro = build_model(setting.params.model, setting.body, setting.levels)
    before = {name: value.clone() for name, value in metro.backbone.state_dict().items()}
    Frozen(metro, ["backbone"]).train(metro)
    features = metro.backbone(torch.randn(2, 3, 32, 32))
    assert features.grad_fn is None
    assert metro.training
    assert all(torch.equal(value, before[name]) for name, value in metro.backbone.state_dict().items())
    optimized = sum(len(group["params"]) for group in build_optimizer(metro, setting.params.train).param_groups)
    assert optimized == sum(1 for name, _ in metro.named_parameters() if not name.startswith("backbone."))


def test_the_last_blocks_of_a_backbone_may_be_trained(setting: Setting):
    metro = build_model(setting.params.model, setting.body, setting.levels)
    Frozen(metro, ["backbone.net.conv1", "backbone.net.bn1", "backbone.net.layer1", "backbone.net.layer2"]).train(metro)
    metro(torch.randn(2, 3, 32, 32)).joints.sum().backward()
    moved = {name.split(".")[2] for name, p in metro.backbone.named_parameters("backbone") if p.grad is not None}
    assert moved == {"layer3", "layer4"}
    counted = {name for name, value in metro.backbone.state_dict().items() if "tracked" in name and value > 0}
    assert {name.split(".")[1] for name in counted} == {"layer3", "layer4"}


def test_names_of_nothing_are_refused(setting: Setting):
    metro = build_model(setting.params.model, setting.body, setting.levels)
    for name, message in {
        "bakbone": "no module with weights is called 'bakbone'; did you mean 'backbone'",
        "backbone.net.layer5.0": "'backbone.net.layer5.0'; did you mean 'backbone.net.layer",
        "backbone.relu": "'backbone.relu'; did you mean",
        "blocks.0.position_TD": "'blocks.0.position_TD'; did you mean 'blocks.0",
        "": "called ''; known: backbone, mix, blocks",
    }.items():
        with pytest.raises(MetroError, match=message):
            Frozen(metro, [name])
    with pytest.raises(MetroError, match="no weights are left to train"):
        Frozen(metro, ["backbone", "mix", "blocks", "camera"])


def test_a_run_moves_what_is_not_frozen_alone(setting: Setting, tmp_path: Path):
    arguments = (setting.datasets, setting.body, setting.levels)
    start = train(small_params(steps=1), *arguments, tmp_path / "start").checkpoint
    params = small_params(steps=3, freeze=["backbone", "blocks.1"], init=str(start.folder))
    train(params, *arguments, tmp_path / "run")
    saved = load_checkpoint(tmp_path / "run" / "step-00000003")
    before, own = start.weights(), saved.training_state()["weights"]
    for weights in (own, saved.weights()):  # those of the last step, and their average
        same = {name for name, value in weights.items() if torch.equal(value, before[name])}
        assert same == {name for name in before if name.startswith(("backbone.", "blocks.1."))}
