"""The one way to write files and folders: whole, under a temporary name first, or not at all; digests, JSON, names."""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metro.errors import MetroError


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


@contextmanager
def atomic_folder(folder: Path, marker: str | None, added: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well; otherwise nothing changes.

    An old folder gives way only if it holds the file `marker`, which tells what it is, and no other file that the new
    one lacks, but for those that are `added` to such folders later: what this program did not make is never deleted.
    Without a marker, for outputs of stages, it always gives way.

    Raises
    ------
    MetroError
        `folder` holds something else, the disk is full, or the place cannot be written to.
    """
    place = folder.resolve()
    partial = place.with_name(f".{place.name}.partial")
    with _one_line(folder):
        if marker is not None and place.exists() and not (place / marker).is_file() and any(place.iterdir()):
            raise MetroError(f"{folder}: exists and holds no {marker}; choose another folder or empty it")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        with _one_line(folder, only_full=True):
            yield partial
        lost = [] if marker is None else sorted(_names(place) - _names(partial) - {*added})
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
def readable(path: Path, remedy: str) -> Iterator[None]:
    """Around what takes a file apart: a MetroError, ending in `remedy`, says what is wrong with the file.

    Decoders raise whatever they meet in damaged or hostile bytes (``zlib.error``, ``BadZipFile``, ``SafetensorError``,
    ``KeyError``, ``OverflowError``, …), so everything counts. Keep the block to the decoding.
    """
    try:
        yield
    except MetroError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise MetroError(f"{path}: missing; {remedy}") from None
    except IsADirectoryError:
        raise MetroError(f"{path}: is a folder; {remedy}") from None
    except OSError as err:
        # Libraries raise it for content as well, and then without the system's reason.
        raise MetroError(
            f"{path}: {f'cannot be read: {err.strerror}' if err.strerror else _damage(err, remedy)}"
        ) from err
    except Exception as err:
        raise MetroError(f"{path}: {_damage(err, remedy)}") from err


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
        from pydantic import TypeAdapter, ValidationError

        try:
            TypeAdapter(shape).validate_python(content, strict=True)
        except ValidationError as err:
            first = err.errors()[0]
            where = ".".join(map(str, first["loc"])) or "content"
            raise MetroError(f"{path}: damaged ({where}: {first['msg']}); {remedy}") from None
    return content


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, or all of them."""
    names = list(known)
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
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
