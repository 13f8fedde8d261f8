"""Stage `evaluate@BENCHMARK`: the trained model under a benchmark's protocol.

Its numbers join the run of the training that made the model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from metro.config import Params
from pipeline import stage, tracking
from pipeline.paths import BODY, EVALUATE, MEAN_POSES, MODEL, SAMPLING, TRAIN_RUN, shards

if TYPE_CHECKING:
    from metro.evaluation.evaluate import Result
    from metro.model.metro import Metro


def main(params: Params, name: str) -> None:
    """Measure, draw and tabulate."""
    benchmark = params.benchmarks[name]
    inputs = [MODEL, shards(benchmark.dataset), MEAN_POSES]
    reopen = stage.read_json(TRAIN_RUN, "train")["run_id"]
    with tracking.tracked("evaluate", params, inputs, reopen=reopen) as run:
        result, draw = judge(MODEL, name, params)
        numbers = result.headline()
        run.log({f"{name}/{key}": value for key, value in numbers.items()})
        with stage.publish(EVALUATE / name) as folder:
            result.write(folder)
            draw(folder)
            stage.write_json(folder / "run.json", run.pointer())
            for path in sorted([folder / "result.json", *folder.glob("*.png")]):
                run.artifact(path, f"evaluate/{name}")
        stage.write_metrics(f"evaluate/{name}", numbers)
    print(f"{name}: " + "  ".join(f"{key} {value:g}" for key, value in numbers.items()))


def judge(checkpoint: Path, name: str, params: Params) -> tuple[Result, Callable[[Path], object]]:
    """Result of a checkpoint on the benchmark `name`, and what draws its figures into a folder."""
    from metro.body.arrays import read_npz
    from metro.body.model import BodyModel
    from metro.data.shards import ShardDataset
    from metro.evaluation.baselines import Baselines
    from metro.evaluation.evaluate import evaluate
    from metro.evaluation.figures import write_figures
    from metro.training.checkpoint import load_checkpoint

    benchmark = params.benchmarks[name]
    network, body = load_network(checkpoint), BodyModel(read_npz(BODY))
    dataset = ShardDataset(shards(benchmark.dataset))
    result = evaluate(
        network,
        dataset,
        body,
        benchmark.protocol,
        params.evaluate,
        Baselines.load(MEAN_POSES),
        device(),
        benchmark=name,
        about={"checkpoint": str(checkpoint), "step": load_checkpoint(checkpoint).step},
    )
    return result, lambda folder: write_figures(result, network, dataset, body, folder, device())


def load_network(checkpoint: Path) -> Metro:
    """The network of a checkpoint, on the pipeline's body and mesh levels.

    Raises
    ------
    MetroError
        It was trained on another body model or with other mesh levels.
    """
    from metro.body.arrays import read_npz
    from metro.mesh.sampling import load_sampling
    from metro.training.checkpoint import load_checkpoint
    from metro.training.restore import restore

    return restore(load_checkpoint(checkpoint), read_npz(BODY), load_sampling(SAMPLING))


def device() -> str:
    """Where stages compute: a GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    stage.run(main)
