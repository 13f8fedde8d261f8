"""The batch that the benchmarks of the network train on."""

from __future__ import annotations

import torch
from torch import Tensor


def random_batch(count: int, side: int, tokens: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Random normalised images, masks and body labels, named as the loader names them.

    A quarter of the samples has 2D joints only, another one no mesh; shapes, and so times, do not depend on it.
    """
    number = torch.arange(count)
    batch = {
        "images": torch.randn(count, 3, side, side).to(memory_format=torch.channels_last),
        "mask": torch.rand(count, tokens) < 0.15,
        "joints_3d": torch.cat([torch.randn(count, 24, 3), torch.ones(count, 24, 1)], 2),
        "joints_2d": torch.cat([torch.randn(count, 24, 2), (torch.rand(count, 24, 1) < 0.8).float()], 2),
        "pose_aa": 0.2 * torch.randn(count, 72),
        "betas": torch.randn(count, 10),
        "has_2d": torch.ones(count, dtype=torch.bool),
        "has_3d": number % 4 != 1,
        "has_mesh": number % 4 > 1,
    }
    return {name: value.to(device) for name, value in batch.items()}
