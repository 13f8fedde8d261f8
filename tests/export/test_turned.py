"""People and hands that do not stand upright in a picture are turned for a look, and what is seen is turned back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from metro.body.joints import JOINT_SETS
from metro.config import ViewsConfig
from metro.detect import Detection
from metro.detect.detection import POSE_LANDMARKS
from metro.export.predictor import Predictor
from metro.model.views import views_of

SIZE = 96
BELOW, ABOVE = (255, 0, 0), (0, 0, 255)
JOINTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "HAND21": (("Wrist",), ("Middle1",)),
    "J14": (("R_Hip", "L_Hip"), ("R_Shoulder", "L_Shoulder")),
}


class Dots:
    """A network that puts joints onto a red dot and a blue one, a tenth of a metre apart in depth."""

    faces_F3 = np.array([[0, 1, 2]])

    def __init__(self, joint_set: str) -> None:
        self.names = JOINT_SETS[joint_set]
        self.meta: dict[str, Any] = {
            "model": {"image_size": SIZE, "joint_set": joint_set},
            "joint_names": self.names,
        }
        self.below, self.above = ([self.names.index(j) for j in joints] for joints in JOINTS[joint_set])
        self.shown: list[np.ndarray] = []

    def __call__(self, pixels_BSS3: np.ndarray) -> tuple[np.ndarray, ...]:
        joints_BJ3 = np.zeros((len(pixels_BSS3), len(self.names), 3), np.float32)
        for pixels, joints_J3 in zip(pixels_BSS3, joints_BJ3, strict=True):
            self.shown.append(pixels)
            for colour, rows, depth in ((BELOW, self.below, 0.0), (ABOVE, self.above, 0.1)):
                joints_J3[rows] = [*((2 * place(pixels, colour) + 1) / SIZE - 1), depth]
        camera_B3 = np.broadcast_to(np.float32([0.8, 0.1, -0.05]), (len(pixels_BSS3), 3))
        joints_BJ3[..., :2] = joints_BJ3[..., :2] / 0.8 - [0.1, -0.05]
        return camera_B3, joints_BJ3, joints_BJ3

    def lean(self, look: int) -> float:
        """Degrees by which who is shown in a look leans to the right."""
        right, down = place(self.shown[look], ABOVE) - place(self.shown[look], BELOW)
        return float(np.degrees(np.arctan2(right, -down)))


def place(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Middle (x, y) of a dot."""
    light = np.clip(pixels.astype(float) @ (np.array(colour) - 127.5) / 127.5 - 100, 0, None)
    rows, columns = np.mgrid[: len(pixels), : len(pixels)]
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


def picture(lean: float, middle: tuple[float, float] = (150, 120), height: float = 60) -> tuple[np.ndarray, np.ndarray]:
    """A picture with two dots, and their places (2, 2), the lower first."""
    image = np.zeros((240, 320, 3), np.uint8)
    up = np.array([np.sin(np.radians(lean)), -np.cos(np.radians(lean))])
    ends = np.array([middle - up * height / 2, middle + up * height / 2])
    for colour, (x, y) in zip((BELOW, ABOVE), ends, strict=True):
        cv2.circle(image, (round(x * 16), round(y * 16)), 6 * 16, colour, -1, cv2.LINE_AA, 4)
    return image, ends


BOX = (110.0, 80.0, 80.0, 80.0)
ANGLES = [0, 25, -65, 90, 135, 180, -100]


@pytest.mark.parametrize("lean", ANGLES)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("views", [None, ViewsConfig(scales=(1.0, 1.1), rotations_deg=(-10.0, 0.0, 10.0))])
def test_hands_are_turned_and_turned_back(lean: float, left: bool, views: ViewsConfig | None) -> None:
    image, ends = picture(lean)
    network = Dots("HAND21")
    some = views and views_of(views, "HAND21", lambda: np.arange(0))
    (found,) = Predictor(network, views=some)(image, BOX, left_hand=left)  # type: ignore[arg-type]
    assert found.joints_2d[[0, 9]] == pytest.approx(ends, abs=0.4)
    assert found.joints[[0, 9], 2] == pytest.approx([0, 0.1])
    assert np.array_equal(found.vertices, found.joints)
    looks = 1 if some is None else len(some)
    assert len(network.shown) == (looks if abs(lean) < 10 else 2 * looks)
    assert network.lean(-looks) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("lean", ANGLES)
def test_landmarks_tell_how_before_the_first_look(lean: float) -> None:
    image, ends = picture(lean)
    hand, body = Dots("HAND21"), Dots("J14")
    landmarks = np.ones((21, 3))
    landmarks[[0, 9], :2] = ends
    (found,) = Predictor(hand)(image, [Detection(BOX, 0.9, landmarks)])  # type: ignore[arg-type]
    assert found.joints_2d[[0, 9]] == pytest.approx(ends, abs=0.4)
    assert [hand.lean(0)] == pytest.approx([0], abs=1)
    landmarks = np.ones((33, 3))
    for names, end in zip(JOINTS["J14"], ends, strict=True):
        landmarks[[POSE_LANDMARKS.index(name) for name in names], :2] = end
    (found,) = Predictor(body)(image, [Detection(BOX, 0.9, landmarks)])  # type: ignore[arg-type]
    assert found.joints_2d[body.below + body.above] == pytest.approx(ends.repeat(2, 0), abs=0.4)
    assert body.lean(0) == pytest.approx(0 if abs(lean) > 40 else lean, abs=1)
    assert len(hand.shown) == len(body.shown) == 1


@pytest.mark.parametrize("passes", [1, 2])
def test_only_who_leans_is_looked_at_again(passes: int) -> None:
    network = Dots("J14")
    images, ends = zip(*(picture(lean) for lean in (0, 35, 120)), strict=True)
    found = Predictor(network, passes=passes)(images, [BOX] * 3)  # type: ignore[arg-type]
    for person, places in zip(found, ends, strict=True):
        assert person.joints_2d[network.below + network.above] == pytest.approx(places.repeat(2, 0), abs=0.4)
        assert person.box == BOX
    assert len(network.shown) == (4 if passes == 1 else 6)
    assert [network.lean(look) for look in range(3)] == pytest.approx([0, 35, 120], abs=1)
    assert network.lean(-1) == pytest.approx(0, abs=1)


def test_other_landmarks_turn_nobody() -> None:
    image, ends = picture(20)
    network = Dots("J14")
    landmarks = np.ones((21, 3))
    landmarks[[0, 9], :2] = ends[::-1]
    Predictor(network)(image, [Detection(BOX, 0.9, landmarks)])  # type: ignore[arg-type]
    assert network.lean(0) == pytest.approx(20, abs=1)
