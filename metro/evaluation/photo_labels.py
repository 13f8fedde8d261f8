"""People in photographs with boxes and 2D joints, as COCO writes them: what benchmark `photos` judges by.

::

    LABELS.json      person_keypoints_val2017.json, or a file of your own
    IMAGES/…         pictures, by their `file_name`

===========  =================================================================================================
images       `id`, `file_name`; `width` and `height`, which the upright picture must have where they are given
annotations  `id`, `image_id`; `bbox` x, y, w, h, edges of pixels; `keypoints` 17 × (x, y, v), centres of pixels,
             v 0: not annotated, 1: hidden, 2: visible; `iscrowd` and `category_id` (1: a person), if given
===========  =================================================================================================

An annotation that cannot be right ends the reading: a benchmark without it would be another one. Who is no person of
the benchmark is left out, and counted: crowds, other categories, boxes without extent, and people with fewer than
`LEAST_JOINTS` of the 12 limb joints annotated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metro.body.joints import JOINT_SETS, index_map
from metro.errors import MetroError
from metro.export.boxes import PERSON
from metro.sources.boxes import edges_to_centres
from metro.sources.formats.stream import items

LIMBS = tuple(name for name in JOINT_SETS["J14"] if name not in ("Neck", "Head"))
"""The joints that count: shoulders, elbows, wrists, hips, knees and ankles."""
LEAST_JOINTS = 6
"""Limb joints that a person must have annotated."""
FARTHEST = 2.0
"""Times a box, about its middle, within which one of its person's joints must lie: others are of another picture, or
shares of it instead of pixels."""
FARTHEST_PX = 1e6
"""Numbers beyond are no pixels."""


@dataclass(frozen=True, eq=False)
class LabelledPeople:
    """People of a benchmark, ordered by the ids of their pictures and their own.

    Pixels are OpenCV's (integers are pixel centres). Shape suffixes: N person, L limb joint.
    """

    ids: np.ndarray
    """(N,) of the annotations."""
    files: tuple[str, ...]
    """(N,) names of their pictures."""
    sizes: Mapping[str, tuple[int, int] | None]
    """Width and height of each picture, if the labels tell."""
    boxes_N4: np.ndarray
    """x, y, width, height."""
    joints_NL2: np.ndarray
    """Places of `LIMBS`."""
    annotated_NL: np.ndarray
    """Whether they are known, seen or hidden."""
    left_out: Mapping[str, int]
    """How many others there are, by the reason."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def side_N(self) -> np.ndarray:
        """Longer side of each box, pixels."""
        return self.boxes_N4[:, 2:].max(1)


def read_labels(path: Path, limit: int | None = None) -> LabelledPeople:
    """The people of a file, or the first so many of them.

    Raises
    ------
    MetroError
        The file is missing, is damaged or no such labels, or has nobody to be judged.
    """
    people: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}
    left_out: Counter[str] = Counter()
    for number, entry in enumerate(items(path, "annotations.item")):
        where = f"{path}: annotation {number}"
        key, picture = _id(entry, "id", where), _id(entry, "image_id", where)
        where = f"{path}: annotation of id {key}"
        if reason := _left_out(entry):
            left_out[reason] += 1
            continue
        box_4 = edges_to_centres(_numbers(entry, "bbox", 4, where))
        joints_L3 = _numbers(entry, "keypoints", 51, where).reshape(17, 3)[index_map("COCO17", LIMBS)]
        annotated_L = joints_L3[:, 2] > 0
        if not {0, 1, 2}.issuperset(joints_L3[:, 2].tolist()):
            raise MetroError(f"{where}: its keypoints have a third number that is not 0, 1 or 2")
        if not box_4[2:].min() > 0:
            left_out["box without extent"] += 1
        elif annotated_L.sum() < LEAST_JOINTS:
            left_out[f"fewer than {LEAST_JOINTS} limb joints annotated"] += 1
        else:
            off_L2 = np.abs(joints_L3[annotated_L, :2] - box_4[:2] - box_4[2:] / 2)
            if not (off_L2 <= FARTHEST / 2 * box_4[2:]).all(1).any():
                raise MetroError(f"{where}: no joint is near its box; both must be in pixels of the picture")
            if key in people:
                raise MetroError(f"{where}: another before has the same id")
            people[key] = (picture, box_4, joints_L3)
    if not people:
        why = "; ".join(f"{count} left out: {reason}" for reason, count in left_out.items()) or "no annotations"
        raise MetroError(f"{path}: has nobody to be judged ({why})")
    pictures = _pictures(path, {picture for picture, *_ in people.values()})
    order = sorted(people, key=lambda key: (people[key][0], key))[:limit]
    if unknown := [key for key in order if people[key][0] not in pictures]:
        raise MetroError(f"{path}: annotation of id {unknown[0]}: image_id {people[unknown[0]][0]} is of no image")
    joints_NL3 = np.stack([people[key][2] for key in order])
    return LabelledPeople(
        ids=np.array(order),
        files=tuple(pictures[people[key][0]][0] for key in order),
        sizes=dict(pictures[people[key][0]] for key in order),
        boxes_N4=np.stack([people[key][1] for key in order]),
        joints_NL2=joints_NL3[..., :2],
        annotated_NL=joints_NL3[..., 2] > 0,
        left_out=dict(left_out),
    )


def _left_out(entry: Mapping[str, Any]) -> str:
    """Why an annotation is none of a single person; empty if it is."""
    if entry.get("category_id", PERSON) != PERSON:
        return f"of another category than {PERSON}, a person"
    return "crowd" if entry.get("iscrowd") else ""


def _pictures(path: Path, wanted: set[int]) -> dict[int, tuple[str, tuple[int, int] | None]]:
    """Name and size of the pictures of these ids; the list may stand behind the annotations, which are passed again."""
    found: dict[int, tuple[str, tuple[int, int] | None]] = {}
    for number, entry in enumerate(items(path, "images.item")):
        key = _id(entry, "id", f"{path}: image {number}")
        if key not in wanted:
            continue
        name, size = entry.get("file_name"), (entry.get("width"), entry.get("height"))
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise MetroError(f"{path}: image of id {key} has no file_name")
        if key in found:
            raise MetroError(f"{path}: two images have the id {key}")
        if size != (None, None) and not all(type(length) is int for length in size):
            raise MetroError(f"{path}: image of id {key}: its width and height are not whole numbers")
        found[key] = (name, None if size == (None, None) else (size[0], size[1]))
    return found


def _id(entry: Any, key: str, where: str) -> int:
    number = entry.get(key) if isinstance(entry, dict) else None
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise MetroError(f"{where}: has no {key}; expected COCO's labels, whose ids are whole numbers")
    return number


def _numbers(entry: Mapping[str, Any], key: str, count: int, where: str) -> np.ndarray:
    value = entry.get(key)
    if not isinstance(value, list) or len(value) != count or not all(map(_is_pixel, value)):
        raise MetroError(f"{where}: {key} is not {count} numbers in pixels")
    return np.array(value, np.float64)


def _is_pixel(number: Any) -> bool:
    return type(number) in (int, float) and abs(number) <= FARTHEST_PX
