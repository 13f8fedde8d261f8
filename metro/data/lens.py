"""Lenses: where distortion moves the points of a picture, and back.

Points are normalised: x / z and y / z in the camera frame, before the camera matrix. Distortion is eight numbers in
OpenCV's order, k1 k2 p1 p2 k3 k4 k5 k6, and with r² = x² + y²

    x' = x (1 + k1 r² + k2 r⁴ + k3 r⁶) / (1 + k4 r² + k5 r⁴ + k6 r⁶) + t p1 x y + p2 (r² + t x²)
    y' = y (1 + k1 r² + k2 r⁴ + k3 r⁶) / (1 + k4 r² + k5 r⁴ + k6 r⁶) + t p2 x y + p1 (r² + t y²)

where t is 2 for `opencv` (Brown–Conrady) and 1 for `h36m`, the formula of Human3.6M's own code, whose k4 to k6 are 0.

Shapes: N points; what comes before in points, and before 8 and 3 × 3 in distortion and camera matrix, are batches that
broadcast. All is float64 and elementwise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

LENSES = ("none", "opencv", "h36m")
"""Models of a lens; shards store the position in this tuple."""

_TANGENTIAL = {"opencv": 2.0, "h36m": 1.0}
_STEPS = 20  # of Newton's method, which doubles the digits with each
_CONVERGED = 1e-10  # in units of the focal length
_ALONG = np.linspace(0, 1, 9)[1:]  # where a ray is looked at between the middle and a point


def distort(points_N2: ArrayLike, distortion_8: ArrayLike | None, lens: str) -> np.ndarray:
    """Normalised points (N, 2) as the lens shows them, from where a pinhole camera would."""
    points = np.asarray(points_N2, np.float64)
    return points if lens == "none" else _moved(points, distortion_8, lens)[0]


def undistort(points_N2: ArrayLike, distortion_8: ArrayLike | None, lens: str) -> np.ndarray:
    """Normalised points (N, 2) as a pinhole camera would show them, from where the lens does.

    By Newton's method. A point is nan where the lens can show nothing: beyond the circle at which its formula folds the
    picture over.
    """
    target = np.asarray(points_N2, np.float64)
    if lens == "none":
        return target
    points = target
    with np.errstate(all="ignore"):  # of points that end as nan
        for _ in range(_STEPS):
            moved, (xx, xy, yx, yy) = _moved(points, distortion_8, lens)
            u, v = np.moveaxis(moved - target, -1, 0)
            step = np.stack((yy * u - xy * v, xx * v - yx * u), -1) / (xx * yy - xy * yx)[..., None]
            points = points - step
        found = np.abs(_moved(points, distortion_8, lens)[0] - target).max(-1) < _CONVERGED
        for share in _ALONG:
            xx, xy, yx, yy = _moved(share * points, distortion_8, lens)[1]
            found &= xx * yy - xy * yx > 0
    return np.where(found[..., None], points, np.nan)


def project(points_N3: ArrayLike, intrinsics_33: ArrayLike, distortion_8: ArrayLike | None, lens: str) -> np.ndarray:
    """Pixels (N, 2) of points before the camera: camera frame, metres. What lies behind it has no meaning."""
    points = np.asarray(points_N3, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _to_pixels(distort(points[..., :2] / points[..., 2:], distortion_8, lens), intrinsics_33)


def undistort_pixels(
    pixels_N2: ArrayLike, intrinsics_33: ArrayLike, distortion_8: ArrayLike | None, lens: str
) -> np.ndarray:
    """Pixels (N, 2) of the same camera with a lens without distortion; nan as in `undistort`."""
    pixels = np.asarray(pixels_N2, np.float64)
    if lens == "none":
        return pixels
    fx, skew, cx, fy, cy = _camera(intrinsics_33)
    y = (pixels[..., 1] - cy) / fy
    x = (pixels[..., 0] - cx - skew * y) / fx
    return _to_pixels(undistort(np.stack((x, y), -1), distortion_8, lens), intrinsics_33)


def bend(vertices_V3: ArrayLike, distortion_8: ArrayLike | None, lens: str) -> np.ndarray:
    """Vertices (V, 3) that a pinhole camera sees where the lens shows the given ones, as far away as these.

    So a renderer of pinhole cameras draws through a lens. What lies behind the camera stays.
    """
    vertices = np.asarray(vertices_V3, np.float64)
    if lens == "none":
        return vertices
    depth = vertices[..., 2:]
    seen = depth > 0
    safe = np.where(seen, depth, 1.0)
    bent = distort(vertices[..., :2] / safe, distortion_8, lens) * safe
    return np.concatenate((np.where(seen, bent, vertices[..., :2]), depth), -1)


def _moved(
    points_N2: np.ndarray, distortion_8: ArrayLike | None, lens: str
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Where points (N, 2) go, and the derivatives (N,) of x' by x and y, and of y' by x and y."""
    x, y = points_N2[..., 0], points_N2[..., 1]
    k1, k2, p1, p2, k3, k4, k5, k6 = np.moveaxis(np.asarray(distortion_8, np.float64)[..., None], -2, 0)
    t = _TANGENTIAL[lens]
    square = x * x + y * y
    below = 1 + square * (k4 + square * (k5 + square * k6))
    radial = (1 + square * (k1 + square * (k2 + square * k3))) / below
    slope_above = k1 + square * (2 * k2 + square * 3 * k3)
    slope_below = k4 + square * (2 * k5 + square * 3 * k6)
    slope = (slope_above - radial * slope_below) / below  # of the radial factor by r²
    to_x = x * radial + t * p1 * x * y + p2 * (square + t * x * x)
    to_y = y * radial + t * p2 * x * y + p1 * (square + t * y * y)
    along_x = radial + 2 * x * x * slope + t * p1 * y + 2 * (1 + t) * p2 * x
    along_y = radial + 2 * y * y * slope + t * p2 * x + 2 * (1 + t) * p1 * y
    shared = 2 * x * y * slope
    return np.stack((to_x, to_y), -1), (
        along_x,
        shared + t * p1 * x + 2 * p2 * y,
        shared + t * p2 * y + 2 * p1 * x,
        along_y,
    )


def _to_pixels(points_N2: np.ndarray, intrinsics_33: ArrayLike) -> np.ndarray:
    x, y = points_N2[..., 0], points_N2[..., 1]
    fx, skew, cx, fy, cy = _camera(intrinsics_33)
    return np.stack((fx * x + skew * y + cx, fy * y + cy), -1)


def _camera(intrinsics_33: ArrayLike) -> tuple[np.ndarray, ...]:
    """fx, skew, cx, fy and cy of camera matrices, each with an axis more, to go with N points."""
    matrix = np.asarray(intrinsics_33, np.float64)[..., None]
    return tuple(matrix[..., row, column, :] for row, column in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2)))
