"""Stage `train`: the network, from the catalogue's records.

Checkpoints to resume from lie outside of the outputs, so that a killed training continues with the next `dvc repro`,
in the same tracked run. It trains in one process for each visible GPU (``CUDA_VISIBLE_DEVICES`` limits them), and where
there is none in `train.cpu_processes`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metro.config import Params
from pipeline import stage, tracking
from pipeline.catalogue import open_sets
from pipeline.paths import BODY, CURVES, MODEL, SAMPLING, TRAIN_RUN, TRAIN_SETS

if TYPE_CHECKING:
    from metro.body.arrays import BodyData
    from metro.data.shards import ShardDataset
    from metro.model.metro import Metro
    from metro.training.engine import TrainResult

DRAWN = 8
"""Held-out records drawn after each validation."""
CODE = tuple(Path(f"metro/{part}") for part in ("body", "mesh", "data", "model", "training"))


def main(params: Params) -> None:
    """Train, and keep the best (or last) checkpoint and the curves."""
    from metro.training.checkpoint import copy_weights

    work = stage.work_folder(
        "train", stage.section(params, "body", "sampling", "model", "train"), [TRAIN_SETS, BODY, SAMPLING, *CODE]
    )
    resumed = json.loads((work / "run.json").read_text())["run_id"] if (work / "run.json").is_file() else None
    if is_helper():
        train_to(work, params, tracking.Run())
        return
    with tracking.tracked("train", params, [TRAIN_SETS, BODY, SAMPLING], reopen=resumed) as run:
        stage.write_json(work / "run.json", run.pointer())
        result = train_to(work, params, run)
        copy_weights(result.checkpoint.folder, MODEL)
        stage.write_json(CURVES, result.curves)
        stage.write_json(TRAIN_RUN, run.pointer())
        last = {key: value for record in result.curves for key, value in in_millimetres(record).items()}
        shown = {key: value for key, value in last.items() if key.startswith(("loss/", "validation/"))}
        stage.write_metrics("train", {"step": result.checkpoint.step, **shown})
    stage.forget_work(work)


def is_helper() -> bool:
    """Whether this process was started by another one of the same stage, to share its training."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) > 0


def train_to(work: Path, params: Params, run: tracking.Run) -> TrainResult:
    """Train in the folder `work`, telling `run`."""
    from metro.body.arrays import read_npz
    from metro.mesh.sampling import load_sampling
    from metro.training.engine import train

    sets = stage.read_json(TRAIN_SETS, "catalogue")
    for item in sets["train"]:
        run.dataset(item["name"], item["digest"], Path(item["shards"]), "training")
    body = read_npz(BODY)
    validate = figure = None
    if sets["validation"]:
        item = sets["validation"]
        run.dataset(item["name"], item["digest"], Path(item["shards"]), "validation")
        held_out = open_sets([item])[0].first(params.train.validation_count)
        validate, figure = validator(held_out, body, params), painter(held_out, body, run)
    return train(
        params,
        open_sets(sets["train"]),
        body,
        load_sampling(SAMPLING),
        work,
        log=lambda record, step: run.log(in_millimetres(record), step),
        validate=validate,
        figure=figure,
    )


def validator(dataset: ShardDataset, body: BodyData, params: Params) -> Callable[[Metro], Mapping[str, float]]:
    """Mean joint and vertex errors of a network on held-out records, metres; `mpjpe` ranks the checkpoints."""
    from metro.body.model import BodyModel
    from metro.evaluation.measure import measure
    from metro.evaluation.protocols import validation_protocol

    model, protocol = BodyModel(body), validation_protocol(body.figure.joint_set)
    watched = protocol.watched or {key: key for key in protocol.headline}

    def validate(metro: Metro) -> dict[str, float]:
        device = next(metro.parameters()).device
        values = measure(metro, dataset, model, protocol, device=device, batch_size=params.evaluate.batch_size).values
        return {name: float(np.nanmean(values[column])) for name, column in watched.items()}

    return validate


def painter(dataset: ShardDataset, body: BodyData, run: tracking.Run) -> Callable[[Metro, int], None]:
    """Draws the network's meshes over the first few held-out crops."""
    import torch

    from metro.config import TrainConfig
    from metro.data.augment import normalise
    from metro.data.loader import make_loader
    from metro.viz.overlay import grid, mesh_overlay, resize

    @torch.no_grad()
    def paint(metro: Metro, step: int) -> None:
        device = next(metro.parameters()).device
        few = TrainConfig(batch_size=DRAWN, workers=0)
        batch = next(iter(make_loader([dataset.first(DRAWN)], metro.config, few, training=False)))
        output = metro(normalise(batch["image"].to(device), batch["colour"].to(device)))
        tiles = [
            mesh_overlay(resize(crop, 224), mesh, body.faces, camera)
            for crop, mesh, camera in zip(
                batch["image"].numpy(), output.vertices[-1].cpu().numpy(), output.camera.cpu().numpy(), strict=True
            )
        ]
        run.figure("validation", grid(tiles, 4), step)

    return paint


def in_millimetres(record: Mapping[str, float]) -> dict[str, float]:
    """A log record with validation errors in millimetres, as people read them."""
    return {
        f"{key}_mm" if key.startswith("validation/") else key: 1000 * value if key.startswith("validation/") else value
        for key, value in record.items()
    }


if __name__ == "__main__":
    stage.run(main)
