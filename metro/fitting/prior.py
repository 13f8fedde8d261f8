"""Gaussian prior over the 23 joint rotations, estimated from poses of the synthetic people.

`pose_prior.npz` is shipped; remake it with

    python -m metro.fitting.prior metro/fitting/data/pose_prior.npz
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

from metro.body.bundle import load_body, write_npz
from metro.body.rotation import aa_from_rot

JOINTS = 23
SAMPLES = 12_000
SEED = 1_000_003
_FLOOR_RAD = 0.03  # standard deviation added to every angle: joints that hardly move stay solvable in float32


@dataclass(frozen=True)
class PosePrior:
    """A Gaussian over axis-angle body poses, as the affine map to and from independent unit normals."""

    mean_D: Tensor
    """(69,) radians: all joints but the root, SMPL order."""
    spread_DD: Tensor
    """(69, 69) upper triangular: pose = mean + spread @ z with z ~ N(0, 1)."""

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> PosePrior:
        """The same prior elsewhere."""
        return PosePrior(self.mean_D.to(device, dtype), self.spread_DD.to(device, dtype))

    def whiten(self, pose_BD: Tensor) -> Tensor:
        """z (B, 69) of poses; its squared length is the squared Mahalanobis distance."""
        return torch.linalg.solve_triangular(self.spread_DD, (pose_BD - self.mean_D).T, upper=True).T


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
        return PosePrior(torch.as_tensor(arrays["mean"]), torch.as_tensor(arrays["spread"]))


def sample(count: int, seed: int) -> NDArray[np.float64]:
    """Poses (count, 69) of synthetic people on the open body."""
    from metro.data.sources.synthetic.poses import sample_poses

    body = load_body("open")
    regressor = body.J_regressor.astype(np.float64)
    directions = np.einsum("jv,vcs->jcs", regressor, body.shapedirs)
    betas = np.random.default_rng(seed).standard_normal((count, body.num_betas)).clip(-2.5, 2.5)
    rest = regressor @ body.v_template + np.einsum("jcs,bs->bjc", directions, betas)
    rot = sample_poses(seed, range(count), rest).rot[:, 1:]
    return aa_from_rot(torch.as_tensor(rot)).flatten(1).numpy()


def main(out: Path, samples: int = SAMPLES, seed: int = SEED) -> None:
    """Estimate the prior from sampled poses and write it."""
    mean, spread = gaussian(sample(samples, seed))
    write_npz({"mean": mean.astype(np.float32), "spread": spread.astype(np.float32)}, out)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=True)
