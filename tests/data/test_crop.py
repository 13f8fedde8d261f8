"""Where pixels of the frame go, and that their values go along."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro.data import crop
from metro.errors import MetroError
from tests.data import official_crop

SLOPE = np.array([[0.11, 0.23], [0.28, 0.05], [0.13, 0.24]])  # grey levels per pixel, of each channel


def slope_at(x, y):
    return 20 + np.stack([a * np.asarray(x, float) + b * np.asarray(y, float) for a, b in SLOPE], -1)


def slope_image(width: int, height: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.rint(slope_at(columns, rows)).astype(np.uint8)


def waves(size: int) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] / size
    bands = [np.sin(9 * columns + 2 * rows), np.cos(7 * rows), np.sin(5 * (columns + rows))]
    return np.rint(128 + 100 * np.stack(bands, -1)).astype(np.uint8)


def test_the_middle_and_the_edges_of_the_square_by_hand():
    affine = crop.crop_affine(np.array([[50.0, 40.0]]), np.array([20.0]), 10)[0]
    # Side 20 → 10 px. The square's left edge, x = 40, is the crop's left edge, half a pixel left of pixel 0.
    points = crop.apply(affine, np.array([[50.0, 40.0], [40.0, 30.0], [60.0, 50.0]]))
    np.testing.assert_allclose(points, [[4.5, 4.5], [-0.5, -0.5], [9.5, 9.5]])


def test_a_quarter_turn_and_a_flip_by_hand():
    centers, sides = np.zeros((2, 2)), np.full(2, 10.0)
    affines = crop.crop_affine(centers, sides, 11, np.array([90.0, 90.0]), np.array([False, True]))
    # Counter-clockwise: right of the middle goes above it.
    np.testing.assert_allclose(crop.apply(affines, np.array([[2.0, 0.0]]))[0], [[5, 5 - 2.2]], atol=1e-12)
    np.testing.assert_allclose(crop.apply(affines, np.array([[0.0, 2.0]])), [[[7.2, 5]], [[2.8, 5]]], atol=1e-12)


@given(st.floats(-500, 500), st.floats(-500, 500), st.floats(1, 900), st.floats(-180, 180), st.booleans())
def test_inverse_and_composition(x, y, side, degrees, flip):
    affine = crop.crop_affine(np.array([[x, y]]), np.array([side]), 64, degrees, flip)
    back = crop.compose(crop.invert(affine), affine)
    np.testing.assert_allclose(back, np.array([np.eye(3)[:2]]), atol=1e-6)


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 1.7, 3.2])
@pytest.mark.parametrize("encode", [False, True])
def test_values_follow_the_affine_at_every_size(scale, encode):
    """A linear picture stays linear under any resampling: each pixel must have the value of where it comes from."""
    frame = slope_image(700, 500)
    image = frame
    if encode:
        image = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    cut, affine = crop.cut(image, np.array([333.3, 251.7]), scale / 1.5, 64, 1.5)
    rows, columns = np.mgrid[:96, :96]
    source = crop.apply(crop.invert(affine), np.stack([columns, rows], -1).reshape(-1, 2).astype(float))
    inside = ((source > 12) & (source < [687, 487])).all(1)
    assert inside.mean() > 0.4
    expected = slope_at(source[:, 0], source[:, 1])
    difference = cut.reshape(-1, 3)[inside] - expected[inside]
    assert np.abs(difference).max() < (4.0 if encode else 1.1)
    assert np.abs(difference.mean(0)).max() < (0.45 if encode else 0.14)  # half a frame pixel of shift gives 0.16


@pytest.mark.parametrize("size", [1, 64, 65, 130])
def test_every_pixel_is_the_same_few_products_and_sums(size):
    """Bit by bit what a loop over pixels gives in single precision: down first, then across, then to the nearest."""
    g = np.random.default_rng(size)
    frame = g.integers(0, 256, (37, 41, 3), np.uint8)
    rows, columns = g.integers(0, 37, (2, size)), g.integers(3, 41, (2, size))
    down, across = g.random((2, 2, size), np.float32) / 2
    expected = np.empty((size, size, 3), np.uint8)
    values = frame.astype(np.float32)
    for i in range(size):
        line = down[0, i] * values[rows[0, i]] + down[1, i] * values[rows[1, i]]
        for j in range(size):
            pixel = across[0, j] * line[columns[0, j]] + across[1, j] * line[columns[1, j]] + np.float32(0.5)
            expected[i, j] = np.floor(pixel)
    assert np.array_equal(crop._resample(frame, rows, down, columns, across), expected)


@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
def test_reduced_pictures_are_rgb(reduce):
    red, grey = np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 90, np.uint8)
    red[..., 2] = 250
    for image, colour in ((red, [250, 0, 0]), (grey, [90, 90, 90])):
        found = crop.decode(cv2.imencode(".jpg", image)[1].tobytes(), reduce)
        assert found.shape == (64 // reduce, 64 // reduce, 3)
        assert np.abs(found[3, 3].astype(int) - colour).max() < 5


def test_outside_the_frame_is_black():
    cut, _ = crop.cut(np.full((60, 60, 3), 255, np.uint8), np.array([0.0, 0.0]), 0.3, 64, 1.0)
    assert cut[:30].max() == 0
    assert cut[:, :30].max() == 0
    assert cut[34:, 34:].min() == 255


@pytest.mark.parametrize(
    ("center", "scale", "said"),
    [
        ([500.0, 30.0], 0.3, "lies outside of the picture of 60 × 60 pixels"),
        ([30.0, np.nan], 0.3, "cannot be cut"),
        ([30.0, 1e308], 0.3, "cannot be cut"),
        ([30.0, 30.0], 0.0, "cannot be cut"),
        ([30.0, 30.0], np.inf, "cannot be cut"),
        ([30.0, 30.0], 3.0, "a box of 600 pixels is more than 8 times as large as the picture of 60 × 60 pixels"),
    ],
)
def test_a_box_that_cannot_be_cut_is_named(center, scale, said):
    with pytest.raises(MetroError, match=said):
        crop.cut(np.zeros((60, 60, 3), np.uint8), np.array(center), scale, 64, 1.0)


@pytest.mark.parametrize("shrink", [3.6, 4.0, 6.3, 8.0])
@pytest.mark.parametrize("encode", [False, True])
def test_strong_shrinking_has_no_aliasing(shrink, encode):
    """Stripes finer than a crop pixel must melt into grey."""
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::2] = 200
    image = cv2.imencode(".jpg", stripes, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes() if encode else stripes
    cut, _ = crop.cut(image, np.array([320.0, 320.0]), 64 * shrink / 200, 64, 1.0)
    assert np.abs(cut[4:-4, 4:-4].astype(int) - 100).max() < 30


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(MetroError, match=r"gone\.jpg: No such file"):
        crop.cut(tmp_path / "gone.jpg", np.zeros(2), 1.0, 64, 1.0)
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(MetroError, match=r"text\.jpg: not a readable image"):
        crop.cut(tmp_path / "text.jpg", np.zeros(2), 1.0, 64, 1.0)
    with pytest.raises(MetroError, match="not a readable image"):
        crop.cut(b"", np.zeros(2), 1.0, 64, 1.0)


def test_grey_pictures_and_alpha_become_rgb(tmp_path):
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((40, 40), 90, np.uint8))
    cut, _ = crop.cut(path, np.array([20.0, 20.0]), 0.1, 32, 1.0)
    assert cut.shape == (32, 32, 3)
    assert cut[16, 16].tolist() == [90, 90, 90]


@pytest.mark.parametrize("degrees", [0.0, 25.0, -60.0])
def test_agrees_with_the_official_procedure(degrees):
    """The same picture up to the half-pixel that the official corner truncation shifts it by."""
    frame, center, scale, size = waves(320), (160.0, 150.0), 0.8, 96
    expected = official_crop.crop(frame, center, scale, size, degrees)
    ours = np.empty((size, size, 3), np.uint8)
    affine = crop.crop_affine(np.array([center]), np.array([200 * scale]), size, degrees)[0]
    # The official picture shows pixel i over [i, i + 1], ours over [i - 1/2, i + 1/2].
    crop.warp(frame, crop.compose(affine, np.array([[1.0, 0, 0.5], [0, 1, 0.5]])), ours)
    difference = np.abs(ours - expected)[2:-2, 2:-2]
    assert difference.mean() < 1.0
    assert np.quantile(difference, 0.99) < 3.0
