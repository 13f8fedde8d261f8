"""Synthetic people and hands: rendered, exactly annotated, made from nothing but a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from metro.body.figure import HAND, figure_of
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import Record
from metro.errors import MetroError
from metro.options import SyntheticOptions
from metro.sources.source import Row, Survey

LICENCE = "pictures and labels come under the terms of the body: CC0 1.0 and Apache 2.0 for the open ones"
SITE = "this project: nothing is downloaded"

BATCH = 64
"""People posed at once. It does not influence what they look like."""


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """Nothing can be missing."""
    if body.kind == "smplx":
        raise MetroError(f"body.kind={body.kind}: the synthetic source makes people on `open` or `smpl`, and hands")
    return Survey(dialect="rendered", files=(), expected=config.chosen(SyntheticOptions).count, figure=None)


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row]:
    """One row per person, or hand; they do not depend on how they are sharded."""
    options = config.chosen(SyntheticOptions)
    for index in range(options.count):
        yield Row(f"{options.seed}/{index:07d}", 0, "", index)


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record]:
    """Records of the people, or hands."""
    from metro.synthetic.hands import photograph_hands
    from metro.synthetic.people import open_studio
    from metro.synthetic.scene import annotate, photograph_people

    shots = photograph_hands if figure_of(body.kind) is HAND else photograph_people
    studio = open_studio(body, config.split)
    seed, pending = config.chosen(SyntheticOptions).seed, iter(rows)
    while indices := [row.labels for row in islice(pending, BATCH)]:
        for index, shot in zip(indices, shots(config, body, indices), strict=True):
            yield annotate(studio, shot, seed, index)
