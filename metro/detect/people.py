"""People in a picture, by BlazePose: its detector says where they may be, its landmark network how they are.

The detector finds people who fill a good part of what it is shown, so it looks at the whole picture and at ever smaller
squares of it. What it finds several times is merged. At each find the landmark network looks twice, the second time at
the square that its own landmarks ask for; finds with the same landmarks are one person. The box is that of the
landmarks that can be seen, enlarged by the flesh around them.

Shape suffixes: D detection, K landmark.
"""

from __future__ import annotations

import numpy as np

from metro.detect.anchors import PERSON, sigmoid
from metro.detect.detection import POSE_LANDMARKS, Detection, box_around, distinct
from metro.detect.finder import Finder
from metro.detect.programs import Program
from metro.detect.regions import Region, look, sees, upright

FOUND = 0.5
"""Least score of the detector, as published."""
ENLARGED = 1.25
"""Side of the landmark network's square over the diameter of the circle around the body, as published."""
CENTRE, CIRCLE = 33, 34
"""Landmarks that tell the next square: the middle of the hips, and a point on the circle around the body."""
FAINT = 0.1
"""Least probability of a person that earns a second look."""
SEEN = 0.5
"""Least probability of being seen with which a landmark counts for the box."""
FACE = 11
"""So many landmarks are the face's; they come first."""
HEAD_RADIUS, LIMB_RADIUS = 0.17, 0.06
"""Flesh around a landmark of the face, or any other, over the radius of the circle around the body."""


class PeopleDetector:
    """Finds people.

    Parameters
    ----------
    levels
        How often the squares that are looked at are halved: 0 looks at the whole picture alone.
    least
        Least score: the probability of a person by the landmark network.
    most
        Keep so many, the surest; None: all.
    """

    name = "blazepose"

    def __init__(self, levels: int = 2, least: float = 0.9, most: int | None = None) -> None:
        self.finder = Finder("pose_detector", PERSON, levels, FOUND)
        self.reader = Program("pose_full")
        self.least, self.most = least, most

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """People in an image (H, W, 3) uint8 RGB, those that are surest first."""
        regions = [around(hips, circle) for _, _, hips, circle, *_ in self.finder(image)[1]]
        if regions:
            points_DK3, presence_D = self.read(image, regions)
            asked = [around(points[CENTRE, :2], points[CIRCLE, :2]) for points in points_DK3[presence_D > FAINT]]
            regions = [region for region in asked if sees(image, region)]
        if not regions:
            return []
        points_DK3, presence_D = self.read(image, regions)
        people = []
        for points_K3, presence in zip(points_DK3, presence_D, strict=True):
            body_K3 = points_K3[: len(POSE_LANDMARKS)]
            seen_K = body_K3[:, 2] >= SEEN
            box = box_around(body_K3[seen_K, :2], flesh_of(points_K3)[seen_K], image.shape[1], image.shape[0])
            if presence >= self.least and box is not None:
                people.append(Detection(box, float(presence), body_K3))
        return distinct(people)[: self.most]

    def read(self, image: np.ndarray, regions: list[Region]) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks (D, 39, 3), pixels and how likely they can be seen, and the probability of a person (D,)."""
        crops = np.stack([look(image, region, self.reader.size) for region in regions])
        numbers_DK5, presence_D, _ = self.reader(crops)
        places = [
            region.to_picture(numbers[:, :2].astype(np.float64) / self.reader.size)
            for region, numbers in zip(regions, numbers_DK5, strict=True)
        ]
        visible_DK = sigmoid(numbers_DK5[..., 3])
        return np.concatenate((np.stack(places), visible_DK[..., None]), -1), presence_D


def around(hips: np.ndarray, circle: np.ndarray) -> Region:
    """The square to look at for a body with these hips and this point on the circle around it, pixels (2,)."""
    side = 2 * ENLARGED * float(np.linalg.norm(circle - hips))
    return Region(float(hips[0]), float(hips[1]), side, upright(hips, circle))


def flesh_of(points_K3: np.ndarray) -> np.ndarray:
    """Pixels of flesh around each landmark (33,)."""
    radius = float(np.linalg.norm(points_K3[CIRCLE, :2] - points_K3[CENTRE, :2]))
    return radius * np.where(np.arange(len(POSE_LANDMARKS)) < FACE, HEAD_RADIUS, LIMB_RADIUS)
