"""Files and folders appear whole or not at all, and nothing that the program did not make is deleted."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from metro import files
from metro.errors import MetroError
from metro.files import (
    atomic_file,
    atomic_folder,
    nearest,
    read_arrays,
    read_json,
    readable,
    replace_folder,
    sha256_of,
    what_is,
)
from tests.full_disk import said_on_a_full_disk


def write_file(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text)
        assert not path.exists() or path.read_text() != text


def write_folder(folder: Path, text: str, *more: str, marker: str = "about.json") -> None:
    with atomic_folder(folder, marker) as partial:
        (partial / "about.json").write_text(text)
        for name in more:
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).touch()


def content(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    for text in ("old", "new"):
        write_file(tmp_path / "sub" / "file", text)
        assert (tmp_path / "sub" / "file").read_text() == text
    assert content(tmp_path) == ["sub", "sub/file"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    write_file(tmp_path / "file", "old")
    code = "from tests.test_files import *; write_file(Path(arguments[0]), 'x' * 2000)"
    said = said_on_a_full_disk(1000, code, tmp_path / "file")
    assert said.endswith("/file: File too large; nothing was written, make room and run again")
    assert (tmp_path / "file").read_text() == "old"
    assert content(tmp_path) == ["file"]


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MetroError, match=r"file/x: cannot be written: (Not a directory|File exists)$"):
        write_file(tmp_path / "file" / "x", "")
    with pytest.raises(MetroError, match=r"file: cannot be written: Not a directory$"):
        write_folder(tmp_path / "file", "")


def test_a_folder_takes_the_place_of_its_like(tmp_path: Path) -> None:
    write_folder(tmp_path / "a" / "out", "old", "sub/table")
    write_folder(tmp_path / "a" / "out", "new", "sub/table", "more")
    assert content(tmp_path / "a") == ["out", "out/about.json", "out/more", "out/sub", "out/sub/table"]
    assert (tmp_path / "a" / "out" / "about.json").read_text() == "new"


def test_a_linked_folder_is_replaced_where_it_lies(tmp_path: Path) -> None:
    write_folder(tmp_path / "disk" / "out", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
    write_folder(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "out" / "about.json").read_text() == "new"


@pytest.mark.parametrize("marked", [False, True])
def test_what_the_program_did_not_make_is_never_deleted(tmp_path: Path, marked: bool) -> None:
    out = tmp_path / "out"
    if marked:
        write_folder(out, "old")
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "thesis.txt").write_text("years of work")
    said = r"out: sub/thesis.txt would be lost" if marked else r"out: exists and holds no about\.json"
    with pytest.raises(MetroError, match=said):
        write_folder(out, "new")
    assert (out / "sub" / "thesis.txt").read_text() == "years of work"
    assert content(tmp_path)[0] == "out"  # nothing temporary


def test_the_folder_that_one_is_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "out" / "sub")
    for folder in (Path("."), Path(".."), tmp_path / "out"):
        with pytest.raises(MetroError, match="the folder that you are in would be replaced"):
            write_folder(folder, "new")
    write_folder(Path("new"), "new")


def test_what_is_added_to_such_folders_goes_with_them(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", "old", "added", "foreign")
    with (
        pytest.raises(MetroError, match="out: foreign would be lost"),
        atomic_folder(tmp_path / "out", "about.json", added=["added"]) as partial,
    ):
        (partial / "about.json").touch()
    (tmp_path / "out" / "foreign").unlink()
    with atomic_folder(tmp_path / "out", "about.json", added=["added"]) as partial:
        (partial / "about.json").touch()
    assert content(tmp_path / "out") == ["about.json"]


def test_a_foreign_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(MetroError, match=r"holds no about\.json"), atomic_folder(tmp_path, "about.json"):
        pytest.fail("the block was entered")


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_folder(tmp_path / "out", "new")
    assert content(tmp_path) == ["out", "out/about.json"]


def test_an_interrupted_folder_leaves_the_old_one(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", "old")

    def interrupted() -> None:
        with atomic_folder(tmp_path / "out", "about.json") as partial:
            (partial / "about.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "out" / "about.json").read_text() == "old"
    assert content(tmp_path) == ["out", "out/about.json"]


def test_a_full_disk_leaves_the_old_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", "old")
    code = "from tests.test_files import *; write_folder(Path(arguments[0]), 'x' * 2000)"
    assert "/out: File too large; nothing was written" in said_on_a_full_disk(1000, code, tmp_path / "out")
    assert (tmp_path / "out" / "about.json").read_text() == "old"
    assert content(tmp_path) == ["out", "out/about.json"]


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "missing"),
        (b'{"a": 1', r"not valid JSON \(.*\)"),
        (b'{"a": "\xff"}', r"not valid JSON \(.*\)"),
        (b"[" * 100_000, r"not valid JSON \(.*\)"),
        (b"[1]", "damaged, it has no 'a'"),
        (b'{"v": 2, "a": 1}', "damaged, it has no 'b'"),
        (b'{"v": 1, "a": 1, "b": 1}', "v 1, this version of metro reads 2"),
        (b'{"a": 1, "b": 1}', "v None, this version of metro reads 2"),
    ],
)
def test_bad_json_is_one_line_with_the_remedy(tmp_path: Path, data: bytes | None, said: str) -> None:
    if data is not None:
        (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(MetroError, match=rf"x\.json: {said}; make it again$"):
        read_json(tmp_path / "x.json", "make it again", ("a", "b"), version=("v", 2))


def test_good_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": "ö", "b": [1, 2]}')
    assert read_json(tmp_path / "x.json", "", ("a", "b")) == {"a": "ö", "b": [1, 2]}


@pytest.mark.parametrize("content", ['{"a": [1]}', '{"a": {"b": "1"}}', "3", "[]"])
def test_json_of_another_shape_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(MetroError, match=r"x\.json: damaged \(.*make it again"):
        read_json(tmp_path / "x.json", "make it again", shape=dict[str, dict[str, int]])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (zlib.error("bad block"), "damaged (error: bad block)"),
        (EOFError(), "damaged (EOFError)"),
        (OSError("Unable to open"), "damaged (OSError: Unable to open)"),
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
        (IsADirectoryError(21, "Is a directory"), "is a folder"),
        (FileNotFoundError(2, "No such file"), "missing"),
        (MetroError("x: known"), "x: known"),
    ],
)
def test_whatever_a_decoder_raises_becomes_one_line(error: Exception, said: str) -> None:
    with pytest.raises(MetroError) as caught, readable(Path("x.npz"), "get it again"):
        raise error
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\r\n <?xml version='1.0'?>", "a web page"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x80\x04\x95", "a pickle"),
        (b"x" * 257 + b"ustar", "a tar archive"),
        ((40).to_bytes(8, "little") + b'{"__metadata__"', "a safetensors file"),
        (b"\x93NUMPY\x01\x00", "a single NumPy array (npy)"),
        ("ö".encode() * 400, "text"),
        (b"\x00\x01\x02", None),
        (b"\xff\xfe\x00", None),
        (b"\x80\x95\x04", None),  # one byte alone says nothing: one noisy file in 256 has it
        (b"<\x80\x00", None),
    ],
)
def test_files_are_told_by_their_first_bytes(tmp_path: Path, head: bytes, named: str | None) -> None:
    (tmp_path / "x").write_bytes(head)
    assert what_is(tmp_path / "x") == named


def test_an_npz_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.zeros(1000), b=np.ones(2))
    assert read_arrays(path, "", ("b", "c")).keys() == {"b"}
    monkeypatch.setattr(files, "MAX_UNPACKED", 1000)
    with pytest.raises(MetroError, match="unpacks to more than"):
        read_arrays(path, "get it again")


def test_members_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([None]))
    with pytest.raises(MetroError, match="Object arrays cannot be loaded"):
        read_arrays(tmp_path / "x.npz", "get it again")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("b", b"bytes")
    with pytest.raises(MetroError, match="b is no array"):
        read_arrays(tmp_path / "x.npz", "get it again")


def test_errors_are_one_line_that_can_be_shown() -> None:
    assert str(MetroError("a\nb\x0cc \x00\udcff\x85d")) == "a b c \ufffd\ufffd d"


def test_nearest() -> None:
    assert nearest("synthtic", ["coco", "synthetic"]) == "did you mean 'synthetic'?"
    assert nearest("zzz", ["b", "a"]) == "known: b, a"
    assert nearest("zzz", []) == "known: none"


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that no rename from `tmp_path` reaches."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm on a file system of its own")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_a_folder_comes_from_another_disk(tmp_path: Path, other_disk: Path) -> None:
    target = other_disk / "sets" / "out"
    for text in ("old", "new"):
        made = tmp_path / text
        (made / "sub").mkdir(parents=True)
        (made / "sub" / "table").write_text(text)
        (made / text).touch()
        replace_folder(made, target)
        assert not made.exists()
        assert content(other_disk) == ["sets", "sets/out", f"sets/out/{text}", "sets/out/sub", "sets/out/sub/table"]
        assert (target / "sub" / "table").read_text() == text


def test_a_disk_that_gets_full_keeps_what_it_had(tmp_path: Path, other_disk: Path) -> None:
    (other_disk / "out").mkdir()
    (other_disk / "out" / "old").touch()
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "new").write_text("x" * 2000)
    code = "from pathlib import Path; from metro.files import replace_folder; replace_folder(*map(Path, arguments))"
    said = said_on_a_full_disk(1000, code, tmp_path / "made", other_disk / "out")
    assert "/out: File too large; nothing was written" in said
    assert content(other_disk) == ["out", "out/old"]
    assert content(tmp_path) == ["made", "made/new"]
