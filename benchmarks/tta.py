"""What test-time augmentation gains on a benchmark and what it costs, view by view.

``python benchmarks/tta.py`` takes five minutes on one core and writes ``benchmarks/tta.md``. It needs the prepared set
(`dvc repro prepare@synth-test`, or ``--data``). Every person is seen once under all the views that any row of the
table has; the rows merge some of them. The intervals are of each row's differences from no augmentation, over people.
Times are processor time of one thread; a person is looked at twice, once for their box and once in all
views.
"""

from __future__ import annotations

import argparse
import platform
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import machine

import metro
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import ModelConfig, ViewsConfig
from metro.data.loader import EvalPass
from metro.data.shards import ShardDataset
from metro.evaluation.measure import draws_of, ground_truth, score
from metro.evaluation.protocols import protocol_of
from metro.export.load import open_network
from metro.export.predictor import Predictor
from metro.model.views import TTA, Views, mirror_vertices, views_of

SCALES, TURNS = (0.9, 1.0, 1.1, 1.25), (-10.0, 0.0, 10.0)
EVERY = ViewsConfig(scales=SCALES, rotations_deg=TURNS, flip=True)
ROWS = {
    "mirror": ViewsConfig(flip=True),
    "3 scales": ViewsConfig(scales=(0.9, 1.0, 1.1)),
    "3 turns": ViewsConfig(rotations_deg=TURNS),
    "3 scales, mirror": ViewsConfig(scales=(0.9, 1.0, 1.1), flip=True),
    "larger boxes, mirror": ViewsConfig(scales=(1.0, 1.1, 1.25), flip=True),
    "3 turns, mirror": ViewsConfig(rotations_deg=TURNS, flip=True),
    "3 scales, 3 turns, mirror": ViewsConfig(scales=(0.9, 1.0, 1.1), rotations_deg=TURNS, flip=True),
    "3 scales, 3 turns, mirror, aligned": ViewsConfig(
        scales=(0.9, 1.0, 1.1), rotations_deg=TURNS, flip=True, merge="aligned"
    ),
    "all": EVERY,
    "all, aligned": EVERY.model_copy(update={"merge": "aligned"}),
}
METRICS = {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE", "mpve": "MPVE"}


def within(some: Views, every: Views) -> list[int]:
    """Where the views of a row are among all of them."""
    known = list(zip(every.scale_K, every.rotation_K, every.flip_K, strict=True))
    return [known.index(view) for view in zip(some.scale_K, some.rotation_K, some.flip_K, strict=True)]


def seconds(predictor: Predictor, picture: np.ndarray, box: list[float], repeats: int = 5) -> float:
    """Processor time of one person."""
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        predictor(picture, box)
        spent.append(time.process_time() - started)
    return min(spent)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/sets/synth-test/shards"))
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--model", default="open")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network, data, protocol = open_network(arguments.model), load_body("open"), protocol_of("open")
    model = ModelConfig.model_validate(network.meta["model"])
    body, dataset = BodyModel(data), ShardDataset(arguments.data).first(arguments.people)
    mirror = partial(mirror_vertices, data.v_template, data.faces)
    rows = {name: views_of(config, "J14", mirror) for name, config in ROWS.items()}
    every = views_of(EVERY, "J14", mirror)
    assert every is not None
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("none", *rows)}
    started = time.process_time()
    for batch in EvalPass(dataset, model, 4, views=draws_of(every)):
        truth = ground_truth(batch, body, protocol)
        answer = network(batch["views"].flatten(0, 1).numpy())
        camera, joints, vertices = (array.reshape(-1, len(every), *array.shape[1:]) for array in answer)
        merged = {"none": vertices[:, 0]}
        for name, views in rows.items():
            assert views is not None
            k = within(views, every)
            merged[name] = views.merge(camera[:, k], joints[:, k], vertices[:, k])[2]
        for name, mesh in merged.items():
            scores = score(torch.from_numpy(np.ascontiguousarray(mesh)), truth, body, protocol, [*METRICS])
            found[name].append(np.stack([1000 * scores[key].numpy() for key in METRICS], 1))
        done = len(found["none"]) * 4
        print(f"{done} of {len(dataset)}, {time.process_time() - started:.0f} s", flush=True)
    errors = {name: np.concatenate(parts) for name, parts in found.items()}
    draws = np.random.default_rng(0).integers(len(dataset), size=(2000, len(dataset)))

    picture = np.random.default_rng(1).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    box, cost = [150.0, 50.0, 300.0, 500.0], {}
    for name in ("none", *(n for n in TTA if n != "paper")):
        cost[name] = seconds(metro.load(arguments.model, tta=name), picture, box)

    lines = [
        f"{machine()}; Python {platform.python_version()}, PyTorch {torch.__version__.split('+')[0]}; "
        f"`python benchmarks/tta.py`; the first {len(dataset)} people of synth-test, model `{arguments.model}`",
        "",
        "| views | seen | " + " | ".join(f"{label} mm | change, 95 %" for label in METRICS.values()) + " |",
        "|---|---" + "|---|---" * len(METRICS) + "|",
    ]
    for name, values in errors.items():
        views = rows.get(name)
        cells = [name, str(len(views) if views else 1)]
        for k in range(len(METRICS)):
            change = values[:, k] - errors["none"][:, k]
            low, high = np.percentile(change[draws].mean(1), [2.5, 97.5])
            cells += [f"{values[:, k].mean():.1f}", f"{change.mean():+.1f} ({low:+.1f} … {high:+.1f})" if views else ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| `--tta` | a person, processor time ms | × |", "|---|---|---|"]
    lines += [f"| {name} | {1000 * spent:.0f} | {spent / cost['none']:.1f} |" for name, spent in cost.items()]
    print("\n".join(lines))
    notes = arguments.out.read_text().partition("\n\n\n")[2] if arguments.out.exists() else ""
    arguments.out.write_text("\n".join(lines) + "\n" + (f"\n\n{notes}" if notes else ""))


if __name__ == "__main__":
    main()
