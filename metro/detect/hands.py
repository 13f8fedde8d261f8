"""Hands in a picture, by MediaPipe's networks: one finds palms, the other says how the hand is held and which it is.

Palms have boxes of their own size, so that what is found in squares of several sizes is merged. The landmark network
looks at each find twice, and finds with the same landmarks are one. Both networks take bare feet and knees for hands,
and are sure of them, so that what lies on a leg of somebody who is found in the picture does not count.

Shape suffixes: D detection, K landmark.
"""

from __future__ import annotations

import numpy as np

from metro.body.joints import JOINT_SETS
from metro.detect.anchors import MERGED, PALM, merge
from metro.detect.detection import POSE_LANDMARKS, Detection, box_around, distinct
from metro.detect.finder import Finder
from metro.detect.people import SEEN, PeopleDetector
from metro.detect.programs import Program
from metro.detect.regions import Region, look, sees, upright

FOUND = 0.5
"""Least score of the palm detector in the whole picture, as published."""
STRICTER = 0.2
"""Squares hold things without the rest, and many of them are looked at: their least score is so much more."""
PALM_ENLARGED, PALM_SHIFT = 2.6, 0.5
"""Side of the first square over that of the palm's box, and how far it is moved towards the fingers, as published."""
HAND_ENLARGED = 2.0
"""Side of the second square over that of the landmarks without the fingers' ends."""
FAINT = 0.1
"""Least probability of a hand that earns a second look."""
FLESH = 0.2
"""Flesh around a landmark over the distance from the wrist to the middle finger's first joint."""

_JOINTS = JOINT_SETS["HAND21"]
WRIST, MIDDLE = _JOINTS.index("Wrist"), _JOINTS.index("Middle1")
CORE = [number for number, name in enumerate(_JOINTS) if not name.endswith(("3", "4"))]
"""Landmarks that change least when fingers bend."""

HANDS, LEGS = (
    [number for number, name in enumerate(POSE_LANDMARKS) if name.endswith(parts)]
    for parts in (("Wrist", "Pinky", "Index", "Thumb"), ("Knee", "Ankle", "Heel", "Toe"))
)
"""Landmarks of a body."""
ON_LEG, OFF_HANDS = 0.6, 1.5
"""Finds closer to somebody's leg, and farther from everybody's hands, are no hands: in longer sides of their boxes."""


class HandDetector:
    """Finds hands.

    Parameters
    ----------
    levels
        As of `metro.detect.finder.Finder`.
    least
        Least score: the probability of a hand by the landmark network.
    most
        Keep so many, the surest; None: all.
    """

    name = "blazepose"

    def __init__(self, levels: int = 2, least: float = 0.5, most: int | None = None) -> None:
        self.finder = Finder("palm_detector", PALM, levels, FOUND, MERGED)
        self.reader = Program("hand_full")
        self.people = PeopleDetector(levels)
        self.least, self.most = least, most

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Hands in an image (H, W, 3) uint8 RGB, those that are surest first."""
        regions = [of_palm(points_K2) for points_K2 in self.palms(image)]
        if regions:
            points_DK2, presence_D, _ = self.read(image, regions)
            asked = [of_hand(points_K2) for points_K2 in points_DK2[presence_D > FAINT]]
            regions = [region for region in asked if sees(image, region)]
        if not regions:
            return []
        hands = []
        for points_K2, presence, right in zip(*self.read(image, regions), strict=True):
            flesh = FLESH * float(np.linalg.norm(points_K2[MIDDLE] - points_K2[WRIST]))
            box = box_around(points_K2, np.full(len(points_K2), flesh), image.shape[1], image.shape[0])
            if presence >= self.least and box is not None:
                landmarks_K3 = np.concatenate((points_K2, np.ones((len(points_K2), 1))), 1)
                hands.append(Detection(box, float(presence), landmarks_K3, left=bool(right < 0.5)))
        people = self.people(image) if hands else []
        return [hand for hand in distinct(hands) if not on_leg(hand, people)][: self.most]

    def palms(self, image: np.ndarray) -> np.ndarray:
        """Points (D, K, 2) of palms in pixels, the surest first."""
        whole, *squares = self.finder(image)
        kept = [
            (scores_D[sure], points_DK2[sure])
            for scores_D, points_DK2 in squares
            for sure in [scores_D >= FOUND + STRICTER]
        ]
        scores_D, points_DK2 = (np.concatenate(parts) for parts in zip(whole, *kept, strict=True))
        return merge(scores_D, points_DK2)[1]

    def read(self, image: np.ndarray, regions: list[Region]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Landmarks (D, 21, 2) in pixels, the probability of a hand (D,) and that it is a right one (D,)."""
        crops = np.stack([look(image, region, self.reader.size) for region in regions])
        numbers_DK3, presence_D, right_D, _ = self.reader(crops)
        places = [
            region.to_picture(numbers[:, :2].astype(np.float64) / self.reader.size)
            for region, numbers in zip(regions, numbers_DK3, strict=True)
        ]
        return np.stack(places), presence_D, right_D


def on_leg(hand: Detection, people: list[Detection]) -> bool:
    """Whether a find is a foot or a knee of somebody."""
    assert hand.landmarks is not None
    middle, side = hand.landmarks[:, :2].mean(0), max(hand.box[2:])
    landmarks = [person.landmarks for person in people if person.landmarks is not None]
    if not landmarks:
        return False
    points_PK3 = np.stack(landmarks)
    off_PK = np.linalg.norm(points_PK3[..., :2] - middle, axis=-1) / side
    off_legs = off_PK[:, LEGS][points_PK3[:, LEGS, 2] >= SEEN]
    return bool(off_PK[:, HANDS].min() > OFF_HANDS and off_legs.min(initial=np.inf) < ON_LEG)


def of_palm(points_K2: np.ndarray) -> Region:
    """The square to look at for a palm: its box's corners, the wrist, the first joints of index and middle finger, …"""
    low, high, wrist, _, middle, *_ = points_K2
    side = float(np.max(high - low))
    ahead = (middle - wrist) / max(float(np.linalg.norm(middle - wrist)), 1e-6)
    x, y = (low + high) / 2 + PALM_SHIFT * side * ahead
    return Region(float(x), float(y), PALM_ENLARGED * side, upright(wrist, middle))


def of_hand(points_K2: np.ndarray) -> Region:
    """The square to look at for a hand with these landmarks."""
    turn = upright(points_K2[WRIST], points_K2[MIDDLE])
    turned = Region(0, 0, 1, turn).to_crop(1)[:, :2]
    core = points_K2[CORE] @ turned.T
    low, high = core.min(0), core.max(0)
    x, y = (low + high) / 2 @ turned
    return Region(float(x), float(y), HAND_ENLARGED * float(np.max(high - low)), turn)
