"""A study: variants of a training, several seeds each, judged on the same people and compared with one of them.

``study.json`` (schema 1) has these keys, lengths in mm; a difference is variant minus reference, and less is better:

- ``study``, ``benchmark``, ``protocol`` (name, title), ``samples``, ``people`` (clusters of samples), ``seeds``
- ``reference``: its name; ``axis``: what the numbers in the names of variants are, or none
- ``metrics``: the headline metrics, key → label, unit; ``ranked_by``: the first, which is tested
- ``verdict``: a sentence
- ``variants``: list of name, ``line`` and ``at`` (the word and the number of its name, or none), ``cost`` (see
  `pipeline.study`), and ``metrics``: key → value (mean over seeds), ci95 (Student's t over seeds; none for one), seeds
  (the mean of each), and, but for the reference, difference, people_ci95 (bootstrap over people of the difference that
  is averaged over seeds) and seeds_ci95 (Student's t over seeds of the difference of means). The metric that ranks also
  has p (of that bootstrap, two-sided), p_holm (after Holm's correction over the variants) and ``told_apart``

The two intervals answer two questions. That over people says whether *these networks* differ on other people than
these; that over seeds whether the *variants* do, if they are trained again. A variant is told apart from the reference
where both say so.

Shape suffixes: S seeds, N samples, C people, M columns, R resamples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from metro.config import StudyConfig
from metro.errors import MetroError
from metro.evaluation.compare import difference_of_data, holm
from metro.evaluation.evaluate import Result
from metro.evaluation.protocols import METRICS, SCALE
from metro.evaluation.summary import interval, mean, number

SCHEMA = 1
LEVEL = 0.05
"""Chance of telling any variant apart from the reference by its people if none differs."""
RESAMPLES = 10_000
"""Of people. A chance cannot come out smaller than 2 over so many, and Holm multiplies it by the variants."""
COST, NAMES = "cost.json", "names.npz"
"""Files of a run beside those of its `Result`: what it takes, and the names of the records."""

_SERIES = re.compile(r"(.+)-(\d+)")


def mean_interval(values_S: Sequence[float]) -> list[float] | None:
    """95 % interval of the mean of independent values (Student's t); none for fewer than two."""
    values = np.asarray(values_S, np.float64)
    if len(values) < 2:
        return None
    reach = float(stdtrit(len(values) - 1, 0.975)) * values.std(ddof=1) / len(values) ** 0.5
    return [number(values.mean() - reach), number(values.mean() + reach)]


def over_people(
    values_NM: np.ndarray, people_N: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Means (M,) of columns, and their means (R, M) when people are drawn anew, each with all of his or her samples.

    What is nan does not count. All columns see the same people.

    Parameters
    ----------
    values_NM
        A row for each sample.
    people_N
        Who it is of: equal numbers are one person.
    """
    known_NM = np.isfinite(values_NM)
    _, person_N = np.unique(people_N, return_inverse=True)
    people = int(person_N.max(initial=-1)) + 1
    sums_CM, counts_CM = (np.zeros((people, values_NM.shape[1])) for _ in range(2))
    np.add.at(sums_CM, person_N, np.where(known_NM, values_NM, 0.0))
    np.add.at(counts_CM, person_N, known_NM)
    rng, draws, step = np.random.default_rng(seed), [], max(1, 4_000_000 // max(1, people))
    with np.errstate(invalid="ignore"):
        for start in range(0, resamples, step):
            taken_RC = rng.multinomial(people, np.full(people, 1 / people), min(step, resamples - start)).astype(float)
            draws.append((taken_RC @ sums_CM) / (taken_RC @ counts_CM))
        return sums_CM.sum(0) / counts_CM.sum(0), np.concatenate(draws)


def chance(draws_R: np.ndarray) -> float:
    """Two-sided p that what was drawn around is 0: the level at which a percentile interval begins to leave 0 out."""
    known = draws_R[np.isfinite(draws_R)]
    below, above = (known <= 0).sum(), (known >= 0).sum()
    return min(1.0, 2.0 * (1 + float(min(below, above))) / (1 + len(known)))


def people_of(names: Sequence[str], pattern: str | None) -> np.ndarray:
    """Which person each record shows (N,), counted from 0: those whose names agree in what `pattern` matches are one.

    Raises
    ------
    MetroError
        The pattern does not match a name.
    """
    if pattern is None:
        return np.arange(len(names))
    found = [re.search(pattern, name) for name in names]
    if None in found:
        raise MetroError(f"people: {pattern!r} does not match the record {names[found.index(None)]!r}; mend it")
    return np.unique([match[0] for match in found if match], return_inverse=True)[1]


def summarise(
    name: str,
    config: StudyConfig,
    results: Mapping[str, Sequence[Result]],
    costs: Mapping[str, Mapping[str, float]],
    people_N: np.ndarray,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The content of ``study.json``.

    Parameters
    ----------
    name, config
        The study.
    results
        Variant → result of each seed, in the order of `config.seeds`.
    costs
        Variant → what it takes.
    people_N
        Which person each sample shows.

    Raises
    ------
    MetroError
        The results are not of the same people under the same protocol, or nobody has the metric that ranks.
    """
    first = results[config.reference][0]
    for variant, runs in results.items():
        for seed, run in zip(config.seeds, runs, strict=True):
            if reason := difference_of_data(first, run):
                raise MetroError(f"{name}: {variant} with seed {seed} cannot be compared: {reason}")
    keys = first.protocol.headline
    scores = {  # (M, S, N), in printed units
        variant: np.stack([[SCALE[METRICS[key].unit] * run.samples.values[key] for run in runs] for key in keys])
        for variant, runs in results.items()
    }
    if not np.isfinite(scores[config.reference][0]).any():
        raise MetroError(f"{name}: nobody in {config.benchmark} has a {METRICS[keys[0]].label}; take another benchmark")
    others = [variant for variant in results if variant != config.reference]
    changes_NM = np.concatenate([(scores[v] - scores[config.reference]).mean(1) for v in others]).T
    _, draws_RM = over_people(changes_NM, people_N, resamples)
    draws = dict(zip([(v, key) for v in others for key in keys], draws_RM.T, strict=True))
    chances = [chance(draws[v, keys[0]]) for v in others]
    corrected = dict(zip(others, zip(chances, holm(chances).tolist(), strict=True), strict=True))
    variants = []
    for variant in results:
        measured: dict[str, Any] = {}
        for m, key in enumerate(keys):
            measured[key] = _over_seeds(scores[variant][m])
            if variant != config.reference:
                measured[key] |= _difference(scores[variant][m], scores[config.reference][m], draws[variant, key])
        if variant in corrected:
            p, p_holm = corrected[variant]
            measured[keys[0]] |= {"p": number(p, 6), "p_holm": number(p_holm, 6)}
            measured[keys[0]]["told_apart"] = _apart(measured[keys[0]])
        series = _SERIES.fullmatch(variant) if config.axis else None
        line, at = (series[1], int(series[2])) if series else (None, None)
        variants.append({"name": variant, "line": line, "at": at, "cost": dict(costs[variant]), "metrics": measured})
    summary = {
        "schema": SCHEMA,
        "study": name,
        "benchmark": config.benchmark,
        "protocol": {"name": first.protocol.name, "title": first.protocol.title},
        "samples": len(first.samples),
        "people": len(np.unique(people_N)),
        "seeds": list(config.seeds),
        "reference": config.reference,
        "axis": config.axis,
        "metrics": {key: {"label": METRICS[key].label, "unit": METRICS[key].unit} for key in keys},
        "ranked_by": keys[0],
        "variants": variants,
    }
    return summary | {"verdict": verdict(summary)}


def headline(summary: Mapping[str, Any]) -> dict[str, float]:
    """Flat numbers of a study: each variant's mean, and its difference from the reference."""
    key = summary["ranked_by"]
    flat: dict[str, float] = {}
    for variant in summary["variants"]:
        entry = variant["metrics"][key]
        flat[f"{variant['name']}/{key}_mm"] = entry["value"]
        if "difference" in entry:
            flat[f"{variant['name']}/difference_mm"] = entry["difference"]
    return flat


def verdict(summary: Mapping[str, Any]) -> str:
    """What the study says of the metric that ranks, and what it leaves open."""
    key = summary["ranked_by"]
    metric, entries = summary["metrics"][key], {v["name"]: v["metrics"][key] for v in summary["variants"]}
    best = min(entries, key=lambda name: entries[name]["value"])
    reference, seeds = summary["reference"], len(summary["seeds"])
    told = [f"Best in {metric['label']} is {best}, {entries[best]['value']:.1f} {metric['unit']}"]
    if best != reference:
        entry = entries[best]
        told[0] += f", {entry['difference']:+.1f} against {reference} ({_spread(entry)})"
    words: dict[str, list[str]] = {"better": [], "worse": []}
    for name, entry in entries.items():
        if entry.get("told_apart"):
            words["better" if entry["difference"] < 0 else "worse"].append(name)
    for word, names in words.items():
        if names:
            told.append(f"told apart from {reference} over people and seeds, {word}: {', '.join(names)}")
    if seeds < 2:
        told.append("one seed does not tell how much of a difference is chance of training")
    elif not any(words.values()):
        told.append(f"no variant is told apart from {reference} over both people and seeds")
    return "; ".join(told) + "."


COLUMNS = {
    "parameters_m": "parameters, M",
    "trained_parameters_m": "trained, M",
    "forward_gflop": "GFLOP an image",
    "training_tflop": "training, TFLOP",
    "views_per_s": "views/s",
    "seconds": "s",
    "peak_gib": "GiB",
}
"""Costs as tables call them. The last three are of a machine, and in no file of a study."""


def table(summary: Mapping[str, Any], spent: Mapping[str, Mapping[str, float]] | None = None) -> str:
    """A study as a table in Markdown, with what its runs took on this machine where that is given."""
    key = summary["ranked_by"]
    unit = summary["metrics"][key]["unit"]
    rest = [k for k in summary["metrics"] if k != key]
    costs = [c for c in COLUMNS if any(c in v["cost"] | (spent or {}).get(v["name"], {}) for v in summary["variants"])]
    head = ["variant", f"{summary['metrics'][key]['label']}, {unit}", "95 % over seeds"]
    head += [f"{summary['metrics'][k]['label']}, {summary['metrics'][k]['unit']}" for k in rest]
    head += [f"− {summary['reference']}", "95 % over people", "p (Holm)", "95 % over seeds"]
    rows = [head + [COLUMNS[c] for c in costs], ["---"] * (len(head) + len(costs))]
    for variant in summary["variants"]:
        entry = variant["metrics"][key]
        row = [variant["name"], f"{entry['value']:.2f}", _range(entry["ci95"], sign=False)]
        row += [f"{variant['metrics'][k]['value']:.2f}" for k in rest]
        if "difference" in entry:
            p = f"{entry['p_holm']:.2g}"
            row += [f"{entry['difference']:+.2f}", _range(entry["people_ci95"]), p, _range(entry["seeds_ci95"])]
        else:
            row += ["", "", "", ""]
        known = variant["cost"] | (spent or {}).get(variant["name"], {})
        rows.append(row + [f"{known[c]:.4g}" if c in known else "" for c in costs])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _over_seeds(score_SN: np.ndarray) -> dict[str, Any]:
    means_S = mean(score_SN.T)
    return {
        "value": number(means_S.mean()),
        "ci95": mean_interval(means_S.tolist()),
        "seeds": [number(value) for value in means_S],
    }


def _difference(score_SN: np.ndarray, reference_SN: np.ndarray, draws_R: np.ndarray) -> dict[str, Any]:
    change_S = mean(score_SN.T) - mean(reference_SN.T)
    return {
        "difference": number(change_S.mean()),
        "people_ci95": interval(draws_R),
        "seeds_ci95": mean_interval(change_S.tolist()),
    }


def _apart(entry: Mapping[str, Any]) -> bool:
    """Whether the people and the seeds both leave no difference out; one seed leaves everything open."""
    seeds = entry["seeds_ci95"]
    return bool(entry["p_holm"] < LEVEL and seeds and not seeds[0] <= 0 <= seeds[1])


def _spread(entry: Mapping[str, Any]) -> str:
    people, seeds = (_range(entry[name]) for name in ("people_ci95", "seeds_ci95"))
    return f"95 % intervals: {people} over people, {seeds or 'unknown'} over seeds"


def _range(ends: Sequence[float] | None, sign: bool = True) -> str:
    if ends is None:
        return ""
    return " to ".join(f"{end:+.2f}" if sign else f"{end:.2f}" for end in ends)
