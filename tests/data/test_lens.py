"""Lenses: OpenCV's against OpenCV, Human3.6M's against numbers of the set and of a calculator, and the way back."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest

from metro.data import lens as l
from tests.reference import reference

CAMERA = np.array([[1145.0, 0.0, 512.5], [0.0, 1143.8, 515.4], [0.0, 0.0, 1.0]])
WIDE = np.array([-0.21, 0.25, -0.0009, -0.0014, -0.02, 0.03, -0.01, 0.004])
NARROW = np.array([-0.2071, 0.2478, -0.00098, -0.00142, -0.0031, 0.0, 0.0, 0.0])
LENSES = {"opencv": WIDE, "h36m": NARROW}


def points(count: int = 400) -> np.ndarray:
    """Before the camera, metres: the picture and something around it."""
    rng = np.random.default_rng(3)
    depth = rng.uniform(2, 6, (count, 1))
    return np.hstack((rng.uniform(-0.6, 0.6, (count, 2)) * depth, depth))


def test_opencvs_lens_is_opencvs() -> None:
    expected = cv2.projectPoints(points(), np.zeros(3), np.zeros(3), CAMERA, WIDE)[0][:, 0]
    np.testing.assert_allclose(l.project(points(), CAMERA, WIDE, "opencv"), expected, atol=1e-9)


def test_the_formula_of_human36m_by_hand() -> None:
    """x = 0.5, y = 0.25, so r² = 0.3125; only p1 and p2 in the second, where OpenCV's factor 2 gives other numbers."""
    point = [[0.5, 0.25]]
    shown = l.distort(point, [0.1, 0, 0, 0, 0, 0, 0, 0], "h36m")
    np.testing.assert_allclose(shown, [[0.515625, 0.2578125]], atol=1e-15)
    # x' = 0.5 + 0.5 (0.01 · 0.25 + 0.02 · 0.5) + 0.02 · 0.3125, y' = 0.25 + 0.25 (0.0125) + 0.01 · 0.3125
    shown = l.distort(point, [0, 0, 0.01, 0.02, 0, 0, 0, 0], "h36m")
    np.testing.assert_allclose(shown, [[0.5125, 0.25625]], atol=1e-15)
    assert np.abs(l.distort(point, [0, 0, 0.01, 0.02, 0, 0, 0, 0], "opencv") - shown).max() > 1e-3


@pytest.mark.parametrize("lens", ["opencv", "h36m"])
def test_derivatives(lens: str) -> None:
    at, tiny = points()[:, :2] / points()[:, 2:], 1e-6
    stated = l._moved(at, LENSES[lens], lens)[1]
    steps = (np.array([tiny, 0.0]), np.array([0.0, tiny]))
    along_x, along_y = (
        (l.distort(at + step, LENSES[lens], lens) - l.distort(at - step, LENSES[lens], lens)) / (2 * tiny)
        for step in steps
    )
    found = (along_x[:, 0], along_y[:, 0], along_x[:, 1], along_y[:, 1])
    np.testing.assert_allclose(stated, found, atol=1e-8)


def test_human36ms_own_joints_are_where_its_own_formula_puts_them() -> None:
    """Subject 1, camera 54138969: the first camera's block of `w0`, where the lens has f, c, three k and two p."""
    true = json.loads(reference("real/true_values.json").read_text())["h36m"]
    table = ElementTree.parse(reference("real/h36m/metadata.xml")).findtext("w0")
    assert table is not None
    fx, fy, cx, cy, k1, k2, k3, p1, p2 = map(float, table.strip("[] ").split()[264:273])
    camera, distortion = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.array([k1, k2, p1, p2, k3, 0, 0, 0])
    seen, metres = np.array(true["d2_px"]), np.array(true["d3_mono_m"])

    def miss(lens: str) -> float:
        return float(np.linalg.norm(l.project(metres, camera, distortion, lens) - seen, axis=1).max())

    assert miss("h36m") < 1e-4
    assert miss("opencv") > 0.05
    assert miss("none") > 1


@pytest.mark.parametrize("lens", ["opencv", "h36m"])
def test_there_and_back(lens: str) -> None:
    pinhole = l.project(points(), CAMERA, None, "none")
    seen = l.project(points(), CAMERA, LENSES[lens], lens)
    assert np.linalg.norm(seen - pinhole, axis=1).max() > 5
    np.testing.assert_allclose(l.undistort_pixels(seen, CAMERA, LENSES[lens], lens), pinhole, atol=1e-7)


def test_a_batch_has_a_lens_for_each() -> None:
    """Cameras and lenses (B, …) go with points (B, N, …)."""
    cameras, lenses = np.stack((CAMERA, 2 * CAMERA - [[0, 0, 9], [0, 0, 0], [0, 0, 1]])), np.stack((WIDE, 0 * WIDE))
    both = np.stack((points(20), points(20)[::-1]))
    seen = l.project(both, cameras, lenses, "opencv")
    for i in range(2):
        np.testing.assert_array_equal(seen[i], l.project(both[i], cameras[i], lenses[i], "opencv"))
    np.testing.assert_allclose(
        l.undistort_pixels(seen, cameras, lenses, "opencv"), l.project(both, cameras, None, "none"), atol=1e-7
    )


def test_skew_is_kept() -> None:
    skewed = np.array([[1145.0, 3, 512.5], [0, 1143.8, 515.4], [0, 0, 1]])
    seen = l.project(points(), skewed, WIDE, "opencv")
    np.testing.assert_allclose(seen[:, 1], l.project(points(), CAMERA, WIDE, "opencv")[:, 1])
    back = l.undistort_pixels(seen, skewed, WIDE, "opencv")
    np.testing.assert_allclose(back, l.project(points(), skewed, None, "none"), atol=1e-7)


@pytest.mark.parametrize("lens", ["opencv", "h36m"])
def test_beyond_the_fold_there_is_nothing(lens: str) -> None:
    """x - x³ / 3 has its maximum, 2 / 3, at x = 1: no point is shown farther out, and x = 2 is shown on the other side.

    With a little k3 it rises again far out, where a search could be deceived.
    """
    for far in (0.0, 0.005):
        barrel = [-1 / 3, 0, 0, 0, far, 0, 0, 0]
        found = l.undistort([[0.6, 0.0], [0.0, -0.6], [0.7, 0.0], [0.6, 0.6], [np.nan, 0]], barrel, lens)
        assert np.isfinite(found).all(1).tolist() == [True, True, False, False, False]
        assert 0.6 < found[0, 0] < 1


@pytest.mark.parametrize("lens", ["opencv", "h36m"])
def test_a_pinhole_camera_sees_bent_vertices_where_the_lens_shows_the_true_ones(lens: str) -> None:
    vertices = points()
    vertices[7] = [0.2, 0.1, -1.0]  # behind the camera
    bent = l.bend(vertices, LENSES[lens], lens)
    assert bent[7].tolist() == vertices[7].tolist()
    assert bent[:, 2].tolist() == vertices[:, 2].tolist()
    before = np.arange(len(vertices)) != 7
    shown = l.project(vertices[before], CAMERA, LENSES[lens], lens)
    np.testing.assert_allclose(l.project(bent[before], CAMERA, None, "none"), shown, atol=1e-9)
