"""Pictures of a prepared set, its fits and a training under way, for their runs; no output of a stage holds them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.tracking.run import Run

if TYPE_CHECKING:
    from metro.body.arrays import BodyData
    from metro.config import BodyConfig
    from metro.data.shards import ShardDataset
    from metro.model.metro import Metro

DRAWN = 8
"""Held-out records drawn after each validation."""


def chart(manifest: Mapping[str, Any], shards: Path, run: Run) -> None:
    """Charts of what a prepared set holds, unless nobody keeps them."""
    from metro.body.figure import figure_of
    from metro.body.joints import JOINT_SETS
    from metro.data.shards import ShardDataset
    from metro.data.verify import distributions
    from metro.viz.plots import dataset_charts

    if run.run_id is None:
        return
    names = JOINT_SETS[figure_of(manifest["params"]["body"]["kind"]).labels]
    counts = {"in the set": manifest["count"], **manifest["left"], "unreadable": manifest["skipped"]}
    visibility = dict(zip(names, manifest["statistics"]["joint_visibility"], strict=True))
    with tempfile.TemporaryDirectory() as folder:
        histograms = distributions(ShardDataset(shards, cache=Path(folder, "labels")))
        run.artifact(dataset_charts(counts, visibility, histograms, Path(folder, "set.png")), "figures")


def fitted(dataset: ShardDataset, fits: Path, body: BodyConfig, run: Run) -> None:
    """Accepted and refused fits of a set."""
    from metro.body.load import load_body
    from metro.data.show import fitted_sheet

    if run.run_id is not None:
        run.figure("fits", fitted_sheet(dataset, fits, load_body(body)))


def painter(dataset: ShardDataset, body: BodyData, run: Run) -> Callable[[Metro, int], None]:
    """Draws the network's meshes over the first few held-out crops."""
    import torch

    from metro.data.augment import normalise
    from metro.data.loader import EvalPass
    from metro.viz.overlay import grid, mesh_overlay, resize

    @torch.no_grad()
    def paint(metro: Metro, step: int) -> None:
        device = next(metro.parameters()).device
        batch = next(iter(EvalPass(dataset.first(DRAWN), metro.config, DRAWN)))
        output = metro(normalise(batch["image"].to(device), batch["colour"].to(device)))
        tiles = [
            mesh_overlay(resize(crop, 224), mesh, body.faces, camera)
            for crop, mesh, camera in zip(
                batch["image"].numpy(), output.vertices[-1].cpu().numpy(), output.camera.cpu().numpy(), strict=True
            )
        ]
        run.figure("validation", grid(tiles, 4), step)

    return paint
