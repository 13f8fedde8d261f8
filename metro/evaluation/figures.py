"""Figures of a result: best, median and worst cases over their images, and charts of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from metro.body.model import BodyModel
from metro.data import crop
from metro.data.augment import normalise
from metro.data.lens import LENSES, bend
from metro.data.loader import EvalPass
from metro.data.shards import ShardDataset
from metro.evaluation.evaluate import Result
from metro.evaluation.measure import ground_truth
from metro.evaluation.protocols import METRICS, SCALE, Protocol
from metro.model.metro import Metro
from metro.viz import camera, overlay, plots
from metro.viz.report import GROUPS

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
    faces, main = body.faces.cpu().numpy(), result.protocol.headline[0]
    first: dict[str, tuple[int, _Case]] = {}
    for kind, entries in result.summary["cases"].items():
        tiles, labels = [], []
        for number, entry in enumerate(entries, 1):
            case = _predict(model, dataset, body, result.protocol, entry["index"], device)
            first.setdefault(kind, (entry["index"], case))
            tiles += _tiles(case, faces)
            labels += [f"{kind} {number}: {METRICS[main].label} {entry[main]:.0f} mm", "ground truth", "prediction"]
            labels += ["truth, from the side", "prediction, from the side"]
        if tiles:
            overlay.save_image(overlay.grid(tiles, 5, labels=labels), folder / f"{kind}.png")
    if first:
        np.savez(
            folder / "cases.npz",
            kind=np.array(list(first)),
            index=np.array([index for index, _ in first.values()]),
            image=np.stack([case.image for _, case in first.values()]),
            predicted=np.stack([case.predicted for _, case in first.values()]).astype(np.float32),
            true=np.stack([case.true for _, case in first.values()]).astype(np.float32),
            faces=faces.astype(np.int32),
        )


def write_charts(result: Result, folder: Path) -> None:
    """The charts among the figures of a result."""
    summary, main = result.summary, result.protocol.headline[0]
    groups = summary["joint_groups"]
    key = result.protocol.joint_error
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
            title=f"{METRICS[main].label} by {GROUPS[name]}",
        )
    plots.pck_curves(summary["curve"], folder / "pck.png")
    values = SCALE[METRICS[main].unit] * result.samples.values[main]
    marks = {"mean": summary["metrics"][main]["value"], "median": float(np.nanmedian(values))}
    plots.histogram(
        values, folder / "distribution.png", title=f"{METRICS[main].label} per sample", unit="mm", marks=marks
    )


def write_changes(
    cases: Mapping[str, Sequence[Mapping[str, Any]]],
    models: tuple[Metro, Metro],
    dataset: ShardDataset,
    body: BodyModel,
    protocol: Protocol,
    folder: Path,
    device: torch.device | str = "cpu",
) -> dict[str, Path]:
    """Draw the people whom two networks see most differently (`cases` of a ``compare.json``), one sheet of each kind.

    In a row: image, true mesh, mesh of A, of B; the three from the side.
    """
    faces, sheets = body.faces.cpu().numpy(), {}
    for kind, entries in cases.items():
        tiles, labels = [], []
        for entry in entries:
            a, b = (_predict(model, dataset, body, protocol, entry["index"], device) for model in models)
            tiles += _change_tiles(a, b, faces)
            labels += [f"{entry['difference']:+.0f} mm", "ground truth", f"A: {entry['a']:.0f} mm"]
            labels += [f"B: {entry['b']:.0f} mm", "truth, from the side", "A, from the side", "B, from the side"]
        if tiles:
            sheets[kind] = overlay.save_image(overlay.grid(tiles, 7, labels=labels), folder / f"{kind}.png")
    return sheets


class _Case(NamedTuple):
    """One sample, drawn. Meshes are root-relative; the true one is nan where there is none."""

    image: np.ndarray
    predicted: np.ndarray
    true: np.ndarray
    camera: np.ndarray
    true_view: tuple[np.ndarray, np.ndarray] | None
    """Intrinsics (3, 3) of the crop, and the true mesh as it stands before them, where known."""

    @property
    def has_truth(self) -> bool:
        """Whether there is a true mesh."""
        return bool(np.isfinite(self.true).all())


@torch.inference_mode()
def _predict(
    model: Metro, dataset: ShardDataset, body: BodyModel, protocol: Protocol, index: int, device: torch.device | str
) -> _Case:
    model, body = model.to(device).eval(), body.to(device)
    # Of as many slices as there are records, slice k is record k.
    only = EvalPass(dataset, model.config, batch_size=1, rank=index, world_size=len(dataset))
    batch = {k: v.to(device) for k, v in next(iter(only)).items()}
    output = model(normalise(batch["image"], batch["colour"]))
    truth = ground_truth(batch, body, protocol).vertices_BV3
    true_view = _true_view(truth.nan_to_num(), batch, dataset, index, body, protocol)
    tensors = (batch["image"], output.vertices[-1], truth, output.camera)
    image, predicted, true, seen_by = (t[0].cpu().numpy() for t in tensors)
    return _Case(image, predicted, true, seen_by, true_view)


def _true_view(
    vertices_BV3: torch.Tensor,
    batch: dict[str, torch.Tensor],
    dataset: ShardDataset,
    index: int,
    body: BodyModel,
    protocol: Protocol,
) -> tuple[np.ndarray, np.ndarray] | None:
    """How the true mesh was photographed: by the record's own camera, or by the weak-perspective one that fits best."""
    vertices_V3 = vertices_BV3[0].cpu().numpy()
    labels = {name: values[index] for name, values in dataset.labels.items()}
    transl, intrinsics = (labels[k].astype(np.float64) for k in ("transl", "intrinsics"))
    if np.isfinite(transl).all() and np.isfinite(intrinsics).all():
        posed = body.of_people(batch["pose_aa"], batch["betas"], batch.get("gender")).vertices
        root = body.regress(protocol.figure.regressor, posed)[0, 0].cpu().numpy()
        placed = bend(vertices_V3 + (root + transl), labels["distortion"], LENSES[labels["lens"]])
        return camera.resampled(intrinsics, batch["affine"][0].cpu().numpy()), placed
    joints = body.regress(protocol.figure.label_regressor, vertices_BV3)[0].cpu().numpy()
    joints_2d = batch["joints_2d"][0].cpu().numpy()
    known = joints_2d[:, 2] > 0
    if known.sum() < 2:
        return None
    seen_by = camera.fit(joints[known], joints_2d[known, :2])
    intrinsics, translation = camera.pinhole(seen_by, batch["image"].shape[1])
    return intrinsics, vertices_V3 + translation


def _tiles(case: _Case, faces: np.ndarray) -> list[overlay.Image]:
    radius = _radius([case])
    picture = overlay.resize(case.image, TILE)
    ours = overlay.mesh_overlay(picture, case.predicted, faces, case.camera)
    side = overlay.view(case.predicted, faces, TILE, yaw_deg=90, radius=radius)
    if not case.has_truth:
        return [picture, _blank(), ours, _blank(), side]
    other = overlay.view(case.true, faces, TILE, yaw_deg=90, radius=radius, colour=overlay.TRUE)
    return [picture, _true_tile(case, faces), ours, other, side]


def _change_tiles(a: _Case, b: _Case, faces: np.ndarray) -> list[overlay.Image]:
    """A person as two networks see them; the side views share a scale."""
    radius = _radius([a, b])
    over = [overlay.mesh_overlay(overlay.resize(c.image, TILE), c.predicted, faces, c.camera) for c in (a, b)]
    side = [overlay.view(c.predicted, faces, TILE, yaw_deg=90, radius=radius) for c in (a, b)]
    true = (
        overlay.view(a.true, faces, TILE, yaw_deg=90, radius=radius, colour=overlay.TRUE) if a.has_truth else _blank()
    )
    return [overlay.resize(a.image, TILE), _true_tile(a, faces), *over, true, *side]


def _true_tile(case: _Case, faces: np.ndarray) -> overlay.Image:
    """The true mesh over the picture, or nothing where it is not known how it was seen."""
    if not case.has_truth or case.true_view is None:
        return _blank()
    intrinsics, placed = case.true_view
    shown = camera.resampled(intrinsics, crop.enlarging(TILE / case.image.shape[1]))
    return overlay.draw_mesh(overlay.resize(case.image, TILE), placed, faces, shown, colour=overlay.TRUE)


def _radius(cases: Sequence[_Case]) -> float:
    """Half the side of a view that holds every mesh, metres."""
    meshes = [case.predicted for case in cases] + [case.true for case in cases if case.has_truth]
    return max(1.05 * float(np.abs(mesh - (mesh.min(0) + mesh.max(0)) / 2).max()) for mesh in meshes)


def _blank() -> overlay.Image:
    return np.full((TILE, TILE, 3), 244, np.uint8)
