"""A rendered person and hand are found where they are, and nobody where nobody is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from metro.detect import detector
from metro.detect.detection import POSE_LANDMARKS, Detection
from metro.errors import MetroError

PICTURES = Path(__file__).parents[1] / "model" / "blazepose.safetensors"
CONTEXT = 1.2
"""Side of those pictures over that of the tight box, which is in their middle."""


@pytest.fixture(scope="module")
def person() -> np.ndarray:
    return picture("pose_full")


def picture(name: str) -> np.ndarray:
    image = cv2.imdecode(load_file(PICTURES)[f"{name}.picture"], cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image


def check(found: Detection, left: float, top: float, side: int, off: float = 0.06) -> None:
    """The box lies in the middle of the picture that begins at (left, top), and is as large as it was made."""
    x, y, w, h = found.box
    middle = np.array([left, top]) + (side - 1) / 2
    assert np.array([x + w / 2, y + h / 2]) == pytest.approx(middle, abs=off * side)
    assert max(w, h) == pytest.approx(side / CONTEXT, abs=2 * off * side)


def test_one_person_and_two(person: np.ndarray) -> None:
    finder = detector("blazepose", levels=1)
    assert finder is not None
    (found,) = finder(person)
    check(found, 0, 0, 256)
    assert found.score > 0.9
    assert found.landmarks is not None
    nose, left, right = (found.landmarks[POSE_LANDMARKS.index(name)] for name in ("Nose", "L_Ankle", "R_Ankle"))
    assert nose[1] + 100 < min(left[1], right[1])
    both = sorted(finder(np.concatenate((person, person[:, ::-1]), axis=1)), key=lambda one: one.box[0])
    assert len(both) == 2
    check(both[0], 0, 0, 256)
    check(both[1], 256, 0, 256)


def test_a_small_person_is_found_in_a_square_of_the_picture(person: np.ndarray) -> None:
    canvas = np.full((1024, 1200, 3), 120, np.uint8)
    canvas[500:756, 300:556] = person
    whole_alone, squares, most = (detector("blazepose", **w) for w in ({"levels": 0}, {"levels": 2}, {"most": 0}))
    assert whole_alone is not None
    assert squares is not None
    assert most is not None
    assert whole_alone(canvas) == []
    (found,) = squares(canvas)
    check(found, 300, 500, 256)
    assert most(canvas) == []


def test_nobody_in_noise_or_grey() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for image in (noise, np.full_like(noise, 127), noise[:3, :2], noise[:1]):
        for hands in (False, True):
            finder = detector("blazepose", hands=hands, levels=1)
            assert finder is not None
            assert finder(image) == []


def test_a_mirror_swaps_the_sides_of_hands() -> None:
    finder = detector("blazepose", hands=True, levels=0)
    assert finder is not None
    hand = np.full((448, 448, 3), 120, np.uint8)
    hand[112:336, 112:336] = picture("hand_full")
    (found,), (other,) = finder(hand), finder(np.ascontiguousarray(hand[:, ::-1]))
    assert found.left != other.left
    check(found, 112, 112, 224, off=0.12)
    assert other.box[0] + other.box[2] == pytest.approx(447 - found.box[0], abs=12)


class Rcnn(torch.nn.Module):
    """Answers as torchvision's network does."""

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        assert images[0].shape == (3, 40, 60)
        points = torch.arange(34.0).reshape(1, 17, 2).expand(2, 17, 2)
        return [
            {
                "boxes": torch.tensor([[10.5, 4.5, 30.5, 34.5], [0, 0, 1, 1]]),
                "scores": torch.tensor([0.9, 0.1]),
                "keypoints": torch.cat((points, torch.ones(2, 17, 1)), -1),
            }
        ]


def test_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import detection

    monkeypatch.setattr(detection, "keypointrcnn_resnet50_fpn", lambda weights: Rcnn())
    finder = detector("torchvision")
    assert finder is not None
    (found,) = finder(np.zeros((40, 60, 3), np.uint8))
    assert found.box == (10, 4, 20, 30)
    assert found.score == pytest.approx(0.9)
    assert found.landmarks is not None
    assert found.landmarks[POSE_LANDMARKS.index("L_Eye")].tolist() == [1.5, 2.5, 1]  # COCO's second
    assert found.landmarks[POSE_LANDMARKS.index("L_Toe"), 2] == 0

    def offline(weights: object) -> None:
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(detection, "keypointrcnn_resnet50_fpn", offline)
    with pytest.raises(
        MetroError, match=r"could not be downloaded \(.*not known.*\); take blazepose, or put http"
    ) as told:
        detector("torchvision")
    assert "\n" not in str(told.value)


def test_what_is_no_detector() -> None:
    assert detector("none") is None
    with pytest.raises(MetroError, match="did you mean 'torchvision'"):
        detector("torchvison")
    with pytest.raises(MetroError, match="finds people and no hands"):
        detector("torchvision", hands=True)
