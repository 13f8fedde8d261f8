"""Synthetic hands: exact labels, hands that bend as hands do, and nothing that depends on the schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import Record
from metro.errors import MetroError
from metro.options import SyntheticOptions
from metro.sources import synthetic
from metro.synthetic.hands import (
    add_hand,
    finger_rotations,
    make_hands,
    photograph_hands,
)
from metro.synthetic.people import open_studio
from metro.synthetic.rotations import uniform_rotation
from metro.synthetic.stage import Stage
from metro.synthetic.streams import Stream, stream
from tests.synthetic.reading import read_shard

HAND = BodyConfig(kind="open_hand")
CONFIG = DatasetConfig(options=SyntheticOptions(count=12, seed=3, heading_uniform=0.5, truncation=0.0, occlusion=0.0))


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return list(read_shard(CONFIG, HAND, 0, 12))


def test_labels_are_what_the_hand_model_says(records: list[Record]) -> None:
    """Pose, shape and translation give the labelled joints, and these project to the labelled pixels."""
    model = BodyModel(load_body("open_hand"))
    for record in records:
        record.check(model.figure)
        arrays = [torch.from_numpy(np.asarray(a))[None] for a in (record.pose_aa, record.betas, record.transl)]
        joints = model.true_joints(model(*arrays))[0].numpy()
        np.testing.assert_allclose(record.joints_3d[:, :3], joints, atol=1e-4)
        pixels = joints @ record.intrinsics.T
        seen = record.keypoints_2d[:, 2] > 0
        assert seen.sum() > 10
        np.testing.assert_allclose((pixels[:, :2] / pixels[:, 2:])[seen], record.keypoints_2d[seen, :2], atol=0.05)


def test_the_picture_shows_the_hand_where_its_mesh_is() -> None:
    for shot in photograph_hands(CONFIG, HAND, range(6)):
        camera = shot.camera
        seen = camera.see(shot.person.verts)
        pixels = np.rint(seen[:, :2] / seen[:, 2:] * camera.focal + [camera.cx, camera.cy]).astype(int)
        inside = ((pixels >= 1) & (pixels < camera.size - 1)).all(1)
        assert inside.mean() > 0.9
        covered = shot.visible > 0
        near = covered[:-2, :-2] | covered[1:-1, 1:-1] | covered[2:, 2:]  # a vertex on the outline may round outside
        u, v = pixels[inside].T
        assert near[v - 1, u - 1].mean() > 0.85  # the rest is behind the arm


def test_people_in_other_company_are_the_same(records: list[Record]) -> None:
    alone = next(iter(read_shard(CONFIG, HAND, 7, 8)))
    assert np.array_equal(alone.image, records[7].image)
    assert np.array_equal(alone.pose_aa, records[7].pose_aa)


def test_fingers_curl_towards_the_palm() -> None:
    """Straight to bent, every fingertip moves to -y in the frame of the palm, and no joint bends far backwards."""
    turns = np.stack([finger_rotations(stream(0, i, Stream.POSE), 0.2) for i in range(200)])
    tilt = np.rad2deg(np.arctan2(turns[:, 1:, 1, 0], turns[:, 1:, 0, 0]))[:, [0, 1, 3, 4, 6, 7, 9, 10]]
    assert tilt.min() > -25
    assert tilt.max() > 80
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-9)
    assert np.array_equal(turns[:, 0], np.broadcast_to(np.eye(3), (200, 3, 3)))


def test_the_arm_points_away_from_the_camera() -> None:
    studio = open_studio(HAND, "train")
    for config in (SyntheticOptions(seed=1, heading_uniform=1.0), SyntheticOptions(seed=2, heading_uniform=0.0)):
        assert max(hand.rot[0][2, 0] for hand in make_hands(studio, config, range(50))) < 0.6


def test_turns_are_uniform() -> None:
    """Every matrix entry of a uniform rotation has mean 0 and mean square 1/3."""
    g = np.random.default_rng(0)
    turns = np.stack([uniform_rotation(g) for _ in range(4000)])
    np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    np.testing.assert_allclose(turns.mean(0), 0, atol=0.04)
    np.testing.assert_allclose((turns**2).mean(0), 1 / 3, atol=0.03)


def test_the_arm_closes_the_wrist() -> None:
    """Hand and forearm are one surface: the only rim left is at the elbow, out of sight."""
    from metro.mesh.topology import boundary_edges

    studio = open_studio(HAND, "train")
    stage = Stage()
    hand = make_hands(studio, CONFIG.chosen(SyntheticOptions), [0])[0]
    own = add_hand(stage, np.random.default_rng(0), studio, hand)
    assert own == len(studio.skin.faces)
    rim = boundary_edges(stage.faces[0])
    assert len(rim) == len(boundary_edges(studio.skin.faces))
    assert rim.min() >= len(hand.verts)


def test_bodies_without_a_synthetic_source_are_refused() -> None:
    with pytest.raises(MetroError, match="synthetic source makes people"):
        synthetic.survey(CONFIG, BodyConfig(kind="smplx"))
