"""Surfaces of rooms and things: plain or patterned, evaluated per sample at a place on the surface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metro.kernels import njit
from metro.synthetic.streams import log_uniform
from metro.synthetic.textures import SURFACES, Noise, noise_at, tile_at

Array = NDArray[np.float32]
Material = Any
"""One record of `MATERIAL`; NumPy's types do not tell the fields."""

FLAT, TILES, PLANKS, STRIPES, CLOUDS, SURFACE, PICTURE = range(7)
THING, FLOOR, WALL, OPEN = range(4)

MATERIAL = np.dtype([
    ("kind", "i4"),
    ("colour", "f4", 3), ("other", "f4", 3),  # linear RGB; the second is the pattern's
    ("scale", "f4"),  # repeats per metre
    ("tile", "i4"),  # of the atlas
    ("rough", "f4"),  # strength of the blotches on any kind
    ("turned", "?"),  # the pattern runs the other way
    ("place", "i4"),  # THING, FLOOR, WALL or OPEN: what takes ambient light from it
])  # fmt: skip


def plain(colour: ArrayLike = 0.0, place: int = THING) -> Material:
    """A material of one colour."""
    m = np.zeros((), MATERIAL)
    m["colour"], m["place"], m["scale"] = colour, place, 1
    return m


def random_material(g: np.random.Generator, tiles: int, kinds: Sequence[int], scale: tuple[float, float]) -> Material:
    """A random surface of one of the kinds, with `scale` repeats per metre, from an atlas of so many tiles."""
    kind = int(g.choice(kinds))
    base = g.uniform(0.03, 0.75) * (1 - g.uniform(0, 0.85) * g.random(3))
    other = np.clip(base * g.uniform(0.45, 1.7) * g.uniform(0.85, 1.15, 3), 0.01, 0.9)
    m = plain(base)
    m["kind"], m["other"] = kind, other
    m["scale"] = log_uniform(g, *scale)
    m["tile"] = g.integers(len(SURFACES))
    m["rough"] = g.uniform(0, 0.7)
    m["turned"] = g.random() < 0.5
    if kind == PICTURE:
        m["tile"] = g.integers(len(SURFACES), tiles)
    if kind == PLANKS:
        wood = np.array([0.32, 0.18, 0.085]) * g.uniform(0.3, 1.9)
        m["colour"], m["other"] = wood, wood * g.uniform(0.45, 0.8)
        m["scale"] = g.uniform(5, 12)
    return m


@njit(forceinline=True)
def surface_colour(
    m: Material, u: float, v: float, w: float, footprint: float, noise: Noise, tiles: Array, seed: float, out: Array
) -> None:
    """Colour of a material at (u, v) metres on its surface, to `out` (3,); w tells apart faces of one box.

    `footprint` is the width of a sample on the surface, metres.
    """
    if m.turned:
        u, v = v, u
    scale = m.scale
    blur = footprint * scale
    mix, shade = 0.0, 1.0
    if m.kind == TILES:
        a, b = u * scale, v * scale
        i, j = np.floor(a), np.floor(b)
        mix = 1.0 if int(i + j) & 1 else 0.0
        a, b = a - i, b - j
        width = 0.02 + blur
        if (a < width or b < width) and width < 0.5:
            shade = 0.8
        if blur > 0.5:
            mix = 0.5
    elif m.kind == PLANKS:
        a = u * scale
        i = np.floor(a)
        j = np.floor(v * scale * 0.15 + i * 0.37)
        tone = noise_at(noise, i * 3.7 + seed, j * 5.3, 0.5)
        grain = noise_at(noise, u * 60, v * 4 + i * 7, seed)
        mix = 0.6 * tone + 0.4 * grain
        if a - i < 0.03 + blur and blur < 0.3:
            shade = 0.65
    elif m.kind == STRIPES:
        mix = 1.0 if u * scale - np.floor(u * scale) < 0.5 else 0.0
        if blur > 0.4:
            mix = 0.5
    elif m.kind == CLOUDS:
        a = noise_at(noise, u * scale + seed, v * scale, w * 9.1)
        b = noise_at(noise, u * scale * 3.7, v * scale * 3.7 + seed, w * 5.7)
        mix = min(max(1.6 * (0.65 * a + 0.35 * b) - 0.3, 0.0), 1.0)
    for c in range(3):
        out[c] = m.colour[c] + (m.other[c] - m.colour[c]) * mix
    if m.kind == SURFACE or m.kind == PICTURE:
        r, g, b = tile_at(tiles, m.tile, u * scale, v * scale, blur)
        if m.kind == PICTURE:
            out[0], out[1], out[2] = 0.85, 0.85, 0.85
        out[0], out[1], out[2] = out[0] * r, out[1] * g, out[2] * b
    if m.rough > 0:
        n = noise_at(noise, u * 6 + seed, v * 6, w * 3.3 + seed)
        shade *= 1 + 1.2 * m.rough * (n - 0.5)
        if footprint < 0.008:
            n = noise_at(noise, u * 37, v * 37 + seed, w * 3.3)
            shade *= 1 + 0.7 * m.rough * (n - 0.5)
    for c in range(3):
        out[c] *= shade
