"""Some people of the synthetic source."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from metro.config import BodyConfig, DatasetConfig
from metro.data.records import Record
from metro.sources import synthetic


def read_shard(config: DatasetConfig, body: BodyConfig, start: int, stop: int) -> Iterator[Record]:
    """Records of the people, or hands, from `start` to `stop`."""
    return synthetic.read(config, body, islice(synthetic.rows(config, body), start, stop))
