"""Training on kept features of a frozen backbone, on pictures with the backbone frozen, and with all weights.

``python benchmarks/features.py`` takes about ten minutes and writes ``benchmarks/features.md``. Each number comes from
`metro.training.engine.train` itself, loading included, on people rendered for it: images per second of the second half
of a run, the median of rounds in which the ways take turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PEOPLE, BATCH, STEPS, ROUNDS = 256, 32, 6, 3
BACKBONES = {"blazepose": "shipped", "timm/tf_efficientnet_lite0": "none"}
WAYS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "backbone frozen, pictures": {"freeze": ["backbone"]},
    "backbone frozen, features": {"freeze": ["backbone"], "views": 1},
}
"""What is trained and on what; one view, since more of them cost space alone."""


def main() -> None:
    import torch
    from machine import machine

    from metro.config import BodyConfig, DatasetConfig
    from metro.sources.prepare import prepare

    speeds: dict[tuple[str, str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = DatasetConfig.model_validate({"options": {"count": PEOPLE, "seed": 1}, "crop": {"box_px": 176}})
        prepare("people", config, BodyConfig(), Path(folder, "people"))
        kept = {backbone: run(folder, backbone, "backbone frozen, features", 1) for backbone in BACKBONES}
        for _ in range(ROUNDS):
            for backbone in BACKBONES:
                for way in WAYS:
                    for processes in (1, 2):
                        found = run(folder, backbone, way, processes)
                        speeds.setdefault((backbone, way, processes), []).append(found["images_per_s"])
                        print(backbone, way, processes, found, flush=True)
    Path(__file__).with_suffix(".md").write_text(table(speeds, kept, machine(), torch.__version__) + "\n")


def run(folder: str, backbone: str, way: str, processes: int) -> dict[str, float]:
    command = [sys.executable, __file__, folder, backbone, way, str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, backbone: str, way: str, processes: int) -> None:
    """Speed of one way; a second process, if any, runs this too."""
    import torch

    from metro.body.load import load_body
    from metro.config import load_params
    from metro.data.shards import ShardDataset
    from metro.mesh.sampling import build_sampling
    from metro.presets import resolve
    from metro.training.engine import train
    from metro.training.features import FeatureCache

    torch.set_num_threads(1)
    values = resolve("open")
    values["model"] |= {"backbone": backbone, "backbone_weights": BACKBONES[backbone], "image_size": 256}
    values["train"] |= WAYS[way] | {"init": "none", "steps": STEPS, "log_every": STEPS // 2, "batch_size": BATCH}
    values["train"] |= {"threads": 1, "workers": 0, "cpu_processes": processes, "save_every": STEPS, "warmup_steps": 1}
    told: dict[str, float] = {}

    class Timed(FeatureCache):
        def __init__(self, *arguments: Any) -> None:
            began = time.perf_counter()
            super().__init__(*arguments)
            told["seconds"], told["bytes"] = time.perf_counter() - began, self.stored.row.itemsize

    import metro.training.engine as engine

    engine.FeatureCache = Timed  # type: ignore[misc]
    body = load_body("open")
    with tempfile.TemporaryDirectory() as work:
        train(
            load_params(values),
            [ShardDataset(folder / "people")],
            body,
            build_sampling(body.v_template, body.faces),
            Path(work),
            features=folder / "features" / backbone.replace("/", "-"),
            log=lambda record, _: told.update(images_per_s=record["speed/images_per_s"]),
        )
    if told.get("images_per_s"):  # of the first process
        print(json.dumps(told))


def table(
    speeds: dict[tuple[str, str, int], list[float]], kept: dict[str, dict[str, float]], machine: str, torch: str
) -> str:
    lines = [
        f"Made by `python benchmarks/features.py` on {machine}; torch {torch}, the network of preset `open` with 64 "
        f"cells of pictures of 256 px, {BATCH} a step, images per second with loading, fp32, one thread a process.",
        "",
        "| backbone | trained | 1 process | ÷ all weights | 2 processes | ÷ all weights |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for backbone in BACKBONES:
        for way in WAYS:
            cells = []
            for processes in (1, 2):
                speed, base = (
                    statistics.median(speeds[backbone, which, processes]) for which in (way, next(iter(WAYS)))
                )
                cells += [f"{speed:.1f}", f"{speed / base:.2f}"]
            lines.append(f"| `{backbone}` | {way} | {' | '.join(cells)} |")
    lines += ["", "Features are computed once before, by all processors:", ""]
    lines += ["| backbone | views | views/s | kB of a view |", "| --- | --- | --- | --- |"]
    for backbone, found in kept.items():
        speed = PEOPLE / found["seconds"]
        lines.append(f"| `{backbone}` | {PEOPLE} | {speed:.1f} | {found['bytes'] / 1000:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    measure(Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])) if len(sys.argv) > 1 else main()  # type: ignore
