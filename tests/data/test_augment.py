"""Augmentation: cases by hand, agreement with an independent route, and statistics of the draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torchvision.transforms.functional import normalize

from metro.body.joints import JOINT_SETS, flip_permutation
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import AugmentConfig
from metro.data import augment, crop
from metro.random import stream
from tests.data import official_crop

J24, SMPL24 = flip_permutation("J24"), flip_permutation("SMPL24")


def streams(count: int) -> list[np.random.Generator]:
    return [stream(0, sample) for sample in range(count)]


# ------------------------------------------------------------------------------------------------ 2D


def test_normalised_coordinates_by_hand():
    # 224 px: the middle lies between pixels 111 and 112, the left edge half a pixel left of pixel 0.
    values = augment.normalise_2d(np.array([[[111.5, -0.5], [223.5, 55.5]]]), 224)
    np.testing.assert_allclose(values, [[[0, -1], [1, -0.5]]])


def test_integer_targets_by_hand():
    # Distances from the edge 10.5, 10.99, -0.3: truncated towards zero to 10, 10, 0; plus one.
    values = augment.normalise_2d(np.array([[[10.0, 10.49], [-0.8, 0.0]]]), 224, integer=True)
    np.testing.assert_allclose((values + 1) * 112, [[[11, 11], [1, 1]]])


@given(st.floats(-50, 350), st.floats(-50, 350), st.floats(0.3, 3), st.floats(-60, 60), st.sampled_from([96, 224]))
def test_targets_equal_the_official_ones(x, y, scale, degrees, size):
    center = (130.0, 141.0)
    affine = crop.crop_affine(np.array([center]), np.array([200 * scale]), size, degrees)
    ours = crop.apply(affine, np.array([[[x, y]]]))
    theirs = official_crop.to_crop(x, y, center, scale, size, degrees)
    np.testing.assert_allclose(augment.normalise_2d(ours, size)[0, 0], 2 * np.array(theirs) / size - 1, atol=1e-9)
    if all(abs(value - round(value)) > 1e-6 for value in theirs):  # truncation is a jump at whole pixels
        expected = official_crop.target_2d(x, y, center, scale, size, degrees)
        np.testing.assert_allclose(augment.normalise_2d(ours, size, integer=True)[0, 0], expected, atol=1e-12)


# ------------------------------------------------------------------------------------------------ 3D and pose


def test_turning_points_by_hand():
    points = np.array([[[1.0, 0, 5]], [[0, 1.0, 5]], [[1.0, 2, 3]]])
    turned = augment.turn_3d(points, np.array([90.0, 90.0, 0.0]))
    # The picture turns counter-clockwise and y points down: right goes up, down goes right.
    np.testing.assert_allclose(turned, [[[0, -1, 5]], [[1, 0, 5]], [[1, 2, 3]]], atol=1e-12)


def test_flips_by_hand():
    order = [1, 0, 2]
    joints = np.array([[[1.0, 2, 9], [3, 4, 8], [5, 6, 7]]])
    flipped = augment.flip_joints(np.repeat(joints, 2, 0), order, np.array([True, False]))
    assert flipped[0].tolist() == [[-3, 4, 8], [-1, 2, 9], [-5, 6, 7]]
    assert flipped[1].tolist() == joints[0].tolist()
    pose = np.arange(1.0, 10)[None]
    assert augment.flip_pose(pose, order, np.array([True])).tolist() == [[4, -5, -6, 1, -2, -3, 7, -8, -9]]


def test_the_published_flip_order():
    assert J24 == [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 15, 16, 17, 18, 19, 21, 20, 23, 22]


@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.floats(-180, 180).filter(lambda degrees: degrees == 0 or abs(degrees) > 1e-6),
)
def test_turned_orientation_is_the_product_of_rotations(root, degrees):
    pose = np.concatenate([root, np.arange(6.0)])[None]
    turned = augment.turn_pose(pose, np.array([degrees]))
    expected = Rotation.from_euler("z", -degrees, degrees=True) * Rotation.from_rotvec(root)
    np.testing.assert_allclose(Rotation.from_rotvec(turned[0, :3]).as_matrix(), expected.as_matrix(), atol=1e-9)
    assert np.linalg.norm(turned[0, :3]) <= max(np.pi, np.linalg.norm(root)) + 1e-9
    assert turned[0, 3:].tolist() == pose[0, 3:].tolist()


def test_no_turn_changes_no_bit():
    pose = np.random.default_rng(0).normal(0, 4, (5, 72)).astype(np.float32)
    assert np.array_equal(augment.turn_pose(pose, np.zeros(5)), pose)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(load_body("open"))


def j24_of(body: BodyModel, pose: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """J24 joints relative to the pelvis."""
    vertices = body(torch.from_numpy(pose.astype(np.float32)), torch.from_numpy(betas.astype(np.float32))).vertices
    joints = body.regress("j24", vertices).numpy()
    return joints - joints[:, [JOINT_SETS["J24"].index("Pelvis")]]


def test_a_turned_pose_gives_turned_joints(body):
    rng = np.random.default_rng(1)
    pose, betas = rng.normal(0, 0.5, (8, 72)), rng.normal(0, 1, (8, 10))
    pose[:, :3] = rng.normal(0, 2, (8, 3))
    degrees = rng.uniform(-60, 60, 8)
    turned = j24_of(body, augment.turn_pose(pose, degrees), betas)
    np.testing.assert_allclose(turned, augment.turn_3d(j24_of(body, pose, betas), degrees), atol=2e-6)


def test_a_flipped_pose_gives_flipped_joints(body):
    rng = np.random.default_rng(2)
    pose, betas = rng.normal(0, 0.4, (8, 72)), rng.normal(0, 1, (8, 10))
    flip = np.arange(8) % 2 == 0
    flipped = j24_of(body, augment.flip_pose(pose, SMPL24, flip), betas)
    expected = augment.flip_joints(j24_of(body, pose, betas), J24, flip)
    assert np.linalg.norm(flipped - expected, axis=-1).max() < 0.005  # a body model is not quite symmetric
    assert np.linalg.norm(flipped - j24_of(body, pose, betas), axis=-1)[flip].max() > 0.1


# ------------------------------------------------------------------------------------------------ colour


def test_normalise_is_gain_clip_and_imagenet():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 8, 8, 3), generator=generator, dtype=torch.uint8)
    colour = torch.tensor([[1.0, 1, 1], [1.4, 0.6, 1.2], [0.7, 1.3, 1.39]])
    expected = (image.double() * colour[:, None, None]).clamp(0, 255).permute(0, 3, 1, 2) / 255
    expected = normalize(expected, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    result = augment.normalise(image, colour)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


# ------------------------------------------------------------------------------------------------ draws


def test_draws_follow_the_recipe():
    draws = augment.draw(AugmentConfig(), streams(40000))
    assert draws.flip_B.mean() == pytest.approx(0.5, abs=0.01)
    assert (draws.rotation_B == 0).mean() == pytest.approx(0.6, abs=0.01)
    turned = draws.rotation_B[draws.rotation_B != 0]
    assert (np.abs(turned) == 60).mean() == pytest.approx(0.0455, abs=0.005)  # beyond two deviations
    assert turned[np.abs(turned) < 60].std() == pytest.approx(30 * 0.8796, rel=0.02)  # deviation inside ±2 sd
    assert (np.abs(draws.scale_B - 1) == 0.25).mean() == pytest.approx(0.3173, abs=0.01)
    assert draws.colour_B3.min() == pytest.approx(0.6, abs=1e-3)
    assert draws.colour_B3.max() == pytest.approx(1.4, abs=1e-3)
    np.testing.assert_allclose(draws.colour_B3.mean(0), 1, atol=0.005)
    table = np.column_stack([draws.flip_B, draws.colour_B3, draws.rotation_B, draws.scale_B])
    assert np.abs(np.corrcoef(table.T) - np.eye(6)).max() < 0.02


def test_nothing_happens_when_everything_is_off():
    off = AugmentConfig(flip=0, colour=0, rotation_sd=0, scale_sd=0)
    draws, none = augment.draw(off, streams(100)), augment.no_draws(100)
    for field in ("flip_B", "colour_B3", "rotation_B", "scale_B"):
        assert np.array_equal(getattr(draws, field), getattr(none, field))


def test_the_draws_of_a_sample_are_its_own():
    whole, part = augment.draw(AugmentConfig(), streams(64)), augment.draw(AugmentConfig(), streams(64)[40:50])
    for field in ("flip_B", "colour_B3", "rotation_B", "scale_B"):
        assert np.array_equal(getattr(part, field), getattr(whole, field)[40:50])
