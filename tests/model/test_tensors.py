"""Files of tensors that others made: read, or refused without running anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metro.errors import MetroError
from metro.model.tensors import load_tensors


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
