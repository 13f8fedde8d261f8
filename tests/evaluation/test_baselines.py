"""Mean-pose baselines: headings, what the means are, and what they refuse."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from metro.body.joints import JOINT_SETS, index_map
from metro.errors import MetroError
from metro.evaluation import baselines as b
from tests.conftest import World


def standing(heading_deg: float, lean_deg: float = 0.0) -> torch.Tensor:
    """J14 joints of a stick figure in camera axes that faces the camera, then turns and leans forward."""
    places = {"R_Hip": (-0.1, 0, 0), "L_Hip": (0.1, 0, 0), "R_Shoulder": (-0.2, -0.5, 0), "L_Shoulder": (0.2, -0.5, 0)}
    places |= {"Neck": (0, -0.5, 0), "Head": (0, -0.7, 0), "L_Ankle": (0.1, 0.8, 0), "R_Ankle": (-0.1, 0.8, 0)}
    joints = np.array([places.get(name, (0.0, 0.0, 0.0)) for name in JOINT_SETS["J14"]])
    joints = Rotation.from_euler("x", lean_deg, degrees=True).apply(joints)
    # Facing the right edge of the picture (+x) is a turn about the downward axis y by minus the heading.
    return torch.from_numpy(Rotation.from_euler("y", -heading_deg, degrees=True).apply(joints))[None]


@pytest.mark.parametrize("angle", [-170.0, -90.0, -30.0, 0.0, 45.0, 90.0, 179.0])
@pytest.mark.parametrize("lean", [-20.0, 0.0, 30.0])
def test_heading(angle: float, lean: float) -> None:
    assert b.heading_degrees(standing(angle, lean), "J14").item() == pytest.approx(angle, abs=1e-4)


@pytest.mark.parametrize("angle", [-120.0, 10.0, 80.0])
def test_facing_rotation_turns_the_canonical_figure(angle: float) -> None:
    turn = b.facing_rotation(standing(angle), "J14")
    assert torch.allclose(standing(0.0) @ turn.transpose(1, 2), standing(angle), atol=1e-9)


def test_hands_have_an_orientation_but_no_heading(hands: World) -> None:
    joints = hands.body.regress("hand21", torch.from_numpy(hands.data.v_template)[None]).double()
    spin = torch.from_numpy(Rotation.random(rng=np.random.default_rng(0)).as_matrix())
    frames = b.facing_rotation(joints, "HAND21"), b.facing_rotation(joints @ spin.T, "HAND21")
    assert torch.allclose(spin @ frames[0], frames[1], atol=1e-6)
    assert torch.linalg.det(frames[0]).item() == pytest.approx(1)
    assert b.heading_degrees(joints, "HAND21").isnan().all()


def test_means_of_known_people(world: World) -> None:
    means = b.mean_poses([world.dataset], world.body)
    rows = np.flatnonzero(world.dataset.labels["has_mesh"])
    assert means.count == len(rows) == 8
    total, upright = 0.0, 0.0
    for row in rows:  # one person at a time, SciPy for the turn
        pose, betas = (torch.from_numpy(world.dataset.labels[k][row : row + 1]).float() for k in ("pose_aa", "betas"))
        vertices = world.body(pose, betas).vertices
        joints = world.body.regress("h36m17", vertices)
        mesh = (vertices - joints[:, :1])[0].numpy()
        j14 = joints[:, index_map("H36M17", "J14")]
        angle = b.heading_degrees(j14, "J14").item()
        total = total + mesh
        upright = upright + Rotation.from_euler("y", angle, degrees=True).apply(mesh)
    assert np.abs(means.camera_V3 - total / len(rows)).max() < 1e-5
    assert np.abs(means.canonical_V3 - upright / len(rows)).max() < 1e-5


def test_limit_spreads_over_the_set(world: World) -> None:
    assert b.mean_poses([world.dataset, world.dataset], world.body, limit=5).count == 5


def test_save_and_load(world: World, tmp_path: Path) -> None:
    means = b.mean_poses([world.dataset], world.body)
    means.save(tmp_path / "means.npz")
    loaded = b.Baselines.load(tmp_path / "means.npz")
    assert np.array_equal(loaded.camera_V3, means.camera_V3)
    assert (loaded.count, loaded.origin) == (means.count, means.origin)
    (tmp_path / "means.npz").write_bytes(b"nonsense")
    with pytest.raises(MetroError, match=r"means\.npz: is text; the `catalogue` stage makes it"):
        b.Baselines.load(tmp_path / "means.npz")


def test_no_meshes(world: World) -> None:
    bare = copy.copy(world.dataset)
    bare.labels = {**world.dataset.labels, "has_mesh": np.zeros(12, bool)}
    with pytest.raises(MetroError, match="no training set has meshes"):
        b.mean_poses([bare], world.body)
