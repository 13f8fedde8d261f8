"""Priors of poses: SMPLify's mixture as it is published, read with distrust, and its cost."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from metro.body.load import load_body
from metro.body.rotation import rot_from_aa
from metro.config import FitConfig
from metro.errors import MetroError
from metro.fitting.objective import Objective
from metro.fitting.points import PosedPoints
from metro.fitting.prior import MixturePrior, PosePrior, load_prior, mixture
from metro.fitting.smplify import fit
from metro.fitting.solver import minimise
from metro.fitting.state import FitState
from tests.fitting.conftest import People, mpjpe_mm

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    """Three Gaussians about the shipped one."""
    shipped, rng = load_prior(), np.random.default_rng(0)
    assert isinstance(shipped, PosePrior)
    covariance = (shipped.spread_DD @ shipped.spread_DD.T).numpy().astype(float)
    means = shipped.mean_BD.numpy() + rng.normal(0, 0.2, (3, 69))
    return {"means": means, "covars": np.stack([covariance, 0.5 * covariance, 2 * covariance]), "weights": WEIGHTS}


WEIGHTS = np.array([0.5, 0.3, 0.2])


@pytest.fixture(scope="module")
def three(arrays: Arrays) -> MixturePrior:
    return mixture(*arrays.values()).to("cpu", torch.float64)


def square(prior: MixturePrior, pose_BD: torch.Tensor) -> torch.Tensor:
    """What a prior adds to the cost."""
    nearest, excess_B = prior.at(pose_BD)
    return nearest.whiten(pose_BD).square().sum(1) + excess_B


def test_the_cost_is_that_of_the_likeliest_gaussian(arrays: Arrays, three: MixturePrior) -> None:
    poses = arrays["means"][[0, 1, 2, 1]] + np.random.default_rng(1).normal(0, 0.1, (4, 69))
    shares = zip(arrays["means"], arrays["covars"], WEIGHTS, strict=True)
    log = np.max([multivariate_normal(m, c).logpdf(poses) + np.log(w) for m, c, w in shares], 0)
    cost = square(three, torch.from_numpy(poses)).numpy()
    np.testing.assert_allclose(cost - cost[0], -2 * (log - log[0]), atol=1e-6)


def test_a_known_pose_adds_its_distance_to_the_cost_of_every_pose(arrays: Arrays, three: MixturePrior) -> None:
    rng = np.random.default_rng(2)
    known, poses = (torch.from_numpy(arrays["means"][[0, 2]] + rng.normal(0, 0.3, (2, 69))) for _ in range(2))
    narrowed = three.towards(known, 0.2)
    expected = square(three, poses) + (poses - known).square().sum(1) / 0.2**2
    np.testing.assert_allclose(square(narrowed, poses), expected, rtol=1e-9)
    rows = torch.tensor([1])
    np.testing.assert_allclose(square(narrowed.select(rows), poses[1:]), expected[1:], rtol=1e-9)


def test_people_of_different_gaussians_are_solved_together_and_leave_the_batch(body, people, three) -> None:
    """The nearest Gaussian changes on the way, and the cost never rises above that of any."""
    points = PosedPoints(body, body.regressors["j24"], dtype=torch.float64)
    joints = torch.from_numpy(people.labels["joints_3d"][:6, :, :3])
    task = Objective(points, three, joints, torch.ones(6, 24, dtype=torch.float64), 0.02)
    pose, betas, transl = (torch.from_numpy(x[:6]).double() for x in (people.pose_aa, people.betas, people.transl))
    begin = torch.cat([three.parts[m].mean_BD for m in (0, 1, 2, 0, 1, 2)])
    start = FitState(rot_from_aa(pose[:, :3]), begin, betas, transl)
    together = minimise(task, start, 60)
    assert (together.cost_B < task.linearise(start).cost_B).all()
    for row in range(6):
        index = torch.tensor([row])
        alone = minimise(task.select(index), start.select(index), 60)
        assert torch.allclose(alone.cost_B, together.cost_B[index], rtol=1e-4)


def test_smplify_file_is_read_and_used(arrays: Arrays, body, model, people: People, tmp_path: Path) -> None:
    path = tmp_path / "gmm_08.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol=2))
    config = FitConfig(prior=path, sigma_3d=0.002)
    fits = fit(people.only("3d", slice(6)), body, config)
    assert fits.accepted.all()
    assert (fits.iterations > 0).all()
    assert mpjpe_mm(model, people, fits, slice(6)).max() < 10


def test_a_mixture_of_one_gaussian_is_that_gaussian(arrays: Arrays, body, people: People) -> None:
    alone = mixture(*(values[:1] for values in arrays.values()))
    labels, start = people.only("2d", slice(3)), people.pose_aa[:3]
    found, expected = (fit(labels, body, prior=prior, start=start) for prior in (alone, alone.parts[0]))
    np.testing.assert_allclose(found.pose_aa, expected.pose_aa, atol=0.02)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"means": np.zeros((3, 72))}, r"a body has 69 angles"),
        ({"covars": np.zeros((3, 69, 69))}, "not positive definite"),
        ({"weights": np.array([0.5, np.nan, 0.5])}, "not finite"),
        ({"weights": np.array([0.5, -0.5, 1.0])}, "weight that is not positive"),
        ({"means": "none"}, "no means, covars and weights"),
        ({"means": print}, "refused"),
    ],
)
def test_a_wrong_mixture_is_refused_in_one_line(arrays: Arrays, tmp_path: Path, change: dict, told: str) -> None:
    path = tmp_path / "gmm_08.pkl"
    path.write_bytes(pickle.dumps(arrays | change))
    with pytest.raises(MetroError, match=told) as raised:
        load_prior(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_prior_of_ones_own_is_read_and_nothing_else(tmp_path: Path) -> None:
    shipped, path = load_prior(), tmp_path / "prior.npz"
    assert isinstance(shipped, PosePrior)
    with pytest.raises(MetroError, match=r"prior\.npz: missing; fit\.prior takes SMPLify's gmm_08\.pkl"):
        load_prior(path)
    np.savez(path, mean=shipped.mean_BD[0] + 1, spread=shipped.spread_DD)
    found = load_prior(path)
    assert isinstance(found, PosePrior)
    assert torch.equal(found.mean_BD, shipped.mean_BD + 1)
    np.savez(path, mean=shipped.mean_BD[0], spread=shipped.spread_DD.T)
    with pytest.raises(MetroError, match="upper triangular"):
        load_prior(path)


def test_of_smplx_only_the_joints_that_smpl_has_follow_the_prior(three: MixturePrior) -> None:
    wide = three.of_body(SimpleNamespace(num_joints=55))
    pose = torch.from_numpy(np.random.default_rng(3).normal(0, 0.3, (2, 162)))
    for part, of_smpl in zip(wide.parts, three.parts, strict=True):
        covariance = (of_smpl.spread_DD @ of_smpl.spread_DD.T)[:63, :63]
        away = pose[:, :63] - of_smpl.mean_BD[:, :63]
        expected = (away @ torch.linalg.inv(covariance) * away).sum(1) + (pose[:, 63:] / 0.3).square().sum(1)
        assert torch.allclose(part.whiten(pose).square().sum(1), expected)
    assert load_prior().of_body(load_body("open")).mean_BD.shape == (1, 69)
