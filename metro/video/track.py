"""Which box belongs to whom: boxes of consecutive frames are matched by their overlap, so that people keep numbers.

Every track is moved on by its own speed, the best matching of tracks and boxes is found at once (Hungarian method, as
SORT does; Bewley et al., ICIP 2016), and pairs that hardly overlap are undone. A track that finds no box waits for a
while, so that people who are lost for some frames get their number back.

Boxes are tight x, y, width, height in pixels. Shape suffixes: T track, N box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

LEAST_IOU = 0.3
"""Overlap (intersection over union) from which on a box can belong to a track."""
INERTIA = 0.5
"""Share of the former speed in that of a track; boxes jitter."""

People = dict[int, np.ndarray]
"""By person (6,): box, the detector's score (NaN: none), and whether it is a left hand (0 or 1)."""


class Tracker:
    """Numbers people over a sequence of frames.

    Parameters
    ----------
    patience
        Frames for which a person may be lost.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.frame = -1
        self.next_person = 0
        self.person_T = np.zeros(0, np.int64)
        self.box_T6 = np.zeros((0, 6))
        self.speed_T2 = np.zeros((0, 2))  # pixels a frame, of the box's centre
        self.seen_T = np.zeros(0, np.int64)  # the frame of `box_T6`

    @property
    def people(self) -> People:
        """Who is in the frame that was taken last."""
        now = np.flatnonzero(self.seen_T == self.frame)
        return {int(self.person_T[track]): self.box_T6[track].copy() for track in now}

    def update(self, frame: int, boxes: Sequence[Sequence[float]]) -> None:
        """Take the boxes of a frame, whose number is higher than the last one's; rows as in `People`."""
        box_N6 = np.asarray(boxes, np.float64).reshape(-1, 6)
        waited_T = frame - self.seen_T
        expected_T4 = self.box_T6[:, :4].copy()
        expected_T4[:, :2] += self.speed_T2 * waited_T[:, None]
        # Who stopped while out of sight is where they were last seen.
        overlap_TN = np.maximum(iou(expected_T4, box_N6[:, :4]), iou(self.box_T6[:, :4], box_N6[:, :4]))
        track, box = linear_sum_assignment(overlap_TN, maximize=True)
        fits = overlap_TN[track, box] >= LEAST_IOU
        track, box = track[fits], box[fits]
        moved = (_centre(box_N6[box]) - _centre(self.box_T6[track])) / waited_T[track, None]
        self.speed_T2[track] = INERTIA * self.speed_T2[track] + (1 - INERTIA) * moved
        self.box_T6[track], self.seen_T[track] = box_N6[box], frame

        kept, new = frame - self.seen_T < self.patience, np.setdiff1d(np.arange(len(box_N6)), box)
        self.person_T = np.r_[self.person_T[kept], self.next_person + np.arange(len(new))]
        self.box_T6 = np.r_[self.box_T6[kept], box_N6[new]]
        self.speed_T2 = np.r_[self.speed_T2[kept], np.zeros((len(new), 2))]
        self.seen_T = np.r_[self.seen_T[kept], np.full(len(new), frame)]
        self.next_person += len(new)
        self.frame = frame

    def state(self) -> dict[str, np.ndarray]:
        """All that later updates depend on."""
        tracks = {"person": self.person_T, "box": self.box_T6, "speed": self.speed_T2, "seen": self.seen_T}
        return {**tracks, "counts": np.array([self.frame, self.next_person])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from where `state` was taken."""
        self.person_T, self.box_T6 = state["person"], state["box"]
        self.speed_T2, self.seen_T = state["speed"], state["seen"]
        self.frame, self.next_person = state["counts"].tolist()


def iou(a_M4: np.ndarray, b_N4: np.ndarray) -> np.ndarray:
    """Intersection over union (M, N) of boxes x, y, width, height."""
    low_MN2 = np.maximum(a_M4[:, None, :2], b_N4[:, :2])
    high_MN2 = np.minimum((a_M4[:, :2] + a_M4[:, 2:])[:, None], b_N4[:, :2] + b_N4[:, 2:])
    shared_MN = np.maximum(high_MN2 - low_MN2, 0).prod(-1)
    return shared_MN / (a_M4[:, 2:].prod(-1)[:, None] + b_N4[:, 2:].prod(-1) - shared_MN)


def between(first: People, last: People, share: float) -> People:
    """People at a moment between two frames, `share` (0 to 1) of the way: boxes go in straight lines.

    Who is in one of the two frames alone is taken to be there, unmoved, for the half that is nearer to it.
    """
    found = dict(first if share < 0.5 else last)
    for person in first.keys() & last.keys():
        found[person] = (1 - share) * first[person] + share * last[person]
    return {person: found[person] for person in sorted(found)}


def _centre(box_N6: np.ndarray) -> np.ndarray:
    return box_N6[:, :2] + box_N6[:, 2:4] / 2
