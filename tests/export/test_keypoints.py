"""2D joints of OpenPose and of COCO arrive at the right places of J24, and other files are told what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metro.body.joints import JOINT_SETS
from metro.errors import MetroError
from metro.export.keypoints import in_j24, read_keypoints

J24 = JOINT_SETS["J24"]


def numbers(count: int, first: float = 10) -> list[float]:
    """Joint k at (first + k, 2 (first + k)) with confidence 0.5."""
    return [x for k in range(count) for x in (first + k, 2 * (first + k), 0.5)]


def read(content: Any, folder: Path, image: str = "a.jpg") -> np.ndarray:
    (folder / "joints.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_keypoints(folder / "joints.json", folder / image)


# Where the formats' own documents put these joints.
PLACES = {
    25: {"Nose": 0, "R_Shoulder": 2, "R_Wrist": 4, "L_Wrist": 7, "Pelvis": 8, "R_Hip": 9, "L_Ankle": 14, "L_Ear": 18},
    18: {"Nose": 0, "R_Shoulder": 2, "R_Wrist": 4, "L_Wrist": 7, "R_Hip": 8, "L_Ankle": 13, "R_Eye": 14, "L_Ear": 17},
}


@pytest.mark.parametrize("count", PLACES)
def test_openpose(count: int, tmp_path: Path) -> None:
    content = {
        "version": 1.3,
        "people": [{"pose_keypoints_2d": numbers(count)}, {"pose_keypoints_2d": [0] * 3 * count}],
    }
    joints = read(content, tmp_path)
    assert joints.shape == (2, 24, 3)
    for name, place in PLACES[count].items():
        assert joints[0, J24.index(name)].tolist() == [10 + place, 2 * (10 + place), 0.5]
    assert joints[0, J24.index("Top_of_Head"), 2] == 0
    assert not joints[1].any()


def test_points_of_other_names() -> None:
    joints = in_j24(np.array([[1, 2, 0.3], [4, 5, 0.6], [7, 8, 0.9]]), ("L_Heel", "L_Knee", "Nose"))
    assert joints[J24.index("L_Knee")].tolist() == [4, 5, 0.6]
    assert joints[J24.index("Nose")].tolist() == [7, 8, 0.9]
    assert (joints[:, 2] > 0).sum() == 2


def test_coco(tmp_path: Path) -> None:
    results = [
        {"image_id": 785, "category_id": 1, "keypoints": numbers(17), "score": 0.9},
        {"image_id": 9, "category_id": 1, "keypoints": numbers(17, 500)},
    ]
    (joints,) = read(results, tmp_path, "000000000785.jpg")
    assert joints[J24.index("L_Shoulder")].tolist() == [15, 30, 0.5]
    assert joints[J24.index("R_Ankle")].tolist() == [26, 52, 0.5]
    assert (joints[:, 2] > 0).sum() == 17
    seen, hidden, unknown = [1, 2, 2], [3, 4, 1], [0, 0, 0]
    people = [{"image_id": 3, "category_id": 1, "keypoints": [*seen, *hidden, *unknown * 15]}]
    crowd = {"image_id": 3, "category_id": 1, "iscrowd": 1, "keypoints": [0] * 51}
    labels = {"images": [{"id": 3, "file_name": "a.jpg"}], "annotations": [*people, crowd]}
    (joints,) = read(labels, tmp_path)
    assert joints[[J24.index("Nose"), J24.index("L_Eye")]].tolist() == [[1, 2, 1], [3, 4, 1]]
    assert joints[:, 2].sum() == 2
    assert read({"a.jpg": [numbers(17)] * 3}, tmp_path).shape == (3, 24, 3)
    assert read({"a.jpg": []}, tmp_path).shape == (0, 24, 3)


def test_numbers_that_are_none_do_not_count(tmp_path: Path) -> None:
    row = numbers(17)
    row[0], row[5], row[8] = float("nan"), 7.0, -0.3
    (joints,) = read({"a.jpg": [row]}, tmp_path)
    assert joints[J24.index("Nose")].tolist() == [0, 0, 0]
    assert joints[J24.index("L_Eye"), 2] == 1
    assert joints[J24.index("R_Eye"), 2] == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ([1, 2], "expected OpenPose's JSON"),
        ({"people": 3}, "expected OpenPose's JSON"),
        ({"people": [{"face_keypoints_2d": []}]}, "pose_keypoints_2d.*expected OpenPose's JSON"),
        (
            {"people": [{"pose_keypoints_2d": numbers(25)}, {"pose_keypoints_2d": numbers(15)}]},
            "person 1: has 45 numbers",
        ),
        ({"people": [{"pose_keypoints_2d": ["x"] * 75}]}, "person 0: its keypoints are not numbers"),
        (
            {"people": [{"pose_keypoints_2d": [0.2, 0.4, 0.9] * 25}]},
            "person 0: all coordinates are within 1.*keypoint_sc",
        ),
        ([{"image_id": 1, "keypoints": numbers(17)}], r"has no keypoints for .*a\.jpg"),
        ([{"file_name": "a.jpg", "bbox": [1, 2, 3, 4]}], "keypoints.*expected OpenPose's JSON"),
        ([{"file_name": "a.jpg", "keypoints": numbers(23)}], r"has 69 numbers, expected 51 \(COCO17\)"),
    ],
)
def test_what_is_no_such_file_is_told_in_a_line(content: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=said) as caught:
        read(content, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "joints.json"))
