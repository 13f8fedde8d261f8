"""Time of the skinning layer against `smplx`, same arrays, same inputs, alternating in one process.

``python benchmarks/body.py`` takes about a minute, needs the extra `reference` and writes ``benchmarks/body.md``:
milliseconds of CPU time per call on one thread, so that other load on the machine does not count as ours, and ratios.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import machine

from metro.body.load import load_body
from metro.body.model import BodyModel

ROUNDS = 15
THREADS = 1


def main() -> None:
    import smplx

    torch.set_num_threads(THREADS)
    data = load_body("open")
    ours = BodyModel(data)
    arrays = smplx.utils.Struct(
        v_template=data.v_template,
        shapedirs=data.shapedirs,
        posedirs=data.posedirs,
        J_regressor=data.J_regressor,
        kintree_table=np.array([data.parents, range(24)]),
        weights=data.weights,
        f=data.faces,
    )
    rows = ["| bodies | pass | metro, ms | smplx, ms | ratio [least, most] |", "| --- | --- | --- | --- | --- |"]
    for batch in (1, 8, 32, 128):
        with contextlib.redirect_stdout(io.StringIO()):
            reference = smplx.SMPL("", data_struct=arrays, batch_size=batch)
        generator = torch.Generator().manual_seed(batch)
        pose = (0.5 * torch.randn(batch, 72, generator=generator)).requires_grad_()
        betas = torch.randn(batch, 10, generator=generator).requires_grad_()

        def run_ours(pose: torch.Tensor = pose, betas: torch.Tensor = betas) -> torch.Tensor:
            return ours(pose, betas).vertices

        def run_reference(
            pose: torch.Tensor = pose, betas: torch.Tensor = betas, reference: torch.nn.Module = reference
        ) -> torch.Tensor:
            return reference(global_orient=pose[:, :3], body_pose=pose[:, 3:], betas=betas).vertices

        for name, wrap in (("forward", _forward), ("forward + backward", _backward)):
            mine, theirs = compare(lambda w=wrap, f=run_ours: w(f), lambda w=wrap, f=run_reference: w(f))
            ratios = theirs / mine
            times = f"{np.median(mine):.1f} | {np.median(theirs):.1f}"
            rows.append(
                f"| {batch} | {name} | {times} | {np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}] |"
            )
            print(rows[-1], flush=True)
    head = (
        f"Made by `python benchmarks/body.py` on one thread of {machine()}; torch {torch.__version__}. The open body "
        f"(6890 vertices, 24 joints, pose correctives) in float32; medians of {ROUNDS} calls of each, in turns."
    )
    Path(__file__).with_suffix(".md").write_text("\n".join([head, "", *rows, "", NOTES]))


def _forward(call: Callable[[], torch.Tensor]) -> None:
    with torch.no_grad():
        call()


def _backward(call: Callable[[], torch.Tensor]) -> None:
    call().square().sum().backward()


def compare(a: Callable[[], None], b: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
    """CPU milliseconds, (rounds,) each; called in turn so that caches warmed or spoilt by others meet both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (a, b):
        call()
    for _ in range(ROUNDS):
        for call, taken in zip((a, b), times, strict=True):
            start = time.process_time()
            call()
            taken.append(1000 * (time.process_time() - start))
    return np.array(times[0]), np.array(times[1])


NOTES = """\
Where it comes from: shape and pose displacements are one matrix product; vertices are coordinate-major, so the blended
transforms are applied by three fused multiply-adds without a (bodies, vertices, 4, 4) intermediate; the tree is walked
by depth (9 steps instead of 23). About half of the forward pass is now the product with the pose correctives. Both
layers agree to 1.5e-6 m (`tests/body/test_skinning.py`).
"""


if __name__ == "__main__":
    main()
