"""A real photograph with a real annotation goes through the predictor; skipped where the photograph is not at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from metro.export.bundle import bundle_of
from metro.export.networks import TorchNetwork
from metro.export.predictor import Predictor, read_image
from tests.conftest import World
from tests.reference import reference


def test_photograph(world: World, tmp_path: Path) -> None:
    photograph = reference("real/000000000785.jpg")
    people = json.loads(reference("real/person_keypoints_785.json").read_text())["annotations"]
    boxes = [person["bbox"] for person in people]
    predictor = Predictor(TorchNetwork(bundle_of(world.model, world.data, world.levels), "cpu"))
    found = predictor(photograph, boxes)
    picture = read_image(photograph)
    assert len(found) == len(boxes)
    for prediction, (x, y, w, h) in zip(found, boxes, strict=True):
        # The untrained network stands the template in the middle of the crop: its joints must fall around the box.
        centre = prediction.joints_2d.mean(0)
        assert abs(centre[0] - (x + w / 2)) < w
        assert abs(centre[1] - (y + h / 2)) < h / 2
        assert np.any(prediction.overlay(picture) != picture)
        assert prediction.save_glb(tmp_path / "a.glb").stat().st_size > 100_000
