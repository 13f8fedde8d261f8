"""Boxes by hand."""

import numpy as np

from metro.sources.boxes import around, edges_to_centres, enlarged


def test_around_points() -> None:
    points = [[10, 20], [30, 60], [20, 30], [np.nan, 5]]
    assert np.allclose(around(points, 1.0), [10, 20, 20, 40])
    assert np.allclose(around(points, 1.2), [8, 16, 24, 48])
    assert np.allclose(around(points, 1.0, (100, 50)), [10, 20, 10, 10])
    assert around(points, 1.0, (15, 25)) is None  # one point
    assert around([[1, 1], [1, 5]], 1.2) is None
    assert around(np.zeros((0, 2)), 1.2) is None


def test_a_point_on_the_rim_is_inside() -> None:
    """Pixel centres are at integers: a picture of 10 px ends at 9.5."""
    assert np.allclose(around([[-0.5, 0], [9.4, 9], [9.5, 30]], 1.0, (10, 10)), [-0.5, 0, 9.9, 9])


def test_coco_boxes_are_edges() -> None:
    """A box over the first two pixels of a row begins at their outer edge."""
    assert np.allclose(edges_to_centres([0, 0, 2, 1]), [-0.5, -0.5, 2, 1])
    assert np.allclose(enlarged([10, 20, 20, 40], 0.9), [11, 22, 18, 36])
