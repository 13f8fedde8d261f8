"""Contact sheets of datasets: what is stored, or what training sees, with joints and meshes drawn over it.

Shapes: J joints, V vertices.
"""

from __future__ import annotations

import numpy as np
import torch

from metro.body.arrays import BodyData
from metro.body.model import BodyModel, Variants
from metro.config import ModelConfig, TrainConfig
from metro.data import crop
from metro.data.augment import normalise_2d
from metro.data.lens import LENSES, bend
from metro.data.loader import TrainStream
from metro.data.shards import ShardDataset
from metro.viz import camera
from metro.viz.overlay import draw_mesh, grid, mesh_overlay, skeleton
from metro.words import GENDERS


def stored_sheet(
    dataset: ShardDataset, body: BodyData, count: int = 12, columns: int = 3, variants: Variants | None = None
) -> np.ndarray:
    """Stored images of evenly spaced records, each beside itself with its mesh drawn: (H, W, 3) uint8 RGB.

    The mesh is projected by the camera and the lens of the record where they are known, and by the weak-perspective
    camera that fits its 2D joints best elsewhere. Records without a mesh show their joints alone. `variants` gives the
    bodies of people who are not neutral (`metro.body.load.load_variant`).
    """
    labels, tiles, model = dataset.labels, [], BodyModel(body, variants=variants)
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)):
        image = dataset.image(int(index))
        affine = labels["affine"][index].astype(np.float64)
        joints = labels["joints_2d"][index].astype(np.float64)
        joints[:, :2] = crop.apply(affine, joints[:, :2])
        lens = LENSES[labels["lens"][index]]
        camera_known = np.isfinite(labels["intrinsics"][index]).all() and np.isfinite(labels["transl"][index]).all()
        drawn = image
        if labels["has_mesh"][index]:
            vertices = _vertices(model, *(labels[name][index] for name in ("pose_aa", "betas", "gender")))
            if camera_known:
                placed = bend(vertices + labels["transl"][index], labels["distortion"][index], lens)
                drawn = draw_mesh(image, placed, body.faces, camera.resampled(labels["intrinsics"][index], affine))
            else:
                drawn = _over(image, body, vertices, joints)
        tiles.append(np.hstack((skeleton(image, joints[:, :2], dataset.joint_set, confidence=joints[:, 2]), drawn)))
    return grid(tiles, columns)


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


def _vertices(model: BodyModel, pose_aa: np.ndarray, betas: np.ndarray, gender: np.integer) -> np.ndarray:
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
