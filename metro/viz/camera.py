"""Cameras: where a point falls in a crop or a picture, and the camera that a mesh is drawn with.

Pixel coordinates are OpenCV's everywhere, in crops, pictures, affines, intrinsics and the rasteriser: whole numbers are
pixel *centres*. The crop coordinates of METRO are -1 and 1 at the crop's *outer edges*, so that pixel p of a crop of S
is ``(2 p + 1) / S - 1`` and its middle, 0, is pixel ``(S - 1) / 2``.

A weak-perspective camera (s, tx, ty) puts a root-relative point (x, y, z) at the crop coordinates s (x + tx, y + ty).
Points are in camera axes (x right, y down, z forward), metres. Shape suffixes: N point, V vertex.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metro.words import CROP_PX

FOCAL = 5000.0
"""Focal length that a weak-perspective camera is drawn with, in pixels of METRO's crop: far away, nearly parallel."""


def to_pixels(uv_N2: ArrayLike, size: int) -> np.ndarray:
    """Crop coordinates (N, 2), -1 to 1, to pixels of a crop of `size`."""
    return (np.asarray(uv_N2, np.float64) + 1) * size / 2 - 0.5


def project(points_N3: ArrayLike, camera: ArrayLike, size: int) -> np.ndarray:
    """Pixels (N, 2) of a crop of `size` that points fall on under a weak-perspective camera (s, tx, ty).

    `metro.model.losses.project` is the same for batches of tensors, in crop coordinates.
    """
    s, tx, ty = np.asarray(camera, np.float64)
    return to_pixels(s * (np.asarray(points_N3, np.float64)[:, :2] + [tx, ty]), size)


def fit(points_N3: ArrayLike, uv_N2: ArrayLike) -> np.ndarray:
    """Weak-perspective camera (3,) that brings points nearest to their crop coordinates, by least squares.

    Its scale is at least 0.001: points that coincide, or that only a mirror could bring there, do not fix one.
    """
    xy, uv = np.asarray(points_N3, np.float64)[:, :2], np.asarray(uv_N2, np.float64)
    spread = xy - xy.mean(0)
    s = max(float((spread * (uv - uv.mean(0))).sum() / max((spread**2).sum(), 1e-9)), 1e-3)
    return np.array([s, *(uv.mean(0) / s - xy.mean(0))])


def pinhole(
    camera: ArrayLike,
    size: int,
    affine: ArrayLike | None = None,
    *,
    focal: float | None = None,
    centre: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pinhole camera of a whole picture that shows a root-relative mesh as its crop's weak-perspective camera does.

    It magnifies the mesh's root as the weak-perspective camera does: z = 2 f / (S s) in a crop (METRO's rule), and the
    same rule in pixels of the picture.

    Parameters
    ----------
    camera
        (s, tx, ty) of the crop.
    size
        Side S of the crop, pixels.
    affine
        (2, 3) from picture to crop pixels, without rotation; none: the picture is the crop.
    focal
        Focal length in pixels of the picture; none: `FOCAL`, scaled to the crop.
    centre
        (2,) principal point in pixels of the picture; none: where the middle of the crop is.

    Returns
    -------
    tuple
        Intrinsics (3, 3), and the translation (3,) in metres that puts the mesh before them.
    """
    a = np.eye(2, 3) if affine is None else np.asarray(affine, np.float64)
    s, tx, ty = np.asarray(camera, np.float64)
    zoom, middle = a[0, 0], ((size - 1) / 2 - a[:, 2]) / a[0, 0]
    f = focal or FOCAL * size / CROP_PX / zoom
    cx, cy = middle if centre is None else np.asarray(centre, np.float64)
    per_metre = max(s, 1e-9) * size / 2 / zoom  # pixels of the picture
    intrinsics = np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]])
    return intrinsics, np.array([tx + (middle[0] - cx) / per_metre, ty + (middle[1] - cy) / per_metre, f / per_metre])


def resampled(intrinsics: ArrayLike, affine: ArrayLike) -> np.ndarray:
    """Intrinsics (3, 3) of a picture after it was resampled by an affine (2, 3) of its pixels."""
    return np.vstack((np.asarray(affine, np.float64), [0, 0, 1])) @ np.asarray(intrinsics, np.float64)
