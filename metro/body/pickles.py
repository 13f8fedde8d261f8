"""Reading foreign pickles without trusting them.

Model files and dataset annotations of this field are Python pickles, and a pickle can run any code. This reader builds
only what such files hold as data: numpy arrays and scalars, SciPy sparse matrices, sets, ordered dicts, and chumpy
nodes, of which the state is kept without chumpy. Every other class or function is refused by name.

It is memory safe as well, which NumPy's and SciPy's own unpickling is not: they believe lengths, dtypes and indices.
Here arrays check their state before NumPy sees it, dtypes are made from their names alone, sparse matrices are built
from coordinates, and nothing else takes a state.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar, NoReturn

import numpy as np
import scipy.sparse as sp

from metro.errors import MetroError
from metro.files import PICKLE, ZIP, readable, refuse_others

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_SPARSE = ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array")
_MAX_SIZE = 1 << 31
"""Elements of an array: far more than any file of this field holds, and too few to overflow."""


def read_pickle(path: Path, stream: IO[bytes] | None = None) -> Any:
    """Load a pickle, also one written by Python 2, if it holds nothing but data.

    With `stream` the pickle is what follows there, for pickles inside of an npz; `path` names it in messages.

    chumpy nodes and sparse matrices come back as stand-ins; `plain` turns one into its array or matrix. Whoever needs a
    value calls it, because a file may hold nodes that have no plain value and that nobody needs.

    Raises
    ------
    MetroError
        The file is missing, is no pickle, is broken, or asks for a class that is not on the list.
    """
    remedy = "get it again from where it came"
    form = (PICKLE, "text") if stream is None else (ZIP,)  # the oldest protocol is text
    with readable(path, remedy, form):
        raw = path.read_bytes() if stream is None else stream.read()
        try:
            return _Unpickler(io.BytesIO(raw), encoding="latin1").load()
        except _RefusedError as err:
            refuse_others(path, remedy, form)
            raise MetroError(f"{path}: refused, it asks for {err}, which is neither an array nor plain data") from None


def plain(value: Any) -> Any:
    """The array or matrix that a stored node stands for; other values as they are.

    Raises
    ------
    MetroError
        A chumpy expression that is neither a constant nor a selection from one.
    ValueError
        Or whatever else an inconsistent node leads to: `readable` belongs around it.
    """
    return value.evaluate() if isinstance(value, _Node) else value


class _RefusedError(Exception):
    """A global, or a use of one, that is not on the list."""

    def __init__(self, what: str) -> None:
        super().__init__(" ".join(what.split())[:100])


class _Node:
    """Stands in for a class instance: keeps the state that the pickle gives it and runs nothing."""

    path = ""

    def __new__(cls, *args: Any) -> _Node:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        self.state: dict[str, Any] = {}

    def restore(self, state: Any) -> None:
        """The state in the pickle."""
        if not isinstance(state, dict):
            raise ValueError(f"{self.path} with a state that is no dict")
        self.state = state

    def evaluate(self) -> Any:
        raise NotImplementedError


class _Chumpy(_Node):
    def evaluate(self) -> np.ndarray:
        if "x" in self.state:
            return _numbers(plain(self.state["x"]))
        if {"a", "idxs", "preferred_shape"} <= self.state.keys():  # chumpy.reordering.Select
            chosen = _numbers(plain(self.state["a"])).ravel()[_numbers(self.state["idxs"])]
            return chosen.reshape(self.state["preferred_shape"])
        raise MetroError(f"{self.path} is a chumpy expression, not a constant array; save it as an array first")


class _Sparse(_Node):
    def evaluate(self) -> Any:
        kind = self.path.rpartition(".")[2]
        rows, columns = (int(n) for n in self.state.get("_shape", self.state.get("shape", ())))
        data = _numbers(self.state["data"])
        if kind.startswith("coo"):
            coords = self.state["coords"] if "coords" in self.state else (self.state["row"], self.state["col"])
            row, column = map(_numbers, coords)
            return sp.coo_matrix((data, (row, column)), shape=(rows, columns))
        # By coordinates: SciPy checks those, but believes pointers.
        starts = _numbers(self.state["indptr"]).astype(np.int64)
        counts = starts[1:] - starts[:-1]
        column = _numbers(self.state["indices"])
        if (counts < 0).any() or counts.sum() != len(column):
            raise ValueError("a sparse matrix whose rows do not follow one another")
        if kind.startswith("csc"):
            return sp.coo_matrix((data, (column, np.repeat(np.arange(columns), counts))), shape=(rows, columns)).tocsc()
        return sp.coo_matrix((data, (np.repeat(np.arange(rows), counts), column)), shape=(rows, columns)).tocsr()


def _numbers(value: Any) -> np.ndarray:
    """The value if it is an array of numbers; NumPy would make one of lists as well, and of some never come back."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise ValueError(f"{type(value).__name__} where an array of numbers is expected")
    return value


class _Array(np.ndarray):
    """An array as NumPy pickles it: made empty, filled by its state."""

    def restore(self, state: Any) -> None:
        """Check the state that NumPy would believe, and take it."""
        shape, dtype, fortran, raw = state[-4:]  # before: a version
        if self.base is not None or self.size or not isinstance(shape, tuple) or not isinstance(dtype, _DType):
            raise ValueError("an array with a state that is none")
        count, dtype = _count(shape), dtype.dtype
        if dtype.hasobject:
            if not isinstance(raw, list) or len(raw) != count:
                raise ValueError(f"an array of {count} objects with another number of them")
        else:
            raw = _bytes(raw)
            if len(raw) != count * dtype.itemsize:
                raise ValueError(f"an array of {count * dtype.itemsize} bytes with {len(raw)}")
        np.ndarray.__setstate__(self, (1, shape, dtype, bool(fortran), raw))  # type: ignore[arg-type]


class _DType:
    """Stands in for a `numpy.dtype`, whose own state may claim anything: made from a name, given a byte order."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.dtype = np.dtype(name) if isinstance(name, str) else np.dtype("V0")
        if self.dtype.kind not in "?biufcSUO" or not self.dtype.itemsize:
            raise _RefusedError(f"a dtype made of {name if isinstance(name, str) else type(name).__name__}")

    def restore(self, state: Any) -> None:
        """Version, byte order, and what only a structured dtype has."""
        order, *structure = state[1:5]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in structure):
            raise _RefusedError("a structured dtype")
        self.dtype = self.dtype.newbyteorder(order)


class _Unpickler(pickle._Unpickler):  # the one written in Python: it allocates nothing that the stream merely claims
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "chumpy" or module.startswith("chumpy."):
            return _node_class(_Chumpy, module, name)
        if (module == "scipy.sparse" or module.startswith("scipy.sparse.")) and name in _SPARSE:
            return _node_class(_Sparse, module, name)
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _RefusedError("an external object")

    def load_build(self) -> None:
        """Give a state to one of the stand-ins above; the attributes and methods of everything else stay its own."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Node | _Array | _DType):
            raise _RefusedError(f"a state for a {type(self.stack[-1]).__name__}")
        self.stack[-1].restore(state)

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _node_class(base: type[_Node], module: str, name: str) -> type[_Node]:
    return type(name.rpartition(".")[2], (base,), {"path": f"{module}.{name}"})


def _new_node(cls: Any, base: Any, state: Any) -> _Node:
    """What `copyreg._reconstructor` does, for stand-ins only."""
    if not (isinstance(cls, type) and issubclass(cls, _Node)):
        raise _RefusedError(f"an instance of {getattr(cls, '__name__', type(cls).__name__)}")
    return cls()


def _no_bytes() -> bytes:
    """How Python 3 writes empty bytes into the old protocols."""
    return b""


class _ArrayType:
    """Stands in for `numpy.ndarray`, which pickles name but must not call."""


def _new_array(subtype: Any, shape: Any, kind: Any) -> np.ndarray:
    """What numpy's `_reconstruct` does; a state fills the array."""
    if subtype is not _ArrayType:
        raise _RefusedError(f"an array of type {getattr(subtype, '__name__', type(subtype).__name__)}")
    return np.ndarray.__new__(_Array, 0, np.uint8)


def _array_of(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """What numpy's `_frombuffer` does (pickle protocol 5)."""
    plain_dtype = _without_objects(dtype)
    _count(shape)
    return np.frombuffer(_bytes(buffer), plain_dtype).reshape(shape, order=order).view(_Array)


def _new_scalar(dtype: Any, data: Any = None) -> Any:
    """What numpy's `scalar` does, for plain numbers and strings."""
    return np.frombuffer(_bytes(data), _without_objects(dtype), count=1)[0]


def _without_objects(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _DType) or dtype.dtype.hasobject:
        raise _RefusedError("an array of objects in bytes")
    return dtype.dtype


def _count(shape: Any) -> int:
    """Elements of an array of this shape; refuses what NumPy's arithmetic could overflow on."""
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array with a shape that is none")
    if math.prod(max(n, 1) for n in shape) > _MAX_SIZE:
        raise ValueError("an array larger than any in a file of this kind")
    return math.prod(shape)


def _bytes(raw: Any) -> bytes | bytearray:
    """Bytes as Python 3 writes them, or as Python 2 did: text of the same numbers."""
    if isinstance(raw, str):
        return raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray):
        raise ValueError(f"{type(raw).__name__} where bytes are expected")
    return raw


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes into the old protocols."""
    if encoding != "latin1":
        raise _RefusedError("another codec than latin1")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], type | Callable[..., Any]] = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _DType,
    **{(module, "_reconstruct"): _new_array for module in _MULTIARRAY},
    **{(module, "scalar"): _new_scalar for module in _MULTIARRAY},
    **{(module, "_frombuffer"): _array_of for module in ("numpy.core.numeric", "numpy._core.numeric")},
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in (set, frozenset, complex)},
    **{(module, "object"): object for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): _no_bytes for module in ("builtins", "__builtin__")},
    **{(module, "_reconstructor"): _new_node for module in ("copyreg", "copy_reg")},
    ("_codecs", "encode"): _encode,
}
