"""Light of a scene: one directional key light with a shadow map, a fill light from the other side, and ambient light.

The ambient light differs between above and below, and less of it reaches the floor under the person and at the feet of
things. Colours are linear RGB. The functions of one sample are inlined by force: passing tuples of arrays costs more
than what they compute.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.kernels import njit
from metro.synthetic import exact
from metro.synthetic.camera import to_camera
from metro.synthetic.filters import blur
from metro.synthetic.people import Figure
from metro.synthetic.raster import draw
from metro.synthetic.stage import Objects, cross, unit

Floats = NDArray[np.float32]

SHADOW_SIZE = 160
SHADOW_DISTANCE = 40.0
CELL, PAD = 0.04, 0.5
"""Metres of a cell of the floor's darkness, and by which it reaches beyond the body."""
FEET_REACH = 0.72
"""Metres from the foot of a thing at which the floor is as light as anywhere."""


class Light(NamedTuple):
    """Light and shadow of a scene; directions point towards the light, in the world."""

    key: Floats  # (3,)
    key_rgb: Floats  # (3,)
    fill: Floats  # (3,)
    fill_rgb: Floats  # (3,)
    sky_rgb: Floats  # (3,) ambient from above
    ground_rgb: Floats  # (3,) ambient from below
    shadow: Floats  # (S, S) depth seen from the key light, 0 where nothing is
    shadow_rt: Floats  # (3, 4) world to light camera
    shadow_f: float  # focal length of the light camera, shadow pixels
    soft: float  # radius of the shadow's edge, shadow pixels
    dark: Floats  # (D, D) ambient light that the body takes from the floor, in [0, 1]
    dark_x: float  # world x, z of the corner of `dark`
    dark_z: float
    feet: Floats  # (B, 6) things on the floor: x, z, half sizes, cosine and sine of the turn


def light_scene(g: np.random.Generator, indoors: bool, feet: Floats, objects: Objects, person: Figure) -> Light:
    """Key, fill and ambient light, with the shadows that the objects cast."""
    azimuth = g.uniform(0, 2 * np.pi)
    height = g.uniform(0.35, 2.2)
    key = unit(np.array([exact.cos(azimuth), height, exact.sin(azimuth)]))
    hard = g.uniform(0.15, 0.8) if indoors else 1.15 * float(exact.power(g.random(), 0.6))
    warmth = g.uniform(-0.25, 0.35)
    sun = np.array([1 + warmth * 0.35, 1.0, 1 - warmth]) * 1.15 * hard
    sky = np.array([0.46, 0.5, 0.56]) * (1.1 - 0.6 * hard) * (1 - 0.3 * np.array([-1, 0, 1]) * warmth * g.random())
    bounce = sky * g.uniform(0.4, 0.9) * np.array([1.05, 1.0, 0.88])
    fill = unit(np.array([-key[0] + 0.3 * g.normal(), 0.25, -key[2] + 0.3 * g.normal()]))
    shadow, shadow_rt, focal = _shadow(key, objects, person)
    dark, corner = _darkness(person)
    f32 = np.float32
    return Light(
        key.astype(f32),
        sun.astype(f32),
        fill.astype(f32),
        (np.array([0.14, 0.15, 0.17]) * g.uniform(0.2, 1.2)).astype(f32),
        sky.astype(f32),
        bounce.astype(f32),
        shadow,
        shadow_rt.astype(f32),
        focal,
        float(g.uniform(0.8, 3.0)),
        dark,
        *corner,
        feet,
    )


def _shadow(key: NDArray[np.float64], objects: Objects, person: Figure) -> tuple[Floats, NDArray[np.float64], float]:
    """Depth of objects around the person as the key light sees them, and the light's camera."""
    size = person.high - person.low
    radius = 0.55 * float(np.sqrt((size * size).sum()))
    side = unit(cross(np.array([0.0, 1.0, 0.0]), key))
    axes = np.stack([side, cross(-key, side), -key])  # x, y, z of the light's camera
    at = (person.low + person.high) / 2 + SHADOW_DISTANCE * key
    focal = (SHADOW_SIZE / 2 - 3) * SHADOW_DISTANCE / radius
    shadow = np.zeros((SHADOW_SIZE, SHADOW_SIZE), np.float32)
    face, bary = np.full(shadow.shape, -1, np.int32), np.zeros((*shadow.shape, 3), np.float32)
    seen = to_camera(objects.verts, np.ascontiguousarray(axes.T), at)
    middle = SHADOW_SIZE / 2
    draw(seen, objects.faces, focal, focal, middle, middle, 0, True, face, shadow, bary)
    return shadow, np.concatenate([axes, -(axes * at).sum(1)[:, None]], 1), focal


def _darkness(person: Figure) -> tuple[Floats, tuple[float, float]]:
    """Ambient light that the body takes from the floor, where its low parts spread, and the grid's corner."""
    low, high = person.low - PAD, person.high + PAD
    cells = int(np.ceil(max(high[0] - low[0], high[2] - low[2]) / CELL))
    weight = exact.exp(-person.verts[:, 1] / 0.12)
    u, v = ((person.verts[:, 0] - low[0]) / CELL).astype(int), ((person.verts[:, 2] - low[2]) / CELL).astype(int)
    near = np.bincount(v * cells + u, weight, minlength=cells * cells).reshape(cells, cells, 1)
    dark = 0.75 * (1 - exact.exp(-blur(near.astype(np.float32), 2.2)[..., 0] / 1.1))
    return dark.astype(np.float32), (float(low[0]), float(low[2]))


@njit(forceinline=True)
def key_visible(x: float, y: float, z: float, light: Light) -> float:
    """Share of the key light that reaches a place, from a 3 x 3 look into the shadow map."""
    size = light.shadow.shape[0]
    rt = light.shadow_rt
    lx = rt[0, 0] * x + rt[0, 1] * y + rt[0, 2] * z + rt[0, 3]
    ly = rt[1, 0] * x + rt[1, 1] * y + rt[1, 2] * z + rt[1, 3]
    lz = rt[2, 0] * x + rt[2, 1] * y + rt[2, 2] * z + rt[2, 3]
    scale = light.shadow_f / lz
    u, v = scale * lx + size / 2, scale * ly + size / 2
    if u < 2 or v < 2 or u > size - 3 or v > size - 3:
        return 1.0
    seen = 0.0
    for a in range(-1, 2):
        for b in range(-1, 2):
            d = light.shadow[int(v + a * light.soft), int(u + b * light.soft)]
            if d == 0 or d > lz - 0.025:
                seen += 1.0
    return seen / 9


@njit(forceinline=True)
def floor_light(x: float, z: float, light: Light) -> float:
    """Share of the ambient light that reaches the floor beside the body and at the feet of things."""
    size = light.dark.shape[0]
    u, v = (x - light.dark_x) / CELL, (z - light.dark_z) / CELL
    open_ = 1.0
    if u >= 0 and v >= 0 and u < size - 1 and v < size - 1:
        i, j = int(v), int(u)
        a, b = v - i, u - j
        d = light.dark
        low = d[i, j] * (1 - b) + d[i, j + 1] * b
        high = d[i + 1, j] * (1 - b) + d[i + 1, j + 1] * b
        open_ = 1 - (low * (1 - a) + high * a)
    for n in range(light.feet.shape[0]):
        px, pz = x - light.feet[n, 0], z - light.feet[n, 1]
        cos, sin = light.feet[n, 4], light.feet[n, 5]
        qx = max(abs(cos * px - sin * pz) - light.feet[n, 2], 0.0)
        qz = max(abs(sin * px + cos * pz) - light.feet[n, 3], 0.0)
        if qx < FEET_REACH and qz < FEET_REACH:
            near = max(1 - np.sqrt(qx * qx + qz * qz) / FEET_REACH, 0.0)
            open_ *= 1 - 0.55 * near * near * near * near
    return open_


@njit(forceinline=True)
def irradiance(
    x: float, y: float, z: float, nx: float, ny: float, nz: float, open_: float, light: Light, out: Floats
) -> float:
    """Light that falls on a place with a normal, to `out` (3,); `open_` scales the ambient. Returns the key's share."""
    key = nx * light.key[0] + ny * light.key[1] + nz * light.key[2]
    seen = 0.0
    if key > 0:
        seen = key_visible(x, y, z, light)
    fill = max(nx * light.fill[0] + ny * light.fill[1] + nz * light.fill[2], 0.0)
    up = 0.5 + 0.5 * ny
    for c in range(3):
        ambient = light.ground_rgb[c] + (light.sky_rgb[c] - light.ground_rgb[c]) * up
        out[c] = open_ * ambient + light.fill_rgb[c] * fill + light.key_rgb[c] * max(key, 0.0) * seen
    return seen
