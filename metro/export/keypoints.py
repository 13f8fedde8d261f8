"""2D joints of people in an image, as OpenPose and detectors of COCO's joints write them.

- OpenPose, one file an image: ``{"people": [{"pose_keypoints_2d": [x, y, confidence, …]}, …]}`` with the 25 joints of
  BODY_25 or the 18 of its COCO model.
- ``[{"image_id": 785, "category_id": 1, "keypoints": [x, y, confidence, …], "score": 0.9}, …]``: COCO's results, with
  17 joints; or with ``file_name`` instead of ``image_id``.
- ``{"images": [{"id": 785, "file_name": "…"}, …], "annotations": [{"image_id": 785, "keypoints": …}, …]}``: COCO's
  labels, whose third number is 0 where a joint is not annotated, 1 where it is hidden and 2 where it is seen.
- ``{"NAME.jpg": [[x, y, confidence, …], …], …}``: 17 joints of COCO by names or paths of images.

Of COCO's, other categories than people (1) and crowds are left out. Coordinates are pixels of the upright image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metro.body.joints import JOINT_SETS, shared
from metro.errors import MetroError
from metro.export.boxes import rows_of
from metro.files import read_json, readable

REMEDY = (
    "expected OpenPose's JSON, {people: [{pose_keypoints_2d: [...]}, ...]}, or COCO's results or labels with 17 joints"
)
OPENPOSE = ("OPENPOSE25", "OPENPOSE18")
COCO = ("COCO17",)


def read_keypoints(file: Path, image: Path) -> np.ndarray:
    """Joints (N, 24, 3) of J24 of the N people that a file has in an image: pixels, and confidence from 0 to 1.

    Joints that J24 lacks (toes, heels) are left out; those that the file lacks have confidence 0.

    Raises
    ------
    MetroError
        The file is damaged or of no known form, is about other images, or a person's numbers are no joints in pixels.
    """
    content = read_json(file, REMEDY)
    with readable(file, REMEDY):
        openpose = isinstance(content, dict) and "people" in content
        rows = [person["pose_keypoints_2d"] for person in content["people"]] if openpose else []
    if not openpose:
        (rows,) = rows_of(content, file, [image], "keypoints", REMEDY, lambda entry: entry["keypoints"])
    known = OPENPOSE if openpose else COCO
    with readable(file, REMEDY):
        people = [_joints(row, known, f"{file}: person {number}") for number, row in enumerate(rows)]
    return np.array(people, np.float64).reshape(-1, len(JOINT_SETS["J24"]), 3)


def in_j24(points_K3: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The same points, x, y and confidence, as joints (24, 3) of J24: those that are not among them are 0."""
    joints = np.zeros((len(JOINT_SETS["J24"]), 3))
    at, to = shared(names, "J24")
    joints[to] = points_K3[at]
    return joints


def _joints(numbers: Any, known: tuple[str, ...], where: str) -> np.ndarray:
    """J24 (24, 3) of the joints of one person in the first of the known sets that has so many."""
    try:
        flat = np.asarray(numbers, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise MetroError(f"{where}: its keypoints are not numbers; {REMEDY}") from None
    sets = [name for name in known if 3 * len(JOINT_SETS[name]) == flat.size]
    if not sets:
        counts = " or ".join(f"{3 * len(JOINT_SETS[name])} ({name})" for name in known)
        raise MetroError(f"{where}: has {flat.size} numbers, expected {counts}: x, y and confidence of each joint")
    points = flat.reshape(-1, 3)
    points = np.where(np.isfinite(points).all(1, keepdims=True), points, 0)
    points[:, 2] = points[:, 2].clip(0, 1)
    seen = points[points[:, 2] > 0, :2]
    if len(seen) > 1 and (np.abs(seen) <= 1).all():
        raise MetroError(
            f"{where}: all coordinates are within 1, so they are shares of the image; write pixels (OpenPose: "
            "--keypoint_scale 0)"
        )
    return in_j24(points, JOINT_SETS[sets[0]])
