"""Stage `report`: one HTML file with everything that the other stages found, readable without a network."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metro.config import Params
from metro.files import sha256_of
from metro.shipped import SHIPPED
from pipeline import stage, tracking
from pipeline.network import load_network
from pipeline.paths import (
    ATTENTION,
    BODY,
    BODY_INFO,
    CURVES,
    EVALUATE,
    EXPORT,
    MODEL,
    OCCLUSION,
    REPORT,
    STUDY_REPORTS,
    TRAIN_SETS,
    fits,
    shards,
)
from pipeline.tracking.lineage import made
from pipeline.tracking.store import query

if TYPE_CHECKING:
    from metro.training.checkpoint import Checkpoint

PARTS = {"mix": "from cells to tokens", "blocks": "encoder blocks", "camera": "camera head"}
"""Parts of the network whose names in the code tell a reader too little."""
PINS = Path("constraints.txt")
SHOWN = ("torch", "torchvision", "numpy", "opencv-python", "h5py", "onnx", "onnxruntime", "dvc", "mlflow", "prefect")
"""Packages of `PINS` that decide numbers, or that run and track the pipeline."""


def main(params: Params) -> None:
    """Gather and write."""
    from metro.body.arrays import read_npz
    from metro.body.load import load_variant
    from metro.data.shards import ShardDataset
    from metro.data.show import stored_sheet
    from metro.training.checkpoint import WEIGHTS, load_checkpoint
    from metro.training.flops import cost
    from metro.viz.overlay import save_image
    from metro.viz.report import Content, DataSet, write_report

    variants = partial(load_variant, params.body)
    body, catalogue = read_npz(BODY), stage.read_json(TRAIN_SETS, "catalogue")
    training = {item["name"] for item in catalogue["train"]}
    checkpoint, network = load_checkpoint(MODEL), load_network(MODEL)
    costs = cost(network, checkpoint.params.train)
    weights = Counter[str]()
    for name, weight in network.named_parameters():
        part = name.partition(".")[0]
        weights[PARTS.get(part, part)] += weight.numel()
    with (
        tracking.joined(params, "train") as run,
        tempfile.TemporaryDirectory() as sheets,
        stage.publish(REPORT) as folder,
    ):
        datasets = []
        for name, config in params.datasets.items():
            fitted = fits(name) if name in params.fit.datasets else None
            drawn = stored_sheet(ShardDataset(shards(name), fitted), body, count=6, variants=variants)
            sheet = save_image(drawn, Path(sheets) / f"{name}.png")
            role = "training" if name in training else config.split
            fit = stage.read_json(fitted / "summary.json", f"fit@{name}") if fitted else {}
            datasets.append(DataSet(name, shards(name) / "manifest.json", role, sheet, fit))
        content = Content(
            title="METRO: image to joints and mesh",
            lead="What one run of the pipeline made and measured.",
            facts={
                "preset": params.preset,
                "body": params.body.kind,
                "backbone": params.model.backbone,
                "image": f"{params.model.image_size} px",
                "parameters": f"{costs['parameters_m']:.1f} M",
                str(MODEL / WEIGHTS): f"sha256 {sha256_of(MODEL / WEIGHTS)[:12]}",
                str(TRAIN_SETS): f"sha256 {sha256_of(TRAIN_SETS)[:12]}",
                "made by": "dvc repro",
                "commit and date": "git log -1 dvc.lock",
            },
            benchmarks={name: EVALUATE / name for name in params.benchmarks},
            origins={name: params.datasets[item.dataset].source for name, item in params.benchmarks.items()},
            photos={name: EVALUATE / name for name in params.photos},
            curves=CURVES,
            train={
                "start": params.train.init,
                "steps": params.train.steps,
                "batch": params.train.batch_size,
                "kept step": checkpoint.step,
                "records": sum(item["records"] for item in catalogue["train"]),
                "with meshes": sum(item["has_mesh"] for item in catalogue["train"]),
            },
            studies={name: STUDY_REPORTS / name for name in params.studies},
            attention=ATTENTION,
            occlusion=OCCLUSION,
            datasets=datasets,
            costs=costs,
            weights=weights,
            card=card(checkpoint, catalogue["train"], stage.read_json(BODY_INFO, "body")),
            commands=commands(params),
            versions=versions(),
            export={str(path.relative_to(EXPORT)): path.stat().st_size for path in exported()},
            runs=runs(params),
        )
        run.artifact(write_report(content, folder / "index.html"), "report")
    print(f"{REPORT / 'index.html'}: open it in a browser")


def card(checkpoint: Checkpoint, trained_on: Sequence[Mapping[str, Any]], body: Mapping[str, Any]) -> dict[str, str]:
    """The model card of a checkpoint: what it is, what made it, whose terms it comes under, what it is not for."""
    model, train = checkpoint.params.model, checkpoint.params.train
    manifests = {
        item["name"]: stage.read_json(shards(item["name"]) / "manifest.json", "prepare") for item in trained_on
    }
    rendered = all(manifest["source"] == "synthetic" for manifest in manifests.values())
    widths = " → ".join(str(block.width) for block in model.blocks)
    parts = f"encoder {widths} wide" + (f", neck {model.neck.width} wide" if model.neck else "")
    frozen = f"; frozen: {', '.join(train.freeze)}" if train.freeze else ""
    start = {
        "none": f"new weights, the backbone's: {model.backbone_weights}",
        **{name: f"checkpoint {name}, which ships with a card of its own" for name in SHIPPED},
    }
    begun = model.backbone_weights if train.init == "none" else train.init
    terms = {"none": "no weights", "shipped": "Apache-2.0, metro/assets/blazepose/NOTICE"}
    terms |= dict.fromkeys(SHIPPED, "Apache-2.0")
    return {
        "network": f"METRO on {model.backbone}, {model.image_size} px, {model.joint_set} joints, {parts}",
        "body": f"{body['kind']}, {body['gender']}, {body['vertices']} vertices, sha256 {body['digest'][:12]}",
        "weights": f"step {checkpoint.step} of {train.steps}" + (", exponential average" if train.ema else ""),
        "on the validation set": ", ".join(
            f"{key.upper().replace('_', '-')} {1000 * value:.1f} mm" for key, value in checkpoint.metrics.items()
        )
        or "not measured",
        "data": "; ".join(
            f"{item['name']}, {item['records']} records: {item['has_3d']} with 3D joints, {item['has_mesh']} with "
            f"meshes, {item['fitted']} of them fitted; sha256 {item['digest'][:12]}"
            for item in trained_on
        ),
        "start": start.get(train.init, train.init) + frozen,
        "recipe": f"{train.optimizer} {train.lr:g}, {train.schedule}, {train.steps} steps of {train.batch_size}, "
        f"masked joints {train.mask.joints:g} and vertices {train.mask.vertices:g} at most, {train.precision}; all "
        f"of it in {MODEL / 'checkpoint.json'}",
        "seed": str(train.seed),
        "licence of the data": "; ".join(dict.fromkeys(manifest["licence"] for manifest in manifests.values())),
        "licence of the body": str(body["licence"]),
        "licence of the start": terms.get(begun, f"that of {begun}"),
        "licence of the weights": "those of the data, of the body and of the start, all together",
        "limits": "one person for each box; what cannot be seen is guessed; not for telling who somebody is, nor where "
        "an error does harm"
        + ("; trained here on rendered people alone, who lack much of what photographs show" * rendered),
    }


def commands(params: Params) -> dict[str, list[str]]:
    """What makes the sections of the page, by their keys."""

    def repro(*names: str) -> list[str]:
        return [f"dvc repro {name}" for name in names]

    judged = repro(*(f"evaluate@{name}" for name in params.benchmarks))
    return {
        "headline": ["dvc repro"],
        "results": judged,
        "cases": judged,
        "breakdown": judged,
        "photographs": repro(*(f"evaluate-photos@{name}" for name in params.photos)),
        "studies": repro(*(f"study-report@{name}" for name in params.studies)),
        "attention": repro("attention"),
        "occlusion": repro("occlusion"),
        "data": repro(*(f"prepare@{name}" for name in params.datasets)),
        "fits": repro(*(f"fit@{name}" for name in params.fit.datasets)),
        "training": repro("train"),
        "costs": repro("report"),
        "model": repro("report"),
        "versions": repro("export"),
    }


def versions() -> dict[str, str]:
    """Versions that the project pins; those of this environment would differ between machines that make the same."""
    from metro.version import __version__

    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", PINS.read_text(encoding="utf-8"), re.MULTILINE))
    return {"metro": __version__, **{name: pins[name] for name in SHOWN if name in pins}}


def exported() -> list[Path]:
    """Files that the export stage wrote."""
    return [path for path in sorted(EXPORT.rglob("*")) if path.is_file()]


def runs(params: Params) -> dict[str, str]:
    """What finds the runs in MLflow, by stage: they are known by what they made, so that the page names no run."""
    stages = ["train", *(f"fit@{name}" for name in params.fit.datasets)]
    stages += [f"study-report@{name}" for name in params.studies]
    return {name: query(made(name)) for name in stages}


if __name__ == "__main__":
    stage.run(main)
