"""What priors, bending terms and self-contact do to fits, of poses from inside and from outside of the prior's sampler.

``python benchmarks/fitting_priors.py`` takes some minutes on one core and writes ``benchmarks/fitting_priors.md``.
The people stand, and the errors are taken, as in ``benchmarks/fitting.py``; only the poses change:

- inside: the sampler of the synthetic people, from which the shipped prior was estimated (with other seeds);
- strangers' limbs: trunk, arms and legs of five different people of the sampler;
- anywhere in the limits: each angle between the joint's limits, which makes 12 % of the sampler's people;
- shaken: the sampler's, and 0.3 radians of noise on every axis of every joint, limits or not.

Outside of the sampler, poses in which parts overlap by the sampler's capsules are drawn again.

The mixture stands for SMPLify's, which is licensed: eight Gaussians, one to each k-means group of the poses that the
shipped prior was estimated from, read from a file of the same layout.
"""

from __future__ import annotations

import argparse
import pickle
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import fitting
import numpy as np
import torch
from machine import machine
from scipy.cluster.vq import kmeans2

from metro.body.joints import JOINT_SETS
from metro.body.rotation import aa_from_rot
from metro.config import FitConfig
from metro.fitting.smplify import fit
from metro.synthetic.overlap import overlap
from metro.synthetic.poses import ARM_LIKE, IS_CENTRE, IS_RIGHT, sample_poses
from tools.pose_prior import SAMPLES, SEED, sample

SEED_OF_TEST = 2024
WRONG_RAD = 0.2  # a knee or an elbow that bends the wrong way by more
DEEP_M = 0.01  # parts that overlap by more


def kinematic(pose_BD: np.ndarray) -> np.ndarray:
    """Joints (B, 24, 3) of poses (B, 69) of the mean shape."""
    whole = torch.as_tensor(np.c_[np.zeros((len(pose_BD), 3)), pose_BD], dtype=torch.float32)
    return torch.cat([fitting.MODEL(part).joints for part in whole.split(50)]).numpy().astype(float)


def clear(pose_BD: np.ndarray, count: int) -> np.ndarray:
    """The first poses in which no parts overlap."""
    return pose_BD[overlap(kinematic(pose_BD)) <= 0][:count]


def strangers(count: int) -> np.ndarray:
    """Trunk, left and right arm, left and right leg of different people."""
    rng = np.random.default_rng(SEED_OF_TEST)
    drawn = sample(4 * count, SEED_OF_TEST).reshape(-1, 23, 3)
    limb_J = np.where(IS_CENTRE, 0, 1 + 2 * ARM_LIKE + IS_RIGHT)[1:]
    owner_BJ = np.stack([rng.permutation(len(drawn)) for _ in range(5)], 1)[:, limb_J]
    return clear(drawn[owner_BJ, np.arange(23)].reshape(-1, 69), count)


def anywhere(count: int) -> np.ndarray:
    """Every angle within its joint's limits; the sampler itself refuses what overlaps."""
    body = fitting.BODY
    rest = np.repeat((body.J_regressor.astype(float) @ body.v_template)[None], count, 0)
    rot = sample_poses(SEED_OF_TEST, range(count), rest, uniform=1.0).rot[:, 1:]
    return aa_from_rot(torch.as_tensor(rot)).flatten(1).numpy()


def shaken(count: int) -> np.ndarray:
    """The sampler's poses with noise."""
    drawn = sample(4 * count, SEED_OF_TEST)
    return clear(drawn + np.random.default_rng(SEED_OF_TEST).normal(0, 0.3, drawn.shape), count)


POSES: dict[str, Callable[[int], np.ndarray]] = {
    "inside": lambda count: sample(count, SEED_OF_TEST),
    "strangers' limbs": strangers,
    "anywhere in the limits": anywhere,
    "shaken": shaken,
}


def write_mixture(path: Path) -> None:
    """Eight Gaussians in SMPLify's layout."""
    poses = sample(SAMPLES, SEED)
    group = kmeans2(poses / poses.std(0).clip(0.05), 8, seed=1, minit="++")[1]
    parts = [poses[group == k] for k in range(8)]
    covariances = np.stack([np.cov(part.T) + 0.03**2 * np.eye(69) for part in parts])
    held = {"means": np.stack([part.mean(0) for part in parts]), "covars": covariances}
    path.write_bytes(pickle.dumps(held | {"weights": np.bincount(group) / len(poses)}, protocol=2))


def measure(labels: dict[str, np.ndarray], truth: torch.Tensor, config: FitConfig) -> list[str]:
    """Cells of a row: errors (mean / median, mm), shares of impossible bodies, speed."""
    started = time.process_time()
    fits = fit(labels, fitting.BODY, config)
    seconds = time.process_time() - started
    errors = fitting.errors(fitting.mesh(fits.pose_aa, fits.betas, fits.transl), truth)
    joints = fits.pose_aa[:, 3:]
    names = JOINT_SETS["SMPL24"]
    wrong = [(3 * names.index(f"{s}_knee") - 3, -1) for s in ("left", "right")]
    wrong += [(3 * names.index(f"{s}_elbow") - 2, sign) for s, sign in (("left", 1), ("right", -1))]
    backwards = np.max([sign * joints[:, at] for at, sign in wrong], 0) > WRONG_RAD
    return [
        *(f"{error.mean():.1f} / {error.median():.1f}" for error in errors),
        f"{100 * backwards.mean():.0f} %",
        f"{100 * (overlap(kinematic(joints)) > DEEP_M).mean():.1f} %",
        f"{len(truth) / seconds:.0f}",
    ]


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    versions = f"Python {platform.python_version()}, PyTorch {torch.__version__.split('+')[0]}"
    columns = ("joints given", "poses", "method", "MPJPE mm", "PA-MPJPE mm", "MPVE mm", "bent wrongly", "overlap")
    lines = [
        f"{machine()}; {versions}; `python benchmarks/{Path(__file__).name}`; {arguments.people} people; mean / median",
        "",
        f"| {' | '.join(columns)} | fits / s and core |",
        "|---" * (len(columns) + 1) + "|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_mixture(Path(folder) / "gmm_08.pkl")
        methods: dict[str, dict[str, Any]] = {
            "default": {},
            "`bending: none`": {"bending": "none"},
            "`bending: exponential`": {"bending": "exponential"},
            "`prior`: mixture of 8": {"prior": Path(folder) / "gmm_08.pkl"},
            "`contact: true`": {"contact": True},
        }
        for where, draw in POSES.items():
            poses = draw(arguments.people)
            with mock.patch.object(fitting, "sample", lambda *_, poses=poses: poses):
                truth, labels = fitting.people(len(poses), seed=SEED_OF_TEST)
            cases = {
                "17 image joints, exact": (fitting.in_image(labels, 0, 0), {"sigma_2d": fitting.PIXEL}),
                "17 image joints, 4 px, 20 % missing": (
                    fitting.in_image(labels, 4, 0.2),
                    {"sigma_2d": 4 * fitting.PIXEL},
                ),
                "24 joints in space, 10 mm": (fitting.in_space(labels, 0.01), {"sigma_3d": 0.01}),
            }
            for case, (seen, sigma) in cases.items():
                for method, change in methods.items():
                    cells = [case, where, method, *measure(seen, truth, FitConfig(**sigma, **change))]
                    lines.append(f"| {' | '.join(cells)} |")
                    print(lines[-1], flush=True)
    notes = arguments.out.read_text().partition("\n\n\n")[2] if arguments.out.exists() else ""
    arguments.out.write_text("\n".join(lines) + "\n" + (f"\n\n{notes}" if notes else ""))


if __name__ == "__main__":
    main()
