"""Comparisons: paired numbers against independent formulas, what moved, and whom they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from metro.body.joints import names_of
from metro.errors import MetroError
from metro.evaluation.compare import Comparison, compare, headline, holm, paired_t, table, verdict
from metro.evaluation.evaluate import RESULT, SAMPLES, Result
from metro.evaluation.measure import Samples
from metro.evaluation.protocols import PROTOCOLS

JOINTS = names_of("J14")
DATA = {"records": "d" * 64, "body": "open"}


def result(mpjpe: Any, joints_NJ: Any = None, protocol: str = "open", data: Any = DATA, **values: Any) -> Result:
    """A result of people with these errors, metres; every second one has its back to the camera."""
    mpjpe = np.asarray(mpjpe, float)
    count = len(mpjpe)
    joints = np.tile(mpjpe[:, None], (1, len(JOINTS))) if joints_NJ is None else np.asarray(joints_NJ)
    scores = {key: values.get(key, mpjpe) for key in PROTOCOLS[protocol].metrics} | {"mpjpe": mpjpe}
    away = np.where(np.arange(count) % 2, 180.0, 0.0)
    attributes = {"heading": away, "inside": np.ones(count), "distance": np.full(count, np.nan)}
    samples = Samples(
        np.arange(count), scores, {"mpjpe": joints, "pa_mpjpe": joints}, attributes, {}, np.zeros((count, 3))
    )
    summary = {
        "schema": 1, "benchmark": "tiny", "samples": count, "protocol": {"name": protocol}, "model": {"step": 3},
        "metrics": {}, "data": data,
    }  # fmt: skip
    return Result(PROTOCOLS[protocol], samples, summary)


def noisy(count: int = 200, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.1 + 0.02 * rng.random(count) + shift


def part(found: Comparison, kind: str, name: str) -> dict[str, Any]:
    return next(p for p in found.summary["parts"] if (p["kind"], p["name"]) == (kind, name))


def test_four_people_by_hand() -> None:
    a = result([0.100, 0.200, 0.300, np.nan], pck50=np.array([0.5, 0.5, 0.5, 0.5]))
    b = result([0.090, 0.200, 0.330, 0.100], pck50=np.array([0.6, 0.5, 0.4, 0.7]))
    found = compare(a, b, cases=1, keys=["w", "x", "y", "z"])
    entry = found.summary["metrics"]["mpjpe"]
    # The last person has no number of A: -10, 0 and +30 mm are left.
    assert (entry["n"], entry["a"], entry["b"], entry["difference"]) == (3, 200.0, 206.667, 6.667)
    assert (entry["better"], entry["worse"]) == (1, 1)
    assert entry["ci95"] == [-10.0, 30.0]  # of 27 resamples one in 27 is all of one person, more than 2.5 %
    shares = found.summary["metrics"]["pck50"]
    assert (shares["difference"], shares["better"], shares["worse"]) == (5.0, 2, 1)  # percent, better high
    improved, worsened = (found.summary["cases"][kind] for kind in ("improved", "worsened"))
    assert improved == [{"index": 0, "key": "w", "a": 100.0, "b": 90.0, "difference": -10.0}]
    assert worsened == [{"index": 2, "key": "y", "a": 300.0, "b": 330.0, "difference": 30.0}]
    assert part(found, "heading", "front (within 45°)")["difference"] == 10.0  # of the first and the third
    assert found.summary["people"] == 4


def test_intervals_and_chances_are_those_of_scipy() -> None:
    a, b = noisy(seed=1), noisy(seed=2, shift=0.001)
    found = compare(result(a), result(b), resamples=10_000).summary
    theirs = scipy.stats.bootstrap((1000 * (b - a),), np.mean, n_resamples=9999, method="percentile", rng=5)
    assert found["metrics"]["mpjpe"]["ci95"] == pytest.approx(list(theirs.confidence_interval), abs=0.1)
    chance = scipy.stats.ttest_rel(a, b).pvalue
    assert found["parts"][0]["p"] == pytest.approx(chance, rel=1e-2)
    assert paired_t(b - a) == pytest.approx(chance, rel=1e-9)


def test_chances_of_few_people() -> None:
    assert np.isnan(paired_t(np.array([0.3, np.nan])))
    assert paired_t(np.array([0.0, 0.0])) == 1
    assert paired_t(np.array([0.5, 0.5])) == 0


def test_holm() -> None:
    # Four tests: 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04 no smaller than the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([np.nan, 0.9, 0.02]) == pytest.approx([np.nan, 0.9, 0.04], nan_ok=True)
    assert holm([0.6, 0.6]).tolist() == [1, 1]
    assert holm([]).size == 0


def test_only_what_moved_is_named() -> None:
    rng = np.random.default_rng(3)
    joints = 0.1 + 0.02 * rng.random((300, len(JOINTS)))
    after = joints + 0.01 * rng.standard_normal(joints.shape)
    after[:, JOINTS.index("L_Wrist")] += 0.02
    after[:, JOINTS.index("R_Ankle")] -= 0.03
    found = compare(result(joints.mean(1), joints), result(after.mean(1), after))
    moved = {p["name"]: p["difference"] for p in found.summary["parts"] if p["moved"] and p["kind"] == "joint"}
    assert moved == pytest.approx({"R_Ankle": -30, "L_Wrist": 20}, abs=2)
    assert part(found, "body part", "wrists")["moved"]
    assert part(found, "body part", "wrists")["difference"] == pytest.approx(10, abs=1.5)
    text = table(found.summary)
    assert "lower error with B, mm: R_Ankle -" in text
    assert "higher error with B, mm: L_Wrist +" in text


def test_a_joint_that_nobody_has_is_left_out_and_one_of_half_of_the_people_counts_them() -> None:
    joints = np.full((6, len(JOINTS)), 0.1)
    joints[:, JOINTS.index("Head")] = np.nan
    joints[:3, JOINTS.index("Neck")] = np.nan
    found = compare(result(noisy(6), joints), result(noisy(6), joints + 0.01))
    assert "Head" not in [p["name"] for p in found.summary["parts"]]
    assert part(found, "joint", "Neck")["n"] == 3
    json.dumps(found.summary, allow_nan=False)


def test_equal_runs_do_not_differ_and_say_so() -> None:
    found = compare(result(noisy()), result(noisy()), ("x", "x"))
    assert found.summary["identical"]
    assert not found.changes_N.any()
    entries = [*found.summary["metrics"].values(), *found.summary["parts"]]
    assert {(e["difference"], *e["ci95"]) for e in entries} == {(0, 0, 0)}
    assert not any(p["moved"] for p in found.summary["parts"])
    assert found.summary["cases"] == {"improved": [], "worsened": []}
    assert verdict(found.summary) == "x and x score the same in every number of every person."


def test_the_other_order_turns_every_sign() -> None:
    a, b = result(noisy(seed=1)), result(noisy(seed=2, shift=0.004))
    there, back = compare(a, b).summary, compare(b, a).summary
    entries = zip(
        [*there["metrics"].values(), *there["parts"]], [*back["metrics"].values(), *back["parts"]], strict=True
    )
    for one, other in entries:
        assert one["difference"] == -other["difference"]
        assert one["ci95"] == pytest.approx([-other["ci95"][1], -other["ci95"][0]], abs=2e-3)
    assert there["metrics"]["mpjpe"]["better"] == back["metrics"]["mpjpe"]["worse"]
    assert [c["index"] for c in there["cases"]["improved"]] == [c["index"] for c in back["cases"]["worsened"]]


def test_what_it_says() -> None:
    better = compare(result(noisy(seed=1)), result(noisy(seed=1, shift=-0.01)), ("old", "new")).summary
    assert verdict(better).endswith("100 % of 200 people are better off with new.")
    assert "-10.0 mm, 95 % interval -10.0 to -10.0" in verdict(better)
    same = compare(result(noisy(seed=1)), result(noisy(seed=2)), ("old", "new")).summary
    assert "which these people cannot tell apart" in verdict(same)
    assert headline(better)["mpjpe_difference_mm"] == pytest.approx(-10)
    assert headline(better)["mpjpe_better"] == 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: result(noisy(), data={**DATA, "records": "e"}), "their people differ"),
        (lambda: result(noisy(), data={**DATA, "body": "smpl"}), "their people differ"),
        (lambda: result(noisy(100)), r"200 of 'tiny' against 100 of 'tiny'"),
        (lambda: result(noisy(), data={}), "of an earlier version"),
        (lambda: result(noisy(), protocol="h36m-p2"), "different protocols, open and h36m-p2"),
        (lambda: result(np.full(200, np.nan)), "no person has a MPJPE of both"),
    ],
)
def test_other_people_are_refused(other: Callable[[], Result], said: str) -> None:
    with pytest.raises(MetroError, match=said) as refused:
        compare(result(noisy()), other(), ("old", "new"))
    assert str(refused.value).startswith("old and new cannot be compared: ")
    assert "\n" not in str(refused.value)


def written(folder: Path) -> Path:
    made = result(noisy(5))
    folder.mkdir(exist_ok=True)
    summary = made.summary | {"samples": 5, "baselines": {}}
    Result(made.protocol, made.samples, summary | {"metrics": {}}).write(folder)
    return folder


def test_a_result_comes_back(tmp_path: Path) -> None:
    back = Result.read(written(tmp_path))
    assert compare(result(noisy(5)), back).summary["identical"]
    assert back.samples.attributes.keys() == {"heading", "inside", "distance"}


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        (RESULT, lambda path: path.unlink()),
        (RESULT, lambda path: path.write_text('{"schema": 1, "benchmark": 1}')),
        (RESULT, lambda path: path.write_text(path.read_text().replace('"schema": 1', '"schema": 0'))),
        (RESULT, lambda path: path.write_text(path.read_text().replace('"open"', '"closed"'))),
        (SAMPLES, lambda path: path.unlink()),
        (SAMPLES, lambda path: path.write_bytes(b"no")),
        (SAMPLES, lambda path: np.savez(path, index=np.arange(5))),
        (SAMPLES, lambda path: np.savez(path, **{**np.load(path), "mpjpe": np.zeros(4)})),
        (SAMPLES, lambda path: np.savez(path, **{**np.load(path), "mpjpe": np.array(["x"] * 5)})),
        (SAMPLES, lambda path: np.savez(path, **{**np.load(path), "joint_mpjpe": np.zeros((5, 3))})),
    ],
)
def test_a_damaged_result_is_one_line(tmp_path: Path, file: str, spoil: Callable[[Path], None]) -> None:
    spoil(written(tmp_path) / file)
    with pytest.raises(MetroError) as refused:
        Result.read(tmp_path)
    assert "\n" not in str(refused.value)
