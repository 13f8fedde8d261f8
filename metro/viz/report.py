"""The report: one HTML file that needs no network, made from the results' JSON files and pictures.

Everything is embedded, pictures as data, meshes as quantised arrays for a small WebGL viewer. Parts that were not made
are left out. The text states what the numbers can and cannot tell.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from metro.errors import MetroError
from metro.files import atomic_file, read_json, readable

BASELINES = {
    "camera_mean": "camera-frame mean",
    "canonical_mean": "canonical mean",
    "canonical_true_heading": "canonical mean, true heading",
}
FAIR = {"pa_mpjpe": "canonical_mean", "joints_aligned": "canonical_mean", "vertices_aligned": "canonical_mean"}
"""Baseline a metric is judged by; the camera-frame mean where none is named."""
TERMS = {
    "MPJPE": "mean per-joint position error, both sides centred at the root joint",
    "PA-MPJPE": "mean per-joint position error after Procrustes alignment: the best rotation, scale and translation",
    "MPVE": "mean per-vertex error, each mesh minus its own root",
    "PA-MPVE": "mean per-vertex error after Procrustes alignment",
    "PCK": "percentage of correct keypoints: joints within the distance that follows the @",
    "AUC": "area under the PCK curve, over the distances named",
    "F@": "F-score at a distance: how much of either surface lies within so many millimetres of the other",
}
"""What the abbreviations in the metrics' labels stand for; of those that a label holds the longest one counts."""
GROUPS = {
    "heading": "heading",
    "crop": "joints in the crop",
    "distance": "distance from the camera",
    "side": "size of the crop in the frame",
    "overlap": "overlap with others' boxes",
    **{name: name for name in ("scene", "sequence", "action", "subject", "camera")},
}
"""What the groups of a result are made by."""
CASES = {"best": "best", "median": "median", "worst": "worst"}
CHARTS = {
    "pck": "Share of joints within each distance, for the model and the mean poses",
    "distribution": "Histogram of the error per sample, with its mean and median",
    "joints": "Error by body part, with 95 % intervals",
    **{f"groups_{key}": f"Error by {name}, with 95 % intervals" for key, name in GROUPS.items()},
}
"""Charts of a benchmark, and what they show to those who cannot see them."""
REMEDY = "run the stage that makes it"
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
    """``summary.json`` of its fit stage, if it has one."""


@dataclass(frozen=True)
class Content:
    """What a report shows; all but the title may be missing."""

    title: str
    lead: str = ""
    """A sentence or two under the title."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Shown under the lead: preset, model size, digests, … What names the run and not its inputs (the time, a commit)
    would give every page other bytes."""
    benchmarks: Mapping[str, Path] = field(default_factory=dict)
    """Benchmark → folder with ``result.json`` and the figures of the evaluation."""
    photos: Mapping[str, Path] = field(default_factory=dict)
    """Labelled photographs → folder with ``result.json`` and the figures of their evaluation."""
    curves: Path | None = None
    """``curves.json`` of the training."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the training, shown as a table."""
    studies: Mapping[str, Path] = field(default_factory=dict)
    """Study → folder with ``study.json`` (`metro.evaluation.studies`) and ``study.png``."""
    attention: Path | None = None
    """Folder with ``attention.json`` and its figures."""
    occlusion: Path | None = None
    """Folder with ``occlusion.json`` and its figures."""
    datasets: Sequence[DataSet] = ()
    export: Mapping[str, int] = field(default_factory=dict)
    """Exported file → bytes."""
    runs: Mapping[str, str] = field(default_factory=dict)
    """Stage → what finds its run in MLflow's search box."""


def write_report(content: Content, path: Path) -> Path:
    """Write the report.

    Parameters
    ----------
    content
        What to show.
    path
        The HTML file.

    Raises
    ------
    MetroError
        A file that the content names is missing or damaged.
    """
    with tempfile.TemporaryDirectory() as charts:
        benchmarks = [_benchmark(name, folder) for name, folder in content.benchmarks.items()]
        parts = {
            "benchmarks": benchmarks,
            "terms": _terms(benchmarks),
            "photos": [_photos(name, folder) for name, folder in content.photos.items()],
            "training": _training(content, Path(charts)),
            "studies": [_study(folder) for folder in content.studies.values()],
            "attention": _attention(content.attention),
            "occlusion": _occlusion(content.occlusion),
            "datasets": [_dataset(d) for d in content.datasets],
        }
        page = render(
            "report.html.j2",
            content.title,
            content=content,
            script=_template("turntable.js") + _template("viewer.js"),
            known=dict(baselines=BASELINES, fair=FAIR, groups=GROUPS, cases=CASES, charts=CHARTS),
            **parts,
        )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render(template: str, title: str, **parts: Any) -> str:
    """A page of the report's style; `parts` are what its template takes.

    Raises
    ------
    MetroError
        Something that the template needs is missing.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

    environment = Environment(
        loader=PackageLoader("metro.viz"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "fixed": _fixed, "share": _share, "bytes": _bytes, "picture": _picture}
    try:
        return environment.get_template(template).render(style=_template("report.css"), **parts)
    except UndefinedError as err:
        raise MetroError(f"{title}: a file of the results is damaged: {err.message}; {REMEDY}") from None


def verdict(result: Mapping[str, Any], key: str) -> str:
    """One honest sentence: the metric against the baseline it should be judged by."""
    entry, name = result["metrics"][key], FAIR.get(key, "camera_mean")
    if not _finite(entry["value"]):
        return f"{entry['label']} is not known: no sample has the ground truth that it needs."
    scores = result["baselines"].get(name, {})
    text = f"{entry['label']} is {_number(entry['value'])} {_unit(entry['unit'])}"
    if not _finite(scores.get(key, {}).get("ratio")) or scores[key]["ratio_ci95"] is None:
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
    result = _json(folder / "result.json", "metrics", "baselines", "groups", "cases", "per_joint", "protocol")
    with readable(folder / "result.json", REMEDY):
        headline = [k for k in result["metrics"] if k in result["baselines"].get("camera_mean", result["metrics"])]
        told = {
            "name": name,
            "result": {**result, "metrics": {k: {**m, "unit": _unit(m["unit"])} for k, m in result["metrics"].items()}},
            "headline": headline,
            "verdicts": [verdict(result, k) for k in headline],
        }
    meshes = folder / "cases.npz"
    return {
        **told,
        "pictures": {key: _picture(path) for key in (*CASES, *CHARTS) if (path := folder / f"{key}.png").is_file()},
        "meshes": _meshes(meshes, result) if meshes.is_file() else None,
    }


def _photos(name: str, folder: Path) -> dict[str, Any]:
    return {
        "name": name,
        "result": _json(folder / "result.json", "metrics", "joint_groups", "samples", "protocol"),
        "pictures": {key: _picture(path) for key in CASES if (path := folder / f"{key}.png").is_file()},
    }


def _terms(benchmarks: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The abbreviations that the page uses, spelled out."""
    labels = [m["label"] for b in benchmarks for m in b["result"]["metrics"].values()]
    used = {max((term for term in TERMS if term in label), key=len, default=None) for label in labels}
    return {term: meaning for term, meaning in TERMS.items() if term in used}


def _meshes(path: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Meshes of the cases for the viewer: labels, and JSON with base64 arrays (int16 positions with a scale, uint32
    faces)."""
    with readable(path, REMEDY), np.load(path, allow_pickle=False) as arrays:
        cases = []
        for k, kind in enumerate(arrays["kind"].tolist()):
            entry = next(c for c in result["cases"][kind] if c["index"] == arrays["index"][k])
            value = next(v for key, v in entry.items() if key not in ("index", "key"))
            cases.append(
                {
                    "label": f"{CASES[kind].capitalize()} case, {_fixed(value, 0)} mm",
                    "image": _encode(arrays["image"][k]),
                    "predicted": _quantised(arrays["predicted"][k]),
                    "true": _quantised(arrays["true"][k]),
                }
            )
        faces = base64.b64encode(arrays["faces"].astype("<u4").tobytes()).decode()
    # Inside of a script element nothing may look like a tag.
    packed = json.dumps({"faces": faces, "cases": cases}).replace("<", "\\u003c")
    return {"labels": [case["label"] for case in cases], "json": packed}


def _quantised(vertices_V3: np.ndarray) -> dict[str, Any] | None:
    """Positions as integers with their scale; none where a number is not finite."""
    if not np.isfinite(vertices_V3).all():
        return None
    scale = float(np.abs(vertices_V3).max()) / 32767 or 1.0
    return {"scale": scale, "data": base64.b64encode(np.rint(vertices_V3 / scale).astype("<i2").tobytes()).decode()}


def _training(content: Content, charts: Path) -> dict[str, Any] | None:
    from metro.viz import plots

    if content.curves is None:
        return {"picture": "", "errors": []} if content.train else None
    curves = read_json(content.curves, REMEDY, shape=list[dict[str, float]])
    with readable(content.curves, REMEDY):
        picture = plots.learning_curves(curves, charts / "learning_curves.png")
        errors = [
            {"step": record["step"], **{k: 1000 * record[k] for k in plots.measured(curves) if k in record}}
            for record in curves
            if any(key in record for key in plots.measured(curves))
        ]
    labels = {key: plots.metric_label(key) for key in plots.measured(curves)}
    return {"picture": _picture(picture), "errors": errors, "labels": labels}


def _study(folder: Path) -> dict[str, Any]:
    study = _json(folder / "study.json", "study", "metrics", "variants", "ranked_by", "reference", "seeds", "verdict")
    with readable(folder / "study.json", REMEDY):
        metrics = {key: {**metric, "unit": _unit(metric["unit"])} for key, metric in study["metrics"].items()}
        main = metrics[study["ranked_by"]]
    return {**study, "metrics": metrics, "main": main, "picture": _picture(folder / "study.png")}


def _attention(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    summary = _json(folder / "attention.json", "images", "tokens", "layers", "heads", "examples")
    shown = []
    for key, prefix in (("last", ""), ("sharpest", "sharpest_")):
        if key in summary:
            names = {n: folder / f"{prefix}{n}.png" for n in ("joints", "parts", "mean", "examples")}
            pictures = {n: _picture(path) for n, path in names.items() if path.is_file()}
            shown.append({**summary[key], "kind": key, "pictures": pictures})
    by_head = folder / "heads.png"
    return {**summary, "shown": shown, "by_head": _picture(by_head) if by_head.is_file() else ""}


def _occlusion(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    summary = _json(folder / "occlusion.json", "people", "networks", "patch", "hidden")
    pictures = {n: _picture(path) for n in ("curves", "patch", "examples") if (path := folder / f"{n}.png").is_file()}
    with readable(folder / "occlusion.json", REMEDY):
        return {**summary, "shown": summary["networks"][0], "pictures": pictures}


def _dataset(data: DataSet) -> dict[str, Any]:
    manifest = _json(data.manifest)
    with readable(data.manifest, REMEDY):
        facts = {**manifest, **manifest.get("statistics", {})}
        shards = facts.get("shards", [])
        contents = json.dumps([shard.get("sha256", "") for shard in shards])
        told = {
            "records": facts.get("count", 0),
            "joints_2d": facts.get("has_2d", 0),
            "joints_3d": facts.get("has_3d", 0),
            "meshes": facts.get("has_mesh", 0),
            "skipped": facts.get("skipped", 0),
            "bytes": sum(shard.get("bytes", 0) for shard in shards),
            "digest": hashlib.sha256(contents.encode()).hexdigest()[:12],
            "licence": facts.get("licence", ""),
        }
    return {
        "name": data.name,
        "role": data.role,
        **told,
        "fit": _fit(data.fit) if data.fit else None,
        "sheet": _picture(data.sheet) if data.sheet else "",
    }


def _fit(summary: Mapping[str, Any]) -> dict[str, str]:
    """What became of the fits of a dataset, in words."""
    told = {"people": _number(summary.get("count")), "accepted": _number(summary.get("accepted"))}
    told["rejected"] = ", ".join(f"{n} {reason}" for reason, n in summary.get("rejected", {}).items()) or "none"
    told["had a mesh"] = _number(summary.get("kept_meshes"))
    told["converged"] = _share(summary.get("converged"))
    for key, name, unit in (
        ("error_3d_mm", "3D joint error", "mm"),
        ("error_2d_percent", "2D joint error", "% of the box"),
    ):
        if spread := summary.get(key):
            told[name] = f"{_fixed(spread.get('mean'), 2)} {unit} (95th percentile {_fixed(spread.get('p95'), 2)})"
    return told


def _json(path: Path, *keys: str) -> Any:
    return read_json(path, REMEDY, keys)


def _picture(path: Path) -> str:
    """A picture as a data URI; large ones as JPEG."""
    with readable(path, REMEDY):
        content = path.read_bytes()
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise ValueError("no picture")
        if len(content) > JPEG_FROM:
            return _encode(image)
        kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _encode(image: np.ndarray) -> str:
    _, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"


def _template(name: str) -> str:
    return (resources.files("metro.viz") / "templates" / name).read_text(encoding="utf-8")


def _unit(unit: str) -> str:
    return {"px224": "px"}.get(unit, unit)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _number(value: Any) -> str:
    """A number with the digits that it deserves, in groups of three; words as they are, what is not known as a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}".replace(",", "\u202f")
    size = abs(value)
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def _fixed(value: Any, digits: int = 1) -> str:
    """A number with so many decimals; a dash where it is not known."""
    return f"{value:.{digits}f}" if _finite(value) else "–"


def _share(value: Any) -> str:
    return f"{_fixed(100 * value)} %" if _finite(value) else "–"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
