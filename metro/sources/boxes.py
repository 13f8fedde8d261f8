"""Boxes around people as datasets state them or as rules of the field make them: (x, y, w, h) in px.

Pixel centres are at integers: the picture covers x from -0.5 to width - 0.5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def around(points_N2: npt.ArrayLike, factor: float, size: tuple[int, int] | None = None) -> np.ndarray | None:
    """The tight box (4,) of points, enlarged by `factor` about its centre.

    With `size` (width, height) only points inside of that picture count. None where no box of any extent is left.
    """
    points = np.asarray(points_N2, np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if size is not None:
        points = points[((points >= -0.5) & (points < np.array(size) - 0.5)).all(axis=1)]
    if not len(points):
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    return enlarged(np.concatenate((low, high - low)), factor) if (high > low).all() else None


def enlarged(box: npt.ArrayLike, factor: float) -> np.ndarray:
    """A box (4,) with its sides multiplied by `factor`, about its centre."""
    x, y, w, h = np.asarray(box, np.float64)
    return np.array([x + (1 - factor) * w / 2, y + (1 - factor) * h / 2, factor * w, factor * h])


def edges_to_centres(box: npt.ArrayLike) -> np.ndarray:
    """A box (4,) given by the edges of pixels, (0, 0) the corner of the picture (COCO), where pixel centres count."""
    return np.asarray(box, np.float64) - [0.5, 0.5, 0, 0]
