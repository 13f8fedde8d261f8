"""Augmentation of whole batches: random draws keyed by sample, and the arithmetic on images, joints and poses.

METRO's recipe (official `human_mesh_tsv.py`, `image_ops.py`): horizontal flip, one gain per colour channel, in-plane
rotation that is off for most samples, and a scale of the box; then masks over the queries.

Every draw is a hash of (seed, epoch, sample, number of the draw), so a sample's augmentation does not depend on the
batch, the worker or the process it is made in.

Shapes: B batch, J joint, P pose parameter, K draw, T query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri

from metro.config import AugmentConfig, MaskConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_DRAWS = 7  # flip, three colours, rotation, its switch, scale


# ---------------------------------------------------------------------------------------------------- random draws


def mix(x: np.ndarray) -> np.ndarray:
    """Finaliser of SplitMix64 (Steele et al. 2014): a bijection of uint64 that scatters neighbouring inputs."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample_keys(seed: int, epoch_B: np.ndarray, sample_B: np.ndarray) -> np.ndarray:
    """One uint64 per (seed, epoch, sample): the state of that sample's own SplitMix64 generator."""
    key_B = mix(np.full(len(sample_B), seed % 2**64, np.uint64) + _GOLDEN)
    for part_B in (epoch_B, sample_B):
        key_B = mix((key_B ^ np.asarray(part_B).astype(np.uint64)) + _GOLDEN)
    return key_B


def random_bits(key_B: np.ndarray, start: int, count: int) -> np.ndarray:
    """Numbers `start` … `start + count - 1` of each sample's generator, (B, count) uint64."""
    steps_K = np.arange(start + 1, start + count + 1, dtype=np.uint64) * _GOLDEN
    return mix(key_B[:, None] + steps_K)


def uniforms(key_B: np.ndarray, start: int, count: int) -> np.ndarray:
    """The same as float64 in [0, 1)."""
    return (random_bits(key_B, start, count) >> np.uint64(11)) * 2.0**-53


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


def draw(config: AugmentConfig, key_B: np.ndarray) -> Draws:
    """Random augmentation of the samples with these keys (`sample_keys`)."""
    uniform_BK = uniforms(key_B, 0, _DRAWS)
    turn_B = np.clip(ndtri(uniform_BK[:, 4]) * config.rotation_sd, -config.rotation_max, config.rotation_max)
    grow_B = np.clip(ndtri(uniform_BK[:, 6]) * config.scale_sd, -config.scale_max, config.scale_max)
    return Draws(
        flip_B=uniform_BK[:, 0] < config.flip,
        colour_B3=1 + config.colour * (2 * uniform_BK[:, 1:4] - 1),
        rotation_B=np.where(uniform_BK[:, 5] < config.rotation_off, 0.0, turn_B),
        scale_B=1 + grow_B,
    )


def no_draws(count: int) -> Draws:
    """Draws that leave samples as they are, for evaluation."""
    return Draws(np.zeros(count, bool), np.ones((count, 3)), np.zeros(count), np.ones(count))


def query_masks(config: MaskConfig, joints: int, vertices: int, key_B: np.ndarray) -> np.ndarray:
    """Masks of masked vertex modelling: (B, joints + vertices) bool, true where the query is masked.

    Joints and vertices independently: the share is uniform in [0, ratio), rounded down to whole queries, and the
    queries are drawn without replacement (official `human_mesh_tsv.py`).
    """
    share_B2 = uniforms(key_B, _DRAWS, 2)
    parts, start = [], _DRAWS + 2
    for number, ratio, share_B in zip((joints, vertices), (config.joints, config.vertices), share_B2.T, strict=True):
        masked_B = (share_B * ratio * number).astype(np.int64)
        rank_BT = random_bits(key_B, start, number)
        # The n-th smallest of the random numbers splits off n of them; the extra column serves n = number.
        border_BT = np.column_stack([np.sort(rank_BT, 1), np.full(len(key_B), np.iinfo(np.uint64).max, np.uint64)])
        parts.append(rank_BT < np.take_along_axis(border_BT, masked_B[:, None], 1))
        start += number
    return np.concatenate(parts, 1)


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
    half_B1 = -np.deg2rad(rotation_deg_B)[:, None] / 2
    turn_w, turn_z = np.cos(half_B1), np.sin(half_B1)
    root_B3 = pose_BP[:, :3].astype(np.float64)
    angle_B1 = np.linalg.norm(root_B3, axis=1, keepdims=True)
    # Unit quaternions: product of the turn (w, 0, 0, z) and the orientation (v, q).
    v = np.cos(angle_B1 / 2)
    q = root_B3 * np.sinc(angle_B1 / (2 * np.pi)) / 2
    w = turn_w * v - turn_z * q[:, 2:]
    x = turn_w * q[:, :1] - turn_z * q[:, 1:2]
    y = turn_w * q[:, 1:2] + turn_z * q[:, :1]
    z = turn_w * q[:, 2:] + turn_z * v
    axis_B3 = np.concatenate((x, y, z), 1) * np.where(w < 0, -1.0, 1.0)  # the angle then lies in [0, π]
    length_B1 = np.linalg.norm(axis_B3, axis=1, keepdims=True)
    factor_B1 = np.where(length_B1 > 0, 2 * np.arctan2(length_B1, np.abs(w)) / np.maximum(length_B1, 1e-300), 2.0)
    turned_BP = pose_BP.copy()
    moved_B = np.asarray(rotation_deg_B) != 0
    turned_BP[moved_B, :3] = (axis_B3 * factor_B1)[moved_B]
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
