"""From what a single-shot detector says about its anchors to boxes: decoding, and merging what means the same.

Coordinates within the input run from 0 to 1 between its edges.

Shape suffixes: A anchor, D detection, N numbers of an anchor (box and points), K point.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MERGED = 0.3
"""Intersection over union from which on boxes mean the same, in both detectors as published."""


class Layout(NamedTuple):
    """What a detector looks at, and where its anchors are."""

    side: int
    """Pixels along a side of the input."""
    points: int
    """Of each anchor, besides its box."""
    strides: tuple[int, ...]
    """Of the maps with anchors."""
    per_cell: tuple[int, ...]
    """Anchors of each of their cells."""

    @property
    def numbers(self) -> int:
        """What is said of an anchor, besides its score."""
        return 4 + 2 * self.points


PERSON = Layout(224, 4, (8, 16, 32), (2, 2, 6))
"""People, by boxes about the neck that are always a fifth of the input; their points are the middle of the hips, one on
the circle around the body that tells its size and direction, the middle of the shoulders, and one on the circle around
the upper body."""
PALM = Layout(192, 7, (8, 16), (2, 6))
"""Palms; their points are the wrist, the first joints of index, middle, ring and little finger, two of the thumb."""


def centres(layout: Layout) -> np.ndarray:
    """Centres (A, 2) of the anchors: of each map the cells in rows, each as often as it has anchors.

    All anchors are as large as the input: their published sizes are fixed at 1.
    """
    found = []
    for stride, anchors in zip(layout.strides, layout.per_cell, strict=True):
        count = layout.side // stride
        place = (np.arange(count) + 0.5) / count
        rows, columns = np.meshgrid(place, place, indexing="ij")
        found.append(np.repeat(np.stack((columns, rows), -1).reshape(-1, 2), anchors, axis=0))
    return np.concatenate(found)


def decode(
    logits_A: np.ndarray, numbers_AN: np.ndarray, centres_A2: np.ndarray, side: int, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (D,) and points (D, K, 2) of the anchors that score `least` or more: two corners of the box come first.

    Numbers are in pixels of the input: the offset of the box's centre from the anchor's, its width and height, and the
    offsets of the other points.
    """
    scores_A = sigmoid(logits_A)
    kept = scores_A >= least
    pairs_DK2 = numbers_AN[kept].astype(np.float64).reshape(-1, numbers_AN.shape[1] // 2, 2) / side
    half_D12 = pairs_DK2[:, 1:2] / 2
    middle_D12 = pairs_DK2[:, :1]
    points_DK2 = np.concatenate((middle_D12 - half_D12, middle_D12 + half_D12, pairs_DK2[:, 2:]), 1)
    return scores_A[kept], points_DK2 + centres_A2[kept][:, None]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities; logits of hundreds, which these networks give, do not overflow."""
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80).astype(np.float64)))


def merge(scores_D: np.ndarray, points_DK2: np.ndarray, most: float = MERGED) -> tuple[np.ndarray, np.ndarray]:
    """Weighted non-maximum suppression: the best box and all that overlap it by more than `most` become their mean.

    Means are weighted by the scores; the score of the best one stays. Best ones first. Bazarevsky et al., "BlazeFace",
    2019, section 3.4.
    """
    overlap_DD = overlap(points_DK2[:, :2], points_DK2[:, :2])
    left_D = np.ones(len(scores_D), bool)
    best, means = [], []
    for first in np.argsort(-scores_D, kind="stable"):
        if left_D[first]:
            group_D = left_D & (overlap_DD[first] > most)
            group_D[first] = True  # a box without area overlaps nothing
            left_D &= ~group_D
            best.append(first)
            means.append(np.average(points_DK2[group_D], axis=0, weights=scores_D[group_D]))
    return scores_D[best], np.reshape(means, (len(best), *points_DK2.shape[1:]))


def overlap(a_D22: np.ndarray, b_E22: np.ndarray) -> np.ndarray:
    """Intersection over union (D, E) of boxes, given by their low and high corners."""
    low = np.maximum(a_D22[:, None, 0], b_E22[None, :, 0])
    shared_DE = np.prod(np.clip(np.minimum(a_D22[:, None, 1], b_E22[None, :, 1]) - low, 0, None), -1)
    area_D, area_E = (np.prod(corners[:, 1] - corners[:, 0], -1) for corners in (a_D22, b_E22))
    return shared_DE / np.maximum(area_D[:, None] + area_E - shared_DE, 1e-12)
