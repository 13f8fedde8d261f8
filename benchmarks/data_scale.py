"""A million records: opening, memory of each process, reading at random, shuffling, verifying.

``python benchmarks/data_scale.py FOLDER`` writes two sets into FOLDER (4 + 4 GB, removed at the end), one with as many
records as the table says and small images, and one with images of full size to read, and ``benchmarks/data_scale.md``.
It takes about ten minutes. Times are processor time, because other jobs may share the machine, but for reading, where
"not cached" means that the system was asked to drop the shards' pages before.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import platform
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from machine import machine

from metro.body.figure import BODY
from metro.data.hdf5 import SCHEMA, write_h5
from metro.data.loader import blockwise, shuffled_round
from metro.data.shards import ShardDataset
from metro.data.table import LABELS
from metro.data.verify import verify
from metro.files import sha256_of

SHARD = 2500
MANY, MANY_SIDE = 400, 64  # shards of the large set, and px of its images
FULL, FULL_SIDE = 40, 396  # of the set whose images have full size (224 px boxes x 1.77)
BATCH = 32
READS = 8000


def picture(number: int, side: int) -> np.ndarray:
    """A JPEG about as hard to compress as a photograph."""
    rng = np.random.default_rng(number)
    total = np.zeros((side, side, 3), np.float32)
    for step in (4, 8, 16, 32, 64):
        coarse = rng.normal(0, step**0.5, (side // step + 2, side // step + 2, 3)).astype(np.float32)
        total += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    image = np.clip(128 + 3 * total + rng.normal(0, 3, total.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]


def write_set(folder: Path, shards: int, side: int) -> None:
    """A finished dataset of random labels; 100 pictures serve all records."""
    folder.mkdir(parents=True)
    pictures = [picture(k, side) for k in range(100)]
    chosen = np.arange(SHARD) % len(pictures)
    images = {
        "images/bytes": np.concatenate([pictures[k] for k in chosen]),
        "images/offsets": np.cumsum([0, *(len(pictures[k]) for k in chosen)]),
        "images/crc32": np.array([zlib.crc32(pictures[k]) for k in chosen], np.uint32),
    }
    colours = {"colour_sum": [SHARD / 2] * 3, "colour_square_sum": [SHARD / 3] * 3}
    entries = []
    for number in range(shards):
        rng = np.random.default_rng(number)
        labels = {"labels/keys": np.array([f"made:{number:05d}-{k:06d}.jpg#0".encode() for k in range(SHARD)])}
        for name, label in LABELS.items():
            if name == "keys":
                continue
            kind = label.type(BODY)
            flag = kind.base != np.float32
            values = np.ones((SHARD, *kind.shape)) if flag else rng.uniform(0.5, 2, (SHARD, *kind.shape))
            labels[f"labels/{name}"] = values.astype(kind.base)
        path = folder / f"shard-{number:05d}.h5"
        write_h5(path, labels | images, {"image_size": side, **colours})
        entries.append({"file": path.name, "count": SHARD, "bytes": path.stat().st_size, "sha256": sha256_of(path)})
    manifest = {"schema": SCHEMA, "name": folder.name, "count": shards * SHARD, "shards": entries}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def forget(folder: Path) -> None:
    """Drop a set's pages from the system's cache."""
    for path in folder.glob("shard-*.h5"):
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory() -> dict[str, float]:
    """MB of this process: its own, mapped from files, and the most it ever had."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {key: int(lines[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile", "VmHWM")}


def opened(folder: Path, cache: Path | None, together: Any, answers: Any) -> None:
    """What a process needs to open the set and to gather the labels of 100,000 records."""
    before = memory()
    together.wait()
    start = time.process_time()
    dataset = ShardDataset(folder, cache=cache)
    seconds = time.process_time() - start
    after = memory()
    rows = np.random.default_rng(os.getpid()).integers(0, len(dataset), (3000, BATCH))
    start = time.process_time()
    for row_B in rows:
        for values in dataset.labels.values():
            values[row_B]
    gather = (time.process_time() - start) / rows.size * 1e6
    own = memory()["RssAnon"] - before["RssAnon"]
    shared = memory()["RssFile"] - before["RssFile"]
    answers.put((seconds, own, after["VmHWM"] - before["RssAnon"] - before["RssFile"], shared, gather))


def processes(count: int, folder: Path, cache: Path | None) -> tuple[float, ...]:
    """`opened` in so many processes at once; the worst of each number."""
    context = multiprocessing.get_context("spawn")
    together, answers = context.Barrier(count), context.Queue()
    running = [context.Process(target=opened, args=(folder, cache, together, answers)) for _ in range(count)]
    for process in running:
        process.start()
    found = [answers.get() for _ in running]
    for process in running:
        process.join()
    return tuple(np.max(found, axis=0))


def mapped(folder: Path) -> Callable[[np.ndarray], object]:
    """Reading through memory maps of whole shards, as this project did before."""
    maps, offsets, starts = {}, {}, {}
    for number in range(FULL):
        path = folder / f"shard-{number:05d}.h5"
        with h5py.File(path) as shard:
            offsets[number], starts[number] = shard["images/offsets"][...], shard["images/bytes"].id.get_offset()
        with path.open("rb") as file:
            maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read(row_B: np.ndarray) -> None:
        for row in row_B.tolist():
            shard, k = divmod(row, SHARD)
            first, end = offsets[shard][k : k + 2] + starts[shard]
            zlib.crc32(maps[shard][first:end])

    return read


def exact(folder: Path, ahead: bool = True) -> Callable[[np.ndarray], object]:
    """Reading as the loader does; without `ahead` one record after the other."""
    dataset = ShardDataset(folder)

    def read(row_B: np.ndarray) -> None:
        if ahead:
            dataset.expect(row_B)
        for row in row_B.tolist():
            dataset.encoded(row)

    return read


def speed(folder: Path, read: Callable[[np.ndarray], object], order: np.ndarray, cached: bool) -> tuple[float, float]:
    """Records per second, and kB that the disk gave for each."""
    batches = order[:READS].reshape(-1, BATCH)
    if cached:
        for row_B in batches:
            read(row_B)
    else:
        forget(folder)
    before, start = from_disk(), time.perf_counter()
    for row_B in batches:
        read(row_B)
    return READS / (time.perf_counter() - start), (from_disk() - before) / READS / 1000


def from_disk() -> int:
    """Bytes that this process had read from disk."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def timed(call: Callable[[], object]) -> float:
    """Processor time of a call, seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


def rows(folder: Path) -> Iterator[str]:
    """Lines of the page."""
    many, full, cache = folder / "many", folder / "full", folder / "labels"
    write_set(many, MANY, MANY_SIDE)
    write_set(full, FULL, FULL_SIDE)
    count, size = MANY * SHARD, os.path.getsize(full / "shard-00000.h5") / SHARD / 1000
    yield f"Opening {count:,} records in {MANY} shards, and gathering the labels of 96,000 of them at random:"
    yield ""
    yield "| labels | processes | CPU s | own MB | while opening, MB | mapped MB, shared | gather, µs a record |"
    yield "|---|---|---|---|---|---|---|"
    for name, number, place in (
        ("in memory (no `cache`)", 1, None),
        ("mapped, first time: the table is made", 2, cache),
        ("mapped, again", 1, cache),
        ("mapped, again", 2, cache),
    ):
        seconds, own, peak, shared, gather = processes(number, many, place)
        yield f"| {name} | {number} | {seconds:.1f} | {own:,.0f} | {peak:,.0f} | {shared:,.0f} | {gather:.1f} |"
    table = sum(path.stat().st_size for path in cache.iterdir())
    yield ""
    yield f"The table has {table / 1e6:,.0f} MB, {table / count:,.0f} bytes a record."
    yield ""
    yield f"Reading {READS:,} of {FULL * SHARD:,} records of {size:.0f} kB, one process:"
    yield ""
    yield "| reading | order | cached, records/s | not cached, records/s | disk gives, kB a record |"
    yield "|---|---|---|---|---|"
    rng = np.random.default_rng(0)
    shuffled, blocks = rng.permutation(FULL * SHARD), blockwise(rng, FULL * SHARD, 64, 64)
    for name, reader, order_name, order in (
        ("memory maps, as before", mapped, "all shuffled", shuffled),
        ("exact", partial(exact, ahead=False), "all shuffled", shuffled),
        ("exact, a batch asked for at once", exact, "all shuffled", shuffled),
        ("exact, a batch asked for at once", exact, "blocks of 64, 64 at a time", blocks),
    ):
        read = reader(full)  # one at a time: what is mapped cannot be dropped
        (cold, disk), (warm, _) = speed(full, read, order, cached=False), speed(full, read, order, cached=True)
        del read
        yield f"| {name} | {order_name} | {warm:,.0f} | {cold:,.0f} | {disk:,.0f} |"
    yield ""
    yield "| what | CPU s |"
    yield "|---|---|"
    for millions in (1, 10):
        n = millions * 1_000_000
        for name, block in (("all", None), ("blocks of 64, 64 at a time", 64)):
            seconds = timed(lambda n=n, block=block: shuffled_round(1, 0, [n], [n], block, 64))
            yield f"| order of a pass over {n:,} records, {name} | {seconds:.1f} |"
    yield f"| `metro data verify`, {count:,} records | {timed(lambda: verify(many)):.0f} |"


def main() -> None:
    """Run everything and write the page."""
    folder = Path(sys.argv[1]) / "data-scale"
    try:
        lines = list(rows(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    head = f"{machine()}; Python {platform.python_version()}; `python benchmarks/data_scale.py FOLDER`"
    text = "\n".join([head, "", *lines, ""])
    Path(__file__).with_suffix(".md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
