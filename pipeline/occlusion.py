"""Stage `occlusion`: what the trained model loses behind objects, under a patch and with masked queries.

People are those of the first benchmark.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from metro.config import Params
from metro.errors import MetroError
from pipeline import stage, tracking
from pipeline.network import load_network
from pipeline.paths import BENCHMARK_SETS, BODY, MODEL, OCCLUSION


def main(params: Params) -> None:
    """Measure and draw."""
    from metro.body.arrays import read_npz
    from metro.body.load import load_variant
    from metro.body.model import BodyModel
    from metro.data.shards import ShardDataset
    from metro.evaluation.occlusion import choose_people, measure_occlusion, summarise, write_occlusion
    from metro.evaluation.protocols import protocol_of
    from metro.model.device import device_of

    benchmarks = stage.read_json(BENCHMARK_SETS, "catalogue")
    if not benchmarks:
        raise MetroError("benchmarks: none, so there is nobody to hide; name one in params.yaml")
    name = next(iter(benchmarks))
    dataset, protocol = ShardDataset(Path(benchmarks[name]["shards"])), protocol_of(params.benchmarks[name].protocol)
    body = BodyModel(read_npz(BODY), variants=partial(load_variant, params.body))
    with tracking.joined(params, "train") as run, stage.publish(OCCLUSION) as folder:
        network = load_network(MODEL)
        people = choose_people(dataset, network, body, protocol, params.occlusion)
        networks = {"model": measure_occlusion(network, people, params.occlusion, device_of(None))}
        summary = summarise(networks, people, protocol.joint_set, params.occlusion, benchmark=name)
        write_occlusion(networks, people, protocol.joint_set, summary, folder)
        for path in sorted(folder.iterdir()):
            run.artifact(path, "occlusion")


if __name__ == "__main__":
    stage.run(main)
