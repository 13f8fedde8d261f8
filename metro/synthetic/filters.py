"""Blur, motion and resampling of pictures in linear light, float32 (H, W, C), rounded alike on every processor.

OpenCV chooses its kernels by the processor, and their last bits differ. These sum in a fixed order; the inner loops run
along memory, so that the compiler can do many pixels at once without changing any. Beyond the edge lies the edge's
colour.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metro.kernels import njit
from metro.synthetic import exact

Array = NDArray[np.float32]


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur of (H, W, C), cut off at three standard deviations (pixels)."""
    radius = int(np.ceil(3 * sigma))
    taps = exact.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    height, width, channels = image.shape
    flat = np.ascontiguousarray(image, np.float32).reshape(height, width * channels)
    out: Array = _blur(flat, (taps / taps.sum()).astype(np.float32), channels)
    return out.reshape(image.shape)


@njit
def _blur(image: Array, taps: Array, channels: int) -> Array:
    """Convolve columns, then rows, of (H, W · C)."""
    height, width = image.shape
    radius = taps.shape[0] // 2
    out = np.empty_like(image)
    line = np.empty(width + 2 * radius * channels, np.float32)
    middle = line[radius * channels : radius * channels + width]
    for row in range(height):
        middle[:] = 0
        for t in range(taps.shape[0]):
            source = image[min(max(row + t - radius, 0), height - 1)]
            for x in range(width):
                middle[x] += taps[t] * source[x]
        for x in range(radius * channels):
            line[x] = middle[x % channels]
            line[radius * channels + width + x] = middle[width - channels + x % channels]
        out[row] = 0
        for t in range(taps.shape[0]):
            source = line[t * channels : t * channels + width]
            for x in range(width):
                out[row, x] += taps[t] * source[x]
    return out


@njit
def smear(image: Array, path: NDArray[np.int64]) -> Array:
    """Motion blur of (H, W, C): the mean of the picture moved along a path of offsets (N, 2), rows and columns."""
    height, width, channels = image.shape
    out = np.zeros_like(image)
    share = np.float32(1 / path.shape[0])
    for n in range(path.shape[0]):
        for row in range(height):
            source = image[min(max(row + path[n, 0], 0), height - 1)]
            for col in range(width):
                from_col = min(max(col + path[n, 1], 0), width - 1)
                for c in range(channels):
                    out[row, col, c] += share * source[from_col, c]
    return out


def resize(image: Array, height: int, width: int) -> Array:
    """Resample (H, W, C): linear between pixels when enlarging, a mean over tents as wide as needed when shrinking."""
    rows = _resample(np.ascontiguousarray(image, np.float32), *_tents(image.shape[0], height))
    columns = _resample(np.ascontiguousarray(rows.swapaxes(0, 1)), *_tents(image.shape[1], width))
    return np.ascontiguousarray(columns.swapaxes(0, 1))


def _tents(count: int, wanted: int) -> tuple[NDArray[np.int64], Array]:
    """For each of the wanted samples, the first of the given ones that it takes from, and the weights from there on."""
    scale = count / wanted
    reach = max(scale, 1.0)
    centre = (np.arange(wanted) + 0.5) * scale - 0.5
    first = np.ceil(centre - reach).astype(np.int64)
    offset = first[:, None] + np.arange(int(2 * reach) + 1) - centre[:, None]
    weights = np.maximum(1 - np.abs(offset) / reach, 0)
    return first, (weights / weights.sum(1, keepdims=True)).astype(np.float32)


@njit
def _resample(image: Array, first: NDArray[np.int64], weights: Array) -> Array:
    """Weighted sums of rows (H, W, C)."""
    height, width, channels = image.shape
    flat = image.reshape(height, width * channels)
    out = np.zeros((first.shape[0], width * channels), np.float32)
    for row in range(first.shape[0]):
        for t in range(weights.shape[1]):
            if weights[row, t] != 0:
                source = flat[min(max(first[row] + t, 0), height - 1)]
                for x in range(source.shape[0]):
                    out[row, x] += weights[row, t] * source[x]
    return out.reshape(first.shape[0], width, channels)
