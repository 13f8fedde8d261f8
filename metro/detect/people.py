"""People in a picture, by BlazePose: its detector says where they may be, its landmark network how they are.

The detector finds people who fill a good part of what it is shown, so it looks at the whole picture and at ever smaller
squares of it. Its boxes tell a place, about the neck, and no size: all are a fifth of the input. Who is found in
squares of several sizes is the more likely to be there.

The landmark network judges the finds, the surest first. It looks at the square that a find asks for, then at the one
that its own landmarks ask for. Among people close together it may see the neighbour, or a mixture of two, and be no
less sure: a look counts only if its neck is where the find is, and of two the nearer one counts. Finds at the neck of
somebody who is known, or small ones on their limbs, are not looked at. The box is that of the landmarks that can be
seen, enlarged by the flesh around them.

Shape suffixes: D detection, K landmark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from metro.detect.anchors import PERSON, sigmoid
from metro.detect.detection import POSE_LANDMARKS, Detection, box_around
from metro.detect.finder import Finder
from metro.detect.programs import Program
from metro.detect.regions import Region, look, sees, upright

FOUND = 0.5
"""Least score of the detector, as published."""
MERGED = 0.5
"""Overlap from which on boxes are one: that of people who stand closer than a fifteenth of a square's side."""
ENLARGED = 1.25
"""Side of the landmark network's square over the diameter of the circle around the body, as published."""
CENTRE, CIRCLE = 33, 34
"""Landmarks that tell the next square: the middle of the hips, and a point on the circle around the body."""
NECK = [POSE_LANDMARKS.index(name) for name in ("L_Mouth", "R_Mouth", "L_Shoulder", "R_Shoulder")]
"""Landmarks whose middle the detector's boxes have."""
HEAD = [POSE_LANDMARKS.index(name) for name in ("Nose", "L_Mouth", "R_Mouth", "L_Shoulder", "R_Shoulder")]
"""Landmarks that tell people apart: they are seen when others are hidden."""
SEEN = 0.5
"""Least probability of being seen with which a landmark counts for the box."""
PRESENT = 0.5
"""Least probability of a person by the landmark network."""
EVIDENCE = 2.0
"""Log odds, of the detector and half of those of the landmark network, with which a person is as likely as not."""
FACE = 11
"""So many landmarks are the face's; they come first."""
LIMBS = slice(POSE_LANDMARKS.index("L_Elbow"), len(POSE_LANDMARKS))
"""Arms, hips and legs."""

# In radii of the circle around the body:
AGREE = 0.1
"""Finds of one person in squares of different sizes are closer."""
AT_FIND = 0.15
"""A look's neck is closer to the find's."""
SAME = 0.15
"""Finds closer to the neck of a known person are that person, and so are people whose heads and shoulders are."""
ON_LIMB, SMALL = 0.15, 0.5
"""Finds closer to a known person's limb are that limb, if their own circle is so much smaller."""
HEAD_RADIUS, LIMB_RADIUS = 0.17, 0.06
"""Flesh around a landmark of the face, or any other."""


@dataclass(frozen=True)
class Find:
    """Where the detector says that somebody is, pixels (2,)."""

    score: float
    """From 0 to 1."""
    neck: np.ndarray
    hips: np.ndarray
    circle: np.ndarray
    """A point on the circle around the body."""

    @property
    def radius(self) -> float:
        """Of the circle."""
        return float(np.linalg.norm(self.circle - self.hips))


@dataclass(frozen=True)
class Look:
    """What the landmark network sees."""

    points_K3: np.ndarray
    """(39, 3): pixels, and how likely they can be seen."""
    presence: float
    """Probability of a person."""

    @property
    def radius(self) -> float:
        """Of the circle around the body."""
        return float(np.linalg.norm(self.points_K3[CIRCLE, :2] - self.points_K3[CENTRE, :2]))

    @property
    def neck(self) -> np.ndarray:
        """In pixels (2,)."""
        neck_2: np.ndarray = self.points_K3[NECK, :2].mean(0)
        return neck_2

    def box(self, width: int, height: int) -> tuple[float, float, float, float] | None:
        """Box around what can be seen in a picture of this size; None: nothing."""
        body_K3 = self.points_K3[: len(POSE_LANDMARKS)]
        seen_K = body_K3[:, 2] >= SEEN
        flesh_K = self.radius * np.where(np.arange(len(POSE_LANDMARKS)) < FACE, HEAD_RADIUS, LIMB_RADIUS)
        return box_around(body_K3[seen_K, :2], flesh_K[seen_K], width, height)

    def explains(self, find: Find) -> bool:
        """Whether a find is this person, or a limb of theirs."""
        if np.linalg.norm(self.neck - find.neck) < SAME * self.radius:
            return True
        apart = float(np.linalg.norm(self.points_K3[LIMBS, :2] - find.neck, axis=1).min())
        return find.radius < SMALL * self.radius and apart < ON_LIMB * self.radius

    def same(self, other: Look) -> bool:
        """Whether both looks are at one person."""
        apart = np.linalg.norm(self.points_K3[HEAD, :2] - other.points_K3[HEAD, :2], axis=1).mean()
        return float(apart) < SAME * max(self.radius, other.radius)


class PeopleDetector:
    """Finds people.

    Parameters
    ----------
    levels
        How often the squares that are looked at are halved: 0 looks at the whole picture alone.
    least
        Least score: how likely somebody is there by both networks.
    most
        Keep so many, the surest; None: all.
    """

    name = "blazepose"

    def __init__(self, levels: int = 2, least: float = 0.5, most: int | None = None) -> None:
        self.finder = Finder("pose_detector", PERSON, levels, FOUND, MERGED)
        self.reader = Program("pose_full")
        self.least, self.most = least, most

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """People in an image (H, W, 3) uint8 RGB, those that are surest first."""
        known: list[tuple[float, Look]] = []
        for find in confirmed(self.finder(image)):
            if not any(seen.explains(find) for _, seen in known):
                seen = self.judge(image, find)
                if seen is not None and (score := sureness(find.score, seen.presence)) >= self.least:
                    known.append((score, seen))
        people: list[Detection] = []
        kept: list[Look] = []
        for score, seen in sorted(known, key=lambda one: -one[0]):
            box = seen.box(image.shape[1], image.shape[0])
            if box is not None and not any(seen.same(other) for other in kept):
                kept.append(seen)
                people.append(Detection(box, score, seen.points_K3[: len(POSE_LANDMARKS)]))
        return people[: self.most]

    def judge(self, image: np.ndarray, find: Find) -> Look | None:
        """The look at a find whose neck is the nearer one; None: nobody is seen there."""
        looks: list[tuple[float, Look]] = []
        region = around(find.hips, find.circle)
        while len(looks) < 2 and sees(image, region):
            seen = self.read(image, region)
            off = float(np.linalg.norm(seen.neck - find.neck))
            if seen.presence < PRESENT or off > AT_FIND * find.radius:
                break
            looks.append((off, seen))
            region = around(seen.points_K3[CENTRE, :2], seen.points_K3[CIRCLE, :2])
        return min(looks, key=lambda one: one[0])[1] if looks else None

    def read(self, image: np.ndarray, region: Region) -> Look:
        """What is seen in a square."""
        numbers_1K5, presence_1, _ = self.reader(look(image, region, self.reader.size)[None])
        places_K2 = region.to_picture(numbers_1K5[0, :, :2].astype(np.float64) / self.reader.size)
        return Look(np.column_stack((places_K2, sigmoid(numbers_1K5[0, :, 3]))), float(presence_1[0]))


def confirmed(found: list[tuple[np.ndarray, np.ndarray]]) -> list[Find]:
    """Finds in squares of every size, the surest first.

    A score is the probability that not all are wrong of the best finds of each size that agree.
    """
    by_size = [
        [
            Find(float(score), (low + high) / 2, hips, circle)
            for score, (low, high, hips, circle, *_) in zip(*one, strict=True)
        ]
        for one in found
    ]
    finds = []
    for size, ones in enumerate(by_size):
        for one in ones:
            wrong = 1 - one.score
            for other, others in enumerate(by_size):
                if other != size:
                    near = [x.score for x in others if np.linalg.norm(x.neck - one.neck) < AGREE * one.radius]
                    wrong *= 1 - max(near, default=0.0)
            finds.append(Find(1 - wrong, one.neck, one.hips, one.circle))
    return sorted(finds, key=lambda one: -one.score)


def sureness(found: float, present: float) -> float:
    """How likely somebody is there, by the probabilities of the detector and of the landmark network.

    The latter is the less reliable one: it says 0.99 of many a thing.
    """
    return float(sigmoid(np.array(log_odds(found) + log_odds(present) / 2 - EVIDENCE)))


def log_odds(probability: float) -> float:
    """Of a probability that may be 0 or 1."""
    bounded = min(max(probability, 1e-5), 1 - 1e-5)
    return math.log(bounded / (1 - bounded))


def around(hips: np.ndarray, circle: np.ndarray) -> Region:
    """The square to look at for a body with these hips and this point on the circle around it, pixels (2,)."""
    side = 2 * ENLARGED * float(np.linalg.norm(circle - hips))
    return Region(float(hips[0]), float(hips[1]), side, upright(hips, circle))
