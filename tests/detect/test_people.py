"""Who is whom, told from finds and looks that are made up: no network runs."""

from __future__ import annotations

import numpy as np
import pytest

from metro.detect.detection import POSE_LANDMARKS
from metro.detect.people import CENTRE, CIRCLE, LIMBS, Find, Look, PeopleDetector, confirmed, sureness
from metro.detect.regions import Region

PICTURE = np.zeros((400, 600, 3), np.uint8)


def find(x: float, score: float = 0.9, radius: float = 100) -> Find:
    """Of somebody upright whose neck is at (x, 100)."""
    hips = np.array([x, 100 + 0.6 * radius])
    return Find(score, np.array([x, 100.0]), hips, hips - [0, radius])


def person(x: float, presence: float = 0.99, radius: float = 100) -> Look:
    """Somebody upright whose neck is at (x, 100): the head is above it, limbs below."""
    points = np.zeros((39, 3))
    points[:, 0], points[:, 2] = x, 1
    points[: LIMBS.start, 1] = 100
    points[LIMBS, 1] = np.linspace(100 + 0.3 * radius, 100 + 1.5 * radius, 20)
    points[CENTRE, 1], points[CIRCLE, 1] = 100 + 0.6 * radius, 100 - 0.4 * radius
    return Look(points, presence)


def finds(*rows: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """What squares of one size show of people of radius 100: scores, and necks along a row."""
    points = [[[x - 30, 70], [x + 30, 130], [x, 160], [x, 60], [0, 0], [0, 0]] for _, x in rows]
    return np.array([score for score, _ in rows]), np.reshape(np.array(points, float), (-1, 6, 2))


def detector(monkeypatch: pytest.MonkeyPatch, *looks: Look) -> tuple[PeopleDetector, list[Region]]:
    """One whose landmark network sees these one after the other, and where it looked."""
    left, asked = list(looks), []

    def read(self: PeopleDetector, image: np.ndarray, region: Region) -> Look:
        asked.append(region)
        return left.pop(0)

    monkeypatch.setattr(PeopleDetector, "read", read)
    return PeopleDetector(), asked


def test_squares_of_other_sizes_confirm_a_find() -> None:
    found = confirmed([finds((0.6, 100)), finds((0.5, 105), (0.7, 300)), finds((0.5, 102), (0.5, 99))])
    assert [(round(one.score, 3), one.neck[0]) for one in found] == [
        (0.9, 100),  # 1 - 0.4 · 0.5 · 0.5: one find of each size
        (0.9, 105),
        (0.9, 102),
        (0.9, 99),
        (0.7, 300),
    ]
    assert confirmed([finds(), finds()]) == []


def test_both_networks_have_to_be_sure() -> None:
    assert sureness(0.5, 1 / (1 + np.exp(-4))) == pytest.approx(0.5)
    assert sureness(0.5, 0.9) < 0.5 < sureness(0.5, 0.999)
    assert sureness(0.99, 0.5) > 0.5
    assert 0 < sureness(0.0, 0.0) < sureness(1.0, 1.0) < 1


def test_the_look_counts_whose_neck_is_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    for first, second, expected in ((110, 103, 103), (104, 112, 104), (104, 160, 104)):
        people, asked = detector(monkeypatch, person(first), person(second))
        seen = people.judge(PICTURE, find(100))
        assert seen is not None
        assert seen.neck[0] == expected
        assert [(one.x, one.side) for one in asked] == [(100, 250), (first, 250)]


def test_the_neighbour_is_not_who_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for seen in (person(160), person(100, presence=0.4)):
        people, asked = detector(monkeypatch, seen)
        assert people.judge(PICTURE, find(100)) is None
        assert len(asked) == 1


def test_a_find_at_a_known_neck_or_limb_is_explained() -> None:
    known = person(100)
    assert known.explains(find(110))
    assert not known.explains(find(140))
    hand = Find(0.9, np.array([105.0, 150.0]), np.array([105.0, 170.0]), np.array([105.0, 140.0]))
    assert known.explains(hand)
    behind = Find(0.9, hand.neck, hand.hips, hand.hips - [0, 80])  # too large to be a hand
    assert not known.explains(behind)


def test_neighbours_are_two_and_a_person_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [person(x) for x in (100, 100, 130, 130)]
    people, asked = detector(monkeypatch, *looks)
    people.finder = lambda image: [finds((0.95, 100), (0.9, 130), (0.8, 106))]  # type: ignore[assignment]
    first, second = people(PICTURE)
    assert first.score > second.score
    assert [one.landmarks is not None and one.landmarks[0, 0] for one in (first, second)] == [100, 130]
    assert len(asked) == 4  # the third find is the first one's neck
    assert len(first.landmarks if first.landmarks is not None else ()) == len(POSE_LANDMARKS)
