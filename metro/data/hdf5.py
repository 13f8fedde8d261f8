"""HDF5 files of plain arrays, as shards and fits are: written whole, the same bytes each time, versioned, digested."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metro.errors import MetroError
from metro.files import atomic_file

SCHEMA = 1
"""Version of the layout. A shard of another version is refused."""

MAX_BYTES = 1 << 30
"""Largest size of a shard."""


def write_h5(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write an HDF5 file atomically. Names are sorted and nothing depends on time, so equal data give equal bytes.

    The file is put together in memory and written by Python: a full disk is then an ordinary error, which HDF5 itself
    may only meet while closing.
    """
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        for name in sorted(arrays):
            file.create_dataset(name, data=arrays[name], track_times=False)
        for name, value in sorted({**attributes, "digest": content_digest(arrays)}.items()):
            file.attrs[name] = value
        file.flush()
        image = file.id.get_file_image()
    if len(image) > MAX_BYTES:
        raise MetroError(f"{path}: {len(image) / 2**30:.2f} GiB, more than 1 GiB; lower the dataset's shard_size")
    with atomic_file(path) as temporary:
        temporary.write_bytes(image)


def read_arrays(file: h5py.File) -> dict[str, np.ndarray]:
    """Every array of a shard, by path."""
    return {f"{group}/{name}": file[group][name][...] for group in file for name in file[group]}


def content_digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


@contextmanager
def open_h5(path: Path) -> Iterator[h5py.File]:
    """Open a shard or sidecar for reading and check its version.

    Raises
    ------
    MetroError
        It is missing, truncated, not a shard, or of another layout version.
    """
    remedy = "delete it and run prepare again"
    try:
        file = h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise MetroError(f"{path}: no such shard") from None
    except OSError as err:
        what = "truncated" if "truncated" in str(err) else "damaged or not a shard"
        raise MetroError(f"{path}: {what}; {remedy}") from None
    with file:
        version = file.attrs.get("schema")
        if version is None:
            raise MetroError(f"{path}: not a shard (no schema version); {remedy}")
        if version != SCHEMA:
            raise MetroError(f"{path}: shard layout version {version}, this metro reads {SCHEMA}; {remedy}")
        try:
            yield file
        except (KeyError, RuntimeError, OSError) as err:
            raise MetroError(f"{path}: damaged ({' '.join(str(err).split())}); {remedy}") from None
