"""A real frame of MPI-INF-3DHP through the adapter (research licence: it stays outside of the project)."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import scipy.io

from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import Record
from metro.sources import mpi_inf_3dhp
from tests.reference import reference

# Published places among the set's 28 joints of the value's own 17, which are in this order:
# htop neck rsho relb rwri lsho lelb lwri rhip rkne rank lhip lkne lank pelvis spine head
PLACES = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]


def test_a_real_frame_falls_on_its_own_pixels_through_one_camera(tmp_path: Path) -> None:
    """Metres of the camera's frame go through one pinhole camera to the annotated pixels, but for 2.2 px."""
    true = json.loads(reference("real/true_values.json").read_text())["mpi_inf_3dhp"]
    folder = tmp_path / "S4/Seq2"
    (folder / "imageSequence").mkdir(parents=True)
    pixels, points = np.zeros((1, 28, 2)), np.zeros((1, 28, 3))
    pixels[0, PLACES], points[0, PLACES] = true["part_px"], 1000 * np.array(true["S_m"])
    cells = {"annot2": np.empty((14, 1), object), "annot3": np.empty((14, 1), object)}
    cells["annot2"][:, 0] = [pixels.reshape(1, 56)] * 14
    cells["annot3"][:, 0] = [points.reshape(1, 84)] * 14
    scipy.io.savemat(folder / "annot.mat", cells)
    camera = "name 0\n intrinsic 1500 0 1024 0 0 1500 1024 0 0 0 1 0 0 0 0 1\n"
    (folder / "camera.calibration").write_text("Skeletool Camera Calibration File V1.0\n" + camera)
    writer = cv2.VideoWriter(
        str(folder / "imageSequence/video_0.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (2048, 2048)
    )
    writer.write(np.zeros((2048, 2048, 3), np.uint8))
    writer.release()
    config = DatasetConfig(
        source="mpi_inf_3dhp",
        root=tmp_path,
        supervision="joints_3d",
        options={"cameras": (0,)},  # type: ignore[arg-type]
    )
    (row,) = mpi_inf_3dhp.rows(config, BodyConfig())
    (record,) = mpi_inf_3dhp.read(config, BodyConfig(), [row])  # type: ignore[list-item]
    assert isinstance(record, Record)
    record.check()
    joints, seen = np.asarray(record.joints_3d), np.asarray(record.keypoints_2d)
    named = dict(zip(JOINT_SETS["J24"], joints, strict=True))
    assert np.round(named["Pelvis"][:3], 4).tolist() == [0.0869, 1.2734, 3.8423]
    assert np.round(named["R_Ankle"][:3], 6).tolist() == [0.720705, 1.43287, 3.37701]
    known = joints[:, 3] > 0
    assert known.sum() == 17
    rays = joints[known, :2] / joints[known, 2:3]
    for axis in range(2):
        line = np.polyfit(rays[:, axis], seen[known, axis], 1)
        assert 1400 < line[0] < 1600  # the focal length
        assert np.abs(np.polyval(line, rays[:, axis]) - seen[known, axis]).max() < 2.2
