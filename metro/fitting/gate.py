"""Which people can be fitted, and which fits are good enough to train on.

The rules of the METRO line of work (Pose2Mesh's SMPL annotations of Human3.6M): a 3D fit counts if its mean joint
error is at most 50 mm, and a shape with any |beta| > 3 is replaced by the mean shape. A 2D fit has no true 3D error;
its reprojection is judged instead.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from metro.config import FitConfig
from metro.errors import MetroError

_TALLEST_M = 4.0  # a body, arms stretched out
_TYPICAL_M = 1.6
_UNITS = {"millimetres": 1000.0, "centimetres": 100.0, "inches": 39.37, "feet": 3.281}
_LEAST_SPREAD_3D = 0.1  # metres
_LEAST_SPREAD_2D = 0.05  # share of the box side


class Reason(StrEnum):
    """Why a person has no accepted fit."""

    NONE = ""
    """There is one."""
    HAS_MESH = "has a mesh already"
    NO_JOINTS = "no joints"
    FEW_JOINTS = "too few joints"
    NO_SPREAD = "joints in one place"
    BAD_BOX = "no box or camera"
    DIVERGED = "not finite"
    ERROR_3D = "3D error too large"
    ERROR_2D = "2D error too large"


def check_metres(points_NK3: NDArray[np.floating], known_NK: NDArray[np.bool_], name: str) -> None:
    """Refuse points of people most of whom are taller than people are.

    Parameters
    ----------
    points_NK3
        Points that are said to be in metres.
    known_NK
        Which of them count.
    name
        What they are called in the message.

    Raises
    ------
    MetroError
        The message names the unit that they are likely in.
    """
    somebody = known_NK.sum(1) > 1
    points, known = points_NK3[somebody], known_NK[somebody][..., None]
    extent_NC = np.where(known, points, -np.inf).max(1) - np.where(known, points, np.inf).min(1)
    extent = float(np.median(np.linalg.norm(extent_NC, axis=1))) if len(points) else 0.0
    if extent > _TALLEST_M:
        unit = min(_UNITS, key=lambda unit: abs(np.log(extent / _UNITS[unit] / _TYPICAL_M)))
        raise MetroError(
            f"{name}: a person reaches over {extent:.4g} m; are these {unit}? Divide by {_UNITS[unit]:g}, as fits "
            "take metres"
        )


def judge_input(
    targets_NKR: NDArray[np.floating], conf_NK: NDArray[np.floating], config: FitConfig
) -> NDArray[np.str_]:
    """Reason (N,) against trying a fit; empty for none.

    Parameters
    ----------
    targets_NKR
        Joints: metres (R = 3), or image coordinates in units of the box side (R = 2).
    conf_NK
        Their confidence, 0 for a missing joint.
    config
        `min_joints` applies.
    """
    weight_NK1 = (conf_NK > 0)[..., None].astype(np.float64)
    count_N = weight_NK1.sum((1, 2))
    targets = np.where(weight_NK1 > 0, targets_NKR, 0).astype(np.float64)
    centre_N1R = targets.sum(1, keepdims=True) / np.maximum(count_N, 1)[:, None, None]
    spread_N = np.sqrt((weight_NK1 * (targets - centre_N1R) ** 2).sum((1, 2)) / np.maximum(count_N, 1))
    least = _LEAST_SPREAD_3D if targets_NKR.shape[2] == 3 else _LEAST_SPREAD_2D
    return np.select(
        [count_N == 0, count_N < config.min_joints, spread_N < least],
        [Reason.NO_JOINTS, Reason.FEW_JOINTS, Reason.NO_SPREAD],
        Reason.NONE,
    )


def judge_fit(
    error_N: NDArray[np.floating], finite_N: NDArray[np.bool_], in_space: bool, config: FitConfig
) -> NDArray[np.str_]:
    """Reason (N,) against using a fit, from its mean joint error (metres, or share of the box side); empty for none."""
    limit, reason = (config.max_error_3d, Reason.ERROR_3D) if in_space else (config.max_error_2d, Reason.ERROR_2D)
    return np.select([~(finite_N & np.isfinite(error_N)), error_N > limit], [Reason.DIVERGED, reason], Reason.NONE)


def extreme_shape(betas_NS: NDArray[np.floating], config: FitConfig) -> NDArray[np.bool_]:
    """Whether (N,) any |beta| exceeds `max_beta`."""
    return (np.abs(betas_NS) > config.max_beta).any(1)
