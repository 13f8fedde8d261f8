"""Augmentation of whole batches: random draws of each sample, and the arithmetic on images, joints and poses.

METRO's recipe (official `human_mesh_tsv.py`, `image_ops.py`): horizontal flip, one gain per colour channel, in-plane
rotation that is off for most samples, and a scale of the box.

Shapes: B batch, J joint, P pose parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from metro.config import AugmentConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)


# ---------------------------------------------------------------------------------------------------- random draws


@dataclass(frozen=True)
class Draws:
    """What happens to each sample of a batch."""

    flip_B: np.ndarray
    """bool: mirror left-right."""
    colour_B3: np.ndarray
    """Gain of each RGB channel."""
    rotation_B: np.ndarray
    """Counter-clockwise turn of the picture, degrees."""
    scale_B: np.ndarray
    """Factor on the side of the box."""


def draw(config: AugmentConfig, rngs: Sequence[np.random.Generator]) -> Draws:
    """Random augmentation of a batch, from the random numbers of each of its samples."""
    uniform_B5 = np.array([rng.random(5) for rng in rngs])
    turn_B, grow_B = np.array([rng.standard_normal(2) for rng in rngs]).T
    turn_B = np.clip(turn_B * config.rotation_sd, -config.rotation_max, config.rotation_max)
    return Draws(
        flip_B=uniform_B5[:, 0] < config.flip,
        colour_B3=1 + config.colour * (2 * uniform_B5[:, 1:4] - 1),
        rotation_B=np.where(uniform_B5[:, 4] < config.rotation_off, 0.0, turn_B),
        scale_B=1 + np.clip(grow_B * config.scale_sd, -config.scale_max, config.scale_max),
    )


def no_draws(count: int) -> Draws:
    """Draws that leave samples as they are, for evaluation."""
    return Draws(np.zeros(count, bool), np.ones((count, 3)), np.zeros(count), np.ones(count))


# ---------------------------------------------------------------------------------------------------- joints and poses


def normalise_2d(crop_BJ2: np.ndarray, size: int, integer: bool = False) -> np.ndarray:
    """Crop pixels → [-1, 1], where -1 and 1 are the outer edges of the crop.

    Parameters
    ----------
    crop_BJ2
        Crop pixels (integers are pixel centres).
    size
        Side of the crop, pixels.
    integer
        Truncate towards zero to whole pixels and add one first, as the official code does (`image_ops.py:85-95`).
    """
    edge_BJ2 = crop_BJ2 + 0.5  # distance from the crop's edge, which is what the official affine gives
    if integer:
        edge_BJ2 = np.trunc(edge_BJ2) + 1
    return 2 * edge_BJ2 / size - 1


def turn_3d(points: np.ndarray, rotation_deg_B: np.ndarray) -> np.ndarray:
    """Turn camera-frame points (B, J, 3) about the optical axis so that they follow a picture turned by `rotation_deg`.

    x is right and y down, so the counter-clockwise turn of the picture is x' = cos·x + sin·y, y' = -sin·x + cos·y.
    """
    angle_B1 = np.deg2rad(rotation_deg_B)[:, None]
    cos_B1, sin_B1 = np.cos(angle_B1), np.sin(angle_B1)
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack((cos_B1 * x + sin_B1 * y, cos_B1 * y - sin_B1 * x, z), -1)


def turn_pose(pose_BP: np.ndarray, rotation_deg_B: np.ndarray) -> np.ndarray:
    """Poses (B, P) with the global orientation (first three, axis-angle) turned as `turn_3d` turns points."""
    turned_BP, moved_B = pose_BP.copy(), rotation_deg_B != 0
    turn = Rotation.from_rotvec(-np.deg2rad(rotation_deg_B[moved_B])[:, None] * [0, 0, 1])
    turned_BP[moved_B, :3] = (turn * Rotation.from_rotvec(pose_BP[moved_B, :3])).as_rotvec()
    return turned_BP


def flip_joints(joints_BJC: np.ndarray, order: list[int], flip_B: np.ndarray) -> np.ndarray:
    """Mirror joints (x first, confidence and others after) where `flip_B`: exchange left and right, negate x.

    `order` is `metro.body.joints.flip_permutation` of their joint set; x is centred (normalised 2D, or camera frame).
    """
    mirrored_BJC = joints_BJC[:, order].copy()
    mirrored_BJC[..., 0] *= -1
    return np.where(flip_B[:, None, None], mirrored_BJC, joints_BJC)


def flip_pose(pose_BP: np.ndarray, order: list[int], flip_B: np.ndarray) -> np.ndarray:
    """Mirror poses where `flip_B`: exchange left and right joints, negate y and z of every axis-angle.

    `order` is `metro.body.joints.flip_permutation` of the kinematic joints (SMPL24).
    """
    mirrored_BJ3 = pose_BP.reshape(len(pose_BP), -1, 3)[:, order] * np.array([1, -1, -1], pose_BP.dtype)
    return np.where(flip_B[:, None], mirrored_BJ3.reshape(pose_BP.shape), pose_BP)


# ---------------------------------------------------------------------------------------------------- colour


def normalise(image_BSS3: torch.Tensor, colour_B3: torch.Tensor) -> torch.Tensor:
    """Network input of uint8 images, on the device they are on.

    Parameters
    ----------
    image_BSS3
        uint8 RGB.
    colour_B3
        Gain of each channel; the result is clipped to [0, 255] before ImageNet's mean and deviation are applied.

    Returns
    -------
    torch.Tensor
        (B, 3, S, S) float32, in channels-last memory order.
    """
    mean_3, sd_3 = (colour_B3.new_tensor(values) for values in (IMAGENET_MEAN, IMAGENET_SD))
    batch, height, width, _ = image_BSS3.shape

    def along_row(values: torch.Tensor) -> torch.Tensor:
        """(..., 3) for each pixel of a row: on a CPU three times as fast as an innermost axis of three."""
        return torch.cat([values] * width, -1)

    # (min(gain · x, 255) / 255 - mean) / sd, with everything per channel folded into one gain and one offset.
    image = image_BSS3.reshape(batch, height, 3 * width).to(colour_B3.dtype)
    image = image.mul_(along_row(colour_B3 / (255 * sd_3))[:, None]).sub_(along_row(mean_3 / sd_3))
    image = image.clamp_(max=along_row((1 - mean_3) / sd_3))
    return image.reshape(batch, height, width, 3).permute(0, 3, 1, 2)
