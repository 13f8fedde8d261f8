"""The index of a set: what its annotations say, read once, as one line of JSON per record.

Annotation files may be gigabytes, and a set is prepared by many processes: the index is what they share. It lies in a
folder of its own, `rows.jsonl` with an array of where each line begins and `index.json` with what was left out.
"""

from __future__ import annotations

import itertools
import json
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm
from typing_extensions import TypedDict

from metro.data.records import BadRecord, Left
from metro.files import read_json, readable, replace_folder
from metro.sources.source import Row

_REMEDY = "delete the folder and run prepare again"


class _Head(TypedDict):
    key: str
    count: int
    left: dict[str, int]
    bad: list[list[Any]]


class Index(NamedTuple):
    """An index on disk."""

    folder: Path
    records: int
    left: dict[str, int]
    """What rules of the set left out: how many, by reason."""
    bad: list[tuple[str, int]]
    """What could not be read while indexing: a line, and how many records it stands for."""

    def ranges(self, size: int) -> list[tuple[int, int]]:
        """Where shards of `size` records at most begin and end.

        A cut is moved back to where a group begins if the shard stays at least half full: a video that two shards
        share is decoded twice.
        """
        starts = np.flatnonzero(self._array("starts"))
        cuts = [0]
        while cuts[-1] + size < self.records:
            end = cuts[-1] + size
            border = int(starts[np.searchsorted(starts, end, "right") - 1])
            cuts.append(border if border >= cuts[-1] + max(1, size // 2) else end)
        return list(itertools.pairwise([*cuts, self.records])) if self.records else []

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """Rows from `start` to `stop`."""
        path = self.folder / "rows.jsonl"
        offset = int(self._array("offsets")[start])
        with readable(path, _REMEDY), path.open("rb") as file:
            file.seek(offset)
            for line in itertools.islice(file, stop - start):
                yield Row(*json.loads(line))

    def _array(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        with readable(path, _REMEDY):
            column: np.ndarray = np.load(path, mmap_mode="r")
        return column


def build_index(folder: Path, key: str, rows: Iterable[Row | Left | BadRecord], label: str, progress: bool) -> Index:
    """The index in `folder` if its key is this one, else one made from `rows`; the folder appears when it is whole."""
    if not (folder / "index.json").is_file() or read_json(folder / "index.json", _REMEDY, ("key",))["key"] != key:
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(partial, key, tqdm(rows, desc=f"index {label}", unit="row", disable=not progress))
        replace_folder(partial, folder)
    head: _Head = read_json(folder / "index.json", _REMEDY, shape=_Head)
    return Index(folder, head["count"], head["left"], [(line, n) for line, n in head["bad"]])


def _write(folder: Path, key: str, rows: Iterable[Row | Left | BadRecord]) -> None:
    left: Counter[str] = Counter()
    bad: list[list[Any]] = []
    offsets, starts = array("q"), array("b")
    at, group = 0, None
    with (folder / "rows.jsonl").open("wb", 1 << 20) as lines:
        for row in rows:
            if isinstance(row, Left):
                left[row.reason] += row.count
            elif isinstance(row, BadRecord):
                bad.append([f"{row.name}: {row.problem}", row.count])
            else:
                offsets.append(at)
                starts.append(row.group != group)
                group = row.group
                at += lines.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
    np.save(folder / "offsets.npy", np.frombuffer(offsets, np.int64))
    np.save(folder / "starts.npy", np.frombuffer(starts, np.int8))
    head = _Head(key=key, count=len(offsets), left=dict(sorted(left.items())), bad=bad)
    (folder / "index.json").write_text(json.dumps(head) + "\n")
