"""Stage `train`: the network, from the catalogue's records.

Checkpoints to resume from lie outside of the outputs, so that a killed training continues with the next `dvc repro`,
in the same tracked run. It trains in one process for each visible GPU (``CUDA_VISIBLE_DEVICES`` limits them), and where
there is none in `train.cpu_processes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metro.config import Params
from pipeline import stage, tracking
from pipeline.environment import environment
from pipeline.paths import BODY, CURVES, FEATURES, MODEL, SAMPLING, TRAIN_SETS
from pipeline.sets import open_sets

if TYPE_CHECKING:
    from metro.body.arrays import BodyData
    from metro.data.shards import ShardDataset
    from metro.model.metro import Metro
    from metro.training.engine import TrainResult


def main(params: Params) -> None:
    """Train, and note the last losses and errors."""
    from metro.training.checkpoint import copy_weights

    work = stage.work_folder(params)
    if environment().rank > 0:  # started by another process to share its training, which does the rest
        train_in(work, params, tracking.Run())
        return
    with tracking.tracked(params, work=work) as run:
        result = train_in(work, params, run)
        copy_weights(result.checkpoint.folder, MODEL)
        stage.write_json(CURVES, result.curves)
    stage.forget_work(work)
    last = {key: value for record in result.curves for key, value in in_millimetres(record).items()}
    shown = {key: value for key, value in last.items() if key.startswith(("loss/", "validation/"))}
    stage.write_metrics("train", {"step": result.checkpoint.step, **shown})


def train_in(
    work: Path,
    params: Params,
    run: tracking.Run,
    catalogue: Path = TRAIN_SETS,
    heard: Callable[[Mapping[str, float]], object] = lambda record: None,
) -> TrainResult:
    """Train in the folder `work` on the sets that a file of the catalogue names, telling `run`, and `heard` of each log
    record."""
    from metro.body.arrays import read_npz
    from metro.mesh.sampling import load_sampling
    from metro.training.engine import train
    from pipeline.tracking.pictures import painter

    sets = stage.read_json(catalogue, "catalogue")
    names = tuple(item["name"] for item in sets["train"])
    params = params.alone().model_copy(update={"train": params.train.model_copy(update={"datasets": names})})
    for item in sets["train"]:
        run.dataset(item["name"], item["digest"], Path(item["shards"]), "training")
    body = read_npz(BODY)
    validate = figure = None
    if sets["validation"]:
        item = sets["validation"]
        run.dataset(item["name"], item["digest"], Path(item["shards"]), "validation")
        held_out = open_sets([item])[0].first(params.train.validation_count)
        validate, figure = validator(held_out, body, params), painter(held_out, body, run)

    def log(record: Mapping[str, float], step: int) -> None:
        run.log(in_millimetres(record), step)
        heard(record)

    return train(
        params,
        open_sets(sets["train"]),
        body,
        load_sampling(SAMPLING),
        work,
        features=FEATURES,
        log=log,
        validate=validate,
        figure=figure,
    )


def validator(dataset: ShardDataset, body: BodyData, params: Params) -> Callable[[Metro], Mapping[str, float]]:
    """Mean joint and vertex errors of a network on held-out records, metres; `mpjpe` ranks the checkpoints."""
    from metro.body.load import load_variant
    from metro.body.model import BodyModel
    from metro.evaluation.measure import measure
    from metro.evaluation.protocols import validation_protocol

    model = BodyModel(body, variants=partial(load_variant, params.body))
    model.require(dataset.genders)
    protocol, batch_size = validation_protocol(body.figure.joint_set), params.train.batch_size
    watched = protocol.watched or {key: key for key in protocol.headline}

    def validate(metro: Metro) -> dict[str, float]:
        device = next(metro.parameters()).device
        values = measure(metro, dataset, model, protocol, device=device, batch_size=batch_size).values
        return {name: float(np.nanmean(values[column])) for name, column in watched.items()}

    return validate


def in_millimetres(record: Mapping[str, float]) -> dict[str, float]:
    """A log record with validation errors in millimetres, as people read them."""
    return {
        f"{key}_mm" if key.startswith("validation/") else key: 1000 * value if key.startswith("validation/") else value
        for key, value in record.items()
    }


if __name__ == "__main__":
    stage.run(main)
