"""Stage `export`: the bundle that applications use, with its ONNX file and torch.export program, and MLflow's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metro.config import Params
from pipeline import stage, tracking
from pipeline.network import load_network
from pipeline.paths import BODY, EXPORT, METRICS, MODEL, SAMPLING, TRAIN_SETS


class Rows(nn.Module):
    """Everything a network says as one tensor (B, 1 + J + V, 3): camera, joints, vertices."""

    def __init__(self, deployed: nn.Module) -> None:
        super().__init__()
        self.deployed = deployed

    def forward(self, image: Tensor) -> Tensor:
        camera, joints, vertices = self.deployed(image)
        return torch.cat([camera[:, None], joints, vertices], 1)


def main(params: Params) -> None:
    """Write the bundle and what `params.export` asks for, each compared with the network."""
    from metro.body.arrays import read_npz
    from metro.export.bundle import ONNX, PROGRAM, bundle_of, write_bundle
    from metro.export.folder import read_folder
    from metro.export.onnx import Deployed
    from metro.mesh.sampling import load_sampling
    from metro.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(MODEL)
    scores = benchmark_scores(params)
    about = {"checkpoint": str(MODEL), "step": checkpoint.step, "preset": params.preset, "benchmarks": scores}
    bundle = bundle_of(load_network(MODEL), read_npz(BODY), load_sampling(SAMPLING), about)
    with tracking.joined(params, "train") as run, stage.publish(EXPORT) as folder:
        asked = {"onnx": ONNX, "torch_export": PROGRAM}
        programs = {name: file for name, file in asked.items() if getattr(params.export, name)}
        write_bundle(folder / "bundle", bundle, list(programs.values()))
        measured = read_folder(folder / "bundle").meta["largest_difference_m"]
        difference = {name: measured[file] for name, file in programs.items()}
        size = bundle.model.config.image_size
        example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).numpy()
        files = sorted((folder / "bundle").iterdir())
        run.model(Rows(Deployed(bundle.model)).eval(), example, ranking(checkpoint.metrics), files)
        run.log({f"export/{name}_difference": value for name, value in difference.items()})
    for name, value in difference.items():
        print(f"{name}: differs from the network by {value:.2g} m at most")


def benchmark_scores(params: Params) -> dict[str, dict[str, Any]]:
    """The metrics of each benchmark."""
    return {
        name: stage.read_json(METRICS / "evaluate" / f"{name}.json", f"evaluate@{name}") for name in params.benchmarks
    }


def ranking(metrics: Mapping[str, float]) -> tuple[str, float] | None:
    """What models are ranked by: the error on the validation set, by which training chose among its own as well.

    Test sets choose nothing. The name tells the set's records, for models are comparable on the same ones alone.
    """
    held_out = stage.read_json(TRAIN_SETS, "catalogue")["validation"]
    if held_out is None or "mpjpe" not in metrics:
        return None
    return f"validation.{held_out['name']}.{held_out['digest'][:8]}/mpjpe_mm", 1000 * metrics["mpjpe"]


if __name__ == "__main__":
    stage.run(main)
