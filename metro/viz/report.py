"""The report: one HTML file that needs no network, made from the results' JSON files and pictures.

Everything is embedded, pictures as data, meshes as quantised arrays for a small WebGL viewer. Parts that were not made
are left out, of the contents too. Each section opens with a sentence on what it shows and how to read it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from metro.errors import MetroError
from metro.files import atomic_file, read_json, readable
from metro.viz.published import PUBLISHED

SECTIONS = {
    "headline": (
        "Headline",
        "The scores of this model beside those that METRO's authors published; two of them can be compared only where "
        "both are of the same test set.",
    ),
    "results": (
        "Results",
        "Every benchmark under its protocol, with 95 % intervals and beside poses that ignore the image: errors are "
        "better low, shares high.",
    ),
    "cases": (
        "Cases",
        "Those with the lowest, the middle and the highest error: the nearer a prediction lies to the truth beside it, "
        "also from the side, the better.",
    ),
    "breakdown": (
        "Breakdown",
        "Where the error comes from, by joint and by kind of picture; kinds whose intervals overlap widely may not "
        "differ at all.",
    ),
    "photographs": (
        "Photographs",
        "Joints that people marked in photographs, and where the predicted ones fall: PCK is the percentage of correct "
        "keypoints, those within so many parts of the box's longer side as follow the @.",
    ),
    "studies": (
        "Studies",
        "Trainings that differ in the parameters of their variant alone, judged on the same people: a difference "
        "counts where both of its intervals leave out 0.",
    ),
    "attention": (
        "Attention",
        "What the joint queries attend to, averaged over heads and images: 1 × is an even share, more means that a "
        "query takes more from there.",
    ),
    "occlusion": (
        "Occlusion",
        "How the error grows as more of a person or of the queries is hidden: the flatter a curve, the less the model "
        "hangs on what it sees there.",
    ),
    "data": (
        "Data",
        "The sets that trained, validated and tested, and what they are annotated with; a digest names their content "
        "exactly.",
    ),
    "fits": (
        "Fits",
        "How well bodies fitted to the joints of sets without meshes agree with those joints: low errors and few "
        "rejected people make good pseudo-meshes.",
    ),
    "training": (
        "Training",
        "Losses and validation errors over the steps: the run is done when the errors are flat, and overfits when they "
        "rise while the loss falls.",
    ),
    "costs": (
        "Costs",
        "What the network and its training take on every machine: weights, and multiplications and additions (FLOP).",
    ),
    "model": ("Model card", "What the trained checkpoint is, what it learned from and how, and what it is not for."),
    "commands": (
        "Commands",
        "The command, run in the project's folder, that makes each part of this page again from its inputs; what is up "
        "to date is not run again.",
    ),
    "versions": (
        "Versions",
        "The packages as the project pins them, the exported files, and where the tracked runs are found.",
    ),
    "reading": ("How to read this", "What the numbers can tell and what they cannot."),
}
"""Sections in the order of the page: title, and the sentence that says what is shown and how it is read."""
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
COSTS = {
    "parameters_m": "parameters, M",
    "trained_parameters_m": "of them trained, M",
    "forward_gflop": "forward pass of an image, GFLOP",
    "training_tflop": "the training, TFLOP",
}
"""What `metro.training.flops.cost` tells."""
REMEDY = "run the stage that makes it"
JPEG_FROM = 200_000
"""Pictures larger than this (bytes) are embedded as JPEG."""
LIMIT = 15_000_000
"""Bytes that the page should not exceed."""
SCALES = (1.0, 0.75, 0.5, 0.35)
"""What the sides of those pictures are multiplied by, one after the other, until the page keeps to the limit."""

_log = logging.getLogger(__name__)


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
    origins: Mapping[str, str] = field(default_factory=dict)
    """Benchmark → source of its people (`metro.words.Source`): which published numbers are of the same set."""
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
    costs: Mapping[str, float] = field(default_factory=dict)
    """What the network and its training take, as in a study (`metro.training.flops.cost`)."""
    weights: Mapping[str, int] = field(default_factory=dict)
    """Part of the network → its parameters."""
    card: Mapping[str, str] = field(default_factory=dict)
    """The model card: what is told of the checkpoint, by name."""
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Section (key of `SECTIONS`) → commands that make what it shows."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package → version."""
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
        datasets = [_dataset(d) for d in content.datasets]
        parts = {
            "headline": _headline(benchmarks, content.origins),
            "benchmarks": benchmarks,
            "terms": _terms(benchmarks),
            "photos": [_photos(name, folder) for name, folder in content.photos.items()],
            "training": _training(content, Path(charts)),
            "studies": [_study(folder) for folder in content.studies.values()],
            "attention": _attention(content.attention),
            "occlusion": _occlusion(content.occlusion),
            "datasets": datasets,
            "fits": [d for d in datasets if d["fit"]],
        }
        shown = dict.fromkeys(("headline", "results", "cases", "breakdown"), bool(benchmarks)) | {
            "photographs": bool(parts["photos"]),
            "data": bool(datasets),
            "costs": bool(content.costs or content.weights),
            "model": bool(content.card),
            "commands": bool(content.commands),
            "versions": bool(content.versions or content.export or content.runs),
            "reading": True,
        }
        sections = {key: told for key, told in SECTIONS.items() if shown.get(key, bool(parts.get(key)))}
        for scale in SCALES:
            page = render(
                "report.html.j2",
                content.title,
                scale=scale,
                content=content,
                sections=sections,
                script=_template("turntable.js") + _template("viewer.js") + _template("contents.js"),
                known=dict(baselines=BASELINES, fair=FAIR, groups=GROUPS, cases=CASES, charts=CHARTS, costs=COSTS),
                **parts,
            )
            size = len(page.encode())
            if size <= LIMIT:
                break
        else:
            _log.warning("%s: %s, more than the %s that it should have", path, _bytes(size), _bytes(LIMIT))
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render(template: str, title: str, *, scale: float = 1.0, **parts: Any) -> str:
    """A page of the report's style; `parts` are what its template takes, `scale` what large pictures are reduced by.

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
    environment.filters |= {"number": _number, "fixed": _fixed, "share": _share, "bytes": _bytes}
    environment.filters["picture"] = partial(_picture, scale=scale)
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
            "labels": {key: f"{m['label']}, {_unit(m['unit'])}" for key, m in result["metrics"].items()},
            "verdicts": [verdict(result, k) for k in headline],
        }
    meshes = folder / "cases.npz"
    return {
        **told,
        "pictures": {key: path for key in (*CASES, *CHARTS) if (path := folder / f"{key}.png").is_file()},
        "meshes": _meshes(meshes, result) if meshes.is_file() else None,
    }


def _headline(benchmarks: Sequence[Mapping[str, Any]], origins: Mapping[str, str]) -> dict[str, Any]:
    """The run's main scores, and what is published: of the same sets, and of others in the metrics of the page."""
    rows: list[dict[str, Any]] = []
    labels: dict[str, str] = {}
    apart: dict[str, bool] = {}  # whether it is rendered
    compared: set[str] = set()
    for b in benchmarks:
        metrics, protocol = b["result"]["metrics"], b["result"]["protocol"].get("name")
        same = [p for p in PUBLISHED if (p.protocol, p.source) == (protocol, origins.get(b["name"]))]
        compared.update(p.title for p in same)
        if not same:
            apart[b["name"]] = origins.get(b["name"]) == "synthetic"
        labels |= b["labels"]
        for key in dict.fromkeys([*b["headline"], *(k for p in same for k in p.values if k in metrics)]):
            beside = [(p.values[key], p.origin) for p in same if key in p.values]
            rows.append({"benchmark": b["name"], "label": b["labels"][key], "own": metrics[key], "published": beside})
    elsewhere = [p for p in PUBLISHED if p.title not in compared and labels.keys() & p.values.keys()]
    columns = {key: label for key, label in labels.items() if any(key in p.values for p in elsewhere)}
    return {"rows": rows, "apart": apart, "elsewhere": elsewhere, "columns": columns}


def _photos(name: str, folder: Path) -> dict[str, Any]:
    return {
        "name": name,
        "result": _json(folder / "result.json", "metrics", "joint_groups", "samples", "protocol"),
        "pictures": {key: path for key in CASES if (path := folder / f"{key}.png").is_file()},
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
        return {"picture": None, "errors": []} if content.train else None
    curves = read_json(content.curves, REMEDY, shape=list[dict[str, float]])
    with readable(content.curves, REMEDY):
        picture = plots.learning_curves(curves, charts / "learning_curves.png")
        errors = [
            {"step": record["step"], **{k: 1000 * record[k] for k in plots.measured(curves) if k in record}}
            for record in curves
            if any(key in record for key in plots.measured(curves))
        ]
    labels = {key: plots.metric_label(key) for key in plots.measured(curves)}
    return {"picture": picture, "errors": errors, "labels": labels}


def _study(folder: Path) -> dict[str, Any]:
    study = _json(folder / "study.json", "study", "metrics", "variants", "ranked_by", "reference", "seeds", "verdict")
    with readable(folder / "study.json", REMEDY):
        metrics = {key: {**metric, "unit": _unit(metric["unit"])} for key, metric in study["metrics"].items()}
        main = metrics[study["ranked_by"]]
    return {**study, "metrics": metrics, "main": main, "picture": folder / "study.png"}


def _attention(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    summary = _json(folder / "attention.json", "images", "tokens", "layers", "heads", "examples")
    shown = []
    for key, prefix in (("last", ""), ("sharpest", "sharpest_")):
        if key in summary:
            names = {n: folder / f"{prefix}{n}.png" for n in ("joints", "parts", "mean", "examples")}
            pictures = {n: path for n, path in names.items() if path.is_file()}
            shown.append({**summary[key], "kind": key, "pictures": pictures})
    by_head = folder / "heads.png"
    return {**summary, "shown": shown, "by_head": by_head if by_head.is_file() else None}


def _occlusion(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    summary = _json(folder / "occlusion.json", "people", "networks", "patch", "hidden")
    pictures = {n: path for n in ("curves", "patch", "examples") if (path := folder / f"{n}.png").is_file()}
    with readable(folder / "occlusion.json", REMEDY):
        return {**summary, "shown": summary["networks"][0], "pictures": pictures}


def _dataset(data: DataSet) -> dict[str, Any]:
    manifest = _json(data.manifest)
    with readable(data.manifest, REMEDY):
        facts = {**manifest, **manifest.get("statistics", {})}
        shards = facts.get("shards", [])
        box, seen = facts.get("box_px", {}), [share for share in facts.get("joint_visibility", []) if share]
        contents = json.dumps([shard.get("sha256", "") for shard in shards])
        told = {
            "records": facts.get("count", 0),
            "joints_2d": facts.get("has_2d", 0),
            "joints_3d": facts.get("has_3d", 0),
            "meshes": facts.get("has_mesh", 0),
            "skipped": facts.get("skipped", 0),
            "box": f"{_fixed(box.get('p5'), 0)} – {_fixed(box.get('p95'), 0)}" if box else "–",
            "seen": sum(seen) / len(seen) if seen else None,
            "bytes": sum(shard.get("bytes", 0) for shard in shards),
            "digest": hashlib.sha256(contents.encode()).hexdigest()[:12],
            "licence": facts.get("licence", ""),
        }
    return {
        "name": data.name,
        "role": data.role,
        **told,
        "fit": _fit(data.fit) if data.fit else None,
        "sheet": data.sheet,
    }


def _fit(summary: Mapping[str, Any]) -> dict[str, str]:
    """What became of the fits of a dataset, in words; the same names for every dataset."""
    return {
        "people": _number(summary.get("count")),
        "accepted": _number(summary.get("accepted")),
        "rejected": ", ".join(f"{n} {reason}" for reason, n in summary.get("rejected", {}).items()) or "none",
        "had a mesh": _number(summary.get("kept_meshes")),
        "converged": _share(summary.get("converged")),
        "iterations": _spread(summary.get("iterations"), "", 0),
        "3D joint error": _spread(summary.get("error_3d_mm"), "mm"),
        "2D joint error": _spread(summary.get("error_2d_percent"), "%"),
    }


def _spread(values: Mapping[str, Any] | None, unit: str, digits: int = 2) -> str:
    """Mean and 95th percentile; a dash where there are none."""
    if not values:
        return "–"
    return f"{_fixed(values.get('mean'), digits)} {unit} ({_fixed(values.get('p95'), digits)})".replace("  ", " ")


def _json(path: Path, *keys: str) -> Any:
    return read_json(path, REMEDY, keys)


def _picture(path: Path, scale: float = 1.0) -> str:
    """A picture as a data URI; large ones as JPEG, their sides times `scale`."""
    with readable(path, REMEDY):
        content = path.read_bytes()
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise ValueError("no picture")
        if len(content) > JPEG_FROM:
            return _encode(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
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
