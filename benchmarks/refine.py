"""What a detector's 2D joints add to METRO's meshes: the network alone, fits alone, fits started from the network.

``python benchmarks/refine.py`` takes some minutes on one core and writes ``benchmarks/refine.md``. People are those of
the renderer's test split, and cameras are not known: the fits take the picture's diagonal for the focal length. The 17
joints of COCO are disturbed as a detector's are: noise of 2 % of the box along each axis, a tenth missing beside those
out of the picture. 2D errors are measured over all 17 true joints, seen or not. Times are processor time of one thread.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from fitting import BODY, COCO, errors, mesh
from machine import machine

import metro
from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, DatasetConfig, FitConfig
from metro.data.records import Record
from metro.export.predictor import Prediction
from metro.export.refine import fit_people, refine
from metro.options import SyntheticOptions
from metro.sources import synthetic

NOISE, MISSING = 0.02, 0.1  # of the box side; share of the joints
CONTEXT = 1.2  # side of a record's box over that of the tight one
LEGS = [JOINT_SETS["J24"].index(f"{side}_{joint}") for side in "LR" for joint in ("Hip", "Knee", "Ankle")]


def people(count: int) -> list[Record]:
    """People of the renderer's test split."""
    config = DatasetConfig(split="test", options=SyntheticOptions(count=count, seed=2024))
    return list(synthetic.read(config, BodyConfig(), synthetic.rows(config, BodyConfig())))


def tight(record: Record) -> list[float]:
    """Square box as a detector gives it."""
    x, y, width, height = record.box
    side = max(width, height) / CONTEXT
    return [x + (width - side) / 2, y + (height - side) / 2, side, side]


def true_pixels(records: Sequence[Record], truth: torch.Tensor) -> np.ndarray:
    """Where (N, 24, 2) the joints of the true meshes are in the pictures."""
    joints_NJ3 = np.stack([BODY.regressors["j24"] @ vertices for vertices in truth.numpy()])
    seen = np.einsum("nij,nkj->nki", np.stack([r.intrinsics for r in records]), joints_NJ3)
    return seen[..., :2] / seen[..., 2:]


def detected(records: Sequence[Record], true_NJ2: np.ndarray, side_N: np.ndarray) -> np.ndarray:
    """Joints (N, 24, 3) as a detector finds them."""
    rng = np.random.default_rng(0)
    size_N12 = np.array([r.image.shape[1::-1] for r in records])[:, None]
    known = np.isin(np.arange(24), COCO) & (rng.random(true_NJ2.shape[:2]) >= MISSING)
    known &= ((true_NJ2 > -0.5) & (true_NJ2 < size_N12 - 0.5)).all(2)
    noise = rng.normal(0, NOISE, true_NJ2.shape) * side_N[:, None, None]
    return np.concatenate((true_NJ2 + noise, known[..., None]), 2)


def measured(
    name: str, found: Sequence[Prediction], truth: torch.Tensor, true_NJ2: np.ndarray, side_N: np.ndarray
) -> str:
    """A row of the table."""
    vertices = torch.from_numpy(np.stack([person.vertices for person in found]).astype(np.float32))
    kinds = [f"{error.mean():.1f} / {error.median():.1f}" for error in errors(vertices, truth)]
    pixels_NJ2 = np.stack([person.to_pixels(BODY.regressors["j24"] @ person.vertices) for person in found])
    off_NK = (np.linalg.norm(pixels_NJ2 - true_NJ2, axis=2) / side_N[:, None])[:, COCO]
    kept = sum(bool(person.kept) for person in found)
    row = [name, *kinds, f"{100 * off_NK.mean():.2f}", f"{(off_NK < 0.1).mean():.3f}", str(kept)]
    print(*row, sep=" | ", flush=True)
    return f"| {' | '.join(row)} |"


def seconds(run: Callable[[], object]) -> float:
    """Processor time."""
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=240)
    parser.add_argument("--model", default="open")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = people(arguments.people)
    truth = mesh(*(np.stack([getattr(r, name) for r in records]) for name in ("pose_aa", "betas", "transl")))
    boxes = [tight(record) for record in records]
    side_N = np.array([box[2] for box in boxes])
    true_NJ2 = true_pixels(records, truth)
    joints_NJ3 = detected(records, true_NJ2, side_N)
    upper_NJ3 = joints_NJ3.copy()
    upper_NJ3[:, LEGS, 2] = 0
    network = metro.load(arguments.model)
    seen = network([r.image for r in records], boxes=[[box] for box in boxes])

    rows = [measured("METRO alone", seen, truth, true_NJ2, side_N)]
    for what, joints in (("", joints_NJ3), (", legs not seen", upper_NJ3)):
        rows.append(measured(f"fit alone{what}", fit_people(seen, joints, BODY), truth, true_NJ2, side_N))
        for sigma in (0.2, 0.4, 0.6, 0.8):
            found = refine(seen, joints, BODY, config=FitConfig(sigma_start=sigma))
            rows.append(measured(f"refined, sigma_start {sigma}{what}", found, truth, true_NJ2, side_N))

    speeds = []
    for count in (1, 32):
        for what, config in (("", FitConfig()), (" without jumps", FitConfig(jump_rounds=0))):
            run = lambda c=count, f=config: refine(seen[:c], joints_NJ3[:c], BODY, config=f)  # noqa: E731
            spent = min(seconds(run) for _ in range(3))
            speeds.append(f"| {count} | refine{what} | {1000 * spent:.0f} | {count / spent:.1f} |")
            print(speeds[-1], flush=True)
    count = (joints_NJ3[..., 2] > 0).sum(1).mean()
    versions = f"Python {platform.python_version()}, PyTorch {torch.__version__.split('+')[0]}"
    lines = [
        f"{machine()}; {versions}; `python benchmarks/refine.py`; {len(records)} people of the renderer's test split, "
        f"model `{arguments.model}`; mean / median",
        "",
        f"| {count:.1f} joints a person seen to 2 % of the box | MPJPE mm | PA-MPJPE mm | MPVE mm "
        "| 2D error, % of box | PCK@0.1 | not refined |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "| people at once | | ms | people / s and core |",
        "|---|---|---|---|",
        *speeds,
    ]
    notes = arguments.out.read_text().partition("\n\n\n")[2] if arguments.out.exists() else ""
    arguments.out.write_text("\n".join(lines) + "\n" + (f"\n\n{notes}" if notes else ""))


if __name__ == "__main__":
    main()
