"""The datasets of the catalogue, opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metro.data.shards import ShardDataset


def open_sets(entries: Sequence[dict[str, Any]]) -> list[ShardDataset]:
    """The datasets that entries of the catalogue (`pipeline.catalogue.entry`) name."""
    from metro.data.shards import ShardDataset

    return [ShardDataset(Path(item["shards"]), item["fits"]) for item in entries]
