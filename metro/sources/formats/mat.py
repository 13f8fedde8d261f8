"""MATLAB files, of version 5 to 7 and of 7.3 (HDF5), as plain values.

=============  =====================================================================================
in MATLAB      here
=============  =====================================================================================
a number       int or float
numbers        array of the same shape (2 axes at least) and type
text           str; list of str where it has several rows
cells          list, in MATLAB's linear order
struct         list of dicts, one for a single struct too, in MATLAB's linear order
=============  =====================================================================================

What is neither (functions, objects, sparse and complex matrices) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metro.errors import MetroError
from metro.files import GET_AGAIN, readable
from metro.sources.formats import mat5, mat73


def read_mat(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """Variables of a MATLAB file by name.

    Raises
    ------
    MetroError
        The file is missing or damaged, lacks a variable, or holds in one what is neither numbers, text, cells nor
        structs.
    """
    wanted = list(names)
    with readable(path, GET_AGAIN):
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                found = mat73.read(file, wanted)
        else:
            found = mat5.read(path.read_bytes(), wanted)
    for name in wanted:
        if name not in found:
            raise MetroError(
                f"{path}: holds no variable {name!r}; is it the file of that name that the set comes with?"
            )
    return found


def cells(path: Path, name: str, wanted: Iterable[int]) -> Iterator[Any]:
    """Some cells of a variable, in the order asked for; of a 7.3 file only one is in memory at a time.

    Raises
    ------
    MetroError
        As `read_mat`, or the variable is no cell array, or has no such cell.
    """
    with readable(path, GET_AGAIN), _cells(path, name) as (count, cell):
        for index in wanted:
            if not 0 <= index < count:
                raise ValueError(f"no cell {index} among the {count} of {name}")
            yield cell(index)


def count_cells(path: Path, name: str) -> int:
    """Number of cells of a variable.

    Raises
    ------
    MetroError
        As `read_mat`, or the variable is no cell array.
    """
    with readable(path, GET_AGAIN), _cells(path, name) as (count, _):
        return count


@contextmanager
def _cells(path: Path, name: str) -> Iterator[tuple[int, Callable[[int], Any]]]:
    """Number of cells of a variable, and what reads one."""
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            references = mat73.references(file, name)
            yield len(references), lambda index: mat73.target(file, references[index])
    else:
        stored = read_mat(path, [name])[name]
        if not isinstance(stored, list):
            raise ValueError(f"{name} is no cell array")
        yield len(stored), stored.__getitem__


def structs(value: Any) -> list[dict[str, Any]]:
    """The structs in a field that holds one, several, or none: ``[]``, or the field is not there (None).

    Raises
    ------
    ValueError
        It holds something else.
    """
    if value is None or (isinstance(value, np.ndarray | str) and not len(value)):
        return []
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise ValueError(f"{_kind(value)} where structs are expected")


def number(value: Any) -> float | None:
    """The number in a field that holds it as such or as text; None where it is empty or the field is not there.

    Raises
    ------
    ValueError
        It holds something else.
    """
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        return float(value) if value.strip() else None
    if value is None or (isinstance(value, np.ndarray | list) and not len(value)):
        return None
    raise ValueError(f"{_kind(value)} where a number is expected")


def _kind(value: Any) -> str:
    return f"numbers of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
