"""All that an adapter makes of a raw tree."""

from __future__ import annotations

import json
from collections import Counter

from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Left, Record
from metro.sources import adapter
from metro.sources.source import Row


def everything(
    settings: DatasetConfig, body: BodyConfig | None = None
) -> tuple[list[Record], Counter[str], list[BadRecord]]:
    """Records, what was left out by reason, and what is bad; the rows having gone through JSON, as in an index."""
    source, body = adapter(settings.source), body or BodyConfig()
    indexed, others = [], []
    for row in source.rows(settings, body):
        if isinstance(row, Row):
            indexed.append(Row(*json.loads(json.dumps(row, allow_nan=False))))
        else:
            others.append(row)
    made = [*others, *source.read(settings, body, indexed)]
    left: Counter[str] = Counter()
    for item in made:
        if isinstance(item, Left):
            left[item.reason] += item.count
    return [m for m in made if isinstance(m, Record)], left, [m for m in made if isinstance(m, BadRecord)]
