"""How hidden and how folded a person is, to pick pictures by.

Records do not say what stands before a person. The shipped landmark network does: of each of its landmarks it tells how
likely it can be seen. Beside what the renderer knows of its people that measure is in ``benchmarks/attention.md``.

Shape suffixes: B person, J joint, S side.
"""

from __future__ import annotations

import numpy as np

from metro.body.figure import HAND, Figure
from metro.body.joints import FINGER_GROUPS, JOINT_SETS, index_map
from metro.detect.detection import POSE_LANDMARKS
from metro.detect.people import PeopleDetector
from metro.detect.regions import Region

LIMBS = [
    POSE_LANDMARKS.index(f"{side}_{joint}")
    for side in "LR"
    for joint in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
]
"""Landmarks that count."""
BODY_BENDS = tuple(
    bend
    for side in "LR"
    for bend in (
        (f"{side}_Hip", f"{side}_Knee", f"{side}_Ankle"),
        (f"{side}_Shoulder", f"{side}_Elbow", f"{side}_Wrist"),
        ("Neck", f"{side}_Hip", f"{side}_Knee"),
    )
)
"""Joints between whose bones the angles are measured: knees, elbows and hips."""
HAND_BENDS = tuple(
    chain[k : k + 3] for finger in FINGER_GROUPS.values() for chain in [("Wrist", *finger)] for k in range(3)
)
"""The joints of the fingers."""


class Hidden:
    """Tells how much of people is hidden, by the landmark network that ships."""

    def __init__(self) -> None:
        self._reader = PeopleDetector(levels=0)

    def __call__(self, images_BSS3: np.ndarray) -> np.ndarray:
        """Share (B,) of the limb joints of people in crops, uint8 RGB, that cannot be seen: hidden or cut off."""
        side = images_BSS3.shape[1]
        whole = Region((side - 1) / 2, (side - 1) / 2, side)
        seen = [self._reader.read(image, whole).points_K3[LIMBS, 2].mean() for image in images_BSS3]
        return 1 - np.array(seen)


def folding(joints_BJ4: np.ndarray, figure: Figure) -> np.ndarray:
    """Mean bend (B,) of knees, elbows and hips, or of all finger joints, degrees: 0 is straight.

    Parameters
    ----------
    joints_BJ4
        Annotated joints, metres, and confidence. People lack a joint of confidence 0, and are nan without any bend.
    figure
        What they are joints of.
    """
    names = JOINT_SETS[figure.labels]
    a, b, c = (index_map(names, ends) for ends in zip(*(HAND_BENDS if figure is HAND else BODY_BENDS), strict=True))
    known = (joints_BJ4[:, [a, b, c], 3] > 0).all(1)
    points = joints_BJ4[..., :3].astype(np.float64)
    above, below = points[:, b] - points[:, a], points[:, c] - points[:, b]
    lengths = np.maximum(np.linalg.norm(above, axis=2) * np.linalg.norm(below, axis=2), 1e-12)
    bend = np.degrees(np.arccos(np.clip((above * below).sum(2) / lengths, -1, 1)))
    total, count = np.where(known, bend, 0).sum(1), known.sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
