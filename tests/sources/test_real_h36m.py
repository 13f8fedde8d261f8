"""Real values of Human3.6M, where there are any: its own metadata.xml, and one frame of S1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np

from metro.config import BodyConfig
from metro.data.lens import project
from metro.data.records import Record
from metro.sources import h36m
from metro.sources.h36m_files import CAMERAS, Sequence, read_metadata
from metro.sources.source import Row
from tests.reference import reference
from tests.sources.test_h36m import IN_J24, PICKED, config, write_cdf


def test_cameras_names_and_sizes_are_those_of_the_set() -> None:
    path = reference("real/h36m/metadata.xml")
    metadata = read_metadata(path.parent)
    assert len(metadata.names) == 11 * 30
    names = {s: {name for (subject, *_), name in metadata.names.items() if subject == s} for s in range(1, 12)}
    assert {"TakingPhoto", "WalkingDog 1", "Directions 1", "Directions"} <= names[1]
    assert {"Photo 2", "WalkDog", "Directions 1", "Directions 2"} <= names[5]
    assert {"Phoning 2", "Phoning"} <= names[7]
    assert {"Greeting", "SittingDown 1", "Waiting 1"} <= names[9]
    assert not any(name.startswith("_") for mine in names.values() for name in mine)
    tall = [[1002, 1000]] * 4
    assert {s for s, sizes in metadata.sizes.items() if sizes == tall} == {4, 7, 10}
    assert metadata.sizes[9] == [[1002, 1000], [1000, 1000], [1000, 1000], [1002, 1000]]


def test_a_frame_of_s1_projects_to_where_the_set_says() -> None:
    metadata = read_metadata(reference("real/h36m/metadata.xml").parent)
    frame = json.loads(reference("real/true_values.json").read_text())["h36m"]
    takes = metadata.sequences([1], [CAMERAS.index("54138969")])
    camera = metadata.camera(next(take for take in takes if take.group == "S1/Directions 1.54138969"))
    world, seen, pixels = (np.array(frame[name]) for name in ("d3_world_m", "d3_mono_m", "d2_px"))
    assert np.abs(world @ camera.rotation_33.T + camera.translation_3 - seen).max() < 1e-6
    assert np.abs(project(seen, camera.intrinsics_33, camera.distortion_8, "h36m") - pixels).max() < 1e-4
    assert np.abs(project(seen, camera.intrinsics_33, camera.distortion_8, "opencv") - pixels).max() > 0.05
    other = metadata.camera(Sequence(5, 2, 1, "Directions 1", 0))
    assert np.abs(world @ other.rotation_33.T + other.translation_3 - seen).max() > 0.01


def test_a_frame_of_s1_becomes_a_record(tmp_path: Path) -> None:
    shutil.copy(reference("real/h36m/metadata.xml"), tmp_path)
    frame = json.loads(reference("real/true_values.json").read_text())["h36m"]
    order = [PICKED.index({0: 11}.get(i, i)) if i != 13 else PICKED.index(24) for i in frame["index_of_32"]]
    for kind, name, unit in (("D2_Positions", "d2_px", 1), ("D3_Positions_mono", "d3_mono_m", 1000)):
        values = np.zeros((1, 32, len(frame[name][0])))
        values[:, np.array(PICKED)[order]] = unit * np.array(frame[name])
        write_cdf(tmp_path / f"S1/Poses_{kind}/Directions 1.54138969.cdf", values.reshape(1, -1))
    path = tmp_path / frame["file"]
    path.parent.mkdir()
    cv2.imwrite(str(path), np.zeros((1002, 1000, 3), np.uint8))
    rows = [row for row in h36m.rows(config(tmp_path), BodyConfig()) if isinstance(row, Row)]
    (record,) = h36m.read(config(tmp_path), BodyConfig(), rows)
    assert isinstance(record, Record)
    record.check()
    assert record.name == f"h36m:{frame['file']}#0"
    seen = np.array(IN_J24)[order]
    assert np.abs(record.keypoints_2d[seen, :2] - frame["d2_px"]).max() < 1e-4
    assert np.abs(record.joints_3d[seen, :3] - frame["d3_mono_m"]).max() < 1e-6
    again = project(record.joints_3d[seen, :3], record.intrinsics, record.distortion, record.lens)
    assert np.abs(again - frame["d2_px"]).max() < 1e-4
