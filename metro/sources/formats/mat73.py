"""MATLAB files of version 7.3, which are HDF5, as `mat` describes the values.

HDF5 sees the axes of MATLAB reversed. A struct is a group with a dataset or a group for each field; cells, and the
fields of several structs, are datasets of object references.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

MAX_BYTES = 1 << 30
"""Bytes that the variables read at once may hold."""

_DEPTH = 32
"""Levels of cells and structs within one another."""


def read(file: h5py.File, wanted: Iterable[str]) -> dict[str, Any]:
    """Those of the wanted variables that there are.

    Raises
    ------
    ValueError
        The content is damaged, or leads out of the file. Or whatever else HDF5 raises.
    """
    reader = _Reader(file)
    return {name: reader.member(file, name) for name in wanted if name in file}


def references(file: h5py.File, name: str) -> np.ndarray:
    """References of the cells of a variable, in MATLAB's linear order.

    Raises
    ------
    ValueError
        There is no cell array of that name. Or as `read`.
    """
    reader = _Reader(file)
    stored = reader.inside(file, name)
    if not isinstance(stored, h5py.Dataset) or stored.dtype != h5py.ref_dtype:
        raise ValueError(f"{name} is no cell array")
    return reader.array(stored).ravel()


def target(file: h5py.File, reference: h5py.Reference) -> Any:
    """The cell that a reference leads to; raises as `read`."""
    return _Reader(file).target(reference)


class _Reader:
    """What a file holds, each object once: references may meet."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._left = MAX_BYTES
        self._known: dict[Any, Any] = {}
        self._depth = 0

    def member(self, group: h5py.Group, name: str) -> Any:
        """A variable, or a field of a struct."""
        return self._value(self.inside(group, name))

    def target(self, reference: h5py.Reference) -> Any:
        """What a reference leads to."""
        if not reference:
            raise ValueError("a reference to nothing")
        return self._value(self._file[reference])

    def inside(self, group: h5py.Group, name: str) -> h5py.Dataset | h5py.Group:
        """What lies under a name, in this file."""
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name} is a link to elsewhere")
        return group[name]

    def _value(self, stored: h5py.Dataset | h5py.Group) -> Any:
        place = h5py.h5o.get_info(stored.id).addr
        if place not in self._known:
            if self._depth > _DEPTH:
                raise ValueError("nested too deeply, or within itself")
            self._depth += 1
            self._known[place] = self._structs(stored) if isinstance(stored, h5py.Group) else self._plain(stored)
            self._depth -= 1
        return self._known[place]

    def _structs(self, group: h5py.Group) -> list[dict[str, Any]]:
        fields: dict[str, list[Any]] = {}
        for name in group:
            stored = self.inside(group, name)
            several = isinstance(stored, h5py.Dataset) and stored.dtype == h5py.ref_dtype and not _class(stored)
            fields[name] = [self.target(r) for r in self.array(stored).ravel()] if several else [self._value(stored)]
        if len({len(values) for values in fields.values()}) > 1:
            raise ValueError(f"the structs of {group.name} have different numbers of values")
        return [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]

    def _plain(self, stored: h5py.Dataset) -> Any:
        kind = _class(stored)
        if "MATLAB_empty" in stored.attrs:  # the numbers are the shape
            return "" if kind == "char" else [] if kind in ("cell", "struct") else np.empty((0, 0))
        if stored.dtype == h5py.ref_dtype:
            return [self.target(reference) for reference in self.array(stored).ravel()]
        if stored.dtype.kind not in "biuf" or kind in ("function_handle", "unknown"):
            raise ValueError(f"{stored.name} is neither numbers, text, cells nor structs")
        values = self.array(stored).T
        if kind == "char":
            rows = ["".join(map(chr, row)) for row in np.atleast_2d(values).tolist()]
            return rows[0] if len(rows) == 1 else rows
        return values.item() if values.size == 1 else values

    def array(self, stored: h5py.Dataset) -> np.ndarray:
        """The numbers or references of a dataset."""
        if stored.external or stored.is_virtual:
            raise ValueError(f"{stored.name} lies in another file")
        self._left -= stored.nbytes
        if self._left < 0:
            raise ValueError(f"holds more than {MAX_BYTES >> 30} GiB")
        return np.asarray(stored[()])


def _class(stored: h5py.Dataset) -> str:
    """MATLAB's class of a dataset; none where it is not MATLAB's."""
    if "MATLAB_class" not in stored.attrs:
        return ""
    kind = stored.attrs.get_id("MATLAB_class").get_type()
    if (
        not isinstance(kind, h5py.h5t.TypeStringID) or kind.is_variable_str()
    ):  # a damaged one of free length may never end
        raise ValueError(f"{stored.name} with a class that is none")
    return bytes(stored.attrs["MATLAB_class"]).decode("latin1")
