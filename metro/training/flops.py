"""How much arithmetic the network is, and how much the machine can do: the two sides of model FLOP utilisation."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from metro.model.metro import Metro


def flops_per_image(metro: Metro) -> float:
    """Floating-point operations of one image's forward pass (multiply and add are two); a training step has three."""
    side, training = metro.config.image_size, metro.training
    metro.eval()  # leaves BatchNorm's statistics as they are
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        metro(torch.zeros(1, 3, side, side, device=metro.template_T3.device))
    metro.train(training)
    return float(counter.get_total_flops())


def matmul_flops(
    device: torch.device, dtype: torch.dtype = torch.float32, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Operations per second of a large matrix product, measured: the ceiling that utilisation refers to."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.ones(side, side, device=device, dtype=dtype)
    rate = 0.0
    for _ in range(3):
        synchronise(device)
        began = clock()
        for _ in range(2):
            a @ a
        synchronise(device)
        rate = max(rate, 2 * 2 * side**3 / (clock() - began))
    return rate


def synchronise(device: torch.device) -> None:
    """Wait for what the device still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
