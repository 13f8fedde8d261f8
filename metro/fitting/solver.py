"""Batched Levenberg–Marquardt: one damping, one acceptance and one stopping test per person.

The step is found in the space of residuals instead of unknowns. In the prior's whitened coordinates z the prior and
the damping are multiples of the identity, so with J the derivatives by z, F those by the unknowns without a prior
(root rotation and translation), r the residuals and m = 1 + damping,

    minimise  |J dz + F df + r|² + |z + dz|² + damping (|dz|² + |D df|²)

has df from the 6 × 6 system  Fᵀ S⁻¹ F + (damping / m) D²  and  dz = -Jᵀ S⁻¹ (r - J z / m + F df) - z / m  with
S = m + J Jᵀ, which is as small as the number of residuals (34 for 17 image points against 85 unknowns). Where there are
more residuals than unknowns (the points of a mesh), the ordinary normal equations are the smaller system.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from metro.fitting.objective import Linearisation, Objective
from metro.fitting.state import FitState

_DAMPING_DOWN, _DAMPING_UP = 0.3, 5.0
_DAMPING_LEAST, _DAMPING_MOST = 1e-4, 1e8
_FREE_LEAST = 1e-6  # keeps root and translation solvable where nothing sees them


@dataclass(frozen=True)
class Solution:
    """Where the people ended."""

    state: FitState
    cost_B: Tensor
    converged_B: Tensor
    """Whether the cost stopped falling before the iterations ran out."""
    iterations_B: Tensor

    def select(self, index: Tensor) -> Solution:
        """The people at `index`."""
        return Solution(self.state.select(index), self.cost_B[index], self.converged_B[index], self.iterations_B[index])

    def replaced(self, index: Tensor, by: Solution) -> Solution:
        """A copy with the people at `index` exchanged."""
        return Solution(
            self.state.replaced(index, by.state),
            self.cost_B.index_copy(0, index, by.cost_B),
            self.converged_B.index_copy(0, index, by.converged_B),
            self.iterations_B.index_copy(0, index, by.iterations_B),
        )


def minimise(
    objective: Objective,
    start: FitState,
    iterations: int,
    *,
    relative: float = 1e-6,
    absolute: float = 1e-5,
    damping: float = 0.1,
) -> Solution:
    """Minimise the objective for every person of the batch on its own.

    Parameters
    ----------
    objective, start
        What to minimise and from where.
    iterations
        Most iterations.
    relative, absolute
        A person is done after two steps in a row that change its cost by less than `relative · cost + absolute`, or
        when no step lowers it at any damping. Whoever is done leaves the batch. The defaults are so low that a step
        more or less, which rounding decides, moves no joint by more than some thousandths of a radian.
    damping
        At the start, in units of the prior.
    """
    state, count = start, len(start)
    best = Solution(
        start,
        start.betas.new_full((count,), torch.inf),
        torch.zeros(count, dtype=torch.bool, device=start.betas.device),
        torch.zeros(count, dtype=torch.long, device=start.betas.device),
    )
    active = torch.arange(count, device=start.betas.device)
    here = objective.linearise(state)
    damping_B = torch.full_like(here.cost_B, damping)
    small_steps = torch.zeros_like(active)
    for iteration in range(iterations):
        trial = state.moved(_step(here, damping_B))
        there = objective.linearise(trial)
        accepted = (there.cost_B < here.cost_B) & objective.plausible(trial)
        small = (here.cost_B - there.cost_B).abs() < relative * here.cost_B + absolute
        small_steps = torch.where(small, small_steps + 1, torch.where(accepted, 0, small_steps))
        damping_B = torch.where(
            accepted, (damping_B * _DAMPING_DOWN).clamp_min(_DAMPING_LEAST), damping_B * _DAMPING_UP
        )
        if bool(accepted.all()):
            state, here = trial, there
        else:
            state, here = trial.where(accepted, state), _where(accepted, there, here)
        taken = torch.full_like(active, iteration + 1)
        done = (small_steps >= 2) | (damping_B > _DAMPING_MOST)
        if iteration == iterations - 1 or bool(done.any()):
            best = best.replaced(active, Solution(state, here.cost_B, done, taken))
            left = (~done).nonzero()[:, 0]
            if len(left) == 0:
                break
            active, state, damping_B, small_steps = active[left], state.select(left), damping_B[left], small_steps[left]
            here, objective = _select(here, left), objective.select(left)
    return best


def _step(here: Linearisation, damping_B: Tensor) -> Tensor:
    """The step (B, U) of all unknowns."""
    residuals, whitened = here.jacobian_BXZ.shape[1:]
    by = _by_residuals if residuals < whitened + here.jacobian_BXF.shape[2] else _by_unknowns
    whitened_BZ, free_BF, failed_B = by(here, damping_B)
    pose = here.spread_DD.shape[-1]
    step = torch.cat(
        (
            free_BF[:, :3],
            _times(here.spread_DD, whitened_BZ[:, :pose]),
            whitened_BZ[:, pose:],
            free_BF[:, 3:],
        ),
        1,
    )
    return torch.where(failed_B[:, None], 0, step)


def _times(matrix_DD: Tensor, vector_BD: Tensor) -> Tensor:
    """Products (B, D) of one matrix, or of one for each person, with vectors."""
    return vector_BD @ matrix_DD.T if matrix_DD.dim() == 2 else (matrix_DD @ vector_BD[..., None])[..., 0]


def _by_residuals(here: Linearisation, damping_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Steps (B, Z) and (B, F) and failures (B,), from a system as large as the residuals."""
    jac_BXZ, free_BXF, prior_BZ = here.jacobian_BXZ, here.jacobian_BXF, here.prior_BZ
    m_B11 = 1 + damping_B[:, None, None]
    system_BXX = jac_BXZ @ jac_BXZ.mT
    system_BXX.diagonal(dim1=1, dim2=2).add_(m_B11[..., 0])
    from_prior_BX1 = (jac_BXZ @ prior_BZ[..., None]) / m_B11
    factor, failed = torch.linalg.cholesky_ex(system_BXX)
    solved = torch.cholesky_solve(torch.cat((here.residual_BX[..., None] - from_prior_BX1, free_BXF), 2), factor)
    scale_B6 = free_BXF.square().sum(1)
    small_BFF = free_BXF.mT @ solved[..., 1:]
    small_BFF.diagonal(dim1=1, dim2=2).add_(scale_B6 * (damping_B / (1 + damping_B))[:, None] + _FREE_LEAST)
    free_step_BF1, failed_small = _solve(small_BFF, -free_BXF.mT @ solved[..., :1])
    whitened_B1Z = -(solved[..., :1] + solved[..., 1:] @ free_step_BF1).mT @ jac_BXZ
    return whitened_B1Z[:, 0] - prior_BZ / m_B11[..., 0], free_step_BF1[..., 0], (failed + failed_small) > 0


def _by_unknowns(here: Linearisation, damping_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Steps (B, Z) and (B, F) and failures (B,), from the normal equations."""
    whole_BXU = torch.cat((here.jacobian_BXZ, here.jacobian_BXF), 2)
    scale_B6 = here.jacobian_BXF.square().sum(1)
    system_BUU = whole_BXU.mT @ whole_BXU
    damped = (damping_B[:, None] * scale_B6 + _FREE_LEAST, torch.ones_like(here.prior_BZ) + damping_B[:, None])
    system_BUU.diagonal(dim1=1, dim2=2).add_(torch.cat(damped[::-1], 1))
    right_BU1 = -(whole_BXU.mT @ here.residual_BX[..., None])
    right_BU1[:, : here.prior_BZ.shape[1], 0] -= here.prior_BZ
    step_BU1, failed = _solve(system_BUU, right_BU1)
    whitened_BZ, free_BF = step_BU1[..., 0].split((here.prior_BZ.shape[1], scale_B6.shape[1]), 1)
    return whitened_BZ, free_BF, failed > 0


def _solve(matrix_BFF: Tensor, right_BF1: Tensor) -> tuple[Tensor, Tensor]:
    factor, failed = torch.linalg.cholesky_ex(matrix_BFF)
    return torch.cholesky_solve(right_BF1, factor), failed


def _where(mask_B: Tensor, first: Linearisation, second: Linearisation) -> Linearisation:
    return _each(first, lambda a, b: torch.where(mask_B.reshape(-1, *[1] * (a.dim() - 1)), a, b), second)


def _select(lin: Linearisation, index: Tensor) -> Linearisation:
    return _each(lin, lambda a, _: a[index], lin)


def _each(first: Linearisation, change: Callable[[Tensor, Tensor], Tensor], second: Linearisation) -> Linearisation:
    """The linearisation of people taken from two; a spread that all share stays."""
    parts = {f.name: (getattr(first, f.name), getattr(second, f.name)) for f in fields(Linearisation)}
    shared = ("spread_DD",) if first.spread_DD.dim() == 2 else ()
    return Linearisation(**{name: a if name in shared else change(a, b) for name, (a, b) in parts.items()})
