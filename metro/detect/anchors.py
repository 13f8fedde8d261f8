"""From what a single-shot detector says about its anchors to boxes: decoding, and merging what means the same.

Coordinates within the input run from 0 to 1 between its edges. Boxes are x0, y0, x1, y1 here.

Shape suffixes: A anchor, D detection, N numbers of an anchor (box and points), K point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MERGED = 0.3
"""Intersection over union from which on boxes mean the same, in both detectors as published."""


def centres(side: int, strides: Sequence[int], per_cell: Sequence[int]) -> np.ndarray:
    """Centres (A, 2) of the anchors: of each map the cells in rows, each as often as it has anchors.

    All anchors are as large as the input: their published sizes are fixed at 1.
    """
    found = []
    for stride, anchors in zip(strides, per_cell, strict=True):
        count = side // stride
        place = (np.arange(count) + 0.5) / count
        rows, columns = np.meshgrid(place, place, indexing="ij")
        found.append(np.repeat(np.stack((columns, rows), -1).reshape(-1, 2), anchors, axis=0))
    return np.concatenate(found)


def decode(
    logits_A: np.ndarray, numbers_AN: np.ndarray, centres_A2: np.ndarray, side: int, least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (D,), boxes (D, 4) and points (D, K, 2) of the anchors that score `least` or more.

    Numbers are in pixels of the input: the offset of the box's centre from the anchor's, its width and height, and the
    offsets of the points.
    """
    scores_A = 1 / (1 + np.exp(-np.clip(logits_A, -80, 80).astype(np.float64)))
    kept = scores_A >= least
    numbers_DN = numbers_AN[kept].astype(np.float64) / side
    centre_D2 = centres_A2[kept] + numbers_DN[:, :2]
    half_D2 = numbers_DN[:, 2:4] / 2
    points_DK2 = numbers_DN[:, 4:].reshape(len(numbers_DN), -1, 2) + centres_A2[kept][:, None]
    return scores_A[kept], np.concatenate((centre_D2 - half_D2, centre_D2 + half_D2), 1), points_DK2


def merge(
    scores_D: np.ndarray, boxes_D4: np.ndarray, points_DK2: np.ndarray, most: float = MERGED
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted non-maximum suppression: the best box and all that overlap it by more than `most` become their mean.

    Means are weighted by the scores; the score of the best one stays. Best ones first. Bazarevsky et al., "BlazeFace",
    2019, section 3.4.
    """
    overlap_DD = overlap(boxes_D4, boxes_D4)
    left_D = np.ones(len(scores_D), bool)
    merged = []
    for best in np.argsort(-scores_D, kind="stable"):
        if left_D[best]:
            group_D = left_D & (overlap_DD[best] > most)
            group_D[best] = True
            left_D &= ~group_D
            weights = scores_D[group_D] / scores_D[group_D].sum()
            merged.append((scores_D[best], weights @ boxes_D4[group_D], np.tensordot(weights, points_DK2[group_D], 1)))
    if not merged:
        return scores_D, boxes_D4, points_DK2
    scores, boxes, points = zip(*merged, strict=True)
    return np.array(scores), np.array(boxes), np.array(points)


def overlap(a_D4: np.ndarray, b_E4: np.ndarray) -> np.ndarray:
    """Intersection over union (D, E) of boxes."""
    corner = np.maximum(a_D4[:, None, :2], b_E4[None, :, :2])
    shared = np.prod(np.clip(np.minimum(a_D4[:, None, 2:], b_E4[None, :, 2:]) - corner, 0, None), -1)
    area_D, area_E = (np.prod(boxes[:, 2:] - boxes[:, :2], -1) for boxes in (a_D4, b_E4))
    return shared / np.maximum(area_D[:, None] + area_E - shared, 1e-12)
