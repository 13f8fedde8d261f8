"""The cost is the written-out one, its linearisation has the right slope, and a step solves the damped problem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metro.body.arrays import BodyData
from metro.body.model import BodyModel
from metro.body.rotation import rot_from_aa
from metro.fitting.contact import Contact
from metro.fitting.objective import Linearisation, Objective, _arguments
from metro.fitting.points import PosedPoints
from metro.fitting.prior import gaussian, load_prior
from metro.fitting.solver import _step, minimise
from metro.fitting.state import FitState
from tests.fitting.conftest import People

ROBUST = 4.0


@pytest.fixture
def state(people: People) -> FitState:
    """Near the truth, in double precision; one elbow bent backwards."""
    g = torch.Generator().manual_seed(3)
    pose, betas, transl = (torch.from_numpy(x[:4]).double() for x in (people.pose_aa, people.betas, people.transl))
    joints = pose[:, 3:] + 0.1 * torch.randn(4, 69, generator=g, dtype=torch.float64)
    joints[0, 3 * 17 + 1] = 0.3
    return FitState(rot_from_aa(pose[:, :3]), joints, betas + 0.2, transl + 0.05)


def objective(body: BodyData, people: People, kind: str, robust: float | None = ROBUST) -> Objective:
    points = PosedPoints(body, body.regressors["j24"], dtype=torch.float64)
    conf = torch.rand(4, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    prior = load_prior().to("cpu", torch.float64)
    joints = torch.from_numpy(people.labels[f"joints_{kind}"][:4, :, :-1])
    if kind == "3d":
        return Objective(points, prior, joints, conf, 0.02, robust=robust)
    centred, side = joints - torch.tensor([500.0, 400.0]), 300.0
    return Objective(points, prior, centred / side, conf, 0.02, torch.full((4, 2), 1000 / side).double(), robust)


def known_root(task: Objective, state: FitState) -> Objective:
    """The task of people whose roots are known to be half a radian and more from the state's."""
    away = rot_from_aa(torch.tensor([[0.5, 0.2, 0], [0, -0.7, 0.1], [0.3, 0, 0.4], [1.5, 0, -1]], dtype=torch.float64))
    return replace(task, root_B33=state.root_rot @ away, sigma_root=0.3)


@pytest.mark.parametrize("rooted", [False, True])
@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_cost_and_gradient_are_those_of_the_written_out_cost(body, people, state, kind, rooted) -> None:
    task = objective(body, people, kind)
    task = known_root(task, state) if rooted else task
    model = BodyModel(body, torch.float64)
    covariance = (task.prior.spread_DD @ task.prior.spread_DD.T).numpy()
    precision = torch.from_numpy(np.linalg.inv(covariance))

    def cost(turn, whitened, betas, transl):
        joints = task.prior.mean_BD + whitened @ task.prior.spread_DD.T
        rot = torch.cat(((state.root_rot @ rot_from_aa(turn))[:, None], rot_from_aa(joints.unflatten(1, (23, 3)))), 1)
        points = model.regress("j24", model(pose_rot=rot, betas=betas, transl=transl).vertices)
        if task.focal_B2 is not None:
            points = task.focal_B2[:, None] * points[..., :2] / points[..., 2:]
        square = ((points - task.target_BKR) / 0.02).square().sum(-1)
        data = (task.conf_BK * ROBUST**2 * square / (ROBUST**2 + square)).sum(1)
        from_mean = joints - task.prior.mean_BD
        prior = torch.einsum("bi,ij,bj->b", from_mean, precision, from_mean)
        bent = (-joints[:, 9], -joints[:, 12], joints[:, 52], -joints[:, 55])  # knees about x, elbows about y
        hinge = sum((b / 0.1).clamp_min(0).square() for b in bent)
        root = angle_to_known(turn).square() / 0.3**2 if rooted else 0
        return data + prior + betas.square().sum(1) + hinge + root

    def angle_to_known(turn):
        trace = torch.einsum("bij,bij->b", task.root_B33, state.root_rot @ rot_from_aa(turn))
        return torch.acos((trace - 1) / 2)

    zero = torch.zeros(4, 3, dtype=torch.float64)
    at = [zero, task.prior.whiten(state.joints_aa), state.betas, state.transl]
    at = [x.clone().requires_grad_() for x in at]
    value = cost(*at)
    gradient = torch.autograd.grad(value.sum(), at)
    ours = task.linearise(state)
    assert torch.allclose(ours.cost_B, value, rtol=1e-6)
    slope = 2 * ((ours.residual_BX[:, None] @ ours.jacobian_BXZ)[:, 0] + ours.prior_BZ)
    free = 2 * (ours.residual_BX[:, None] @ ours.jacobian_BXF)[:, 0]
    expected = torch.cat((gradient[1], gradient[2]), 1), torch.cat((gradient[0], gradient[3]), 1)
    for found, want in zip((slope, free), expected, strict=True):
        # The correctives' change with the pose is left out of the derivatives: it shows in the second digit at most.
        assert (found - want).norm() < 0.02 * want.norm()


@pytest.mark.parametrize("residuals", [2 * 24 + 4, 3 * 60 + 4 + 3])
def test_step_solves_the_damped_least_squares_problem(body, people, state, residuals) -> None:
    """Both by the system of the residuals, where these are fewer, and by that of the unknowns."""
    task = objective(body, people, "2d")
    if residuals > 85:
        surface = PosedPoints(body, np.eye(60, 6890), dtype=torch.float64)
        target = surface.evaluate(*_arguments(state)[:3]).points_CKB.permute(2, 1, 0) + 0.03
        even = torch.ones(4, 60, dtype=torch.float64)
        task = known_root(Objective(surface, task.prior, target, even, 0.02), state)
    here = task.linearise(state)
    assert here.residual_BX.shape[1] == residuals
    damping = torch.tensor([0.01, 1.0, 30.0, 0.3], dtype=torch.float64)
    step = _step(here, damping)
    for b in range(4):
        jacobian, free, z = here.jacobian_BXZ[b], here.jacobian_BXF[b], here.prior_BZ[b]
        whole = torch.cat((jacobian, free), 1)
        weight = torch.cat((torch.full_like(z, 1 + damping[b]), damping[b] * free.square().sum(0)))
        right = -whole.T @ here.residual_BX[b] - torch.cat((z, torch.zeros(6, dtype=torch.float64)))
        solved = torch.linalg.solve(whole.T @ whole + torch.diag(weight), right)
        joints = task.prior.spread_DD @ solved[:69]
        expected = torch.cat((solved[79:82], joints, solved[69:79], solved[82:]))
        assert torch.allclose(step[b], expected, atol=1e-6)


def test_solver_reaches_a_stationary_point_and_never_climbs(body, people, state) -> None:
    task = objective(body, people, "3d", robust=None)
    before = task.linearise(state).cost_B
    solution = minimise(task, state, 100, relative=1e-10, absolute=1e-10)
    after: Linearisation = task.linearise(solution.state)
    assert solution.converged_B.all()
    assert (solution.cost_B < before).all()
    assert torch.allclose(after.cost_B, solution.cost_B)
    slope = (after.residual_BX[:, None] @ after.jacobian_BXZ)[:, 0] + after.prior_BZ
    assert slope.abs().max() < 0.1  # of a pull of up to hundreds at the start; not zero, see the gradient's test
    nudged = FitState(
        solution.state.root_rot, solution.state.joints_aa + 0.01, solution.state.betas, solution.state.transl
    )
    assert (task.linearise(nudged).cost_B > solution.cost_B).all()


def test_fixed_betas_stay(body, people, state) -> None:
    task = replace(objective(body, people, "3d"), fixed_betas=True)
    flat = FitState(state.root_rot, state.joints_aa, torch.zeros_like(state.betas), state.transl)
    assert (minimise(task, flat, 20).state.betas == 0).all()


def test_gaussian_is_the_sample_covariance_with_a_floor() -> None:
    rng = np.random.default_rng(0)
    poses = rng.normal(size=(500, 69)) @ np.diag(np.linspace(0, 1, 69))
    mean, spread = gaussian(poses)
    assert np.allclose(mean, poses.mean(0))
    assert np.allclose(spread @ spread.T, np.cov(poses.T) + 0.03**2 * np.eye(69))
    assert np.allclose(np.tril(spread, -1), 0)


def test_a_known_pose_narrows_the_prior_as_a_gaussian_observation() -> None:
    prior = load_prior().to("cpu", torch.float64)
    rng = np.random.default_rng(1)
    seen = prior.mean_BD + torch.from_numpy(rng.normal(0, 0.5, (3, 69)))
    narrow = prior.towards(seen, 0.2)
    precision = np.linalg.inv((prior.spread_DD @ prior.spread_DD.T).numpy())
    both = precision + np.eye(69) / 0.2**2
    assert np.allclose((narrow.spread_DD @ narrow.spread_DD.T).numpy(), np.linalg.inv(both), atol=1e-9)
    assert np.allclose(narrow.spread_DD.numpy(), np.triu(narrow.spread_DD))
    pulls = precision @ prior.mean_BD.numpy().T + seen.numpy().T / 0.2**2
    assert np.allclose(narrow.mean_BD.numpy().T, np.linalg.solve(both, pulls), atol=1e-9)
    assert torch.equal(narrow.select(torch.tensor([2])).mean_BD, narrow.mean_BD[2:])


def test_shipped_prior_describes_new_poses(people: People) -> None:
    z = load_prior().whiten(torch.from_numpy(people.pose_aa[:, 3:]))
    assert 45 < float(z.square().sum(1).mean()) < 100  # 69 expected


def test_the_exponential_pushes_towards_bent_knees_and_elbows(body, people, state) -> None:
    """SMPLify's term: (10 · 0.317 · exp(angle))² beside half the squared Mahalanobis distance."""
    task = objective(body, people, "3d")
    joints = state.joints_aa
    straight = replace(task, bending="none").linearise(state).cost_B
    bent = torch.stack((-joints[:, 9], -joints[:, 12], joints[:, 52], -joints[:, 55]))
    expected = straight + 2 * (3.17 * bent.exp()).square().sum(0)
    bending = replace(task, bending="exponential")
    assert torch.allclose(bending.linearise(state).cost_B, expected)
    here = bending.linearise(state)
    slope = here.residual_BX[:, None, -4:] @ here.jacobian_BXZ[:, -4:, :69]
    by_pose = torch.zeros(4, 69, dtype=torch.float64)
    by_pose[:, [9, 12, 52, 55]] = torch.tensor([-1.0, -1, 1, -1]).double() * (3.17 * bent.T.exp()).square() * 2
    assert torch.allclose(slope[:, 0], by_pose @ task.prior.spread_DD)


def test_contact_pushes_an_arm_out_of_the_trunk(body, people) -> None:
    contact = Contact.of(body, dtype=torch.float64)
    pose = torch.from_numpy(people.pose_aa[:3]).double()
    pose[:2, 3:] = 0
    pose[0, 3 * 16 + 2] = -1.95  # the left arm down, and on into the hip
    rest = FitState(
        rot_from_aa(pose[:, :3]), pose[:, 3:], torch.zeros(3, 10).double(), torch.from_numpy(people.transl[:3]).double()
    )
    deep, slope = contact.residuals(*_arguments(rest), 69)
    assert deep[0, 0] > 2
    assert (deep[1] == 0).all()
    nudges = 1e-5 * torch.cat((torch.eye(69), -torch.eye(69))).double()
    around = rest.select(torch.zeros(138, dtype=torch.long))
    around = replace(around, joints_aa=around.joints_aa + nudges)
    ahead, behind = contact.residuals(*_arguments(around), 69)[0].square().sum(1).split(69)
    found = 2 * deep[0] @ slope[0]
    assert (found - (ahead - behind) / 2e-5).norm() < 0.05 * found.norm()  # the correctives' change is left out
    turned = replace(rest, root_rot=rest.root_rot.flip(0), transl=rest.transl + 1)
    assert torch.allclose(contact.residuals(*_arguments(turned), 69)[0], deep, atol=1e-6)
    task = replace(objective(body, people, "3d").select(torch.arange(3)), contact=contact, robust=None)
    task = replace(task, target_BKR=task.predict(rest))
    freed = minimise(task, rest, 30).state
    assert contact.residuals(*_arguments(freed), 69)[0][0, 0] < 0.5 * deep[0, 0]
