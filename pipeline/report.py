"""Stage `report`: one HTML file with everything that the other stages found, readable without a network.

It also links the tracked runs with ``dvc.lock``, which holds all of their outputs by now.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from metro.config import Params
from metro.files import sha256_of
from pipeline import stage
from pipeline.paths import (
    ATTENTION,
    BODY,
    CURVES,
    EVALUATE,
    EXPORT,
    MODEL,
    REPORT,
    SWEEP_REPORT,
    TRAIN_RUN,
    TRAIN_SETS,
    fits,
    shards,
    sweep,
)
from pipeline.tracking.lineage import link


def main(params: Params) -> None:
    """Gather and write."""
    from metro.body.arrays import read_npz
    from metro.data.shards import ShardDataset
    from metro.data.show import stored_sheet
    from metro.training.checkpoint import WEIGHTS, load_checkpoint
    from metro.viz.overlay import save_image
    from metro.viz.report import Content, DataSet, write_report

    body, catalogue = read_npz(BODY), stage.read_json(TRAIN_SETS, "catalogue")
    training = {item["name"] for item in catalogue["train"]}
    checkpoint = load_checkpoint(MODEL)
    with tempfile.TemporaryDirectory() as sheets, stage.publish(REPORT) as folder:
        datasets = []
        for name, config in params.datasets.items():
            fitted = fits(name) if name in params.fit.datasets else None
            sheet = save_image(
                stored_sheet(ShardDataset(shards(name), fitted), body, count=6), Path(sheets) / f"{name}.png"
            )
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
            curves=CURVES,
            train={
                "start": params.train.init,
                "steps": params.train.steps,
                "batch": params.train.batch_size,
                "kept step": checkpoint.step,
                "records": sum(item["records"] for item in catalogue["train"]),
                "with meshes": sum(item["has_mesh"] for item in catalogue["train"]),
            },
            sweep=SWEEP_REPORT / "sweep.json",
            attention=ATTENTION,
            datasets=datasets,
            export={str(path.relative_to(EXPORT)): path.stat().st_size for path in exported()},
            runs=runs(params),
        )
        write_report(content, folder / "index.html")
    link()
    print(f"{REPORT / 'index.html'}: open it in a browser")


def exported() -> list[Path]:
    """Files that the export stage wrote."""
    return [path for path in sorted(EXPORT.rglob("*")) if path.is_file() and path.name != "run.json"]


def runs(params: Params) -> dict[str, str]:
    """What finds the tracked runs of the stages in MLflow."""
    pointers = {"train": TRAIN_RUN, "mask sweep": SWEEP_REPORT / "run.json"}
    pointers |= {f"mask ratio {ratio}": sweep(ratio) / "run.json" for ratio in params.sweep.ratios}
    pointers |= {f"fit {name}": fits(name) / "run.json" for name in params.fit.datasets}
    known = {name: stage.read_json(path, name)["run_id"] for name, path in pointers.items()}
    return {name: f"attributes.run_id = '{run_id}'" for name, run_id in known.items() if run_id}


if __name__ == "__main__":
    stage.run(main)
