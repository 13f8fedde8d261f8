"""Quadric half-edge collapse that keeps a border: survivors are original vertices, so their data transfer by index.

It serves two meshes with a border: one half of a symmetric body, cut at its mirror plane (the border stays in the
plane), and a hand, open at the wrist. Costs are Garland and Heckbert's (1997) with subset placement.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

MAX_TURN_COSINE = 0.35  # a face may not turn further than this from its normal
MIN_QUALITY = 0.22  # 1 for an equilateral triangle, 0 for a sliver; a face worse already may lose 30 %

_Face = tuple[int, int, int]


class Collapse:
    """A mesh being simplified.

    Parameters
    ----------
    vertices
        (V, 3).
    faces
        (F, 3) of an orientable mesh with border.
    border
        (V,) whether a vertex lies on the border.
    weights
        (V,) factor on the cost of removing a vertex.
    edge_penalty
        Weight of the fourth power of the edge length, which keeps edges alike where the surface is flat.
    """

    def __init__(
        self, vertices: np.ndarray, faces: np.ndarray, border: np.ndarray, weights: np.ndarray, edge_penalty: float
    ) -> None:
        self._at, self._border, self._weights, self._penalty = vertices, border, weights, edge_penalty
        self._faces: dict[int, _Face] = {i: (int(a), int(b), int(c)) for i, (a, b, c) in enumerate(faces)}
        self._around: dict[int, set[int]] = {}
        for i, face in self._faces.items():
            for v in face:
                self._around.setdefault(v, set()).add(i)
        self._quadrics = self._initial_quadrics(faces)
        self._version = np.zeros(len(vertices), int)
        self.count = len(self._around)
        self.border_count = sum(bool(border[v]) for v in self._around)
        self._heap: list[tuple[float, int, int, int, int]] = []

    def run(self, done: Callable[[], bool], allowed: Callable[[int], bool]) -> None:
        """Remove the cheapest allowed vertex again and again until `done()` or nothing is left to remove.

        `allowed(v)` tells whether v may go at this moment; a vertex refused once is not tried again until its
        neighbourhood changes.
        """
        self._heap = []
        for u, v in {(min(e), max(e)) for face in self._faces.values() for e in _edges(face)}:
            self._push(u, v)
            self._push(v, u)
        while self._heap and not done():
            _, u, v, version_u, version_v = heapq.heappop(self._heap)
            stale = self._version[u] != version_u or self._version[v] != version_v
            if stale or u not in self._around or v not in self._around or not self._shared(u, v):
                continue
            if allowed(u) and self._is_sound(u, v):
                self._remove(u, v)

    def on_border(self, vertex: int) -> bool:
        """Whether a vertex is on the border."""
        return bool(self._border[vertex])

    def faces(self) -> np.ndarray:
        """(F', 3) remaining faces, in terms of the original vertices."""
        return np.array(list(self._faces.values()))

    def _initial_quadrics(self, faces: np.ndarray) -> np.ndarray:
        at = self._at
        normal = np.cross(at[faces[:, 1]] - at[faces[:, 0]], at[faces[:, 2]] - at[faces[:, 0]])
        area = np.linalg.norm(normal, axis=1)
        normal /= np.maximum(area, 1e-15)[:, None]
        plane = np.c_[normal, -(normal * at[faces[:, 0]]).sum(1)]
        per_face = plane[:, :, None] * plane[:, None, :] * (area / 2)[:, None, None]
        quadrics = np.zeros((len(at), 4, 4))
        for corner in range(3):
            np.add.at(quadrics, faces[:, corner], per_face)
        # A heavy plane through each border edge, at right angles to the border's own plane (x = const), keeps the
        # border's outline.
        half_edges = {e for face in self._faces.values() for e in _edges(face)}
        for face in self._faces.values():
            for u, v in _edges(face):
                if (v, u) in half_edges:
                    continue
                edge = at[v] - at[u]
                across = np.cross([1.0, 0.0, 0.0], edge)
                length = np.linalg.norm(across)
                if length > 1e-12:
                    across /= length
                    wall = np.r_[across, -across @ at[u]]
                    quadrics[[u, v]] += np.outer(wall, wall) * (edge @ edge)
        return quadrics

    def _push(self, u: int, v: int) -> None:
        """Queue the removal of u into v."""
        if self._border[u] and not (self._border[v] and self._is_border_edge(u, v)):
            return
        x = np.r_[self._at[v], 1.0]
        step = self._at[u] - self._at[v]
        penalty = self._penalty * (step @ step) ** 2 * (0.5 if self._border[u] else 1)
        cost = (x @ (self._quadrics[u] + self._quadrics[v]) @ x + penalty) * self._weights[u]
        heapq.heappush(self._heap, (cost, u, v, int(self._version[u]), int(self._version[v])))

    def _shared(self, u: int, v: int) -> set[int]:
        return self._around[u] & self._around[v]

    def _neighbours(self, v: int) -> set[int]:
        return {w for i in self._around[v] for w in self._faces[i]} - {v}

    def _is_border_edge(self, u: int, v: int) -> bool:
        return len(self._shared(u, v)) == 1

    def _is_sound(self, u: int, v: int) -> bool:
        """Whether moving u into v keeps the mesh a manifold with the same border, without folds or slivers."""
        near_u, near_v, shared = self._neighbours(u), self._neighbours(v), self._shared(u, v)
        common = near_u & near_v
        if common != {w for i in shared for w in self._faces[i]} - {u, v}:
            return False  # the link condition
        border = self._border
        if border[v]:
            for w in near_u - common - {v}:
                if border[w] and not (border[u] and self._is_border_edge(u, w)):
                    return False  # would join two border vertices by an inner edge
            for w in common:
                outer = self._is_border_edge(u, w) or self._is_border_edge(v, w)
                if border[w] and border[u] and not outer:
                    return False
        if border[u] and border[v] and len(near_u) < 3:
            return False
        return all(self._keeps_shape(self._faces[i], u, v) for i in self._around[u] - shared)

    def _keeps_shape(self, face: _Face, u: int, v: int) -> bool:
        before = self._at[list(face)]
        after = self._at[[v if w == u else w for w in face]]
        normals = [np.cross(x[1] - x[0], x[2] - x[0]) for x in (before, after)]
        areas = [np.linalg.norm(n) for n in normals]
        if areas[1] < 1e-12 or normals[0] @ normals[1] < MAX_TURN_COSINE * areas[0] * areas[1]:
            return False
        sides = [sum((x[k] - x[k - 1]) @ (x[k] - x[k - 1]) for k in range(3)) for x in (before, after)]
        quality = [2 * np.sqrt(3) * area / side for area, side in zip(areas, sides, strict=True)]
        return bool(quality[1] >= min(MIN_QUALITY, 0.7 * quality[0]))

    def _remove(self, u: int, v: int) -> None:
        for i in self._shared(u, v):
            for w in self._faces.pop(i):
                self._around[w].discard(i)
        for i in self._around.pop(u):
            a, b, c = (v if w == u else w for w in self._faces[i])
            self._faces[i] = (a, b, c)
            self._around[v].add(i)
        self.count -= 1
        self.border_count -= bool(self._border[u])
        self._quadrics[v] += self._quadrics[u]
        self._version[v] += 1
        for w in self._neighbours(v):
            self._push(v, w)
            self._push(w, v)


def _edges(face: _Face) -> tuple[tuple[int, int], ...]:
    a, b, c = face
    return (a, b), (b, c), (c, a)


def border_loops(faces: np.ndarray) -> list[list[int]]:
    """Closed loops of the border, each in the direction in which faces that fill it would run."""
    half_edges = dict.fromkeys((int(u), int(v)) for a, b, c in faces for u, v in ((a, b), (b, c), (c, a)))
    after = {v: u for u, v in half_edges if (v, u) not in half_edges}
    loops: list[list[int]] = []
    seen: set[int] = set()
    for start in after:
        if start in seen:
            continue
        loop, at = [start], after[start]
        while at != start:
            loop.append(at)
            at = after[at]
        seen.update(loop)
        loops.append(loop)
    return loops


def fill_loop(loop: list[int], vertices: np.ndarray) -> list[_Face]:
    """Triangles that close a loop: the ear with the shortest new edge is cut again and again."""
    left = list(loop)
    middle = vertices[left].mean(0)
    pairs = zip(left, left[1:] + left[:1], strict=True)
    summed: np.ndarray = np.sum([np.cross(vertices[a] - middle, vertices[b] - middle) for a, b in pairs], axis=0)
    normal = summed / np.linalg.norm(summed)
    faces: list[_Face] = []
    while len(left) > 3:

        def length(k: int, ring: list[int] = left) -> float:
            a, b, c = (vertices[ring[(k + i) % len(ring)]] for i in (-1, 0, 1))
            reflex = 0.0 if np.cross(b - a, c - a) @ normal > 0 else 10.0
            return float(np.linalg.norm(c - a)) + reflex

        k = min(range(len(left)), key=length)
        faces.append((left[k - 1], left[k], left[(k + 1) % len(left)]))
        left.pop(k)
    faces.append((left[0], left[1], left[2]))
    return faces
