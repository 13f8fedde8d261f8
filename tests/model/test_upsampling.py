"""Rigid upsampling: rotations against SciPy's, and what it does to meshes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from metro.model.upsampling import RigidUpsampling, nearest_rotation

BALL = trimesh.creation.icosphere(3)
KEPT = [np.arange(0, 642, 2), np.arange(0, 642, 6)]


@pytest.fixture(scope="module")
def rigid() -> RigidUpsampling:
    """A bar of 2 m by 0.6 by 0.6, with 642, 321 and 107 vertices."""
    return RigidUpsampling((BALL.vertices * [1, 0.3, 0.3]).astype(np.float32), BALL.faces, KEPT)


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_rotations_are_those_of_scipy(noise: float) -> None:
    rng = np.random.default_rng(0)
    turns = [*Rotation.random(200, random_state=1), *Rotation.from_rotvec(np.pi * np.eye(3)), Rotation.identity()]
    shape = [1.0, 0.3, 0.2]
    moved, expected = [], []
    for turn in turns:
        x = rng.normal(size=(9, 3)) * shape
        y = turn.apply(x) + noise * rng.normal(size=(9, 3)) * 0.2
        moved.append(y.T @ x)
        expected.append(Rotation.align_vectors(y, x)[0].as_matrix())
    found = nearest_rotation(torch.tensor(np.array(moved))).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    single = nearest_rotation(torch.tensor(np.array(moved)).float()).numpy()
    assert np.median(abs(single - expected).max((1, 2))) < 1e-6
    assert abs(single - expected).max() < 1e-3


def test_mirrored_points_are_turned_and_not_mirrored() -> None:
    x = np.random.default_rng(3).normal(size=(9, 3)) * [3, 2, 1]
    y = x * [1, 1, -1]
    found = nearest_rotation(torch.tensor(y.T @ x)).numpy()
    np.testing.assert_allclose(found, Rotation.align_vectors(y, x)[0].as_matrix(), atol=1e-6)
    assert np.linalg.det(found) == pytest.approx(1)


def test_a_line_and_a_point_leave_no_hole() -> None:
    """A line turns as the line does; a point not at all, and both without a nan, backwards too."""
    moved = torch.zeros(2, 3, 3)
    moved[0, 1, 0] = 1  # x to y
    moved.requires_grad_()
    found = nearest_rotation(moved)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([0.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    found.sum().backward()
    assert moved.grad.isfinite().all()


def test_a_mesh_that_moves_as_a_whole_keeps_its_shape(rigid: RigidUpsampling) -> None:
    turn = torch.tensor(Rotation.from_rotvec([1.0, -2.0, 0.5]).as_matrix()).float()
    expected = rigid.template_V3 @ turn.T + torch.tensor([3.0, -1.0, 0.2])
    middle, full = rigid(expected[None, KEPT[1]])
    torch.testing.assert_close(full[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(middle[0], expected[KEPT[0]], atol=1e-5, rtol=0)


def test_noise_of_single_vertices_averages_out(rigid: RigidUpsampling) -> None:
    noise = 0.05 * torch.randn(20, 107, 3, generator=torch.Generator().manual_seed(0))
    _, full = rigid(rigid.rest_P3 + noise)
    error = (full - rigid.template_V3).norm(dim=-1).mean()
    assert error < 0.5 * noise.norm(dim=-1).mean()
    start, end = np.array(BALL.edges_unique).T
    length, rest = ((mesh[..., start, :] - mesh[..., end, :]).norm(dim=-1) for mesh in (full, rigid.template_V3))
    assert ((length / rest).quantile(torch.tensor([0.05, 0.95])) - 1).abs().max() < 0.12  # noise alone: 0.5


def test_a_bend_is_followed(rigid: RigidUpsampling) -> None:
    """The bar's right half turned by 60 degrees about its middle: its ends are where the coarse mesh has them."""
    turn = torch.tensor(Rotation.from_euler("y", 60, degrees=True).as_matrix()).float()
    template = rigid.template_V3
    bent = torch.where(template[:, :1] > 0, template @ turn.T, template)
    _, full = rigid(bent[None, KEPT[1]])
    ends = template[:, 0].abs() > 0.7
    assert (full[0] - bent)[ends].norm(dim=-1).max() < 0.03
    assert (full[0] - bent).norm(dim=-1).mean() < 0.03


def test_gradients_are_those_of_differences(rigid: RigidUpsampling) -> None:
    double = RigidUpsampling(rigid.template_V3.numpy(), BALL.faces, KEPT).double()
    generator = torch.Generator().manual_seed(1)
    coarse = (double.rest_P3 + 0.02 * torch.randn(1, 107, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    weights = torch.randn(1, 642, 3, generator=generator, dtype=torch.float64)
    (double(coarse)[-1] * weights).sum().backward()
    step = 1e-5 * torch.randn(1, 107, 3, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        up, down = ((double(coarse + sign * step)[-1] * weights).sum() for sign in (1, -1))
    assert float((up - down) / 2) == pytest.approx(float((coarse.grad * step).sum()), rel=1e-6)
