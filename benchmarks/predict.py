"""What one picture costs, cold and warm: `python benchmarks/predict.py` writes the table `benchmarks/predict.md`.

Every cold figure is that of a whole process: wall and processor time from its start to its end, and its own peak of
resident memory. The ways take turns, so that other work on the machine disturbs all of them alike; the table has the
medians. The yardstick is a script of ten lines that runs the ONNX file once and writes nothing; `metro predict` runs it
twice, as it looks again at the box around its first mesh.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from machine import machine

import metro
from metro.config import BodyConfig, CropConfig, DatasetConfig
from metro.options import SyntheticOptions
from metro.shipped import bundle_folder
from metro.synthetic.scene import photograph_people
from metro.viz.overlay import save_image

ROUNDS = 7
SIZE = (480, 640)
BOX = "200,20,180,430"

SCRIPT = """
import sys
import numpy as np
import onnxruntime
from PIL import Image

model, picture = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
crop = Image.open(picture).convert("RGB").crop((32, -23, 548, 493)).resize((256, 256))
image = (np.asarray(crop, np.float32) / 255).transpose(2, 0, 1)[None]
camera, joints, vertices = session.run(None, {"image": image})
"""
LOAD = "import sys, metro; metro.load(sys.argv[1], {device})(sys.argv[2], [[200, 20, 180, 430]])"
WATCH = """
import re, sys
sys.argv = sys.argv[1:]
try:
    exec(sys.argv[0], {"__name__": "__main__"})
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    print("peak", peak, file=sys.stderr)
"""


def cold(code: str, arguments: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """Wall and CPU seconds and peak MiB of one process."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", WATCH, code, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    wall, after = time.perf_counter() - start, os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return wall, cpu, int(done.stderr.rsplit("peak", 1)[1]) / 1024


def person() -> np.ndarray:
    """A rendered person in a picture of `SIZE`, where `BOX` says."""
    config = DatasetConfig(
        split="test", crop=CropConfig(box_px=430, margin=1.0), options=SyntheticOptions(count=1, occlusion=0, seed=6)
    )
    (shot,) = photograph_people(config, BodyConfig(), [0])
    side = int(min(SIZE) / shot.image.shape[0] * shot.image.shape[1])
    canvas = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    start = (SIZE[1] - side) // 2
    canvas[:, start : start + side] = cv2.resize(shot.image, (side, SIZE[0]), interpolation=cv2.INTER_AREA)
    return canvas


def warm(device: str | None, picture: Path, repeat: int = 20) -> float:
    """Best CPU milliseconds of a call for one person of a picture on disk."""
    predictor, best = metro.load("open", device), np.inf
    for _ in range(repeat):
        start = time.process_time()
        predictor(picture, [float(x) for x in BOX.split(",")])
        best = min(best, time.process_time() - start)
    return 1000 * best


def overlay(height: int, repeat: int = 7) -> float:
    """Best CPU milliseconds of drawing a person whose box is so high over a picture of 1080p."""
    image, best = np.full((1080, 1920, 3), 128, np.uint8), np.inf
    person = metro.load("open")(image, [700, 30, height / 2, height])[0]
    for _ in range(repeat):
        start = time.process_time()
        person.overlay(image)
        best = min(best, time.process_time() - start)
    return 1000 * best


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        picture = save_image(person(), folder / "p.jpg")
        command = "import sys; from metro.cli.app import main; sys.exit(main(sys.argv[1:]))"
        exported = folder / "bundle"
        subprocess.run(
            [sys.executable, "-c", command, "export", "--out", str(exported), "--no-torch-export"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        words = ["predict", str(picture), "--box", BOX, "--out", str(folder / "out")]
        ways = {
            "`metro predict` (overlay, OBJ, GLB, JSON)": (command, words),
            "`metro predict` that finds the person itself": (command, [*words[:2], *words[4:]]),
            "`metro predict` of an exported bundle": (command, [*words, "--model", str(exported)]),
            '`metro.load("open")(picture)`': (LOAD.format(device=None), ["open", str(picture)]),
            "`metro predict --device cpu` (PyTorch)": (command, [*words, "--device", "cpu"]),
            "a script of ten lines and the ONNX file": (SCRIPT, [f"{bundle_folder('open')}/model.onnx", str(picture)]),
        }
        environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "numba")}
        first = cold(command, words, environment)  # as after an installation, with nothing compiled yet
        figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, (code, arguments) in ways.items():
                figures[name].append(cold(code, arguments, environment))
        by_onnx, by_torch = warm(None, picture), warm("cpu", picture)
    lines = [
        "# One picture from a cold start",
        "",
        f"Written by `python benchmarks/predict.py`: shipped checkpoint, one person, {SIZE[1]} × {SIZE[0]} pixels;",
        f"medians of {ROUNDS} processes that take turns. All but the script look twice. {machine()},",
        f"load {os.getloadavg()[0]:.1f} at the end. Python {sys.version.split()[0]}, torch {torch.__version__},",
        f"ONNX Runtime {onnxruntime.__version__}.",
        "",
        "| whole process | wall s, median (best) | CPU s | peak MiB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, found in figures.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*found, strict=True))
        lines.append(f"| {name} | {wall:.2f} ({min(row[0] for row in found):.2f}) | {cpu:.2f} | {peak:.0f} |")
    lines += [
        f"| `metro predict`, first time after installation | {first[0]:.2f} | {first[1]:.2f} | {first[2]:.0f} |",
        "",
        "Wall time is what it took beside the load above; read processor time and memory.",
        "",
        f"Warm, one person of that file, CPU time: ONNX Runtime {by_onnx:.0f} ms, PyTorch {by_torch:.0f} ms.",
        f"Its overlay on 1080p: {overlay(480):.0f} ms for a box 480 pixels high, {overlay(1000):.0f} ms for 1000.",
    ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
