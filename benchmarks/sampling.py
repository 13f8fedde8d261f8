"""Mesh levels: time against the published procedure in the same run, and how well posed bodies survive the round trip.

``python benchmarks/sampling.py`` takes about three minutes, nearly all of it in the naive procedure, and writes
``benchmarks/sampling.md``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from machine import machine

from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.mesh.decimate import Collapse
from metro.mesh.sampling import Level, build_sampling, up_sampling_errors
from metro.mesh.topology import euler, is_manifold
from metro.synthetic.poses import sample_poses

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "mesh"))  # the naive twin lives with the tests

from coma_procedure import coma_procedure, coma_up  # noqa: E402

COUNT, SEED, ROUNDS = 200, 20210621, 3
OFFSET = np.array([0.3, 0.2, 4.0])  # metres: where a camera sees people


def posed_bodies(count: int, seed: int) -> np.ndarray:
    """Vertices (count, 6890, 3) of open bodies, shapes N(0, 1), poses of the synthetic source."""
    model = BodyModel(load_body("open"))
    generator = np.random.default_rng(seed)
    betas = torch.tensor(generator.normal(size=(count, model.num_betas)).clip(-2.5, 2.5), dtype=torch.float32)
    rest = model(torch.zeros(count, 72), betas).joints.numpy()
    rotations = torch.tensor(sample_poses(seed, range(count), rest).rot, dtype=torch.float32)
    return model(betas=betas, pose_rot=rotations).vertices.numpy().astype(np.float64)


def race(*calls: Callable[[], object]) -> np.ndarray:
    """Processor seconds (rounds, calls), in turns: others may share the machine."""
    spent = []
    for _ in range(ROUNDS):
        spent.append([])
        for call in calls:
            start = time.process_time()
            call()
            spent[-1].append(time.process_time() - start)
    return np.array(spent)


def told(answer: bool) -> str:
    """Yes or no, for the table."""
    return "yes" if answer else "no"


def main() -> None:
    """Run everything and write the table."""
    torch.set_num_threads(1)
    body = load_body("open")
    vertices, faces = body.v_template.astype(np.float64), body.faces.astype(np.int64)
    build_sampling(vertices, faces)  # compiles

    def soundness(faces: np.ndarray) -> str:
        return f"{told(is_manifold(faces))} | {euler(faces)} |"

    lines = [f"Made by `python benchmarks/sampling.py` on one thread of {machine()}.", ""]
    lines += ["| open body, 6890 → 1723 vertices | CPU seconds | ratio | same faces | manifold | Euler |"]
    lines += ["|---|---|---|---|---|---|"]
    # The open body is mirror-symmetric, and in the published procedure rounding decides between mirrored edges.
    shaken = vertices + np.random.default_rng(SEED).normal(0, 1e-6, vertices.shape)
    free = Collapse(shaken, faces, guarded=False).run(1723)
    naive = coma_procedure(shaken, faces, 1723)
    spent = race(
        lambda: coma_procedure(shaken, faces, 1723),
        lambda: Collapse(shaken, faces, guarded=False).run(1723),
        lambda: build_sampling(vertices, faces),
    )
    seconds, ratios = np.median(spent, 0), np.median(spent[:, :1] / spent, 0)
    same = told(np.array_equal(naive, free))
    lines.append(
        f"| published procedure, naive; vertices shaken by 1 µm | {seconds[0]:.1f} | 1 | – | {soundness(naive)}"
    )
    lines.append(f"| the same, ours | {seconds[1]:.2f} | {ratios[1]:.1f} | {same} | {soundness(free)}")
    levels = build_sampling(vertices, faces)
    untied = Collapse(vertices, faces, guarded=False).run(1723)
    kept = len(np.intersect1d(levels[0].indices, np.unique(untied)))
    name = "`build_sampling`: 1723 and 431, topology kept, up-sampling"
    shared = f"{kept} of 1723 vertices of the procedure without topology"
    lines.append(f"| {name} | {seconds[2]:.2f} | {ratios[2]:.1f} | {shared} | {soundness(levels[0].faces)}")

    theirs, finer = [], vertices
    for level in levels:
        theirs.append(Level(level.indices, sp.csr_matrix(coma_up(finer, level.indices, level.faces)), level.faces))
        finer = finer[level.indices]
    people = posed_bodies(COUNT, SEED)
    lines += ["", f"Up-sampling to 6890, {COUNT} posed open bodies, millimetres:", ""]
    lines += [
        "| from | weights | mean | p99 | max | mean, body moved to (0.3, 0.2, 4) m |",
        "|---|---|---|---|---|---|",
    ]
    for name, made in (("barycentric (ours)", levels), ("least squares (published)", theirs)):
        centred = up_sampling_errors(made, people - people.mean(axis=1, keepdims=True)) * 1000
        moved = up_sampling_errors(made, people - people.mean(axis=1, keepdims=True) + OFFSET) * 1000
        for level, near, far in zip(made, centred, moved, strict=True):
            figures = f"{near.mean():.2f} | {np.percentile(near, 99):.1f} | {near.max():.0f} | {far.mean():.2f}"
            lines.append(f"| {len(level.indices)} | {name} | {figures} |")
    table = "\n".join(lines) + "\n"
    (HERE / "sampling.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
