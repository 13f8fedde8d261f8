"""Training samples per second and core, against a twin of the official loader, in the same run.

The twin reads what the official code reads, base64 frames and JSON labels in TSV files, and does its work sample by
sample. ``python benchmarks/loader.py`` takes about a minute and writes ``benchmarks/loader.md``. Times are processor
time of one thread, because other jobs may share the machine.
"""

from __future__ import annotations

import base64
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

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

PEOPLE, BATCH, ROUNDS = 256, 32, 12
FRAME = (1080, 1920)
FLIP_JOINTS, FLIP_POSE = flip_permutation("J24"), flip_permutation("SMPL24")
CASES = (  # stored box and margin, network input
    (128, 1.5, 224),
    (224, 1.5, 224),
    (224, 1.77, 224),
    (128, 1.5, 128),
)


def frame(number: int) -> np.ndarray:
    """A frame as hard to compress as a photograph: structure at all sizes (1/f) and some noise."""
    rng = np.random.default_rng(number)
    picture = np.zeros((*FRAME, 3), np.float32)
    for step in (4, 8, 16, 32, 64, 128, 256):
        coarse = rng.normal(0, step**0.5, (FRAME[0] // step + 2, FRAME[1] // step + 2, 3)).astype(np.float32)
        picture += cv2.resize(coarse, FRAME[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 2.2 * picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def records(paths: list[Path], fields: list[dict[str, np.ndarray]]) -> Iterator[Record]:
    """People in the frames."""
    for path, field in zip(paths, fields, strict=True):
        yield Record(source="benchmark", frame=path.name, image=path, mesh_origin="mocap", **field)  # type: ignore[arg-type]


def given(task: sources.ShardTask, *_: object) -> list[sources.ShardTask]:
    """Stands for a source: the one task."""
    return [task]


def people(count: int) -> list[dict[str, np.ndarray]]:
    """Labels of made-up people with boxes of 300 to 600 px."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        side = rng.uniform(300, 600)
        corner = rng.uniform([100, 50], [1200, 400])
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
    spent = []
    for k in range(rounds):
        start = time.thread_time()
        call(k)
        spent.append((time.thread_time() - start) / samples * 1e6)
    return float(np.median(spent))


def main() -> None:
    """Run everything and write the table."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    folder = Path(tempfile.mkdtemp(prefix="metro-loader-"))
    try:
        rows = measure(folder)
    finally:
        shutil.rmtree(folder)
    command = "`python benchmarks/loader.py`"
    versions = f"Python {platform.python_version()}, OpenCV {cv2.__version__}"
    text = "\n".join(
        [f"{machine()}; {versions}; {command}; medians of one core's processor time", "", *rows, "", NOTES]
    )
    (Path(__file__).with_suffix(".md")).write_text(text)
    sys.stdout.write(text)


def measure(folder: Path) -> list[str]:
    """Rows of the table."""
    fields = people(PEOPLE)
    paths = [folder / f"{k:03d}.jpg" for k in range(PEOPLE)]
    for k, path in enumerate(paths):
        if k < 32:  # 32 different frames are enough to keep caches honest
            cv2.imwrite(str(path), frame(k), [cv2.IMWRITE_JPEG_QUALITY, 92])
        else:
            path.hardlink_to(paths[k % 32])
    official = TsvLoader(folder, paths, fields)
    twin = cost(lambda k: [official.sample(i) for i in range(8 * k, 8 * k + 8)], 4, 8)
    rows = [
        "| input | stored | bytes | decode µs | warp µs | rest µs | samples/s | and normalised /s | × twin |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| 224 | TSV of whole 1080p frames, the twin | {paths[0].stat().st_size:,} | | | | | {1e6 / twin:.0f} | 1 |",
    ]
    for box, margin, size in CASES:
        out = folder / f"{box}-{margin}"
        task = partial(records, paths, fields)
        sources.shard_tasks = partial(given, task)  # type: ignore[assignment]
        config = DatasetConfig(crop=CropConfig(box_px=box, margin=margin))
        manifest = prepare("benchmark", config, BodyConfig(), out, workers=1, progress=False)
        dataset = shards.ShardDataset(out)
        train = TrainConfig(batch_size=BATCH, workers=0)
        loader = TrainStream([dataset], ModelConfig(image_size=size), train, partial(query_mask, train.mask, 14, 431))
        whole, decode, warp, colour = costs(loader, dataset, box, size)
        rows.append(
            f"| {size} | {dataset.image_size} px ({box} × {margin}) | {manifest['shards'][0]['bytes'] // PEOPLE:,} "
            f"| {decode:.0f} | {warp:.0f} | {whole - decode - warp:.0f} | **{1e6 / whole:,.0f}** "
            f"| {1e6 / (whole + colour):,.0f} | {twin / (whole + colour):.0f} |"
        )
    return rows


def costs(loader: TrainStream, dataset: shards.ShardDataset, box: int, size: int) -> tuple[float, float, float, float]:
    """Microseconds of a sample: all of it up to the batch, of which decoding and warping, and normalisation."""
    images = [dataset.image(i) for i in range(BATCH)]
    target = np.empty((size, size, 3), np.uint8)
    affine = crop.crop_affine(np.full((1, 2), len(images[0]) / 2), np.array([box]), size, 10.0)[0]

    def warp(_: int) -> None:
        for image in images:
            crop.warp(image, affine, target)

    stream = iter(loader)
    batch = next(stream)
    return (
        cost(lambda _: next(stream), ROUNDS, BATCH),
        cost(lambda _: [dataset.image(i) for i in range(BATCH)], ROUNDS, BATCH),
        cost(warp, ROUNDS, BATCH),
        cost(lambda _: normalise(batch["image"], batch["colour"]), ROUNDS, BATCH),
    )


NOTES = """\
`samples/s` is the whole batch as the training process gets it: decoded; turned, scaled and mirrored in one warp; joints
and poses augmented; masks drawn. Normalisation runs on the device; the next column adds its cost on one core, and the
last one compares that with the twin, whose samples are normalised. The twin reads base64 JPEGs of whole 1080p frames
and JSON labels from TSV files and does per sample what the official code does.

Decoding is most of the cost and grows with the stored area, so `crop.box_px` and `crop.margin` decide: boxes stored at
224 px stay below 1,500 samples/s because decoding alone takes two thirds of the time. Warping goes through
four channels, which OpenCV does in half the time that three take.
"""

if __name__ == "__main__":
    main()
