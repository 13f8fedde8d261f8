"""Files of tensors that others made: read, or refused without running anything."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metro.errors import MetroError
from metro.model.tensors import load_tensors


@pytest.mark.parametrize("name", ["w.bin", "w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"\n<html><body>404</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "is a Git LFS pointer"),
        (b"Access denied", "is text"),
        (b"", "is empty"),
        (b"\x1f\x8b\x08\x00\x00", "is a gzip archive"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"\x00\x01 noise", "damaged"),
    ],
)
def test_what_was_saved_instead_of_weights_is_named(tmp_path: Path, name: str, raw: bytes, named: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(MetroError, match=rf"{name}: {named}.*; save the model's state_dict\(\), or get it again$"):
        load_tensors(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_weights_are_taken(tmp_path: Path, zipped: bool) -> None:
    state = nn.Linear(3, 2).state_dict()
    parallel = {f"module.{key}": value for key, value in state.items()}
    wrapped: dict[str, Any] = {"state_dict": parallel, "epoch": 3, "optimizer": {"lr": 0.1}}
    for number, content in enumerate((state, parallel, wrapped, {"model": state}, {"model": {"state_dict": state}})):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        found = load_tensors(path)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], value) for key, value in state.items())
    torch.save(
        dict(parallel, head=torch.ones(1)), tmp_path / "mixed.pth"
    )  # one network within another is not unwrapped
    assert "module.weight" in load_tensors(tmp_path / "mixed.pth")


def test_a_tensor_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(2**40)}, tmp_path / "w.bin")
    with pytest.raises(MetroError, match=r"no flat dict of tensors \('weight'\)"):
        load_tensors(tmp_path / "w.bin")


class Payload:
    """Runs a command when it is unpickled by a reader that trusts its input."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("unpickled"),)  # type: ignore[return-value]


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_hold_more_than_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Payload()}, "evil.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(MetroError, match=r"evil\.bin: holds more than tensors"):
        load_tensors("evil.bin")
    assert not Path("unpickled").exists()
    torch.save([torch.zeros(1)], "list.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(MetroError, match="no flat dict of tensors"):
        load_tensors("list.bin")
    Path("noise.bin").write_bytes(b"\x00\x01 not a checkpoint")
    with pytest.raises(MetroError, match=r"noise\.bin: "):
        load_tensors("noise.bin")
    with pytest.raises(MetroError, match="is a folder"):
        load_tensors(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.timeout(60)
def test_a_function_with_a_name_of_thousands_of_letters_is_refused_at_once(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.bin"
    torch.save({}, path, _use_new_zipfile_serialization=zipped)
    hostile = b"\x80\x02c" + b"x" * 500_000 + b"\nname\n."
    if zipped:
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in records.items():
                archive.writestr(name, hostile if name.endswith("data.pkl") else content)
    else:
        path.write_bytes(hostile)
    with pytest.raises(MetroError, match="thousands of letters"):
        load_tensors(path)
