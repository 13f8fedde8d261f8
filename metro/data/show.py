"""Contact sheets of datasets: what is stored, or what training sees, with joints and meshes drawn over it.

Shapes: J joints, V vertices.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from metro.body.arrays import BodyData
from metro.body.model import BodyModel, Variants
from metro.config import ModelConfig, TrainConfig
from metro.data import crop
from metro.data.augment import normalise_2d
from metro.data.hdf5 import open_h5, read_arrays
from metro.data.lens import LENSES, bend
from metro.data.loader import TrainStream
from metro.data.shards import ShardDataset, fit_path
from metro.viz import camera
from metro.viz.overlay import BAD, GOOD, PAPER, draw_mesh, framed, grid, mesh_overlay, skeleton
from metro.words import GENDERS


def stored_sheet(
    dataset: ShardDataset, body: BodyData, count: int = 12, columns: int = 3, variants: Variants | None = None
) -> np.ndarray:
    """Stored images of evenly spaced records, each beside itself with its mesh drawn: (H, W, 3) uint8 RGB.

    The mesh is projected by the camera and the lens of the record where they are known, and by the weak-perspective
    camera that fits its 2D joints best elsewhere. Records without a mesh show their joints alone, those with joints in
    space alone a front view of them. `variants` gives the bodies of people who are not neutral
    (`metro.body.load.load_variant`).
    """
    labels, tiles, model = dataset.labels, [], BodyModel(body, variants=variants)
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)):
        vertices = None
        if labels["has_mesh"][index]:
            vertices = _vertices(model, *(labels[name][index] for name in ("pose_aa", "betas", "gender")))
        tiles.append(_tile(dataset, int(index), body, vertices, labels["transl"][index]))
    return grid(tiles, columns)


def fitted_sheet(dataset: ShardDataset, fits: Path, body: BodyData, count: int = 12, columns: int = 3) -> np.ndarray:
    """Accepted and refused fits of a dataset, evenly spaced among their kind: (H, W, 3) uint8 RGB.

    Each is drawn as in `stored_sheet`, framed green or red, under its error and the reason it was refused for; people
    for whom no fit was tried show their joints alone. As many are refused as accepted, where there are that many.

    Parameters
    ----------
    dataset
        The shards, without fits.
    fits
        Folder of the sidecars that `fit_dataset` wrote for them.
    body, count, columns
        As in `stored_sheet`.

    Raises
    ------
    MetroError
        A sidecar is missing or damaged.
    """
    wanted = ("pose_aa", "betas", "transl", "accepted", "reason", "error_3d", "error_2d")
    parts = []
    for shard in dataset.paths:
        with open_h5(fit_path(fits, shard.name), "fit") as file:
            parts.append(read_arrays(file))
    found = {name: np.concatenate([part[f"labels/{name}"] for part in parts]) for name in wanted}
    lacking = ~dataset.labels["has_mesh"]
    kinds = [np.flatnonzero(lacking & (found["accepted"] == good)) for good in (True, False)]
    refused = min(len(kinds[1]), max(count // 2, count - len(kinds[0])))
    model, tiles, notes = BodyModel(body), [], []
    for rows, number in zip(kinds, (count - refused, refused), strict=True):
        for index in rows[np.unique(np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(int))].tolist():
            pose_aa, betas, transl, good, reason, space, plane = (found[name][index] for name in wanted)
            vertices = None
            if np.isfinite([space, plane]).any():
                vertices = _vertices(model, pose_aa, betas, 0)
            tile = _tile(dataset, index, body, vertices, transl)
            tiles.append(framed(tile, GOOD if good else BAD))
            error = f"{1000 * space:.0f} mm" if np.isfinite(space) else f"{100 * plane:.1f} % of the box"
            told = "accepted" if good else reason.decode()
            notes.append(told if vertices is None else f"{told}, {error}")
    return grid(tiles, columns, labels=notes) if tiles else np.full((32, 32, 3), PAPER, np.uint8)


def training_sheet(
    dataset: ShardDataset,
    body: BodyData,
    model: ModelConfig,
    train: TrainConfig,
    columns: int = 3,
    variants: Variants | None = None,
) -> np.ndarray:
    """The first training batch, augmented as the network sees it, with its joints and meshes: (H, W, 3) uint8 RGB."""
    first = next(iter(TrainStream([dataset], model, train)))
    batch = {name: values.numpy() for name, values in first.items()}
    tiles, posed = [], BodyModel(body, variants=variants)
    gender_B = batch.get("gender", np.zeros(len(batch["image"]), np.uint8))
    for i, image in enumerate(batch["image"]):
        image = np.clip(image * batch["colour"][i], 0, 255).astype(np.uint8)
        joints = batch["joints_2d"][i].astype(np.float64)
        joints[:, :2] = camera.to_pixels(joints[:, :2], model.image_size)
        drawn = image
        if batch["has_mesh"][i]:
            drawn = _over(image, body, _vertices(posed, batch["pose_aa"][i], batch["betas"][i], gender_B[i]), joints)
        tiles.append(np.hstack((skeleton(image, joints[:, :2], dataset.joint_set, confidence=joints[:, 2]), drawn)))
    return grid(tiles, columns)


def _tile(
    dataset: ShardDataset, index: int, body: BodyData, vertices_V3: np.ndarray | None, transl: np.ndarray
) -> np.ndarray:
    """A stored image with its joints, beside itself with a mesh that stands at `transl`."""
    labels, image = dataset.labels, dataset.image(index)
    affine = labels["affine"][index].astype(np.float64)
    joints = labels["joints_2d"][index].astype(np.float64)
    joints[:, :2] = crop.apply(affine, joints[:, :2])
    drawn = image
    if vertices_V3 is not None and np.isfinite(labels["intrinsics"][index]).all() and np.isfinite(transl).all():
        placed = bend(vertices_V3 + transl, labels["distortion"][index], LENSES[labels["lens"][index]])
        drawn = draw_mesh(image, placed, body.faces, camera.resampled(labels["intrinsics"][index], affine))
    elif vertices_V3 is not None:
        drawn = _over(image, body, vertices_V3, joints)
    elif not labels["has_2d"][index] and labels["has_3d"][index]:
        drawn = _front_view(labels["joints_3d"][index], dataset)
    return np.hstack((skeleton(image, joints[:, :2], dataset.joint_set, confidence=joints[:, 2]), drawn))


def _front_view(joints_J4: np.ndarray, dataset: ShardDataset) -> np.ndarray:
    """Joints in space as a camera far away shows them, filling a tile."""
    points_J2, confidence_J = joints_J4[:, :2].astype(np.float64), joints_J4[:, 3]
    known_K2, side = points_J2[confidence_J > 0], dataset.image_size
    low, high = known_K2.min(0), known_K2.max(0)
    places_J2 = side * (0.5 + 0.8 * (points_J2 - (low + high) / 2) / max(high - low))
    tile = np.full((side, side, 3), PAPER, np.uint8)
    return skeleton(tile, places_J2, dataset.joint_set, confidence=confidence_J)


def _vertices(model: BodyModel, pose_aa: np.ndarray, betas: np.ndarray, gender: int | np.integer) -> np.ndarray:
    with torch.no_grad():
        posed = model.variant(GENDERS[gender])(torch.from_numpy(pose_aa)[None], torch.from_numpy(betas)[None])
        return posed.vertices[0].numpy()


def _over(image: np.ndarray, body: BodyData, vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Draw a mesh by the weak-perspective camera that brings its joints onto the 2D joints (least squares)."""
    known = joints[:, 2] > 0
    if known.sum() < 2:
        return image
    points = (body.regressors[body.figure.label_regressor] @ vertices)[known]
    fitted = camera.fit(points, normalise_2d(joints[known, :2], image.shape[0]))
    return mesh_overlay(image, vertices, body.faces, fitted)
