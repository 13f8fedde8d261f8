"""Attention drawn: as colour on a mesh, and as lines over the picture.

Attention is given in multiples of an even spread over all tokens. Shape suffixes: J joint, V coarse vertex, T token (J,
then V), F full-mesh vertex.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from metro.mesh.sampling import Level
from metro.viz.camera import project
from metro.viz.overlay import INK, PAPER, Image, blend, mesh_overlay, resize, skeleton

RAMP = np.array([[0.86, 0.87, 0.89], [0.98, 0.80, 0.45], [0.93, 0.45, 0.16], [0.62, 0.07, 0.10]])
"""Grey, orange, dark red."""
REACH = 1.5
"""The scale goes at least so far, so that a map without structure looks like one."""
LINES = 40
"""Of the tokens with more than an even share so many are joined with the query by lines, the first ones."""


@dataclass(frozen=True, eq=False)
class Figure:
    """A predicted person or hand in the square crop that the network saw."""

    image: Image
    """(S, S, 3), at any resolution."""
    vertices_F3: np.ndarray
    faces: np.ndarray
    joints_J3: np.ndarray
    camera_3: np.ndarray
    joint_set: str
    levels: Sequence[Level]
    """Mesh levels, fine to coarse."""

    def tokens(self, size: int) -> np.ndarray:
        """Where the tokens are in the picture at another size: (T, 2) pixels."""
        coarse_V3 = self.vertices_F3[coarse_rows(self.levels, len(self.vertices_F3))]
        return project(np.concatenate((self.joints_J3, coarse_V3)), self.camera_3, size)

    def joints(self, size: int) -> Image:
        """The picture with the predicted joints."""
        return skeleton(resize(self.image, size), self.tokens(size)[: len(self.joints_J3)], self.joint_set)

    def lines(self, joint: int, times_T: np.ndarray, size: int) -> Image:
        """Lines from a joint to the tokens that its query attends to, the wider and redder the more."""
        points, top = self.tokens(size), _top(times_T)
        canvas = blend(resize(self.image, size), np.full((size, size, 3), 255, np.uint8), 0.35)
        chosen = np.argsort(times_T, kind="stable")[-LINES:]
        for token in chosen[times_T[chosen] > 1]:
            level = min((times_T[token] - 1) / (top - 1), 1.0)
            colour = tuple((255 * _ramp(np.array([level]))[0]).round().astype(int).tolist())
            drawn, width = canvas.copy(), max(1, round((0.4 + level) * size / 200))
            cv2.line(drawn, _fixed(points[joint]), _fixed(points[token]), colour, width, cv2.LINE_AA, _SHIFT)
            radius = (2 if token < len(self.joints_J3) else 1) * size / 200
            cv2.circle(drawn, _fixed(points[token]), round(2**_SHIFT * radius), colour, -1, cv2.LINE_AA, _SHIFT)
            canvas = blend(canvas, drawn, 0.35 + 0.65 * level)
        return _ring(canvas, points[joint])

    def coloured(self, joint: int, times_T: np.ndarray, size: int) -> Image:
        """The mesh over the faded picture, coloured by what the joint's query attends to."""
        tint = colours(on_full_mesh(times_T[len(self.joints_J3) :], self.levels), _top(times_T))
        picture = resize(self.image, size)
        faded = blend(picture, np.full_like(picture, 255), 0.55)
        drawn = mesh_overlay(faded, self.vertices_F3, self.faces, self.camera_3, colour=tint, alpha=1.0)
        return _ring(drawn, self.tokens(size)[joint])


def coarse_rows(levels: Sequence[Level], count: int) -> np.ndarray:
    """(V,) which of `count` vertices of the full mesh the coarsest level has kept."""
    rows: np.ndarray = functools.reduce(lambda kept, level: kept[level.indices], levels, np.arange(count))
    return rows


def on_full_mesh(weights_V: np.ndarray, levels: Sequence[Level]) -> np.ndarray:
    """Weights of coarse vertices spread smoothly over the full mesh (F,)."""
    return functools.reduce(lambda values, level: level.up @ values, reversed(levels), weights_V)


def colours(times_even_F: np.ndarray, top: float | None = None) -> np.ndarray:
    """Mesh colours (F, 3): grey where attention is at most even, through orange to dark red at `top` times that.

    None: at the highest attention, or at 1.5 times an even spread if none is so high.
    """
    top = top or _top(times_even_F)
    return _ramp(np.clip((times_even_F - 1) / (top - 1), 0, 1))


def _top(times_even: np.ndarray) -> float:
    return max(REACH, float(np.quantile(times_even, 0.995)))


def _ramp(level_F: np.ndarray) -> np.ndarray:
    """Colours (F, 3) of levels from 0 to 1."""
    place = level_F * (len(RAMP) - 1)
    low = np.minimum(place.astype(int), len(RAMP) - 2)
    return RAMP[low] + (place - low)[:, None] * (RAMP[low + 1] - RAMP[low])


_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.clip(point, -1e5, 1e5) * 2**_SHIFT
    return round(float(x)), round(float(y))


def _ring(image: Image, point: np.ndarray) -> Image:
    """A ring around the joint whose query is shown."""
    canvas, radius = image.copy(), round(2**_SHIFT * 0.035 * image.shape[1])
    for colour, width in ((PAPER, 4), (INK, 2)):
        cv2.circle(canvas, _fixed(point), radius, colour, width, cv2.LINE_AA, _SHIFT)
    return canvas
