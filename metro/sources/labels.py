"""Labels on their way from raw files to records: numbers of a shape, joints in their places, text for the index."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metro.body.joints import JOINT_SETS, shared

Array = NDArray[np.float64]


def numbers(value: Any, what: str, *shape: int) -> Array:
    """Numbers of a shape, as a file holds them.

    Raises
    ------
    ValueError
        They have another shape, or are not finite; the message begins with `what`.
    TypeError, OverflowError
        They are something else.
    """
    array = np.array(value, np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{what} is not {' × '.join(map(str, shape)) or 'one'} finite numbers")
    return array


def in_j24(names: str | Sequence[str], joints_KD: ArrayLike, confidence_K: ArrayLike = 1.0) -> Array:
    """Joints (K, D) of a set, with their confidence, in their places (24, D + 1) among J24.

    What the set has not, or not annotated (no confidence), is 0.
    """
    at, to = shared(names, "J24")
    joints_KD = np.asarray(joints_KD, np.float64)
    sure_K = np.broadcast_to(np.asarray(confidence_K, np.float64), len(joints_KD))[at]
    out = np.zeros((len(JOINT_SETS["J24"]), joints_KD.shape[1] + 1))
    out[to] = np.where(sure_K[:, None] > 0, np.column_stack([joints_KD[at], sure_K]), 0)
    return out


def packed(numbers_N: Array) -> str:
    """Numbers as text for a row of the index: writing their digits would take ten times as long."""
    return base64.b64encode(numbers_N.astype("<f8").tobytes()).decode()


def unpacked(text: str) -> Array:
    """The numbers (N,) of `packed`."""
    return np.frombuffer(base64.b64decode(text), "<f8").astype(np.float64)
