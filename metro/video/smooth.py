"""The one-euro filter: steady when people are still, and no lag to speak of when they move.

Casiez, Roussel and Vogel, "1 € Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems",
CHI 2012. A first-order low-pass filter whose cutoff rises with the speed, which is low-passed as well. The filter looks
back only, so that a clip needs to be passed once.
"""

from __future__ import annotations

import math

import numpy as np

LEAST_CUTOFF_HZ = 1.0
"""Cutoff at rest."""
PER_SPEED = 2.0
"""By how much the cutoff rises with the speed, Hz per m/s."""
SPEED_CUTOFF_HZ = 1.0
"""Cutoff of the speed itself, as the paper has it."""


def one_euro(
    new: np.ndarray, old: np.ndarray, speed: np.ndarray, seconds: float, metre: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Filter points (..., D), all coordinates of a point by the cutoff that its speed asks for.

    Parameters
    ----------
    new
        What was measured.
    old, speed
        What the filter gave the last time: the points, and their speed in units a second.
    seconds
        Time since then.
    metre
        What a metre is in the unit of the points.

    Returns
    -------
    tuple
        The points and their speed.
    """
    speed = speed + _share(SPEED_CUTOFF_HZ, seconds) * ((new - old) / seconds - speed)
    metres = np.linalg.norm(speed, axis=-1, keepdims=True) / metre
    return old + _share(LEAST_CUTOFF_HZ + PER_SPEED * metres, seconds) * (new - old), speed


def _share(cutoff_hz: np.ndarray | float, seconds: float) -> np.ndarray | float:
    """Weight of a new value in a first-order low-pass filter: 1 / (1 + τ / T), where τ = 1 / (2 π f)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff_hz * seconds))
