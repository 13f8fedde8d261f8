"""Estimates the pose prior that ships with the package from poses of the synthetic people.

python -m tools.pose_prior metro/fitting/data/pose_prior.npz
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from metro.body.arrays import write_npz
from metro.body.load import load_body
from metro.body.rotation import aa_from_rot
from metro.fitting.prior import gaussian
from metro.synthetic.poses import sample_poses

SAMPLES = 12_000
SEED = 1_000_003


def sample(count: int, seed: int) -> NDArray[np.float64]:
    """Poses (count, 69) of synthetic people on the open body."""
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
    from cyclopts import run

    run(main)
