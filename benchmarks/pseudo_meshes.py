"""What the pseudo-meshes of a set with joints alone bring to a training.

The same people, network and steps three times for each seed: with joints in space alone, with the meshes that the
solver fits to these joints (the stage `fit`), and with the true meshes, which no real set of this kind has.
``python benchmarks/pseudo_meshes.py`` takes a quarter of an hour on two cores and writes
``benchmarks/pseudo_meshes.md``; nothing in it is timed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from metro.body.arrays import BodyData
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import Params
from metro.data.shards import ShardDataset
from metro.evaluation.evaluate import evaluate
from metro.fitting.dataset import fit_dataset
from metro.mesh.sampling import Level
from metro.presets import resolve
from metro.sources.prepare import prepare
from metro.training.checkpoint import load_checkpoint
from metro.training.engine import train
from metro.training.restore import restore

PEOPLE, HELD_OUT, STEPS, SEEDS = 2000, 400, 300, (1, 2)
SHOWN = {"mpjpe_mm": "MPJPE mm", "pa_mpjpe_mm": "PA-MPJPE mm", "mpve_mm": "MPVE mm"}


def main() -> None:
    """Prepare, fit, train six times, and write the table."""
    base = Params.model_validate(resolve("open"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        body = load_body(base.body)
        levels = load_checkpoint("open").levels
        sets, summary = supervised(base, folder)
        held_out = prepared(base, folder / "held-out", "mesh", HELD_OUT, "test", 1000)
        rows = []
        for label, dataset in sets.items():
            errors = np.array([trained(base, dataset, held_out, body, levels, folder, seed) for seed in SEEDS])
            numbers = " | ".join(
                f"{np.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})" for values in errors.T
            )
            rows.append(f"| {label} | {numbers} |")
            print(rows[-1], flush=True)
    text = f"""{machine()}; `python benchmarks/pseudo_meshes.py`

New heads of preset `open`'s network on the shipped checkpoint's features, which stay as they are,
{STEPS} steps of 32 views on {PEOPLE} synthetic people, judged on {HELD_OUT} others: mean over {len(SEEDS)} seeds
(each of them). Of {summary["count"]} fits {summary["accepted"]} were accepted.

| labels | {" | ".join(SHOWN.values())} |
|---|---|---|---|
{chr(10).join(rows)}
"""
    Path(__file__).with_suffix(".md").write_text(text)
    sys.stdout.write(text)


def prepared(base: Params, out: Path, supervision: str, count: int, split: str, seed: int) -> ShardDataset:
    """Synthetic people with labels up to `supervision`."""
    options: dict[str, Any] = {"count": count, "seed": seed, "occlusion": 0.5 if split == "test" else 0.0}
    config = base.datasets["synth-mesh"].model_copy(update={"split": split, "supervision": supervision})
    config = type(config).model_validate({**config.model_dump(), "options": options})
    prepare(out.name, config, base.body, out)
    return ShardDataset(out)


def supervised(base: Params, folder: Path) -> tuple[dict[str, ShardDataset], dict[str, Any]]:
    """The training set with each kind of label, and what the fits came to."""
    joints = prepared(base, folder / "joints", "joints_3d", PEOPLE, "train", 2)
    summary = fit_dataset(folder / "joints", folder / "fits", base.body, base.fit)
    return {
        "joints in space alone": joints,
        "and fitted meshes": ShardDataset(folder / "joints", folder / "fits"),
        "and true meshes": prepared(base, folder / "meshes", "mesh", PEOPLE, "train", 2),
    }, summary


def trained(
    base: Params,
    dataset: ShardDataset,
    held_out: ShardDataset,
    body: BodyData,
    levels: list[Level],
    folder: Path,
    seed: int,
) -> list[float]:
    """Errors of a network trained on a set, millimetres."""
    changes = {
        "datasets": ("synth-mesh",),
        "init": "none",
        "freeze": ("backbone",),
        "views": 2,
        "steps": STEPS,
        "lr": 1e-3,
        "warmup_steps": 50,
        "seed": seed,
        "cpu_processes": 1,
        "validation": None,
    }
    weights = load_checkpoint("open").folder / "model.safetensors"
    params = base.model_copy(
        update={
            "model": base.model.model_copy(update={"backbone_weights": str(weights)}),
            "train": base.train.model_copy(update=changes),
        }
    )
    with tempfile.TemporaryDirectory(dir=folder) as work:
        network = restore(train(params, [dataset], body, levels, Path(work)).checkpoint, body)
    result = evaluate(network, held_out, BodyModel(body), "open", base.evaluate).headline()
    return [result[key] for key in SHOWN]


if __name__ == "__main__":
    main()
