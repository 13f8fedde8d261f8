"""Pickles made to harm: refused in one line, by a reader that no length, dtype or index leads outside of its memory."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from metro.body.pickles import plain, read_pickle
from metro.errors import MetroError
from metro.files import readable

RECONSTRUCT = np._core.multiarray._reconstruct
FROMBUFFER = np._core.numeric._frombuffer
OBJECTS = np.dtype(object)


class Made:
    """Pickles as a call, and a state for what it returns."""

    def __init__(self, call: Any, args: tuple, state: Any = None) -> None:
        self.parts = (call, args) if state is None else (call, args, state)

    def __reduce__(self) -> tuple:
        return self.parts


def array(shape: Any, dtype: Any, content: Any) -> Made:
    return Made(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, content))


def dtype(name: str, *state: Any) -> Made:
    return Made(np.dtype, (name, False, True), (3, *state))


def buffer(kind: Any) -> Made:
    return Made(FROMBUFFER, (b"A" * 8, kind, (1,), "C"))


def read(folder: Path, content: Any, protocol: int = 2) -> Any:
    (folder / "x.pkl").write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return read_pickle(folder / "x.pkl")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        # NumPy reads 100,000 pointers from a list of two, and ends the process.
        (array((100_000,), OBJECTS, [None, None]), "100000 objects with another number"),
        (array((2,), OBJECTS, b"0" * 16), "2 objects with another number"),
        (array((4,), np.dtype("f8"), b"0" * 31), "32 bytes with 31"),
        (array((4,), np.dtype("f8"), [1.0] * 4), "list where bytes"),
        (array((2**62, 4), np.dtype("f8"), b""), "larger than any"),
        (array((2**40, 0, 2**40), np.dtype("f8"), b""), "larger than any"),
        (array((-1,), np.dtype("f8"), b""), "shape that is none"),
        (array((1.0,), np.dtype("f8"), b"0" * 8), "shape that is none"),
        (array((1,) * 40, np.dtype("f8"), b"0" * 8), "shape that is none"),
        (array((1,), "f8", b"0" * 8), "state that is none"),
        (array((1,), np.dtype("f8,f8"), b"0" * 16), "refused.*dtype"),
        (array((1,), np.dtype("(2,)f8"), b"0" * 16), "refused.*dtype|state that is none"),
        (array((1,), np.dtype("V8"), b"0" * 8), "refused.*a dtype made of V8"),
        (array((9,), np.dtype("S0"), b""), "refused.*a dtype"),
        # A dtype of objects that says it holds none: eight bytes of the file would be taken for an address.
        (buffer(dtype("O8", "|", None, None, None, -1, -1, 0)), "refused.*objects in bytes"),
        (buffer(dtype("f8", "<", None, ("a",), {"a": (np.dtype("f8"), 99)}, 8, 1, 0)), "refused.*structured"),
        (Made(np._core.multiarray.scalar, (np.dtype("f8"), b"1234567")), "buffer is smaller|damaged"),
        (Made(np._core.multiarray.scalar, (OBJECTS, b"A" * 8)), "refused.*objects in bytes"),
        # States change the attributes of functions and classes, which outlive the file.
        (b"\x80\x02c_codecs\nencode\nN}U\x0c__defaults__U\x03zip\x85s\x86b.", "refused.*a state for a function"),
        (b"\x80\x02cchumpy.ch\nCh\n}U\x08evaluateK\x01sb.", "refused.*a state for a type"),
        # Sizes that the stream does not have.
        (b"\x80\x05\x96" + b"\xff" * 5 + bytes(3), "damaged"),
        (b"\x80\x04\x8e" + b"\xff" * 5 + bytes(3), "damaged"),
    ],
)  # fmt: skip
def test_claims_are_checked(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(MetroError, match=f"x.pkl: .*({said})"):
        read(tmp_path, content)


def test_an_array_takes_one_state(tmp_path: Path) -> None:
    state = (1, (1,), np.dtype("f8"), False, b"0" * 8)
    twice = pickle.dumps(Made(RECONSTRUCT, (np.ndarray, (0,), b"b"), state), 2)[:-1]
    again = pickle.dumps(state, 2)[2:-1]
    with pytest.raises(MetroError, match="state that is none"):
        read(tmp_path, twice + again + b"b.")


def test_byte_orders_are_read_and_leave_numpy_as_it_is(tmp_path: Path) -> None:
    swapped = np.arange(3, dtype=">i4")
    np.testing.assert_array_equal(read(tmp_path, swapped), [0, 1, 2])
    assert np.dtype("i4").isnative


def test_a_memo_may_have_gaps(tmp_path: Path) -> None:
    """C's reader makes room for two thousand million entries here."""
    assert read(tmp_path, b"\x80\x02K\x07r\xff\xff\xff\x7f.") == 7


def test_arrays_within_arrays_may_be_deep(tmp_path: Path) -> None:
    head = b"h\x00h\x01K\x00\x85U\x01b\x87R(K\x01K\x01\x85h\x02\x89]"
    names = b"cnumpy.core.multiarray\n_reconstruct\nq\x000cnumpy\nndarray\nq\x010"
    names += b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87Rq\x020"
    nested = read(tmp_path, b"\x80\x02" + names + head * 50_000 + b"N" + b"atb" * 50_000 + b".")
    assert nested.shape == (1,)
    del nested  # freed without recursion


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix])
def test_pointers_of_sparse_matrices_are_not_believed(tmp_path: Path, kind: type) -> None:
    matrix = kind((2, 3))
    matrix.indptr = np.array([0, 2**40, *[0] * (len(matrix.indptr) - 2)], np.int64)  # no entries at the end
    with pytest.raises(ValueError, match="do not follow"):
        plain(read(tmp_path, matrix))
    full = kind(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(plain(read(tmp_path, full)).toarray(), full.toarray())


def test_nodes_within_themselves_and_endless_lists_end(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    itself = read(tmp_path, b"\x80\x02cchumpy.ch\nCh\n)\x81q\x00}U\x01xh\x00sb.")
    with pytest.raises(MetroError, match="damaged"), readable(path, "get it again"):
        plain(itself)
    doubling = read(
        tmp_path, b"\x80\x02cchumpy.ch\nCh\n)\x81}U\x01x(lq\x00h\x00ah\x00asb."
    )  # NumPy would try 2^64 lists
    with pytest.raises(ValueError, match="list where an array"):
        plain(doubling)
