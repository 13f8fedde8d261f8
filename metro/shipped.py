"""The networks that ship with the project, by the names that commands and parameters take for them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

SHIPPED = ("open", "open-hand")
"""A body and a hand."""
_ASSETS = Path(str(resources.files("metro") / "assets"))


def checkpoint_folder(name: Path | str) -> Path:
    """The checkpoint that ships under this name; any other name is a path, and stays one."""
    return _ASSETS / _file_name(name) if str(name) in SHIPPED else Path(name)


def bundle_folder(name: Path | str) -> Path:
    """The same network as a bundle with its ONNX file and without weights; other names as above."""
    return _ASSETS / f"{_file_name(name)}_bundle" if str(name) in SHIPPED else Path(name)


def _file_name(name: Path | str) -> str:
    return str(name).replace("-", "_")
