"""METRO's crop and its 2D targets, one pixel and one joint at a time, as the specification of the official code says.

Square of side 200 · scale around `center`, corners truncated to whole pixels; zero outside the frame; the picture is
enlarged by a pad before it is turned, and the pad is cut off again; bilinear resize without antialiasing, in float64.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

Point = tuple[float, float]


def to_crop(x: float, y: float, center: Point, scale: float, size: int, degrees: float) -> tuple[float, float]:
    """Frame pixel → distance from the crop's edges, turned by -degrees about the crop's middle."""
    side = 200 * scale
    u, v = size * ((x - center[0]) / side + 0.5), size * ((y - center[1]) / side + 0.5)
    angle = -math.radians(degrees)
    dx, dy = u - size / 2, v - size / 2
    turned = math.cos(angle) * dx - math.sin(angle) * dy, math.sin(angle) * dx + math.cos(angle) * dy
    return turned[0] + size / 2, turned[1] + size / 2


def target_2d(x: float, y: float, center: Point, scale: float, size: int, degrees: float) -> list[float]:
    """Normalised 2D target: truncated to a whole pixel, plus one."""
    return [2 * (int(value) + 1) / size - 1 for value in to_crop(x, y, center, scale, size, degrees)]


def crop(image: np.ndarray, center: Point, scale: float, size: int, degrees: float) -> np.ndarray:
    """(size, size, 3) float64."""
    half = 100 * scale
    left, top = int(center[0] - half), int(center[1] - half)
    right, bottom = int(center[0] + half), int(center[1] + half)
    pad = int(math.hypot(right - left, bottom - top) / 2 - (right - left) / 2) if degrees else 0
    left, top, right, bottom = left - pad, top - pad, right + pad, bottom + pad
    cut = np.zeros((bottom - top, right - left, 3))
    for row in range(top, bottom):
        for column in range(left, right):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                cut[row - top, column - left] = image[row, column]
    if degrees:
        middle = ((cut.shape[1] - 1) / 2, (cut.shape[0] - 1) / 2)
        cut = cv2.warpAffine(cut, cv2.getRotationMatrix2D(middle, degrees, 1), cut.shape[1::-1])
        cut = cut[pad : cut.shape[0] - pad, pad : cut.shape[1] - pad]
    return cv2.resize(cut, (size, size), interpolation=cv2.INTER_LINEAR)
