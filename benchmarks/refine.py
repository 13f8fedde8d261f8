"""What 2D joints of a detector add to METRO's meshes: the network alone, fits alone, fits that start from the network.

``python benchmarks/refine.py`` takes some minutes on one core and writes ``benchmarks/refine.md``. People are those of
the renderer's test split; their 17 joints of COCO are disturbed as a detector's are: noise of 2 % of the box along each
axis, a tenth missing beside those that the picture does not show, and confidence 1. Times are processor time of one
thread.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fitting import BODY, COCO, errors, mesh
from machine import machine

import metro
from metro.config import BodyConfig, DatasetConfig, FitConfig
from metro.data.records import Record
from metro.export.predictor import Photo, Prediction
from metro.export.refine import fit_keypoints, refine
from metro.options import SyntheticOptions
from metro.sources import synthetic

NOISE, MISSING = 0.02, 0.1
J24 = BODY.regressors["j24"]


def people(count: int) -> list[Record]:
    """People of the renderer's test split."""
    config = DatasetConfig(split="test", options=SyntheticOptions(count=count, seed=2024))
    return list(synthetic.read(config, BodyConfig(), synthetic.rows(config, BodyConfig())))


def true_pixels(records: Sequence[Record], vertices_NV3: np.ndarray) -> np.ndarray:
    """Where (N, 24, 2) the joints of the true meshes are in the pictures."""
    joints_NJ3 = np.stack([J24 @ vertices for vertices in vertices_NV3])
    seen = np.einsum("nij,nkj->nki", np.stack([r.intrinsics for r in records]), joints_NJ3)
    return seen[..., :2] / seen[..., 2:]


def detected(records: Sequence[Record], true_NJ2: np.ndarray, side_N: np.ndarray) -> np.ndarray:
    """Joints (N, 24, 3) as a detector finds them."""
    rng = np.random.default_rng(0)
    size_N2 = np.array([r.image.shape[1::-1] for r in records])[:, None]
    known = np.isin(np.arange(24), COCO) & (rng.random(true_NJ2.shape[:2]) >= MISSING)
    known &= ((true_NJ2 > 0) & (true_NJ2 < size_N2)).all(2)
    noise = rng.normal(0, NOISE, true_NJ2.shape) * side_N[:, None, None]
    return np.concatenate((true_NJ2 + noise, known[..., None]), 2)


def each(
    records: Sequence[Record], run: Callable[[int], Prediction]
) -> list[Prediction]:
    """One at a time."""
    return [run(k) for k in range(len(records))]


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=240)
    parser.add_argument("--model", default="open")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = people(arguments.people)
    truth = mesh(*(np.stack([getattr(r, name) for r in records]) for name in ("pose_aa", "betas", "transl")))
    side_N = np.array([max(r.box[2:]) for r in records])
    true_NJ2 = true_pixels(records, truth.numpy())
    joints_NJ3 = detected(records, true_NJ2, side_N)
    print(records[0].image.shape, records[0].intrinsics, (joints_NJ3[..., 2] > 0).sum(1).mean(), np.isnan(truth).any())
    seen = metro.load(arguments.model)([r.image for r in records], boxes=[[r.box] for r in records])


if __name__ == "__main__":
    main()
