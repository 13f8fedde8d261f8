"""The published decimation written down naively: whole-array scans and whole-queue renames.

The slow twin of `metro.mesh.decimate`: quadratic in the size of the mesh, and short enough to be compared by eye with
the rules in that module's docstring.
"""

from __future__ import annotations

import heapq

import numpy as np

from metro.mesh.closest import closest_points


def plane_quadrics(vertices, faces):
    quadrics = np.zeros((len(vertices), 4, 4))
    for face in faces:
        plane = np.linalg.svd(np.c_[vertices[face], np.ones(3)])[2][-1]
        plane = plane / np.linalg.norm(plane[:3])
        for vertex in face:
            quadrics[vertex] += np.outer(plane, plane)
    return quadrics


def coma_procedure(vertices, faces, count, quadrics=None):
    """Faces over the original vertices that are left when `count` vertices are; IndexError if edges run out."""
    quadrics = plane_quadrics(vertices, faces) if quadrics is None else quadrics.copy()
    points = np.c_[vertices, np.ones(len(vertices))][:, :, None]
    faces = np.array(faces)

    def costs(r, c):
        total = quadrics[r] + quadrics[c]
        return [points[end].T.dot(total).dot(points[end]).item() for end in (r, c)]

    adjacent = np.zeros((len(vertices), len(vertices)), bool)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        adjacent[faces[:, a], faces[:, b]] = adjacent[faces[:, b], faces[:, a]] = True
    queue = []
    for c in range(len(vertices)):
        for r in np.flatnonzero(adjacent[:c, c]):
            heapq.heappush(queue, (min(costs(r, c)), (r, c)))

    in_use = len(vertices)
    while in_use > count:
        queued_cost, (r, c) = heapq.heappop(queue)
        if r == c:
            continue
        at_r, at_c = costs(r, c)
        if min(at_r, at_c) > queued_cost:
            heapq.heappush(queue, (min(at_r, at_c), (r, c)))
            continue
        keep, remove = (r, c) if at_r < at_c else (c, r)
        quadrics[r] = quadrics[c] = quadrics[r] + quadrics[c]
        faces[faces == remove] = keep
        for place, (cost, ends) in enumerate(queue):
            if remove in ends:
                queue[place] = (cost, tuple(keep if end == remove else end for end in ends))
        degenerate = (faces == np.roll(faces, 1, axis=1)).any(axis=1)
        faces = faces[~degenerate]
        in_use = len(np.unique(faces))
    return faces


def coma_up(finer, indices, faces):
    """The published up-sampling weights, dense: least squares over the corners of the nearest face, edge or vertex."""
    coarse = finer[indices]
    matrix = np.zeros((len(finer), len(coarse)))
    nearest = closest_points(finer, coarse, faces)
    for row, (face, weights) in enumerate(zip(faces[nearest.face], nearest.barycentric, strict=True)):
        corners = face[weights > 1e-9]
        if len(corners) == 1:
            matrix[row, corners] = 1
        else:
            goal = weights @ coarse[face] if len(corners) == 3 else finer[row]
            matrix[row, corners] = np.linalg.lstsq(coarse[corners].T, goal, rcond=None)[0]
    return matrix
