"""Anchors, decoding and merging on made-up numbers whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from metro.detect.anchors import PALM, PERSON, Layout, centres, decode, merge, overlap


def test_published_counts() -> None:
    assert len(centres(PERSON)) == 2254
    assert len(centres(PALM)) == 2016


def test_anchors_go_map_by_map_and_along_rows() -> None:
    found = centres(Layout(side=4, points=1, strides=(2, 4), per_cell=(2, 1)))
    expected = [[0.25, 0.25]] * 2 + [[0.75, 0.25]] * 2 + [[0.25, 0.75]] * 2 + [[0.75, 0.75]] * 2 + [[0.5, 0.5]]
    assert found.tolist() == expected


def test_numbers_are_pixels_from_the_anchor() -> None:
    numbers = np.array([[10, -20, 40, 80, 0, 50], [0, 0, 1, 1, 0, 0]])
    scores, points = decode(np.array([0.0, -9.0]), numbers, np.array([[0.5, 0.5], [0.1, 0.1]]), 100, 0.5)
    assert scores.tolist() == [0.5]
    assert points == pytest.approx(np.array([[[0.4, -0.1], [0.8, 0.7], [0.5, 1.0]]]))


def test_logits_of_thousands_do_not_overflow() -> None:
    with np.errstate(all="raise"):
        scores, _ = decode(np.array([-5000.0, 5000.0]), np.zeros((2, 6)), np.zeros((2, 2)), 100, 0.5)
    assert scores.tolist() == [1.0]


def test_overlap_of_boxes() -> None:
    boxes = np.array([[[0, 0], [2, 2]], [[1, 0], [3, 2]], [[5, 5], [6, 6]], [[1, 1], [1, 1]]], float)
    assert overlap(boxes[:1], boxes)[0] == pytest.approx([1, 1 / 3, 0, 0])


def test_boxes_that_mean_the_same_become_their_weighted_mean() -> None:
    near = np.array([[[0, 0], [10, 10], [5, 5]], [[1, 0], [11, 10], [9, 5]], [[50, 50], [60, 60], [55, 55]]], float)
    scores, points = merge(np.array([0.6, 0.2, 0.9]), near)
    assert scores.tolist() == [0.9, 0.6]
    assert points[0].tolist() == near[2].tolist()
    assert points[1] == pytest.approx(np.array([[0.25, 0], [10.25, 10], [6, 5]]))


def test_nothing_is_merged_with_what_only_its_neighbour_overlaps() -> None:
    chain = np.array([[[x, 0], [x + 10, 10]] for x in (0.0, 5.0, 10.0)])
    scores, points = merge(np.array([0.9, 0.8, 0.7]), chain)
    assert scores.tolist() == [0.9, 0.7]
    assert points[1].tolist() == chain[2].tolist()


def test_nothing_and_points_without_extent() -> None:
    scores, points = merge(np.zeros(0), np.zeros((0, 6, 2)))
    assert (scores.shape, points.shape) == ((0,), (0, 6, 2))
    assert len(merge(np.ones(2), np.zeros((2, 3, 2)))[0]) == 2
