"""The shape that clothes add: ease over the skin, skirts, and hair that falls below the nape.

Skirts and hair are each a sheet of rings laid around the rest pose of the person, carried by a few bones, and painted
by `albedo.person_albedo` through the place on the body that it borrows its colour from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.body.joints import JOINT_SETS
from metro.kernels import njit
from metro.mesh.topology import vertex_normals
from metro.synthetic import exact
from metro.synthetic.cloth import ramp
from metro.synthetic.head import hair_margin
from metro.synthetic.looks import BALD, BUN, CAP, MEDIUM, Look, Marks
from metro.synthetic.skinning import Skin

Array = NDArray[np.float64]

_BONE = {name: j for j, name in enumerate(JOINT_SETS["SMPL24"])}


class Sheet(NamedTuple):
    """A two-sided mesh in the world, with the rest places that it is painted from."""

    verts: NDArray[np.float32]
    normals: NDArray[np.float32]
    rest: NDArray[np.float32]
    faces: NDArray[np.int32]


@njit
def ease(rest: NDArray[np.float32], marks: Marks, look: Look) -> NDArray[np.float32]:
    """How far cloth and hair stand off the skin, (V,) metres, for rest places (V, 3)."""
    out = np.zeros(rest.shape[0], np.float32)
    for i in range(rest.shape[0]):
        x, y, z = rest[i, 0], rest[i, 1], rest[i, 2]
        ax = abs(x)
        if y > marks.chin_y - 0.06 and ax < marks.shoulder_x * 0.6:  # the head
            if look.hair_style != BALD:
                margin = hair_margin(x, y, z, marks, look)
                out[i] = look.hair_ease * ramp(-0.004, 0.03, margin)
                if look.hair_style == MEDIUM:
                    out[i] *= 1.4
            if look.hair_style == BUN:
                dy, dz = y - (marks.eye_y + 0.05), z - (marks.ear_z - 0.075)
                out[i] += 0.05 * exact.exp(-(x * x + dy * dy + dz * dz) / 0.0012)
            if look.cap == CAP and y > marks.eye_y + 0.03:  # its peak
                front = ramp(marks.eye_z - 0.03, marks.eye_z, z)
                out[i] += 0.05 * front * exact.exp(-(((y - marks.eye_y - 0.045) / 0.012) ** 2))
        elif ax > marks.shoulder_x - 0.02 and y > marks.arm_y - 0.16:  # an arm
            if ax < look.sleeve_x:
                out[i] = look.shirt_ease * 0.8
        elif y > look.hem_y and y < marks.neck_y - 0.03:
            out[i] = look.shirt_ease
        elif y <= look.hem_y and y > max(look.leg_y, look.shoe_y):
            out[i] = look.pants_ease
    return out


def _smooth(lo: float, hi: float, x: Array) -> Array:
    t = np.clip((x - lo) / (hi - lo), 0, 1)
    return t * t * (3 - 2 * t)


def _grid_faces(rings: int, sides: int, closed: bool) -> NDArray[np.int32]:
    """Faces between rings of `sides` vertices, numbered from the top, anticlockwise seen from outside."""
    columns = np.arange(sides if closed else sides - 1)
    a = (np.arange(rings - 1)[:, None] * sides + columns).ravel()
    b = (np.arange(rings - 1)[:, None] * sides + (columns + 1) % sides).ravel()
    return np.concatenate([np.stack([a, a + sides, b], 1), np.stack([b, a + sides, b + sides], 1)]).astype(np.int32)


def _carry(rest: Array, weights: dict[str, Array], bones: NDArray[np.float32], shift: Array) -> NDArray[np.float32]:
    """Skin rest places (N, 3) with per-bone weights (N,)."""
    out = np.zeros_like(rest)
    for name, weight in weights.items():
        bone = bones[_BONE[name]].astype(float)
        turned = rest[:, :1] * bone[:, 0] + rest[:, 1:2] * bone[:, 1] + rest[:, 2:] * bone[:, 2] + bone[:, 3]
        out += weight[:, None] * turned
    return (out + shift).astype(np.float32)


def _two_sided(verts: NDArray[np.float32], rest: Array, faces: NDArray[np.int32]) -> Sheet:
    normals = vertex_normals(verts, faces)
    count = len(verts)
    inner = faces[:, ::-1] + count
    return Sheet(
        np.concatenate([verts, verts - 0.002 * normals]),
        np.concatenate([normals, -normals]),
        np.concatenate([rest, rest]).astype(np.float32),
        np.concatenate([faces, inner]).astype(np.int32),
    )


def shaped(skin: Skin, betas: Array) -> Array:
    """Rest vertices (V, 3) of one shape, summed in a fixed order."""
    out = skin.template.astype(float)
    for beta, direction in zip(betas, skin.shapes, strict=True):
        out += beta * direction
    return out


def skirt(skin: Skin, marks: Marks, look: Look, betas: Array, bones: NDArray, shift: Array) -> Sheet:
    """The skirt of a look: an oval tube from the waist, wide enough for the hips and flared below."""
    rings, sides = 12, 28
    rest = shaped(skin, betas)
    scale = np.ptp(rest[:, 1]) / np.ptp(skin.template[:, 1])
    top, length = look["waist_y"] * scale + 0.01, float(look["skirt"])
    levels = top - np.linspace(0, 1, rings) * length
    trunk = rest[np.abs(rest[:, 0]) < 0.33]
    spans = []
    for y in levels:
        gap = np.abs(trunk[:, 1] - y)
        near = trunk[gap < max(0.03, np.nextafter(gap.min(), 1))]  # calves are sparse: at least the nearest
        spans.append([np.abs(near[:, 0]).max(), near[:, 2].min(), near[:, 2].max()])
    half, back, front = np.array(spans).T
    t = np.linspace(0, 1, rings)
    flare = look["flare"] * length * t
    half = np.maximum.accumulate(half) + 0.008 + flare
    depth = np.maximum.accumulate((front - back) / 2) + 0.008 + 0.8 * flare
    middle = (front + back) / 2
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    pleat = 1 + 0.05 * exact.sin(7 * angle + look["seed_x"])[None] * t[:, None]
    x = half[:, None] * exact.sin(angle) * pleat
    z = middle[:, None] + depth[:, None] * exact.cos(angle) * pleat
    y = np.repeat(levels[:, None], sides, 1)
    places = np.stack([x, y, z], -1).reshape(-1, 3)
    hip_y = float(marks["hip_y"]) * scale
    leg = 0.9 * _smooth(-hip_y - 0.03, -hip_y + 0.22, -places[:, 1])
    left = _smooth(-0.75, 0.75, (x / half[:, None]).ravel())
    weights = {"pelvis": 1 - leg, "left_hip": leg * left, "right_hip": leg * (1 - left)}
    verts = _carry(places, weights, bones, shift)
    # Painted as the trousers' top, squeezed so that the whole length lies above their end.
    low = look["leg_y"] + 0.03
    painted = places.copy()
    painted[:, 1] = look["waist_y"] - 0.005 + (places[:, 1] - top) / length * (look["waist_y"] - 0.005 - low)
    return _two_sided(verts, painted, _grid_faces(rings, sides, closed=True))


def long_hair(marks: Marks, look: Look, bones: NDArray[np.float32], shift: Array) -> Sheet:
    """Hair from ear to ear around the back of the head, falling on the shoulders."""
    rings, sides = 10, 17
    length = float(look["hair_length"])
    t = np.linspace(0, 1, rings)[:, None]
    angle = np.linspace(-1.75, 1.75, sides)[None]
    radius = float(marks["ear_x"]) + 0.012 + 0.6 * float(look["hair_ease"]) + 0.012 * t
    x = radius * exact.sin(angle) * (1 - 0.1 * t)
    fall = 0.05 * _smooth(0.25, 0.8, t * length / 0.3)
    z = float(marks["ear_z"]) + 0.012 - 0.9 * radius * exact.cos(angle) - fall * exact.cos(angle)
    y = float(marks["eye_y"]) + 0.03 - t * (0.12 + length) * (0.9 + 0.1 * exact.cos(angle))
    x, y, z = np.broadcast_arrays(x, y, z)
    places = np.stack([x, y, z], -1).reshape(-1, 3)
    loose = np.repeat(np.clip(t * (0.12 + length) - 0.1, 0, None) / 0.3, sides, 1).ravel().clip(0, 0.8)
    weights = {"head": 1 - loose, "spine3": loose}
    verts = _carry(places, weights, bones, shift)
    painted = places.copy()
    painted[:, 1] = marks["eye_y"] - 0.02 + 0.01 * exact.sin(40 * places[:, 0])
    painted[:, 2] = marks["ear_z"] - 0.06 + 0.02 * np.repeat(t, sides, 1).ravel()
    # Angles run from the right ear round the back to the left: seen from outside that is clockwise.
    return _two_sided(verts, painted, _grid_faces(rings, sides, closed=False)[:, ::-1].copy())
