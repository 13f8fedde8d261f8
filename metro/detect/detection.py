"""What a detector finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from metro.body.joints import JOINT_SETS

POSE_LANDMARKS = (
    *("Nose", "L_Eye_Inner", "L_Eye", "L_Eye_Outer", "R_Eye_Inner", "R_Eye", "R_Eye_Outer", "L_Ear", "R_Ear"),
    *("L_Mouth", "R_Mouth", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist"),
    *("L_Pinky", "R_Pinky", "L_Index", "R_Index", "L_Thumb", "R_Thumb"),
    *("L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle", "L_Heel", "R_Heel", "L_Toe", "R_Toe"),
)
"""BlazePose's 33 landmarks; names that `metro.body.joints` has as well mean the same place. Those of a hand are the
registry's HAND21."""


@dataclass(frozen=True, eq=False)
class Detection:
    """A person or a hand in a picture. Pixels are OpenCV's (integers are pixel centres)."""

    box: tuple[float, float, float, float]
    """x, y, width, height: tight and upright, around what can be seen."""
    score: float
    """From 0 to 1."""
    landmarks: np.ndarray | None = None
    """(33, 3) of a person, (21, 3) of a hand: x, y in pixels, and how likely it can be seen; None: not known."""
    left: bool = False
    """Whether it is a left hand."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the landmarks are called."""
        known = self.landmarks is not None and len(self.landmarks) == len(POSE_LANDMARKS)
        return POSE_LANDMARKS if known else tuple(JOINT_SETS["HAND21"])


SAME = 0.3
"""Mean distance of two finds' landmarks, over the longer side of the larger box, up to which they are one."""


class Detector(Protocol):
    """Finds people, or hands."""

    name: str
    """Stands in results."""

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """What is in a picture (H, W, 3) uint8 RGB, the surest first."""
        ...


def box_around(
    points_K2: np.ndarray, flesh_K: np.ndarray, width: int, height: int
) -> tuple[float, float, float, float] | None:
    """Box x, y, width, height around points in a picture of this size, each with a disc of so many pixels around it.

    Points outside of the picture do not count. None: less than two are left.
    """
    size = np.array([width, height])
    inside_K = ((points_K2 > -0.5) & (points_K2 < size - 0.5)).all(1)
    if np.count_nonzero(inside_K) < 2:
        return None
    points_K2, flesh_K1 = points_K2[inside_K], flesh_K[inside_K, None]
    low = np.maximum((points_K2 - flesh_K1).min(0), -0.5)
    high = np.minimum((points_K2 + flesh_K1).max(0), size - 0.5)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def distinct(found: list[Detection]) -> list[Detection]:
    """What is found without that which has the landmarks of something surer; the surest first."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda one: -one.score):
        if all(apart(one, other) for other in kept):
            kept.append(one)
    return kept


def apart(one: Detection, other: Detection) -> bool:
    """Whether two sets of landmarks are those of two people, or hands."""
    assert one.landmarks is not None
    assert other.landmarks is not None
    size = max(*one.box[2:], *other.box[2:])
    return float(np.linalg.norm(one.landmarks[:, :2] - other.landmarks[:, :2], axis=1).mean()) > SAME * size
