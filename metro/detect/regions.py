"""Turned squares of a picture, which the networks look at, and the way back from what they say to the picture.

Pixel coordinates are OpenCV's (integers are pixel centres).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from metro.data.crop import apply, compose, crop_affine, enlarging, invert, warp


@dataclass(frozen=True)
class Region:
    """A square of a picture."""

    x: float
    """Centre."""
    y: float
    side: float
    turn: float = 0.0
    """Degrees by which the picture is turned anticlockwise, so that what the square holds stands upright."""

    def to_crop(self, size: int) -> np.ndarray:
        """The affine (2, 3) from the picture to a crop of `size` pixels."""
        return crop_affine(np.array([[self.x, self.y]]), np.array([self.side]), size, self.turn)[0]

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) within the square, from 0 to 1 between its edges, as pixels of the picture."""
        size = 256
        return apply(invert(self.to_crop(size)), points * size - 0.5)


def upright(base: np.ndarray, top: np.ndarray) -> float:
    """Turn in degrees that puts `top` (2,) straight above `base` (2,), pixels; 0 if they are one point."""
    right, down = top - base
    return math.degrees(math.atan2(right, 0.0 - down))


def look(image: np.ndarray, region: Region, size: int) -> np.ndarray:
    """Crop (size, size, 3) of what a square of an image (H, W, 3) uint8 RGB shows, black outside the picture.

    Where the picture has more pixels than the crop, whole blocks of them are averaged first.
    """
    affine_23 = region.to_crop(size)
    block = max(1, int(region.side / size))
    if block > 1:
        reach = region.side / math.sqrt(2) + block  # of the corners, however the square is turned
        limits = np.array(image.shape[1::-1])
        centre = np.array([region.x, region.y])
        low = np.clip(np.floor(centre - reach).astype(int), 0, limits - 1)
        high = np.clip(np.ceil(centre + reach).astype(int), low + 1, limits)
        part = image[low[1] : high[1], low[0] : high[0]]
        columns, rows = (-(-extent // block) for extent in (high - low))
        part = cv2.copyMakeBorder(
            part, 0, rows * block - part.shape[0], 0, columns * block - part.shape[1], cv2.BORDER_REPLICATE
        )
        image = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
        affine_23 = compose(affine_23, compose(np.array([[1, 0, low[0]], [0, 1, low[1]]]), enlarging(block)))
    crop = np.empty((size, size, 3), np.uint8)
    warp(image, affine_23, crop)
    return crop


def squares(width: int, height: int, side: float) -> list[Region]:
    """Squares of this side that overlap by half or more and cover a picture.

    Pixel centres are whole, so the picture begins at -0.5.
    """
    columns, rows = (_middles(extent, side) for extent in (width, height))
    return [Region(x, y, side) for y in rows for x in columns]


def _middles(extent: int, side: float) -> list[float]:
    """Middles of the fewest intervals of a length that cover an extent and overlap by half or more."""
    count = 1 + max(0, math.ceil((extent - side) / (side / 2) - 1e-9))
    if count == 1:
        return [(extent - 1) / 2]
    return [float(x) - 0.5 for x in np.linspace(side / 2, extent - side / 2, count)]


def sees(image: np.ndarray, region: Region) -> bool:
    """Whether a square is of use: not a point, nor beside the picture, nor many times as large."""
    height, width = image.shape[:2]
    half = region.side / 2
    inside = -half < region.x < width + half and -half < region.y < height + half
    return inside and 8 <= region.side <= 4 * max(width, height)
