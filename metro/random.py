"""Random numbers that belong to a thing, not to the moment they are drawn."""

from __future__ import annotations

import numpy as np


def stream(*key: int) -> np.random.Generator:
    """The random numbers of whatever `key` names: (seed, epoch, sample), (seed, person, purpose), …

    Equal keys give equal numbers on every machine, in any order and in any process; different keys are independent
    (NumPy's `SeedSequence`). Keys are non-negative integers of any size.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
