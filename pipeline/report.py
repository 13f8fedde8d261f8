"""Stage `report`: one HTML file with everything that the other stages found, readable without a network."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from metro.config import Params
from metro.files import sha256_of
from pipeline import stage, tracking
from pipeline.paths import (
    ATTENTION,
    BODY,
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


def main(params: Params) -> None:
    """Gather and write."""
    from metro.body.arrays import read_npz
    from metro.body.load import load_variant
    from metro.data.shards import ShardDataset
    from metro.data.show import stored_sheet
    from metro.training.checkpoint import WEIGHTS, load_checkpoint
    from metro.viz.overlay import save_image
    from metro.viz.report import Content, DataSet, write_report

    variants = partial(load_variant, params.body)
    body, catalogue = read_npz(BODY), stage.read_json(TRAIN_SETS, "catalogue")
    training = {item["name"] for item in catalogue["train"]}
    checkpoint = load_checkpoint(MODEL)
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
                "parameters": f"{sum(w.numel() for w in checkpoint.weights().values()) / 1e6:.1f} M",
                str(MODEL / WEIGHTS): f"sha256 {sha256_of(MODEL / WEIGHTS)[:12]}",
                str(TRAIN_SETS): f"sha256 {sha256_of(TRAIN_SETS)[:12]}",
                "made by": "dvc repro",
                "commit and date": "git log -1 dvc.lock",
            },
            benchmarks={name: EVALUATE / name for name in params.benchmarks},
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
            export={str(path.relative_to(EXPORT)): path.stat().st_size for path in exported()},
            runs=runs(params),
        )
        run.artifact(write_report(content, folder / "index.html"), "report")
    print(f"{REPORT / 'index.html'}: open it in a browser")


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
