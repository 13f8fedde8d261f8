"""HDF5 files of plain arrays, as shards and fits are: written whole, the same bytes each time, versioned, digested."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metro.errors import MetroError
from metro.files import atomic_file, readable

SCHEMA = 3
"""Version of the layout. A file of another version is refused."""

MAX_BYTES = 1 << 30
"""Largest size of a shard."""

BLOB = "images/bytes"
"""The array that the digest leaves out: it is read record by record, and each record has a checksum."""

ABOUT = "about/json"
"""Facts about the file, as JSON in bytes (uint8). HDF5's own attributes have strings of free length for them, and a
damaged one can keep the library busy for ever."""


def write_h5(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Write an HDF5 file of arrays, by path, and `facts` about them, which JSON can hold, atomically.

    Names are sorted and nothing depends on time, so equal data give equal bytes.

    The file is put together in memory and written by Python: a full disk is then an ordinary error, which HDF5 itself
    may only meet while closing.
    """
    told = json.dumps({**facts, "digest": content_digest(arrays, facts)}, sort_keys=True)
    arrays = {**arrays, ABOUT: np.frombuffer(told.encode(), np.uint8)}
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        for name in sorted(arrays):
            file.create_dataset(name, data=arrays[name], track_times=False)
        file.attrs["schema"] = SCHEMA
        file.flush()
        image = file.id.get_file_image()
    if len(image) > MAX_BYTES:
        raise MetroError(f"{path}: {len(image) / 2**30:.2f} GiB, more than 1 GiB; lower the dataset's shard_size")
    with atomic_file(path) as temporary:
        temporary.write_bytes(image)


def content_digest(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
    """Digest of facts and of all arrays but `BLOB`: names, types, shapes and values."""
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    for name in sorted(arrays.keys() - {BLOB}):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


@contextmanager
def open_h5(path: Path, made_by: str = "prepare") -> Iterator[h5py.File]:
    """Open a shard, or a sidecar that the stage `made_by` wrote, for reading, and check its version.

    Whatever turns out to be wrong with its content inside of the block is one line as well.

    Raises
    ------
    MetroError
        It is missing, truncated, damaged, not a shard, or of another layout version.
    """
    remedy = f"delete it and run {made_by} again"
    if not path.is_file():
        raise MetroError(f"{path}: no such {'shard' if made_by == 'prepare' else 'sidecar'}; run {made_by} again")
    with readable(path, remedy):
        try:
            file = h5py.File(path, "r", locking=False)
        except OSError as err:
            if err.strerror:
                raise
            what = "truncated" if "truncated" in str(err) else "damaged or not a shard"
            raise MetroError(f"{path}: {what}; {remedy}") from None
        with file:
            version = _schema(file)
            if version is None:
                raise MetroError(f"{path}: not a shard (no schema version); {remedy}")
            if version != SCHEMA:
                raise MetroError(f"{path}: shard layout version {version}, this metro reads {SCHEMA}; {remedy}")
            yield file


def piece(file: h5py.File, name: str) -> h5py.Dataset:
    """The array ``GROUP/NAME``, which must lie in one piece, as it is, inside of this very file.

    HDF5 can also follow links into other files, take an array together from them, inflate it, or leave it unwritten;
    `write_h5` does none of that, and a file that asks for it is not one of ours.

    Raises
    ------
    ValueError
        It does.
    """
    group, _, leaf = name.partition("/")
    array = _own(_own(file, group, h5py.Group), leaf, h5py.Dataset)
    start = array.id.get_offset()
    if array.dtype.hasobject or (array.size and (start is None or start + array.nbytes > file.id.get_filesize())):
        raise ValueError(f"{name} is not stored in one piece")
    return array


def _own(parent: h5py.Group, name: str, kind: type) -> Any:
    found = parent[name] if isinstance(parent.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, kind):
        raise ValueError(f"no {kind.__name__.lower()} {name}")
    return found


def _schema(file: h5py.File) -> int | None:
    """Version of the layout; None where the attribute is missing or no whole number."""
    if not h5py.h5a.exists(file.id, b"schema"):
        return None
    attribute = h5py.h5a.open(file.id, b"schema")
    if attribute.shape != () or not isinstance(attribute.get_type(), h5py.h5t.TypeIntegerID):
        return None
    version = np.zeros((), np.int64)
    attribute.read(version)
    return int(version)


def read_facts(file: h5py.File) -> dict[str, Any]:
    """Facts about a shard or sidecar, its digest among them.

    Raises
    ------
    ValueError
        They are damaged.
    """
    array = piece(file, ABOUT)
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"{ABOUT} is not bytes")
    facts = json.loads(array[...].tobytes())
    if not isinstance(facts, dict) or not isinstance(facts.get("digest"), str):
        raise ValueError(f"{ABOUT} has no digest")
    return facts


def read_arrays(file: h5py.File) -> dict[str, np.ndarray]:
    """Every array of a shard or sidecar but `BLOB`, by path, once their digest has been compared.

    Raises
    ------
    ValueError
        An array is not stored as `write_h5` stores it, or the digest differs.
    """
    names = [f"{group}/{name}" for group in file for name in _own(file, group, h5py.Group)]
    pieces = {name: piece(file, name) for name in names if name not in (BLOB, ABOUT)}
    if sum(array.nbytes for array in pieces.values()) > file.id.get_filesize():
        raise ValueError("arrays overlap")
    arrays = {name: array[...] for name, array in pieces.items()}
    facts = read_facts(file)
    if facts.pop("digest") != content_digest(arrays, facts):
        raise ValueError("changed since it was written: its digest differs")
    return arrays
