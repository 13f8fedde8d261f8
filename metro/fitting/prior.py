"""Priors over the 23 joint rotations: one Gaussian, or the best of several (SMPLify, Bogo et al., ECCV 2016, §3.2).

`pose_prior.npz` is shipped: a Gaussian estimated from poses of the synthetic people by `tools/pose_prior.py`. Who has
SMPLify's mixture (`gmm_08.pkl`) can take that instead.

VPoser is not read: its network has unknowns of its own, and without its licensed files nothing could be tested.

Shape legend: B batch, D pose coordinate, M Gaussian of a mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metro.body.arrays import BodyData
from metro.body.joints import JOINT_SETS
from metro.body.pickles import plain, read_pickle
from metro.files import read_arrays, readable

JOINTS = 23
_FLOOR_RAD = 0.03  # standard deviation added to every angle: joints that hardly move stay solvable in float32
_OTHER_RAD = 0.3  # standard deviation of jaw, eyes and fingers, of which no prior knows
_MOST = 64  # Gaussians of a mixture
_REMEDY = "fit.prior takes SMPLify's gmm_08.pkl, or an .npz that tools/pose_prior.py wrote"


@dataclass(frozen=True)
class PosePrior:
    """A Gaussian over axis-angle body poses, as the affine map to and from independent unit normals."""

    mean_BD: Tensor
    """(1, 69) radians: all joints but the root, SMPL order; or (B, 69), one for each person of a batch."""
    spread_DD: Tensor
    """(69, 69) upper triangular: pose = mean + spread @ z with z ~ N(0, 1); or (B, 69, 69)."""

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> PosePrior:
        """The same prior elsewhere."""
        return PosePrior(self.mean_BD.to(device, dtype), self.spread_DD.to(device, dtype))

    def select(self, index: Tensor) -> PosePrior:
        """The prior of the people at `index`."""
        return self if len(self.mean_BD) == 1 else PosePrior(self.mean_BD[index], self.spread_DD)

    def at(self, pose_BD: Tensor) -> tuple[PosePrior, Tensor]:
        """The Gaussian that holds near poses (B, 69): this one; and what it adds to the squared distance."""
        return self, pose_BD.new_zeros(1)

    def towards(self, pose_BD: Tensor, sigma: float) -> PosePrior:
        """The prior given also that the poses (B, 69) are known to `sigma` radians along each axis.

        That is the product of two Gaussians (a Kalman update): a mean for each person, one covariance for all.
        """
        gain_DD = self._gain(sigma)
        mean_BD = self.mean_BD + (pose_BD - self.mean_BD) @ gain_DD.to(pose_BD)
        factor_DD = upper_factor(sigma**2 * gain_DD)
        return PosePrior(mean_BD, factor_DD.to(self.spread_DD).contiguous())

    def surprise(self, pose_BD: Tensor, sigma: float) -> Tensor:
        """(B,) what the best pose still costs once the poses (B, 69) are known to `sigma`; see `towards`."""
        away_BD = (pose_BD - self.mean_BD).double()
        return ((away_BD - away_BD @ self._gain(sigma)) * away_BD).sum(1) / sigma**2

    def _gain(self, sigma: float) -> Tensor:
        spread_DD = self.spread_DD.double()
        covariance_DD = spread_DD @ spread_DD.T
        noise_DD = sigma**2 * torch.eye(len(spread_DD), dtype=torch.float64, device=spread_DD.device)
        return torch.linalg.solve(covariance_DD + noise_DD, covariance_DD)  # symmetric: both are functions of one

    def whiten(self, pose_BD: Tensor) -> Tensor:
        """z (B, 69) of poses; its squared length is the squared Mahalanobis distance."""
        from_mean_BD = pose_BD - self.mean_BD
        if self.spread_DD.dim() == 2:
            return torch.linalg.solve_triangular(self.spread_DD, from_mean_BD.T, upper=True).T
        return torch.linalg.solve_triangular(self.spread_DD, from_mean_BD[..., None], upper=True)[..., 0]

    def of_body(self, body: BodyData) -> PosePrior:
        """The prior of a body's joints: of SMPL-X the 21 that SMPL has too follow it, all others keep to zero."""
        angles = 3 * (body.num_joints - 1)
        if angles == self.mean_BD.shape[1]:
            return self
        known = 3 * (len(_SHARED) - 1)
        spread_DD = self.spread_DD.double()
        covariance_DD = _OTHER_RAD**2 * torch.eye(angles, dtype=torch.float64, device=spread_DD.device)
        covariance_DD[:known, :known] = (spread_DD @ spread_DD.T)[:known, :known]
        mean_BD = torch.nn.functional.pad(self.mean_BD[:, :known], (0, angles - known))
        return PosePrior(mean_BD, upper_factor(covariance_DD).to(self.spread_DD).contiguous())


@dataclass(frozen=True)
class MixturePrior:
    """The likeliest of several Gaussians at each pose: SMPLify's stand-in for the sum of their mixture.

    The squared distance is  min_m |z_m(pose)|² + excess_m. The Gaussian that is nearest at a pose bounds this from
    above and touches it there, so a step that lowers the former lowers the latter: for each step the solver takes the
    nearest Gaussian as the prior, with its coordinates, and judges the end by the nearest one there.
    """

    parts: tuple[PosePrior, ...]
    weight_M: Tensor
    """Shares of the Gaussians, which make the mean pose."""
    excess_BM: Tensor
    """(1, M) or (B, M): -2 log(share / √det covariance), the least of them 0."""

    @property
    def mean_BD(self) -> Tensor:
        """(1, 69) or (B, 69): the mean of the mixture."""
        parts = zip(self.parts, self.weight_M, strict=True)
        return torch.stack([part.mean_BD * weight for part, weight in parts]).sum(0)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> MixturePrior:
        """The same prior elsewhere."""
        parts = tuple(part.to(device, dtype) for part in self.parts)
        return MixturePrior(parts, self.weight_M.to(device, dtype), self.excess_BM.to(device, dtype))

    def select(self, index: Tensor) -> MixturePrior:
        """The prior of the people at `index`."""
        excess_BM = self.excess_BM if len(self.excess_BM) == 1 else self.excess_BM[index]
        return MixturePrior(tuple(part.select(index) for part in self.parts), self.weight_M, excess_BM)

    def at(self, pose_BD: Tensor) -> tuple[PosePrior, Tensor]:
        """The Gaussian that is nearest to each pose (B, 69), and what it adds to the squared distance (B,)."""
        square_BM = torch.stack([part.whiten(pose_BD).square().sum(1) for part in self.parts], 1) + self.excess_BM
        nearest_B = square_BM.argmin(1)
        mean_MBD = torch.stack([part.mean_BD.expand_as(pose_BD) for part in self.parts])
        spread_MDD = torch.stack([part.spread_DD for part in self.parts])
        rows_B = torch.arange(len(pose_BD), device=pose_BD.device)
        excess_B = self.excess_BM.expand_as(square_BM)[rows_B, nearest_B]
        return PosePrior(mean_MBD[nearest_B, rows_B], spread_MDD[nearest_B]), excess_B

    def towards(self, pose_BD: Tensor, sigma: float) -> MixturePrior:
        """The prior given also that the poses (B, 69) are known to `sigma` radians along each axis."""
        surprise_BM = torch.stack([part.surprise(pose_BD, sigma) for part in self.parts], 1).to(self.excess_BM)
        parts = tuple(part.towards(pose_BD, sigma) for part in self.parts)
        return MixturePrior(parts, self.weight_M, self.excess_BM + surprise_BM)

    def of_body(self, body: BodyData) -> MixturePrior:
        """The prior of a body's joints; see `PosePrior.of_body`."""
        return MixturePrior(tuple(part.of_body(body) for part in self.parts), self.weight_M, self.excess_BM)


Prior = PosePrior | MixturePrior

_SHARED = tuple(a for a, b in zip(JOINT_SETS["SMPL24"], JOINT_SETS["SMPLX55"], strict=False) if a == b)


def upper_factor(covariance_DD: Tensor) -> Tensor:
    """The upper triangular factor of a covariance: the Cholesky factor of the reversed matrix."""
    return torch.linalg.cholesky(covariance_DD.flip(0, 1)).flip(0, 1)


def gaussian(poses_ND: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (69,) and spread (69, 69) of sampled poses (N, 69)."""
    poses = np.asarray(poses_ND, np.float64)
    covariance = np.cov(poses.T) + _FLOOR_RAD**2 * np.eye(poses.shape[1])
    # covariance = spread spreadᵀ with an upper triangular factor: Cholesky of the reversed matrix.
    lower = np.linalg.cholesky(covariance[::-1, ::-1])
    return poses.mean(0), np.ascontiguousarray(lower[::-1, ::-1], np.float64)


def mixture(
    means_MD: NDArray[np.floating], covariances_MDD: NDArray[np.floating], weights_M: NDArray[np.floating]
) -> MixturePrior:
    """The prior of a mixture of Gaussians.

    Raises
    ------
    ValueError
        The arrays are none of a mixture over body poses.
    """
    means, covariances, weights = (np.asarray(a, np.float64) for a in (means_MD, covariances_MDD, weights_M))
    count = len(weights) if weights.ndim == 1 else 0
    angles = 3 * JOINTS
    if not 0 < count <= _MOST or means.shape != (count, angles) or covariances.shape != (count, angles, angles):
        shapes = ", ".join(str(array.shape) for array in (means, covariances, weights))
        raise ValueError(f"means, covars and weights of shapes {shapes}; a body has {angles} angles")
    if not all(np.isfinite(array).all() for array in (means, covariances, weights)) or (weights <= 0).any():
        raise ValueError("means, covars or weights that are not finite, or a weight that is not positive")
    covariances = (covariances + covariances.swapaxes(1, 2)) / 2
    if np.linalg.eigvalsh(covariances).min() <= 0:
        raise ValueError("covars that are not positive definite")
    parts = tuple(
        PosePrior(torch.as_tensor(mean)[None], upper_factor(torch.as_tensor(covariance)))
        for mean, covariance in zip(means, covariances, strict=True)
    )
    weights = weights / weights.sum()
    excess = np.linalg.slogdet(covariances)[1] - 2 * np.log(weights)
    return MixturePrior(parts, torch.as_tensor(weights), torch.as_tensor(excess - excess.min())[None])


def load_prior(file: Path | IO[bytes] | None = None) -> Prior:
    """Read a prior; the shipped one by default.

    Raises
    ------
    MetroError
        The file is missing or holds no prior.
    """
    if file is None:
        with (resources.files("metro.fitting") / "data" / "pose_prior.npz").open("rb") as shipped:
            return load_prior(shipped)
    if isinstance(file, Path):
        return _read_prior(file)
    with np.load(file, allow_pickle=False) as arrays:
        return PosePrior(torch.as_tensor(arrays["mean"])[None], torch.as_tensor(arrays["spread"]))


def _read_prior(path: Path) -> Prior:
    with readable(path, _REMEDY):
        if path.suffix == ".pkl":
            held: Any = read_pickle(path)
            names = ("means", "covars", "weights")
            if not isinstance(held, dict) or not all(isinstance(plain(held.get(name)), np.ndarray) for name in names):
                raise ValueError("no means, covars and weights")
            return mixture(*(plain(held[name]) for name in names))
        arrays = read_arrays(path, _REMEDY, ("mean", "spread"))
        mean, spread = (np.asarray(arrays[name], np.float32) for name in ("mean", "spread"))
        angles = 3 * JOINTS
        if mean.shape != (angles,) or spread.shape != (angles, angles):
            raise ValueError(f"mean and spread of shapes {mean.shape} and {spread.shape}; a body has {angles} angles")
        if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
            raise ValueError("mean or spread that are not finite")
        if np.tril(spread, -1).any() or (np.diag(spread) <= 0).any():
            raise ValueError("a spread that is no upper triangular factor")
        return PosePrior(torch.as_tensor(mean)[None], torch.as_tensor(spread))
