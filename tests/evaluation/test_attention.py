"""Attention analysis: what is averaged, by which part, whom it shows, and the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from metro.body.arrays import BodyData
from metro.body.figure import BODY, HAND
from metro.body.joints import JOINT_SETS
from metro.config import AttentionConfig
from metro.data.augment import normalise
from metro.data.loader import EvalPass
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.evaluation import attention as a
from metro.evaluation.hardness import Hidden, folding
from metro.evaluation.moments import Moments
from metro.export.predictor import read_image
from tests.conftest import World

ASTRONAUT = Path(__file__).parents[2] / "docs/images/astronaut.jpg"


@pytest.fixture(scope="module")
def measured(world: World) -> a.Attention:
    return run(world, samples=10, examples=4)


def run(world: World, dataset: ShardDataset | None = None, batch_size: int = 8, **config: int) -> a.Attention:
    data = world.dataset if dataset is None else dataset
    return a.measure_attention(
        world.model, data, world.data, world.levels, AttentionConfig(**config), batch_size=batch_size
    )


@pytest.mark.parametrize("cuts", [[], [1], [3, 3, 20], list(range(1, 40))])
def test_moments_are_those_of_all_samples_however_they_come(cuts: list[int]) -> None:
    samples = 1e6 + np.random.default_rng(0).normal(size=(40, 3))
    moments = Moments((3,))
    for part in np.split(samples, cuts):
        moments.add(part)
    assert moments.count == 40
    assert np.abs(moments.mean - samples.mean(0)).max() < 1e-9
    assert np.abs(moments.variance - samples.var(0, ddof=1)).max() < 1e-9
    low, high = moments.interval
    assert (high - low) / 2 == pytest.approx(1.96 * samples.std(0, ddof=1) / 40**0.5, rel=1e-4)


def test_one_sample_has_no_interval() -> None:
    moments = Moments()
    moments.add([4.0])
    assert moments.mean == 4
    assert np.isnan([moments.variance, *moments.interval]).all()


def test_maps_are_means_over_heads_and_images(world: World, measured: a.Attention) -> None:
    batch = next(iter(EvalPass(world.dataset.first(10), world.model.config, 10)))
    with torch.inference_mode():
        blocks = world.model(normalise(batch["image"], batch["colour"]), need_attention=True).attention
    assert measured.count == 10
    assert measured.heads == ((1, 1, 1), (1, 1, 2), (2, 1, 1), (2, 1, 2))
    assert measured.layers == ((1, 1), (2, 1))
    last = blocks[1][0][:, :, :14].double().numpy()
    assert np.abs(measured.by_head.mean[3] - last[:, 1].mean(0)).max() < 1e-6
    assert np.abs(measured.by_head.variance[3] - last[:, 1].var(0, ddof=1)).max() < 1e-9
    assert np.abs(measured.by_layer.mean[-1] - last.mean((0, 1))).max() < 1e-6
    assert measured.by_layer.mean.sum(2) == pytest.approx(np.ones((2, 14)))
    assert measured.to_joints().shape == (14, 14)
    assert measured.to_vertices().shape == (14, 60)


def test_batches_do_not_change_the_result(world: World, measured: a.Attention) -> None:
    other = run(world, batch_size=3, samples=10, examples=4)
    for name in ("by_head", "by_layer", "by_part", "overall", "claim", "effective"):
        one, two = getattr(measured, name), getattr(other, name)
        assert np.abs(one.mean - two.mean).max() < 1e-12
        assert np.abs(one.variance - two.variance).max() < 1e-12
    assert [e.index for e in measured.examples] == [e.index for e in other.examples]


def test_all_of_a_set_is_the_word_for_no_number(world: World) -> None:
    assert AttentionConfig.model_validate({"samples": "none"}).samples is None
    config = AttentionConfig(samples=None, examples=1)
    assert a.measure_attention(world.model, world.dataset, world.data, world.levels, config).count == 12


def test_hand_tokens_are_split_at_21(hands: World) -> None:
    measured = run(hands, samples=2, examples=2)
    assert measured.to_joints().shape == (21, 21)
    assert measured.to_vertices().shape == (21, 50)
    assert {"Wrist", "Index1"} <= set(measured.parts.names) <= set(JOINT_SETS["MANO16"])
    assert a.verdict(measured, 0) == ""
    assert [e.kind for e in measured.examples] == ["plain", "folded"]  # how much of a hand is hidden nobody tells


@pytest.mark.parametrize("bones", ["SMPL24", "SMPLX55"])
def test_every_bone_of_a_body_is_of_one_of_14_parts(bones: str) -> None:
    sided = {f"{side} {part}" for side in ("left", "right") for part in a.BONES if part not in ("head", "trunk")}
    assert {a._part(bone) for bone in JOINT_SETS[bones]} == sided | {"head", "trunk"}
    assert a._part("left_elbow") == "left lower arm"
    assert a._part("right_knee") == "right lower leg"


def test_parts_are_measured_against_an_even_spread(world: World) -> None:
    parts = a.parts_of(world.data, world.levels)
    assert np.abs(parts.times_even(np.full((2, 14, 74), 1 / 74)) - 1).max() < 1e-12
    assert (parts.of_PV.sum(0) == 1).all()
    head = parts.names.index("head")
    on_head = np.zeros(74)
    on_head[14:][parts.of_PV[head]] = 1 / parts.of_PV[head].sum()
    times = parts.times_even(on_head)
    assert times[head] == pytest.approx(74 / parts.of_PV[head].sum())
    assert np.delete(times, head).max() == 0


def seen(weights_T: np.ndarray) -> a.Seen:
    blank = np.zeros((1, 3))
    return a.Seen(np.broadcast_to(weights_T, (1, 14, len(weights_T))), np.ones(1), blank, blank, np.zeros(3))


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([0.9, 0.8], "confirmed"),
        ([0.02, 0.0], "refuted"),
        ([0.9, 0.0], "undecided"),
        ([0.9], "one image gives no interval"),
    ],
)
def test_the_finding_of_the_paper_is_judged_by_its_interval(world: World, shares: list[float], said: str) -> None:
    """A share of the attention lies on lower arms and legs, the rest on all others."""
    parts = a.parts_of(world.data, world.levels)
    names = ("left lower arm", "right lower arm", "left lower leg", "right lower leg")
    limbs_V = parts.of_PV[[name in names for name in parts.names]].any(0)
    measured = a.Attention("J14", ((1, 1, 1),), parts, 74)
    for share in shares:
        weights = np.zeros(74)
        weights[14:] = np.where(limbs_V, share / limbs_V.sum(), (1 - share) / (~limbs_V).sum())
        measured.add([seen(weights)])
    assert said in a.verdict(measured, 0)
    mean = np.mean(shares)
    assert measured.claim.mean[0] == pytest.approx(
        [74 * mean / limbs_V.sum(), 74 * (1 - mean) / (~limbs_V).sum(), measured.claim.mean[0, 2]]
    )


def test_what_is_the_same_for_everybody(world: World) -> None:
    parts, rng = a.parts_of(world.data, world.levels), np.random.default_rng(0)
    same, own = (a.Attention("J14", ((1, 1, 1),), parts, 74) for _ in range(2))
    fixed = rng.dirichlet(np.ones(74))
    for _ in range(200):
        same.add([seen(fixed)])
        own.add([seen(rng.dirichlet(np.ones(74)))])
    assert same.same_for_all(0) == pytest.approx(1)
    assert own.same_for_all(0) < 0.02


def test_examples_are_the_hardest_people(world: World, measured: a.Attention) -> None:
    assert [e.kind for e in measured.examples] == ["hidden", "folded", "plain", "hidden"]
    hidden, folded, *_ = measured.examples
    assert len({e.index for e in measured.examples}) == 4
    images = next(iter(EvalPass(world.dataset.first(10), world.model.config, 10)))["image"].numpy()
    assert hidden.index == Hidden()(images).argmax()
    bends = [knees_elbows_hips(world.dataset.labels["joints_3d"][k]) for k in range(10)]
    bends[hidden.index] = 0
    assert folded.index == np.argmax(bends)
    assert folded.folding == pytest.approx(max(bends), abs=0.01)
    assert np.array_equal(hidden.image, images[hidden.index])


def knees_elbows_hips(joints_J4: np.ndarray) -> float:
    """Mean bend in degrees, by the law of cosines."""
    names, bends = JOINT_SETS["J24"], []
    for side in ("R_", "L_"):
        leg, arm = [side + j for j in ("Hip", "Knee", "Ankle")], [side + j for j in ("Shoulder", "Elbow", "Wrist")]
        for chain in (leg, arm, ["Neck", *leg[:2]]):
            p, q, r = (joints_J4[names.index(name), :3].astype(float) for name in chain)
            x, y, z = np.linalg.norm(p - q), np.linalg.norm(r - q), np.linalg.norm(p - r)
            bends.append(180 - np.degrees(np.arccos((x**2 + y**2 - z**2) / (2 * x * y))))
    return float(np.mean(bends))


def test_a_straight_person_is_not_folded_and_an_unlabelled_one_unknown() -> None:
    joints = np.zeros((2, 24, 4), np.float32)
    names = JOINT_SETS["J24"]
    joints[0, [names.index(n) for n in ("R_Hip", "R_Knee", "R_Ankle")]] = [[0, 0, 0, 1], [0, 1, 0, 1], [0, 2, 0, 1]]
    straight, unknown = folding(joints, BODY)
    assert straight == 0
    assert np.isnan(unknown)
    joints[0, names.index("R_Ankle"), :3] = [1, 1, 0]
    assert folding(joints, BODY)[0] == pytest.approx(90)
    assert folding(np.ones((1, 21, 4), np.float32), HAND).shape == (1,)


def test_who_is_covered_counts_as_more_hidden() -> None:
    image = read_image(ASTRONAUT)[:440:2, :440:2]
    covered = image.copy()
    covered[110:] = 90
    free, hidden = Hidden()(np.stack([image, covered]))
    assert 0 <= free < hidden <= 1


def test_files(world: World, measured: a.Attention, tmp_path: Path) -> None:
    summary = a.write_attention(measured, world.data, world.levels, tmp_path)
    assert json.loads((tmp_path / "attention.json").read_text()) == summary
    figures = {"heads.png", "joints.png", "parts.png", "mean.png", "examples.png"}
    assert {p.name for p in tmp_path.glob("*.png")} == figures
    assert [q["joint"] for q in summary["last"]["queries"]] == list(measured.joint_names)
    assert [(x["block"], x["layer"]) for x in summary["layers"]] == [(1, 1), (2, 1)]
    assert [(x["block"], x["head"]) for x in summary["heads"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    low, high = summary["last"]["queries"][0]["top_parts"][0]["ci95"]
    assert low <= summary["last"]["queries"][0]["top_parts"][0]["times_even"] <= high
    with np.load(tmp_path / "attention.npz") as arrays:
        assert np.array_equal(arrays["joint_joint"][-1], measured.to_joints())
        assert arrays["head_joint_token"].shape == (4, 14, 74)


def test_the_sharpest_layer_is_shown_beside_the_last(world: World, tmp_path: Path) -> None:
    """All attention of the first layer on one token counts as one token in effect."""
    sharp = run(world, samples=2, examples=1)
    sharp.by_layer.mean[0] = sharp.by_head.mean[:2] = np.eye(74)[20]
    sharp.by_part.mean[0] = sharp.parts.times_even(np.eye(74)[20])
    sharp.effective.mean[:] = [1, 1, 74, 74]
    summary = a.write_attention(sharp, world.data, world.levels, tmp_path)
    assert (summary["sharpest"]["block"], summary["last"]["block"]) == (1, 2)
    assert summary["sharpest"]["share_on_joints"] == 0
    assert (tmp_path / "sharpest_mean.png").read_bytes() != (tmp_path / "mean.png").read_bytes()
    assert summary["sharpest"]["queries"][0]["top_parts"][0]["times_even"] > 1


def test_effective_tokens(measured: a.Attention) -> None:
    """A narrow network fresh from N(0, 0.02) attends to everything alike."""
    assert measured.effective_L == pytest.approx([74, 74], rel=0.01)


def test_nothing_to_draw(world: World) -> None:
    with pytest.raises(MetroError, match="no records to load"):
        run(world, world.dataset.first(0), samples=2)


def test_parts_without_a_coarse_vertex_are_left_out(world: World) -> None:
    few: BodyData = world.data
    kept = world.levels[-1].indices[:1]
    level = world.levels[-1].__class__(kept, world.levels[-1].up[:, :1], world.levels[-1].faces)
    assert len(a.parts_of(few, [*world.levels[:-1], level]).names) == 1
