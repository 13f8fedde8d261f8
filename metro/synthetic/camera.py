"""The scene's pinhole camera, and where it is put to see a person at the wanted size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.config import DatasetConfig
from metro.kernels import njit
from metro.options import SyntheticOptions
from metro.synthetic import exact
from metro.synthetic.people import Figure
from metro.synthetic.rotations import axis_rotations
from metro.synthetic.streams import log_uniform
from metro.viz.raster import sample_intrinsics

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

BOX_SCALE = 1.2
"""Side of the annotated box over that of the tight box (METRO and the line of work before it)."""
ZOOM = 1.12
"""Largest size of a person in the frame over the size in the stored crop."""


class Lens(NamedTuple):
    """A camera for kernels: intrinsics on a grid of samples, directions and place in the world."""

    fx: float
    cx: float
    cy: float
    turn: Floats  # (3, 3) camera to world directions
    eye: Floats  # (3,)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in the world."""

    focal: float
    cx: float
    cy: float
    turn: Array  # (3, 3) camera to world directions
    eye: Array  # (3,)
    size: int

    @property
    def K(self) -> Array:
        """Intrinsics (3, 3), pixels."""
        return np.array([[self.focal, 0, self.cx], [0, self.focal, self.cy], [0, 0, 1.0]])

    def lens(self, density: float) -> Lens:
        """The camera on a grid with so many samples per pixel along each axis."""
        fx, _, cx, cy = sample_intrinsics(self.K, density)
        return Lens(fx, cx, cy, self.turn.astype(np.float32), self.eye.astype(np.float32))

    def see(self, points: NDArray[np.floating]) -> Array:
        """World points (N, 3) in the camera frame."""
        return exact.matmul(points - self.eye, self.turn)

    def span(self, points: Floats) -> tuple[Array, Array, float, float]:
        """Pixel bounds of world points, left top and right bottom, and their nearest and farthest depth."""
        b = bounds(points, self.turn, self.eye, self.focal, self.cx, self.cy)
        return b[:2], b[2:4], float(b[4]), float(b[5])

    def place(self, u: float, v: float, depth: float) -> Array:
        """The world point (3,) that pixel (u, v) shows at a depth."""
        return self.eye + depth * (self.turn * self.ray(u, v)).sum(1)

    def ray(self, u: float, v: float) -> Array:
        """The direction (3,) of a pixel in the camera frame, per metre of depth."""
        return np.array([(u - self.cx) / self.focal, (v - self.cy) / self.focal, 1.0])


@njit
def bounds(verts: Floats, turn: Array, eye: Array, focal: float, cx: float, cy: float) -> Array:
    """Pixel bounds of world points and their range of depth: left, top, right, bottom, nearest, farthest."""
    left, top, right, bottom, nearest, farthest = 1e9, 1e9, -1e9, -1e9, 1e9, -1e9
    for i in range(verts.shape[0]):
        x, y, z = verts[i, 0] - eye[0], verts[i, 1] - eye[1], verts[i, 2] - eye[2]
        depth = turn[0, 2] * x + turn[1, 2] * y + turn[2, 2] * z
        u = (turn[0, 0] * x + turn[1, 0] * y + turn[2, 0] * z) / max(depth, 0.05) * focal + cx
        v = (turn[0, 1] * x + turn[1, 1] * y + turn[2, 1] * z) / max(depth, 0.05) * focal + cy
        left, top, right, bottom = min(left, u), min(top, v), max(right, u), max(bottom, v)
        nearest, farthest = min(nearest, depth), max(farthest, depth)
    return np.array([left, top, right, bottom, nearest, farthest])


@njit
def to_camera(verts: Floats, turn: Array, eye: Array) -> Floats:
    """World points (V, 3) in the frame of a camera at `eye`, whose directions `turn` takes to the world."""
    out = np.empty_like(verts)
    for i in range(verts.shape[0]):
        x, y, z = verts[i, 0] - eye[0], verts[i, 1] - eye[1], verts[i, 2] - eye[2]
        for c in range(3):
            out[i, c] = turn[0, c] * x + turn[1, c] * y + turn[2, c] * z
    return out


def aim(g: np.random.Generator, person: Figure, config: DatasetConfig, closest: float = 0.9) -> Camera:
    """Choose a camera that sees the person at the stored size, cut by the frame's edge now and then.

    It comes no nearer than `closest` metres.
    """
    size = 8 * int(np.ceil(config.crop.box_px * config.crop.margin * 1.04 * ZOOM / 8))
    focal = size * log_uniform(g, 1, 3)
    off_axis = np.clip(g.standard_normal(2), -2, 2) * 0.22 * size
    cx, cy = (size - 1) / 2 + off_axis
    pitch = np.clip(7 + 11 * g.standard_normal(), -18, 40)
    roll = np.clip(3 * g.standard_normal(), -9, 9)
    target = config.crop.box_px / BOX_SCALE * g.uniform(1.01, ZOOM)
    shift = g.uniform(-0.04, 0.04, 2) * size
    cut = g.random() < config.chosen(SyntheticOptions).truncation
    edge = int(g.choice(4, p=[0.14, 0.14, 0.12, 0.6]))  # left, right, top, bottom
    share = g.uniform(0.12, 0.45)
    centre = (person.low + person.high) / 2
    depth = float((person.high - person.low).max()) * focal / target
    aimed = np.array([(size - 1) / 2, (size - 1) / 2]) + shift
    camera = Camera(focal, cx, cy, np.eye(3), np.zeros(3), size)
    for _ in range(40):
        rx = axis_rotations(np.array([-pitch, 0.0, 0.0]))[0]
        rz = axis_rotations(np.array([0.0, 0.0, roll]))[2]
        turn = exact.matmul(rx * [1.0, -1.0, -1.0], rz)  # the camera looks along -z of the world, y down
        for _ in range(8 if cut else 4):
            camera = Camera(focal, cx, cy, turn, centre - depth * (turn * camera.ray(*aimed)).sum(1), size)
            low, high, _, _ = camera.span(person.verts)
            extent = high - low
            visible = extent * (1 - share * np.array([edge < 2, edge >= 2])) if cut else extent
            depth = max(depth * visible.max() / target, closest)
            # Put the middle of the box, not the projected centre of the body, where it was aimed.
            wanted = np.array([(size - 1) / 2, (size - 1) / 2]) + shift
            if cut:
                axis, far = edge // 2, edge % 2
                wanted[axis] = (size - 1) - (0.5 - share) * extent[axis] if far else (0.5 - share) * extent[axis]
            aimed = aimed + wanted - (low + high) / 2
        if camera.eye[1] > 0.2:
            break
        pitch += 4
    return camera
