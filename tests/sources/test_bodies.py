"""Bodies of raw sources: the pivot rule, and joints and meshes equal to those of the differentiable layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import BodyConfig, DatasetConfig
from metro.errors import MetroError
from metro.sources.bodies import Bodies, rotations, to_camera, wrapped

OWN, OPEN = DatasetConfig(), BodyConfig()
GENDERS = ("neutral", "female", "male")


def posed(kind: str, gender: str, pose: np.ndarray, betas: np.ndarray, transl: np.ndarray) -> tuple[np.ndarray, ...]:
    """Vertices, kinematic and annotated joints by the layer that training uses, in double precision."""
    body = BodyModel(load_body(kind, gender), torch.float64)
    out = body(*(torch.from_numpy(a) for a in (pose, betas, transl)))
    return (*(a.numpy() for a in out), body.regress(body.figure.label_regressor, out.vertices).numpy())


def people(joints: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses, shapes and translations of three people; the first stands still, the last turns by more than π."""
    g = np.random.default_rng(seed)
    pose = g.normal(0, 0.4, (3, 3 * joints))
    pose[0] = 0
    pose[2, :3] = [3.0, -2.0, 1.0]
    return pose, g.normal(0, 1.5, (3, 10)), g.normal(0, 2, (3, 3))


@pytest.mark.parametrize("gender", GENDERS)
def test_a_body_in_the_camera_frame_is_the_one_of_the_world_moved(gender: str) -> None:
    """One camera per person, as in 3DPW, and one for all, as in Human3.6M."""
    pose, betas, transl = people(24)
    turn, shift = Rotation.random(3, random_state=1).as_matrix(), np.array([[0.3, -1, 4], [9, 2, 5], [0, 0, 1.0]])
    world = posed("open", gender, pose, betas, transl)[0]
    pelvis = Bodies(OWN, OPEN).pelvis(gender, betas)
    for rotation, translation in ((turn, shift), (turn[0], shift[0])):
        moved = np.einsum("...ij,nvj->nvi" if rotation.ndim == 2 else "nij,nvj->nvi", rotation, world)
        moved += np.broadcast_to(translation, (3, 3))[:, None]
        camera_pose, camera_transl = to_camera(rotation, translation, pose, transl, pelvis)
        found = posed("open", gender, camera_pose, betas, camera_transl)[0]
        assert np.abs(found - moved).max() < 1e-6
        assert np.linalg.norm(camera_pose[:, :3], axis=1).max() <= np.pi + 1e-12
        naive = np.einsum("...ij,...j->...i", rotation, transl) + translation
        assert np.abs(naive - camera_transl).max() > 0.05, "R · transl + t would pass"


@pytest.mark.parametrize(("kind", "gender"), [*(("open", g) for g in GENDERS), ("open_hand", "neutral")])
def test_joints_and_meshes_are_those_of_the_layer(kind: str, gender: str) -> None:
    pose, betas, transl = people(16 if kind == "open_hand" else 24, seed=2)
    bodies = Bodies(OWN, BodyConfig(kind=kind))
    vertices, kinematic, annotated = posed(kind, gender, pose, betas, transl)
    assert np.abs(bodies.vertices(gender, pose, betas, transl) - vertices).max() < 1e-5
    assert np.abs(bodies.joints(gender, pose, betas, transl) - annotated).max() < 1e-5
    assert np.abs(bodies.kinematic(gender, pose, betas, transl) - kinematic).max() < 1e-6
    assert bodies.joints(gender, pose[:0], betas[:0], transl[:0]).shape == (0, annotated.shape[1], 3)


def test_each_gender_has_a_pelvis_of_its_own_unless_the_neutral_one_is_asked_for() -> None:
    betas = np.zeros((1, 10))
    own, one = Bodies(OWN, OPEN), Bodies(DatasetConfig(gender="neutral"), OPEN)
    pelves = np.array([own.pelvis(gender, betas)[0] for gender in GENDERS])
    assert np.linalg.norm(pelves[1] - pelves[2]) > 1e-4
    assert all(np.array_equal(one.pelvis(gender, betas), own.pelvis("neutral", betas)) for gender in GENDERS)
    assert [one.variant("female"), own.variant("female")] == ["neutral", "female"]


def test_a_folder_with_the_neutral_body_alone_is_one_clear_line(tmp_path: Path) -> None:
    data = Path(__file__).parents[2] / "metro/body/data/open.npz"
    (tmp_path / "open.npz").symlink_to(data)
    alone = BodyConfig(path=tmp_path)
    with pytest.raises(MetroError, match=r"no folder with open_male.npz, .* `gender: neutral`"):
        Bodies(OWN, alone).pelvis("male", np.zeros((1, 10)))
    assert Bodies(DatasetConfig(gender="neutral"), alone).pelvis("male", np.zeros((1, 10))).shape == (1, 3)


def test_more_shape_than_the_body_has_is_refused() -> None:
    with pytest.raises(ValueError, match="300 betas"):
        Bodies(OWN, OPEN).joints("neutral", np.zeros((1, 72)), np.zeros((1, 300)), np.zeros((1, 3)))


def test_rotations_are_scipys_near_zero_and_far_beyond_a_turn() -> None:
    aa = np.array([[0, 0, 0], [1e-9, 0, 0], [1e-4, -2e-4, 0], [0, np.pi, 0], [3, -2, 1], [-20, 15, 11]], float)
    assert np.abs(rotations(aa) - Rotation.from_rotvec(aa).as_matrix()).max() < 1e-13


def test_wrapped_rotations_are_the_same_by_the_shorter_way() -> None:
    """UP-3D turns roots by up to 27 rad."""
    aa = np.array([[27.0, 0, 0], [0, 4, 0], [-10, 8, 3], [0, 0, 2 * np.pi]])
    short = wrapped(aa)
    assert np.linalg.norm(short, axis=1).max() <= np.pi + 1e-12
    assert np.abs(rotations(short) - Rotation.from_rotvec(aa).as_matrix()).max() < 1e-12
    small = np.array([[0.1, -3, 0.5, 0, 0, 0, 1, 2, 1]])
    assert np.array_equal(wrapped(small), small)
