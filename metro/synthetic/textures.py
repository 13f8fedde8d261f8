"""Raw material of the shader: a periodic noise volume, and photographs of surfaces and things."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from metro.errors import MetroError
from metro.kernels import njit
from metro.synthetic import exact
from metro.synthetic.filters import resize

Array = NDArray[np.float32]

NOISE_CELLS = 32
"""Side of the noise volume; it repeats beyond."""
TILE = 256
"""Side of a texture tile."""

FOLDER = Path(__file__).parent / "data" / "photographs"

SURFACES = ("brick", "grass", "gravel")
"""Grey photographs of surfaces, the first tiles of the atlas; every split uses them, tinted."""
PHOTOGRAPHS = {
    "train": ("coffee", "hubble", "chelsea"),
    "validation": ("rocket", "retina", "clock"),
    "test": ("rocket", "retina", "clock"),
}
"""Photographs of things, by split: backgrounds and pictures seen in training are not seen in tests."""


class Noise(NamedTuple):
    """Smooth periodic noise: value in [0, 1] with mean 1/2, and its gradient per cell."""

    value: Array  # (32, 32, 32)
    gradient: Array  # (32, 32, 32, 3)


@cache
def noise_volume() -> Noise:
    """The noise that all pictures share; each look and scene reads it at its own offset."""
    g = np.random.Generator(np.random.Philox(key=20210624))
    k = np.arange(NOISE_CELLS)
    frequency = np.minimum(k, NOISE_CELLS - k)
    radius = np.sqrt(frequency[:, None, None] ** 2 + frequency[None, :, None] ** 2 + frequency[None, None, :] ** 2)
    spectrum = np.where((radius > 1.5) & (radius < 14), exact.power(np.maximum(radius, 1), -1.6), 0.0)
    # Hartley's transform along each axis filters like Fourier's, in real numbers, where all axes are symmetric.
    angle = 2 * np.pi / NOISE_CELLS * (np.outer(k, k) % NOISE_CELLS)
    hartley = exact.cos(angle) + exact.sin(angle)
    value = g.standard_normal((NOISE_CELLS,) * 3)
    for weight in (spectrum, 1 / NOISE_CELLS**3):
        for _ in range(3):
            value = exact.matmul(value, hartley).transpose(2, 0, 1)
        value = value * weight
    value = np.ascontiguousarray(np.clip(0.5 + 0.2 * value / value.std(), 0, 1))
    gradient = [(np.roll(value, -1, a) - np.roll(value, 1, a)) / 2 for a in range(3)]
    return Noise(value.astype(np.float32), np.stack(gradient, -1).astype(np.float32))


@njit(inline="always")
def noise_at(noise: Noise, x: float, y: float, z: float) -> float:
    """The noise at a place, in cells."""
    volume = noise.value
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    tx, ty, tz = x - fx, y - fy, z - fz
    mask = NOISE_CELLS - 1
    i0, j0, k0 = int(fx) & mask, int(fy) & mask, int(fz) & mask
    i1, j1, k1 = (i0 + 1) & mask, (j0 + 1) & mask, (k0 + 1) & mask
    a = volume[i0, j0, k0] * (1 - tz) + volume[i0, j0, k1] * tz
    b = volume[i0, j1, k0] * (1 - tz) + volume[i0, j1, k1] * tz
    c = volume[i1, j0, k0] * (1 - tz) + volume[i1, j0, k1] * tz
    d = volume[i1, j1, k0] * (1 - tz) + volume[i1, j1, k1] * tz
    return (a * (1 - ty) + b * ty) * (1 - tx) + (c * (1 - ty) + d * ty) * tx


@njit(inline="always")
def slope_at(noise: Noise, x: float, y: float, z: float) -> tuple[float, float, float]:
    """The gradient of the noise at the nearest cell of a place, blended along x and y only."""
    fx, fy = np.floor(x), np.floor(y)
    tx, ty = x - fx, y - fy
    mask = NOISE_CELLS - 1
    i0, j0, k = int(fx) & mask, int(fy) & mask, int(np.floor(z + 0.5)) & mask
    i1, j1 = (i0 + 1) & mask, (j0 + 1) & mask
    a, b, c, d = (1 - tx) * (1 - ty), (1 - tx) * ty, tx * (1 - ty), tx * ty
    v = noise.gradient
    gx = a * v[i0, j0, k, 0] + b * v[i0, j1, k, 0] + c * v[i1, j0, k, 0] + d * v[i1, j1, k, 0]
    gy = a * v[i0, j0, k, 1] + b * v[i0, j1, k, 1] + c * v[i1, j0, k, 1] + d * v[i1, j1, k, 1]
    gz = a * v[i0, j0, k, 2] + b * v[i0, j1, k, 2] + c * v[i1, j0, k, 2] + d * v[i1, j1, k, 2]
    return gx, gy, gz


def photograph(name: str) -> Array:
    """One of the vendored pictures, (H, W, 3) RGB, linear light."""
    path = FOLDER / f"{name}.png"
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise MetroError(f"{path}: the picture that the renderer needs is missing or damaged; reinstall metro")
    return _linear()[image[..., ::-1]]


@cache
def _linear() -> Array:
    """Light of each of the 256 grey values."""
    return exact.power(np.arange(256) / 255, 2.2).astype(np.float32)


@cache
def photographs(split: str) -> tuple[Array, ...]:
    """The photographs of a split, linear light."""
    return tuple(photograph(name) for name in PHOTOGRAPHS[split])


@cache
def atlas(split: str) -> Array:
    """Tiles with their mip levels (N, 384, 256, 3), linear light.

    The first tiles are `SURFACES` divided by their mean; the others are square cuts of the split's photographs. Level 0
    fills the first 256 rows; level k of side 256 / 2^k starts at row 256 and column 256 - 2 · side.
    """
    surfaces = [photograph(name) for name in SURFACES]
    tiles = [tile / tile.mean(dtype=np.float64).astype(np.float32) for tile in surfaces]
    for image in photographs(split):
        side = min(image.shape[:2])
        for offset in (0, image.shape[1] - side):
            tiles.append(resize(image[:side, offset : offset + side], TILE, TILE))
    out = np.zeros((len(tiles), TILE + TILE // 2, TILE, 3), np.float32)
    for n, tile in enumerate(tiles):
        out[n, :TILE] = tile
        side = TILE // 2
        while side >= 8:
            tile = (tile[::2, ::2] + tile[1::2, ::2] + tile[::2, 1::2] + tile[1::2, 1::2]) / 4
            out[n, TILE : TILE + side, TILE - 2 * side : TILE - side] = tile
            side //= 2
    return out


@njit
def tile_at(tiles: Array, n: int, u: float, v: float, footprint: float) -> tuple[float, float, float]:
    """Colour of tile n at (u, v), which repeats with period 1; `footprint` is the width of a pixel in that unit."""
    level = 0
    side = TILE
    while side > 8 and footprint * side > 1.4:
        side //= 2
        level += 1
    row0, col0 = (0, 0) if level == 0 else (TILE, TILE - 2 * side)
    x, y = (u - np.floor(u)) * side - 0.5, (v - np.floor(v)) * side - 0.5
    fx, fy = np.floor(x), np.floor(y)
    tx, ty = x - fx, y - fy
    mask = side - 1
    i0, j0 = int(fy) & mask, int(fx) & mask
    i1, j1 = (i0 + 1) & mask, (j0 + 1) & mask
    w00, w01, w10, w11 = (1 - tx) * (1 - ty), tx * (1 - ty), (1 - tx) * ty, tx * ty
    i0, i1, j0, j1 = i0 + row0, i1 + row0, j0 + col0, j1 + col0
    r = w00 * tiles[n, i0, j0, 0] + w01 * tiles[n, i0, j1, 0] + w10 * tiles[n, i1, j0, 0] + w11 * tiles[n, i1, j1, 0]
    g = w00 * tiles[n, i0, j0, 1] + w01 * tiles[n, i0, j1, 1] + w10 * tiles[n, i1, j0, 1] + w11 * tiles[n, i1, j1, 1]
    b = w00 * tiles[n, i0, j0, 2] + w01 * tiles[n, i0, j1, 2] + w10 * tiles[n, i1, j0, 2] + w11 * tiles[n, i1, j1, 2]
    return r, g, b
