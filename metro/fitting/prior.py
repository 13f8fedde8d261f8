"""Gaussian prior over the 23 joint rotations, estimated from poses of the synthetic people.

`pose_prior.npz` is shipped; `tools/pose_prior.py` made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

JOINTS = 23
_FLOOR_RAD = 0.03  # standard deviation added to every angle: joints that hardly move stay solvable in float32


@dataclass(frozen=True)
class PosePrior:
    """A Gaussian over axis-angle body poses, as the affine map to and from independent unit normals."""

    mean_BD: Tensor
    """(1, 69) radians: all joints but the root, SMPL order; or (B, 69), one for each person of a batch."""
    spread_DD: Tensor
    """(69, 69) upper triangular: pose = mean + spread @ z with z ~ N(0, 1)."""

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> PosePrior:
        """The same prior elsewhere."""
        return PosePrior(self.mean_BD.to(device, dtype), self.spread_DD.to(device, dtype))

    def select(self, index: Tensor) -> PosePrior:
        """The prior of the people at `index`."""
        return self if len(self.mean_BD) == 1 else PosePrior(self.mean_BD[index], self.spread_DD)

    def towards(self, pose_BD: Tensor, sigma: float) -> PosePrior:
        """The prior given also that the poses (B, 69) are known to `sigma` radians along each axis.

        That is the product of two Gaussians (a Kalman update): a mean for each person, one covariance for all.
        """
        spread_DD = self.spread_DD.double()
        covariance_DD = spread_DD @ spread_DD.T
        noise_DD = sigma**2 * torch.eye(len(spread_DD), dtype=torch.float64, device=spread_DD.device)
        gain_DD = torch.linalg.solve(covariance_DD + noise_DD, covariance_DD)  # symmetric: both are functions of one
        mean_BD = self.mean_BD + (pose_BD - self.mean_BD) @ gain_DD.to(pose_BD)
        # An upper triangular factor is the Cholesky factor of the reversed matrix.
        factor_DD = torch.linalg.cholesky((sigma**2 * gain_DD).flip(0, 1)).flip(0, 1)
        return PosePrior(mean_BD, factor_DD.to(self.spread_DD).contiguous())

    def whiten(self, pose_BD: Tensor) -> Tensor:
        """z (B, 69) of poses; its squared length is the squared Mahalanobis distance."""
        return torch.linalg.solve_triangular(self.spread_DD, (pose_BD - self.mean_BD).T, upper=True).T


def gaussian(poses_ND: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (69,) and spread (69, 69) of sampled poses (N, 69)."""
    poses = np.asarray(poses_ND, np.float64)
    covariance = np.cov(poses.T) + _FLOOR_RAD**2 * np.eye(poses.shape[1])
    # covariance = spread spreadᵀ with an upper triangular factor: Cholesky of the reversed matrix.
    lower = np.linalg.cholesky(covariance[::-1, ::-1])
    return poses.mean(0), np.ascontiguousarray(lower[::-1, ::-1], np.float64)


def load_prior(file: Path | IO[bytes] | None = None) -> PosePrior:
    """Read a prior; the shipped one by default."""
    if file is None:
        with (resources.files("metro.fitting") / "data" / "pose_prior.npz").open("rb") as shipped:
            return load_prior(shipped)
    with np.load(file, allow_pickle=False) as arrays:
        return PosePrior(torch.as_tensor(arrays["mean"])[None], torch.as_tensor(arrays["spread"]))
