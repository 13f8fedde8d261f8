"""Accuracy and speed of the batched fits, against SPIN-style Adam on the same objective in the same run; of meshes too.

``python benchmarks/fitting.py`` takes some minutes on one core and writes ``benchmarks/fitting.md``. Times are
processor time of one thread, because other jobs may share the machine.

The reference is what SPIN (Kolotouros et al., ICCV 2019) does with SMPLify: Adam, 100 iterations on root and
translation, then 100 on everything, learning rate 0.01, from both facings, the cheaper one kept; and the same with the
best of several settings (50 + 150 iterations, rate 0.05 falling as a cosine). It descends the same cost, priors
included, over the same points, by autograd. Started fits, Adam's and ours, begin with the true pose disturbed by
Gaussian noise along every axis of every joint, the root's included, and with the mean shape.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import machine
from scipy.spatial.transform import Rotation
from torch import Tensor

import metro
from metro.body.joints import JOINT_SETS, index_map
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.body.rotation import rot_from_aa
from metro.config import BodyConfig, DatasetConfig, FitConfig
from metro.evaluation.metrics import pa_mpjpe
from metro.fitting import from_mesh
from metro.fitting.hypotheses import TORSO, facing, start_from_image
from metro.fitting.objective import Objective
from metro.fitting.points import PosedPoints
from metro.fitting.prior import PosePrior, load_prior
from metro.fitting.smplify import fit
from metro.fitting.state import FitState
from metro.options import SyntheticOptions
from metro.sources import synthetic
from metro.sources.boxes import enlarged
from metro.synthetic.camera import BOX_SCALE
from tools.pose_prior import sample

BODY = load_body("open")
MODEL = BodyModel(BODY)
COCO = [JOINT_SETS["J24"].index(name) for name in JOINT_SETS["COCO17"]]
EVALUATED = index_map("H36M17", "J14")
PIXEL = 1 / 224  # of the box side
DISTURBANCES = (0.1, 0.25)  # radians
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


def people(count: int, seed: int) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Meshes of people facing anywhere, 3 to 6 m away, and labels made from them."""
    rng = np.random.default_rng(seed)
    turned = Rotation.from_euler("y", rng.uniform(-180, 180, (count, 1)), degrees=True)
    tilted = Rotation.from_euler("xz", rng.normal(size=(count, 2)) * [10, 6], degrees=True)
    camera = Rotation.from_euler("x", 180 + rng.normal(0, 8, (count, 1)), degrees=True)
    pose = np.c_[(camera * tilted * turned).as_rotvec(), sample(count, seed)]
    depth = rng.uniform(3, 6, count)
    transl = np.c_[rng.uniform(-0.12, 0.12, (count, 2)) * depth[:, None], depth]
    vertices = mesh(pose, rng.standard_normal((count, 10)).clip(-2.5, 2.5), transl)
    joints = MODEL.regress("j24", vertices).numpy().astype(float)
    intrinsics = np.array([[1000.0, 0, 500], [0, 1000, 500], [0, 0, 1]])
    pixels = joints @ intrinsics.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    low, high = pixels.min(1), pixels.max(1)
    ones = np.ones((count, 24, 1))
    return vertices, {
        "joints_2d": np.concatenate((pixels, ones), 2),
        "joints_3d": np.concatenate((joints, ones), 2),
        "has_2d": np.ones(count, bool),
        "has_3d": np.ones(count, bool),
        "center": (low + high) / 2,
        "scale": 1.2 * (high - low).max(1) / 200,
        "intrinsics": np.repeat(intrinsics[None], count, 0),
        "pose_aa": pose,
        "transl": transl,
    }


def mesh(pose: np.ndarray, betas: np.ndarray, transl: np.ndarray) -> Tensor:
    """Vertices (B, V, 3), fifty people at a time."""
    arguments = [torch.as_tensor(np.asarray(x), dtype=torch.float32).split(50) for x in (pose, betas, transl)]
    return torch.cat([MODEL(*part).vertices for part in zip(*arguments, strict=True)])


def in_image(labels: dict[str, np.ndarray], noise_px: float, missing: float, seed: int = 0) -> dict[str, np.ndarray]:
    """COCO's 17 joints alone, with noise (crop pixels of 224) and missing ones."""
    rng = np.random.default_rng(seed)
    joints = labels["joints_2d"].copy()
    side = 200 * labels["scale"][:, None, None]
    joints[..., :2] += rng.normal(0, 1, joints[..., :2].shape) * noise_px * PIXEL * side
    joints[..., 2] *= np.isin(np.arange(24), COCO) & (rng.random(joints.shape[:2]) >= missing)
    return {**labels, "joints_2d": joints, "has_3d": np.zeros(len(joints), bool)}


def in_space(labels: dict[str, np.ndarray], noise_m: float, seed: int = 0) -> dict[str, np.ndarray]:
    """24 joints, with noise along each axis."""
    joints = labels["joints_3d"].copy()
    joints[..., :3] += np.random.default_rng(seed).normal(0, noise_m, joints[..., :3].shape)
    return {**labels, "joints_3d": joints, "has_2d": np.zeros(len(joints), bool)}


def disturbed(pose: np.ndarray, sigma: float, seed: int = 7) -> np.ndarray:
    """Poses (B, 72) with noise along each axis of each joint, radians."""
    noise = np.random.default_rng(seed).normal(0, sigma, pose.shape)
    root = Rotation.from_rotvec(pose[:, :3]) * Rotation.from_rotvec(noise[:, :3])
    return np.c_[root.as_rotvec(), pose[:, 3:] + noise[:, 3:]]


def ours(labels: dict[str, np.ndarray], config: FitConfig, start: np.ndarray | None = None) -> Found:
    """The library's fits."""
    fits = fit(labels, BODY, config, start=start)
    return fits.pose_aa, fits.betas, fits.transl


def of_mesh(vertices: Tensor) -> Found:
    """The library's parameters of meshes."""
    found = from_mesh(vertices, BODY)
    return found.pose_aa, found.betas, found.transl


def adam(
    labels: dict[str, np.ndarray],
    sigma: float,
    first: int,
    second: int,
    rate: float,
    cosine: bool,
    begin: np.ndarray | None = None,
) -> Found:
    """SPIN-style: root and translation, then everything; from poses (B, 72), or the cheaper of two facings."""
    points = PosedPoints(BODY, BODY.regressors["j24"][COCO])
    prior = load_prior()
    torso = torch.tensor([float(JOINT_SETS["J24"][k] in TORSO) for k in COCO])
    side = 200 * labels["scale"][:, None, None]
    camera = labels["intrinsics"]
    target = (labels["joints_2d"][:, COCO, :2] - camera[:, None, :2, 2]) / side
    tensor = [torch.as_tensor(np.asarray(x), dtype=torch.float32) for x in (target, labels["joints_2d"][:, COCO, 2])]
    focal = torch.as_tensor(camera[:, (0, 1), (0, 1)] / side[:, 0], dtype=torch.float32)
    whole = Objective(points, prior, *tensor, sigma, focal, max(4.0, 0.04 / sigma))
    ends = []
    for part in torch.arange(len(target)).split(128):
        task = whole.select(part)
        if begin is None:
            starts = [start_from_image(task, torso, facing(task, yaw)) for yaw in (0.0, 180.0)]
        else:
            pose = torch.as_tensor(begin[part], dtype=torch.float32)
            near = replace(task, prior=PosePrior(pose[:, 3:], prior.spread_DD))
            starts = [start_from_image(near, torso, rot_from_aa(pose[:, :3]))]
        states = [descend(task, start, first, second, rate, cosine) for start in starts]
        costs = [cost(task, s.root_rot, s.joints_aa, s.betas, s.transl).detach() for s in states]
        ends.append(states[0].where(costs[0] <= costs[-1], states[-1]))
    parts = [(end.pose_aa(), end.betas, end.transl) for end in ends]
    pose, betas, transl = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return pose, betas, transl


def cost(task: Objective, root_rot: Tensor, joints_aa: Tensor, betas: Tensor, transl: Tensor) -> Tensor:
    """The fits' cost, for autograd."""
    predicted = task.predict(FitState(root_rot, joints_aa, betas, transl))
    square = ((predicted - task.target_BKR) / task.sigma).square().sum(-1)
    assert task.robust is not None
    data = (task.conf_BK * task.robust**2 * square / (task.robust**2 + square)).sum(1)
    bent = torch.stack((-joints_aa[:, 9], -joints_aa[:, 12], joints_aa[:, 52], -joints_aa[:, 55])).clamp_min(0) / 0.1
    return data + task.prior.whiten(joints_aa).square().sum(1) + betas.square().sum(1) + bent.square().sum(0)


def descend(task: Objective, start: FitState, first: int, second: int, rate: float, cosine: bool) -> FitState:
    """Both stages of Adam."""
    turn, joints = torch.zeros_like(start.transl), start.joints_aa.clone()
    betas, transl = start.betas.clone(), start.transl.clone()
    for free, iterations in (([turn, transl], first), ([turn, transl, joints, betas], second)):
        for variable in free:
            variable.requires_grad_()
        optimiser = torch.optim.Adam(free, lr=rate, betas=(0.9, 0.999))
        for step in range(iterations):
            if cosine:
                optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / iterations))
            optimiser.zero_grad()
            cost(task, start.root_rot @ rot_from_aa(turn), joints, betas, transl).sum().backward()
            optimiser.step()
    found = FitState(start.root_rot @ rot_from_aa(turn), joints, betas, transl)
    return FitState(*(x.detach() for x in (found.root_rot, found.joints_aa, found.betas, found.transl)))


def rendered(count: int) -> tuple[Tensor, Tensor]:
    """Meshes of people of the renderer's test split, and what the shipped network makes of their pictures."""
    config = DatasetConfig(split="test", options=SyntheticOptions(count=count, seed=2024))
    records = list(synthetic.read(config, BodyConfig(), synthetic.rows(config, BodyConfig())))
    truth = mesh(*(np.stack([getattr(r, name) for r in records]) for name in ("pose_aa", "betas", "transl")))
    network = metro.load("open")
    tight = [[enlarged(r.box, 1 / BOX_SCALE)] for r in records]  # the network adds context itself
    found = network([r.image for r in records], boxes=tight)
    return truth, torch.from_numpy(np.stack([person.vertices for person in found]))


def errors(vertices: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """MPJPE, PA-MPJPE and MPVE (B,), mm."""
    joints, true = (MODEL.regress("h36m17", v) for v in (vertices, truth))
    relative = [j[:, EVALUATED] - j[:, :1] for j in (joints, true)]
    surface = (vertices - joints[:, :1]) - (truth - true[:, :1])
    return (
        1000 * (relative[0] - relative[1]).norm(dim=-1).mean(1),
        1000 * pa_mpjpe(*relative),
        1000 * surface.norm(dim=-1).mean(1),
    )


def measure(name: str, run: Callable[[], Found], truth: Tensor) -> dict[str, str]:
    """Errors (mm) and fits per second of processor time."""
    started = time.process_time()
    found = run()
    seconds = time.process_time() - started
    return row(name, mesh(*found), truth, f"{len(truth) / seconds:.0f}")


def row(name: str, vertices: Tensor, truth: Tensor, speed: str) -> dict[str, str]:
    """Errors (mm): mean / median."""
    kinds = zip(("mpjpe", "pa", "mpve"), errors(vertices, truth), strict=True)
    told = {"name": name, "speed": speed} | {k: f"{error.mean():.1f} / {error.median():.1f}" for k, error in kinds}
    print(told, flush=True)
    return told


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    truth, labels = people(arguments.people, seed=2024)
    fit(in_image(labels, 0, 0), BODY, FitConfig(iterations=1, jump_rounds=0))  # warm-up
    starts = {}
    for noise_rad in DISTURBANCES:
        start = disturbed(labels["pose_aa"], noise_rad)
        shape = np.zeros((len(start), BODY.num_betas))
        starts[f"{errors(mesh(start, shape, labels['transl']), truth)[0].mean():.0f} mm off"] = start
    sections: dict[str, list[dict[str, str]]] = {}
    for case, noise_px, missing in (("17 image joints, exact", 0, 0), ("17 image joints, 4 px, 20 % missing", 4, 0.2)):
        seen, sigma = in_image(labels, noise_px, missing), max(noise_px, 1) * PIXEL
        methods = {
            f"fit, {rounds} jump rounds": partial(ours, seen, FitConfig(sigma_2d=sigma, jump_rounds=rounds))
            for rounds in (0, 1, 2)
        }
        methods["Adam as SPIN"] = partial(adam, seen, sigma, 100, 100, 0.01, False)
        methods["Adam, best settings"] = partial(adam, seen, sigma, 50, 150, 0.05, True)
        for name, start in starts.items():
            methods[f"fit, started {name}"] = partial(ours, seen, FitConfig(sigma_2d=sigma), start)
            methods[f"Adam as SPIN, started {name}"] = partial(adam, seen, sigma, 100, 100, 0.01, False, start)
        sections[case] = [measure(name, run, truth) for name, run in methods.items()]
    for case, noise_m, sigma in (("24 joints in space, exact", 0.0, 0.002), ("24 joints in space, 10 mm", 0.01, 0.01)):
        run = partial(ours, in_space(labels, noise_m), FitConfig(sigma_3d=sigma))
        sections[case] = [measure("fit", run, truth)]
    noise = 0.01 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    for case, vertices in (("6890 vertices, exact", truth), ("6890 vertices, 10 mm", truth + noise)):
        sections[case] = [measure("from_mesh", partial(of_mesh, vertices), truth)]
    truth, seen = rendered(96)
    left_mm = 1000 * from_mesh(seen, BODY).error
    sections["meshes of the shipped network, 96 rendered people"] = [
        row("the network's own", seen, truth, ""),
        measure(
            f"from_mesh, {left_mm.mean():.0f} mm from them (at most {left_mm.max():.0f})", partial(of_mesh, seen), truth
        ),
    ]
    versions = f"Python {platform.python_version()}, PyTorch {torch.__version__.split('+')[0]}"
    lines = [
        f"{machine()}; {versions}; `python benchmarks/fitting.py`; {arguments.people} people; mean / median",
        "",
        "| joints given | method | MPJPE mm | PA-MPJPE mm | MPVE mm | fits / s and core |",
        "|---|---|---|---|---|---|",
    ]
    for case, rows in sections.items():
        lines += [f"| {case} | {r['name']} | {r['mpjpe']} | {r['pa']} | {r['mpve']} | {r['speed']} |" for r in rows]
    notes = arguments.out.read_text().partition("\n\n\n")[2] if arguments.out.exists() else ""
    arguments.out.write_text("\n".join(lines) + "\n" + (f"\n\n{notes}" if notes else ""))


if __name__ == "__main__":
    main()
