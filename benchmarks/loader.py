"""Training samples per second and core, against a twin of the official loader, in the same run.

The twin reads what the official code reads, base64 frames and JSON labels in TSV files, and does its work sample by
sample. A second twin reads the crops that the shards hold, from a TSV file too: what storage gives, and what code.
``python benchmarks/loader.py`` takes about three minutes and writes ``benchmarks/loader.md``. Times are processor time
of one thread, because other jobs may share the machine; all loaders of one frame size take turns.
"""

from __future__ import annotations

import base64
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from machine import machine

from metro import sources
from metro.body.joints import flip_permutation
from metro.config import BodyConfig, CropConfig, DatasetConfig, ModelConfig, TrainConfig
from metro.data import crop, shards
from metro.data.augment import IMAGENET_MEAN, IMAGENET_SD, normalise
from metro.data.loader import TrainStream
from metro.data.records import Record
from metro.model.masking import query_mask
from metro.sources.prepare import prepare
from metro.sources.source import Row, Survey

PEOPLE, BATCH, ROUNDS, TWIN = 256, 32, 12, 8
"""People, and samples that ours and a twin make in each of the rounds."""
FRAMES = {"1080p": (1080, 1920), "640 × 480 (as COCO)": (480, 640)}
SAME = (224, 1.77, 224)
"""The case whose stored crops the second twin reads: that of the preset `paper-body`."""
FLIP_JOINTS, FLIP_POSE = flip_permutation("J24"), flip_permutation("SMPL24")
CASES = (  # stored box and margin, network input
    (224, 1.77, 224),
    (224, 1.5, 224),
    (128, 1.5, 224),
    (128, 1.5, 128),
)


def frame(number: int, shape: tuple[int, int]) -> np.ndarray:
    """A frame as hard to compress as a photograph: structure at all sizes (1/f) and some noise."""
    rng = np.random.default_rng(number)
    picture = np.zeros((*shape, 3), np.float32)
    for step in (4, 8, 16, 32, 64, 128, 256):
        coarse = rng.normal(0, step**0.5, (shape[0] // step + 2, shape[1] // step + 2, 3)).astype(np.float32)
        picture += cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 2.2 * picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def records(paths: list[Path], fields: list[dict[str, np.ndarray]]) -> Iterator[Record]:
    """People in the frames."""
    for path, field in zip(paths, fields, strict=True):
        yield Record(source="benchmark", frame=path.name, image=path, mesh_origin="mocap", **field)  # type: ignore[arg-type]


class Given(NamedTuple):
    """A source of records that are there."""

    records: list[Record]
    LICENCE = SITE = "none"

    def survey(self, *_: object) -> Survey:
        return Survey(dialect="given", files=())

    def rows(self, *_: object) -> Iterator[Row]:
        return (Row(record.frame, 0, "", i) for i, record in enumerate(self.records))

    def read(self, config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record]:
        return (self.records[row.labels] for row in rows)


def people(count: int, shape: tuple[int, int]) -> list[dict[str, np.ndarray]]:
    """Labels of made-up people with boxes of 0.28 to 0.56 of the frame's height: 300 to 600 px in 1080p."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        side = rng.uniform(0.28, 0.56) * shape[0]
        corner = rng.uniform(0, [shape[1] - side, shape[0] - side])
        joints = np.column_stack([corner + rng.uniform(0, side, (24, 2)), np.ones(24)])
        made.append(
            {
                "box": np.array([*corner, side, side]),
                "keypoints_2d": joints,
                "joints_3d": rng.normal(size=(24, 4)) ** 2,
                "pose_aa": rng.normal(size=72),
                "betas": rng.normal(size=10),
            }
        )
    return made


class TsvLoader:
    """The official way: a row is a base64 JPEG of the whole frame; labels are JSON; everything is done per sample."""

    def __init__(self, folder: Path, paths: list[Path], fields: list[dict[str, np.ndarray]]) -> None:
        rows = {
            "img": (base64.b64encode(path.read_bytes()).decode() for path in paths),
            "label": (json.dumps([official_label(field)]) for field in fields),
        }
        self.files, self.offsets = {}, {}
        for name, values in rows.items():
            offsets = []
            with (folder / f"{name}.tsv").open("wb") as file:
                for number, value in enumerate(values):
                    offsets.append(file.tell())
                    file.write(f"{number}\t{value}\n".encode())
            self.files[name], self.offsets[name] = (folder / f"{name}.tsv").open("rb"), offsets
        self.rng = np.random.default_rng(0)

    def row(self, name: str, number: int) -> str:
        self.files[name].seek(self.offsets[name][number])
        return self.files[name].readline().decode().rstrip("\n").split("\t")[-1]

    def sample(self, number: int) -> tuple[torch.Tensor, ...]:
        """Image, 2D joints, 3D joints, pose, shape and mask of one augmented sample."""
        encoded = np.frombuffer(base64.b64decode(self.row("img", number)), np.uint8)
        image = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        label = json.loads(self.row("label", number))[0]
        rng = self.rng
        flip, gain = rng.uniform() < 0.5, rng.uniform(0.6, 1.4, 3)
        degrees = float(np.clip(30 * rng.normal(), -60, 60)) if rng.uniform() > 0.6 else 0.0
        scale = label["scale"] * float(np.clip(1 + 0.25 * rng.normal(), 0.75, 1.25))
        cut = whole_crop(image, label["center"], scale, degrees)
        cut = cut[:, ::-1] if flip else cut
        cut = np.clip(cut * gain, 0, 255).transpose(2, 0, 1).astype(np.float32) / 255
        mean, sd = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_SD))

        turn = np.deg2rad(-degrees)
        matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        joints_2d, joints_3d = np.array(label["2d_joints"]), np.array(label["3d_joints"])
        for joint in joints_2d:  # joint after joint, as the official code does
            joint[:2] = to_crop(joint[:2], label["center"], scale, degrees)
        joints_2d[:, :2] = 2 * joints_2d[:, :2] / 224 - 1
        joints_3d[:, :3] = joints_3d[:, :3] @ matrix.T
        pose = np.array(label["pose"])
        pose[:3] = cv2.Rodrigues(matrix @ cv2.Rodrigues(pose[:3])[0])[0][:, 0]
        if flip:
            joints_2d, joints_3d = joints_2d[FLIP_JOINTS], joints_3d[FLIP_JOINTS]
            joints_2d[:, 0], joints_3d[:, 0] = -joints_2d[:, 0], -joints_3d[:, 0]
            pose = (pose.reshape(-1, 3)[FLIP_POSE] * [1, -1, -1]).ravel()
        mask = np.ones((445, 1))
        for first, count in ((0, 14), (14, 431)):
            mask[first + rng.choice(count, int(rng.uniform() * 0.3 * count), replace=False)] = 0
        image = (torch.from_numpy(cut) - mean) / sd
        return image, *(
            torch.from_numpy(x).float() for x in (joints_2d, joints_3d, pose, np.array(label["betas"]), mask)
        )


def official_label(field: dict[str, np.ndarray]) -> dict[str, Any]:
    """A label row of the official files."""
    x, y, side, _ = field["box"]
    return {
        "center": [x + side / 2, y + side / 2],
        "scale": side / 200,
        "2d_joints": field["keypoints_2d"].tolist(),
        "has_2d_joints": 1,
        "3d_joints": field["joints_3d"].tolist(),
        "has_3d_joints": 1,
        "pose": field["pose_aa"].tolist(),
        "betas": field["betas"].tolist(),
        "has_smpl": 1,
    }


def to_crop(point: np.ndarray, center: list[float], scale: float, degrees: float) -> np.ndarray:
    """A pixel of the frame → a whole pixel of the crop, by a 3 × 3 matrix of its own."""
    side = 200 * scale
    matrix = np.diag([224 / side, 224 / side, 1.0])
    matrix[:2, 2] = 224 * (0.5 - np.array(center) / side)
    if degrees:
        turn = np.deg2rad(-degrees)
        back, rotation = np.eye(3), np.eye(3)
        rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        back[:2, 2] = -112
        matrix = np.linalg.inv(back) @ rotation @ back @ matrix
    return (matrix @ [*point, 1.0])[:2].astype(int) + 1.0


def whole_crop(image: np.ndarray, center: list[float], scale: float, degrees: float) -> np.ndarray:
    """Cut with a pad, turn, cut the pad off, resize, in float64."""
    left, top = (int(c - 100 * scale) for c in center)
    right, bottom = (int(c + 100 * scale) for c in center)
    pad = int(np.hypot(bottom - top, right - left) / 2 - (right - left) / 2) if degrees else 0
    left, top, right, bottom = left - pad, top - pad, right + pad, bottom + pad
    cut: Any = np.zeros((bottom - top, right - left, 3))
    part = image[max(top, 0) : bottom, max(left, 0) : right]
    cut[max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]] = part
    if degrees:
        middle = ((cut.shape[1] - 1) / 2, (cut.shape[0] - 1) / 2)
        cut = cv2.warpAffine(cut, cv2.getRotationMatrix2D(middle, degrees, 1), cut.shape[1::-1])
        cut = cut[pad : len(cut) - pad, pad : cut.shape[1] - pad]
    return cv2.resize(cut, (224, 224))


def cost(call: Callable[[int], object], rounds: int, samples: int) -> float:
    """Median processor time of a sample, microseconds."""
    call(0)
    return float(np.median([once(call, k, samples) for k in range(rounds)]))


def once(call: Callable[[int], object], number: int, samples: int) -> float:
    """Processor time of a sample, microseconds."""
    start = time.thread_time()
    call(number)
    return (time.thread_time() - start) / samples * 1e6


def main() -> None:
    """Run everything and write the table."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    rows: list[str] = []
    parts: list[str] = []
    for name, shape in FRAMES.items():
        folder = Path(tempfile.mkdtemp(prefix="metro-loader-"))
        try:
            raced, split = measure(folder, name, shape)
        finally:
            shutil.rmtree(folder)
        rows += raced
        parts = split
    command = "`python benchmarks/loader.py`"
    versions = f"Python {platform.python_version()}, OpenCV {cv2.__version__}"
    head = f"{machine()}; {versions}; {command}; medians of one core's processor time"
    text = "\n".join([head, "", *RACED, *rows, "", SPLIT[0], "", *SPLIT[1:], *parts, "", NOTES])
    (Path(__file__).with_suffix(".md")).write_text(text)
    sys.stdout.write(text)


RACED = [
    "| frames | input | loader, what is stored | bytes | samples/s | × twin [least, most] |",
    "|---|---|---|---|---|---|",
]
SPLIT = [
    "Where the time of ours goes, whatever the frames were; before normalisation, which runs on the device:",
    "| input | stored | decode µs | warp µs | rest µs | samples/s |",
    "|---|---|---|---|---|---|",
]


def measure(folder: Path, name: str, shape: tuple[int, int]) -> tuple[list[str], list[str]]:
    """Rows of the two tables for frames of one size."""
    fields = people(PEOPLE, shape)
    paths = [folder / f"{k:03d}.jpg" for k in range(PEOPLE)]
    for k, path in enumerate(paths):
        if k < 32:  # 32 different frames are enough to keep caches honest
            cv2.imwrite(str(path), frame(k, shape), [cv2.IMWRITE_JPEG_QUALITY, 92])
        else:
            path.hardlink_to(paths[k % 32])
    given = Given(list(records(paths, fields)))
    sources.adapter = lambda name: given  # type: ignore[assignment, return-value]
    labels: list[tuple[str, str, int]] = [("224", "twin, TSV of whole frames", paths[0].stat().st_size)]
    calls = [(twin(TsvLoader(folder, paths, fields)), TWIN)]
    parts = []
    for box, margin, size in CASES:
        out = folder / f"{box}-{margin}-{size}"
        config = DatasetConfig(crop=CropConfig(box_px=box, margin=margin))
        manifest = prepare("benchmark", config, BodyConfig(), out, workers=1, progress=False)
        dataset = shards.ShardDataset(out)
        stored = f"{dataset.image_size} px ({box} × {margin})"
        if (box, margin, size) == SAME:
            cut = folder / "crops"
            cut.mkdir()
            labels.append(("224", f"twin, TSV of the same {dataset.image_size} px crops", crops(cut, dataset, fields)))
            calls.append((twin(TsvLoader(cut, sorted(cut.glob("*.jpg")), cropped(dataset, fields))), TWIN))
        train = TrainConfig(batch_size=BATCH, workers=0)
        mask = partial(query_mask, train.mask, 14, 431)
        stream = iter(TrainStream([dataset], ModelConfig(image_size=size), train, mask))
        labels.append((str(size), f"ours, {stored}", manifest["shards"][0]["bytes"] // PEOPLE))
        calls.append((partial(normalised, stream), BATCH))
        whole, decode, warp = costs(stream, dataset, box, size)
        rest = whole - decode - warp
        parts.append(f"| {size} | {stored} | {decode:.0f} | {warp:.0f} | {rest:.0f} | **{1e6 / whole:,.0f}** |")
    for call, _ in calls:
        call(0)
    spent = np.array([[once(call, k, samples) for call, samples in calls] for k in range(ROUNDS)])  # (rounds, loaders)
    ratios = spent[:, :1] / spent
    rows = []
    for (size, what, count), own, ratio in zip(labels, spent.T, ratios.T, strict=True):
        times = f"**{np.median(ratio):.1f}** [{ratio.min():.1f}, {ratio.max():.1f}]" if what != labels[0][1] else "1"
        rows.append(f"| {name} | {size} | {what} | {count:,} | {1e6 / np.median(own):,.0f} | {times} |")
        print(rows[-1], flush=True)
    return rows, parts


def twin(official: TsvLoader) -> Callable[[int], object]:
    """Makes the samples of one round."""
    return lambda k: [official.sample(i) for i in range(TWIN * k % PEOPLE, TWIN * k % PEOPLE + TWIN)]


def normalised(stream: Iterator[dict[str, Any]], _: int) -> None:
    """The next batch, normalised, as a sample of the twin is."""
    batch = next(stream)
    normalise(batch["image"], batch["colour"])


def crops(folder: Path, dataset: shards.ShardDataset, fields: list[dict[str, np.ndarray]]) -> int:
    """Write the stored images one by one; mean bytes."""
    for k in range(len(fields)):
        bgr = cv2.cvtColor(dataset.image(k), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{k:03d}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return sum(path.stat().st_size for path in folder.iterdir()) // len(fields)


def cropped(dataset: shards.ShardDataset, fields: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """The labels in pixels of the stored images."""
    moved = []
    for affine, field in zip(dataset.labels["affine"].astype(np.float64), fields, strict=True):
        joints = field["keypoints_2d"].copy()
        joints[:, :2] = crop.apply(affine, joints[:, :2])
        corner, side = field["box"][:2], field["box"][2]
        low, high = crop.apply(affine, np.array([corner, corner + side]))
        moved.append({**field, "keypoints_2d": joints, "box": np.array([*low, *(high - low)])})
    return moved


def costs(
    stream: Iterator[dict[str, Any]], dataset: shards.ShardDataset, box: int, size: int
) -> tuple[float, float, float]:
    """Microseconds of a sample: all of it up to the batch, of which decoding and warping."""
    images = [dataset.image(i) for i in range(BATCH)]
    target = np.empty((size, size, 3), np.uint8)
    affine = crop.crop_affine(np.full((1, 2), len(images[0]) / 2), np.array([box]), size, 10.0)[0]

    def warp(_: int) -> None:
        for image in images:
            crop.warp(image, affine, target)

    return (
        cost(lambda _: next(stream), ROUNDS, BATCH),
        cost(lambda _: [dataset.image(i) for i in range(BATCH)], ROUNDS, BATCH),
        cost(warp, ROUNDS, BATCH),
    )


NOTES = """\
A sample of ours is its share of a batch as the training process gets it (decoded; turned, scaled and mirrored in one
warp; joints and poses augmented; masks drawn) and normalised, as the twin's is. The twin reads base64 JPEGs and JSON
labels from TSV files and does per sample what the official code does. Ratios are medians over rounds in which all
loaders took their turn. The second twin reads the crops that one row of ours reads: what it gains is the gain of
storing crops, the rest is code. On small frames little is left to gain by storing.

Decoding is most of the cost and grows with the stored area, so `crop.box_px` and `crop.margin` decide. Warping goes
through four channels, which OpenCV does in half the time that three take.
"""

if __name__ == "__main__":
    main()
