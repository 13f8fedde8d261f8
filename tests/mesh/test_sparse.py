"""Matrices whose arrays come from a file."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from metro.mesh.sparse import checked_csr


@given(arrays(np.float64, (4, 3), elements=st.sampled_from([0.0, 0.0, 1.5, -2.0])))
def test_what_scipy_writes_is_read(dense: np.ndarray) -> None:
    m = sp.csr_matrix(dense)
    assert (checked_csr(m.data, m.indices, m.indptr, np.array(m.shape)).toarray() == dense).all()
    other = (m.data.astype(">f2"), m.indices.astype(">u8"), m.indptr.astype(np.int16))  # all exact
    assert (checked_csr(*other, m.shape).toarray() == dense).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        # SciPy's full check passes this one: no entries at the end, a huge pointer on the way.
        ({"indptr": [0, 2**40, 0], "indices": [], "data": []}, "follow"),
        ({"indptr": [0, -(2**62), 2]}, "follow"),
        ({"indptr": [1, 1, 2]}, "follow"),
        ({"indptr": [0, 1]}, "follow"),
        ({"indptr": []}, "follow"),
        ({"indptr": [0, 1, 2**40]}, "entries"),
        ({"data": [1.0]}, "2 entries with 2 columns and 1 values"),
        ({"indices": [0, 3]}, "columns"),
        ({"indices": [-1, 0]}, "columns"),
        ({"indices": [0.0, 1.0]}, "float64"),
        ({"data": [1.0, np.nan]}, "finite"),
        ({"data": [1.0, 1j]}, "complex"),
        ({"data": [[1.0, 2.0]]}, "vectors"),
        ({"shape": (2, 2**40)}, "shape"),
        ({"shape": (-1, 3)}, "shape"),
        ({"shape": (2, 3, 4)}, "unpack"),
    ],
)
def test_indices_that_point_elsewhere_are_refused(change: dict, reason: str) -> None:
    parts = {"data": [1.0, 2.0], "indices": [0, 2], "indptr": [0, 1, 2], "shape": (2, 3)} | change
    kinds = {"indices": np.int64, "indptr": np.int64}
    made = {k: np.array(v, kinds[k] if k in kinds and not v else None) for k, v in parts.items() if k != "shape"}
    with pytest.raises(ValueError, match=reason):
        checked_csr(**made, shape=parts["shape"])
