"""The networks that ship with the project, by the names that commands and parameters take for them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

SHIPPED = ("open", "open-hand")
"""A body and a hand."""
_ASSETS = Path(str(resources.files("metro") / "assets"))


def shipped_checkpoint(name: Path | str) -> Path | None:
    """Folder of the checkpoint; None where the name is another one."""
    return _ASSETS / str(name).replace("-", "_") if str(name) in SHIPPED else None


def shipped_bundle(name: Path | str) -> Path | None:
    """Folder of the same network as a bundle with its ONNX file and without weights; None as above."""
    return _ASSETS / f"{str(name).replace('-', '_')}_bundle" if str(name) in SHIPPED else None
