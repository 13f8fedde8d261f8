"""Raw sources by name. A source is a function of a dataset's settings and the body that gives one task per shard."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator

from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Record
from metro.errors import MetroError

ShardTask = Callable[[], Iterator[Record | BadRecord]]
"""Picklable: yields the records of one shard."""

SOURCES: dict[str, str] = {
    "synthetic": "metro.data.sources.synthetic:shard_tasks",
}
"""Name of each source, and where its function lives (`module:function`)."""


def shard_tasks(config: DatasetConfig, body: BodyConfig) -> list[ShardTask]:
    """The shard tasks of a dataset.

    Raises
    ------
    MetroError
        `config.source` is not a known source, or its raw data or settings are not as it needs them.
    """
    if config.source not in SOURCES:
        near = difflib.get_close_matches(config.source, SOURCES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(SOURCES))}"
        raise MetroError(f"source: no source {config.source!r}; {hint}")
    module, function = SOURCES[config.source].split(":")
    tasks: list[ShardTask] = getattr(importlib.import_module(module), function)(config, body)
    return tasks
