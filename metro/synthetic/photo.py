"""The photographic part: backgrounds that are photographs, and the way from linear light to 8 bits."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from metro.kernels import njit
from metro.synthetic import exact
from metro.synthetic.filters import blur, resize, smear
from metro.synthetic.people import Studio

Array = NDArray[np.float32]
Picture = NDArray[Any]
"""8 bits, (H, W, 3) RGB; OpenCV's stubs do not tell."""


def photo_background(g: np.random.Generator, studio: Studio, size: int) -> Array:
    """A random cut of a photograph, or soft colour noise, linear light (size, size, 3)."""
    if g.random() < 0.25:
        image = np.zeros((size, size, 3), np.float32)
        for octave in (2, 4, 8, 16, 48):
            layer = resize(g.random((octave, octave, 3), np.float32), size, size)
            image += layer / np.float32(1 + np.sqrt(octave))
        image = (image - image.min()) / (np.ptp(image) + np.float32(1e-6))
        grey = ((image[..., 0] + image[..., 1] + image[..., 2]) / 3)[..., None]
        image = np.clip(image + np.float32(g.uniform(0.5, 1.0)) * (grey - image), 0, 1)  # mostly muted
        return image * image
    photo = studio.photographs[g.integers(len(studio.photographs))]
    side = int(min(photo.shape[:2]) * g.uniform(0.35, 1.0))
    y, x = g.integers(photo.shape[0] - side + 1), g.integers(photo.shape[1] - side + 1)
    cut = resize(photo[y : y + side, x : x + side], size, size)
    if g.random() < 0.5:
        cut = cut[:, ::-1]
    gains = g.uniform(0.75, 1.25, 3) * g.uniform(0.6, 1.3)
    return cut * gains.astype(np.float32)


def develop(g: np.random.Generator, image: Array) -> Picture:
    """Turn linear light into a photograph: blur, exposure, white balance, curve, noise and JPEG traces."""
    if g.random() < 0.55:
        image = blur(image, float(g.uniform(0.3, 1.0)))
    if g.random() < 0.08:
        length, angle = int(g.integers(3, 8)), g.uniform(0, np.pi)
        t = (length - 1) * np.linspace(-0.5, 0.5, 2 * length)
        image = smear(image, np.rint(np.stack([t * exact.sin(angle), t * exact.cos(angle)], 1)).astype(np.int64))
    exposure = 0.2 * float(exact.exp(0.3 * g.standard_normal())) / max(metered(image), 0.02)
    gains = min(max(exposure, 0.35), 3.5) * (1 + 0.07 * np.clip(g.standard_normal(3), -2, 2))
    gamma, contrast, grain = g.uniform(2.0, 2.4), g.uniform(0.9, 1.12), min(g.exponential(3.0), 14.0)
    out: Picture = expose(image, gains.astype(np.float32), gamma, contrast, grain, int(g.integers(1 << 62)))
    if g.random() < 0.25:
        quality = int(g.integers(35, 90))
        coded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        out = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return out


@njit
def metered(image: Array) -> float:
    """Mean light of a picture (H, W, 3), in which its middle, half as wide, counts for more."""
    height, width = image.shape[:2]
    top, left = height // 4, width // 4
    whole, middle = 0.0, 0.0
    for row in range(height):
        inside = row >= top and row < height - top
        for col in range(width):
            light = np.float64(image[row, col, 0]) + image[row, col, 1] + image[row, col, 2]
            whole += light
            if inside and col >= left and col < width - left:
                middle += light
    area = 3 * (height - 2 * top) * (width - 2 * left)
    return 0.4 * whole / (3 * height * width) + 0.6 * middle / area


@njit
def expose(image: Array, gains: Array, gamma: float, contrast: float, noise: float, seed: int) -> NDArray[np.uint8]:
    """Linear light (H, W, 3) to 8 bits: white balance, highlights that roll off, gamma, contrast, sensor noise."""
    steps = 4096
    curve = np.empty(steps + 1, np.float32)
    for i in range(steps + 1):
        x = 4.0 * (i / steps) ** 2  # finer steps in the shadows
        if x > 0.75:
            x = 0.75 + 0.25 * (1 - exact.exp(-(x - 0.75) / 0.25))
        curve[i] = 255 * ((exact.power(x, 1 / gamma) - 0.45) * contrast + 0.45)
    # A bell shape of mean 0 and deviation 1: two bytes added.
    bell = (noise * (np.arange(511) - 255.0) / 104.5).astype(np.float32)
    half, scale = np.float32(0.5), np.float32(steps / 2)
    out = np.empty(image.shape, np.uint8)
    state = np.uint64(seed) * np.uint64(2) + np.uint64(1)
    for row in range(image.shape[0]):
        for col in range(image.shape[1]):
            # xorshift64*: 16 bits each for the grain of the three channels and the part that they share
            state ^= state >> np.uint64(12)
            state ^= state << np.uint64(25)
            state ^= state >> np.uint64(27)
            word = state * np.uint64(2685821657736338717)
            common = bell[_bytes_added(word)]
            for c in range(3):
                x = min(scale * np.sqrt(max(image[row, col, c] * gains[c], np.float32(0))), np.float32(steps))
                i = min(int(x), steps - 1)
                y = curve[i] + (curve[i + 1] - curve[i]) * (x - np.float32(i))
                own = bell[_bytes_added(word >> np.uint64(16 * (c + 1)))]
                y += half * common + np.float32(0.6) * own + half
                out[row, col, c] = np.int32(min(max(y, np.float32(0)), np.float32(255)))
    return out


@njit(inline="always")
def _bytes_added(word: np.uint64) -> int:
    """Sum of the two lowest bytes of a word."""
    return int(word & np.uint64(255)) + int((word >> np.uint64(8)) & np.uint64(255))
