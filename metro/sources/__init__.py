"""Raw sources by name. A source is a function of a dataset's settings and the body that gives one task per shard.

A task yields the records of its shard in a fixed order. What it cannot read it yields as `BadRecord`; it does not raise
for a single record. The source's module may state the terms of its data in `LICENCE`, one line.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import get_args

from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Record
from metro.errors import MetroError
from metro.words import Source

ShardTask = Callable[[], Iterator[Record | BadRecord]]
"""Picklable: yields the records of one shard."""

SOURCES: dict[str, str] = {
    "synthetic": "metro.sources.synthetic:shard_tasks",
}
"""Sources that have an adapter, and where its function lives (`module:function`)."""

ANNOUNCED = tuple(name for name in get_args(Source) if name not in SOURCES)
"""Sources that parameters may name, and that cannot be prepared yet."""


def source_module(name: str) -> ModuleType:
    """The module that reads a source.

    Raises
    ------
    MetroError
        The source has no adapter.
    """
    if name not in SOURCES:
        raise MetroError(f"source {name!r} has no adapter yet; these have one: {', '.join(sorted(SOURCES))}")
    return importlib.import_module(SOURCES[name].split(":")[0])


def shard_tasks(config: DatasetConfig, body: BodyConfig) -> list[ShardTask]:
    """The shard tasks of a dataset.

    Raises
    ------
    MetroError
        The source has no adapter, or its raw data or settings are not as it needs them.
    """
    module = source_module(config.source)
    tasks: list[ShardTask] = getattr(module, SOURCES[config.source].split(":")[1])(config, body)
    return tasks


def licence(name: str) -> str:
    """Terms that a source's data come under, one line; empty if its module does not state them."""
    return getattr(source_module(name), "LICENCE", "")
