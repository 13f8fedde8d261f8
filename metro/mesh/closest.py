"""Closest points on a triangle mesh."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from metro.mesh.topology import Floats, Ints


class ClosestPoints(NamedTuple):
    """Closest points on a mesh, one per query (N)."""

    face: npt.NDArray[np.int64]
    """Index of the face, (N,)."""
    barycentric: npt.NDArray[np.float64]
    """Weights of its three corners, (N, 3): each in [0, 1], sum 1."""
    distance: npt.NDArray[np.float64]
    """Euclidean distance, (N,), in the unit of the vertices."""


def closest_points(
    points_N3: Floats,
    vertices_V3: Floats,
    faces_F3: Ints,
    normals_N3: Floats | None = None,
) -> ClosestPoints:
    """Exact closest point on the mesh for every query.

    Every face is a candidate; a bounding sphere per face rejects nearly all of them, so that 6890 queries against
    3442 faces take about 0.1 s on one core.

    Parameters
    ----------
    points_N3
        Queries.
    vertices_V3, faces_F3
        The mesh. Faces without area are treated as the segment or point they are.
    normals_N3
        When given, only faces whose normal makes an angle below 90° with the query's normal are candidates, so that
        a point near two limbs finds its own. A query without such a face considers all of them.

    Returns
    -------
    ClosestPoints
        Of equally close faces the one with the lowest index wins.
    """
    corners = np.ascontiguousarray(vertices_V3[faces_F3], np.float64)  # (F, 3 corners, 3)
    centre = corners.mean(axis=1)
    radius = np.linalg.norm(corners - centre[:, None], axis=2).max(axis=1)
    points = np.ascontiguousarray(points_N3, np.float64)
    facing = np.zeros((0, 3)) if normals_N3 is None else np.ascontiguousarray(normals_N3, np.float64)
    # The nearest centre comes first: it bounds the distance well, and the spheres then reject almost every face.
    _, first = cKDTree(centre).query(points)
    face, weights, squared = _search(points, facing, corners, centre, radius, first.astype(np.int64))
    return ClosestPoints(face, weights, np.sqrt(squared))


@numba.njit(cache=True)
def _search(points, normals, corners, centre, radius, first):  # type: ignore[no-untyped-def]
    count, total = len(points), len(corners)
    face = np.full(count, -1, np.int64)
    weights = np.zeros((count, 3))
    squared = np.full(count, np.inf)
    for n in range(count):
        for attempt in range(2):
            use_normal = attempt == 0 and len(normals) > 0
            for step in range(-1, total):
                f = first[n] if step < 0 else step
                if step >= 0:
                    d2 = 0.0
                    for k in range(3):
                        d2 += (points[n, k] - centre[f, k]) ** 2
                    reach = np.sqrt(squared[n]) + radius[f]
                    if d2 > reach * reach:
                        continue
                a, b, c = corners[f, 0], corners[f, 1], corners[f, 2]
                if use_normal:
                    normal = np.cross(b - a, c - a)
                    if np.dot(normal, normals[n]) <= 0:
                        continue
                u, v, w = _on_triangle(points[n], a, b, c)
                d2 = 0.0
                for k in range(3):
                    d2 += (points[n, k] - (u * a[k] + v * b[k] + w * c[k])) ** 2
                if d2 < squared[n] or (d2 == squared[n] and f < face[n]):
                    squared[n], face[n] = d2, f
                    weights[n, 0], weights[n, 1], weights[n, 2] = u, v, w
            if face[n] >= 0:
                break
    return face, weights, squared


@numba.njit(cache=True)
def _on_segment(p, a, b):  # type: ignore[no-untyped-def]
    """Parameter in [0, 1] of the point of segment ab closest to p."""
    d = b - a
    length = np.dot(d, d)
    if length == 0:
        return 0.0
    return min(max(np.dot(p - a, d) / length, 0.0), 1.0)


@numba.njit(cache=True)
def _on_triangle(p, a, b, c):  # type: ignore[no-untyped-def]
    """Barycentric weights of the point of triangle abc closest to p."""
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = np.dot(ab, ab), np.dot(ab, ac), np.dot(ac, ac)
    d20, d21 = np.dot(ap, ab), np.dot(ap, ac)
    area = d00 * d11 - d01 * d01
    if area > 1e-14 * d00 * d11:
        v = (d11 * d20 - d01 * d21) / area
        w = (d00 * d21 - d01 * d20) / area
        if v >= 0 and w >= 0 and v + w <= 1:
            return max(1 - v - w, 0.0), v, w
    # Outside, or no area: the closest point lies on a side.
    best, u0, v0, w0 = np.inf, 1.0, 0.0, 0.0
    for side in range(3):
        start, end = (a, b) if side == 0 else ((b, c) if side == 1 else (c, a))
        t = _on_segment(p, start, end)
        gap = p - (start + t * (end - start))
        d2 = np.dot(gap, gap)
        if d2 < best:
            best = d2
            if side == 0:
                u0, v0, w0 = 1 - t, t, 0.0
            elif side == 1:
                u0, v0, w0 = 0.0, 1 - t, t
            else:
                u0, v0, w0 = t, 0.0, 1 - t
    return u0, v0, w0
