"""Metrics of a batch against the loop over samples in NumPy that scorers have, and the memory of an evaluation.

``python benchmarks/metrics.py`` takes two minutes on one thread and writes ``benchmarks/metrics.md``. The loops are
what the published scorers do, one person at a time; both ways take turns, each row is the median of its rounds, and the
numbers of both are compared. Memory is what NumPy holds at most while rows of made scores are collected, and while the
tables are made of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from metro.evaluation import metrics as m

ROUNDS, BATCH = 3, 256
PEOPLE = (35_515, 500_000)
STEPS_5_MM = torch.arange(31, dtype=torch.float64) * 5 / 1000
Loop = Callable[[np.ndarray, np.ndarray], float]
Batch = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def mpjpe(pred: np.ndarray, true: np.ndarray) -> float:
    """Hips together; one person (14, 3), as all below."""
    return float(errors(pred - pred[2:4].mean(0), true - true[2:4].mean(0)).mean())


def errors(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distances of points."""
    return np.sqrt(((pred - true) ** 2).sum(1))


def aligned(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The points after the best similarity without reflection."""
    mean_p, mean_t = pred.mean(0), true.mean(0)
    p, t = pred - mean_p, true - mean_t
    u, _, vh = np.linalg.svd(p.T @ t)
    flip = np.eye(3)
    flip[2, 2] = np.sign(np.linalg.det(u @ vh))
    rotation = vh.T @ flip @ u.T
    scale = np.trace(rotation @ (p.T @ t)) / (p**2).sum()
    return scale * pred @ rotation.T + mean_t - scale * mean_p @ rotation.T


def area(pred: np.ndarray, true: np.ndarray) -> float:
    """200 thresholds of whole millimetres, trapezoidal rule."""
    found, limits = errors(pred - pred[2:4].mean(0), true - true[2:4].mean(0)), np.arange(200) / 1000
    return float(np.trapezoid([(found <= limit).mean() for limit in limits], limits) / 0.199)


def area_mpi(pred: np.ndarray, true: np.ndarray) -> float:
    """Mean of 31 shares."""
    found = errors(pred - pred[2:4].mean(0), true - true[2:4].mean(0))
    return float(np.mean([(found < limit).mean() for limit in np.arange(31) * 5 / 1000]))


def f_score(pred: np.ndarray, true: np.ndarray) -> float:
    """Nearest points by trees, as Open3D finds them for FreiHAND's scorer."""
    near_t, near_p = cKDTree(pred).query(true)[0], cKDTree(true).query(pred)[0]
    precision, recall = (near_p < 0.005).mean(), (near_t < 0.005).mean()
    return float(2 * precision * recall / max(precision + recall, 1e-300))


def batch_errors(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Distances about the hips."""
    return m.joint_errors(p, t, root=(2, 3))


ROWS: dict[str, tuple[int, int, Loop, Batch]] = {
    "MPJPE, 14 joints": (14, 2048, mpjpe, lambda p, t: batch_errors(p, t).mean(1)),
    "PA-MPJPE, 14 joints": (14, 2048, lambda p, t: float(errors(aligned(p, t), t).mean()), m.pa_mpjpe),
    "AUC 0–200 mm, 14 joints": (14, 512, area, lambda p, t: m.auc(batch_errors(p, t), m.WHOLE_MM)),
    "AUC 0–150 mm, 14 joints": (14, 2048, area_mpi, lambda p, t: m.mean_pck(batch_errors(p, t), STEPS_5_MM)),
    "MPVE, 6,890 vertices": (6890, 256, lambda p, t: float(errors(p, t).mean()), m.mpve),
    "PA-MPVE, 6,890 vertices": (6890, 256, lambda p, t: float(errors(aligned(p, t), t).mean()), m.pa_mpjpe),
    "F@5, 778 vertices": (778, 128, f_score, lambda p, t: m.f_score(p, t, 0.005)),
}
JOINTS = [name for name in ROWS if "14 joints" in name]


def speed() -> Iterator[str]:
    """Rows of the first table."""
    rng, spent = np.random.default_rng(0), {}
    for name, (points, people, loop, batch) in ROWS.items():
        true = rng.normal(0, 0.3 if points != 778 else 0.05, (people, points, 3))
        pred = true + rng.normal(0, 0.05 if points != 778 else 0.004, true.shape)
        pairs = [*zip(torch.from_numpy(pred).split(BATCH), torch.from_numpy(true).split(BATCH), strict=True)]
        times: dict[str, list[float]] = {"loop": [], "batch": []}
        for _ in range(ROUNDS):
            began = time.perf_counter()
            slow = np.array([loop(p, t) for p, t in zip(pred, true, strict=True)])
            middle = time.perf_counter()
            fast = torch.cat([batch(p, t) for p, t in pairs]).numpy()
            times["loop"].append((middle - began) / people)
            times["batch"].append((time.perf_counter() - middle) / people)
        slow_us, fast_us = (1e6 * statistics.median(times[way]) for way in ("loop", "batch"))
        spent[name] = slow_us, fast_us
        off = np.abs(slow - fast).max()
        yield f"| {name} | {slow_us:,.1f} | {fast_us:,.1f} | {slow_us / fast_us:.1f} | {off:.0e} |"
    for title, names in (("all of joints", JOINTS), ("all", [*ROWS])):
        slow_us, fast_us = (sum(spent[name][way] for name in names) for way in (0, 1))
        yield f"| {title} | {slow_us:,.1f} | {fast_us:,.1f} | {slow_us / fast_us:.1f} | |"


def memory(people: int) -> str:
    """Row of the second table; run in a process of its own."""
    from metro.config import EvaluateConfig
    from metro.evaluation.measure import Samples, _table
    from metro.evaluation.protocols import PROTOCOLS
    from metro.evaluation.summary import summarise

    protocol, baselines = PROTOCOLS["open"], ("camera_mean", "canonical_mean", "canonical_true_heading")
    rng = np.random.default_rng(0)

    def part(first: int) -> Samples:
        count = min(BATCH, people - first)

        def column(*shape: int) -> np.ndarray:
            return rng.random((count, *shape))

        return Samples(
            np.arange(first, first + count),
            {key: column() for key in protocol.metrics},
            {key: column(14) for key in ("mpjpe", "pa_mpjpe", *baselines)},
            {key: column() for key in ("heading", "inside", "distance", "side", "overlap")},
            {name: {key: column() for key in protocol.headline} for name in baselines},
            column(3),
        )

    keys = np.zeros(people, "S1")
    tracemalloc.start()
    samples = _table(map(part, range(0, people, BATCH)), people, None)
    rows = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    summarise(samples, protocol, EvaluateConfig(bootstrap=20), keys=keys)
    tables = tracemalloc.get_traced_memory()[1]
    return f"| {people:,} | {rows / 1e6:,.0f} | {rows / people:,.0f} | {tables / 1e6:,.0f} | {tables / people:,.0f} |"


def main() -> None:
    from machine import machine

    torch.set_num_threads(1)
    with torch.inference_mode():
        rows = [*speed()]
    command = [sys.executable, __file__]
    memories = [
        subprocess.run([*command, str(people)], capture_output=True, text=True, check=True).stdout.strip()
        for people in PEOPLE
    ]
    lines = [
        f"Made by `python benchmarks/metrics.py` on {machine()}; torch {torch.__version__}, NumPy {np.__version__}, "
        f"one thread, batches of {BATCH}.",
        "",
        "| | loop over samples, µs a person | batch, µs a person | ÷ | numbers differ by |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        "| people | rows, MB at most | bytes a person | rows and tables, MB at most | bytes a person |",
        "| --- | --- | --- | --- | --- |",
        *memories,
        "",
        "Both are in proportion to the people: at 10 million, which were not run, rows are the bytes above times ten "
        "million, 8 GB. Beside them a dataset keeps its labels, 1.2 kB a person, in memory or mapped from a file.",
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    print(memory(int(sys.argv[1]))) if len(sys.argv) > 1 else main()
