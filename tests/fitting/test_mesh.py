"""Parameters of meshes: of bodies as they went in, of noisy meshes nearly, of what a network draws without nonsense."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.errors import MetroError
from metro.fitting import MeshFits, fit, from_mesh
from metro.fitting.mesh import _patches
from tests.fitting.conftest import People
from tests.processors import PROCESSORS, run_on


def remade(model: BodyModel, fits: MeshFits) -> np.ndarray:
    return model(*map(torch.from_numpy, (fits.pose_aa, fits.betas, fits.transl))).vertices.numpy()


def off_mm(ours: np.ndarray, true: torch.Tensor) -> np.ndarray:
    return 1000 * np.linalg.norm(ours - true.numpy(), axis=2).mean(1)


def test_meshes_of_bodies_get_their_parameters_back(people: People, body, model) -> None:
    fits = from_mesh(people.vertices, body)
    errors = off_mm(remade(model, fits), people.vertices)
    assert errors.mean() < 0.4
    assert errors.max() < 1
    assert np.allclose(1000 * fits.error, errors, atol=1e-3)
    assert np.abs(fits.betas - people.betas).mean() < 0.02
    assert np.abs(fits.transl - people.transl).max() < 0.01


def test_errors_of_single_vertices_cancel(people: People, body, model) -> None:
    noise = 0.01 * torch.randn(people.vertices.shape, generator=torch.Generator().manual_seed(0))
    fits = from_mesh(people.vertices + noise, body)
    assert off_mm(remade(model, fits), people.vertices).max() < 2.5
    assert np.allclose(1000 * fits.error, 16, atol=0.5)  # 10 mm along each of three axes


def test_meshes_that_are_no_bodies_get_human_parameters(people: People, body, model) -> None:
    """As a network that has not learnt enough draws people: half of the one and half of another."""
    between = people.vertices - people.vertices.mean(1, keepdim=True)
    between = 0.7 * between + 0.3 * between.roll(1, 0)
    fits = from_mesh(between, body)
    assert 0.01 < fits.error.mean() < 0.08
    assert np.abs(fits.betas).mean() < 2
    assert np.abs(fits.pose_aa[:, 3:]).max() < np.pi


def test_hands(model) -> None:
    hand = load_body("open_hand")
    layer, rng = BodyModel(hand), np.random.default_rng(0)
    pose = np.c_[rng.normal(0, 1, (8, 3)), rng.normal(0, 0.3, (8, 45))].astype(np.float32)
    betas = rng.normal(0, 1, (8, 10)).astype(np.float32)
    vertices = layer(*map(torch.from_numpy, (pose, betas))).vertices
    fits = from_mesh(vertices, hand)
    assert fits.pose_aa.shape == (8, 48)
    assert off_mm(remade(layer, fits), vertices).max() < 0.4
    assert np.abs(fits.pose_aa[:, 3:] - pose[:, 3:]).mean() < 0.05


def test_parameters_of_meshes_are_starts_of_fits(people: People, body) -> None:
    start = from_mesh(people.vertices[:4], body).pose_aa
    fits = fit(people.only("2d", slice(4)), body, start=start)
    assert fits.accepted.all()
    assert np.abs(fits.pose_aa - people.pose_aa[:4])[:, 3:].mean() < 0.1


def test_no_mesh_has_no_parameters(body) -> None:
    assert from_mesh(np.zeros((0, 6890, 3)), body).pose_aa.shape == (0, 72)


def test_what_is_no_mesh_of_this_body_is_refused(people: People, body) -> None:
    with pytest.raises(MetroError, match=r"shape \(1, 431, 3\); the open body takes \(N, 6890, 3\)"):
        from_mesh(people.vertices[:1, :431], body)
    with pytest.raises(MetroError, match="millimetres"):
        from_mesh(1000 * people.vertices[:2], body)
    broken = people.vertices[:3].numpy().copy()
    broken[1, 7] = np.nan
    with pytest.raises(MetroError, match="mesh 1 are not all finite"):
        from_mesh(broken, body)


def test_patches_cover_the_body_evenly(body) -> None:
    rows = _patches(body.v_template)
    size = np.diff(rows.indptr)
    assert np.array_equal(np.sort(rows.indices), np.arange(6890))
    assert np.allclose(rows.sum(1), 1)
    centre = rows @ body.v_template
    patch_V = np.repeat(np.arange(100), size)[np.argsort(rows.indices)]
    apart = np.linalg.norm(body.v_template[:, None] - centre, axis=2)
    assert (apart[np.arange(6890), patch_V] < apart.min(1) + 0.06).all()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_patches_are_the_same_on_every_processor(processor: str) -> None:
    code = (
        "import hashlib; from metro.body.load import load_body; from metro.fitting.mesh import _patches;"
        "print(hashlib.sha256(_patches(load_body('open').v_template).indices.tobytes()).hexdigest())"
    )
    here = hashlib.sha256(_patches(load_body("open").v_template).indices.tobytes()).hexdigest()
    assert run_on(processor, code).strip() == here
