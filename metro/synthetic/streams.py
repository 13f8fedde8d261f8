"""The random numbers of synthetic people: one stream per person, purpose and attempt."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from metro import random
from metro.synthetic import exact


class Stream(IntEnum):
    """Purposes of the random streams of one person."""

    POSE = 0
    SHAPE = 1
    LOOK = 2
    SCENE = 3
    CAMERA = 4
    STRANGER = 5
    COMPANY = 6


def stream(seed: int, index: int, purpose: Stream, attempt: int = 0) -> np.random.Generator:
    """The random numbers of person `index` of a seed for one purpose.

    Any person can be made alone, and no two seeds share a person.
    """
    return random.stream(seed, index, purpose, attempt)


def log_uniform(g: np.random.Generator, low: float, high: float) -> float:
    """A number between two positive ones whose logarithm is uniform."""
    return low * float(exact.power(high / low, g.random()))
