"""Figures of a result: best, median and worst cases over their images, and charts of its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from metro.body.model import BodyModel
from metro.config import TrainConfig
from metro.data.augment import normalise
from metro.data.loader import make_loader
from metro.data.shards import ShardDataset
from metro.evaluation.evaluate import Result
from metro.evaluation.measure import ground_truth
from metro.evaluation.protocols import METRICS, SCALE
from metro.model.metro import Metro
from metro.viz import overlay, plots

TILE = 208
"""Side of a tile of the case sheets, pixels."""


def write_figures(
    result: Result,
    model: Metro,
    dataset: ShardDataset,
    body: BodyModel,
    folder: Path,
    device: torch.device | str = "cpu",
) -> None:
    """Write the figures of a result.

    ``best.png``, ``median.png``, ``worst.png``: image, true mesh, predicted mesh, both from the side. ``joints.png``,
    ``groups_NAME.png``, ``pck.png``, ``distribution.png``: charts. ``cases.npz``: meshes of the first case of each kind
    (`kind`, `index`, `image`, `predicted`, `true` with nan where there is no true mesh, `faces`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_charts(result, folder)
    kinds = [(kind, index) for kind, indices in result.cases.items() for index in indices]
    cases = _predict(model, dataset, body, result, [index for _, index in kinds], device)
    faces = body.faces.cpu().numpy()
    main = result.protocol.headline[0]
    for kind in result.cases:
        tiles, labels = [], []
        for row, case in enumerate(result.summary["cases"][kind]):
            picks = [k for k, (name, index) in enumerate(kinds) if name == kind and index == case["index"]]
            tiles += _tiles(*(part[picks[0]] for part in cases), faces=faces)
            labels += [f"{kind} {row + 1}: {METRICS[main].label} {case[main]:.0f} mm", "ground truth", "prediction"]
            labels += ["truth, from the side", "prediction, from the side"]
        if tiles:
            overlay.save_image(overlay.grid(tiles, 5, labels=labels), folder / f"{kind}.png")
    first = [next(k for k, (name, _) in enumerate(kinds) if name == kind) for kind, ids in result.cases.items() if ids]
    images, predicted, true, _, _ = (part[first] for part in cases)
    np.savez_compressed(
        folder / "cases.npz",
        kind=np.array([kinds[k][0] for k in first]),
        index=np.array([kinds[k][1] for k in first]),
        image=images,
        predicted=predicted.astype(np.float32),
        true=true.astype(np.float32),
        faces=faces.astype(np.int32),
    )


def write_charts(result: Result, folder: Path) -> None:
    """The charts among the figures of a result."""
    summary, main = result.summary, result.protocol.headline[0]
    groups = summary["joint_groups"]
    key = "pa_mpjpe" if result.protocol.name == "freihand" else "mpjpe"
    plots.bars(
        [g["group"] for g in groups],
        [g[key]["value"] for g in groups],
        folder / "joints.png",
        intervals=[g[key]["ci95"] for g in groups],
        baseline=[g["camera_mean"] for g in groups] if key == "mpjpe" and "camera_mean" in groups[0] else None,
        title=f"{'PA-MPJPE' if key == 'pa_mpjpe' else 'MPJPE'} by body part",
    )
    for name, entries in summary["groups"].items():
        plots.bars(
            [f"{e['group']}  (n={e['n']})" for e in entries],
            [e[main]["value"] for e in entries],
            folder / f"groups_{name}.png",
            intervals=[e[main]["ci95"] for e in entries],
            baseline=[e[main]["camera_mean"] for e in entries] if "camera_mean" in entries[0][main] else None,
            title=f"{METRICS[main].label} by {name}",
        )
    plots.pck_curves(summary["curve"], folder / "pck.png")
    values = SCALE[METRICS[main].unit] * result.samples.values[main]
    marks = {"mean": summary["metrics"][main]["value"], "median": float(np.nanmedian(values))}
    plots.histogram(
        values, folder / "distribution.png", title=f"{METRICS[main].label} per sample", unit="mm", marks=marks
    )


@torch.inference_mode()
def _predict(
    model: Metro,
    dataset: ShardDataset,
    body: BodyModel,
    result: Result,
    indices: list[int],
    device: torch.device | str,
) -> tuple[np.ndarray, ...]:
    """Crops, predicted and true meshes, predicted and true cameras of some samples; nan where there is no truth."""
    model, body = model.to(device).eval(), body.to(device)
    single = TrainConfig(batch_size=1, workers=0)
    parts: list[tuple[np.ndarray, ...]] = []
    for index in indices:
        # Of as many slices as there are records, slice k is record k.
        slice_k = make_loader([dataset], model.config, single, training=False, rank=index, world_size=len(dataset))
        batch = next(iter(slice_k))
        batch = {k: v.to(device) for k, v in batch.items()}
        output = model(normalise(batch["image"], batch["colour"]))
        truth = ground_truth(batch, body, result.protocol)
        regressor = "hand21" if result.protocol.joint_set == "HAND21" else "j24"
        true_joints = body.regress(regressor, truth.vertices_BV3.nan_to_num())
        true_camera = fit_camera(true_joints, batch["joints_2d"])
        tensors = (batch["image"], output.vertices[-1], truth.vertices_BV3, output.camera, true_camera)
        parts.append(tuple(t.cpu().numpy() for t in tensors))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def fit_camera(joints_BJ3: torch.Tensor, joints_2d: torch.Tensor) -> torch.Tensor:
    """Weak-perspective cameras (B, 3) that best project joints (B, J, 3) onto 2D joints in [-1, 1] + confidence."""
    xy, uv = joints_BJ3[..., :2].double(), joints_2d[..., :2].double()
    weight = (joints_2d[..., 2:] > 0).double()
    total = weight.sum(1, keepdim=True).clamp_min(1)
    xy_mean, uv_mean = ((a * weight).sum(1, keepdim=True) / total for a in (xy, uv))
    x, u = (xy - xy_mean) * weight, (uv - uv_mean) * weight
    scale = ((x * u).sum((1, 2)) / x.square().sum((1, 2)).clamp_min(1e-9)).clamp_min(1e-3)
    shift = uv_mean[:, 0] / scale[:, None] - xy_mean[:, 0]
    return torch.cat((scale[:, None], shift), 1)


def _tiles(
    image: np.ndarray,
    predicted: np.ndarray,
    true: np.ndarray,
    camera: np.ndarray,
    true_camera: np.ndarray,
    *,
    faces: np.ndarray,
) -> list[overlay.Image]:
    picture = overlay.resize(image, TILE)
    blank = np.full_like(picture, 244)
    radius = 1.05 * float(np.abs(predicted - predicted.mean(0)).max())
    known = bool(np.isfinite(true).all())
    if known:
        radius = max(radius, 1.05 * float(np.abs(true - true.mean(0)).max()))
    ours = overlay.mesh_overlay(picture, predicted, faces, camera)
    side = overlay.view(predicted, faces, TILE, yaw_deg=90, radius=radius)
    if not known:
        return [picture, blank, ours, blank, side]
    theirs = overlay.mesh_overlay(picture, true, faces, true_camera, colour=overlay.TRUE)
    other = overlay.view(true, faces, TILE, yaw_deg=90, radius=radius, colour=overlay.TRUE)
    return [picture, theirs, ours, other, side]
