"""What each switch that makes rendered people look like photographs brings, on rendered people nobody trained on.

Heads of METRO are trained on cached features of a frozen backbone, each switch alone and all together, with every seed.
They are judged on held-out people three times: as they are rendered, as a worse camera would take them, and cut or
hidden with a box around the rest. ``python benchmarks/photographs.py [SWITCH …]`` writes ``benchmarks/photographs.md``;
nothing in it is timed. ``--backbone shipped`` takes the features of the shipped checkpoint, which was never shown a
photograph of a person, instead of `blazepose`; ``--quick`` runs on a handful of people, to see that it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import CropConfig, DatasetConfig, Params, load_params, merge_params
from metro.data.loader import TrainStream
from metro.data.records import Record
from metro.data.shards import ShardDataset, ShardWriter
from metro.evaluation.evaluate import evaluate
from metro.presets import resolve
from metro.sources.prepare import prepare
from metro.training.checkpoint import load_checkpoint, open_checkpoint
from metro.training.engine import train
from metro.training.restore import restore

PHOTO = {
    **{"occluders": 0.3, "blur": 0.25, "motion": 0.1, "grey": 0.1},
    **{"gamma": 0.3, "contrast": 0.3, "noise": 0.3, "jpeg": 0.3},
}
PARTS = {"part": 0.3, "shift": 0.05}
SWITCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "boxes of parts": ({"boxes": PARTS}, {}),
    "boxes moved": ({"boxes": {"shift": 0.05}}, {}),
    **{name: ({"photo": {name: share}}, {}) for name, share in PHOTO.items()},
    "all that cameras do": ({"photo": PHOTO}, {}),
    "headings even": ({}, {"heading_uniform": 1.0}),
    "pastimes": ({}, {"pastimes": 0.4}),
    "all": ({"boxes": PARTS, "photo": PHOTO}, {"heading_uniform": 1.0, "pastimes": 0.4}),
}
"""Augmentation, and options of the rendered people, of each row."""
JUDGED: dict[str, dict[str, Any]] = {
    "as rendered": {},
    "worse camera": {"photo": PHOTO, "boxes": {"shift": 0.05}},
    "cut or hidden": {"photo": PHOTO, "boxes": PARTS | {"part": 1.0}},
}
"""Augmentation of the views that heads are judged on."""
WILD = {"heading_uniform": 1.0, "pastimes": 0.4, "occlusion": 0.4}
"""People that heads are judged on."""
SHOWN = {"mpjpe_mm": "MPJPE mm", "pa_mpjpe_mm": "PA mm", "error_2d_px224": "2D px"}


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work a run is."""

    people: int
    held_out: int
    views: int  # of each person
    steps: int
    seeds: tuple[int, ...]


FULL, QUICK = Size(4000, 400, 2, 600, (1, 2)), Size(64, 32, 1, 4, (1,))


def main() -> None:
    """Render, train each row with each seed, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("switches", nargs="*", metavar="SWITCH", help=f"of: {', '.join(SWITCHES)} (all)")
    parser.add_argument("--backbone", choices=["blazepose", "shipped"], default="blazepose")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.switches) - set(SWITCHES):
        parser.error(f"no switch {', '.join(sorted(unknown))}; known: {', '.join(SWITCHES)}")
    size = QUICK if given.quick else FULL
    base = settings(given.backbone, size)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held_out = rendered(base, folder / "held-out", size.held_out, "test", 2000, WILD)
        judged = {title: viewed(base, held_out, folder / title, how) for title, how in JUDGED.items()}
        for title in given.switches or SWITCHES:
            augment, options = SWITCHES[title]
            people = rendered(base, folder / f"people-{'-'.join(options)}", size.people, "train", 77, options)
            errors = np.array([errors_of(base, people, judged, augment, folder, seed) for seed in size.seeds])
            cells = " | ".join(f"{low.mean():.1f} ± {np.ptp(low) / 2:.1f}" for low in errors.T)
            rows.append(f"| {title} | {cells} |")
            print(rows[-1], flush=True)
    heads = [f"{title}: {label}" for title in JUDGED for label in SHOWN.values()]
    text = f"""{machine()}; `python benchmarks/photographs.py{" --backbone shipped" * (given.backbone == "shipped")}`

Heads on frozen features of `{base.model.backbone}`, {size.views} cached views of each of {size.people} people,
{size.steps} steps of {base.train.batch_size}; judged on {size.held_out} others. Mean over seeds {size.seeds} ± half of
their range.

| switch | {" | ".join(heads)} |
|---|{"---|" * len(heads)}
{chr(10).join(rows)}
"""
    sys.stdout.write(text)
    if not given.quick:
        Path(__file__).with_suffix(".md").write_text(text)


def settings(backbone: str, size: Size) -> Params:
    """Preset `open` with a frozen backbone whose features are cached."""
    model: dict[str, Any] = {"backbone": backbone, "backbone_weights": "shipped", "image_size": 256}
    if backbone == "shipped":
        model = {"backbone_weights": str(open_checkpoint() / "model.safetensors")}
    run = {"init": "none", "steps": size.steps, "lr": 1e-3, "warmup_steps": min(50, size.steps), "validation": None,
           "cpu_processes": 1, "datasets": ["synth-mesh"], "freeze": ["backbone"], "views": size.views}  # fmt: skip
    return load_params(merge_params(resolve("open"), {"model": model, "train": run}))


def rendered(base: Params, out: Path, count: int, split: str, seed: int, options: dict[str, Any]) -> ShardDataset:
    """People of a seed, rendered once for each set of options, large enough for the network's input."""
    if not out.exists():
        box = round(0.75 * base.model.image_size)  # views reach further than boxes, and parts are enlarged
        config = DatasetConfig.model_validate(
            {
                **base.datasets["synth-mesh"].model_dump(),
                "split": split,
                "crop": {"box_px": box, "margin": 1.5, "quality": 90},
                "options": {"count": count, "seed": seed, **options},
            }
        )
        prepare(out.name, config, base.body, out)
    return ShardDataset(out)


def viewed(base: Params, people: ShardDataset, out: Path, augment: dict[str, Any]) -> ShardDataset:
    """One augmented view of each person as a set of its own: the picture is the view, and the box is all of it."""
    size = base.model.image_size
    still = {"flip": 0.0, "colour": 0.0, "rotation_off": 1.0, "scale_sd": 0.0}
    over = {"train": {"augment": still | augment, "batch_size": 1, "workers": 0, "seed": 5}}
    stream = TrainStream([people], base.model, load_params(merge_params(base.model_dump(mode="json"), over)).train)
    out.mkdir()
    crop = CropConfig(box_px=size, margin=1.0, quality=95)
    with ShardWriter(out / "shard-00000.h5", crop) as writer:
        for batch in itertools.islice(stream, len(people)):  # an epoch: everybody once
            view = {name: values[0].numpy() for name, values in batch.items()}
            joints = view["joints_2d"].copy()
            joints[:, :2] = ((joints[:, :2] + 1) * size - 1) / 2
            writer.add(
                Record(
                    source="view",
                    frame=f"{int(view['index']):06d}",
                    image=view["image"],
                    center=np.full(2, (size - 1) / 2),
                    scale=size / 200,
                    keypoints_2d=joints,
                    joints_3d=view["joints_3d"],
                    pose_aa=view["pose_aa"],
                    betas=view["betas"],
                    mesh_origin="synthetic",
                )
            )
    found = ShardDataset([out / "shard-00000.h5"])
    assert len(found) == len(people), "views were refused as records"
    return found


def errors_of(
    base: Params,
    people: ShardDataset,
    judged: dict[str, ShardDataset],
    augment: dict[str, Any],
    folder: Path,
    seed: int,
) -> list[float]:
    """What heads trained with one seed come to on each of the judged sets."""
    over = {"train": {"augment": augment, "seed": seed}}
    params = load_params(merge_params(base.model_dump(mode="json"), over))
    body, levels = load_body(params.body), load_checkpoint("open").levels
    with tempfile.TemporaryDirectory(dir=folder) as work:
        network = restore(train(params, [people], body, levels, Path(work)).checkpoint, body)
    found = [evaluate(network, views, BodyModel(body), "open", params.evaluate).headline() for views in judged.values()]
    return [numbers[key] for numbers in found for key in SHOWN]


if __name__ == "__main__":
    main()
