"""The rasteriser of the renderer: `metro.viz.raster.rasterise` as a numba kernel, bit for bit.

It is several times faster, and takes half a second to load and some to compile, which pays for thousands of people and
not for one picture.

No fast-math and no parallel loops: the same input gives the same bytes on every run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metro.kernels import njit
from metro.viz.raster import NEAR

WIDE = 16
"""Samples of a row from which on it pays to find where the triangle begins and ends."""

Array = NDArray[np.float32]


@njit
def draw(
    verts: Array,
    faces: NDArray[np.int32],
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    offset: int,
    cull: bool,
    face: NDArray[np.int32],
    depth: Array,
    bary: Array,
) -> None:
    """Draw a mesh into the buffers of a `Raster`, keeping what is nearer; face indices are raised by `offset`.

    `fx, fy, cx, cy` count samples (see `sample_intrinsics`). Empty samples hold face -1 and depth 0.
    """
    height, width = face.shape
    ray_x = (np.arange(width) - cx) / fx
    px = np.empty(verts.shape[0], np.float64)
    py = np.empty(verts.shape[0], np.float64)
    for v in range(verts.shape[0]):
        z = max(np.float64(verts[v, 2]), NEAR)
        px[v] = fx * verts[v, 0] / z + cx
        py[v] = fy * verts[v, 1] / z + cy
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, z0 = np.float64(verts[i, 0]), np.float64(verts[i, 1]), np.float64(verts[i, 2])
        x1, y1, z1 = np.float64(verts[j, 0]), np.float64(verts[j, 1]), np.float64(verts[j, 2])
        x2, y2, z2 = np.float64(verts[k, 0]), np.float64(verts[k, 1]), np.float64(verts[k, 2])
        if z0 < NEAR and z1 < NEAR and z2 < NEAR:
            continue
        e0x, e0y, e0z = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
        det = x0 * e0x + y0 * e0y + z0 * e0z
        # Anticlockwise seen from outside is negative here: the ray runs against the normal.
        if det == 0 or (cull and det > 0):
            continue
        if z0 < NEAR or z1 < NEAR or z2 < NEAR:
            left, right, top, bottom = 0, width - 1, 0, height - 1
        else:
            left = max(0, int(np.ceil(min(px[i], px[j], px[k]) - 1e-6)))
            right = min(width - 1, int(np.floor(max(px[i], px[j], px[k]) + 1e-6)))
            top = max(0, int(np.ceil(min(py[i], py[j], py[k]) - 1e-6)))
            bottom = min(height - 1, int(np.floor(max(py[i], py[j], py[k]) + 1e-6)))
        if left > right or top > bottom:
            continue
        e1x, e1y, e1z = y2 * z0 - z2 * y0, z2 * x0 - x2 * z0, x2 * y0 - y2 * x0
        e2x, e2y, e2z = y0 * z1 - z0 * y1, z0 * x1 - x0 * z1, x0 * y1 - y0 * x1
        sign = -1.0 if det < 0 else 1.0
        for y in range(top, bottom + 1):
            dy = (y - cy) / fy
            r0, r1, r2 = e0y * dy + e0z, e1y * dy + e1z, e2y * dy + e2z
            first, last = left, right
            if last - first > WIDE:
                first, last = _span(first, last, sign * e0x, sign * r0, cx, fx)
                first, last = _span(first, last, sign * e1x, sign * r1, cx, fx)
                first, last = _span(first, last, sign * e2x, sign * r2, cx, fx)
            for x in range(first, last + 1):
                dx = ray_x[x]
                w0, w1, w2 = sign * (e0x * dx + r0), sign * (e1x * dx + r1), sign * (e2x * dx + r2)
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                total = w0 + w1 + w2
                if total <= 0:
                    continue
                z = sign * det / total
                if z < NEAR or (face[y, x] >= 0 and z >= depth[y, x]):
                    continue
                face[y, x] = f + offset
                depth[y, x] = z
                bary[y, x, 0], bary[y, x, 1], bary[y, x, 2] = w0 / total, w1 / total, w2 / total


@njit(inline="always")
def _span(first: int, last: int, slope: float, offset: float, cx: float, fx: float) -> tuple[int, int]:
    """Narrow a row's samples to those where slope (x - cx) / fx + offset may not be negative, and one beside."""
    if slope == 0:
        return first, (last if offset >= 0 else first - 1)
    edge = min(max(cx - offset * fx / slope, first - 2.0), last + 2.0)
    if slope > 0:
        return max(first, int(np.floor(edge)) - 1), last
    return first, min(last, int(np.ceil(edge)) + 1)
