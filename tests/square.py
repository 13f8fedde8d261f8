"""A flat square that faces the camera, whose place in a picture can be told to hundredths of a pixel."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from metro.body.arrays import BodyData

FACES = np.array([[0, 2, 1], [0, 3, 2]])  # anticlockwise seen by a camera that looks along z


def square(centre: tuple[float, float], half: float = 0.25) -> np.ndarray:
    """Corners (4, 3) at z = 0, metres; turned by 17 degrees, so that no edge runs along the rows of pixels."""
    cos, sin = np.cos(np.deg2rad(17)), np.sin(np.deg2rad(17))
    corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ np.array([[cos, sin], [-sin, cos]])
    return np.c_[corners + centre, np.zeros(4)]


def square_body(data: BodyData, centre: tuple[float, float], half: float = 0.25) -> BodyData:
    """A body that in its zero pose is seen as nothing but a square: only four of its vertices have faces."""
    vertices = data.v_template.copy()
    vertices[:4] = square(centre, half)
    return replace(data, v_template=vertices, faces=FACES.astype(data.faces.dtype))


def balance_point(corners_N2: np.ndarray) -> np.ndarray:
    """Point (2,) that a polygon balances at."""
    moments = cv2.moments(corners_N2.astype(np.float32))
    return np.array([moments["m10"], moments["m01"]]) / moments["m00"]


def centre_of_mass(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Pixel (x, y) that the difference of two pictures balances at; integers are pixel centres."""
    weight = np.abs(after.astype(float) - before).sum(-1)
    rows, columns = np.indices(weight.shape)
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
