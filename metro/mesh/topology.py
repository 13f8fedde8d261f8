"""Facts about triangle meshes that follow from the faces alone, and normals.

Legend: B batch, V vertices, F faces, E edges. A half-edge (a, b) is one directed side of a face.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

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


def face_normals(vertices: Floats, faces: Ints) -> Floats:
    """Unit normals by the right-hand rule, (..., F, 3); zero for a face without area. `vertices` is (..., V, 3)."""
    a, b, c = (vertices[..., faces[:, k], :] for k in range(3))
    return _unit(np.cross(b - a, c - a))


def vertex_normals(vertices: Floats, faces: Ints) -> Floats:
    """Unit area-weighted vertex normals, (V, 3) or (B, V, 3) as `vertices`; zero for a vertex without faces."""
    a, b, c = (vertices[..., faces[:, k], :] for k in range(3))
    weighted = np.cross(b - a, c - a)  # length: twice the area
    count = vertices.shape[-2]
    corners = np.arange(len(faces)).repeat(3)
    gather = sp.csr_matrix((np.ones(faces.size), (faces.reshape(-1), corners)), shape=(count, len(faces)))
    flat = weighted.reshape(-1, len(faces), 3)
    return _unit(np.stack([gather @ w for w in flat]).reshape(vertices.shape).astype(vertices.dtype))


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
