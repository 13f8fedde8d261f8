"""Open a trained network by path, or by an address that a plug-in resolves."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from metro.errors import MetroError
from metro.export.bundle import META, Bundle, from_checkpoint, load_bundle
from metro.training.checkpoint import META as CHECKPOINT_META

RESOLVERS = "metro.resolvers"
"""Entry-point group of functions ``resolve(address: str) -> Path``, named by the scheme of the addresses they take."""


def open_bundle(source: Path | str) -> Bundle:
    """Bundle of a bundle folder, a checkpoint folder, `open` (the checkpoint that ships), or a ``SCHEME:/…`` address.

    Raises
    ------
    MetroError
        Nothing usable is there, or no installed package resolves the address.
    """
    if address := re.match(r"(\w{2,}):/", str(source)):
        return open_bundle(_resolve(address[1], str(source)))
    if str(source) == "open":
        return from_checkpoint("open")
    folder = Path(source)
    if (folder / META).is_file():
        return load_bundle(folder)
    if (folder / CHECKPOINT_META).is_file():
        return from_checkpoint(folder)
    if not folder.exists():
        raise MetroError(f"{folder}: no such folder; give a checkpoint or bundle folder, `open`, or a models:/ URI")
    raise MetroError(f"{folder}: neither a bundle ({META}) nor a checkpoint ({CHECKPOINT_META})")


def _resolve(scheme: str, address: str) -> Path:
    """The folder that an address leads to; if it is not a network itself, the one within it that is."""
    resolvers = metadata.entry_points(group=RESOLVERS, name=scheme)
    if not resolvers:
        raise MetroError(f"{address}: nothing installed opens {scheme}:/ addresses; give a folder")
    folder: Path = next(iter(resolvers)).load()(address)
    found = [path.parent for name in (META, CHECKPOINT_META) for path in sorted(folder.rglob(name))]
    return found[0] if found else folder
