"""Overlays: pixels land where the camera says, and sheets hold their tiles."""

from __future__ import annotations

import numpy as np
import pytest

from metro.body.joints import JOINT_SETS
from metro.viz import overlay as o

CUBE = np.array([[x, y, z] for x in (-0.3, 0.3) for y in (-0.3, 0.3) for z in (-0.3, 0.3)], float)
SIDES = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
FACES = np.array([t for a, b, c, d in SIDES for t in ((a, b, c), (a, c, d))])  # anticlockwise seen from outside
GREY = np.full((100, 100, 3), 128, np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what differs, as pixel edges."""
    ys, xs = np.nonzero((before != after).any(-1))
    return xs.min() - 0.5, ys.min() - 0.5, xs.max() + 0.5, ys.max() + 0.5


def test_normalised_coordinates_span_the_pixels_edges() -> None:
    assert o.to_pixels([[-1, -1], [1, 1], [0, 0]], 100).tolist() == [[-0.5, -0.5], [99.5, 99.5], [49.5, 49.5]]


@pytest.mark.parametrize("camera", [(1.0, 0.0, 0.0), (0.8, 0.3, -0.4), (2.0, 0.1, 0.2)])
def test_a_mesh_lands_where_its_camera_projects_it(camera: tuple[float, float, float]) -> None:
    drawn = o.mesh_overlay(GREY, CUBE, FACES, camera, alpha=1.0)
    corners = o.project(CUBE, camera, 100)
    low, high = np.maximum(corners.min(0), -0.5), np.minimum(corners.max(0), 99.5)
    assert changed(GREY, drawn) == pytest.approx((*low, *high), abs=1.2)


def test_over_the_original_image() -> None:
    """Drawing on the frame, then cropping, is drawing on the crop."""
    camera, affine = (0.9, 0.1, -0.1), np.array([[0.5, 0, -20.0], [0, 0.5, -35.0]])
    frame = np.full((300, 340, 3), 90, np.uint8)
    drawn = o.mesh_overlay(frame, CUBE, FACES, camera, affine=affine, size=100, alpha=1.0)
    corners = (o.project(CUBE, camera, 100) - affine[:, 2]) / 0.5
    assert changed(frame, drawn) == pytest.approx((*corners.min(0), *corners.max(0)), abs=1.5)


def test_perspective_translation_is_the_published_rule_in_a_crop() -> None:
    """METRO's renderer: [tx, ty, 2 f / (224 s)] with f = 1000."""
    translation = o.perspective_translation((0.9, 0.1, -0.2), 224, focal=1000.0)
    assert translation == pytest.approx([0.1, -0.2, 2 * 1000 / (224 * 0.9)])


def test_skeleton_sides_have_their_colours() -> None:
    points = np.full((14, 2), np.nan)
    names = JOINT_SETS["J14"]
    for name, place in {"L_Wrist": (20, 20), "L_Elbow": (20, 80), "R_Wrist": (80, 20), "R_Elbow": (80, 80)}.items():
        points[names.index(name)] = place
    drawn = o.skeleton(GREY, points, "J14", width=4)
    assert drawn[50, 20].tolist() == list(o.LEFT)
    assert drawn[50, 80].tolist() == list(o.RIGHT)
    confidence = np.ones(14)
    confidence[names.index("L_Wrist")] = 0
    hidden = o.skeleton(GREY, points, "J14", confidence=confidence, width=4)
    assert (hidden[40, 20] == 128).all()
    assert (hidden[50, 80] == o.RIGHT).all()
    assert (GREY == 128).all()


def test_far_points_do_not_break_drawing() -> None:
    points = np.full((14, 2), 1e12)
    assert o.skeleton(GREY, points, "J14").shape == GREY.shape


def test_view_turns_about_the_vertical() -> None:
    slab = CUBE * [3, 1, 0.2]
    front, side = (o.view(slab, FACES, 80, yaw_deg=yaw, radius=1.0) for yaw in (0, 90))
    white = np.full_like(front, 255)
    wide, narrow = changed(white, front), changed(white, side)
    assert wide[2] - wide[0] == pytest.approx(0.9 * 80, abs=2)
    assert narrow[2] - narrow[0] < 10
    assert wide[3] - wide[1] == pytest.approx(narrow[3] - narrow[1], abs=3)


def test_grid() -> None:
    tiles = [np.full((10, 20, 3), k, np.uint8) for k in range(5)]
    sheet = o.grid(tiles, 2, gap=2)
    assert sheet.shape == (3 * 12 - 2, 2 * 22 - 2, 3)
    assert [int(sheet[1 + 12 * (k // 2), 1 + 22 * (k % 2), 0]) for k in range(5)] == [0, 1, 2, 3, 4]
    assert (sheet[-1, -1] == 255).all()
    labelled = o.grid(tiles, 2, labels=list("abcde"))
    assert labelled.shape[0] > sheet.shape[0]
    with pytest.raises(ValueError, match="needs an image"):
        o.grid([], 2)


def test_long_labels_fit() -> None:
    tile = np.zeros((20, 60, 3), np.uint8)
    assert o.label(tile, "a label that is far too long for its tile").shape[1] == 60


def test_blend_and_resize() -> None:
    black, white = np.zeros((4, 8, 3), np.uint8), np.full((4, 8, 3), 255, np.uint8)
    assert (o.blend(black, white, 0.5) == 128).all()
    assert o.resize(white, 4).shape == (2, 4, 3)
    assert o.resize(white, 16).shape == (8, 16, 3)
