"""JSON files of gigabytes, one item after the other: memory holds one item, whatever the file's size.

Python writes NaN and infinities, which JSON does not know, into such files. They come back as None, which NumPy turns
into nan where an array of floats is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ijson

from metro.errors import MetroError
from metro.files import GET_AGAIN, readable

_PIECE = 1 << 14
"""Bytes handed to the parser at a time."""
_DEPTH = 1000
"""Levels of nesting. The parser keeps the path to every open level, so that memory grows with their square."""
_LONGEST = len("-Infinity")

_STRING_OR_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|-?(?:NaN|Infinity)', re.DOTALL)
_ESCAPED = re.compile(rb"\\.", re.DOTALL)


def items(path: Path, prefix: str) -> Iterator[Any]:
    """Elements of the array whose elements are at `prefix`, in the words of ijson: ``annotations.item``, ``item``.

    Raises
    ------
    MetroError
        The file is missing, is no JSON, ends early, nests too deeply, or has no such array.
    """
    array = prefix.removesuffix("item").removesuffix(".")
    return _parsed(path, "items", prefix, array, "start_array")


def entries(path: Path, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and values of the object at `prefix`, by default the whole file; a key that comes twice is given twice.

    Raises
    ------
    MetroError
        The file is missing, is no JSON, ends early, nests too deeply, or has no such object.
    """
    return _parsed(path, "kvitems", prefix, prefix, "start_map")


def _parsed(path: Path, parser: str, prefix: str, container: str, event: str) -> Iterator[Any]:
    with readable(path, GET_AGAIN), path.open("rb") as file:
        source, found = _Pieces(file), False
        try:
            for value in getattr(ijson, parser)(source, prefix, use_float=True, buf_size=_PIECE):
                found = True
                yield value
        except ijson.JSONError as err:
            said = str(err).partition("\n")[0].strip().rstrip(".")
            raise MetroError(f"{path}: not valid JSON before byte {file.tell()} ({said}); {GET_AGAIN}") from None
    if not found and not _has(path, container, event):
        kind = "list" if event == "start_array" else "object"
        what = f"has no {kind} {container!r}" if container else f"is no {kind}"
        raise MetroError(f"{path}: {what}; is it the file of that name that the set comes with?")


def _has(path: Path, prefix: str, event: str) -> bool:
    """Whether there is an empty container; only files that gave nothing are read twice."""
    with readable(path, GET_AGAIN), path.open("rb") as file:
        return any(at == prefix and what == event for at, what, _ in ijson.parse(_Pieces(file)))


class _Pieces:
    """A file for the parser, with null for what JSON does not know, and checked for how deeply it nests."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._before = b""  # what leads into the piece: the quote of an open string, a backslash
        self._depth = 0

    def read(self, size: int) -> bytes:
        """The next bytes, whatever `size`; none at the end of the file."""
        if not size:  # ijson asks whether these are bytes
            return b""
        piece = self._file.read(_PIECE)
        for _ in range(_LONGEST):  # no token of ours is cut
            if not (piece[-1:].isalpha() or piece[-1:] == b"-"):
                break
            piece += self._file.read(1)
        self._depth += piece.count(b"[") + piece.count(b"{") - piece.count(b"]") - piece.count(b"}")
        if self._depth > _DEPTH:
            raise ValueError(f"nested more than {_DEPTH} levels deep")
        before, text = self._before, self._before + piece
        bare = _ESCAPED.sub(b"", text) if b"\\" in text else text
        self._before = (b'"' if bare.count(b'"') % 2 else b"") + (b"\\" if bare.endswith(b"\\") else b"")
        if b"NaN" in piece or b"Infinity" in piece:
            return _STRING_OR_TOKEN.sub(lambda m: m[0] if m[0].startswith(b'"') else b"null", text)[len(before) :]
        return piece
