"""Checkpoints: a folder with ``model.safetensors``, ``levels.npz``, ``checkpoint.json``; ``training.pt`` to resume.

A checkpoint is written under a temporary name, synced and renamed, and carries the sha256 of its files: a reader sees
a whole one or none. `checkpoint.json` holds the resolved parameters, the step, the metrics and the digest of the body
model it was trained on; `levels.npz` the mesh levels: which vertex each query stands for is part of what was learned.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from typing_extensions import TypedDict

from metro.config import Params, load_params
from metro.errors import MetroError
from metro.files import atomic_folder, read_json, sha256_of
from metro.mesh.sampling import Level, difference, load_sampling, save_sampling
from metro.model.tensors import load_saved, load_tensors
from metro.shipped import SHIPPED, checkpoint_folder
from metro.version import __version__

FORMAT = 2
WEIGHTS, LEVELS, META, TRAINING = "model.safetensors", "levels.npz", "checkpoint.json", "training.pt"
CARD = "MODEL_CARD.md"
RETIRED = ("sweep",)
"""Sections of the parameters that earlier versions had; they said nothing about the network."""
_DAMAGED = "restore or delete the checkpoint"


class _Meta(TypedDict):
    """The content of ``checkpoint.json``."""

    params: dict[str, Any]
    step: int
    metrics: dict[str, float]
    body: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk; weights are read, and their checksum verified, when asked for."""

    folder: Path
    params: Params
    step: int
    metrics: dict[str, float]
    body_digest: str
    sha256: dict[str, str]

    def weights(self) -> dict[str, Tensor]:
        """State dict in float32 (a checkpoint may be stored in half precision)."""
        state = load_tensors(self._verified(WEIGHTS), _DAMAGED)
        return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}

    @cached_property
    def levels(self) -> list[Level]:
        """The mesh levels that the network was trained with, fine to coarse."""
        return load_sampling(self._verified(LEVELS))

    def check_body(self, body_digest: str) -> None:
        """Raise a MetroError if the network was trained on another body model."""
        if self.body_digest != body_digest:
            raise MetroError(
                f"{self.folder}: trained on another body model ({self.body_digest[:12]}, here {body_digest[:12]}); use "
                "the body file it was trained with, or train again"
            )

    def check_levels(self, levels: Sequence[Level]) -> None:
        """Raise a MetroError that says in what if the network was trained with other mesh levels."""
        found = difference(self.levels, levels)
        if found:
            raise MetroError(
                f"{self.folder}: trained with other mesh levels ({found}); set sampling.checkpoint to it to use its "
                "levels, or train again"
            )

    def training_state(self) -> dict[str, Any]:
        """Optimizer, averaged weights and counters that an exact resume needs."""
        if TRAINING not in self.sha256:
            raise MetroError(f"{self.folder}: weights only, it can start a run but not resume one")
        return load_saved(self._verified(TRAINING), _DAMAGED)

    def _verified(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise MetroError(f"{path}: missing, the checkpoint is incomplete; use another one or train again")
        if sha256_of(path) != self.sha256.get(name):
            raise MetroError(f"{path}: checksum differs from {META}, the file is damaged; {_DAMAGED}")
        return path


def save_checkpoint(
    folder: Path,
    state: Mapping[str, Tensor],
    *,
    params: Params,
    step: int,
    metrics: Mapping[str, float],
    body_digest: str,
    levels: Sequence[Level],
    training_state: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a checkpoint atomically to `folder`, replacing one of that name. A model card that stands there stays.

    `dtype` may store floats in half the space.

    Raises
    ------
    MetroError
        The folder holds something else (or what resumes a run, and `training_state` is none), the disk is full, or
        the folder cannot be written; nothing half-written stays behind.
    """
    folder = Path(folder)
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    if dtype is not None:
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    with atomic_folder(folder, META) as partial:
        (partial / WEIGHTS).write_bytes(save(tensors))
        save_sampling(partial / LEVELS, levels, {"body": body_digest})
        if training_state is not None:
            try:
                torch.save(dict(training_state), partial / TRAINING)
            except RuntimeError as err:  # torch's writer keeps the system's reason to itself
                raise OSError(errno.ENOSPC, f"{TRAINING} could not be completed") from err
        meta = {
            "format": FORMAT,
            "metro": __version__,
            "step": step,
            "metrics": dict(metrics),
            "body": body_digest,
            "sha256": {p.name: sha256_of(p) for p in sorted(partial.iterdir())},
            "params": params.model_dump(mode="json"),
        }
        (partial / META).write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")
        if (folder / CARD).is_file():
            shutil.copy2(folder / CARD, partial / CARD)
    return folder


def copy_weights(source: Path | str, target: Path, dtype: torch.dtype | None = None) -> Path:
    """Copy a checkpoint without what only a resume needs; `dtype` may store floats in half the space."""
    found = load_checkpoint(source)
    return _save_like(found, target, found.weights(), dtype)


def blend_weights(start: Path | str, end: Path | str, share: float, target: Path) -> Path:
    """Write the weights that lie by a share of the way from one checkpoint to another, which was trained from it.

    Such weights may be good both at what the start knows and at what was learned since (Wortsman et al., "Robust
    fine-tuning of zero-shot models", CVPR 2022). Counters, parameters, step and metrics are the end's.

    Raises
    ------
    MetroError
        They are not of one network, one body model and the same mesh levels, or as `load_checkpoint`.
    """
    one, other = load_checkpoint(start), load_checkpoint(end)
    other.check_body(one.body_digest)
    other.check_levels(one.levels)
    before, after = one.weights(), other.weights()
    if {name: weight.shape for name, weight in before.items()} != {
        name: weight.shape for name, weight in after.items()
    }:
        raise MetroError(f"{start}, {end}: weights of two networks; one has to be trained from the other")
    blend = {
        name: before[name].lerp(weight, share) if weight.is_floating_point() else weight
        for name, weight in after.items()
    }
    return _save_like(other, target, blend)


def _save_like(
    found: Checkpoint, target: Path, weights: dict[str, torch.Tensor], dtype: torch.dtype | None = None
) -> Path:
    """Write weights with all that a checkpoint says of its own, without what only a resume needs."""
    return save_checkpoint(
        target,
        weights,
        params=found.params,
        step=found.step,
        metrics=found.metrics,
        body_digest=found.body_digest,
        levels=found.levels,
        dtype=dtype,
    )


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Open a checkpoint folder. `open` and `open-hand` name those that ship with the project.

    Raises
    ------
    MetroError
        No such folder, not a checkpoint, or one of another format.
    """
    folder, names = checkpoint_folder(path), " or ".join(f"`{name}`" for name in SHIPPED)
    remedy = f"give a checkpoint folder that training wrote, {names}; older ones lack the mesh levels: train again"
    meta = read_json(folder / META, remedy, version=("format", FORMAT), shape=_Meta)
    try:
        given = {name: section for name, section in meta["params"].items() if name not in RETIRED}
        params = load_params(given, f"{folder / META}: params")
    except MetroError as err:
        by = f"metro {meta.get('metro')!r:.20}, this is {__version__!r}"
        raise MetroError(f"{err}; written by {by}: use the version that wrote it, or train again") from None
    return Checkpoint(
        folder=folder,
        params=params,
        step=meta["step"],
        metrics=meta["metrics"],
        body_digest=meta["body"],
        sha256=meta["sha256"],
    )


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest complete ``step-*`` checkpoint in `folder`, if any."""
    steps = sorted(p for p in Path(folder).glob("step-*") if (p / META).is_file())
    return load_checkpoint(steps[-1]) if steps else None
