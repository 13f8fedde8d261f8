"""Shape space and rest-joint regressor from many bodies in one topology."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from tools.open_body.skeleton import MIRROR24, MIRROR_X, SMPL24

COMPONENTS = 10

# Vertices around a joint that its regressor row may use; the others get _NEAREST.
_CANDIDATES = {
    **{"pelvis": 900, "spine1": 1000, "spine2": 1000, "spine3": 1200, "neck": 900, "head": 600},
    **{"hip": 900, "knee": 500, "collar": 900, "shoulder": 700, "elbow": 400},
}
_NEAREST = 300


@dataclass(frozen=True)
class ShapeSpace:
    """Mean and principal directions, scaled so that unit betas are one standard deviation."""

    mean_V3: np.ndarray
    directions_V3S: np.ndarray
    explained: float
    """Share of the variance that the directions keep."""


def principal_shapes(bodies_NV3: np.ndarray) -> ShapeSpace:
    """Principal component analysis by the Gram matrix, which is small where bodies are fewer than coordinates."""
    flat = bodies_NV3.reshape(len(bodies_NV3), -1).astype(np.float64)
    mean = flat.mean(0)
    centred = flat - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    components = centred.T @ vectors[:, :COMPONENTS] / np.sqrt(values[:COMPONENTS])
    deviations = np.sqrt(np.maximum(values, 0) / (len(flat) - 1))[:COMPONENTS]
    directions = (components * deviations).reshape(*bodies_NV3.shape[1:], COMPONENTS)
    return ShapeSpace(mean.reshape(bodies_NV3.shape[1:]), directions, float(values[:COMPONENTS].sum() / values.sum()))


def symmetric_body_space(bodies_NV3: np.ndarray, mirror: np.ndarray) -> ShapeSpace:
    """Shape space of symmetric bodies: directions exactly symmetric, each signed so that the head goes up."""
    space = principal_shapes(bodies_NV3)
    directions = space.directions_V3S.copy()
    crown = space.mean_V3[:, 1] > space.mean_V3[:, 1].max() - 0.1
    for k in range(directions.shape[2]):
        if directions[crown, 1, k].mean() < 0:
            directions[..., k] *= -1
    directions = (directions + directions[mirror] * MIRROR_X[None, :, None]) / 2
    return ShapeSpace(space.mean_V3, directions, space.explained)


def convex_row(
    points_NC3: np.ndarray, target_N3: np.ndarray, fit: float, unit: float, ridge: float, limit: int
) -> np.ndarray:
    """Weights (C,) >= 0, sum 1, whose combination of points follows the target in all N samples.

    Minimises ``fit² |Σ w p - t|² + unit² (Σ w - 1)² + ridge² |w|²`` under w >= 0, coordinates taken relative to the
    target (or to anything near it).
    """
    count = points_NC3.shape[1]
    flat = points_NC3.transpose(0, 2, 1).reshape(-1, count)
    system = np.concatenate([flat * fit, unit * np.ones((1, count)), ridge * np.eye(count)])
    weights, _ = nnls(system, np.r_[target_N3.reshape(-1) * fit, unit, np.zeros(count)], maxiter=limit)
    weights[weights < 1e-4 * weights.max()] = 0
    return weights / weights.sum()


def rest_joint_regressor(
    bodies_NV3: np.ndarray, joints_NJ3: np.ndarray, mean_V3: np.ndarray, middle_J3: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Rows (24, V) that give SMPL's rest joints from rest vertices; the right side mirrors the left.

    Parameters
    ----------
    bodies_NV3, joints_NJ3
        Bodies that the rows are fitted to, and their true joints.
    mean_V3, middle_J3
        Mean body and joints, which decide which vertices are near.
    mirror
        (V,) mirrored vertices.
    """
    rows = np.zeros((24, len(mean_V3)))
    scale = 1 / np.sqrt(3 * len(bodies_NV3))
    for j, name in enumerate(SMPL24):
        if name.startswith("right_"):
            continue
        count = _CANDIDATES.get(name.removeprefix("left_"), _NEAREST)
        near = np.argsort(np.linalg.norm(mean_V3 - middle_J3[j], axis=1))[:count]
        central = not name.startswith("left_")
        if central:
            near = np.unique(np.r_[near, mirror[near]])
        origin = joints_NJ3[:, j].mean(0)
        points = bodies_NV3[:, near].astype(np.float64) - origin
        row = np.zeros(len(mean_V3))
        row[near] = convex_row(points, joints_NJ3[:, j] - origin, 100 * scale, 100, 0.2, 20 * len(near))
        if central:
            row = (row + row[mirror]) / 2
        rows[j] = row
        rows[MIRROR24[j]] = row[mirror]
    return rows
