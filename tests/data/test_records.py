"""Records refuse what no training could use, in one line that says where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metro.errors import MetroError
from tests.data import people


def test_a_whole_record_passes():
    record = people.person(7)
    record.check()
    assert (record.has_2d, record.has_3d, record.has_mesh) == (True, True, True)
    assert record.name == "made:000007.png#0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints_2d": np.zeros((17, 3))}, r"keypoints_2d has shape \(17, 3\), not \(24, 3\)"),
        ({"joints_3d": np.full((24, 4), np.nan)}, "joints_3d has values that are not finite"),
        ({"pose_aa": np.array(["x"] * 72)}, "pose_aa has values that are not finite numbers"),
        ({"betas": None}, "pose_aa and betas go together"),
        ({"box": None}, "neither a box nor center and scale"),
        ({"box": np.array([0, 0, 0, 0.0])}, "box has side 0 px"),
        ({"center": np.zeros(2)}, "center and scale go together"),
        ({"keypoints_2d": np.full((24, 3), -1.0)}, "keypoints_2d has a negative confidence"),
        ({"gender": "m"}, "gender is 'm', not one of neutral, female, male"),
        ({"mesh_origin": "none"}, "mesh_origin is 'none', which does not fit has_mesh=True"),
        ({"image": np.zeros((5, 5), np.uint8)}, r"image is uint8 \(5, 5\), not uint8"),
        ({"image": "a.png"}, "image is a str, not an array, bytes or a path"),
    ],
)
def test_a_bad_field_is_named(changes, message):
    with pytest.raises(MetroError, match=f"^made:000003.png#0: {message}") as caught:
        people.person(3, **changes).check()
    assert "\n" not in str(caught.value)


def test_a_record_needs_a_label():
    nothing = dict.fromkeys(("keypoints_2d", "joints_3d", "pose_aa", "betas"))
    with pytest.raises(MetroError, match="labels are all missing"):
        people.person(1, **nothing, mesh_origin="none").check()


def test_the_square_of_a_box_has_its_longer_side_and_its_centre():
    center, scale = people.person(0, box=np.array([10.0, 20, 30, 100])).crop_square()
    assert center.tolist() == [25, 70]
    assert scale == 0.5


def test_given_center_and_scale_win_over_the_box():
    center, scale = people.person(0, center=np.array([112, 112]), scale=0.9).crop_square()
    assert (center.tolist(), scale) == ([112, 112], 0.9)


def test_a_path_is_an_image():
    people.person(0, image=Path("a.png")).check()
