"""The published mesh levels: `mesh_downsampling.npz` (body) and `mano_downsampling.npz` (hand).

These files come with METRO's code, and in the same layout with GraphCMR, SPIN and Mesh Graphormer. Keys, each an array
of Python objects:

=====  ===========================================================================================
D      selections, level k+1 × level k: one 1 per row
U      up-sampling matrices, level k × level k+1: three entries per row
F      faces of every level, the full mesh first (absent in GraphCMR's file)
A, V   adjacency, template vertices: not used
M      pickled objects of another library: never opened
=====  ===========================================================================================

The published U solves a least-squares problem per vertex: its weights reach from -2.5 to 3.5, and some rows do not sum
to one, so it does not follow translations exactly. It is read as it is; `build_sampling` makes a barycentric one.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from metro.body.arrays import BodyData
from metro.body.pickles import plain, read_pickle
from metro.config import SamplingConfig
from metro.errors import MetroError
from metro.files import MAX_UNPACKED, ZIP, readable
from metro.mesh.sampling import Level, build_sampling, compose_indices
from metro.mesh.topology import Ints

# sha256 of the int32 little-endian indices into the full mesh, first 16 digits.
_PUBLISHED = {
    "567073a400828963": "SMPL 6890 → 1723",
    "d4d3952ee04ed3b7": "SMPL 6890 → 431",
    "6c6c87c34ff48616": "MANO 778 → 195",
}


def published_name(indices: Ints) -> str | None:
    """Which published level selects exactly these vertices of the full mesh, if any.

    Official METRO weights fit a model only when its levels are the published ones.
    """
    return _PUBLISHED.get(hashlib.sha256(np.ascontiguousarray(indices, "<i4").tobytes()).hexdigest()[:16])


def require_published(levels: Sequence[Level], weights: Path | str) -> None:
    """Refuse to give official weights, which are tied to the published vertices, other ones.

    Raises
    ------
    MetroError
        The levels are not those of SMPL or MANO that METRO was published with.
    """
    if not all(published_name(indices) for indices in compose_indices(levels)):
        raise MetroError(
            f"{weights}: official weights belong to the published mesh levels, and these are others; use the neutral "
            "SMPL (hands: right MANO) file they were published for, or sampling.legacy"
        )


def load_legacy(path: Path | str, faces_F3: Ints, sizes: Sequence[int] | None = None) -> list[Level]:
    """Read a published file without running anything that is pickled in it.

    Parameters
    ----------
    path
        `mesh_downsampling.npz` or `mano_downsampling.npz`.
    faces_F3
        Faces of the full mesh it is to be used with.
    sizes
        Vertices of the levels to read, from the first on; all levels when left out. The hand's file has four, of which
        METRO uses the first.

    Returns
    -------
    list of Level
        Fine to coarse.

    Raises
    ------
    MetroError
        The file is unreadable, holds anything but arrays and sparse matrices under D, U and F, has fewer levels or
        levels of other sizes, or belongs to another mesh.
    """
    path = Path(path)
    remedy = "get it again from METRO's code (metro/modeling/data)"
    with readable(path, remedy, (ZIP,)):
        return _levels(path, _read_objects(path, ("D", "U", "F")), faces_F3, sizes)


def levels_of(config: SamplingConfig, body: BodyData) -> list[Level]:
    """Levels of a body as `sampling` wants them: from the published file that it names, or built."""
    if config.legacy:
        return load_legacy(config.legacy, body.faces, config.sizes)
    return build_sampling(body.v_template, body.faces, config.sizes)


def _levels(path: Path, stored: dict[str, Any], faces_F3: Ints, sizes: Sequence[int] | None) -> list[Level]:
    for key in ("D", "U"):
        if key not in stored:
            raise MetroError(f"{path}: has no {key!r}; not a mesh_downsampling.npz or mano_downsampling.npz")
        if not isinstance(stored[key], np.ndarray) or stored[key].ndim != 1:
            raise ValueError(f"{key} is no list of matrices")
    available = min(len(stored["D"]), len(stored["U"]))
    count = available if sizes is None else len(sizes)
    if not 1 <= count <= available:
        raise MetroError(f"{path}: has {available} coarser levels, {count} are asked for; mend sampling.sizes")
    faces = [_array(plain(f)) for f in stored.get("F", [])[: count + 1]]
    finer = int(np.max(faces_F3)) + 1
    if faces and not np.array_equal(faces[0], faces_F3):
        raise MetroError(f"{path}: made for another mesh than the body's {finer} vertices and {len(faces_F3)} faces")
    levels = []
    for k in range(count):
        indices = _selection(path, k, _matrix(path, f"D[{k}]", stored["D"][k]))
        up = _matrix(path, f"U[{k}]", stored["U"][k])
        if up.shape != (finer, len(indices)) or not len(indices) or indices[-1] >= finer:
            raise MetroError(f"{path}: level {k + 1} does not fit a mesh of {finer} vertices")
        levels.append(Level(indices, up, _faces(path, k + 1, faces, len(indices))))
        finer = len(indices)
        if sizes is not None and finer != sizes[k]:
            raise MetroError(f"{path}: level {k + 1} has {finer} vertices, sampling.sizes asks for {sizes[k]}")
    return levels


def _selection(path: Path, level: int, down: sp.csr_matrix) -> npt.NDArray[np.int64]:
    """The vertices that a one-hot matrix selects."""
    one_hot = (np.diff(down.indptr) == 1).all() and (down.data == 1).all() and (np.diff(down.indices) > 0).all()
    if not one_hot:
        raise MetroError(f"{path}: D[{level}] is not a selection of vertices in ascending order")
    return down.indices.astype(np.int64)


def _faces(path: Path, level: int, faces: list[Any], vertices: int) -> Any:
    if not faces:
        return np.zeros((0, 3), np.int32)
    if len(faces) <= level:
        raise MetroError(f"{path}: F has no faces for level {level}")
    found = faces[level]
    shaped = found.ndim == 2 and found.shape[1] == 3 and found.dtype.kind in "iu"
    if not shaped or not 0 <= found.min() <= found.max() < vertices:
        raise MetroError(f"{path}: F[{level}] does not hold the faces of a mesh with {vertices} vertices")
    return found.astype(np.int32)


def _array(value: Any) -> npt.NDArray[Any]:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"F holds a {type(value).__name__}")
    return value.view(np.ndarray)


def _matrix(path: Path, name: str, value: Any) -> sp.csr_matrix:
    matrix = plain(value)
    if not sp.issparse(matrix):
        raise MetroError(f"{path}: {name} is a {type(matrix).__name__}, not a sparse matrix")
    matrix = sp.csr_matrix(matrix, dtype=np.float64)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if not np.isfinite(matrix.data).all():
        raise MetroError(f"{path}: {name} has values that are not finite")
    return matrix


def _read_objects(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """The wanted entries of an npz, pickled ones through the allow-list; the others are not opened."""
    found: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        for key in keys:
            if f"{key}.npy" not in archive.namelist():
                continue
            if archive.getinfo(f"{key}.npy").file_size > MAX_UNPACKED:
                raise ValueError(f"{key} unpacks to more than {MAX_UNPACKED >> 30} GiB")
            with archive.open(f"{key}.npy") as stream:
                version = np.lib.format.read_magic(stream)
                read_header = np.lib.format.read_array_header_1_0
                if version >= (2, 0):
                    read_header = np.lib.format.read_array_header_2_0
                _, _, kind = read_header(stream)
                if kind.hasobject:
                    found[key] = read_pickle(path, stream)
                    continue
            with archive.open(f"{key}.npy") as stream:
                found[key] = np.lib.format.read_array(stream, allow_pickle=False)
    return found
