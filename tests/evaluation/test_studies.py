"""Studies: intervals and chances against other ways to get them, and what a table of variants says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from metro.config import StudyConfig
from metro.errors import MetroError
from metro.evaluation import studies
from metro.evaluation.evaluate import Result
from metro.evaluation.measure import Samples
from metro.evaluation.protocols import protocol_of

OPEN = protocol_of("open")
RNG = np.random.default_rng(7)


def result(errors_mm: np.ndarray, records: str = "r") -> Result:
    """A result whose headline metrics are these errors of the people, millimetres."""
    count = len(errors_mm)
    values = {key: errors_mm / 1000 for key in OPEN.metrics}
    samples = Samples(np.arange(count), values, {}, {}, {}, np.zeros((count, 3)))
    summary: dict[str, Any] = {"benchmark": "b", "model": {}, "data": {"records": records, "body": "open"}}
    return Result(OPEN, samples, summary)


def study(variants: dict[str, list[np.ndarray]], people_N: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    """The summary of variants, each with the errors of the people for each seed; the first is the reference."""
    seeds = range(1, 1 + len(next(iter(variants.values()))))
    config = StudyConfig(
        benchmark="b", reference=next(iter(variants)), seeds=tuple(seeds), variants={v: {} for v in variants}, **more
    )
    results = {name: [result(errors) for errors in of] for name, of in variants.items()}
    people_N = np.arange(len(next(iter(variants.values()))[0])) if people_N is None else people_N
    costs = {variant: {"parameters_m": 1.5, "forward_gflop": 0.25} for variant in variants}
    return studies.summarise("s", config, results, costs, people_N, resamples=2000)


def test_the_interval_over_seeds_is_students() -> None:
    values = [101.0, 99.5, 104.25]
    expected = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert studies.mean_interval(values) == pytest.approx(expected, abs=1e-3)
    assert studies.mean_interval([3.0]) is None


def test_the_bootstrap_over_people_has_the_spread_of_the_mean() -> None:
    values_NM = RNG.normal(3, 2, (500, 2))
    values_NM[::5, 1] = np.nan
    means, draws = studies.over_people(values_NM, np.arange(500), 4000)
    assert means == pytest.approx(np.nanmean(values_NM, 0))
    known = values_NM[np.isfinite(values_NM[:, 1]), 1]
    assert draws.std(0) == pytest.approx([values_NM[:, 0].std() / 500**0.5, known.std() / 400**0.5], rel=0.06)
    again = studies.over_people(values_NM, np.arange(500), 4000)[1]
    assert np.array_equal(draws, again)


def test_a_person_seen_twice_counts_once() -> None:
    """Copies of the samples narrow nothing where they are known to be of the same people."""
    values_NM = RNG.normal(0, 1, (60, 1))
    copies, people = np.repeat(values_NM, 4, 0), np.repeat(np.arange(60), 4)
    once = studies.over_people(values_NM, np.arange(60), 4000)[1].std()
    assert studies.over_people(copies, people, 4000)[1].std() == pytest.approx(once, rel=0.06)
    assert studies.over_people(copies, np.arange(240), 4000)[1].std() == pytest.approx(once / 2, rel=0.06)


def test_people_are_told_by_what_a_pattern_matches() -> None:
    names = ["a:1/left#0", "a:1/right#0", "a:2/left#0"]
    assert studies.people_of(names, None).tolist() == [0, 1, 2]
    assert studies.people_of(names, r"^a:\d+").tolist() == [0, 0, 1]
    with pytest.raises(MetroError, match=r"people: .* does not match the record 'a:1/left#0'"):
        studies.people_of(names, "b")


def test_a_chance_agrees_with_a_paired_t_test_and_with_its_interval() -> None:
    for shift in (0.0, 0.15, 0.25):
        change = RNG.normal(0, 1, 300)
        change += shift - change.mean()
        draws = studies.over_people(change[:, None], np.arange(300), 20_000)[1][:, 0]
        assert studies.chance(draws) == pytest.approx(scipy.stats.ttest_1samp(change, 0).pvalue, abs=0.02)
        low, high = np.quantile(draws, (0.025, 0.975))
        assert (studies.chance(draws) < 0.05) == (not low <= 0 <= high)
    assert studies.chance(np.zeros(99)) == 1.0


@pytest.fixture
def summary() -> dict[str, Any]:
    """Everybody's errors and those of seeds; one variant is better, one better by chance of a seed, one is the same."""
    base = RNG.normal(100, 20, 200)
    seeds = [base + offset for offset in (0.0, 1.0, 2.0)]
    return study(
        {
            "none": seeds,
            "both-30": [errors - 5 + RNG.normal(0, 1, 200) for errors in seeds],
            "joints-30": [errors - shift for errors, shift in zip(seeds, (30.0, 0.0, 0.0), strict=True)],
            "both-50": [errors + RNG.normal(0, 1, 200) for errors in seeds],
        },
        axis="share, %",
    )


def test_a_variant_is_told_apart_where_people_and_seeds_both_say_so(summary: dict[str, Any]) -> None:
    found = {v["name"]: v["metrics"]["mpjpe"] for v in summary["variants"]}
    assert found["both-30"]["told_apart"]
    assert found["both-30"]["difference"] == pytest.approx(-5, abs=0.3)
    lucky = found["joints-30"]
    assert lucky["difference"] == pytest.approx(-10, abs=1e-3)
    assert lucky["p_holm"] < 0.01
    assert not lucky["told_apart"]
    assert lucky["seeds_ci95"] == pytest.approx(scipy.stats.t.interval(0.95, 2, -10, 10), abs=1e-2)
    assert not found["both-50"]["told_apart"]
    chances = sorted(found[name]["p"] for name in ("both-30", "joints-30", "both-50"))
    assert found["both-50"]["p_holm"] == chances[-1] == found["both-50"]["p"]  # the largest is multiplied by 1
    assert "told_apart" not in found["none"]
    assert [(v["line"], v["at"]) for v in summary["variants"]] == [
        (None, None), ("both", 30), ("joints", 30), ("both", 50),
    ]  # fmt: skip
    said = summary["verdict"]
    assert said.startswith("Best in MPJPE is joints-30, ")
    assert "told apart from none over people and seeds, better: both-30." in said


def test_the_table_has_every_variant_with_its_cost(summary: dict[str, Any]) -> None:
    rows = [line.split("|")[1:-1] for line in studies.table(summary, {"none": {"seconds": 12.0}}).splitlines()]
    assert len({len(row) for row in rows}) == 1
    assert [row[0].strip() for row in rows[2:]] == ["none", "both-30", "joints-30", "both-50"]
    assert [cell.strip() for cell in rows[0][-3:]] == ["parameters, M", "GFLOP an image", "s"]
    assert [cell.strip() for cell in rows[2][-3:]] == ["1.5", "0.25", "12"]
    flat = studies.headline(summary)
    assert flat["both-30/difference_mm"] == pytest.approx(flat["both-30/mpjpe_mm"] - flat["none/mpjpe_mm"], abs=2e-3)


def test_one_seed_leaves_it_open() -> None:
    base = RNG.normal(100, 20, 50)
    summary = study({"none": [base], "less": [base - 10]})
    (_, less) = summary["variants"]
    assert less["metrics"]["mpjpe"]["ci95"] is None
    assert less["metrics"]["mpjpe"]["told_apart"] is False
    assert "one seed does not tell" in summary["verdict"]


def test_other_people_are_not_compared() -> None:
    base = RNG.normal(100, 20, 20)
    config = StudyConfig(benchmark="b", reference="a", seeds=(1,), variants={"a": {}, "b": {}})
    results = {"a": [result(base)], "b": [result(base, records="others")]}
    with pytest.raises(MetroError, match=r"^s: b with seed 1 cannot be compared: their people differ"):
        studies.summarise("s", config, results, {"a": {}, "b": {}}, np.arange(20))
    unknown = {"a": [result(np.full(20, np.nan))], "b": [result(np.full(20, np.nan))]}
    with pytest.raises(MetroError, match="nobody in b has a MPJPE"):
        studies.summarise("s", config, unknown, {"a": {}, "b": {}}, np.arange(20))
