"""Rendered people and hands are found where they are, and nobody where nobody is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metro.config import BodyConfig, CropConfig, DatasetConfig
from metro.detect import detector
from metro.detect.anchors import overlap
from metro.detect.detection import POSE_LANDMARKS, Detection
from metro.errors import MetroError
from metro.options import SyntheticOptions
from metro.synthetic.hands import photograph_hands
from metro.synthetic.scene import Shot, photograph_people


def whole(count: int, seed: int, margin: float = 1.25) -> DatasetConfig:
    options = SyntheticOptions(count=count, seed=seed, occlusion=0, truncation=0, uniform_pose=0, heading_uniform=0)
    return DatasetConfig(split="test", crop=CropConfig(box_px=224, margin=margin), options=options)


@pytest.fixture(scope="module")
def people() -> list[Shot]:
    return list(photograph_people(whole(2, 6), BodyConfig(), range(2)))


def true_box(shot: Shot) -> np.ndarray:
    rows, columns = np.nonzero(shot.visible > 0.5)
    return np.array([[columns.min() - 0.5, rows.min() - 0.5], [columns.max() + 0.5, rows.max() + 0.5]])


def corners(found: Detection) -> np.ndarray:
    x, y, w, h = found.box
    return np.array([[x, y], [x + w, y + h]])


def iou(found: Detection, true_22: np.ndarray) -> float:
    return float(overlap(corners(found)[None], true_22[None])[0, 0])


def test_one_person_and_several(people: list[Shot]) -> None:
    finder = detector("blazepose", levels=1)
    assert finder is not None
    for shot in people:
        (found,) = finder(shot.image)
        assert iou(found, true_box(shot)) > 0.6
        assert found.landmarks is not None
        low, high = true_box(shot)
        seen_K3 = found.landmarks[found.landmarks[:, 2] > 0.5]
        assert len(seen_K3) > 11
        assert np.mean(((seen_K3[:, :2] > low) & (seen_K3[:, :2] < high)).all(1)) > 0.9
    height = min(len(shot.image) for shot in people)
    both = np.concatenate([shot.image[:height] for shot in people], axis=1)
    found = sorted(finder(both), key=lambda one: one.box[0])
    assert len(found) == 2
    assert iou(found[1], true_box(people[1]) + np.array([people[0].image.shape[1], 0])) > 0.6


def test_a_small_person_is_found_in_a_square_of_the_picture(people: list[Shot]) -> None:
    small = people[0].image
    canvas = np.full((4 * len(small), 4 * len(small), 3), 120, np.uint8)
    at = np.array([300, 500])
    canvas[at[1] : at[1] + len(small), at[0] : at[0] + small.shape[1]] = small
    whole_alone, squares = detector("blazepose", levels=0), detector("blazepose", levels=2)
    assert whole_alone is not None
    assert squares is not None
    (found,) = squares(canvas)
    assert iou(found, true_box(people[0]) + at) > 0.5
    assert len(detector("blazepose", levels=2, most=0)(canvas)) == 0  # type: ignore[misc]
    assert detector("blazepose", levels=2, least=1.0)(canvas) in ([], [found])  # type: ignore[misc]


def test_nobody_in_noise_or_grey() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for image in (noise, np.full_like(noise, 127), noise[:3, :2], noise[:1]):
        for hands in (False, True):
            finder = detector("blazepose", hands=hands, levels=1)
            assert finder is not None
            assert finder(image) == []


def test_hands_are_told_apart() -> None:
    """The rendered ones are right hands; a mirror makes them left."""
    finder = detector("blazepose", hands=True, levels=0)
    assert finder is not None
    told = []
    for shot in photograph_hands(whole(4, 3, 2.0), BodyConfig(kind="open_hand"), range(4)):
        for image, left in ((shot.image, False), (np.ascontiguousarray(shot.image[:, ::-1]), True)):
            for found in finder(image)[:1]:
                told.append(found.left == left)
                if not left:
                    assert iou(found, true_box(shot)) > 0.5
    assert len(told) >= 4
    assert np.mean(told) > 0.7


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
