"""Numbers of people over frames: who is who when they cross, are lost for a while, or leave."""

from __future__ import annotations

import numpy as np
import pytest

from metro.video.track import Tracker, between, iou

NAN = float("nan")


def row(x: float, y: float = 0.0, width: float = 40.0, height: float = 100.0) -> list[float]:
    return [x, y, width, height, NAN, 0]


def numbers(tracker: Tracker) -> dict[int, float]:
    """Left edges by person."""
    return {person: box[0] for person, box in tracker.people.items()}


def test_overlap_by_hand() -> None:
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 10, 10], [5, 5, 10, 10], [10, 0, 10, 10], [2, 2, 5, 5]])
    assert iou(a, b) == pytest.approx(np.array([[1, 50 / 150, 25 / 175, 0, 25 / 100]]))


def test_people_who_pass_each_other_keep_their_numbers() -> None:
    tracker = Tracker(25)
    for frame in range(41):
        boxes = [row(10.0 * frame), row(400 - 10.0 * frame, 5)]
        tracker.update(frame, boxes if frame % 2 else boxes[::-1])  # detectors have no order
        assert len(tracker.people) == 2
    assert numbers(tracker) == {1: 400, 0: 0}  # at first the one who walks to the left was named first


def test_the_best_matching_is_that_of_all_people_together() -> None:
    """Taking the largest overlap first would leave the first person without a box."""
    tracker = Tracker(25)
    tracker.update(0, [row(0), row(20)])
    tracker.update(1, [row(12), row(30)])
    assert numbers(tracker) == {0: 12, 1: 30}


@pytest.mark.parametrize(("lost", "same"), [(1, True), (8, True), (11, False)])
def test_a_gap_is_bridged_unless_it_is_long(lost: int, same: bool) -> None:
    tracker = Tracker(10)
    for frame in range(10):
        tracker.update(frame, [row(20.0 * frame)])  # half a box a frame: without its speed nobody would know them again
    for frame in range(10, 10 + lost):
        tracker.update(frame, [])
        assert not tracker.people
    tracker.update(10 + lost, [row(20.0 * (10 + lost))])
    assert [*tracker.people] == ([0] if same else [1])


def test_who_stops_while_out_of_sight_is_known_again() -> None:
    tracker = Tracker(10)
    for frame in range(6):
        tracker.update(frame, [row(20.0 * frame)])
    for frame in range(6, 12):
        tracker.update(frame, [])
    tracker.update(12, [row(100)])
    assert numbers(tracker) == {0: 100}


def test_numbers_are_not_given_twice() -> None:
    tracker = Tracker(2)
    for frame in range(0, 40, 4):
        tracker.update(frame, [row(1000.0 * (frame % 8))])
    assert [*tracker.people] == [9]


def test_a_tracker_goes_on_from_its_state() -> None:
    boxes = np.random.default_rng(0).uniform(0, 200, (30, 4, 2))
    whole, first, second = Tracker(5), Tracker(5), Tracker(5)
    for frame, places in enumerate(boxes):
        if frame == 12:
            second.restore(first.state())
        for tracker in (whole, first if frame < 12 else second):
            tracker.update(frame, [row(x, y) for x, y in places[: frame % 5]])
    assert {p: b.tolist()[:4] for p, b in whole.people.items()} == {p: b.tolist()[:4] for p, b in second.people.items()}


def test_between_two_frames() -> None:
    first = {0: np.array([0.0, 0, 10, 20, 0.5]), 2: np.array([5.0, 5, 5, 5, 1])}
    last = {0: np.array([8.0, 4, 14, 20, 0.9]), 1: np.array([7.0, 7, 7, 7, 1])}
    early, late = between(first, last, 0.25), between(first, last, 0.75)
    assert early[0] == pytest.approx([2, 1, 11, 20, 0.6])
    assert [*early] == [0, 2]
    assert [*late] == [0, 1]
    assert late[1].tolist() == [7, 7, 7, 7, 1]
