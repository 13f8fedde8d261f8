"""Quadric edge collapse that keeps a subset of the original vertices.

This is the decimation METRO's published mesh levels were made with (COMA: Ranjan, Bolkart, Sanyal, Black, "Generating
3D Faces using Convolutional Mesh Autoencoders", ECCV 2018, after Garland and Heckbert 1997), reproduced decision by
decision with other data structures: the vertices it selects are the same, in a second instead of a minute.

The rules that decide which vertices survive:

* A vertex starts with the sum of the squared-distance quadrics of the planes of its faces, not weighted by area.
* An edge costs the smaller value of its summed quadric at its two ends. The end with the smaller value survives; on a
  tie the second one does. Both ends then own the sum.
* Edges wait in a binary heap keyed (cost, (first, second)), pushed in column order of the adjacency matrix. A popped
  edge whose cost has grown meanwhile goes back with the new cost.
* A collapse renames the removed vertex in the faces and in the waiting edges without restoring the heap order, and
  drops the faces that have become degenerate. Edges whose ends have become equal are discarded when popped.
* It stops when few enough vertices are left in use by faces.

Where the surface is flat or mirror-symmetric, many edges cost the same, and in floating point the rounding of whatever
kernel the processor has would decide between them. Here nothing rounds once the planes are found: coordinates, planes,
quadrics and costs are integers (fixed point, `BITS` binary places), so that equal costs are equal, on every machine
and in any order of the faces, and vertex numbers decide. On meshes without ties (SMPL's template, MANO's, scans) the
published vertices come out, since the integers carry at least the precision of the published double precision.
"""

from __future__ import annotations

import heapq
import math
from operator import add

import numpy as np
import numpy.typing as npt

from metro.errors import MetroError
from metro.mesh.topology import Floats, Ints, edges, euler, is_manifold, is_watertight

BITS = 52
"""Binary places of the fixed-point numbers."""

Point = tuple[int, int, int]
Quadric = tuple[int, ...]
"""Coefficients of xx, xy, xz, x, yy, yz, y, zz, z and 1; those of mixed terms are doubled."""


def decimate(vertices_V3: Floats, faces_F3: Ints, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Reduce a mesh to `count` of its own vertices.

    The published procedure has no topology check. Its result is kept whenever it is as sound as the input: exactly
    `count` vertices and, for a manifold input, again manifold with the same Euler characteristic and as watertight.
    Only otherwise is the reduction done again with the link condition, which admits no collapse that changes the
    topology. So the check cannot disturb a result that does not need it.

    Parameters
    ----------
    vertices_V3, faces_F3
        The mesh; every vertex is used by a face.
    count
        Vertices to keep.

    Returns
    -------
    indices : (count,) int64
        The vertices kept, ascending.
    faces : (G, 3) int32
        Faces over the kept vertices, in the order and with the orientation of the faces they were.

    Raises
    ------
    MetroError
        `count` is out of range, the mesh has stray or infinite vertices, or its topology does not allow so few.
    """
    total = len(vertices_V3)
    if len(np.unique(faces_F3)) != total or faces_F3.min() < 0 or faces_F3.max() >= total:
        raise MetroError(f"decimation: the faces must use each of the {total} vertices; remove stray vertices first")
    if not np.isfinite(vertices_V3).all():
        raise MetroError("decimation: some vertices are not finite; check the model file they come from")
    if not 3 <= count <= total:
        raise MetroError(f"decimation: cannot keep {count} of {total} vertices; choose between 3 and {total}")
    sound = is_manifold(faces_F3)
    for guarded in (False, True):
        faces = Collapse(vertices_V3, faces_F3, guarded).run(count)
        indices = np.unique(faces)
        if len(indices) == count and (not sound or _same_topology(faces, faces_F3)):
            break
    else:
        raise MetroError(
            f"decimation: the mesh cannot be reduced from {total} to {count} vertices without changing its topology "
            f"(reached {len(indices)}); ask for more vertices"
        )
    return indices, np.searchsorted(indices, faces).astype(np.int32)


def _same_topology(faces: Ints, original: Ints) -> bool:
    return (
        len(faces) > 0
        and is_manifold(faces)
        and is_watertight(faces) == is_watertight(original)
        and euler(faces) == euler(original)
    )


def fixed_point(vertices_V3: Floats) -> list[tuple[int, int, int]]:
    """Coordinates as integers, in units of 2^-`BITS` of the power of two above the largest one."""
    vertices = np.asarray(vertices_V3, np.float64)
    _, exponent = np.frexp(np.abs(vertices).max())
    return [(x, y, z) for x, y, z in np.rint(np.ldexp(vertices, BITS - exponent)).astype(np.int64).tolist()]


def face_plane(a: Point, b: Point, c: Point) -> tuple[int, int, int, int]:
    """Unit normal and offset of a face with fixed-point corners: a place p is (n · p + offset) 2^-2`BITS` away from it.

    The same for any first corner, and mirrored for a mirrored face. A face without area gives zeros.
    """
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    normal = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    length = math.isqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
    if length == 0:
        return 0, 0, 0, 0
    x, y, z = (_divide(n << BITS, length) for n in normal)
    thrice = x * (a[0] + b[0] + c[0]) + y * (a[1] + b[1] + c[1]) + z * (a[2] + b[2] + c[2])
    return x, y, z, -_divide(thrice, 3)


def _divide(numerator: int, denominator: int) -> int:
    """Quotient rounded towards zero, so that mirrored numbers stay mirrored."""
    return numerator // denominator if numerator >= 0 else -(-numerator // denominator)


def vertex_quadrics(points: list[Point], faces_F3: Ints) -> list[Quadric]:
    """Sum of the plane quadrics of the faces around each vertex."""
    sums = [[0] * 10 for _ in points]
    for i, j, k in faces_F3.tolist():
        x, y, z, w = face_plane(points[i], points[j], points[k])
        terms = (x * x, 2 * x * y, 2 * x * z, 2 * x * w, y * y, 2 * y * z, 2 * y * w, z * z, 2 * z * w, w * w)
        for vertex in (i, j, k):
            sums[vertex] = [total + term for total, term in zip(sums[vertex], terms, strict=True)]
    return [tuple(total) for total in sums]


def quadric_at(quadric: Quadric, point: Point) -> int:
    """Sum of the squared distances of a place from the planes of a quadric, in units of 2^-4`BITS`."""
    xx, xy, xz, xw, yy, yz, yw, zz, zw, ww = quadric
    x, y, z = point
    return x * (xx * x + xy * y + xz * z + xw) + y * (yy * y + yz * z + yw) + z * (zz * z + zw) + ww


class Collapse:
    """State of one reduction. Faces and edges know each other through sets, so a collapse costs its neighbourhood."""

    def __init__(self, vertices_V3: Floats, faces_F3: Ints, guarded: bool) -> None:
        self.guarded = guarded
        self.points = fixed_point(vertices_V3)
        self.quadrics = vertex_quadrics(self.points, faces_F3)
        self.faces: dict[int, list[int]] = dict(enumerate(faces_F3.tolist()))
        self.faces_of: list[set[int]] = [set() for _ in self.points]
        for index, face in self.faces.items():
            for vertex in face:
                self.faces_of[vertex].add(index)
        self.queue: list[list[int]] = []  # entries [cost, first, second], renamed in place
        self.entries_of: list[list[list[int]]] = [[] for _ in self.points]
        self.blocked: dict[int, list[list[int]]] = {}  # entries that the link condition held back, at both end points
        self.held: set[int] = set()  # ids of those that no change near one end has freed yet
        pairs = edges(faces_F3)
        for first, second in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist():
            entry = [self.cost(first, second)[0], first, second]
            heapq.heappush(self.queue, entry)
            self.entries_of[first].append(entry)
            self.entries_of[second].append(entry)

    def cost(self, first: int, second: int) -> tuple[int, bool, Quadric]:
        """Cost of an edge, whether its second end is the one to remove, and the summed quadric."""
        total = tuple(map(add, self.quadrics[first], self.quadrics[second]))
        at_first, at_second = quadric_at(total, self.points[first]), quadric_at(total, self.points[second])
        return min(at_first, at_second), at_first < at_second, total

    def run(self, count: int) -> npt.NDArray[np.int64]:
        """Collapse edges until `count` vertices are in use or no edge is left; return the faces."""
        in_use = len(self.points)
        while in_use > count and self.queue:
            entry = heapq.heappop(self.queue)
            _, first, second = entry
            if first == second:
                continue
            cost, remove_second, total = self.cost(first, second)
            if cost > entry[0]:
                entry[0] = cost
                heapq.heappush(self.queue, entry)
                continue
            if self.guarded and not self.allowed(first, second):
                self.held.add(id(entry))
                for end in (first, second):
                    self.blocked.setdefault(end, []).append(entry)
                continue
            keep, remove = (first, second) if remove_second else (second, first)
            self.quadrics[keep] = self.quadrics[remove] = total
            in_use -= self.collapse(keep, remove)
        return np.array(list(self.faces.values()), np.int64).reshape(-1, 3)

    def collapse(self, keep: int, remove: int) -> int:
        """Rename `remove` to `keep` everywhere; return by how much the number of vertices in use has fallen."""
        touched = {keep, remove}
        for index in self.faces_of[remove] | self.faces_of[keep]:
            touched.update(self.faces[index])
        before = sum(bool(self.faces_of[v]) for v in touched)
        for index in self.faces_of[remove]:
            face = self.faces[index]
            if keep in face:
                for vertex in face:
                    if vertex != remove:
                        self.faces_of[vertex].discard(index)
                del self.faces[index]
            else:
                face[face.index(remove)] = keep
                self.faces_of[keep].add(index)
        self.faces_of[remove] = set()
        for entry in self.entries_of[remove]:
            if entry[1] == remove:
                entry[1] = keep
            if entry[2] == remove:
                entry[2] = keep
        self.entries_of[keep] += self.entries_of[remove]
        self.entries_of[remove] = []
        for vertex in sorted(touched) if self.guarded else ():
            for entry in self.blocked.pop(vertex, ()):
                if id(entry) in self.held:
                    self.held.remove(id(entry))
                    heapq.heappush(self.queue, entry)
        return before - sum(bool(self.faces_of[v]) for v in touched)

    def neighbours(self, vertex: int) -> set[int]:
        return {w for index in self.faces_of[vertex] for w in self.faces[index]} - {vertex}

    def on_boundary(self, first: int, second: int) -> bool:
        return len(self.faces_of[first] & self.faces_of[second]) == 1

    def allowed(self, first: int, second: int) -> bool:
        """The link condition (Dey et al. 1999): collapsing the edge leaves the topology as it is."""
        shared = self.faces_of[first] & self.faces_of[second]
        if not shared:
            return False
        around_first, around_second = self.neighbours(first), self.neighbours(second)
        opposite = {w for index in shared for w in self.faces[index]} - {first, second}
        if around_first & around_second != opposite:
            return False
        if len(around_first | around_second) == 2 + len(opposite) and len(opposite) < 3:
            return False  # a lone triangle or a tetrahedron
        border_first = any(self.on_boundary(first, w) for w in around_first)
        border_second = any(self.on_boundary(second, w) for w in around_second)
        return not (border_first and border_second) or self.on_boundary(first, second)
