"""Time of the skinning layer against `smplx`, same arrays, same inputs, alternating in one process.

    python benchmarks/body.py            # needs the [reference] extra

Prints a Markdown table of milliseconds of CPU time per call on one thread, median over rounds, and the ratio of the
medians. CPU time, so that other load on the machine does not count as ours.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

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
    print("| bodies | pass | metro, ms | smplx, ms | ratio |\n| --- | --- | --- | --- | --- |")
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
            print(f"| {batch} | {name} | {mine:.1f} | {theirs:.1f} | {theirs / mine:.2f} |")
            sys.stdout.flush()


def _forward(call: Callable[[], torch.Tensor]) -> None:
    with torch.no_grad():
        call()


def _backward(call: Callable[[], torch.Tensor]) -> None:
    call().square().sum().backward()


def compare(a: Callable[[], None], b: Callable[[], None]) -> tuple[float, float]:
    """Median CPU milliseconds of each, called in turn so that caches warmed or spoilt by others meet both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (a, b):
        call()
    for _ in range(ROUNDS):
        for call, taken in zip((a, b), times, strict=True):
            start = time.process_time()
            call()
            taken.append(1000 * (time.process_time() - start))
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
