"""Turned squares: what they show, and the way back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from metro.data.crop import apply
from metro.detect.detection import Detection, box_around, distinct
from metro.detect.hands import HAND_ENLARGED, of_hand, of_palm
from metro.detect.people import around
from metro.detect.regions import Region, look, sees, squares, upright


@pytest.mark.parametrize(
    ("top", "turn"), [((0, -1), 0), ((1, 0), 90), ((-1, 0), -90), ((1, -1), 45)], ids=["up", "right", "left", "between"]
)
def test_what_is_turned_stands_upright(top: tuple[float, float], turn: float) -> None:
    found = upright(np.zeros(2), np.array(top, float))
    assert found == pytest.approx(turn)
    base, tip = apply(Region(50, 60, 40, found).to_crop(100), np.array([[50.0, 60.0], np.array([50.0, 60.0]) + top]))
    assert tip[0] == pytest.approx(base[0])
    assert tip[1] < base[1]


def test_points_come_back() -> None:
    region = Region(30, 40, 20, 37)
    assert region.to_picture(np.array([[0.5, 0.5]]))[0] == pytest.approx([30, 40])
    corner = region.to_picture(np.array([[0.0, 0.0]]))[0]
    assert np.linalg.norm(corner - [30, 40]) == pytest.approx(10 * np.sqrt(2))


@pytest.mark.parametrize("size", [8, 64, 100])
def test_a_square_shows_what_lies_there(size: int) -> None:
    image = np.zeros((400, 600, 3), np.uint8)
    image[100:200, 300:400] = 200
    crop = look(image, Region(349.5, 149.5, 200), size).astype(float)
    assert crop[size // 2, size // 2].tolist() == [200, 200, 200]
    assert crop[0, 0].tolist() == [0, 0, 0]
    assert crop[..., 0].mean() == pytest.approx(50, rel=0.03)
    assert look(image, Region(-500, -500, 50), size).max() == 0


def test_turning_the_picture_turns_the_crop() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    plain, turned = look(image, Region(44.5, 44.5, 90), 90), look(image, Region(44.5, 44.5, 90, 90), 90)
    assert np.abs(np.rot90(plain).astype(int) - turned).max() <= 1


@pytest.mark.parametrize("size", [(640, 480), (100, 1000), (7, 7), (1920, 1080)])
def test_squares_cover_the_picture(size: tuple[int, int]) -> None:
    width, height = size
    assert squares(width, height, max(size)) == [Region((width - 1) / 2, (height - 1) / 2, max(size))]
    for side in (max(size) / 2, max(size) / 4):
        tiles = squares(width, height, side)
        assert {tile.side for tile in tiles} == {side}
        for extent, places in ((width, {tile.x for tile in tiles}), (height, {tile.y for tile in tiles})):
            edges = sorted((place - side / 2, place + side / 2) for place in places)
            assert edges[0][0] <= -0.5 + 1e-9
            assert edges[-1][1] >= extent - 0.5 - 1e-9
            for (_, end), (start, _) in itertools.pairwise(edges):
                assert end - start >= side / 2 - 1e-9


def test_regions_of_bodies_and_hands() -> None:
    body = around(np.array([100.0, 100.0]), np.array([100.0, 60.0]))
    assert (body.x, body.y, body.side, body.turn) == (100, 100, 100, 0)
    palm = of_palm(np.array([[90, 90], [110, 110], [100, 110], [95, 90], [100, 90], *[[0, 0]] * 4], float))
    assert (palm.x, palm.y, palm.side, palm.turn) == (100, 90, 52, 0)
    flat = np.zeros((21, 2)) + np.array([50.0, 100.0])
    flat[9] = [50, 80]  # the middle finger's first joint is above the wrist
    hand = of_hand(flat)
    assert (hand.x, hand.y, hand.side, hand.turn) == pytest.approx((50, 90, 20 * HAND_ENLARGED, 0))


def test_useless_squares() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    assert sees(image, Region(100, 50, 50))
    for region in (Region(100, 50, 2), Region(-100, 50, 50), Region(100, 500, 50), Region(100, 50, 5000)):
        assert not sees(image, region)


def test_a_box_holds_the_flesh_and_ends_with_the_picture() -> None:
    points = np.array([[10, 20], [50, 90], [-30, 50]], float)  # the last lies outside
    assert box_around(points, np.array([5.0, 30.0, 99.0]), 100, 100) == (5, 15, 75, 84.5)
    assert box_around(points[1:], np.ones(2), 100, 100) is None


def test_those_with_the_same_landmarks_are_one() -> None:
    def person(x: float, score: float) -> Detection:
        return Detection((x, 0, 50, 100), score, np.stack([np.full(33, x), np.arange(33.0), np.ones(33)], 1))

    found = distinct([person(0, 0.91), person(20, 0.99), person(60, 0.95)])
    assert [one.score for one in found] == [0.99, 0.95]
