"""Two results on the same people, compared person by person.

``compare.json`` (schema 1) has these keys. Everything is paired: over the people for whom both runs have the number,
in the units of the metric, and a difference is B minus A.

- ``benchmark``, ``people``, ``protocol`` (name, title), ``identical``: whether all scores of all people are equal
- ``runs``: ``a`` and ``b``: name, and what its result says of the model
- ``metrics``: key → label, unit, meaning, lower_is_better, a, b, difference, ci95, n, better, worse (people, for B)
- ``ranked_by``: the metric that people and groups are compared by; ``joint_error``: that of joints
- ``parts``: list of what may have moved: kind (`joint`, `body part` or what the groups are made by), name, a, b,
  difference, ci95, n, p and p_holm (of a paired t-test, as it is and after Holm's correction over this list), moved
- ``cases``: improved, worsened → list of index, key, a, b, difference: the people that changed most

Shapes: N people, J joints, M tests, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr

from metro.body.joints import names_of
from metro.errors import MetroError
from metro.evaluation.evaluate import Result
from metro.evaluation.protocols import METRICS, SCALE
from metro.evaluation.summary import bootstrap, groups_of, interval, mean, number

SCHEMA = 1
LEVEL = 0.05
"""Chance of calling any of the parts moved if none has."""
SIDES = ("a", "b")


@dataclass(frozen=True)
class Comparison:
    """Outcome of a comparison."""

    summary: dict[str, Any]
    """The content of ``compare.json``, see the module's text."""
    changes_N: np.ndarray
    """Difference of each person in the metric that ranks them, printed units; nan where a run has no number."""


def difference_of_data(a: Result, b: Result) -> str | None:
    """In what two results differ that makes a comparison of their people wrong; None if in nothing."""
    told = [f"{len(r.samples)} of {r.summary['benchmark']!r}" for r in (a, b)]
    if a.protocol != b.protocol:
        return f"they are scored by different protocols, {a.protocol.name} and {b.protocol.name}"
    known = [r.summary.get("data") for r in (a, b)]
    if not all(known):
        return "a result is of an earlier version, which did not note whom it scored"
    if known[0] != known[1] or not np.array_equal(a.samples.index, b.samples.index):
        return f"their people differ ({told[0]} against {told[1]}: other records, or other bodies of them)"
    return None


def compare(
    a: Result,
    b: Result,
    names: tuple[str, str] = ("A", "B"),
    *,
    resamples: int = 1000,
    cases: int = 6,
    keys: Sequence[str] | None = None,
) -> Comparison:
    """Compare two results of the same people.

    Parameters
    ----------
    a, b
        The results.
    names
        What to call them.
    resamples
        Resamples of the confidence intervals, of people; all numbers see the same ones.
    cases
        People listed whose error fell most, and as many whose error rose most.
    keys
        Names of the dataset's records; none: people are listed by their position alone.

    Raises
    ------
    MetroError
        The people, their ground truth or the protocol differ, or no person has a number of both.
    """
    if reason := difference_of_data(a, b):
        raise MetroError(f"{names[0]} and {names[1]} cannot be compared: {reason}; evaluate both on one dataset")
    protocol, main = a.protocol, a.protocol.headline[0]
    metrics, parts = _metrics(a, b), _parts(a, b)
    if ("metric", main) not in metrics:
        raise MetroError(f"{names[0]} and {names[1]} cannot be compared: no person has a {METRICS[main].label} of both")
    changes = {name: pair_N2[:, 1] - pair_N2[:, 0] for name, pair_N2 in (metrics | parts).items()}
    _, draws = bootstrap(changes, resamples)
    chances = [paired_t(changes[name]) for name in parts]
    summary = {
        "schema": SCHEMA,
        "benchmark": a.summary["benchmark"],
        "people": len(a.samples),
        "protocol": {"name": protocol.name, "title": protocol.title},
        "identical": _identical(a, b),
        "runs": {
            side: {"name": name, "model": result.summary["model"]}
            for side, name, result in zip(SIDES, names, (a, b), strict=True)
        },
        "metrics": {
            key: {
                "label": METRICS[key].label,
                "unit": METRICS[key].unit,
                "meaning": METRICS[key].meaning,
                "lower_is_better": METRICS[key].lower_is_better,
                **_entry(metrics["metric", key], draws["metric", key]),
                **_people(changes["metric", key], METRICS[key].lower_is_better),
            }
            for _, key in metrics
        },
        "headline": [key for key in protocol.headline if ("metric", key) in metrics],
        "ranked_by": main,
        "joint_error": protocol.joint_error,
        "parts": [
            {
                "kind": name[0],
                "name": name[1],
                **_entry(pair_N2, draws[name]),
                "p": _chance(p),
                "p_holm": _chance(corrected),
                "moved": bool(corrected < LEVEL),
            }
            for (name, pair_N2), p, corrected in zip(parts.items(), chances, holm(chances), strict=True)
        ],
        "cases": _cases(a.samples.index, metrics["metric", main], cases, keys),
    }
    return Comparison(summary, changes["metric", main])


def paired_t(difference_N: np.ndarray) -> float:
    """Two-sided p of Student's paired t-test that a mean difference is 0; nan for fewer than two people."""
    known = difference_N[np.isfinite(difference_N)]
    if len(known) < 2:
        return float("nan")
    middle, error = float(known.mean()), float(known.std(ddof=1)) / len(known) ** 0.5
    if error == 0:
        return 1.0 if middle == 0 else 0.0
    return float(2 * stdtr(len(known) - 1, -abs(middle) / error))


def holm(p_M: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction (Holm, 1979): values below a level are false with at most that chance together.

    What is nan is no test and does not count.
    """
    values = np.asarray(p_M, np.float64)
    tested = np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    corrected = np.full(len(values), np.nan)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return corrected


def verdict(summary: Mapping[str, Any]) -> str:
    """One honest sentence about the metric that people are ranked by."""
    entry = summary["metrics"][summary["ranked_by"]]
    a, b = (summary["runs"][side]["name"] for side in SIDES)
    if summary["identical"]:
        return f"{a} and {b} score the same in every number of every person."
    text = f"{entry['label']} is {entry['a']:.1f} {entry['unit']} with {a} and {entry['b']:.1f} with {b}"
    low, high = entry["ci95"]
    spread = f"{entry['difference']:+.1f} {entry['unit']}, 95 % interval {low:+.1f} to {high:+.1f}"
    if low <= 0 <= high:
        return f"{text}, which these people cannot tell apart: {spread}."
    better = entry["better"] / entry["n"]
    return f"{text}: {spread}; {100 * better:.0f} % of {entry['n']} people are better off with {b}."


def table(summary: Mapping[str, Any]) -> str:
    """A comparison as text: the metrics, and which joints and groups moved."""
    rows = [["metric", "A", "B", "B − A", "95 % interval", "better with B"]]
    for entry in summary["metrics"].values():
        unit = {"px224": "px"}.get(entry["unit"], entry["unit"])
        low, high = entry["ci95"]
        share = f"{entry['better']} of {entry['n']}"
        numbers = [f"{entry['a']:.1f}", f"{entry['b']:.1f} {unit}", f"{entry['difference']:+.2f}"]
        rows.append([entry["label"], *numbers, f"{low:+.2f} to {high:+.2f}", share])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    sides = "  ".join(f"{side.upper()}: {summary['runs'][side]['name']}" for side in SIDES)
    title = f"{summary['benchmark'] or summary['protocol']['title']}: {summary['people']} people  {sides}"
    moved = [part for part in summary["parts"] if part["moved"]]
    told = []
    for word, side in (("lower", -1), ("higher", 1)):
        found = sorted((p for p in moved if p["difference"] * side > 0), key=lambda p: -abs(p["difference"]))
        shown = [f"{p['name']} {p['difference']:+.1f}" for p in found[:6]]
        more = [f"{len(found) - 6} more"] if len(found) > 6 else []
        told += [f"{word} error with B, mm: {', '.join([*shown, *more])}"] if found else []
    none = f"none of {len(summary['parts'])} joints, body parts and groups moved by more than chance explains"
    return "\n".join([title, *lines, *(told or [none]), verdict(summary)])


def headline(summary: Mapping[str, Any]) -> dict[str, float]:
    """Flat numbers of a comparison."""
    flat: dict[str, float] = {"people": summary["people"]}
    for key in summary["headline"]:
        entry, (low, high) = summary["metrics"][key], summary["metrics"][key]["ci95"]
        flat |= {f"{key}_a_mm": entry["a"], f"{key}_b_mm": entry["b"], f"{key}_difference_mm": entry["difference"]}
        flat |= {f"{key}_low_mm": low, f"{key}_high_mm": high, f"{key}_better": entry["better"] / entry["n"]}
    return flat


Name = tuple[str, str]
"""What is compared: its kind and its name."""


def _metrics(a: Result, b: Result) -> dict[Name, np.ndarray]:
    """Both numbers (N, 2) of every person, by metric, in printed units."""
    values = [result.samples.values for result in (a, b)]
    return _known(
        {
            ("metric", key): SCALE[METRICS[key].unit] * np.stack([v[key] for v in values], 1)
            for key in a.protocol.metrics
        }
    )


def _parts(a: Result, b: Result) -> dict[Name, np.ndarray]:
    """Both errors (N, 2), mm, of joints and body parts, and of people by group (nan for those outside of it)."""
    protocol, names = a.protocol, names_of(a.protocol.joint_set)
    errors_N2J = 1000 * np.stack([result.samples.joint_errors[protocol.joint_error] for result in (a, b)], 1)
    errors_N2J = np.where(np.isfinite(errors_N2J).all(1, keepdims=True), errors_N2J, np.nan)
    found = {("joint", name): errors_N2J[:, :, j] for j, name in enumerate(names)}
    for part, members in protocol.figure.groups.items():
        rows = [j for j, name in enumerate(names) if name in members]
        if len(rows) > 1:
            found["body part", part] = mean(np.moveaxis(errors_N2J[:, :, rows], 2, 0))
    people_N2 = 1000 * np.stack([result.samples.values[protocol.headline[0]] for result in (a, b)], 1)
    for kind, groups in groups_of(a.samples).items():
        found |= {(kind, label): np.where(rows[:, None], people_N2, np.nan) for label, rows in groups}
    return _known(found)


def _known(pairs: Mapping[Name, np.ndarray]) -> dict[Name, np.ndarray]:
    """Those that anybody has both numbers of."""
    return {name: pair_N2 for name, pair_N2 in pairs.items() if np.isfinite(pair_N2).all(1).any()}


def _entry(pair_N2: np.ndarray, draws_R: np.ndarray) -> dict[str, Any]:
    known = pair_N2[np.isfinite(pair_N2).all(1)]
    a, b = known.mean(0)
    told = {"a": number(a), "b": number(b), "difference": number((known[:, 1] - known[:, 0]).mean())}
    return {**told, "ci95": interval(draws_R), "n": len(known)}


def _people(change_N: np.ndarray, lower_is_better: bool) -> dict[str, int]:
    gain_N = -change_N if lower_is_better else change_N
    return {"better": int((gain_N > 0).sum()), "worse": int((gain_N < 0).sum())}


def _cases(
    index_N: np.ndarray, pair_N2: np.ndarray, count: int, keys: Sequence[str] | None
) -> dict[str, list[dict[str, Any]]]:
    """The largest changes both ways of a metric that is better low."""
    change = np.nan_to_num(pair_N2[:, 1] - pair_N2[:, 0])
    order = np.argsort(change, kind="stable")
    picks = {"improved": [r for r in order if change[r] < 0], "worsened": [r for r in order[::-1] if change[r] > 0]}
    return {
        name: [
            {
                "index": int(index_N[r]),
                "key": keys[index_N[r]] if keys else None,
                "a": number(pair_N2[r, 0]),
                "b": number(pair_N2[r, 1]),
                "difference": number(change[r]),
            }
            for r in rows[:count]
        ]
        for name, rows in picks.items()
    }


def _identical(a: Result, b: Result) -> bool:
    def scores(result: Result) -> dict[str, np.ndarray]:
        return result.samples.values | {f"joint {k}": v for k, v in result.samples.joint_errors.items()}

    ours, theirs = scores(a), scores(b)
    return all(np.array_equal(ours[key], theirs[key], equal_nan=True) for key in ours.keys() & theirs.keys())


def _chance(p: float) -> float | None:
    """A probability to three digits; None where there was no test."""
    return float(f"{p:.3g}") if np.isfinite(p) else None
