"""Threads against data-parallel processes: training speed of the default network on two cores.

It trains as preset `open` does, on kept features of its frozen backbone; loading is left out.

``python benchmarks/processes.py`` takes about two minutes and writes ``benchmarks/processes.md``. The three ways take
turns, and each row is the median of its rounds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

BATCH, STEPS, ROUNDS = 32, 6, 3
WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}


def main() -> None:
    import torch
    from machine import machine

    speeds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, (processes, threads) in WAYS.items():
            command = [sys.executable, __file__, str(processes), str(threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            speeds[name].append(float(done.stdout.split("views/s")[1]))
    base = statistics.median(speeds["1 process, 1 thread"])
    rows = (f"| {n} | {statistics.median(s):.1f} | {statistics.median(s) / base:.2f} |" for n, s in speeds.items())
    text = "\n".join(
        [
            f"Made by `python benchmarks/processes.py` on {machine()}; "
            f"torch {torch.__version__}, the network of preset `open` on kept features, {BATCH} views a step; load "
            f"{os.getloadavg()[0]:.1f} at the end.",
            "",
            "| | training, views/s | ÷ first row |",
            "| --- | --- | --- |",
            *rows,
        ]
    )
    Path(__file__).with_suffix(".md").write_text(text + "\n")
    print(text)


def measure(processes: int, threads: int) -> None:
    """Speed of one way; a second process, if any, runs this too."""
    import torch
    from batch import random_batch

    from metro.body.load import load_body
    from metro.body.model import BodyModel
    from metro.config import load_params
    from metro.mesh.sampling import build_sampling
    from metro.model.losses import Targets, metro_loss
    from metro.model.metro import build_model
    from metro.presets import resolve
    from metro.training.engine import build_optimizer
    from metro.training.freeze import Frozen
    from metro.training.processes import launched

    os.environ["OMP_NUM_THREADS"] = str(threads)
    params = load_params(resolve("open"))
    config = params.train.model_copy(update={"cpu_processes": processes})
    with launched(config) as fabric:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        body = load_body("open")
        levels = build_sampling(body.v_template, body.faces)
        model, targets = build_model(params.model, body, levels), Targets(BodyModel(body), levels, params.model)
        frozen = Frozen(model, config.freeze)
        network, optimizer = fabric.setup(model, build_optimizer(model, config))
        frozen.train(network)
        side = params.model.image_size
        batch = random_batch(BATCH // processes, side, len(model.template_T3))
        with torch.no_grad():
            batch["features"] = model.backbone.features(batch["images"])

        for step in range(STEPS + 2):
            if step == 2:
                began = time.perf_counter()
            output = network(batch["features"], batch["mask"], full=False)
            fabric.backward(metro_loss(output, targets(batch), config.loss)["total"])
            optimizer.step()
            optimizer.zero_grad()
        if fabric.is_global_zero:
            print(f"views/s {BATCH * STEPS / (time.perf_counter() - began):.2f}")


if __name__ == "__main__":
    measure(*map(int, sys.argv[1:])) if len(sys.argv) > 1 else main()
