"""Videos: how fast, where the time goes, and what smoothing does: `python benchmarks/video.py` writes `video.md`.

The clip is rendered: a person who goes through poses of the synthetic set and drifts to and fro before a fixed camera,
so that every joint of every frame is known. Boxes are the true ones with the jitter of a detector.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from machine import machine
from scipy.spatial.transform import Rotation, Slerp

import metro
from metro.body.joints import names_of
from metro.config import BodyConfig
from metro.detect import detector
from metro.export.predictor import Predictor
from metro.options import SyntheticOptions
from metro.sources.formats import video
from metro.synthetic.camera import Camera
from metro.synthetic.people import make_people, open_studio
from metro.synthetic.props import add_person
from metro.synthetic.scene import photograph
from metro.synthetic.skinning import regress, shape_and_pose
from metro.synthetic.stage import Stage
from metro.synthetic.world import build_world
from metro.video.film import Film, film_size
from metro.video.people import Placed, Smoother, placed
from metro.video.predict import LEVELS
from metro.video.run import overlay

SEED = 5
FPS = 25.0
COUNT, SIDE = 100, 480
"""Frames, and the side of the rendered ones."""
JITTER = 0.02
"""Standard deviation of a detected box's place and size, over its longer side."""
POSES = 8
"""Between which the person moves, one a second."""


def film(count: int, size: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Frames (size, size, 3), joints (count, 14, 3) in camera axes, metres, and tight boxes (count, 4)."""
    studio = open_studio(BodyConfig(kind="open"), "test")
    options = SyntheticOptions(seed=SEED, heading_sd_deg=40, heading_uniform=0, uniform_pose=0)
    people = make_people(studio, options, range(POSES))
    turns = [Slerp(np.arange(POSES), Rotation.from_matrix([p.rot[j] for p in people])) for j in range(24)]
    turn = np.diag([1.0, -1.0, -1.0])
    camera = Camera(1.5 * size, (size - 1) / 2, (size - 1) / 2, turn, np.array([0.0, 1.0, 4.6]), size)
    world = build_world(np.random.default_rng(SEED), studio, people[0], camera)
    names = names_of("J24")
    images, joints, boxes = [], [], []
    for frame in range(count):
        moment = min(frame / FPS, POSES - 1)
        moment = int(moment) + (1 - np.cos(np.pi * (moment % 1))) / 2  # people pause in a pose
        rot = np.stack([turn(moment).as_matrix() for turn in turns])
        verts, places, bones = shape_and_pose(studio.skin, people[0].betas, rot, np.zeros(3))
        shift = np.array([0.5 * np.sin(2 * np.pi * frame / FPS / 6), -verts[:, 1].min(), 0.0])
        person = replace(
            people[0],
            rot=rot,
            transl=shift,
            verts=(verts + shift).astype(np.float32),
            joints=places + shift,
            bones=bones,
        )
        stage = Stage()
        add_person(stage, studio, person)
        shot = photograph(
            np.random.default_rng(SEED), studio, stage, world, person, camera, stage.num_faces, stage.num_faces
        )
        seen = camera.see(regress(studio.joints, person.verts[studio.joint_verts]))
        low, high = camera.span(person.verts)[:2]
        images.append(shot.image)
        joints.append(seen[[names.index(name) for name in names_of("J14")]])
        boxes.append([*low, *(high - low)])
    return images, np.array(joints), np.array(boxes)


def on_canvas(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A square frame as high as the canvas, in its middle, on a quiet ground."""
    canvas = np.full((height, width, 3), 90, np.uint8)
    left = (width - height) // 2
    canvas[:, left : left + height] = cv2.resize(image, (height, height), interpolation=cv2.INTER_CUBIC)
    return canvas


def write_clip(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """An MPEG-4 video."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), FPS, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def errors(people: Sequence[Placed], joints: np.ndarray) -> list[float]:
    """Acceleration error (mm per frame², as VIBE has it), MPJPE (mm), acceleration error in the picture (pixels)."""
    hips = [names_of("J14").index(name) for name in ("R_Hip", "L_Hip")]
    camera = np.array([[1.5 * SIDE, 0, (SIDE - 1) / 2], [0, 1.5 * SIDE, (SIDE - 1) / 2], [0, 0, 1]])
    pixels = joints @ camera.T
    found = np.array([person.joints for person in people], np.float64)
    found, true = (1000 * (points - points[:, hips].mean(1, keepdims=True)) for points in (found, joints))
    shaken = np.linalg.norm(np.diff(found - true, 2, axis=0), axis=-1).mean()
    in_picture = np.array([person.joints_2d for person in people]) - pixels[..., :2] / pixels[..., 2:]
    return [
        shaken,
        np.linalg.norm(found - true, axis=-1).mean(),
        np.linalg.norm(np.diff(in_picture, 2, axis=0), axis=-1).mean(),
    ]


def of_clips(tta: str = "none") -> Predictor:
    """The shipped network, which looks once at people of clips (`metro.video.predict`), in these views."""
    predictor = metro.load("open", detector="none", tta=tta)
    predictor.passes = 1
    return predictor


def smoothing(images: list[np.ndarray], joints: np.ndarray, boxes: np.ndarray) -> list[str]:
    """Rows of the table of errors."""
    shake = np.random.default_rng(0).normal(0, JITTER, boxes.shape) * boxes[:, 2:].max(1, keepdims=True)
    predictors = {"": of_clips(), "`--tta flip`": of_clips("flip"), "`--tta few`": of_clips("few")}
    lines = []
    for name, given in (("exact boxes", boxes), (f"boxes with a jitter of {JITTER:.0%}", boxes + shake)):
        for views, predictor in predictors.items():
            results = predictor(images, [[box] for box in given])
            raw = [placed(r, 0, np.array([*box, np.nan, 0]), False) for r, box in zip(results, given, strict=True)]
            smoother = Smoother(FPS, 25)
            smooth = [smoother(frame, [person])[0] for frame, person in enumerate(raw)]
            for filtered, people in (("", raw), ("`--smooth`", smooth)):
                told = " ".join(word for word in (views, filtered) if word) or "as predicted"
                lines.append(f"| {name}, {told} | " + " | ".join(f"{x:.1f}" for x in errors(people, joints)) + " |")
    return lines


def milliseconds(work: Callable[[Any], object], over: Sequence[Any]) -> float:
    """Processor time of a step per frame, of one thread."""
    work(over[0])
    start = time.process_time()
    for item in over:
        work(item)
    return 1000 * (time.process_time() - start) / len(over)


def stages(clip: Path, frames: Sequence[np.ndarray], boxes: np.ndarray, folder: Path) -> list[float]:
    """Milliseconds of decoding, finding people, the network, drawing, encoding."""
    predictor, find = of_clips(), detector("blazepose", levels=LEVELS)
    assert find
    chosen = range(20, 32)  # neighbours, as the encoder expects
    start = time.process_time()
    count = sum(1 for _ in video.frames(clip, range(len(frames))))
    decoding = 1000 * (time.process_time() - start) / count
    people = {
        k: placed(predictor(frames[k], [boxes[k]])[0], 0, np.array([*boxes[k], np.nan, 0]), False) for k in chosen
    }
    size, faces = film_size(*frames[0].shape[1::-1]), predictor.network.faces_F3
    drawn = [overlay(frames[k], [people[k]], faces, size) for k in chosen]
    film = Film(folder / "speed.webm", FPS, size)
    start = time.process_time()
    for image in drawn:
        film.add(image)
    film.close()
    encoding = 1000 * (time.process_time() - start) / len(drawn)
    return [
        decoding,
        milliseconds(lambda k: find(frames[k]), chosen),
        milliseconds(lambda k: predictor(frames[k], [boxes[k]]), chosen),
        milliseconds(lambda k: overlay(frames[k], [people[k]], faces, size), chosen),
        encoding,
    ]


WATCH = """
import re, sys
from metro.cli.app import main
status = main(sys.argv[1:])
print("peak", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(status)
"""


def whole(clip: Path, out: Path) -> tuple[float, float, float]:
    """Wall and processor seconds and peak MiB of `metro predict` of a clip."""
    before, start = os.times(), time.perf_counter()
    words = ["predict", str(clip), "--out", str(out), "--overwrite"]
    done = subprocess.run([sys.executable, "-c", WATCH, *words], capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[2:4]) - sum(before[2:4]), int(done.stderr.rsplit("peak", 1)[1]) / 1024


def main() -> None:
    """Measure and write the tables."""
    images, joints, boxes = film(COUNT, SIDE)
    lines = [
        "# Videos",
        "",
        "Written by `python benchmarks/video.py`: shipped checkpoint, a rendered clip of one person,",
        f"{COUNT} frames at {FPS:g} a second. {machine()}, load {os.getloadavg()[0]:.1f} while it ran.",
        "",
        "## What smoothing does",
        "",
        "Acceleration errors are means over joints of the second difference's error. The filter's constants were",
        "chosen before this was measured.",
        "",
        "| | acceleration error, mm / frame² | MPJPE, mm | acceleration error, pixels / frame² |",
        "| --- | ---: | ---: | ---: |",
        *smoothing(images, joints, boxes),
        "",
        "## Where the time goes",
        "",
        "Processor milliseconds for a frame with one person, as high as three quarters of it. People are looked for",
        "in each fifth frame by default, so a fifth of that column counts.",
        "",
        "| frames | decode | find people | network | resize and draw | encode |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    totals = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for width, height in ((854, 480), (1920, 1080)):
            frames = [on_canvas(image, width, height) for image in images]
            scale = height / SIDE
            placed_boxes = boxes * scale
            placed_boxes[:, 0] += (width - height) // 2
            clip = write_clip(folder / f"{height}.mp4", frames)
            spent = stages(clip, frames, placed_boxes, folder)
            lines.append(f"| {width} × {height} | " + " | ".join(f"{x:.0f}" for x in spent) + " |")
            for count in (COUNT // 2, COUNT):
                part = write_clip(folder / f"{height}-{count}.mp4", frames[:count])
                wall, cpu, peak = whole(part, folder / "out")
                size = sum(path.stat().st_size for path in (folder / "out").glob(f"{height}-{count}*")) / 2**20
                figures = f"{wall:.1f} | {cpu:.1f} | {count / cpu:.1f} | {peak:.0f} | {size:.1f}"
                totals.append(f"| {width} × {height}, {count} frames | {figures} |")
    lines += [
        "",
        "## `metro predict CLIP` as a whole",
        "",
        "With start-up, detector, overlay, npz and GLB. Frames per CPU second are what one core alone reaches; wall",
        "time is beside the load that the head of this page tells.",
        "",
        "| clip | wall s | CPU s | frames per CPU second | peak MiB | results, MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *totals,
    ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
