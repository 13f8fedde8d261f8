"""What preparing costs, and the memory that it takes: `python benchmarks/prepare.py` writes `benchmarks/prepare.md`.

Pictures are synthesised: smooth shapes of all sizes, sharp edges, and the noise of a sensor, 1000 × 1000 pixels, JPEG
of quality 90 with OpenCV's settings. Each has a person whose box is 500 to 600 pixels high, with all labels. Records go
through `ShardWriter` as `prepare` sends them: read, decoded, cut, encoded, counted, written and synced. The yardstick
does no more than that needs: the whole picture decoded, `cv2.warpAffine`, `cv2.imencode`, on the same pictures.

Rates are of the process's own time on one core, with one thread; the ways take turns, so that other work on the machine
disturbs all of them alike.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from machine import machine

from metro.config import CropConfig
from metro.data import crop
from metro.data.parallel import map_shards
from metro.data.records import Record
from metro.data.shards import ShardDataset, ShardWriter

SIDE, PICTURES, QUALITY = 1000, 24, 90
RECORDS, ROUNDS = 160, 5
PEOPLE = 4
CROPS = {"224 px × 1.77": CropConfig(box_px=224, margin=1.77), "128 px × 1.5": CropConfig(box_px=128, margin=1.5)}
SHARDS_MIB = (256, 940)


def photograph(number: int) -> np.ndarray:
    """A picture (SIDE, SIDE, 3) uint8 whose detail falls off with its size, as that of photographs does."""
    g = np.random.default_rng(number)
    image = np.full((SIDE, SIDE, 3), 120, np.float32)
    for cells in (4, 8, 16, 32, 64, 128, 256):
        grid = g.standard_normal((cells, cells, 1), np.float32) + g.standard_normal((cells, cells, 3), np.float32) / 4
        grid *= 120 / cells**0.6
        image += cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        corners = g.integers(0, SIDE, 2) + g.integers(-120, 120, (6, 2))
        cv2.fillConvexPoly(image, cv2.convexHull(corners.astype(np.int32)), g.uniform(0, 255, 3).tolist(), cv2.LINE_AA)
    image += g.standard_normal(image.shape, np.float32) * 3
    return np.clip(image, 0, 255).astype(np.uint8)


def person(number: int, image: np.ndarray | Path) -> Record:
    """A record with every label, its person in the middle of a picture of SIDE pixels."""
    g = np.random.default_rng(number)
    points = g.uniform(300, 700, (24, 2))
    height = g.uniform(500, 600)
    return Record(
        source="made",
        frame=f"{number:06d}.jpg",
        person=number,
        image=image,
        box=np.array([SIDE / 2 - 150, SIDE / 2 - height / 2, 300, height]) + g.uniform(-40, 40, 4) * [1, 1, 0, 0],
        keypoints_2d=np.column_stack([points, np.ones(24)]),
        joints_3d=np.column_stack([(points - SIDE / 2) / 400, g.uniform(2.9, 3.1, 24), np.ones(24)]),
        pose_aa=g.normal(0, 0.4, 72),
        betas=g.normal(0, 1, 10),
        transl=np.array([0.0, 0.0, 3.0]),
        intrinsics=np.array([[1200.0, 0, SIDE / 2], [0, 1200, SIDE / 2], [0, 0, 1]]),
        mesh_origin="mocap",
    )


def write(records: list[Record], config: CropConfig, path: Path) -> None:
    with ShardWriter(path, config) as writer:
        for record in records:
            writer.add(record)


def yardstick(records: list[Record], config: CropConfig) -> None:
    """Crops of records, by the shortest way that OpenCV has."""
    size = round(config.box_px * config.margin)
    for record in records:
        frame = cv2.imread(str(record.image))
        center, scale = record.crop_square()
        affine = crop.crop_affine(center[None], np.array([200 * scale * size / config.box_px]), size)[0]
        cv2.imencode(".jpg", cv2.warpAffine(frame, affine, (size, size)), [cv2.IMWRITE_JPEG_QUALITY, config.quality])


def seconds(ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Processor seconds of each way, in rounds."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.process_time()
            way()
            taken[name].append(time.process_time() - start)
    return taken


def rates(paths: list[Path], folder: Path) -> list[str]:
    """Rows of the first table."""
    cv2.setNumThreads(0)
    single = [person(i, paths[i % PICTURES]) for i in range(RECORDS)]
    several = [person(i, paths[i // PEOPLE % PICTURES]) for i in range(RECORDS)]
    encoded = [path.read_bytes() for path in paths]
    lines = []
    for name, config in CROPS.items():
        reduce = 2 if config.box_px > 200 else 4
        taken = seconds(
            {
                "yardstick": lambda c=config: yardstick(single, c),
                "records": lambda c=config: write(single, c, folder / "s.h5"),
                "people": lambda c=config: write(several, c, folder / "s.h5"),
                "decode": lambda r=reduce: [crop.decode(encoded[i % PICTURES], r) for i in range(RECORDS)],
            }
        )
        rate = {way: f"{RECORDS / statistics.median(found):.0f}" for way, found in taken.items()}
        best = {way: f"{RECORDS / min(found):.0f}" for way, found in taken.items()}
        alone = [1000 * pick(taken["decode"]) / RECORDS for pick in (statistics.median, min)]
        ratio = statistics.median(a / b for a, b in zip(taken["yardstick"], taken["records"], strict=True))
        share = statistics.median(a / b for a, b in zip(taken["decode"], taken["records"], strict=True))
        lines.append(
            f"| {name} | {rate['yardstick']} ({best['yardstick']}) | **{rate['records']}** ({best['records']}) | "
            f"{ratio:.2f} | 1/{reduce}: {alone[0]:.2f} ({alone[1]:.2f}) ms | {100 * share:.0f} % | "
            f"{rate['people']} ({best['people']}) |"
        )
    return lines


def job(task: tuple[list[Record], CropConfig, Path]) -> tuple[float, float, float]:
    """Write a shard: when it began, when it ended, and the processor seconds between."""
    begun, start = time.perf_counter(), time.process_time()
    write(*task)
    return begun, time.perf_counter(), time.process_time() - start


def workers(paths: list[Path], folder: Path) -> list[str]:
    """Rows of the second table: the same shards by one process and by two."""
    lines = []
    for name, config in CROPS.items():
        records = [person(i, paths[i % PICTURES]) for i in range(RECORDS)]
        tasks = [(records, config, folder / f"shard-{k}.h5") for k in range(4)]
        total = len(tasks) * len(records)
        wall: dict[int, list[float]] = {1: [], 2: []}
        cpu: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(3):
            for count in (1, 2):
                begun, ended, spent = zip(*map_shards(job, tasks, workers=count, progress=False), strict=True)
                wall[count].append(total / (max(ended) - min(begun)))
                cpu[count].append(1000 * sum(spent) / total)
        gain = statistics.median(two / one for one, two in zip(wall[1], wall[2], strict=True))
        free = statistics.median(2 * one / two for one, two in zip(cpu[1], cpu[2], strict=True))
        rate, took = ({n: statistics.median(found[n]) for n in (1, 2)} for found in (wall, cpu))
        lines.append(
            f"| {name} | {rate[1]:.0f} | {rate[2]:.0f} | {gain:.2f} | {took[1]:.2f} | {took[2]:.2f} | {free:.2f} |"
        )
    return lines


def fill(path: Path, mib: int) -> None:
    """Write a shard of so many MiB of images: noise of 96 pixels, of quality 100."""
    config = CropConfig(box_px=96, margin=1, quality=100)
    frame = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    size = len(cv2.imencode(".jpg", frame[:96, :96], [cv2.IMWRITE_JPEG_QUALITY, config.quality])[1])
    record = person(0, frame)
    with ShardWriter(path, config) as writer:
        for number in range((mib << 20) // size):
            record.person = number
            record.box = np.array([300 + number % 400 - 0.5, 300 + number // 400 % 400 - 0.5, 96, 96])
            writer.add(record)


def check(path: Path) -> None:
    """As `prepare` looks at a shard that it finds."""
    ShardDataset([path]).check_images()


def peak(step: str, *arguments: object) -> float:
    """Peak MiB of resident memory of a process that does one step."""
    command = [sys.executable, __file__, step, *map(str, arguments)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def memory(folder: Path) -> list[str]:
    """Rows of the third table."""
    nothing = peak("nothing")
    lines = [f"| none: the imports alone | | | {nothing:.0f} | |"]
    for mib in SHARDS_MIB:
        path = folder / "large.h5"
        written = peak("fill", path, mib)
        count = len(ShardDataset([path]))
        lines.append(
            f"| {path.stat().st_size >> 20} MiB | {count:,} | {mib} MiB | {written:.0f} | {peak('check', path):.0f} |"
        )
    return lines


def step(name: str, *arguments: str) -> None:
    """What `peak` starts."""
    if name == "fill":
        fill(Path(arguments[0]), int(arguments[1]))
    elif name == "check":
        check(Path(arguments[0]))
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    print(int(found[1]) / 1024)


def main() -> None:
    """Measure and write the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = [folder / f"{number:03d}.jpg" for number in range(PICTURES)]
        for number, path in enumerate(paths):
            cv2.imwrite(str(path), photograph(number), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        kilobytes = statistics.mean(path.stat().st_size for path in paths) / 1000
        load = os.getloadavg()[0]
        first, second, third = rates(paths, folder), workers(paths, folder), memory(folder)
    about = [
        f"{machine()}, load {load:.1f} when it began; Python {sys.version.split()[0]}, OpenCV {cv2.__version__}.",
        f"{PICTURES} synthetic pictures of {SIDE} × {SIDE} pixels, JPEG of quality {QUALITY}, {kilobytes:.0f} kB each;",
    ]
    lines = [
        "# What preparing costs",
        "",
        "Written by `python benchmarks/prepare.py`.",
        *about,
        "boxes 500 to 600 pixels high, all labels.",
        "",
        "Records per second of processor time on one core, median (best) of rounds in turns. The yardstick decodes",
        "whole pictures, warps and encodes, without anything else; the ratio is the median over rounds. Decoding is",
        "that of the same pictures alone, at the size that the crop needs. The last column has",
        f"{PEOPLE} people in each picture.",
        "",
        "| crop | yardstick | `ShardWriter` | ratio | decoding | its share | people of one picture |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *first,
        "",
        "Processes of `map_shards`, medians of 3 rounds: records per second by the clock from the first record to the",
        "last, milliseconds of processor time per record, and what these alone would gain on two free cores.",
        "",
        "| crop | one: /s | two: /s | gain | one: ms | two: ms | gain on free cores |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *second,
        "",
        "Memory of whole processes, with small images (96 pixels of noise) so that there are many labels:",
        "",
        "| shard | records | images | peak MiB of writing | peak MiB of checking it when a run goes on |",
        "| --- | ---: | ---: | ---: | ---: |",
        *third,
    ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    step(*sys.argv[1:]) if len(sys.argv) > 1 else main()
