"""Small records for the tests of this folder: coloured frames with a disc at every 2D joint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Left, Record
from metro.sources.source import RawFile, Row, Survey


def person(number: int, size: tuple[int, int] = (200, 160), **changes: object) -> Record:
    """A record whose every value follows from `number`; `size` is (width, height) of the frame."""
    rng = np.random.default_rng(number)
    width, height = size
    image = np.full((height, width, 3), rng.integers(40, 200, 3), np.uint8)
    points = rng.uniform([60, 40], [140, 120], (24, 2))
    rows, columns = np.mgrid[:height, :width]
    for j, (x, y) in enumerate(points):
        image[np.hypot(columns - x, rows - y) < 3] = [10 * j, 255 - 10 * j, 128]
    depth = rng.uniform(2.8, 3.2, 24)
    focal = 500.0
    fields: dict[str, object] = {
        "source": "made",
        "frame": f"{number:06d}.png",
        "image": image,
        "box": np.array([50.0, 30.0, 100.0, 100.0]),
        "keypoints_2d": np.column_stack([points, np.ones(24)]),
        "joints_3d": np.column_stack([(points - 100) * depth[:, None] / focal, depth, np.ones(24)]),
        "pose_aa": rng.normal(0, 0.4, 72),
        "betas": rng.normal(0, 1, 10),
        "transl": np.array([0.0, 0.0, 3.0]),
        "intrinsics": np.array([[focal, 0, 100], [0, focal, 100], [0, 0, 1]]),
        "mesh_origin": "synthetic",
    }
    return Record(**(fields | changes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Made:
    """A source of people 0 … count - 1; those in `bad` cannot be read, those in `left` are left out by a rule.

    `make` makes one; none: `person`.
    """

    count: int
    bad: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    raw: tuple[RawFile, ...] = ()
    make: Callable[[int], Record] | None = None
    LICENCE: str = "none"
    SITE: str = "here"

    def survey(self, config: DatasetConfig, body: BodyConfig) -> Survey:
        return Survey(dialect="made", files=self.raw, figure=None)

    def rows(self, config: DatasetConfig, body: BodyConfig) -> Iterator[Row | Left]:
        for number in range(self.count):
            yield Left("odd one out") if number in self.left else Row(f"{number:06d}.png", 0, "", number)

    def read(self, config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record | BadRecord]:
        for row in rows:
            if row.labels in self.bad:
                yield BadRecord(f"made:{row.frame}#0", "unreadable on purpose")
            else:
                yield (self.make or person)(row.labels)
