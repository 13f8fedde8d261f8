"""Sparse matrices from files: checked before SciPy's kernels, which trust indices, see them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp


def checked_csr(
    data: npt.NDArray[Any], indices: npt.NDArray[Any], indptr: npt.NDArray[Any], shape: Sequence[int]
) -> sp.csr_matrix:
    """The matrix that three arrays of a file describe, in double precision.

    SciPy's own full check passes pointers that leave their range on the way and come back at the end, and its kernels
    then read and write outside of their arrays.

    Parameters
    ----------
    data, indices
        Values and columns of the entries, row by row.
    indptr
        Where each row begins in them; the last is their number.
    shape
        Rows and columns.

    Raises
    ------
    ValueError
        The arrays are no such matrix, or have values that are not finite.
    """
    rows, columns = map(operator.index, shape)
    if not (0 <= rows < 2**31 and 0 <= columns < 2**31):
        raise ValueError(f"a sparse matrix of shape {rows} × {columns}")
    if any(part.ndim != 1 for part in (data, indices, indptr)):
        raise ValueError("a sparse matrix whose parts are no vectors")
    if data.dtype.kind not in "fiu" or indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise ValueError(f"a sparse matrix of {data.dtype}, {indices.dtype} and {indptr.dtype}")
    if len(indptr) != rows + 1 or indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any():
        raise ValueError("a sparse matrix whose rows do not follow one another")
    if not indptr[-1] == len(indices) == len(data):
        raise ValueError(f"a sparse matrix of {indptr[-1]} entries with {len(indices)} columns and {len(data)} values")
    if len(indices) and not (indices.min() >= 0 and indices.max() < columns):
        raise ValueError("a sparse matrix with entries outside of its columns")
    with np.errstate(over="ignore"):
        values = data.astype(np.float64, copy=False)  # SciPy knows no half precision, and no foreign byte order
    if not np.isfinite(values).all():
        raise ValueError("a sparse matrix with values that are not finite")
    places = (part.astype(np.int64, copy=False) for part in (indices, indptr))
    return sp.csr_matrix((values, *places), shape=(rows, columns))
