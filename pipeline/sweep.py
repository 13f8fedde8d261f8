"""Stage `sweep@RATIO`: a short training that differs from the others in the masking ratio alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from metro.config import Params
from metro.errors import MetroError
from pipeline import stage
from pipeline.paths import TRAIN_SETS, sweep
from pipeline.train import train_into


def main(params: Params, ratio: str) -> None:
    """Train with the joints and vertices masked up to `ratio`."""
    train_into(
        sweep(ratio),
        at_ratio(params, float(ratio)),
        name=f"mask {ratio}",
        group=group(params),
        grouped=stage.section(params, "sweep") | alike(params),
        tags={"mask_ratio": ratio},
    )


def at_ratio(params: Params, ratio: float) -> Params:
    """The parameters of one short run."""
    steps = params.sweep.steps
    train = params.train.model_copy(
        update={
            "steps": steps,
            "warmup_steps": min(params.train.warmup_steps, steps // 5),
            "validation": None,
            "mask": params.train.mask.model_copy(update={"joints": ratio, "vertices": ratio}),
        }
    )
    return params.model_copy(update={"train": train})


def group(params: Params) -> str:
    """Name of the tracked sweep: equal for all runs that may be compared with one another."""
    if not TRAIN_SETS.is_file():
        raise MetroError(f"{TRAIN_SETS}: missing; `dvc repro catalogue` makes it")
    content = json.dumps(alike(params), sort_keys=True).encode() + TRAIN_SETS.read_bytes()
    return f"mask-sweep:{hashlib.sha256(content).hexdigest()[:12]}"


def alike(params: Params) -> dict[str, Any]:
    """What the runs of a sweep have in common."""
    sections = stage.section(at_ratio(params, 0.0), "body", "sampling", "model", "train")
    for swept in ("joints", "vertices"):
        del sections["train"]["mask"][swept]
    return sections


if __name__ == "__main__":
    stage.run(main)
