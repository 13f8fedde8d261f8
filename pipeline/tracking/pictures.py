"""Pictures of a training under way, for its run; no output of a stage holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.tracking.run import Run

if TYPE_CHECKING:
    from metro.body.arrays import BodyData
    from metro.data.shards import ShardDataset
    from metro.model.metro import Metro

DRAWN = 8
"""Held-out records drawn after each validation."""


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
