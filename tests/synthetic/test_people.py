"""Synthetic people: exact labels, pictures that agree with them, and bytes that depend on nothing but the seed."""

import cv2
import numpy as np
import pytest
import torch

from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import BodyConfig, CropConfig, DatasetConfig
from metro.options import SyntheticOptions
from metro.sources import synthetic
from metro.sources.index import build_index
from metro.synthetic.camera import BOX_SCALE
from metro.synthetic.looks import landmarks
from metro.synthetic.people import make_people, open_studio
from metro.synthetic.scene import LEAST_VISIBLE, annotate, photograph_people
from metro.synthetic.skinning import prepare_skin, shape_and_pose
from metro.synthetic.textures import PHOTOGRAPHS
from tests.synthetic.reading import read_shard

BODY = BodyConfig()
COUNT = 16


def settings(seed=3, count=COUNT, shard_size=8, split="train", **synthetic):
    return DatasetConfig(
        split=split,
        shard_size=shard_size,
        crop=CropConfig(box_px=64),
        options=SyntheticOptions(seed=seed, count=count, **synthetic),
    )


@pytest.fixture(scope="module")
def model():
    return BodyModel(load_body("open"))


@pytest.fixture(scope="module")
def records():
    return list(read_shard(settings(), BODY, 0, COUNT))


@pytest.fixture(scope="module")
def clear():
    """Shots and records of people whom nothing hides or cuts."""
    config = settings(seed=9, count=12, occlusion=0, truncation=0)
    shots = list(photograph_people(config, BODY, range(12)))
    studio = open_studio(BODY, "train")
    return shots, [annotate(studio, shot, 9, index) for index, shot in enumerate(shots)]


def test_a_skirt_may_end_where_calves_have_no_vertex():
    """Of 60,000 people this one, tall and in a long skirt, is such a one."""
    config = settings(seed=22, count=50000, heading_uniform=1.0, uniform_pose=0.1, pastimes=0.3, occlusion=0.35)
    (shot,) = photograph_people(config, BODY, [20017])
    record = annotate(open_studio(BODY, "train"), shot, 22, 20017)
    record.check()
    assert record.has_mesh


def test_records_are_valid_and_complete(records):
    assert len(records) == COUNT
    assert len({record.name for record in records}) == COUNT
    for record in records:
        record.check()
        assert record.has_2d
        assert record.has_3d
        assert record.has_mesh
        assert record.mesh_origin == "synthetic"


def test_pose_shape_and_translation_land_on_the_joints(records, model):
    stack = {k: torch.tensor(np.stack([getattr(r, k) for r in records])) for k in ("pose_aa", "betas", "transl")}
    output = model(stack["pose_aa"], stack["betas"], stack["transl"])
    joints = model.regress("j24", output.vertices).numpy()
    labelled = np.stack([r.joints_3d for r in records])
    np.testing.assert_allclose(joints, labelled[..., :3], atol=2e-5)
    assert (labelled[..., 3] == 1).all()


def test_joints_project_onto_the_2d_labels_and_leave_the_frame_without_confidence():
    config = settings(seed=4, count=24, truncation=1)
    lost = 0
    for record in read_shard(config, BODY, 0, 24):
        seen = record.joints_3d[:, :3].astype(float) @ record.intrinsics.astype(float).T
        pixels = seen[:, :2] / seen[:, 2:]
        side = record.image.shape[0]
        inside = ((pixels > -0.5) & (pixels < side - 0.5)).all(1)
        np.testing.assert_array_equal(record.keypoints_2d[:, 2] > 0, inside)
        np.testing.assert_allclose(record.keypoints_2d[inside, :2], pixels[inside], atol=1e-3)
        assert (record.keypoints_2d[~inside] == 0).all()
        lost += int((~inside).any())
    assert lost >= 12


def test_the_body_lies_where_the_picture_shows_it(clear, model):
    shots, records = clear
    for shot, record in zip(shots, records, strict=True):
        arrays = [torch.tensor(a[None]) for a in (record.pose_aa, record.betas, record.transl)]
        verts = model(*arrays).vertices[0].numpy()
        seen = verts @ record.intrinsics.T
        pixels = np.rint(seen[:, :2] / seen[:, 2:]).astype(int)
        size = record.image.shape[0]
        assert ((pixels >= 0) & (pixels < size)).all()
        # The clothes stand off the skin, so the silhouette holds the whole body but for what a seat hides.
        silhouette = cv2.dilate((shot.visible > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
        assert silhouette[pixels[:, 1], pixels[:, 0]].mean() > (0.995 if shot.hidden == 0 else 0.5)
        x, y, w, h = record.box
        low, high = pixels.min(0), pixels.max(0)
        np.testing.assert_allclose([x + w / 2, y + h / 2], (low + high) / 2, atol=1)
        np.testing.assert_allclose([w, h], BOX_SCALE * (high - low), atol=2.5)


def test_the_person_is_large_enough_for_the_stored_crop_and_the_frame_is_not_wasted(clear):
    for record in clear[1]:
        assert 64 <= max(record.box[2:]) <= 64 * 1.16
        assert record.image.shape[0] < 64 * 1.5 * 1.3


def test_left_is_left(clear):
    """Who faces the camera has the left shoulder on the right of the picture, and the head above the ankles."""
    config = settings(seed=2, count=20, heading_sd_deg=0, heading_uniform=0, uniform_pose=0, truncation=0)
    joints = np.stack([r.joints_3d[:, :3] for r in read_shard(config, BODY, 0, 20)])
    right, left = joints[:, 8], joints[:, 9]
    assert (left[:, 0] > right[:, 0]).mean() > 0.8  # twisted and lying people aside
    assert (joints[:, 18, 1] < joints[:, [0, 5], 1].mean(1)).mean() > 0.8


def test_bytes_depend_on_the_seed_and_index_alone(records, tmp_path):
    index = build_index(tmp_path / "index", "", synthetic.rows(settings(), BODY), "", progress=False)
    ranges = index.ranges(5)
    assert len(ranges) == 4
    again = {}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for start, stop in reversed(ranges):
            again |= {record.name: record for record in synthetic.read(settings(), BODY, index.read(start, stop))}
    finally:
        cv2.setNumThreads(threads)
    for record in records:
        twin = again[record.name]
        for field in ("image", "box", "keypoints_2d", "joints_3d", "pose_aa", "betas", "transl", "intrinsics"):
            np.testing.assert_array_equal(getattr(record, field), getattr(twin, field))
    alone = next(iter(read_shard(settings(), BODY, 11, 12)))
    np.testing.assert_array_equal(alone.image, records[11].image)


def test_seeds_share_no_person(records):
    for other in read_shard(settings(seed=4), BODY, 0, COUNT):
        for record in records:
            assert np.abs(other.betas - record.betas).max() > 1e-3
            assert np.abs(other.pose_aa[3:] - record.pose_aa[3:]).max() > 1e-3
            assert (other.image != record.image).mean() > 0.5


def test_occlusion_is_as_frequent_as_asked_and_leaves_something_to_see():
    def hidden(probability):
        config = settings(seed=6, count=32, occlusion=probability, truncation=0)
        return np.array([shot.hidden for shot in photograph_people(config, BODY, range(32))])

    with_objects, without = hidden(1.0), hidden(0.0)
    assert (with_objects > 0.03).mean() > 0.5
    assert with_objects.mean() > 0.1
    assert (without > 0.03).mean() < 0.2  # chairs hide the legs of people who sit
    assert with_objects.max() <= 1 - LEAST_VISIBLE + 1e-6 or without.max() > 1 - LEAST_VISIBLE


def test_heading_follows_the_settings():
    studio = open_studio(BODY, "train")
    everywhere = settings(heading_uniform=1, uniform_pose=0).chosen(SyntheticOptions)
    ahead = settings(heading_uniform=0, heading_sd_deg=20, uniform_pose=0).chosen(SyntheticOptions)
    degrees = []
    for config in (everywhere, ahead):
        forwards = np.stack([person.rot[0][:, 2] for person in make_people(studio, config, range(120))])
        degrees.append(np.abs(np.degrees(np.arctan2(forwards[:, 0], forwards[:, 2]))))
    assert 70 < degrees[0].mean() < 110
    assert 8 < np.median(degrees[1]) < 20


def test_nobody_sinks_into_the_floor(clear):
    for shot in clear[0]:
        assert -1e-4 < shot.person.low[1] < 0.26


def test_skinning_equals_the_differentiable_layer(model):
    data = load_body("open")
    skin = prepare_skin(data)
    g = np.random.default_rng(0)
    betas, rot = g.normal(size=(3, 10)), np.linalg.qr(g.normal(size=(3, 24, 3, 3)))[0]
    rot *= np.linalg.det(rot)[..., None, None]
    transl = g.normal(size=(3, 3))
    tensors = [torch.tensor(a, dtype=torch.float32) for a in (betas, rot, transl)]
    expected = model(None, tensors[0], tensors[2], pose_rot=tensors[1])
    for k in range(3):
        verts, joints, _ = shape_and_pose(skin, betas[k], rot[k], transl[k])
        np.testing.assert_allclose(verts, expected.vertices[k].numpy(), atol=1e-5)
        np.testing.assert_allclose(joints, expected.joints[k].numpy(), atol=1e-5)


def test_landmarks_lie_in_the_order_of_a_body():
    m = landmarks(load_body("open"))
    down = ["top", "eye", "nose", "mouth", "chin", "neck", "chest", "waist", "hip", "crotch", "knee", "ankle", "sole"]
    assert (np.diff([m[f"{name}_y"] for name in down]) < 0).all()
    assert m["shoulder_x"] < m["elbow_x"] < m["wrist_x"]
    assert 0.01 < m["eye_x"] < m["ear_x"]


def test_tests_see_no_photograph_of_training():
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["test"])
