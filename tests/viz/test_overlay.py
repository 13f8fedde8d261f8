"""Overlays: pixels land where the camera says, and sheets hold their tiles."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from metro.body.joints import JOINT_SETS
from metro.data import crop
from metro.viz import overlay as o
from metro.viz.camera import project
from metro.viz.raster import render_mesh
from tests.square import FACES, centre_of_mass, square

CUBE = np.array([[x, y, z] for x in (-0.3, 0.3) for y in (-0.3, 0.3) for z in (-0.3, 0.3)], float)
SIDES = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
CUBE_FACES = np.array([t for a, b, c, d in SIDES for t in ((a, b, c), (a, c, d))])  # anticlockwise seen from outside
GREY = np.full((100, 100, 3), 128, np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what differs, as pixel edges."""
    ys, xs = np.nonzero((before != after).any(-1))
    return xs.min() - 0.5, ys.min() - 0.5, xs.max() + 0.5, ys.max() + 0.5


@pytest.mark.parametrize("size", [100, 101])
@pytest.mark.parametrize("camera", [(1.0, 0.0, 0.0), (0.8, 0.3, -0.4), (1.6, 0.1, 0.2)])
def test_a_mesh_lands_where_its_camera_projects_it(camera: tuple[float, float, float], size: int) -> None:
    centre = (0.05, -0.1)
    black = np.zeros((size, size, 3), np.uint8)
    drawn = o.mesh_overlay(black, square(centre), FACES, camera)
    assert centre_of_mass(black, drawn) == pytest.approx(project([[*centre, 0]], camera, size)[0], abs=0.05)


def test_a_mesh_is_as_large_as_its_camera_projects_it() -> None:
    camera, half = (1.3, 0.1, 0.0), 0.3
    black = np.zeros((200, 200, 3), np.uint8)
    drawn = o.mesh_overlay(black, square((0, 0), half), FACES, camera)
    covered = drawn.sum() / drawn[100, 120].sum()
    assert covered == pytest.approx((1.3 * 2 * half * 100) ** 2, rel=0.003)  # 100 pixels are 1


def test_over_the_original_image() -> None:
    """The place in the frame is where the crop's affine takes its pixel from."""
    camera, affine = (0.9, 0.1, -0.1), np.array([[0.5, 0, -20.0], [0, 0.5, -35.0]])
    frame = np.zeros((300, 340, 3), np.uint8)
    drawn = o.mesh_overlay(frame, square((0.2, 0.1)), FACES, camera, affine=affine, size=100)
    expected = crop.apply(crop.invert(affine), project([[0.2, 0.1, 0]], camera, 100))[0]
    assert centre_of_mass(frame, drawn) == pytest.approx(expected, abs=0.05)


PLACES = {
    "whole": (0.05, -0.1, 3),
    "cut by two edges": (-1.4, -1.0, 3),
    "wider than the picture": (0, 0, 0.5),
    "beside the picture": (5, 0, 3),
    "reaching past the camera": (0.45, 0, 0.3),
}


@pytest.mark.parametrize("place", PLACES)
def test_drawing_the_mesh_alone_is_drawing_the_picture(place: str) -> None:
    """Only the mesh's own box is drawn; every pixel is that of a drawing of the whole picture."""
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    intrinsics = np.array([[200.3, 0, 79.1], [0, 200.3, 60.7], [0, 0, 1]])
    ball = trimesh.creation.icosphere(3, radius=0.4)
    placed = ball.vertices + PLACES[place]
    whole = render_mesh(placed, ball.faces, intrinsics, (160, 120), o.PREDICTED, picture)
    got = o.draw_mesh(picture, placed, ball.faces, intrinsics)
    assert np.array_equal(got, o.blend(picture, whole, 0.9))
    assert (got != picture).any() == (place != "beside the picture")


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
    front, side = (o.view(slab, CUBE_FACES, 80, yaw_deg=yaw, radius=1.0) for yaw in (0, 90))
    white = np.full_like(front, 255)
    wide, narrow = changed(white, front), changed(white, side)
    assert wide[2] - wide[0] == pytest.approx(0.9 * 80, abs=2)
    assert narrow[2] - narrow[0] < 10
    assert wide[3] - wide[1] == pytest.approx(narrow[3] - narrow[1], abs=3)


@pytest.mark.parametrize("size", [200, 201])
def test_view_puts_the_mesh_in_the_middle(size: int) -> None:
    """The middle of its box is the picture's; a triangle's centre of mass is the mean of its corners."""
    corners = np.array([[0.317, -0.223, 1.0], [0.131, 0.419, 1.0], [-0.523, -0.071, 1.0]])
    drawn = o.view(corners, np.array([[0, 2, 1]]), size, radius=1.0)
    middle = (size - 1) / 2
    expected = middle + (corners.mean(0) - (corners.min(0) + corners.max(0)) / 2)[:2] * size / 2
    assert centre_of_mass(np.full_like(drawn, 255), drawn) == pytest.approx(expected, abs=0.05)


def test_joints_are_drawn_where_they_are() -> None:
    """OpenCV's smooth circles and lines wander by less than a tenth of a pixel, in no direction."""
    black, names = np.zeros((100, 100, 3), np.uint8), JOINT_SETS["J14"]
    rng = np.random.default_rng(0)
    off = []
    for _ in range(40):
        points = np.full((14, 2), np.nan)
        points[names.index("L_Wrist")] = rng.uniform(30, 70, 2)
        dot = o.skeleton(black, points, "J14", width=4)
        off.append(centre_of_mass(black, dot) - points[names.index("L_Wrist")])
    assert np.abs(off).max() < 0.1
    assert np.abs(np.mean(off, 0)).max() < 0.01


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
