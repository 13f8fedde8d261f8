"""The one way to write a file: whole, under a temporary name first, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metro.errors import MetroError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` when the block ends well; otherwise nothing is left.

    Raises
    ------
    MetroError
        The disk is full, or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(path.parent).free / 2**20
            raise MetroError(
                f"{path}: {err.strerror}; nothing was written ({free:.0f} MiB free). Make room and run again: "
                "finished shards are kept"
            ) from None
        raise MetroError(f"{path}: cannot be written: {err.strerror or err}") from None
    finally:
        temporary.unlink(missing_ok=True)
