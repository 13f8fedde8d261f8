"""MATLAB files of version 5 to 7, as `mat` describes the values.

`scipy.io.loadmat` allocates what a file claims and follows nested cells until the stack overflows. Here every count is
checked against the bytes that are there.

A file is a row of elements, each a tag (type and size) with its content. A matrix is an element made of elements:
flags, shape, name, and then numbers, or a matrix for each cell, or one for each field of each struct.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import numpy as np

MAX_UNPACKED = 1 << 30
"""Bytes that the variables read at once may hold."""

_DEPTH = 32
"""Levels of cells and structs within one another."""
_VALUE = 100
"""Bytes that a value takes beside its numbers."""
_START = 4096
"""Bytes that hold the name of a variable, whatever follows."""
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_TEXT = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_REFUSED = {3: "an object", 5: "a sparse matrix", 16: "a function", 17: "an object"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_COMPLEX = 0x0800


def read(raw: bytes, wanted: list[str]) -> dict[str, Any]:
    """Those of the wanted variables that there are.

    Raises
    ------
    ValueError, struct.error, zlib.error
        The content is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:128])
    if order is None:
        raise ValueError("no MATLAB file of version 5 or later")
    found: dict[str, Any] = {}
    budget, at = MAX_UNPACKED, 128
    file = _Elements(raw, order)
    while at < len(raw) and len(found) < len(set(wanted)):
        kind, start, end = file.tag(at)
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            content = inflater.decompress(raw[start:end], _START)
            name = _Elements(content, order).name()
            if name in wanted:
                content += inflater.decompress(inflater.unconsumed_tail, budget)
                if not inflater.eof:
                    raise ValueError(f"{name} is cut off, or unpacks to more than {MAX_UNPACKED >> 30} GiB")
                found[name] = _Elements(content, order).matrix(0, len(content))[0]
                budget -= len(content)
            at = end
        else:
            name = _Elements(raw[at : at + _START], order).name() if kind == _MATRIX else ""
            if name in wanted:
                found[name] = file.matrix(at, end)[0]
            at = _padded(end)
    return found


def _padded(at: int) -> int:
    return at + -at % 8


class _Elements:
    """Bytes as elements; positions count from a multiple of 8."""

    def __init__(self, raw: bytes, order: str) -> None:
        self._raw = raw
        self._order = order
        self._left = MAX_UNPACKED
        self._tag = struct.Struct(f"{order}II")

    def tag(self, at: int, cut: bool = False) -> tuple[int, int, int]:
        """Type of the element at a position, and where its content begins and ends; `cut` content may lie beyond."""
        kind, size = self._tag.unpack_from(self._raw, at)
        if kind >> 16:  # a small one, all in 8 bytes
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise ValueError(f"an element of {size} bytes in 4")
        else:
            start = at + 8
        if start + size > len(self._raw) and not cut:
            raise ValueError(f"ends early, an element of {size} bytes at byte {at} has {len(self._raw) - start}")
        return kind, start, start + size

    def name(self) -> str:
        """Name of the matrix that begins here, of which only the beginning need be here."""
        kind, at, _ = self.tag(0, cut=True)
        if kind != _MATRIX:
            return ""
        for _ in range(2):  # flags, shape
            at = _padded(self.tag(at)[2])
        _, start, end = self.tag(at)
        return self._raw[start:end].decode("latin1")

    def matrix(self, at: int, limit: int, depth: int = 0) -> tuple[Any, int]:
        """The matrix at a position, all of it before `limit`, as a plain value, and where the next element begins."""
        kind, at, end = self.tag(at)
        if kind != _MATRIX or end > limit or depth > _DEPTH:
            raise ValueError("nested too deeply" if depth > _DEPTH else "something else where a matrix is expected")
        self._left -= _VALUE
        if self._left < 0:
            raise ValueError(f"holds more than {MAX_UNPACKED >> 30} GiB")
        if at == end:
            return np.empty((0, 0)), end
        _, start, stop = self.tag(at)
        (flags,) = struct.unpack_from(f"{self._order}I", self._raw, start)
        kind = flags & 0xFF
        if kind in _REFUSED or flags & _COMPLEX:
            raise ValueError(f"holds {_REFUSED.get(kind, 'complex numbers')}, which is neither numbers nor text")
        shape, at = self._integers(_padded(stop))
        at = _padded(self.tag(at)[2])  # the name
        if kind == _CELL:
            value: Any = self._matrices(at, end, math.prod(shape), depth)
        elif kind == _STRUCT:
            value = self._structs(at, end, math.prod(shape), depth)
        else:
            value = self._content(at, end, kind, shape)
        return value, _padded(end)

    def _integers(self, at: int) -> tuple[tuple[int, ...], int]:
        _, start, end = self.tag(at)
        count = (end - start) // 4
        shape = struct.unpack_from(f"{self._order}{count}i", self._raw, start)
        if count < 1 or count > 32 or min(shape) < 0:
            raise ValueError("a matrix with a shape that is none")
        return shape, _padded(end)

    def _matrices(self, at: int, end: int, count: int, depth: int) -> list[Any]:
        if count * 8 > end - at:
            raise ValueError(f"{count} cells or fields in {end - at} bytes")
        values = []
        for _ in range(count):
            value, at = self.matrix(at, end, depth + 1)
            values.append(value)
        return values

    def _structs(self, at: int, end: int, count: int, depth: int) -> list[dict[str, Any]]:
        (length,), at = self._integers(at)
        _, start, stop = self.tag(at)
        names = [
            self._raw[k : min(k + length, stop)].partition(b"\0")[0].decode("latin1")
            for k in range(start, stop, max(length, 1))
        ]
        if not names:
            return [{}] if count == 1 else []
        values = self._matrices(_padded(stop), end, count * len(names), depth)
        return [dict(zip(names, values[k : k + len(names)], strict=True)) for k in range(0, len(values), len(names))]

    def _content(self, at: int, limit: int, kind: int, shape: tuple[int, ...]) -> np.ndarray | float | str | list[str]:
        stored, start, end = self.tag(at)
        raw = self._raw[start : min(end, limit)]
        if kind == _CHAR:
            return self._text(stored, raw, shape)
        if kind not in _NUMBERS or stored not in _STORED:
            raise ValueError(f"a matrix of class {kind} stored as type {stored}")
        numbers = np.frombuffer(raw, self._order + _STORED[stored])
        self._left -= numbers.size * 8
        if shape == (1, 1):
            return numbers.astype(_NUMBERS[kind]).item()
        return numbers.astype(_NUMBERS[kind]).reshape(shape, order="F")

    def _text(self, stored: int, raw: bytes, shape: tuple[int, ...]) -> str | list[str]:
        if stored not in _TEXT:
            raise ValueError(f"text stored as type {stored}")
        encoding = _TEXT[stored] + ("-le" if self._order == "<" else "-be") * (_TEXT[stored] == "utf-16")
        text = raw.decode(encoding)
        rows = shape[0]
        return text if rows <= 1 else [text[row::rows] for row in range(rows)]
