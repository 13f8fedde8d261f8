"""Facts about triangle meshes that follow from the faces alone, and normals.

Legend: B batch, V vertices, F faces, E edges. A half-edge (a, b) is one directed side of a face.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from metro.kernels import njit

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]


def half_edges(faces: Ints) -> Ints:
    """Directed sides of the faces, (3F, 2): all (f0, f1), then all (f1, f2), then all (f2, f0)."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def edges(faces: Ints) -> Ints:
    """Undirected edges, each once with the smaller index first, in ascending order. (E, 2)"""
    return np.unique(np.sort(half_edges(faces), axis=1), axis=0)


def boundary_edges(faces: Ints) -> Ints:
    """Half-edges without an opposite one, in the direction of their face. (N, 2)"""
    directed = half_edges(faces)
    stride = int(faces.max()) + 1
    key, opposite = directed @ (stride, 1), directed @ (1, stride)
    return directed[~np.isin(key, opposite)]


def is_watertight(faces: Ints) -> bool:
    """Whether every edge lies in exactly two faces, with opposite directions, and no face is degenerate."""
    directed = half_edges(faces)
    if (directed[:, 0] == directed[:, 1]).any():
        return False
    stride = int(faces.max()) + 1
    key, opposite = directed @ (stride, 1), directed @ (1, stride)
    return len(np.unique(key)) == len(key) and bool(np.isin(key, opposite).all())


def is_manifold(faces: Ints) -> bool:
    """Whether the mesh is an oriented 2-manifold, with or without boundary.

    Every half-edge occurs once, and the faces around each vertex form one fan.
    """
    directed = half_edges(faces)
    if (directed[:, 0] == directed[:, 1]).any():
        return False
    stride = int(faces.max()) + 1
    key, opposite = directed @ (stride, 1), directed @ (1, stride)
    if len(np.unique(key)) < len(key):
        return False
    # Corners (face, slot) of one vertex are joined across the edges that two faces share. One fan per vertex means
    # as many groups of corners as vertices.
    count = len(faces)
    corner = np.arange(3 * count).reshape(3, count)  # corner[k, f] is where half-edge k of face f starts
    start, end = corner.reshape(-1), np.roll(corner, -1, axis=0).reshape(-1)
    order = np.argsort(key)
    slot = np.searchsorted(key[order], opposite).clip(max=len(key) - 1)
    twin = order[slot]
    paired = key[twin] == opposite
    joined_a = np.concatenate([start[paired], end[paired]])
    joined_b = np.concatenate([end[twin[paired]], start[twin[paired]]])
    graph = sp.coo_matrix((np.ones(len(joined_a), bool), (joined_a, joined_b)), shape=(3 * count, 3 * count))
    fans, _ = sp.csgraph.connected_components(graph, directed=False)
    return bool(fans == len(np.unique(faces)))


def euler(faces: Ints) -> int:
    """Euler characteristic V - E + F of the vertices in use: 2 for a sphere, 1 for a disc (an open hand)."""
    return len(np.unique(faces)) - len(edges(faces)) + len(faces)


def adjacency(faces: Ints, count: int) -> sp.csr_matrix:
    """Symmetric vertex adjacency, (count, count), ones off the diagonal."""
    pairs = edges(faces)
    row, column = np.concatenate([pairs, pairs[:, ::-1]]).T
    return sp.csr_matrix((np.ones(len(row)), (row, column)), shape=(count, count))


@njit
def vertex_normals(verts: Floats, faces: Ints) -> Floats:
    """Area-weighted unit normals (V, 3) of a mesh (V, 3), pointing to the side where faces run anticlockwise.

    Zero for a vertex without faces. Sums run in the order of the faces, so that every processor rounds alike: discrete
    choices hang on them.
    """
    normals = np.zeros_like(verts)
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = verts[j, 0] - verts[i, 0], verts[j, 1] - verts[i, 1], verts[j, 2] - verts[i, 2]
        bx, by, bz = verts[k, 0] - verts[i, 0], verts[k, 1] - verts[i, 1], verts[k, 2] - verts[i, 2]
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(verts.shape[0]):
        n = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2)
        if n > 0:
            for c in range(3):
                normals[v, c] /= n
    return normals
