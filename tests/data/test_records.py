"""Records refuse what no training could use, in one line that says where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metro.body.figure import HAND
from metro.errors import MetroError
from tests.data import people

MM, CM, INCHES = (np.array([u, u, u, 1]) for u in (1e3, 1e2, 1 / 0.0254))
STANDING = np.column_stack([np.zeros((24, 1)), np.linspace(-0.8, 0.8, 24), np.full(24, 3.0), np.ones(24)])
SEEN = np.column_stack([np.full((24, 2), 90.0), np.full(24, 100.0)])  # confidence 1 once divided


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
        ({"keypoints_2d": np.full((24, 3), -1.0)}, "keypoints_2d has confidences from -1 to -1, not within 0 and 1"),
        ({"keypoints_2d": np.full((24, 3), 2.0)}, "keypoints_2d has confidences from 2 to 2"),
        (
            {"keypoints_2d": SEEN / 100, "box": np.array([100.0, 60, 40, 40])},
            "keypoints_2d lie outside of twice the box",
        ),
        ({"joints_3d": STANDING * MM}, r"joints_3d reach over 1600 m; they look like millimetres$"),
        ({"joints_3d": STANDING * CM}, r"joints_3d reach over 160 m; they look like centimetres$"),
        ({"joints_3d": STANDING * INCHES}, r"joints_3d reach over 62.99 m; they look like inches$"),
        ({"joints_3d": STANDING / MM}, r"joints_3d reach over 0.0016 m; they look like kilometres$"),
        ({"joints_3d": STANDING * [4, 4, 4, 1]}, r"joints_3d reach over 6.4 m$"),
        ({"joints_3d": STANDING + np.array([500, 0, 0, 0])}, r"joints_3d are 50[\d.]* m from the camera"),
        ({"pose_aa": np.full(72, 90.0)}, r"pose_aa turns a joint by 155.9 radians; are they degrees\?"),
        ({"betas": np.full(10, 1e3)}, "betas reach 1000, which is no human shape"),
        ({"transl": np.array([100.0, 0, 3500])}, "transl is 3500 m; they look like millimetres"),
        ({"intrinsics": np.eye(3)}, "intrinsics have focal lengths 1 and 1 px"),
        ({"intrinsics": np.array([[500.0, 0, 0], [0, 500, 0], [100, 100, 1]])}, "intrinsics are no camera matrix"),
        ({"box": np.array([50.0, 30, -5, 100])}, "box has width -5 and height 100 px"),
        ({"box": np.array([50.0, 30, 100, 0])}, "box has width 100 and height 0 px"),
        ({"fit_error": 50.0}, "fit_error is 50.0 m"),
        ({"fit_error": float("nan")}, "fit_error is nan m"),
        ({"lens": "fisheye"}, "lens is 'fisheye', not one of none, opencv, h36m"),
        ({"lens": "h36m"}, "distortion is missing with lens 'h36m'"),
        ({"distortion": np.zeros(8)}, "distortion is given with lens 'none'"),
        ({"distortion": np.zeros(5), "lens": "opencv"}, r"distortion has shape \(5,\), not \(8,\)"),
        ({"distortion": np.full(8, np.nan), "lens": "opencv"}, "distortion has values that are not finite numbers"),
        ({"distortion": np.full(8, 0.1), "lens": "h36m"}, "distortion has k4, k5 or k6, which the lens 'h36m' has not"),
        ({"distortion": np.zeros(8), "lens": "opencv", "intrinsics": None}, "distortion needs intrinsics"),
        (
            {"distortion": np.array([0, 0, 3.0, 0, 0, 0, 0, 0]), "lens": "opencv"},
            "distortion reaches 3; is it k1 k2 p1",
        ),
        ({"distortion": np.array([2e3, 0, 0, 0, 0, 0, 0, 0]), "lens": "opencv"}, "distortion reaches 2000; is it"),
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


def test_what_is_not_annotated_is_not_judged():
    hidden = STANDING * MM * [1, 1, 1, 0]
    people.person(0, joints_3d=hidden).check()
    face = np.where(np.arange(24)[:, None] < 5, STANDING * [0.01, 0.01, 1, 1], 0)
    people.person(0, joints_3d=face).check()


def test_hands_are_smaller():
    rng = np.random.default_rng(0)
    hand = np.column_stack([rng.uniform(-0.05, 0.05, (21, 3)), np.ones(21)])
    fields = {"keypoints_2d": np.full((21, 3), 1.0), "pose_aa": np.zeros(48), "box": np.array([0.0, 0, 50, 50])}
    people.person(0, joints_3d=hand, **fields).check(HAND)
    with pytest.raises(MetroError, match=r"joints_3d reach over .* they look like millimetres"):
        people.person(0, joints_3d=hand * MM, **fields).check(HAND)
    with pytest.raises(MetroError, match=r"joints_3d reach over 1\.\d+ m$"):
        people.person(0, joints_3d=hand * [10, 10, 10, 1], **fields).check(HAND)


@pytest.mark.parametrize("frame", ["a\nb", "a\0", "\udcff"])
def test_a_frame_needs_a_name_that_can_be_stored(frame):
    with pytest.raises(MetroError, match="frame holds characters that cannot be stored"):
        people.person(0, frame=frame).check()


def test_a_path_is_an_image():
    people.person(0, image=Path("a.png")).check()
