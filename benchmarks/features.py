"""Training on kept features of a frozen backbone, on pictures with the backbone frozen, and with all weights.

``python benchmarks/features.py`` takes some minutes and writes ``benchmarks/features.md``. Each number comes from
`metro.training.engine.train` itself, loading included, on people rendered for it: the second half of a run, the median
of rounds in which the ways take turns.
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

PEOPLE, BATCH, STEPS, ROUNDS = 128, 32, 4, 1
WAYS: dict[str, dict[str, Any]] = {
    "all weights": {"freeze": [], "views": None},
    "backbone frozen, pictures": {"freeze": ["backbone"], "views": None},
    "backbone frozen, features": {"freeze": ["backbone"], "views": 1},
}
"""What is trained and on what; one view, since more of them cost space alone."""


def main() -> None:
    import torch
    from machine import machine

    from metro.config import BodyConfig, DatasetConfig
    from metro.sources.prepare import prepare

    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = DatasetConfig.model_validate({"options": {"count": PEOPLE, "seed": 1}, "crop": {"box_px": 176}})
        prepare("people", config, BodyConfig(), Path(folder, "people"))
        kept = run(folder, "backbone frozen, features", 1)
        for _ in range(ROUNDS):
            for way in WAYS:
                for processes in (1, 2):
                    found.setdefault((way, processes), []).append(run(folder, way, processes))
                    print(way, processes, found[way, processes][-1], flush=True)
    text = "\n".join(
        [
            f"Made by `python benchmarks/features.py` on {machine()}; torch {torch.__version__}, the network of preset "
            f"`open` on `blazepose`'s 64 cells of 256 px, {BATCH} views a step, loading included, fp32, one thread a "
            f"process; half of {STEPS} steps, rounds: {ROUNDS}.",
            "",
            "| | processor time of a view, ms | all weights ÷ | pictures ÷ | views/s | ÷ all weights "
            "| views/s of two processes | ÷ all weights |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(row(way, found) for way in WAYS),
            "",
            f"Before that, features of {PEOPLE} views were computed by all processors at "
            f"{PEOPLE / kept['seconds']:.1f} views/s; one takes {kept['bytes'] / 1000:.1f} kB of disk. Other jobs held "
            "the cores meanwhile, so that processor time tells more than views/s.",
        ]
    )
    Path(__file__).with_suffix(".md").write_text(text + "\n")
    print(text)


def row(way: str, found: dict[tuple[str, int], list[dict[str, float]]]) -> str:
    def of(which: str, processes: int, name: str) -> float:
        return statistics.median(each[name] for each in found[which, processes])

    base, pictures, _ = WAYS
    spent, alone, both = of(way, 1, "ms"), of(way, 1, "views/s"), of(way, 2, "views/s")
    less = f"{of(base, 1, 'ms') / spent:.1f} | {of(pictures, 1, 'ms') / spent:.1f}"
    faster = alone / of(base, 1, "views/s"), both / of(base, 2, "views/s")
    return f"| {way} | {spent:.1f} | {less} | {alone:.1f} | {faster[0]:.1f} | {both:.1f} | {faster[1]:.1f} |"


def run(folder: str, way: str, processes: int) -> dict[str, float]:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, folder, tempfile.mkdtemp(dir=folder), way, str(processes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def measure(folder: Path, work: Path, way: str, processes: int) -> None:
    """Speed of one way; a second process, if any, runs this too."""
    import torch

    from metro.body.load import load_body
    from metro.config import load_params
    from metro.data.shards import ShardDataset
    from metro.mesh.sampling import build_sampling
    from metro.presets import resolve
    from metro.training import engine

    torch.set_num_threads(1)
    half = STEPS // 2
    values = resolve("open")
    values["model"] |= {"backbone_weights": "shipped"}
    values["train"] |= WAYS[way] | {"init": "none", "steps": STEPS, "log_every": half, "save_every": STEPS}
    values["train"] |= {"batch_size": BATCH, "workers": 0, "cpu_processes": processes, "warmup_steps": 1, "threads": 1}
    told: dict[str, float] = {}
    spent: list[float] = []

    class Timed(engine.FeatureCache):
        def __init__(self, *arguments: Any) -> None:
            began = time.perf_counter()
            super().__init__(*arguments)
            told.update(seconds=time.perf_counter() - began, bytes=self.stored.row.itemsize)

    def log(record: Any, step: int) -> None:
        spent.append(time.process_time())
        told["views/s"] = record["speed/images_per_s"]

    engine.FeatureCache = Timed  # type: ignore[misc]
    body = load_body("open")
    datasets, levels = [ShardDataset(folder / "people")], build_sampling(body.v_template, body.faces)
    engine.train(load_params(values), datasets, body, levels, work, features=folder / "features", log=log)
    if spent:  # in the first process
        told["ms"] = 1000 * (spent[1] - spent[0]) / (half * BATCH / processes)
        print(json.dumps(told))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        main()
