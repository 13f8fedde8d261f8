"""Boxes as annotators and detectors draw them: around what is seen of a person, who may be cut or hidden.

A person seen in part is whole in the stored image. A straight line, at one of the four sides, divides what is seen from
the rest; past it lies the edge of the picture (black), an object, or just more of the person. The box is drawn around
the joints on the near side, up to the line, or stays that of the whole person. All of it is computed from the 2D
joints, so no mesh is needed.

Shapes: B batch, J joint, K joints seen, N corner, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from metro.config import BoxConfig
from metro.data import crop
from metro.data.photo import texture

BOX_SCALE = 1.2
"""Side of the square over the longer side of the tight box (METRO and the line of work before it)."""
FLESH = 0.05
"""How far a body reaches beyond its joints, as share of the person's square."""
SIDES = {"bottom": 0.6, "top": 0.12, "left": 0.14, "right": 0.14}
"""How often the line is at each side: heads are seldom what photographers and tables hide."""
MOST_KEPT = 0.9
LEAST_JOINTS = 4
"""Joints that must be known on the near side: fewer do not tell where a part of the body is."""
ROUGH, TILT = 0.04, 0.1
"""Of an object's outline, as shares of the person's square: how far it leaves the line at random, and at its ends."""


@dataclass(frozen=True)
class Past:
    """What is past the line of a person seen in part."""

    corners_N2: np.ndarray
    """Outline, frame pixels."""
    rng: np.random.Generator | None
    """Random numbers of the object that is there; none: it is black."""


@dataclass(frozen=True)
class Squares:
    """What a batch is cut out of its frames by."""

    center_B2: np.ndarray
    """Frame pixels."""
    side_B: np.ndarray
    """Frame pixels."""
    past: tuple[Past | None, ...] = ()
    """Of each sample; empty: of none."""


def draw(
    config: BoxConfig,
    rngs: Sequence[np.random.Generator],
    joints_BJ3: np.ndarray,
    center_B2: np.ndarray,
    side_B: np.ndarray,
) -> Squares:
    """Draw the boxes of a batch.

    Parameters
    ----------
    config
        Shares and sizes.
    rngs
        Random numbers of each sample.
    joints_BJ3
        2D joints, frame pixels and confidence; those without confidence or outside of the square do not count.
    center_B2, side_B
        The labelled squares, frame pixels.
    """
    center_B2, side_B = np.array(center_B2, np.float64), np.array(side_B, np.float64)
    past: list[Past | None] = []
    for b, rng in enumerate(rngs):
        in_part, *shift_2 = rng.random(3)
        part = _part(config, rng, joints_BJ3[b], center_B2[b], side_B[b]) if in_part < config.part else None
        if part is not None:
            center_B2[b], side_B[b], beyond = part
        past.append(part and beyond)
        center_B2[b] += config.shift * side_B[b] * (2 * np.array(shift_2) - 1)
    return Squares(center_B2, side_B, tuple(past))


def _part(
    config: BoxConfig, rng: np.random.Generator, joints_J3: np.ndarray, center_2: np.ndarray, side: float
) -> tuple[np.ndarray, float, Past | None] | None:
    """Square of a person seen in part and what is past the line; none where too few joints are known."""
    at = rng.choice(list(SIDES), p=list(SIDES.values()))
    kept, kind, whole = rng.uniform(config.part_kept, MOST_KEPT), *rng.random(2)
    within_J = (np.abs(joints_J3[:, :2] - center_2) <= side / 2).all(1)
    known_K2 = joints_J3[within_J & (joints_J3[:, 2] > 0), :2].astype(np.float64)
    if len(known_K2) < LEAST_JOINTS:
        return None
    axis, sign = (0 if at in ("left", "right") else 1), (1 if at in ("right", "bottom") else -1)
    # Along `axis`, times `sign`, numbers grow towards the line.
    outward_K = sign * known_K2[:, axis]
    first, last = outward_K.min() - FLESH * side, outward_K.max() + FLESH * side
    line = first + kept * (last - first)
    seen_K2 = known_K2[outward_K < line]
    if len(seen_K2) < LEAST_JOINTS:
        return None
    low_2, high_2 = seen_K2.min(0) - FLESH * side, seen_K2.max(0) + FLESH * side
    (high_2 if sign > 0 else low_2)[axis] = sign * line
    past = None
    if kind < config.part_edge + config.part_covered:
        covered = kind >= config.part_edge
        past = Past(_outline(rng, axis, sign, line, center_2, side, covered), rng if covered else None)
        if whole < config.part_whole:
            return center_2, side, past
    return (low_2 + high_2) / 2, BOX_SCALE * (high_2 - low_2).max(), past


def _outline(
    rng: np.random.Generator, axis: int, sign: int, line: float, center_2: np.ndarray, side: float, rough: bool
) -> np.ndarray:
    """Corners (N, 2) of the region past a line, so large that no view of the stored image reaches its other sides."""
    along_N = np.linspace(-2, 2, 25)
    ragged_N = rng.uniform(-ROUGH, ROUGH, len(along_N)) + rng.uniform(-TILT, TILT) * along_N
    front_N2 = np.stack([line + side * ragged_N * rough, center_2[1 - axis] + side * along_N], 1)
    back_22 = np.stack([np.full(2, line + 4 * side), front_N2[[-1, 0], 1]], 1)
    corners_N2 = np.concatenate([front_N2, back_22]) * [sign, 1]
    return corners_N2 if axis == 0 else corners_N2[:, ::-1]


def hide(image_SS3: np.ndarray, past: Past, affine_23: np.ndarray) -> None:
    """Paint what is past the line into a view, in place; `affine_23` maps frame pixels to its pixels."""
    corners_N2 = np.rint(crop.apply(affine_23, past.corners_N2)).astype(np.int32)
    if past.rng is None:
        cv2.fillPoly(image_SS3, [corners_N2], (0, 0, 0))
        return
    mask_SS = np.zeros(image_SS3.shape[:2], np.uint8)
    cv2.fillPoly(mask_SS, [corners_N2], 255)
    cv2.copyTo(texture(past.rng, len(image_SS3), len(image_SS3)), mask_SS, image_SS3)
