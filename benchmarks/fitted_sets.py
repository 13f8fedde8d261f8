"""Pseudo-meshes of Human3.6M's and COCO's layouts against the meshes that were withheld.

A fixture of each set is prepared twice: with its meshes, which are the truth, and with joints alone, from which the
solver makes meshes with the set's own cameras and lens. ``python benchmarks/fitted_sets.py`` takes some minutes and
writes ``benchmarks/fitted_sets.md``; nothing in it is timed.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from metro import fixtures
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import BodyConfig, CropConfig, DatasetConfig, FitConfig
from metro.data.shards import ShardDataset
from metro.evaluation.metrics import mpjpe, mpve, pa_mpjpe
from metro.fitting.dataset import fit_dataset
from metro.sources.prepare import prepare

PEOPLE = {"h36m": 60, "coco": 60}
MESHES: dict[str, dict[str, Any]] = {
    "h36m": {"options": {"protocol": "train"}},
    "coco": {"options": {"keep": "visible", "min_joints": 12, "fits": "annotations/coco_smplify_train.json"}},
}
JOINTS = {"h36m": "joints_3d", "coco": "joints_2d"}
BODY = BodyConfig()


def prepared(name: str, root: Path, out: Path, supervision: str) -> Path:
    """The set in shards, with the strongest label given."""
    common = {"source": name, "root": root, "supervision": supervision, "max_bad": 1.0, "crop": CropConfig(box_px=32)}
    prepare(name, DatasetConfig.model_validate(common | MESHES[name]), BODY, out, workers=1, progress=False)
    return out


def compared(name: str, folder: Path) -> list[str]:
    """Rows of the table for a set."""
    root = folder / name
    fixtures.write(name, root, PEOPLE[name], seed=3)
    true = ShardDataset(prepared(name, root, folder / "true", "mesh"))
    joints = prepared(name, root, folder / "joints", JOINTS[name])
    fits = folder / "fits"
    summary = fit_dataset(joints, fits, BODY, FitConfig(), workers=1, progress=False)
    fitted = ShardDataset(joints, fits)
    place = {key: row for row, key in enumerate(true.labels["keys"].tolist())}
    both = [
        (place[key], row)
        for row, key in enumerate(fitted.labels["keys"].tolist())
        if key in place and true.labels["has_mesh"][place[key]] and fitted.labels["has_mesh"][row]
    ]
    errors = np.concatenate([measured(true, fitted, both[i : i + 32]) for i in range(0, len(both), 32)])
    numbers = " | ".join(f"{1000 * value:.1f}" for value in errors.mean(0))
    refused = ", ".join(f"{reason} {count}" for reason, count in summary["rejected"].items()) or "–"
    return [f"| {name} | {summary['count']} | {summary['accepted']} | {refused} | {len(both)} | {numbers} |"]


def measured(true: ShardDataset, fitted: ShardDataset, pairs: list[tuple[int, int]]) -> np.ndarray:
    """MPJPE, PA-MPJPE and MPVE (N, 3) of fits, metres; joints and meshes relative to the regressed pelvis."""
    data = load_body(BODY)
    rows = torch.from_numpy(data.regressors["h36m17"].toarray()).float()
    meshes = []
    for dataset, places in zip((true, fitted), zip(*pairs, strict=True), strict=True):
        pose, betas = (torch.from_numpy(dataset.labels[label][list(places)]) for label in ("pose_aa", "betas"))
        with torch.no_grad():
            vertices = BodyModel(data)(pose, betas).vertices
        meshes.append((vertices, torch.einsum("jv,bvc->bjc", rows, vertices)))
    (true_BV3, true_BJ3), (fit_BV3, fit_BJ3) = meshes
    return torch.stack(
        [
            mpjpe(fit_BJ3, true_BJ3, root=[0]),
            pa_mpjpe(fit_BJ3, true_BJ3),
            mpve(fit_BV3, true_BV3, pred_root=fit_BJ3[:, 0], target_root=true_BJ3[:, 0]),
        ],
        1,
    ).numpy()


HEAD = [
    "| set | people | accepted | refused | with a true mesh | MPJPE mm | PA-MPJPE mm | MPVE mm |",
    "|---|---|---|---|---|---|---|---|",
]
NOTES = """
Joints of Human3.6M are in space, those of COCO in the picture alone, whole pixels, hidden ones missing: depth is a
guess there, and MPJPE says how far. True meshes of both are of the neutral body; all fits are.
"""


def main() -> None:
    command = "python benchmarks/fitted_sets.py"
    rows = []
    for name in PEOPLE:
        with tempfile.TemporaryDirectory() as folder:
            rows += compared(name, Path(folder))
    head = f"{machine()}; Python {platform.python_version()}; {command}"
    text = "\n".join([head, "", *HEAD, *rows, NOTES])
    Path(__file__).with_suffix(".md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
