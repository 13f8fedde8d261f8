"""The one way to write files and folders: whole, under a temporary name first, or not at all; digests, JSON, names."""

from __future__ import annotations

import codecs
import difflib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from metro.errors import MetroError

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_UNPACKED = 4 << 30
"""Bytes that an npz may hold, unpacked."""
SPOOL_BYTES = 64 << 20
"""Bytes that a `Spool` holds in memory."""
MAX_VALUES = 100_000
"""Values that a YAML file may stand for."""

GET_AGAIN = "get it again from where it came"
"""What to do about a foreign file that is damaged."""

ZIP, TAR, PICKLE, SAFETENSORS = "a zip archive", "a tar archive", "a pickle", "a safetensors file"
_STARTS = {
    b"PK": ZIP,
    **{bytes([0x80, protocol]): PICKLE for protocol in range(2, 6)},
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x93NUMPY": "a single NumPy array (npy)",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF",
}


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` when the block ends well; otherwise nothing changes.

    Raises
    ------
    MetroError
        The disk is full, or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _one_line(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)  # the rename itself
        finally:
            temporary.unlink(missing_ok=True)


class Spool:
    """Bytes that are collected for a file: in memory while they are few, then in a file without a name beside it.

    Nothing of that one is left, however the process ends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=str(path.parent))  # noqa: SIM115
        self.size = 0

    def add(self, data: bytes) -> None:
        """Append bytes.

        Raises
        ------
        MetroError
            The disk is full, or the folder cannot be written to.
        """
        with _one_line(self._path):
            if not self.size:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file.write(data)
        self.size += len(data)

    def copy_to(self, target: IO[bytes]) -> None:
        """Write all bytes into an open file."""
        self._file.seek(0)
        shutil.copyfileobj(self._file, target, 1 << 20)

    def close(self) -> None:
        """Let go of the bytes."""
        with suppress(OSError):  # of a full disk once more: what is not yet written need not be
            self._file.close()


@contextmanager
def atomic_folder(folder: Path, marker: str, added: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well; otherwise nothing changes.

    An old folder gives way only if it holds the file `marker`, which tells what it is, and no other file that the new
    one lacks, but for those that are `added` to such folders later: what this program did not make is never deleted.

    Raises
    ------
    MetroError
        `folder` holds something else or the current folder, the disk is full, or the place cannot be written to.
    """
    place = folder.resolve()
    partial = place.with_name(f".{place.name}.partial")
    with _one_line(folder):
        if Path.cwd().is_relative_to(place):
            raise MetroError(f"{folder}: the folder that you are in would be replaced; give one of its own")
        if place.exists() and not (place / marker).is_file() and any(place.iterdir()):
            raise MetroError(f"{folder}: exists and holds no {marker}; choose another folder or empty it")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        with _one_line(folder, only_full=True):
            yield partial
        lost = sorted(_names(place) - _names(partial) - {*added})
        if lost:
            raise MetroError(f"{folder}: {lost[0]} would be lost; move it away or choose another folder")
        replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Give the folder `new` the place of `folder`, be it on another disk; an old one is deleted when it has given way.

    Raises
    ------
    MetroError
        The disk is full, or the place cannot be written to.
    """
    place = folder.resolve()
    partial, old = (place.with_name(f".{place.name}.{word}") for word in ("partial", "old"))
    with _one_line(folder):
        if new.absolute() != partial:
            place.parent.mkdir(parents=True, exist_ok=True)
            _move(new, partial)
        for path in [*partial.rglob("*"), partial]:
            _sync(path)
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        partial.rename(place)
        _sync(place.parent)
        shutil.rmtree(old, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def readable(path: Path, remedy: str, forms: Iterable[str] = ()) -> Iterator[None]:
    """Around what takes a file apart: a MetroError, ending in `remedy`, says what is wrong with the file.

    Decoders raise whatever they meet in damaged or hostile bytes (``zlib.error``, ``BadZipFile``, ``SafetensorError``,
    ``KeyError``, ``OverflowError``, …), so everything counts. Keep the block to the decoding.

    `forms` are what such a file may be, in the words of `what_is`; a file that is something else is called by its name.
    """
    try:
        yield
    except MetroError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise MetroError(f"{path}: missing; {remedy}") from None
    except IsADirectoryError:
        raise MetroError(f"{path}: is a folder; {remedy}") from None
    except Exception as err:
        if isinstance(err, OSError) and err.strerror:  # libraries raise it for content as well, and then without reason
            raise MetroError(f"{path}: cannot be read: {err.strerror}") from err
        if forms:
            refuse_others(path, remedy, forms)
        raise MetroError(f"{path}: {_damage(err, remedy)}") from err


def refuse_others(path: Path, remedy: str, forms: Iterable[str]) -> None:
    """Raise a MetroError if the first bytes of a file tell that it is none of `forms` (words of `what_is`)."""
    found = what_is(path)
    if found and found not in forms:
        raise MetroError(f"{path}: is {found}; {remedy}")


def what_is(path: Path) -> str | None:
    """What a file is by its first bytes; None where they do not tell."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (`git lfs pull` fetches the file itself)"
    if re.match(rb"(\xef\xbb\xbf)?\s*<[!?a-zA-Z]", head):
        return "a web page"
    if head[257:262] == b"ustar":
        return TAR
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32:
        return SAFETENSORS
    for start, name in _STARTS.items():
        if head.startswith(start):
            return name
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    return "text" if "".join(text.split()).isprintable() else None


def read_arrays(path: Path, remedy: str, only: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an npz by name: those named in `only` that it holds, or all. Nothing pickled is opened.

    Raises
    ------
    MetroError
        The file is missing, damaged, or unpacks to more than any file of this field.
    """
    import numpy as np

    with readable(path, remedy, (ZIP,)), np.load(path, allow_pickle=False) as stored:
        # The sizes that a zip declares bound what is unpacked.
        if sum(entry.file_size for entry in stored.zip.infolist()) > MAX_UNPACKED:
            raise ValueError(f"unpacks to more than {MAX_UNPACKED >> 30} GiB")
        arrays = {name: stored[name] for name in stored.files if only is None or name in only}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name} is no array")
        return arrays


def read_yaml(path: Path, remedy: str) -> Any:
    """The content of a YAML file of plain data.

    Raises
    ------
    MetroError
        It is missing, not UTF-8 text, not YAML, or a few lines of it stand for millions of values.
    """
    import yaml

    with readable(path, remedy):
        raw = path.read_bytes()
        try:
            loader = yaml.SafeLoader(raw.decode())
            node = loader.get_single_node()
            if node is None:
                return None
            if _values(node, {}) > MAX_VALUES:
                raise ValueError("its aliases stand for too many values")
            return loader.construct_document(node)
        except UnicodeDecodeError as err:
            line = raw[: err.start].count(b"\n") + 1
            raise MetroError(f"{path}: not UTF-8 text (line {line}); {remedy}") from None
        except RecursionError:
            raise MetroError(f"{path}: not valid YAML: nested too deeply or within itself; {remedy}") from None
        except Exception as err:  # its constructors raise what they like for a tag that does not fit
            raise MetroError(f"{path}: not valid YAML: {' '.join(str(err).split())[:300]}; {remedy}") from None


def _values(node: Any, known: dict[int, float]) -> float:
    """Values that a YAML node stands for, aliases followed."""
    if id(node) not in known:
        known[id(node)] = math.inf  # a node within itself
        children = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_values(c, known) for c in children) if not isinstance(node.value, str) else 1
    return known[id(node)]


def read_json(
    path: Path, remedy: str, keys: Iterable[str] = (), version: tuple[str, int] | None = None, shape: Any = None
) -> Any:
    """The content of a JSON file.

    Parameters
    ----------
    path
        The file.
    remedy
        What the reader of an error can do about it.
    keys
        What an object must have.
    version
        Key and number that tell the layout.
    shape
        A type (``dict[str, float]``, a TypedDict, …) that the content must have; what it does not name may be there.

    Raises
    ------
    MetroError
        It is missing, damaged, of another version, lacks a key or has another shape.
    """
    with readable(path, remedy):
        raw = path.read_bytes()
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError) as err:
            raise MetroError(f"{path}: not valid JSON ({err}); {remedy}") from None
    if version and isinstance(content, dict) and content.get(version[0]) != version[1]:
        found = content.get(version[0])
        raise MetroError(f"{path}: {version[0]} {found!r}, this version of metro reads {version[1]}; {remedy}")
    lacking = [key for key in keys if not isinstance(content, dict) or key not in content]
    if lacking:
        raise MetroError(f"{path}: damaged, it has no {lacking[0]!r}; {remedy}")
    if shape is not None:
        with readable(path, remedy):
            check_shape(content, shape)
    return content


def check_shape(content: Any, shape: Any) -> None:
    """Raise a ValueError if plain data have not the type `shape` (``dict[str, float]``, a TypedDict, …)."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(shape).validate_python(content, strict=True)
    except ValidationError as err:
        first = err.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}") from None


def nearest(name: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """A hint for an unknown name: the nearest known one, or all of them; `aliases` are other names, small letters and
    digits alone, of known ones."""
    names = list(known)
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    match = [alias] if (alias := (aliases or {}).get(plain)) else difflib.get_close_matches(name, names, 1, 0.5)
    return f"did you mean {match[0]!r}?" if match else f"known: {', '.join(names) or 'none'}"


def _damage(err: Exception, remedy: str) -> str:
    said = " ".join(str(err).split())[:200]
    return f"damaged ({type(err).__name__}{': ' if said else ''}{said}); {remedy}"


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def _move(folder: Path, target: Path) -> None:
    """Rename a folder; where a rename does not reach, copy it, as a whole or not at all."""
    shutil.rmtree(target, ignore_errors=True)
    try:
        folder.rename(target)
        return
    except OSError as err:
        if err.errno != errno.EXDEV:
            raise
    try:
        target.mkdir()
        for path in sorted(folder.rglob("*")):
            copy = target / path.relative_to(folder)
            copy.mkdir() if path.is_dir() else shutil.copy2(path, copy)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    shutil.rmtree(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _one_line(path: Path, only_full: bool = False) -> Iterator[None]:
    """Say an error of the system in one line; with `only_full` no other than that of a full disk."""
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MetroError(f"{path}: {err.strerror}; nothing was written, make room and run again") from None
        if only_full:
            raise
        raise MetroError(f"{path}: cannot be written: {err.strerror or err}") from None
