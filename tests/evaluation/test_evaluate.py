"""Evaluation: exact aggregation, ground truth by protocol, tables, and what it refuses."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metro.body.joints import index_map
from metro.body.model import BodyModel
from metro.config import EvaluateConfig, ViewsConfig
from metro.data.loader import EvalPass
from metro.errors import MetroError
from metro.evaluation import summary as tables
from metro.evaluation.attention import look
from metro.evaluation.baselines import BASELINES, Baselines, mean_poses
from metro.evaluation.evaluate import Result, evaluate
from metro.evaluation.measure import Samples, ground_truth, measure, merge
from metro.evaluation.protocols import METRICS, PROTOCOLS, SCALE, protocol_of
from metro.model.metro import build_model
from metro.model.views import views_of
from tests.conftest import World

FEW = EvaluateConfig(bootstrap=50, overlays=2)


@pytest.fixture(scope="module")
def means(world: World) -> Baselines:
    return mean_poses([world.dataset], world.body)


@pytest.fixture(scope="module")
def result(world: World, means: Baselines) -> Result:
    return evaluate(world.model, world.dataset, world.body, "open", FEW, means, benchmark="tiny")


def test_mpjpe_of_one_sample_by_hand(world: World, result: Result) -> None:
    from metro.data.augment import normalise
    from metro.data.loader import EvalPass

    batch = next(iter(EvalPass(world.dataset, world.model.config, world.params.train.batch_size)))
    with torch.inference_mode():
        vertices = world.model(normalise(batch["image"], batch["colour"])).vertices[-1].numpy()
    labels, row = world.dataset.labels, 4
    pred = (world.data.regressors["h36m17"] @ vertices[row])[index_map("H36M17", "J14")]
    true = labels["joints_3d"][row][index_map("J24", "J14"), :3]
    hips = index_map("J14", ("R_Hip", "L_Hip"))
    errors = np.linalg.norm((pred - pred[hips].mean(0)) - (true - true[hips].mean(0)), axis=1)
    assert result.samples.values["mpjpe"][row] == pytest.approx(errors.mean(), abs=1e-6)
    assert result.samples.joint_errors["mpjpe"][row] == pytest.approx(errors, abs=1e-6)


def test_a_perfect_prediction_scores_zero(world: World) -> None:
    """The true mesh, put in place of the network's, has no error: prediction and truth are defined alike."""
    from metro.data.loader import EvalPass
    from metro.evaluation.measure import ground_truth, score

    batch = next(iter(EvalPass(world.dataset, world.model.config, world.params.train.batch_size)))
    for name in ("open", "3dpw"):
        protocol = PROTOCOLS[name]
        truth = ground_truth(batch, world.body, protocol)
        scores = score(truth.vertices_BV3.nan_to_num(), truth, world.body, protocol, protocol.metrics)
        with_mesh = batch["has_mesh"].numpy()
        for key in ("mpjpe", "pa_mpjpe", "mpve", "pa_mpve"):
            assert scores[key].numpy()[with_mesh].max() < 2e-6, key
        assert scores["mpve"].numpy()[~with_mesh].shape == (4,)
        assert np.isnan(scores["mpve"].numpy()[~with_mesh]).all()
    assert scores["challenge_mpjpe"].numpy()[with_mesh].max() < 0.02  # regressed from the posed mesh: a centimetre off


def test_result_depends_neither_on_batches_nor_on_processes(world: World, means: Baselines, result: Result) -> None:
    protocol = PROTOCOLS["open"]
    whole = measure(world.model, world.dataset, world.body, protocol, means, batch_size=5)
    parts = [
        measure(world.model, world.dataset, world.body, protocol, means, batch_size=4, rank=rank, world_size=3)
        for rank in (2, 0, 1)
    ]
    joined = merge([*parts, parts[0]])  # a part that comes twice, as padded samplers make it
    assert joined.index.tolist() == whole.index.tolist() == list(range(12))
    for other in (joined, result.samples):
        for key, values in whole.values.items():
            assert np.allclose(values, other.values[key], atol=1e-6, equal_nan=True)
    same = merge([whole, whole])
    tables_of = [tables.summarise(s, protocol, FEW, means, keys=[b"k"] * 12) for s in (whole, same)]
    assert tables_of[0] == tables_of[1]


def test_files_are_the_same_to_the_last_byte_with_any_number_of_processes(
    world: World, means: Baselines, tmp_path: Path
) -> None:
    for processes in (1, 2):
        config = FEW.model_copy(update={"batch_size": 5, "processes": processes})
        evaluate(world.model, world.dataset, world.body, "open", config, means).write(tmp_path / str(processes))
    for name in ("result.json", "metrics.json", "samples.npz"):
        one, *others = ((tmp_path / str(processes) / name).read_bytes() for processes in (1, 2))
        assert others == [one], name
    slices = [
        measure(world.model, world.dataset, world.body, PROTOCOLS["open"], means, batch_size=5, processes=1, **part)
        for part in ({"rank": 1, "world_size": 2}, {"rank": 0, "world_size": 2})
    ]
    with np.load(tmp_path / "1" / "samples.npz") as arrays:
        assert np.array_equal(merge(slices).values["pa_mpjpe"], arrays["pa_mpjpe"])


def test_means_are_over_the_samples_that_have_the_truth(result: Result) -> None:
    values = result.samples.values["mpve"]
    entry = result.summary["metrics"]["mpve"]
    assert entry["n"] == 8 == np.isfinite(values).sum()
    assert entry["value"] == pytest.approx(1000 * np.nanmean(values), abs=1e-3)
    assert entry["ci95"][0] < entry["value"] < entry["ci95"][1]


def test_a_joint_without_confidence_does_not_count(world: World, result: Result) -> None:
    changed = copy.copy(world.dataset)
    joints = world.dataset.labels["joints_3d"].copy()
    wrist = index_map("J24", ("R_Wrist",))[0]
    joints[0, wrist] = [9, 9, 9, 0]
    hip = index_map("J24", ("L_Hip",))[0]
    joints[1, hip, 3] = 0
    changed.labels = {**world.dataset.labels, "joints_3d": joints}
    got = measure(world.model, changed, world.body, PROTOCOLS["open"])
    errors = result.samples.joint_errors["mpjpe"][0]
    others = np.delete(errors, index_map("J14", ("R_Wrist",))[0])
    assert got.values["mpjpe"][0] == pytest.approx(others.mean(), abs=1e-6)
    assert np.isnan(got.values["mpjpe"][1])  # without its root a sample cannot be centred


def test_true_meshes_are_of_the_body_of_the_gender(world: World) -> None:
    """Of the female body, which here is the neutral one twice as large."""
    twice = replace(world.data, **{k: 2 * getattr(world.data, k) for k in ("v_template", "shapedirs", "posedirs")})
    body = BodyModel(world.data, variants={"female": twice}.__getitem__)
    changed = copy.copy(world.dataset)
    changed.labels = {**world.dataset.labels, "gender": np.arange(12, dtype=np.uint8) % 2}
    (batch,) = EvalPass(changed, world.model.config, 12)
    (neutral,) = EvalPass(world.dataset, world.model.config, 12)
    found, one = ground_truth(batch, body, PROTOCOLS["open"]), ground_truth(neutral, world.body, PROTOCOLS["open"])
    times = torch.tensor([1.0 + (i % 2) for i in range(12)])[:, None, None]
    torch.testing.assert_close(found.vertices_BV3, times * one.vertices_BV3, atol=1e-5, rtol=0, equal_nan=True)

    changed.labels |= {"gender": np.ones(12, np.uint8)}
    for name in ("camera_V3", "canonical_V3"):
        larger, usual = (getattr(mean_poses([d], body), name) for d in (changed, world.dataset))
        np.testing.assert_allclose(larger, 2 * usual, atol=1e-5)
    with pytest.raises(MetroError, match="female people need a body of their own"):
        measure(world.model, changed, world.body, PROTOCOLS["open"])


def test_baselines_beside_every_headline(result: Result) -> None:
    scores = result.summary["baselines"]
    assert scores["origin"] == "training labels"
    for name in BASELINES:
        for key in PROTOCOLS["open"].headline:
            ratio = result.summary["metrics"][key]["value"] / scores[name][key]["value"]
            assert scores[name][key]["ratio"] == pytest.approx(ratio, abs=1e-3)
    # Turning the canonical mean to the true heading must help where people face all ways.
    turned, canonical = scores["canonical_true_heading"], scores["canonical_mean"]
    assert turned["mpjpe"]["value"] < 0.5 * canonical["mpjpe"]["value"]
    assert turned["pa_mpjpe"]["value"] == pytest.approx(canonical["pa_mpjpe"]["value"], abs=0.01)


def test_headline_is_flat_and_numeric(result: Result) -> None:
    flat = result.headline()
    assert {"samples", "mpjpe_mm", "pa_mpjpe_mm", "mpve_mm", "mpjpe_vs_camera_mean"} <= set(flat)
    assert all(isinstance(v, int | float) for v in flat.values())


def test_groups_cover_the_samples(result: Result) -> None:
    for entries in result.summary["groups"].values():
        assert sum(e["n"] for e in entries) == 12
    heading = {e["group"].split()[0]: e["n"] for e in result.summary["groups"]["heading"]}
    turn = np.abs(result.samples.attributes["heading"])
    assert heading == {
        "front": (turn <= 45).sum(),
        "side": ((turn > 45) & (turn <= 135)).sum(),
        "back": (turn > 135).sum(),
    }
    named = [j for g in result.summary["joint_groups"] for j in g["joints"]]
    assert sorted(named) == sorted(result.summary["protocol"]["joints"])


def test_cases_are_ordered(result: Result) -> None:
    values = result.samples.values["mpjpe"]
    assert result.cases["best"] == np.argsort(values)[:2].tolist()
    assert result.cases["worst"] == np.argsort(values)[::-1][:2].tolist()
    assert result.summary["cases"]["best"][0]["key"].startswith("made:")


def test_written_files(result: Result, tmp_path: Path) -> None:
    result.write(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == result.headline()
    assert json.loads((tmp_path / "result.json").read_text()) == result.summary
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["mpjpe"], result.samples.values["mpjpe"])
        assert arrays["joint_camera_mean"].shape == (12, 14)


def test_h36m_has_no_mesh_metrics(world: World, means: Baselines, result: Result) -> None:
    got = evaluate(world.model, world.dataset, world.body, "h36m-p2", FEW, means)
    assert "mpve" not in got.summary["metrics"]
    assert got.summary["metrics"]["mpjpe"]["value"] == result.summary["metrics"]["mpjpe"]["value"]


def test_vertices_alone_have_no_error_of_tokens(world: World, result: Result) -> None:
    config = world.model.config.model_copy(update={"queries": "vertices"})
    model = build_model(config, world.data, world.levels)
    turned = views_of(ViewsConfig(rotations_deg=(0.0, 10.0), merge="aligned"), "J14", lambda: np.empty(0, int))
    for views in (None, turned):
        values = measure(model, world.dataset, world.body, protocol_of("open"), views=views).values
        assert np.isnan(values["token_mpjpe"]).all()
        assert np.array_equal(np.isfinite(values["mpjpe"]), np.isfinite(result.samples.values["mpjpe"]))
    with pytest.raises(MetroError, match=r"^attention: the network has no joint queries"):
        look(model, torch.zeros(config.image_size, config.image_size, 3, dtype=torch.uint8))


def test_hands(hands: World) -> None:
    means = mean_poses([hands.dataset], hands.body)
    got = evaluate(hands.model, hands.dataset, hands.body, "freihand", FEW, means)
    assert got.summary["metrics"]["joints_aligned"]["n"] == 4  # two of six have no mesh
    assert [g["group"] for g in got.summary["joint_groups"]] == ["thumb", "index", "middle", "ring", "pinky"]
    assert 0 <= got.summary["metrics"]["f5_aligned"]["value"] <= got.summary["metrics"]["f15_aligned"]["value"] <= 100
    assert "heading" not in got.summary["groups"]


def test_bootstrap_interval_is_the_textbook_one() -> None:
    values = np.random.default_rng(3).normal(10, 2, 400)
    means, draws = tables.bootstrap({"a": values, "b": 2 * values}, 2000)
    assert means["a"] == pytest.approx(values.mean())
    low, high = np.quantile(draws["a"], (0.025, 0.975))
    assert (low, high) == pytest.approx((values.mean() - 1.96 * 0.1, values.mean() + 1.96 * 0.1), abs=0.03)
    assert np.allclose(draws["b"], 2 * draws["a"])  # paired: ratios have no noise of their own


def test_bootstrap_is_the_same_every_time() -> None:
    values = {"a": np.arange(30.0)}
    assert np.array_equal(tables.bootstrap(values, 20)[1]["a"], tables.bootstrap(values, 20)[1]["a"])


def test_table_names_every_metric(result: Result) -> None:
    text = tables.table(result.summary)
    assert all(METRICS[k].label in text for k in result.summary["metrics"])
    assert "training labels" in text


def test_without_baselines(world: World) -> None:
    got = evaluate(world.model, world.dataset, world.body, "open", FEW)
    assert got.summary["baselines"] == {}
    assert "no baselines" in tables.table(got.summary)
    assert "mpjpe_mm" in got.headline()


def test_every_protocol_is_complete() -> None:
    for protocol in PROTOCOLS.values():
        assert {*protocol.headline, *protocol.watched.values()} <= set(protocol.metrics) <= set(METRICS)
        assert "mpjpe" in (protocol.watched or protocol.headline)  # ranks the checkpoints of a training
        assert all(METRICS[k].unit in SCALE for k in protocol.metrics)
        assert all(METRICS[k].unit == "mm" and METRICS[k].lower_is_better for k in protocol.headline)
        assert len(protocol.description) > 100
    with pytest.raises(MetroError, match="no protocol 'photo'; known: open"):
        protocol_of("photo")
    with pytest.raises(MetroError, match="no protocol 'h36m_p2'; did you mean 'h36m-p2'"):
        protocol_of("h36m_p2")


def test_a_hand_model_on_a_body_benchmark(world: World, hands: World) -> None:
    with pytest.raises(MetroError, match="scores J14 but the model predicts HAND21"):
        evaluate(hands.model, world.dataset, world.body, "open", FEW)


def test_a_body_of_another_size(world: World, hands: World) -> None:
    with pytest.raises(MetroError, match="6890 vertices, the open_hand body has 778"):
        evaluate(world.model, world.dataset, hands.body, "open", FEW)


def test_no_ground_truth(world: World) -> None:
    bare = copy.copy(world.dataset)
    bare.labels = {**world.dataset.labels, "has_3d": np.zeros(12, bool)}
    with pytest.raises(MetroError, match="no sample has the ground truth that MPJPE needs"):
        evaluate(world.model, bare, world.body, "open", FEW)


def test_merge_keeps_the_first_of_equal_samples() -> None:
    def part(index: list[int], value: float) -> Samples:
        column = np.full(len(index), value)
        return Samples(np.array(index), {"mpjpe": column}, {}, {}, {}, np.zeros((len(index), 3)))

    joined = merge([part([5, 1], 1.0), part([1, 3], 2.0)])
    assert joined.index.tolist() == [1, 3, 5]
    assert joined.values["mpjpe"].tolist() == [1.0, 2.0, 1.0]
