"""A real person of MPII, in the forms that two conversions give it, through the adapter (not part of the project)."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from metro.config import BodyConfig, DatasetConfig
from metro.data.records import Record
from metro.sources import mpii
from metro.sources.source import Row
from tests.reference import reference


def only_record(root: Path) -> Record:
    config = DatasetConfig(source="mpii", root=root, supervision="joints_2d")
    (row,) = mpii.rows(config, BodyConfig())
    assert isinstance(row, Row)
    (record,) = mpii.read(config, BodyConfig(), [row])
    record.check()
    return record


def test_a_real_person_is_the_same_in_json_and_h5(tmp_path: Path) -> None:
    values = json.loads(reference("real/true_values.json").read_text())
    (tmp_path / "train.json").write_text(json.dumps([values["mpii_hrnet_json_row"]]))
    first = only_record(tmp_path)
    (tmp_path / "train.json").unlink()
    row = values["mpii_h5_row"]
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["imgname"] = np.array([b"005808361.jpg"])
        file["person"] = [0]
        file["part"], file["center"], file["scale"] = [row["part"]], [row["center"]], [row["scale"]]
    second = only_record(tmp_path)
    for record in (first, second):
        assert record.frame == "images/005808361.jpg"
        assert record.keypoints_2d is not None
        assert record.keypoints_2d[0].tolist() == [803, 710, 1]  # right ankle
        center, scale = record.crop_square()
        assert np.allclose(center, [965, 409.7773], atol=1e-4)
        assert np.isclose(scale, 5.89811)
    assert first.keypoints_2d is not None
    assert second.keypoints_2d is not None
    lost = first.keypoints_2d - second.keypoints_2d
    assert (lost >= 0).all()
    assert (lost < 1).all()
    assert first.keypoints_2d[13].tolist() == [961.2409, 79.0306, 1]  # top of the head
