"""Sources: one adapter per raw dataset, each a function that splits the raw data into tasks, one per shard.

A source module has `LICENCE` (terms of the data, one line), and a function

    shard_tasks(config: DatasetConfig, body: BodyConfig) -> list of tasks

A task is picklable and, called without arguments, yields the `Record`s of its shard in a fixed order. What it cannot
read it yields as `BadRecord`; it does not raise for a single record.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Record
from metro.errors import MetroError

ShardTask = Callable[[], Iterable[Record | BadRecord]]

SOURCES: dict[str, str] = {
    "synthetic": "metro.data.sources.synthetic:shard_tasks",
}
"""Name of each source, and the function that reads it as `module:function`."""


def source_module(name: str) -> ModuleType:
    """The module of a source.

    Raises
    ------
    MetroError
        There is no such source.
    """
    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(SOURCES)}"
        raise MetroError(f"no source {name!r}; {hint}")
    return importlib.import_module(SOURCES[name].partition(":")[0])


def shard_tasks(config: DatasetConfig, body: BodyConfig) -> Sequence[ShardTask]:
    """Tasks of the source that `config.source` names, one per shard.

    Raises
    ------
    MetroError
        There is no such source, or its raw data is not there.
    """
    module = source_module(config.source)
    return getattr(module, SOURCES[config.source].partition(":")[2])(config, body)


def licence(name: str) -> str:
    """Terms of a source's data, one line."""
    return getattr(source_module(name), "LICENCE", "")
