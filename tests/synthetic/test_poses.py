"""Poses of synthetic people: limits, overlap, mirroring, balance, and streams that know nothing of each other."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.errors import MetroError
from metro.synthetic import poses as ps
from metro.synthetic.archetypes import pose_table, read_poses
from metro.synthetic.overlap import overlap, segment_distance
from metro.synthetic.rotations import rotation_vector
from metro.synthetic.skinning import prepare_skin, rest_joints
from metro.synthetic.streams import Stream, stream

COUNT = 400


@pytest.fixture(scope="module")
def rest():
    return np.repeat(rest_joints(prepare_skin(load_body("open")), np.zeros((1, 10))), COUNT, 0)


@pytest.fixture(scope="module")
def people(rest):
    return ps.sample_poses(5, range(COUNT), rest)


def test_nobody_overlaps_themselves(people, rest):
    joints = ps.forward_kinematics(people.rot, rest)
    assert (overlap(joints) <= 0).all()
    assert np.mean(people.attempts == 1) > 0.75  # rejection is the exception


def test_overlap_sees_a_hand_in_the_chest_and_legs_that_cross(rest):
    angles = np.zeros((2, 24, 3))
    name = JOINT_SETS["SMPL24"].index
    angles[0, name("left_shoulder")] = [0, -100, -25]
    angles[0, name("left_elbow")] = [0, -120, 0]
    angles[1, name("left_hip")] = [0, 0, -25]
    joints = ps.forward_kinematics(ps.joint_rotations(angles), rest[:2])
    assert (overlap(joints) > 0).all()
    assert overlap(ps.forward_kinematics(ps.joint_rotations(0 * angles), rest[:2])).max() <= 0


def test_segment_distance_equals_a_dense_search():
    g = np.random.default_rng(0)
    p, q, r, s = g.normal(size=(4, 50, 3))
    t = np.linspace(0, 1, 300)[:, None, None]
    first, second = p + t * (q - p), r + t * (s - r)
    brute = np.array([np.linalg.norm(first[:, k, None] - second[None, :, k], axis=-1).min() for k in range(50)])
    exact = segment_distance(p, q, r, s)
    assert (exact <= brute + 1e-9).all()
    np.testing.assert_allclose(exact, brute, atol=0.03)


def test_rotations_are_the_ones_scipy_makes():
    angles = np.random.default_rng(1).uniform(-150, 150, (20, 24, 3))
    made = ps.joint_rotations(angles)
    elbow, knee = JOINT_SETS["SMPL24"].index("left_elbow"), JOINT_SETS["SMPL24"].index("left_knee")
    arm = Rotation.from_euler("YZX", angles[:, elbow][:, [1, 2, 0]], degrees=True).as_matrix()
    leg = Rotation.from_euler("XZY", angles[:, knee][:, [0, 2, 1]], degrees=True).as_matrix()
    np.testing.assert_allclose(made[:, elbow], arm, atol=1e-12)
    np.testing.assert_allclose(made[:, knee], leg, atol=1e-12)
    np.testing.assert_allclose(Rotation.from_rotvec(rotation_vector(arm)).as_matrix(), arm, atol=1e-12)


def test_rotation_vector_at_the_identity_and_at_half_turns():
    turns = np.stack([np.eye(3), *(Rotation.from_rotvec(np.pi * axis).as_matrix() for axis in np.eye(3))])
    vectors = rotation_vector(turns)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [0, np.pi, np.pi, np.pi], atol=1e-9)
    np.testing.assert_allclose(Rotation.from_rotvec(vectors).as_matrix(), turns, atol=1e-9)


def test_knees_and_elbows_bend_one_way_and_within_limits(people):
    bend = Rotation.from_matrix(people.rot.reshape(-1, 3, 3)).as_rotvec(degrees=True).reshape(COUNT, 24, 3)
    name = JOINT_SETS["SMPL24"].index
    for side, sign in (("left", 1), ("right", -1)):
        assert (bend[:, name(f"{side}_knee"), 0] > -6).all()
        assert (sign * bend[:, name(f"{side}_elbow"), 1] < 15).all()
    assert np.degrees(np.linalg.norm(np.radians(bend[:, name("head")]), axis=-1)).max() < 60


def test_left_and_right_are_treated_alike(people):
    angle = np.linalg.norm(Rotation.from_matrix(people.rot.reshape(-1, 3, 3)).as_rotvec(), axis=1).reshape(COUNT, 24)
    left = [j for j, n in enumerate(ps.NAMES) if n.startswith("left_")]
    mirrored = ps.MIRROR[left]
    # Means over 400 people, so within a few standard errors of each other.
    error = (angle[:, left] - angle[:, mirrored]).std(0) / np.sqrt(COUNT)
    assert (np.abs((angle[:, left] - angle[:, mirrored]).mean(0)) < 5 * error + 1e-9).all()


def test_standing_people_have_their_mass_over_their_feet(people, rest):
    joints = ps.forward_kinematics(people.rot, rest)
    name = JOINT_SETS["SMPL24"].index
    stand = np.array([a in ("stand", "walk", "reach_forward") for a in people.archetype])
    feet = joints[:, [name("left_ankle"), name("right_ankle"), name("left_foot"), name("right_foot")]]
    trunk = joints[:, [name("pelvis"), name("spine2"), name("spine3"), name("head")]].mean(1)
    places = np.stack([feet[:, ::2].mean(1), feet[:, 1::2].mean(1), feet.mean(1)], 1)  # on either leg or both
    away = np.linalg.norm((trunk[:, None] - places)[..., [0, 2]], axis=-1).min(1)
    assert stand.sum() > 50
    assert np.quantile(away[stand], 0.9) < 0.3


def test_every_archetype_without_noise_is_free_of_overlap(rest):
    table = pose_table()
    angles = np.where(ps.IS_RIGHT[:, None], table.angles * [1, -1, -1], table.angles)
    joints = ps.forward_kinematics(ps.joint_rotations(angles), rest[: len(angles)])
    bad = [name for name, deep in zip(table.names, overlap(joints), strict=True) if deep > 0.02]
    assert not bad
    stand = table.names.index("stand")
    assert overlap(joints)[stand] <= 0  # the last resort of the sampler


def test_any_person_can_be_drawn_alone_and_seeds_share_nobody(people, rest):
    alone = ps.sample_poses(5, [17], rest[:1])
    np.testing.assert_array_equal(alone.rot[0], people.rot[17])
    other = ps.sample_poses(6, range(50), rest[:50])
    gap = np.abs(other.rot[:, None, 1:] - people.rot[None, :50, 1:]).max((2, 3, 4))
    assert gap.min() > 1e-3


def test_streams_of_one_person_differ_by_purpose_and_attempt():
    draws = {stream(1, 2, purpose, attempt).random() for purpose in Stream for attempt in range(3)}
    assert len(draws) == 3 * len(Stream)


def test_pastimes_are_taken_by_the_share_asked_for_and_change_nobody_else(people, rest):
    names = pose_table().names
    first = names.index("forehand")
    everyday, mixed = people, ps.sample_poses(5, range(COUNT), rest, pastimes=0.4)
    kind = np.array([names.index(name) if name in names else -1 for name in mixed.archetype])
    once = (everyday.attempts == 1) & (mixed.attempts == 1)  # who is drawn again is somebody else
    assert (kind[once] >= first).mean() == pytest.approx(0.88 * 0.4, abs=0.06)
    assert not any(name in names[first:] for name in everyday.archetype)
    same = once & (kind < first)
    np.testing.assert_array_equal(mixed.rot[same], everyday.rot[same])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "elbow: [0, -12, 0]",
            "elbow: [0, -212, 0]",
            r"archetypes: stand: elbow: -212.0 is beyond -145.0 to 0.0",
        ),
        ("  cheer:", "  stand:", r"pastimes: stand: is among the archetypes too"),
        ("left_hip:", "left_hipp:", r"archetypes: contrapposto: there is no joint 'left_hipp'"),
        ("weight: 3", "weight: 0", r"archetypes: stand: weight: Input should be greater than 0"),
        ("support: seat", "support: sofa", r"archetypes: sit: support: Input should be 'feet', "),
        ("  hip: {", "  left_hip: {", r"parts: hip, left_hip: unknown, missing or a single side"),
    ],
)
def test_a_mistake_in_the_file_of_poses_is_told_in_one_line(tmp_path, old, new, complaint):
    text = (Path(ps.__file__).parent / "data" / "poses.yaml").read_text()
    assert old in text
    broken = tmp_path / "poses.yaml"
    broken.write_text(text.replace(old, new, 1))
    with pytest.raises(MetroError, match=f"^{broken}: {complaint}"):
        read_poses(broken)
