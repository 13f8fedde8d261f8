"""Patches of a mesh that overlap: what `rigid` upsampling moves as pieces (`metro.model.upsampling`).

Legend: V vertex of the fine mesh, P patch, one around each vertex that the coarse mesh keeps of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import dijkstra

from metro.errors import MetroError
from metro.mesh.topology import edges

REACH = 2.0
"""Radius of a patch, in units of the longest way from a vertex to its coarse one: a quarter of a metre on a body."""
NEAREST = 16
"""Patches that move a vertex; more only where some are equally far."""


class Patches(NamedTuple):
    """Weights of overlapping patches; those of a row sum to 1."""

    members_PP: np.ndarray
    """How much the middle of each patch (column) counts in each (row)."""
    blend: sp.csr_matrix
    """(V, P) how much each patch moves a vertex."""


def make_patches(vertices_V3: np.ndarray, faces_F3: np.ndarray, middle_P: np.ndarray) -> Patches:
    """Patches around the vertices `middle_P` of a mesh.

    Weights fall from the middle of a patch to its border, as the square of what is left of the way there; ways go
    along edges, so that a hand on a hip is in no patch of the hip. Where coarse vertices are so few that patches would
    not overlap, they reach farther than `REACH`.

    Raises
    ------
    MetroError
        A part of the mesh hangs together with no coarse vertex.
    """
    side_E2 = edges(faces_F3)
    length_E = np.linalg.norm(np.subtract(*vertices_V3[side_E2.T].astype(np.float64)), axis=1)
    graph = sp.csr_matrix((length_E, tuple(side_E2.T)), (len(vertices_V3),) * 2)
    apart = dijkstra(graph, directed=False, indices=middle_P, min_only=True).max()
    if not np.isfinite(apart):
        raise MetroError("model.upsampling: a part of the mesh has no coarse vertex; rigid upsampling would lose it")
    reach = REACH * apart
    way_PV = dijkstra(graph, directed=False, indices=middle_P, limit=reach)
    weight_VP = (1 - way_PV.T / reach).clip(0) ** 2
    count = min(NEAREST, len(middle_P))
    weight_VP[weight_VP < np.partition(weight_VP, -count, axis=1)[:, [-count]]] = 0
    members_PP = (1 - way_PV[:, middle_P] / reach).clip(0) ** 2
    return Patches(
        members_PP / members_PP.sum(1, keepdims=True), sp.csr_matrix(weight_VP / weight_VP.sum(1, keepdims=True))
    )
