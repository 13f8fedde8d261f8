"""Coarse levels of a mesh: which vertices they keep, and how to come back up.

METRO predicts 431 vertices and lifts them to 1723 and 6890 (hand: 195 and 778). Going down is a selection of vertices;
going up, `Level.up` is a fixed sparse matrix, the start or the substitute of METRO's learned layers.

Legend: Vf vertices of the finer level, Vc of the coarser one.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from typing_extensions import TypedDict

from metro.errors import MetroError
from metro.files import atomic_file, check_shape, read_arrays, readable
from metro.mesh.closest import closest_points
from metro.mesh.decimate import decimate
from metro.mesh.sparse import checked_csr
from metro.mesh.topology import Floats, Ints, edges, vertex_normals

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Level:
    """One coarser level of a mesh, in terms of the level above it."""

    indices: npt.NDArray[np.int64]
    """Vertices of the finer level that are kept, (Vc,), strictly ascending."""
    up: sp.csr_matrix
    """Up-sampling (Vf, Vc): `finer ≈ up @ coarser`. Rows are barycentric (not negative, sum 1), so the result follows
    any translation; rows of kept vertices are exact copies."""
    faces: npt.NDArray[np.int32]
    """Faces of this level, over its own vertices, (F, 3); none where a published file does not hold them."""

    @cached_property
    def edges(self) -> npt.NDArray[np.int64]:
        """Undirected edges of this level, (E, 2)."""
        return edges(self.faces).astype(np.int64)


def build_sampling(vertices_V3: Floats, faces_F3: Ints, sizes: Sequence[int] = (1723, 431)) -> list[Level]:
    """Build the coarse levels of a mesh, each from the one above.

    The vertices are those that COMA's procedure selects (see `metro.mesh.decimate`). Up-sampling differs from COMA's on
    purpose: a vertex is put at the closest point of the coarser mesh, on a face that looks its way, with barycentric
    weights. COMA solves an unconstrained least-squares problem per vertex, which leaves weights between -2.5 and 3.5
    and rows that do not sum to 1, hence an operator that depends on where the mesh stands.

    Parameters
    ----------
    vertices_V3, faces_F3
        The full mesh in its template pose, metres.
    sizes
        Vertices of each level, fine to coarse. METRO's are a quarter each, rounded up.

    Returns
    -------
    list of Level
        Fine to coarse.

    Raises
    ------
    MetroError
        The sizes do not descend, or the topology does not allow so few vertices.
    """
    if any(b >= a for a, b in zip((len(vertices_V3), *sizes), sizes, strict=False)):
        raise MetroError(f"sampling.sizes: {tuple(sizes)} must descend from below {len(vertices_V3)} vertices")
    levels = []
    finer_V3, finer_faces = np.asarray(vertices_V3, np.float64), np.asarray(faces_F3)
    for size in sizes:
        indices, faces = decimate(finer_V3, finer_faces, size)
        coarser_V3 = finer_V3[indices]
        levels.append(Level(indices, _up(finer_V3, finer_faces, indices, faces), faces))
        finer_V3, finer_faces = coarser_V3, faces
    return levels


def _up(finer_V3: Floats, finer_faces: Ints, indices: Ints, faces: Ints) -> sp.csr_matrix:
    """Barycentric up-sampling matrix of one level."""
    count = len(finer_V3)
    normals = vertex_normals(finer_V3, finer_faces)
    found = closest_points(finer_V3, finer_V3[indices], faces, normals)
    rows, columns, weights = (
        np.repeat(np.arange(count), 3),
        faces[found.face].reshape(-1),
        found.barycentric.reshape(-1),
    )
    moved = np.ones(count, bool)
    moved[indices] = False
    keep = moved[rows] & (weights > 0)
    rows = np.concatenate([rows[keep], indices])
    columns = np.concatenate([columns[keep], np.arange(len(indices))])
    weights = np.concatenate([weights[keep], np.ones(len(indices))])
    return sp.csr_matrix((weights, (rows, columns)), shape=(count, len(indices)))


def compose_indices(levels: Sequence[Level]) -> list[npt.NDArray[np.int64]]:
    """Indices of each level's vertices in the full mesh, fine to coarse."""
    composed: list[npt.NDArray[np.int64]] = []
    for level in levels:
        composed.append(composed[-1][level.indices] if composed else level.indices)
    return composed


def compose_up(levels: Sequence[Level]) -> list[sp.csr_matrix]:
    """Matrices (V, Vc) from each level straight to the full mesh, fine to coarse."""
    composed: list[sp.csr_matrix] = []
    for level in levels:
        composed.append(sp.csr_matrix(composed[-1] @ level.up) if composed else level.up)
    return composed


def up_sampling_errors(levels: Sequence[Level], vertices_BV3: Floats) -> npt.NDArray[np.float64]:
    """Distance of every vertex from where up-sampling its mesh's own coarse vertices puts it.

    Returns
    -------
    (levels, B, V)
        In the unit of the vertices, fine to coarse.
    """
    chosen = zip(compose_indices(levels), compose_up(levels), strict=True)
    return np.array(
        [[np.linalg.norm(up @ mesh[indices] - mesh, axis=1) for mesh in vertices_BV3] for indices, up in chosen]
    )


def difference(levels: Sequence[Level], others: Sequence[Level]) -> str | None:
    """What tells two sets of levels apart, as a phrase; None where they are the same.

    A network knows its vertices by their place in the coarsest level, so levels are the same only if each keeps the
    same vertices in the same order and comes back up by the same weights (to 1e-6, what float32 can tell).
    """
    sizes = [
        " → ".join(str(n) for n in (one[0].up.shape[0], *(lv.up.shape[1] for lv in one))) for one in (levels, others)
    ]
    if sizes[0] != sizes[1]:
        return f"{sizes[0]} vertices against {sizes[1]}"
    for ours, theirs in zip(compose_indices(levels), compose_indices(others), strict=True):
        if not np.array_equal(ours, theirs):
            shared, placed = len(np.intersect1d(ours, theirs)), np.count_nonzero(ours == theirs)
            return f"{shared} of {len(ours)} vertices in common, {placed} of them in the same place"
    gap = max(abs(one.up - other.up).max() for one, other in zip(levels, others, strict=True))
    return None if gap <= 1e-6 else f"the same vertices, but up-sampling weights that differ by up to {gap:.2g}"


def save_sampling(path: Path | str, levels: Sequence[Level], meta: dict[str, Any] | None = None) -> None:
    """Write levels to an .npz of plain arrays: equal levels give equal bytes, and no half-written file is left.
    They are not compressed, for what zlib makes of them hangs on its version.

    `meta` is anything JSON can hold (body kind, digest, settings); `load_meta` returns it.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for k, level in enumerate(levels):
        up = level.up.tocsr().sorted_indices()
        arrays |= {f"level{k}_indices": level.indices.astype(np.int64), f"level{k}_faces": level.faces.astype(np.int32)}
        arrays |= {f"level{k}_up_data": up.data, f"level{k}_up_indices": up.indices.astype(np.int32)}
        arrays |= {f"level{k}_up_indptr": up.indptr.astype(np.int32)}
    header = {"format": FORMAT, "levels": len(levels), "meta": meta or {}}
    arrays["header"] = np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)
    with atomic_file(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_sampling(path: Path | str) -> list[Level]:
    """Read levels written by `save_sampling`.

    Raises
    ------
    MetroError
        The file is missing, not a sampling file, of another format, or inconsistent.
    """
    return _read(Path(path))[0]


def load_meta(path: Path | str) -> dict[str, Any]:
    """The `meta` that `save_sampling` was given. Raises as `load_sampling`."""
    return _read(Path(path))[1]


class _Header(TypedDict):
    levels: int
    meta: dict[str, Any]


def _read(path: Path) -> tuple[list[Level], dict[str, Any]]:
    remedy = "the `sampling` stage makes it"
    arrays = read_arrays(path, remedy)
    with readable(path, remedy):
        header = json.loads(arrays["header"].tobytes())
        check_shape(header, dict[str, Any])
        if header["format"] != FORMAT:
            raise MetroError(f"{path}: sampling format {header['format']}, this version reads {FORMAT}; {remedy}")
        check_shape(header, _Header)
        levels = [_level(arrays, k) for k in range(header["levels"])]
        if not levels or any(b.up.shape[0] != len(a.indices) for a, b in itertools.pairwise(levels)):
            raise ValueError("its levels do not fit together")
    return levels, header["meta"]


def _level(arrays: dict[str, npt.NDArray[Any]], k: int) -> Level:
    indices, faces = arrays[f"level{k}_indices"], arrays[f"level{k}_faces"]
    data, columns, starts = (arrays[f"level{k}_up_{part}"] for part in ("data", "indices", "indptr"))
    whole = {indices.dtype.kind, faces.dtype.kind} <= {"i", "u"}
    if not whole or indices.ndim != 1 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"level {k} holds no vertices and faces")
    up = checked_csr(data, columns, starts, (len(starts) - 1, len(indices)))
    if not len(indices) or (indices[1:] <= indices[:-1]).any() or indices[0] < 0 or indices[-1] >= up.shape[0]:
        raise ValueError(f"level {k} holds indices out of order or out of range")
    if faces.size and not 0 <= faces.min() <= faces.max() < len(indices):
        raise ValueError(f"level {k} holds faces of other vertices")
    return Level(indices.astype(np.int64), up, faces.astype(np.int32))
