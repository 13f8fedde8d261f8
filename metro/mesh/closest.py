"""Closest points on a triangle mesh."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from metro.kernels import njit
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


@njit
def _search(points, normals, corners, centre, radius, first):  # type: ignore[no-untyped-def]
    count, total = len(points), len(corners)
    face = np.full(count, -1, np.int64)
    weights = np.zeros((count, 3))
    squared = np.full(count, np.inf)
    for n in range(count):
        px, py, pz = points[n]
        facing = len(normals) > 0
        while face[n] < 0:
            for step in range(-1, total):
                f = first[n] if step < 0 else step
                if step >= 0:
                    dx, dy, dz = px - centre[f, 0], py - centre[f, 1], pz - centre[f, 2]
                    reach = np.sqrt(squared[n]) + radius[f]
                    if dx * dx + dy * dy + dz * dz > reach * reach:
                        continue
                ax, ay, az = corners[f, 0]
                bx, by, bz = corners[f, 1, 0] - ax, corners[f, 1, 1] - ay, corners[f, 1, 2] - az
                cx, cy, cz = corners[f, 2, 0] - ax, corners[f, 2, 1] - ay, corners[f, 2, 2] - az
                if facing:
                    nx, ny, nz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
                    if nx * normals[n, 0] + ny * normals[n, 1] + nz * normals[n, 2] <= 0:
                        continue
                qx, qy, qz = px - ax, py - ay, pz - az
                v, w = _on_triangle(
                    bx * bx + by * by + bz * bz,
                    bx * cx + by * cy + bz * cz,
                    cx * cx + cy * cy + cz * cz,
                    qx * bx + qy * by + qz * bz,
                    qx * cx + qy * cy + qz * cz,
                )
                dx, dy, dz = qx - v * bx - w * cx, qy - v * by - w * cy, qz - v * bz - w * cz
                d2 = dx * dx + dy * dy + dz * dz
                if d2 < squared[n] or (d2 == squared[n] and f < face[n]):
                    squared[n], face[n] = d2, f
                    weights[n, 0], weights[n, 1], weights[n, 2] = max(1.0 - v - w, 0.0), v, w
            facing = False  # no face looks its way: all of them count
    return face, weights, squared


@njit
def _on_triangle(bb, bc, cc, qb, qc):  # type: ignore[no-untyped-def]
    """Weights (v, w) of the point v b + w c of the triangle (0, b, c) closest to q, from their inner products."""
    area = bb * cc - bc * bc
    if area > 1e-14 * bb * cc:
        v, w = (cc * qb - bc * qc) / area, (bb * qc - bc * qb) / area
        if v >= 0 and w >= 0 and v + w <= 1:
            return v, w
    # Outside, or no area: the closest point lies on a side. Compare |x|² - 2 x·q, its distance up to a constant.
    s = min(max(qb / bb, 0.0), 1.0) if bb > 0 else 0.0
    best, v, w = s * s * bb - 2 * s * qb, s, 0.0
    s = min(max(qc / cc, 0.0), 1.0) if cc > 0 else 0.0
    gap = s * s * cc - 2 * s * qc
    if gap < best:
        best, v, w = gap, 0.0, s
    length = bb - 2 * bc + cc  # of the side from b to c
    s = min(max((qc - qb - bc + bb) / length, 0.0), 1.0) if length > 0 else 0.0
    gap = (1 - s) * (1 - s) * bb + 2 * s * (1 - s) * bc + s * s * cc - 2 * (1 - s) * qb - 2 * s * qc
    if gap < best:
        v, w = 1.0 - s, s
    return v, w
