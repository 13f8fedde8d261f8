"""The camera: its forms agree, and what is drawn lies where it projects, to a twentieth of a pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metro.data import crop
from metro.data.augment import normalise_2d
from metro.model import losses
from metro.viz import camera as c
from metro.viz.raster import render_mesh
from tests.square import FACES, centre_of_mass, square

POINTS = np.random.default_rng(0).normal(0, 0.5, (14, 3))


def test_crop_coordinates_span_the_outer_edges() -> None:
    assert c.to_pixels([[-1, -1], [1, 1], [0, 0]], 100).tolist() == [[-0.5, -0.5], [99.5, 99.5], [49.5, 49.5]]


def test_labels_are_normalised_by_the_same_convention() -> None:
    pixels = np.array([[-0.5, 3.2], [17.0, 63.5]])
    assert c.to_pixels(normalise_2d(pixels, 64), 64) == pytest.approx(pixels)


def test_the_losses_project_alike() -> None:
    camera = np.array([0.8, 0.3, -0.4])
    uv = losses.project(torch.from_numpy(POINTS)[None], torch.from_numpy(camera)[None])[0].numpy()
    assert c.to_pixels(uv, 224) == pytest.approx(c.project(POINTS, camera, 224), abs=1e-9)


@given(st.floats(0.1, 3), st.floats(-0.6, 0.6), st.floats(-0.6, 0.6))
def test_fit_recovers_the_camera(s: float, tx: float, ty: float) -> None:
    assert c.fit(POINTS, s * (POINTS[:, :2] + [tx, ty])) == pytest.approx([s, tx, ty], abs=1e-9)


def test_fit_is_the_least_squares_solution() -> None:
    """Against the linear system u = s x + a, v = s y + b, whose matrix is written out."""
    uv = POINTS[:, :2] * 0.7 + np.random.default_rng(1).normal(0, 0.1, (14, 2))
    ones, zeros = np.ones(14), np.zeros(14)
    rows = np.r_[np.c_[POINTS[:, 0], ones, zeros], np.c_[POINTS[:, 1], zeros, ones]]
    (s, a, b), *_ = np.linalg.lstsq(rows, uv.T.reshape(-1), rcond=None)
    assert c.fit(POINTS, uv) == pytest.approx([s, a / s, b / s])


@pytest.mark.parametrize("points", [np.zeros((3, 3)), POINTS * [-1, -1, 1]], ids=["one point", "mirrored"])
def test_fit_keeps_the_scale_positive(points: np.ndarray) -> None:
    s, tx, ty = c.fit(points, POINTS[: len(points), :2])
    assert s == 1e-3
    assert s * (points[:, :2].mean(0) + np.array([tx, ty])) == pytest.approx(POINTS[: len(points), :2].mean(0))


def test_pinhole_is_the_published_rule_in_a_crop() -> None:
    """METRO's renderer: [tx, ty, 2 f / (224 s)] with f = 1000, the principal point in the middle."""
    intrinsics, translation = c.pinhole((0.9, 0.1, -0.2), 224, focal=1000.0)
    assert translation == pytest.approx([0.1, -0.2, 2 * 1000 / (224 * 0.9)])
    assert intrinsics.tolist() == [[1000, 0, 111.5], [0, 1000, 111.5], [0, 0, 1]]


@pytest.mark.parametrize("focal", [None, 700.0])
@pytest.mark.parametrize("centre", [None, (150.0, 99.5)])
def test_pinhole_of_a_picture_shows_the_root_plane_as_the_crop_does(
    focal: float | None, centre: tuple[float, float] | None
) -> None:
    camera, affine = (0.9, 0.1, -0.1), np.array([[0.5, 0, -20.0], [0, 0.5, -35.0]])
    intrinsics, translation = c.pinhole(camera, 100, affine, focal=focal, centre=centre)
    pixels = (POINTS * [1, 1, 0] + translation) @ intrinsics.T
    in_crop = crop.apply(affine, pixels[:, :2] / pixels[:, 2:])
    assert in_crop == pytest.approx(c.project(POINTS, camera, 100))


def test_resampled_intrinsics_follow_the_picture() -> None:
    """A square rendered, then resized and shifted, and one rendered by the resampled camera."""
    intrinsics = np.array([[90.0, 0, 40.3], [0, 90, 37.1], [0, 0, 1]])
    affine = crop.compose(np.array([[1, 0, 3.0], [0, 1, -5.0]]), crop.enlarging(2.0))
    placed, black = square((0.1, -0.05)) + np.array([0, 0, 1]), np.zeros((80, 80, 3), np.uint8)
    resized, large = np.zeros((160, 160, 3), np.uint8), np.zeros((160, 160, 3), np.uint8)
    crop.warp(render_mesh(placed, FACES, intrinsics, (80, 80), background=black), affine, resized)
    drawn = render_mesh(placed, FACES, c.resampled(intrinsics, affine), (160, 160), background=large)
    assert centre_of_mass(large, drawn) == pytest.approx(centre_of_mass(large, resized), abs=0.05)
