"""A real photograph of COCO with its annotation through the adapter (not part of the project)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, DatasetConfig
from metro.data.crop import cut
from metro.data.records import Record
from metro.sources import coco
from metro.sources.source import Row
from tests.reference import reference


def test_a_real_annotation_becomes_its_record(tmp_path: Path) -> None:
    for name, path in [("person_keypoints_785.json", "annotations/person_keypoints_val2017.json"),
                       ("000000000785.jpg", "val2017/000000000785.jpg")]:  # fmt: skip
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_bytes(reference(f"real/{name}").read_bytes())
    config = DatasetConfig(source="coco", root=tmp_path, split="validation", supervision="joints_2d")
    survey = coco.survey(config, BodyConfig())
    assert all(file.found for file in survey.files)
    assert not survey.missing
    (row,) = coco.rows(config, BodyConfig())
    assert isinstance(row, Row)
    (record,) = coco.read(config, BodyConfig(), [row])
    assert isinstance(record, Record)
    record.check()
    assert record.name == "coco:val2017/000000000785.jpg#442619"
    assert record.keypoints_2d is not None
    named = dict(zip(JOINT_SETS["J24"], record.keypoints_2d.tolist(), strict=True))
    assert named["Nose"] == [367, 81, 1]
    assert named["R_Wrist"] == [309, 178, 1]
    assert named["L_Ankle"] == [466, 362, 1]
    assert sum(confidence for _, _, confidence in named.values()) == 17
    center, scale = record.crop_square()
    assert np.allclose(center, [280.79 + 218.7 / 2 - 0.5, 44.73 + 346.68 / 2 - 0.5])
    assert np.isclose(200 * scale, 1.2 * 346.68)
    # The skier's trousers are dark, the snow beside her is bright: the crop shows her where the joints are.
    assert isinstance(record.image, Path)
    crop, affine_23 = cut(record.image, center, scale, 224, 1.0)
    knee = affine_23 @ [*named["L_Knee"][:2], 1]
    x, y = np.round(knee).astype(int)
    assert crop[y, x].mean() + 40 < crop[y, 10].mean()
    assert Image.open(record.image).size == (640, 425)
