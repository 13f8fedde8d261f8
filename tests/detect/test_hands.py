"""Which finds are hands, told from people that are made up: no network runs."""

from __future__ import annotations

import numpy as np
import pytest

from metro.detect.detection import POSE_LANDMARKS, Detection
from metro.detect.hands import LEGS, on_leg


def body(x: float, y: float = 0, seen: float = 1.0) -> Detection:
    """Somebody upright, the arms stretched out by 150 pixels at height y, the legs from 100 to 300 below."""
    points = np.zeros((len(POSE_LANDMARKS), 3))
    points[:, 0], points[:, 2] = x, 1
    for number, name in enumerate(POSE_LANDMARKS):
        if name.endswith(("Wrist", "Pinky", "Index", "Thumb")):
            points[number, 0] += 150 if name.startswith("L_") else -150
    points[LEGS, 1] = np.linspace(100, 300, len(LEGS))
    points[:, 1] += y
    points[LEGS, 2] = seen
    return Detection((x - 150, y - 50, 300, 350), 1.0, points)


def hand(x: float, y: float, side: float = 40) -> Detection:
    """One whose landmarks lie around (x, y)."""
    points = np.concatenate((np.full((21, 2), (x, y)), np.ones((21, 1))), 1)
    return Detection((x - side / 2, y - side / 2, side, side / 2), 1.0, points)


@pytest.mark.parametrize(
    ("find", "people", "foot"),
    [
        (hand(5, 298), [body(0)], True),
        (hand(5, 298), [], False),
        (hand(5, 298), [body(0, seen=0.4)], False),  # legs that are only guessed
        (hand(5, 298), [body(600), body(0)], True),
        (hand(5, 298), [Detection((0, 0, 9, 9), 1.0)], False),  # nothing is known of whom torchvision finds
        (hand(0, 330), [body(0)], False),  # beside the foot
        (hand(0, 330, side=80), [body(0)], True),  # for a large hand as near as that
        (hand(150, 0), [body(0)], False),
        (hand(0, 0), [body(0)], False),  # on the belly
        (hand(5, 298), [body(0), body(-140, y=290)], False),  # somebody reaches for the foot
    ],
)
def test_feet_and_knees_are_no_hands(find: Detection, people: list[Detection], foot: bool) -> None:
    assert on_leg(find, people) is foot
