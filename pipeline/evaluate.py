"""Stage `evaluate@BENCHMARK`: the trained model under a benchmark's protocol.

Its numbers join the run of the training that made the model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from metro.config import Params
from pipeline import stage, tracking
from pipeline.network import load_network
from pipeline.paths import BODY, EVALUATE, MEAN_POSES, MODEL, shards

if TYPE_CHECKING:
    from metro.evaluation.evaluate import Result


def main(params: Params, name: str) -> None:
    """Measure, draw and tabulate."""
    dataset = params.benchmarks[name].dataset
    with tracking.joined(params, "train") as run:
        run.dataset(dataset, stage.inputs().files[str(shards(dataset))], shards(dataset), "evaluation")
        result, draw = judge(MODEL, name, params)
        numbers = result.headline()
        run.log({f"{name}/{key}": value for key, value in numbers.items()})
        with stage.publish(EVALUATE / name) as folder:
            result.write(folder)
            draw(folder)
            for path in sorted([folder / "result.json", folder / "samples.npz", *folder.glob("*.png")]):
                run.artifact(path, f"evaluate/{name}")
        stage.write_metrics(f"evaluate/{name}", numbers)
    print(f"{name}: " + "  ".join(f"{key} {value:g}" for key, value in numbers.items()))


def judge(checkpoint: Path, name: str, params: Params) -> tuple[Result, Callable[[Path], object]]:
    """Result of a checkpoint on the benchmark `name`, and what draws its figures into a folder."""
    from metro.body.arrays import read_npz
    from metro.body.load import load_variant
    from metro.body.model import BodyModel
    from metro.data.shards import ShardDataset
    from metro.evaluation.baselines import Baselines
    from metro.evaluation.evaluate import evaluate
    from metro.evaluation.figures import write_figures
    from metro.model.device import device_of
    from metro.training.checkpoint import load_checkpoint

    benchmark = params.benchmarks[name]
    network, body = load_network(checkpoint), BodyModel(read_npz(BODY), variants=partial(load_variant, params.body))
    dataset, device = ShardDataset(shards(benchmark.dataset)), device_of(None)
    result = evaluate(
        network,
        dataset,
        body,
        benchmark.protocol,
        params.evaluate,
        Baselines.load(MEAN_POSES),
        device,
        benchmark=name,
        about={"checkpoint": str(checkpoint), "step": load_checkpoint(checkpoint).step},
    )
    return result, lambda folder: write_figures(result, network, dataset, body, folder, device)


if __name__ == "__main__":
    stage.run(main)
