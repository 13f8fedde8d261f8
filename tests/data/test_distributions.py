"""Histograms of a prepared set."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from metro.data.shards import ShardDataset
from metro.data.verify import distributions
from tests.data import people

UPRIGHT = Rotation.from_euler("x", 180, degrees=True)
"""Turns a body (y up, facing +z) into the camera frame (y down, z away): it looks into the camera."""


@pytest.mark.parametrize("heading", [0, 75, -100, 160])
def test_headings_are_told_from_the_camera(prepare, tmp_path, monkeypatch, heading):
    def turned(number):
        # Seen from the camera, a person who looks to the right of the picture looks along +x.
        looks = Rotation.from_euler("y", -heading, degrees=True) * UPRIGHT
        pose = np.zeros(72)
        pose[:3] = looks.as_rotvec()
        assert np.allclose(looks.apply([0, 0, 1]), [np.sin(np.deg2rad(heading)), 0, -np.cos(np.deg2rad(heading))])
        return whole(number, pose_aa=pose)

    whole = people.person
    monkeypatch.setattr(people, "person", turned)
    prepare(tmp_path, count=3)
    found = distributions(ShardDataset(tmp_path))["heading_deg"]
    (place,) = np.flatnonzero(found["counts"])
    assert found["counts"][place] == 3
    assert found["edges"][place] <= heading <= found["edges"][place + 1]


def test_boxes_and_bends_are_counted(made):
    found = distributions(ShardDataset(made))
    sides = dict(zip(found["box_px"]["edges"], found["box_px"]["counts"], strict=False))
    assert {edge: count for edge, count in sides.items() if count} == {91.0: 20}  # all boxes are 100 px
    assert sum(found["bend_deg"]["counts"]) == 20 * 23


def test_sets_without_meshes_have_boxes_alone(prepare, tmp_path):
    prepare(tmp_path, count=3, supervision="joints_2d")
    assert [*distributions(ShardDataset(tmp_path))] == ["box_px"]
