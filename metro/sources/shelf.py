"""What annotation files say of people, put aside until a picture's are together and other files are joined to them."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from metro.errors import MetroError

_LENGTH = 4
"""Bytes before each value that tell how many it has."""


class Shelf:
    """Plain values by number, on disk: memory holds the place of each. A context, and empty after it.

    They are stored as Python stores code, which takes a tenth of the time of JSON and lives no longer than the process.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._end = 0
        self._places: dict[int, int] = {}

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __setitem__(self, number: int, value: Any) -> None:
        data = marshal.dumps(value)
        with _room():
            self._file.seek(self._end)  # of no cost where it is there; to the end it would write out what is buffered
            self._file.write(len(data).to_bytes(_LENGTH) + data)
        self._places[number] = self._end
        self._end += _LENGTH + len(data)

    def __getitem__(self, number: int) -> Any:
        with _room():
            self._file.seek(self._places[number])
            # `marshal.load` would read each number by a call; the file is this process's own and has no name.
            return marshal.loads(self._file.read(int.from_bytes(self._file.read(_LENGTH))))

    def get(self, number: int) -> Any:
        """A value, or None where none was put."""
        known = number in self._places
        return self[number] if known else None

    def __delitem__(self, number: int) -> None:
        del self._places[number]


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        where = tempfile.gettempdir()
        raise MetroError(f"{where}: {err.strerror}; make room there, or set TMPDIR to a folder with some") from None
