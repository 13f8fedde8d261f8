"""How much arithmetic the network is, and how much the machine can do: the two sides of model FLOP utilisation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from metro.config import TrainConfig
from metro.model.metro import Metro


def cost(metro: Metro, train: TrainConfig) -> dict[str, float]:
    """What a network takes on every machine: weights, millions; operations of an image, 1e9; of its training, 1e12."""
    frozen = tuple(f"{name}." for name in train.freeze)
    weights = {name: weight.numel() for name, weight in metro.named_parameters()}
    trained = sum(count for name, count in weights.items() if not (frozen and name.startswith(frozen)))
    step = flops_per_step(metro, train.freeze, cached=train.views is not None)
    return {
        "parameters_m": round(sum(weights.values()) / 1e6, 6),
        "trained_parameters_m": round(trained / 1e6, 6),
        "forward_gflop": round(flops_per_image(metro) / 1e9, 6),
        "training_tflop": round(train.steps * train.batch_size * step / 1e12, 6),
    }


def flops_per_image(metro: Metro) -> float:
    """Floating-point operations of one image's forward pass (multiply and add are two)."""
    return _flops(metro)[""]


def flops_per_step(metro: Metro, frozen: Sequence[str] = (), cached: bool = False) -> float:
    """The same of a training step: forward and twice as much backward; what is frozen, at the start of the network,
    goes forward only, and what is frozen of a backbone whose features are `cached` does nothing."""
    flops = _flops(metro)
    outermost = [name for name in frozen if not name.startswith(tuple(f"{other}." for other in frozen))]
    still = {name: flops.get(name, 0.0) for name in outermost}
    kept = sum(count for name, count in still.items() if name.split(".")[0] == "backbone")
    return 3 * flops[""] - 2 * sum(still.values()) - (kept if cached else 0.0)


def _flops(metro: Metro) -> dict[str, float]:
    """Operations of one image's forward pass, by the name of the module; of all of it: ``""``."""
    side, training = metro.config.image_size, metro.training
    metro.eval()  # leaves BatchNorm's statistics as they are
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        metro(torch.zeros(1, 3, side, side, device=metro.template_T3.device))
    metro.train(training)
    counts = {name: float(sum(of.values())) for name, of in counter.get_flop_counts().items()}
    return {name.partition(".")[2]: count for name, count in counts.items() if name != "Global"}


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
