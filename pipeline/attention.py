"""Stage `attention`: what the joint queries attend to, on average and in single images of the first benchmark."""

from __future__ import annotations

from pathlib import Path

from metro.config import Params
from metro.errors import MetroError
from pipeline import stage, tracking
from pipeline.network import load_network
from pipeline.paths import ATTENTION, BENCHMARK_SETS, BODY, MODEL, SAMPLING


def main(params: Params) -> None:
    """Measure and draw."""
    from metro.body.arrays import read_npz
    from metro.data.shards import ShardDataset
    from metro.evaluation.attention import measure_attention, write_attention
    from metro.mesh.sampling import load_sampling
    from metro.model.device import device_of

    benchmarks = stage.read_json(BENCHMARK_SETS, "catalogue")
    if not benchmarks:
        raise MetroError("benchmarks: none, so there is no image to look at; name one in params.yaml")
    dataset = ShardDataset(Path(next(iter(benchmarks.values()))["shards"]))
    with tracking.joined(params, "train") as run, stage.publish(ATTENTION) as folder:
        body, levels = read_npz(BODY), load_sampling(SAMPLING)
        measured = measure_attention(load_network(MODEL), dataset, body, levels, params.attention, device_of(None))
        write_attention(measured, body, levels, folder)
        for path in sorted(folder.glob("*.png")):
            run.artifact(path, "attention")


if __name__ == "__main__":
    stage.run(main)
