"""Reading foreign pickles without trusting them.

Model files and dataset annotations of this field are Python pickles, and a pickle can run any code. This reader builds
only what such files hold as data: numpy arrays and scalars, SciPy sparse matrices, sets, ordered dicts, and chumpy
nodes, of which the state is kept without chumpy. Every other class or function is refused by name.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import scipy.sparse as sp

from metro.errors import MetroError

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_SPARSE = ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array")


def read_pickle(path: Path, stream: IO[bytes] | None = None) -> Any:
    """Load a pickle, also one written by Python 2, if it holds nothing but data.

    With `stream` the pickle is what follows there, for pickles inside other files; `path` names it in messages.

    chumpy nodes and sparse matrices come back as stand-ins; `plain` turns one into its array or matrix. Whoever needs a
    value calls it, because a file may hold nodes that have no plain value and that nobody needs.

    Raises
    ------
    MetroError
        The file is missing, is no pickle, is broken, or asks for a class that is not on the list.
    """
    try:
        with nullcontext(stream) if stream is not None else Path(path).open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except _RefusedError as err:
        raise MetroError(f"{path}: refused, it asks for {err}, which is neither an array nor plain data") from None
    except OSError as err:
        raise MetroError(f"{path}: cannot be read ({err.strerror})") from None
    # Damaged bytes can fail in any of these ways inside the unpickler and numpy.
    except (
        *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError),
        *(ImportError, MemoryError, OverflowError, RecursionError, NotImplementedError),
    ) as err:
        raise MetroError(f"{path}: not a readable pickle ({type(err).__name__}: {err})") from None


def plain(value: Any) -> Any:
    """The array or matrix that a stored node stands for; other values as they are.

    Raises
    ------
    MetroError
        A chumpy expression that is neither a constant nor a selection from one, or an inconsistent sparse matrix.
    """
    return value.evaluate() if isinstance(value, _Node) else value


class _RefusedError(Exception):
    """A global that is not on the list."""


class _Node:
    """Stands in for a class instance: keeps the state that the pickle gives it and runs nothing."""

    path = ""

    def __new__(cls, *args: Any) -> _Node:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError(f"{self.path} with a state that is no dict")
        self.state = state

    def evaluate(self) -> Any:
        raise NotImplementedError


class _Chumpy(_Node):
    def evaluate(self) -> np.ndarray:
        if "x" in self.state:
            return np.asarray(plain(self.state["x"]))
        if {"a", "idxs", "preferred_shape"} <= self.state.keys():  # chumpy.reordering.Select
            chosen = np.asarray(plain(self.state["a"])).ravel()[np.asarray(self.state["idxs"])]
            return chosen.reshape(self.state["preferred_shape"])
        raise MetroError(f"{self.path} is a chumpy expression, not a constant array; save it as an array first")


class _Sparse(_Node):
    def evaluate(self) -> Any:
        # Rebuilt by the constructor and checked in full: SciPy's kernels trust the indices.
        kind = self.path.rpartition(".")[2]
        shape = tuple(int(n) for n in self.state.get("_shape", self.state.get("shape", ())))
        try:
            if kind.startswith("coo"):
                coords = self.state["coords"] if "coords" in self.state else (self.state["row"], self.state["col"])
                return sp.coo_matrix((self.state["data"], tuple(map(np.asarray, coords))), shape=shape)
            made = sp.csc_matrix if kind.startswith("csc") else sp.csr_matrix
            matrix = made((self.state["data"], self.state["indices"], self.state["indptr"]), shape=shape)
            matrix.check_format(full_check=True)
            return matrix
        except (KeyError, ValueError, TypeError) as err:
            raise MetroError(f"inconsistent sparse matrix in the pickle ({err})") from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "chumpy" or module.startswith("chumpy."):
            return _node_class(_Chumpy, module, name)
        if (module == "scipy.sparse" or module.startswith("scipy.sparse.")) and name in _SPARSE:
            return _node_class(_Sparse, module, name)
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _RefusedError(f"an external object ({pid!r:.40})")


def _node_class(base: type[_Node], module: str, name: str) -> type[_Node]:
    return type(name.rpartition(".")[2], (base,), {"path": f"{module}.{name}"})


def _new_node(cls: Any, base: Any, state: Any) -> _Node:
    """What `copyreg._reconstructor` does, for stand-ins only."""
    if not (isinstance(cls, type) and issubclass(cls, _Node)):
        raise _RefusedError(f"an instance of {cls!r}")
    return cls()


def _no_bytes() -> bytes:
    """How Python 3 writes empty bytes into the old protocols."""
    return b""


class _ArrayType:
    """Stands in for `numpy.ndarray`, which pickles name but must not call."""


def _new_array(subtype: Any, shape: Any, kind: Any) -> np.ndarray:
    """What numpy's `_reconstruct` does; the array's own `__setstate__` fills it."""
    if subtype is not _ArrayType:
        raise _RefusedError(f"an array of type {subtype!r}")
    return np.empty(0, np.uint8)


def _array_of(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """What numpy's `_frombuffer` does (pickle protocol 5)."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise _RefusedError(f"an array of {dtype!r}")
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _new_scalar(dtype: np.dtype, data: Any = None) -> Any:
    """What numpy's `scalar` does, for plain numbers and strings."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise _RefusedError(f"a scalar of type {dtype!r}")
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype, count=1)[0]


def _new_dtype(*args: Any) -> np.dtype:
    """What numpy's `dtype` does when a pickle calls it: made from a type string, never from an object."""
    if not args or not isinstance(args[0], str):
        raise _RefusedError(f"a dtype made of {args[:1]!r}")
    return np.dtype(args[0])


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes into the old protocols."""
    if encoding != "latin1":
        raise _RefusedError(f"the codec {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], type | Callable[..., Any]] = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _new_dtype,
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
