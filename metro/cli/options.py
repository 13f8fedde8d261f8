"""Kinds of options that commands share: numbers in a range, and places that are tried before any work is done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from metro.errors import MetroError


@dataclass(frozen=True)
class Between:
    """Refuses numbers outside of a range, and says which it is."""

    low: int
    high: int

    def __call__(self, kind: Any, value: float | None) -> None:
        if value is not None and not self.low <= value <= self.high:
            raise ValueError(f"Must be from {self.low} to {self.high}.")


@dataclass(frozen=True)
class Writable:
    """Refuses a place where no file, or no folder, can be made. It makes a nameless file there, and leaves nothing."""

    folder: bool

    def __call__(self, kind: Any, path: Path | None) -> None:
        if path is None:
            return
        try:
            there = path
            while not _exists(there):
                there = there.parent
            if there == path and there.is_dir() != self.folder:
                raise ValueError("Is a folder; name a file." if there.is_dir() else "Is a file; name a folder.")
            with tempfile.TemporaryFile(dir=there if there != path or self.folder else there.parent):
                pass
        except OSError as err:
            raise ValueError(f"Cannot be written: {err.strerror}.") from None


class Single:
    """Refuses an option where a value belongs, which may begin with one hyphen but not with two."""

    def __call__(self, kind: Any, value: object) -> None:
        if str(value).startswith("--"):
            raise ValueError("Requires an argument.")


def check_new(out: Path, overwrite: bool) -> None:
    """Refuse to replace a file unasked.

    Raises
    ------
    MetroError
        `out` exists, and `overwrite` is not given.
    """
    if out.exists() and not overwrite:
        raise MetroError(f"{out}: exists already; give --overwrite to replace it")


def _exists(path: Path) -> bool:
    """As `Path.exists`, which takes a file in the place of a folder, or a name too long, for a file that is missing."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


_HYPHEN = Parameter(allow_leading_hyphen=True, validator=Single())

Share = Annotated[float, Parameter(validator=Between(0, 1))]
Batch = Annotated[int, Parameter(validator=Between(1, 65536))]
OutFile = Annotated[Path, Parameter(validator=Writable(folder=False))]
OutFolder = Annotated[Path, Parameter(validator=Writable(folder=True))]
# Of options; what stands alone must not begin with a hyphen, or a mistyped option would be taken for it.
Word = Annotated[str, _HYPHEN]
Place = Annotated[Path, _HYPHEN]
ToFile = Annotated[Path, Parameter(allow_leading_hyphen=True, validator=(Single(), Writable(folder=False)))]
ToFolder = Annotated[Path, Parameter(allow_leading_hyphen=True, validator=(Single(), Writable(folder=True)))]


def refuse(options: Mapping[str, Any], why: str) -> None:
    """Refuse options, by the names of their parameters, that were given and mean nothing here."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise MetroError(f"--{name.replace('_', '-')} {why}")
