"""Attention analysis: what is averaged, where it lands on the mesh, and the files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from metro.body.joints import JOINT_SETS
from metro.config import AttentionConfig
from metro.data.augment import normalise
from metro.errors import MetroError
from metro.evaluation import attention as a
from tests.conftest import World


@pytest.fixture(scope="module")
def measured(world: World) -> a.Attention:
    return a.measure_attention(world.model, world.dataset, AttentionConfig(samples=10, examples=3))


def test_rows_are_means_over_heads_and_images(world: World, measured: a.Attention) -> None:
    from metro.data.loader import EvalPass

    batch = next(iter(EvalPass(world.dataset, world.model.config, world.params.train.batch_size)))
    with torch.inference_mode():
        maps = world.model(normalise(batch["image"], batch["colour"]), need_attention=True).attention[-1][-1]
    assert measured.count == 10
    expected = np.mean([[maps[b, h, :14].numpy() for h in range(2)] for b in range(10)], axis=(0, 1))
    assert np.abs(measured.mean_LJT[-1] - expected).max() < 1e-6
    assert measured.mean_LJT.sum(2) == pytest.approx(np.ones((2, 14)))
    assert measured.to_joints().shape == (14, 14)
    assert measured.to_vertices().shape == (14, 60)
    assert measured.examples_LBJT.shape[1] == len(measured.images) == 3


def test_hand_tokens_are_split_at_21(hands: World) -> None:
    measured = a.measure_attention(hands.model, hands.dataset, AttentionConfig(samples=2, examples=1))
    assert measured.to_joints().shape == (21, 21)
    assert measured.to_vertices().shape == (21, 50)


def test_attention_lands_on_its_vertices(world: World) -> None:
    """All weight on one coarse vertex colours exactly the full vertices that copy it."""
    weights = np.zeros(60)
    weights[17] = 1
    full = a.on_full_mesh(weights, world.levels)
    index = np.arange(world.data.num_vertices)
    for level in world.levels:
        index = index[level.indices]
    assert full[index[17]] == 1
    assert full[np.delete(index, 17)].max() == 0


def test_parts_are_measured_against_an_even_spread(world: World) -> None:
    even = np.full((14, 74), 1 / 74)
    blank = np.zeros((0, 1))
    spread = a.Attention(JOINT_SETS["J14"], ((1, 1),), even[None], blank, blank, blank, blank, blank, blank, 1)
    parts = a.part_attention(spread, world.data, world.levels)
    assert parts.shape == (14, 24)
    assert np.nanmax(np.abs(parts - 1)) < 1e-9


def test_colours_are_grey_without_structure() -> None:
    even = a.colours(np.ones(50))
    assert np.ptp(even) < 0.04
    peak = a.colours(np.r_[np.ones(49), 10.0])
    assert peak[-1, 0] > 2 * peak[-1, 1]


def test_files(world: World, measured: a.Attention, tmp_path: Path) -> None:
    summary = a.write_attention(measured, world.data, world.levels, tmp_path)
    assert json.loads((tmp_path / "attention.json").read_text()) == summary
    assert {p.name for p in tmp_path.glob("*.png")} == {"joints.png", "parts.png", "mean.png", "examples.png"}
    assert [q["joint"] for q in summary["last"]["queries"]] == list(measured.joint_names)
    assert [(x["block"], x["layer"]) for x in summary["layers"]] == [(1, 1), (2, 1)]
    with np.load(tmp_path / "attention.npz") as arrays:
        assert np.array_equal(arrays["joint_joint"][-1], measured.to_joints())


def test_the_sharpest_layer_is_shown_beside_the_last(world: World, measured: a.Attention, tmp_path: Path) -> None:
    """All attention of the first layer on one token counts as one token in effect."""
    mean, examples = measured.mean_LJT.copy(), measured.examples_LBJT.copy()
    mean[0], examples[0] = np.eye(74)[20], np.eye(74)[20]
    effective = np.array([1.0, 74.0])
    sharp = dataclasses.replace(measured, mean_LJT=mean, examples_LBJT=examples, effective_L=effective)
    summary = a.write_attention(sharp, world.data, world.levels, tmp_path)
    assert (summary["sharpest"]["block"], summary["last"]["block"]) == (1, 2)
    assert summary["sharpest"]["share_on_joints"] == 0
    assert (tmp_path / "sharpest_mean.png").read_bytes() != (tmp_path / "mean.png").read_bytes()
    query = summary["sharpest"]["queries"][0]
    assert next(iter(query["top_parts"].values())) > 1


def test_effective_tokens(measured: a.Attention) -> None:
    """A narrow network fresh from N(0, 0.02) attends to everything alike."""
    assert measured.effective_L == pytest.approx([74, 74], rel=0.01)


def test_nothing_to_draw(world: World) -> None:
    with pytest.raises(MetroError, match="no records to load"):
        a.measure_attention(world.model, world.dataset.first(0), AttentionConfig(samples=2))
