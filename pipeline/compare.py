"""How far the metrics of the workspace are from the committed ones, and what to open: ``python -m pipeline.compare``.

`make repro` ends with it. It looks at the errors in millimetres of each benchmark; `dvc metrics diff` shows all
numbers.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from metro.config import Params
from pipeline import stage
from pipeline.paths import METRICS, REPORT

TOLERANCE = 0.01
"""Largest relative change of a benchmark's error that another processor, whose rounding differs, may cause.

Measured for the default run: 0.0002, with SSE and with AVX2 kernels against AVX-512."""


def main(params: Params) -> None:
    """Say it in one line."""
    told = []
    for name in params.benchmarks:
        path = METRICS / "evaluate" / f"{name}.json"
        told.append(compare(name, stage.read_json(path, f"evaluate@{name}"), committed(path)))
    print("; ".join([*told, f"open {REPORT / 'index.html'}"]))


def committed(path: Path) -> dict[str, float]:
    """Metrics of a file as the last commit holds them; empty without git or such a file."""
    try:
        done = subprocess.run(["git", "show", f"HEAD:./{path}"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    metrics: dict[str, float] = json.loads(done.stdout)
    return metrics


def compare(name: str, now: Mapping[str, float], before: Mapping[str, float]) -> str:
    """A benchmark's errors beside the committed ones, and what to make of them."""
    shown, changes = [], []
    for key, value in now.items():
        if not key.endswith("_mm"):
            continue
        text = f"{key.removesuffix('_mm')} {value:.1f} mm"
        if before.get(key):
            changes.append(value / before[key] - 1)
            text += f" (committed {before[key]:.1f}, {100 * changes[-1]:+.1f} %)"
        shown.append(text)
    if not changes:
        verdict = "no committed metrics to compare with"
    elif all(abs(change) <= TOLERANCE for change in changes):
        verdict = f"within the {100 * TOLERANCE:.0f} % that another processor may change"
    else:
        verdict = (
            f"more than the {100 * TOLERANCE:.0f} % that another processor may change: see `git status` and "
            "`dvc params diff` for what else differs, and `metro doctor` for the installation"
        )
    return f"{name}: {', '.join(shown)}: {verdict}"


if __name__ == "__main__":
    stage.run(main)
