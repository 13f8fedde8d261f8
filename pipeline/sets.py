"""The datasets of the catalogue, opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metro.data.shards import ShardDataset

_LABELS = Path(".metro/labels")  # may be removed at any time


def open_sets(entries: Sequence[dict[str, Any]]) -> list[ShardDataset]:
    """The datasets that entries of the catalogue (`pipeline.catalogue.entry`) name."""
    return [open_set(Path(item["shards"]), item["fits"]) for item in entries]


def open_set(shards: Path, fits: Path | str | None) -> ShardDataset:
    """A dataset whose labels all processes of this machine share."""
    from metro.data.shards import ShardDataset

    return ShardDataset(shards, fits, cache=_LABELS)
