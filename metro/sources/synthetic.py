"""Synthetic people and hands: rendered, exactly annotated, made from nothing but a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from metro.body.figure import HAND, figure_of
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import Record
from metro.errors import MetroError

LICENCE = "pictures and labels come under the terms of the body: CC0 1.0 and Apache 2.0 for the open ones"

BATCH = 64
"""People posed at once. It does not influence what they look like."""


def shard_tasks(config: DatasetConfig, body: BodyConfig) -> list[Callable[[], Iterator[Record]]]:
    """One picklable task per shard of `config.shard_size` people; the people do not depend on how they are sharded."""
    count = config.synthetic.count
    return [
        partial(read_shard, config, body, start, min(start + config.shard_size, count))
        for start in range(0, count, config.shard_size)
    ]


def read_shard(config: DatasetConfig, body: BodyConfig, start: int, stop: int) -> Iterator[Record]:
    """Records of the people, or hands, from `start` to `stop`."""
    from metro.synthetic.hands import photograph_hands
    from metro.synthetic.people import open_studio
    from metro.synthetic.scene import annotate, photograph_people

    if body.kind == "smplx":
        raise MetroError(f"body.kind={body.kind}: the synthetic source makes people on `open` or `smpl`, and hands")
    shots = photograph_hands if figure_of(body.kind) is HAND else photograph_people
    studio = open_studio(body, config.split)
    for first in range(start, stop, BATCH):
        indices = range(first, min(first + BATCH, stop))
        for index, shot in zip(indices, shots(config, body, indices), strict=True):
            yield annotate(studio, shot, config.synthetic.seed, index)
