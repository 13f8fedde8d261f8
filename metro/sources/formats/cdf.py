"""CDF files (NASA's Common Data Format), as Human3.6M keeps its joints in.

`cdflib` gives zeros for frames that a damaged file lacks, which would become people at the camera, and a wrong count
keeps it busy for half an hour. Here every byte of the answer is one of the file, or there is no answer; `cdflib` reads
files before version 3 alone (none was at hand to try).

A file is made of records that begin with their size and type: CDR and GDR describe the file; a VDR each variable; VXRs
say which records of a variable lie where, in VVRs or, compressed, in CVVRs. Offsets and sizes are big-endian.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metro.files import GET_AGAIN, readable

MAX_BYTES = 1 << 28
"""Bytes that a file may hold, unpacked."""

_OLDER = (b"\xcd\xf2\x60\x02", b"\x00\x00\xff\xff")
"""First bytes of files of version 2.6 and of those before."""
_MAGIC, _PLAIN, _COMPRESSED = b"\xcd\xf3\x00\x01", b"\x00\x00\xff\xff", b"\xcc\xcc\x00\x01"
_CDR, _GDR, _RVDR, _VXR, _VVR, _ZVDR, _CVVR = 1, 2, 3, 6, 7, 8, 13
_TYPES = {21: "f4", 22: "f8", 44: "f4", 45: "f8"}
_BIG_ENDIAN = (1, 2, 5, 7, 9, 11, 12)  # numbers of encodings; VAX (3, 14, 15) has floats of its own
_VAX = (3, 14, 15)
_MAX_VARIABLES = 100


def read_pose(path: Path) -> np.ndarray:
    """Variable `Pose` of a file: (T, D) float64, a row per frame; pixels or millimetres as in the file.

    Raises
    ------
    MetroError
        The file is missing, is no CDF of version 3, ends early, or has no such variable of floats.
    """
    with readable(path, GET_AGAIN):
        raw = path.read_bytes()
        if raw[:4] in _OLDER:
            values = _older(path, len(raw))
        else:
            file = _File(raw)
            values = file.values(file.variable("Pose"))
        frames = values[0] if len(values) == 1 and values.ndim == 3 else values
        if frames.ndim != 2:
            raise ValueError(f"Pose has shape {values.shape}, not 1 × frames × numbers")
        return frames.astype(np.float64)


def _older(path: Path, size: int) -> np.ndarray:
    """Variable `Pose` of a file of version 2."""
    import cdflib

    with cdflib.CDF(path) as file:
        told = file.varinq("Pose")
        count = (told.Last_Rec + 1) * math.prod(told.Dim_Sizes)
        if told.Data_Type not in _TYPES or not 0 < count * np.dtype(_TYPES[told.Data_Type]).itemsize <= 20 * size:
            raise ValueError(f"claims {count} numbers of type {told.Data_Type} in {size} bytes")
        values: np.ndarray = file.varget("Pose")
    return values


class _Variable(NamedTuple):
    kind: str
    records: int
    shape: tuple[int, ...]
    vxr: int
    """Where its first one is."""


class _File:
    """The records of a file; reading beyond its end is an error."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        if raw[:4] != _MAGIC or raw[4:8] not in (_PLAIN, _COMPRESSED):
            raise ValueError("no CDF file of version 3")
        if raw[4:8] == _COMPRESSED:  # one record with all others, as they would lie after the first 8 bytes
            end = 8 + self._int(8, 8)
            self._raw = raw[:8] + _inflated(raw[40:end])
        cdr = self._record(8, _CDR)
        gdr = self._int(cdr + 12, 8)
        self._record(gdr, _GDR)
        if self._int(gdr + 36, 8) > len(self._raw):
            raise ValueError(f"ends early, {len(self._raw)} of {self._int(gdr + 36, 8)} bytes are there")
        encoding, flags = self._int(cdr + 28, 4), self._int(cdr + 32, 4)
        if encoding in _VAX or not flags & 2:
            raise ValueError("numbers of a VAX, or several files")
        self._order = ">" if encoding in _BIG_ENDIAN else "<"
        self._by_row = bool(flags & 1)
        dims = self._int(gdr + 56, 4)
        self._common_shape = self._ints(gdr + 84, dims)  # of all variables of the older kind
        self._heads = (
            (_ZVDR, self._int(gdr + 20, 8), self._int(gdr + 60, 4)),
            (_RVDR, self._int(gdr + 12, 8), self._int(gdr + 44, 4)),
        )

    def variable(self, name: str) -> _Variable:
        """The variable of that name."""
        for kind, at, count in self._heads:
            for _ in range(min(count, _MAX_VARIABLES)):
                self._record(at, kind)
                if self._raw[at + 84 : at + 340].partition(b"\0")[0].strip() == name.encode():
                    return self._described(kind, at)
                at = self._int(at + 12, 8)
        raise ValueError(f"no variable {name}")

    def _described(self, kind: int, at: int) -> _Variable:
        if kind == _ZVDR:
            dims = self._int(at + 340, 4)
            shape, varies = self._ints(at + 344, dims), self._ints(at + 344 + 4 * dims, dims)
        else:
            shape = self._common_shape
            varies = self._ints(at + 340, len(shape))
        data_type, sparse, elements = self._int(at + 20, 4), self._int(at + 48, 4), self._int(at + 64, 4)
        if data_type not in _TYPES or sparse or elements != 1:
            raise ValueError(f"a variable of type {data_type} where floats are expected")
        shape = tuple(size for size, does in zip(shape, varies, strict=True) if does)
        return _Variable(_TYPES[data_type], self._int(at + 24, 4) + 1, shape, self._int(at + 28, 8))

    def values(self, variable: _Variable) -> np.ndarray:
        """All records of a variable, (records, *shape)."""
        dtype = np.dtype(self._order + variable.kind)
        size = math.prod(variable.shape) * dtype.itemsize
        if min((variable.records, *variable.shape)) < 0 or not 0 < variable.records * size <= MAX_BYTES:
            raise ValueError(f"claims {variable.records} records of shape {variable.shape}")
        pieces, expected = [], 0
        for first, last, at in self._blocks(variable.vxr, set()):
            if expected == variable.records:
                break
            last = min(last, variable.records - 1)
            content = self._content(at)
            if first != expected or last < first or len(content) < (last - first + 1) * size:
                raise ValueError(f"record {expected} of {variable.records} is not there")
            pieces.append(content[: (last - first + 1) * size])
            expected = last + 1
        if expected != variable.records:
            raise ValueError(f"record {expected} of {variable.records} is not there")
        numbers = np.frombuffer(b"".join(pieces), dtype)
        if self._by_row:
            return numbers.reshape(variable.records, *variable.shape)
        axes = (0, *range(len(variable.shape), 0, -1))
        return numbers.reshape(variable.records, *variable.shape[::-1]).transpose(axes)

    def _blocks(self, at: int, seen: set[int]) -> Iterator[tuple[int, int, int]]:
        """First and last record of each block of values, and where it lies."""
        while at:
            if at in seen:
                raise ValueError("an index that leads back to itself")
            seen.add(at)
            self._record(at, _VXR)
            room, used = self._int(at + 20, 4), self._int(at + 24, 4)
            if used > room:
                raise ValueError("an index with more entries than it has room for")
            firsts, lasts = self._ints(at + 28, room), self._ints(at + 28 + 4 * room, room)
            places = struct.unpack_from(f">{room}q", self._raw, at + 28 + 8 * room)
            for first, last, place in zip(firsts[:used], lasts[:used], places[:used], strict=True):
                if self._int(place + 8, 4) == _VXR:
                    yield from self._blocks(place, seen)
                else:
                    yield first, last, place
            at = self._int(at + 12, 8)

    def _content(self, at: int) -> bytes:
        """Values of a block."""
        kind = self._int(at + 8, 4)
        end = self._record(at, kind) + self._int(at, 8)
        if kind == _VVR:
            return self._raw[at + 12 : end]
        if kind == _CVVR:
            return _inflated(self._raw[at + 24 : end])
        raise ValueError(f"a record of type {kind} where values are expected")

    def _record(self, at: int, kind: int) -> int:
        """The position, if a record of that type begins there and ends within the file."""
        if self._int(at + 8, 4) != kind or not 12 <= self._int(at, 8) <= len(self._raw) - at:
            raise ValueError(f"no record of type {kind} at byte {at}, or it is cut off")
        return at

    def _int(self, at: int, size: int) -> int:
        return int(struct.unpack_from(">q" if size == 8 else ">i", self._raw, self._within(at))[0])

    def _ints(self, at: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f">{self._within(count)}i", self._raw, self._within(at))

    def _within(self, number: int) -> int:
        """A position or count, which struct would take from the end or believe."""
        if not 0 <= number < len(self._raw):
            raise ValueError("leads out of the file")
        return number


def _inflated(raw: bytes) -> bytes:
    """Bytes of a gzip stream."""
    inflater = zlib.decompressobj(wbits=31)
    content = inflater.decompress(raw, MAX_BYTES)
    if not inflater.eof:
        raise ValueError(f"ends early, or unpacks to more than {MAX_BYTES >> 20} MiB")
    return content
