"""The report: one HTML file that needs no network, made from the results' JSON files and pictures.

Everything is embedded, pictures as data, meshes as quantised arrays for a small WebGL viewer. Parts that were not made
are left out. The text states what the numbers can and cannot tell.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from metro.errors import MetroError
from metro.files import read_json

BASELINES = {
    "camera_mean": "camera-frame mean",
    "canonical_mean": "canonical mean",
    "canonical_true_heading": "canonical mean, true heading",
}
FAIR = {"pa_mpjpe": "canonical_mean", "joints_aligned": "canonical_mean", "vertices_aligned": "canonical_mean"}
"""Baseline a metric is judged by; the camera-frame mean where none is named."""
GROUPS = {"heading": "By heading", "visibility": "By visible joints", "distance": "By distance from the camera"}
CASES = {"best": "Best cases", "median": "Median cases", "worst": "Worst cases"}
JPEG_FROM = 200_000
"""Pictures larger than this (bytes) are embedded as JPEG."""


@dataclass(frozen=True)
class DataSet:
    """A dataset shown in the report."""

    name: str
    manifest: Path
    """Its manifest.json."""
    role: str = ""
    """What it is for, e.g. `training`."""
    sheet: Path | None = None
    """Contact sheet."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """Numbers of its fit stage, if it has one."""


@dataclass(frozen=True)
class Content:
    """What a report shows; all but the title may be missing."""

    title: str
    lead: str = ""
    """A sentence or two under the title."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Shown under the lead: preset, commit, model size, …"""
    benchmarks: Mapping[str, Path] = field(default_factory=dict)
    """Benchmark → folder with ``result.json`` and the figures of the evaluation."""
    curves: Path | None = None
    """``curves.json`` of the training."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the training, shown as a table."""
    sweep: Path | None = None
    """``sweep.json``: benchmark, metric, unit, steps and points (ratio, value, ci95)."""
    attention: Path | None = None
    """Folder with ``attention.json`` and its figures."""
    datasets: Sequence[DataSet] = ()
    export: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the exported files."""
    runs: Mapping[str, str] = field(default_factory=dict)
    """Stage → what finds its run in MLflow's search box."""


def write_report(content: Content, path: Path, work: Path | None = None) -> Path:
    """Write the report.

    Parameters
    ----------
    content
        What to show.
    path
        The HTML file.
    work
        Folder for the charts drawn on the way; none: a temporary one.

    Raises
    ------
    MetroError
        A file that the content names is missing or damaged.
    """
    import tempfile

    from jinja2 import Environment, PackageLoader, StrictUndefined

    with tempfile.TemporaryDirectory() as temporary:
        charts = work or Path(temporary)
        environment = Environment(
            loader=PackageLoader("metro.viz"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"number": _number, "share": lambda x: f"{100 * x:.1f} %", "bytes": _bytes}
        page = environment.get_template("report.html.j2").render(
            content=content,
            style=_template("report.css"),
            script=_template("viewer.js"),
            benchmarks=[_benchmark(name, folder) for name, folder in content.benchmarks.items()],
            training=_training(content, charts),
            sweep=_sweep(content.sweep, charts),
            attention=_attention(content.attention),
            datasets=[_dataset(d) for d in content.datasets],
            baselines=BASELINES,
            groups=GROUPS,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def verdict(result: Mapping[str, Any], key: str) -> str:
    """One honest sentence: the metric against the baseline it should be judged by."""
    entry, name = result["metrics"][key], FAIR.get(key, "camera_mean")
    scores = result["baselines"].get(name, {})
    text = f"{entry['label']} is {_number(entry['value'])} {_unit(entry['unit'])}"
    if key not in scores or scores[key]["ratio_ci95"] is None:
        return f"{text}; there is no baseline to compare it with."
    ratio, (low, high) = scores[key]["ratio"], scores[key]["ratio_ci95"]
    versus = f"the {BASELINES[name]} pose ({_number(scores[key]['value'])} {_unit(entry['unit'])})"
    spread = f"ratio {ratio:.2f}, 95 % interval {low:.2f}–{high:.2f}"
    if low <= 1 <= high:
        return f"{text}, which cannot be told apart from {versus}: {spread}."
    change, side = (1 - ratio, "below") if ratio < 1 else (ratio - 1, "above")
    tail = "" if ratio < 1 else " A pose that ignores the image does better."
    return f"{text}, {100 * change:.0f} % {side} {versus}; {spread}.{tail}"


def _benchmark(name: str, folder: Path) -> dict[str, Any]:
    result = _json(folder / "result.json")
    headline = [k for k in result["metrics"] if k in result["baselines"].get("camera_mean", result["metrics"])]
    return {
        "name": name,
        "result": result,
        "headline": headline,
        "verdicts": [verdict(result, k) for k in headline],
        "main": headline[0],
        "pictures": {
            key: _picture(folder / f"{key}.png")
            for key in (*CASES, "joints", "pck", "distribution", *(f"groups_{g}" for g in result["groups"]))
            if (folder / f"{key}.png").is_file()
        },
        "cases": {key: title for key, title in CASES.items() if (folder / f"{key}.png").is_file()},
        "meshes": _meshes(folder / "cases.npz", result) if (folder / "cases.npz").is_file() else "",
    }


def _meshes(path: Path, result: Mapping[str, Any]) -> str:
    """Meshes of the cases for the viewer, as JSON with base64 arrays (int16 positions with a scale, uint32 faces)."""
    with np.load(path, allow_pickle=False) as arrays:
        cases = []
        for k, kind in enumerate(arrays["kind"]):
            entry = next(c for c in result["cases"][str(kind)] if c["index"] == arrays["index"][k])
            value = next(v for key, v in entry.items() if key not in ("index", "key"))
            predicted, true = arrays["predicted"][k], arrays["true"][k]
            cases.append(
                {
                    "label": f"{kind} case, {value:.0f} mm",
                    "image": _encode(arrays["image"][k], ".jpg"),
                    "predicted": _quantised(predicted),
                    "true": _quantised(true) if np.isfinite(true).all() else None,
                }
            )
        faces = base64.b64encode(arrays["faces"].astype("<u4").tobytes()).decode()
    return json.dumps({"faces": faces, "cases": cases})


def _quantised(vertices_V3: np.ndarray) -> dict[str, Any]:
    scale = float(np.abs(vertices_V3).max()) / 32767
    return {"scale": scale, "data": base64.b64encode(np.rint(vertices_V3 / scale).astype("<i2").tobytes()).decode()}


def _training(content: Content, charts: Path) -> dict[str, Any] | None:
    from metro.viz import plots

    if content.curves is None:
        return {"picture": "", "last": {}} if content.train else None
    curves = _json(content.curves)
    picture = plots.learning_curves(curves, charts / "learning_curves.png")
    last: dict[str, float] = {}
    for record in curves:
        last |= record
    return {"picture": _picture(picture), "last": last}


def _sweep(path: Path | None, charts: Path) -> dict[str, Any] | None:
    from metro.viz import plots

    if path is None:
        return None
    sweep = _json(path)
    points = sorted(sweep["points"], key=lambda p: p["ratio"])
    label, unit = sweep.get("label", "MPJPE"), sweep.get("unit", "mm")
    picture = plots.ratio_curve(
        [p["ratio"] for p in points],
        [p["value"] for p in points],
        [p.get("ci95") for p in points],
        charts / "mask_ratio.png",
        label=label,
        unit=unit,
    )
    best = min(points, key=lambda p: p["value"])
    others = [p for p in points if p is not best and p.get("ci95") and best.get("ci95")]
    apart = [p for p in others if p["ci95"][0] > best["ci95"][1]]
    return {
        **sweep,
        "points": points,
        "best": best,
        "apart": apart,
        "picture": _picture(picture),
        "label": label,
        "unit": unit,
    }


def _attention(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    summary = _json(folder / "attention.json")
    shown = []
    for key, prefix in (("last", ""), ("sharpest", "sharpest_")):
        if key in summary:
            names = {n: folder / f"{prefix}{n}.png" for n in ("joints", "parts", "mean", "examples")}
            pictures = {n: _picture(path) for n, path in names.items() if path.is_file()}
            shown.append({**summary[key], "kind": key, "pictures": pictures})
    return {**summary, "shown": shown}


def _dataset(data: DataSet) -> dict[str, Any]:
    manifest = _json(data.manifest)
    facts = {**manifest, **manifest.get("statistics", {})}
    return {
        "name": data.name,
        "role": data.role,
        "records": facts.get("count", 0),
        "joints_2d": facts.get("has_2d", 0),
        "joints_3d": facts.get("has_3d", 0),
        "meshes": facts.get("has_mesh", 0),
        "skipped": _count(facts.get("skipped", 0)),
        "bytes": sum(shard.get("bytes", 0) for shard in facts.get("shards", [])),
        "licence": facts.get("licence", ""),
        "fit": dict(data.fit),
        "sheet": _picture(data.sheet) if data.sheet else "",
    }


def _count(skipped: Any) -> int:
    return (
        int(skipped["count"])
        if isinstance(skipped, Mapping)
        else len(skipped)
        if isinstance(skipped, list)
        else int(skipped)
    )


def _json(path: Path) -> Any:
    return read_json(path, "run the stage that makes it")


def _picture(path: Path) -> str:
    """A picture as a data URI; large ones as JPEG."""
    try:
        content = path.read_bytes()
    except OSError as err:
        raise MetroError(f"{path}: {err.strerror}; run the stage that makes it") from None
    if len(content) <= JPEG_FROM:
        kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise MetroError(f"{path}: damaged picture; run the stage that makes it again")
    return _encode(image, ".jpg")


def _encode(image: np.ndarray, ending: str) -> str:
    _, content = cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"


def _template(name: str) -> str:
    return (resources.files("metro.viz") / "templates" / name).read_text(encoding="utf-8")


def _unit(unit: str) -> str:
    return {"px224": "px"}.get(unit, unit)


def _number(value: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}".replace(",", "\u202f")
    size = abs(value)
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
