"""Tables of a result: means with bootstrap intervals, baselines, joints, groups, curve and cases, as plain data.

``result.json`` (schema 1) has these keys; millimetres, percent or pixels as each metric's `unit` says:

- ``benchmark``, ``samples``, ``protocol`` (name, title, description, joints), ``model`` (checkpoint, step, …)
- ``data``: records (digest of the dataset's) and body (kind of the model that the true meshes are of)
- ``metrics``: key → label, unit, meaning, lower_is_better, value, ci95 [low, high], n
- ``baselines``: origin, count and, per baseline, key → value, ratio (model over baseline), ratio_ci95
- ``per_joint``: joint, mpjpe, pa_mpjpe, camera_mean; ``joint_groups``: the same by body part
- ``groups``: what people are grouped by (heading, crop, distance, side, overlap, scene, sequence, action, subject,
  camera) → list of group, n and, per headline metric and those that the protocol lists, value, ci95, camera_mean
- ``absent``: groups that there are none of → why
- ``curve``: thresholds (mm), model and baselines: share of joints within each threshold
- ``cases``: best, median, worst → list of index, key and the ranking metric
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from metro.body.joints import names_of
from metro.config import EvaluateConfig
from metro.errors import MetroError
from metro.evaluation.baselines import BASELINES, Baselines
from metro.evaluation.measure import Samples
from metro.evaluation.protocols import METRICS, SCALE, Protocol
from metro.evaluation.strata import named_groups

SCHEMA = 1
CURVE_POINTS = 61
"""Thresholds of the PCK curve."""
ABSENT = {
    "heading": "hands have none",
    "crop": "no 2D joints are annotated",
    "distance": "joints are annotated relative to their root",
    "overlap": "no frame shows two people",
    "occlusion": "no set's labels, as they are kept, tell which joints something hides",
    "scene": "names of the records do not tell it",
    "sequence": "names of the records do not tell it",
    "action": "names of the records do not tell it",
    "subject": "names of the records do not tell it",
    "camera": "names of the records do not tell it",
}
"""Why a result may lack groups."""


def summarise(
    samples: Samples,
    protocol: Protocol,
    config: EvaluateConfig,
    baseline: Baselines | None = None,
    *,
    keys: Sequence[bytes] | np.ndarray,
    benchmark: str = "",
    about: Mapping[str, Any] | None = None,
    data: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Tables of a result as plain data; the layout is in the module's text."""
    main = protocol.headline[0]
    if not np.isfinite(samples.values[main]).any():
        raise MetroError(
            f"{benchmark or protocol.title}: no sample has the ground truth that {METRICS[main].label} needs"
        )
    columns = {("model", key): values for key, values in samples.values.items()}
    columns |= {(name, key): values for name, scores in samples.baselines.items() for key, values in scores.items()}
    means, draws = bootstrap(columns, config.bootstrap)
    names = names_of(protocol.joint_set)

    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "samples": len(samples),
        "protocol": {
            "name": protocol.name,
            "title": protocol.title,
            "description": protocol.description,
            "joints": list(names),
            "listed": list(protocol.listed),
        },
        "model": dict(about or {}),
        "data": dict(data or {}),
        "metrics": {},
        "baselines": {},
    }
    for key in protocol.metrics:
        metric, scale = METRICS[key], SCALE[METRICS[key].unit]
        summary["metrics"][key] = {
            "label": metric.label,
            "unit": metric.unit,
            "meaning": metric.meaning,
            "lower_is_better": metric.lower_is_better,
            "value": number(scale * means["model", key]),
            "ci95": interval(scale * draws["model", key]),
            "n": int(np.isfinite(samples.values[key]).sum()),
        }
    if baseline is not None:
        summary["baselines"] = {"origin": baseline.origin, "count": baseline.count}
        for name in BASELINES:
            summary["baselines"][name] = {
                key: {
                    "value": number(SCALE[METRICS[key].unit] * means[name, key]),
                    "ratio": number(means["model", key] / means[name, key], 4),
                    "ratio_ci95": interval(draws["model", key] / draws[name, key], 4),
                }
                for key in protocol.headline
            }
    joint_means = {k: mean(v) * 1000 for k, v in samples.joint_errors.items()}
    summary["per_joint"] = [
        {
            "joint": name,
            **{k: number(v[j]) for k, v in joint_means.items() if k in ("mpjpe", "pa_mpjpe", "camera_mean")},
        }
        for j, name in enumerate(names)
    ]
    summary["joint_groups"] = _joint_groups(samples, protocol, config.bootstrap)
    summary["groups"], summary["absent"] = _groups(samples, protocol, config.bootstrap, keys)
    limits = np.linspace(0, protocol.curve_limit, CURVE_POINTS)
    curves = {k: v for k, v in samples.joint_errors.items() if k != "pa_mpjpe"}
    summary["curve"] = {
        "thresholds": [number(1000 * t) for t in limits],
        **{"model" if k == "mpjpe" else k: _curve(v, limits) for k, v in curves.items()},
    }
    summary["cases"] = _cases(samples, main, keys, config.overlays)
    return summary


def headline(summary: Mapping[str, Any]) -> dict[str, float]:
    """Flat numbers of a ``result.json``: headline metrics, their ratio to each baseline, and those that are listed."""
    flat: dict[str, float] = {"samples": summary["samples"]}
    baselines, listed = _per_baseline(summary), summary["protocol"].get("listed", ())
    for key, entry in summary["metrics"].items():
        if key not in listed and key not in next(iter(baselines.values()), summary["metrics"]):
            continue
        suffix = {"mm": "_mm", "%": "_pct", "px224": "_px224"}[entry["unit"]]
        flat[key + suffix] = entry["value"]
        flat |= {f"{key}_vs_{name}": scores[key]["ratio"] for name, scores in baselines.items() if key in scores}
    return flat


def table(summary: Mapping[str, Any]) -> str:
    """A result as text: metrics with intervals, and the baselines of the same benchmark beside them."""
    names = {
        "camera_mean": "camera mean",
        "canonical_mean": "canonical mean",
        "canonical_true_heading": "… true heading",
    }
    known = _per_baseline(summary)
    head = ["metric", "value", "95 % interval", "n", *(names[b] for b in known)]
    rows = [head]
    for key, entry in summary["metrics"].items():
        low_high = entry["ci95"]
        spread = f"{low_high[0]:.1f} – {low_high[1]:.1f}" if low_high else ""
        unit = {"px224": "px"}.get(entry["unit"], entry["unit"])
        compared = [
            f"{known[b][key]['value']:.1f} (×{known[b][key]['ratio']:.2f})" if key in known[b] else "" for b in known
        ]
        rows.append([entry["label"], f"{entry['value']:.1f} {unit}", spread, str(entry["n"]), *compared])
    widths = [max(len(row[c]) for row in rows) for c in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    origin = summary["baselines"].get("origin")
    about = f"baselines: mean poses of {origin}; ×: this model over the baseline" if origin else "no baselines"
    title = f"{summary['benchmark'] or summary['protocol']['title']}: {summary['samples']} samples"
    return "\n".join([title, *lines, about])


Key = TypeVar("Key", bound=Hashable)


def bootstrap(
    columns: Mapping[Key, np.ndarray], resamples: int, seed: int = 0
) -> tuple[dict[Key, float], dict[Key, np.ndarray]]:
    """Means of columns (N,) and their means under resampling of the rows, (R,) each; nan rows do not count.

    All columns see the same resamples, so ratios and differences of their draws are paired.
    """
    table = np.stack([np.asarray(v, np.float64) for v in columns.values()], 1)  # (N, M)
    known = np.isfinite(table)
    values, rng, draws = np.where(known, table, 0.0), np.random.default_rng(seed), []
    step = max(1, 4_000_000 // len(table))
    with np.errstate(invalid="ignore"):
        for start in range(0, resamples, step):
            chosen = rng.integers(0, len(table), (min(step, resamples - start), len(table)))
            counts = np.stack([np.bincount(c, minlength=len(table)) for c in chosen]).astype(np.float64)
            draws.append((counts @ values) / (counts @ known))
        means = values.sum(0) / known.sum(0)
    drawn = np.concatenate(draws) if draws else np.empty((0, table.shape[1]))
    return dict(zip(columns, means.tolist(), strict=True)), {k: drawn[:, i] for i, k in enumerate(columns)}


def groups_of(samples: Samples) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Groups of samples by what was measured of them: name and rows (N,) bool of each that is not empty."""
    bins = _bins(samples)
    return {name: parts for name, parts in bins.items() if len(parts) > 1}


def _bins(samples: Samples) -> dict[str, list[tuple[str, np.ndarray]]]:
    unknown = np.full(len(samples), np.nan)  # of results that were written before it was measured
    turn, side, overlap = (samples.attributes.get(k, unknown) for k in ("heading", "side", "overlap"))
    turn, inside, distance = np.abs(turn), samples.attributes["inside"], samples.attributes["distance"]
    bins: dict[str, list[tuple[str, np.ndarray]]] = {
        "heading": [
            ("front (within 45°)", turn <= 45),
            ("side (45–135°)", (turn > 45) & (turn <= 135)),
            ("back (beyond 135°)", turn > 135),
        ],
        "crop": [
            ("all joints in the crop", inside >= 1),
            ("75–99 % in the crop", (inside >= 0.75) & (inside < 1)),
            ("less than 75 %", inside < 0.75),
        ],
        "distance": [],
        "side": [
            ("up to 128 px", side <= 128),
            ("128–256 px", (side > 128) & (side <= 256)),
            ("256–512 px", (side > 256) & (side <= 512)),
            ("more than 512 px", side > 512),
        ],
        "overlap": [
            ("nobody's box over theirs", overlap <= 0),
            ("up to a quarter", (overlap > 0) & (overlap <= 0.25)),
            ("more than a quarter", overlap > 0.25),
        ],
    }
    if np.isfinite(distance).sum() >= 3:
        a, b = np.nanquantile(distance, (1 / 3, 2 / 3))
        bins["distance"] = [
            (f"near (up to {a:.1f} m)", distance <= a),
            (f"middle ({a:.1f}–{b:.1f} m)", (distance > a) & (distance <= b)),
            (f"far (beyond {b:.1f} m)", distance > b),
        ]
    return {name: [(label, rows) for label, rows in parts if rows.any()] for name, parts in bins.items()}


def _groups(
    samples: Samples, protocol: Protocol, resamples: int, keys: Sequence[bytes] | np.ndarray
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Groups, and why there are none of the others."""
    bins = _bins(samples) | named_groups(keys, samples.index)
    groups = {
        name: [_group(samples, protocol, label, rows, resamples) for label, rows in parts]
        for name, parts in bins.items()
        if len(parts) > 1
    }
    absent = {name: f"all are of one: {parts[0][0]}" for name, parts in bins.items() if len(parts) == 1}
    return groups, {name: why for name, why in ABSENT.items() if name not in bins or not bins[name]} | absent


def _group(samples: Samples, protocol: Protocol, label: str, rows: np.ndarray, resamples: int) -> dict[str, Any]:
    columns = {("model", key): samples.values[key][rows] for key in (*protocol.headline, *protocol.listed)}
    columns |= {("camera_mean", k): v[rows] for k, v in samples.baselines.get("camera_mean", {}).items()}
    means, draws = bootstrap(columns, resamples)
    entry: dict[str, Any] = {"group": label, "n": int(rows.sum())}
    for key in (*protocol.headline, *protocol.listed):
        scale = SCALE[METRICS[key].unit]
        entry[key] = {"value": number(scale * means["model", key]), "ci95": interval(scale * draws["model", key])}
        if ("camera_mean", key) in means:
            entry[key]["camera_mean"] = number(scale * means["camera_mean", key])
    return entry


def _joint_groups(samples: Samples, protocol: Protocol, resamples: int) -> list[dict[str, Any]]:
    names, table = names_of(protocol.joint_set), []
    for group, members in protocol.figure.groups.items():
        rows = [j for j, name in enumerate(names) if name in members]
        if not rows:
            continue
        means, draws = bootstrap({k: mean(v[:, rows].T) for k, v in samples.joint_errors.items()}, resamples)
        entry: dict[str, Any] = {"group": group, "joints": [names[j] for j in rows]}
        for key in ("mpjpe", "pa_mpjpe"):
            entry[key] = {"value": number(1000 * means[key]), "ci95": interval(1000 * draws[key])}
        if "camera_mean" in means:
            entry["camera_mean"] = number(1000 * means["camera_mean"])
        table.append(entry)
    return table


def _cases(
    samples: Samples, key: str, keys: Sequence[bytes] | np.ndarray, count: int
) -> dict[str, list[dict[str, Any]]]:
    values = samples.values[key]
    order = np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")[: np.isfinite(values).sum()]
    count = min(count, len(order))
    middle = (len(order) - count) // 2
    picks = {"best": order[:count], "median": order[middle : middle + count], "worst": order[::-1][:count]}
    return {
        name: [
            {"index": int(samples.index[r]), "key": keys[samples.index[r]].decode(), key: number(1000 * values[r])}
            for r in rows
        ]
        for name, rows in picks.items()
    }


def _per_baseline(summary: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    return {name: summary["baselines"][name] for name in BASELINES if name in summary["baselines"]}


def _curve(errors: np.ndarray, limits: np.ndarray) -> list[float]:
    known = errors[np.isfinite(errors)]
    return [number(float((known <= t).mean()), 4) for t in limits]


def mean(table: np.ndarray) -> np.ndarray:
    """Mean over the rows of what is known; nan in columns without any."""
    known = np.isfinite(table)
    with np.errstate(invalid="ignore"):
        return np.where(known, table, 0.0).sum(0) / known.sum(0)


def number(value: float, digits: int = 3) -> float:
    """A number as results are written."""
    return round(float(value), digits)


def interval(draws: np.ndarray, digits: int = 3) -> list[float] | None:
    """Percentile interval of 95 %; none if there are no draws."""
    known = draws[np.isfinite(draws)]
    return [number(q, digits) for q in np.quantile(known, (0.025, 0.975))] if len(known) else None
