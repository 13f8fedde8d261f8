"""Random numbers that belong to a thing, not to the moment they are drawn."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What numbers of the seed of a training are for: the second part of their key."""

    ORDER = 0
    """Order of the records in a round of the stream."""
    PASS = 1
    """Order of one pass over a dataset."""
    SAMPLE = 2
    """Augmentation and mask of a sample."""
    DROPOUT = 3
    """Dropout of a step."""
    BOX = 4
    """Box of a sample."""
    PHOTO = 5
    """What a camera does to a sample."""


def stream(*key: int) -> np.random.Generator:
    """The random numbers of whatever `key` names: (seed, epoch, sample), (seed, person, purpose), …

    Equal keys give equal numbers on every machine, in any order and in any process; different keys are independent
    (NumPy's `SeedSequence`). Keys have parts from 0 to 2⁶⁴ - 1, any number of them.
    """
    # The length, then two words for each part: to SeedSequence itself (1, 2), (1, 2, 0) and (1 + 2**33,) are one key.
    words = np.array([len(key), *key], "<u8").view("<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
