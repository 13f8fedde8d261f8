"""Learning-rate schedules as pure functions of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from metro.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of optimizer step `step` (0-based).

    `step` divides by ten from half of the run on (official code: ``lr · 0.1 ** (epoch // (E / 2))``, without its
    last-iteration slip to a further tenth); `cosine` decays to 1 % of the peak. Warm-up is linear from lr / warmup.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    progress = step / config.steps
    if config.schedule == "cosine":
        decay = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress))
    elif config.schedule == "step":
        decay = 0.1 ** math.floor(2 * progress)
    else:
        decay = 1.0
    return config.lr * warmup * decay
