"""Pseudo-meshes for a prepared dataset: one Dask task and one sidecar file per shard."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metro.body.arrays import BodyData, digest
from metro.body.load import load_body
from metro.config import BodyConfig, FitConfig
from metro.data.hdf5 import open_h5, read_arrays, read_facts
from metro.data.parallel import map_shards
from metro.data.shards import ShardDataset, read_manifest, write_fits
from metro.errors import MetroError
from metro.files import atomic_file, sha256_of
from metro.fitting.gate import Reason
from metro.fitting.prior import load_prior
from metro.fitting.smplify import fit
from metro.version import __version__

_PERCENTILES = (5, 50, 95)


class Start(Protocol):
    """Poses to start fits from; goes to the workers as a pickle."""

    @property
    def recipe(self) -> str:
        """What the poses depend on beside the shard."""
        ...

    def check(self, body: BodyData) -> None:
        """Raise a MetroError if the poses are not of this body."""
        ...

    def __call__(self, people: ShardDataset, body: BodyData) -> NDArray[np.floating]:
        """Poses (N, 72) of people, as `metro.fitting.fit` takes them."""
        ...


@dataclass(frozen=True)
class _Job:
    """What a worker needs to fit one shard."""

    shard: Path
    out: Path
    body: BodyConfig
    config: FitConfig
    recipe: str
    device: str
    start: Start | None


def fit_dataset(
    folder: Path,
    out: Path,
    body: BodyConfig,
    config: FitConfig,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    device: str = "cpu",
    start: Start | None = None,
) -> dict[str, Any]:
    """Fit every person of a dataset that has no mesh, and write one sidecar per shard.

    Shards are read, never changed. A sidecar that exists already and was made from the same shard, body and settings
    is kept, so an interrupted run goes on where it stopped.

    Parameters
    ----------
    folder
        Dataset written by `metro.sources.prepare.prepare`.
    out
        Folder of the sidecars, `fit-00000.h5` …, and `summary.json`.
    body, config
        The body and fit sections of the params.
    scheduler, workers, progress
        See `metro.data.parallel.map_shards`.
    device
        Where to compute; with an accelerator take one worker for each.
    start
        Gives the poses that fits to 2D joints start from (`metro.export.start`).

    Returns
    -------
    dict
        What `summary.json` holds: `count`, `accepted`, `rejected` by reason, `kept_meshes` (people who had a mesh),
        `error_3d_mm` and `error_2d_percent` (mean and percentiles over accepted fits, None without any), `converged`
        (share of the fits) and `iterations` (of the solver's last stage, over the fits); and the `seconds` it took,
        which the file does not hold: equal fits are equal files.

    Raises
    ------
    MetroError
        The folder is not a finished dataset, body or prior do not suit, or the disk is full.
    """
    started = time.monotonic()
    folder, out = Path(folder), Path(out)
    manifest = read_manifest(folder)
    data = load_body(body)
    if data.num_joints * 3 != data.figure.pose_size:
        raise MetroError(
            f"body.kind={body.kind}: datasets hold poses of SMPL's 24 joints; use open or smpl here, or call "
            "metro.fitting.fit, which takes SMPL-X"
        )
    if start is not None:
        start.check(data)
    load_prior(config.prior)  # what is wrong with it is told before any work
    settings = config.model_dump(mode="json", exclude={"datasets", "batch_size", "prior"})
    settings["prior"] = sha256_of(config.prior) if config.prior else None
    begin = [] if start is None else [start.recipe]
    jobs = []
    for entry in manifest["shards"]:
        recipe = json.dumps([__version__, settings, digest(data), entry["sha256"], *begin], sort_keys=True)
        name = entry["file"]
        recipe_digest = hashlib.sha256(recipe.encode()).hexdigest()
        jobs.append(_Job(folder / name, out, body, config, recipe_digest, device, start))
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").unlink(missing_ok=True)
    wanted = {_sidecar(job).name for job in jobs}
    for stale in [p for pattern in ("fit-*.h5", ".fit-*.tmp") for p in out.glob(pattern) if p.name not in wanted]:
        stale.unlink()
    parts = map_shards(
        _fit_shard, jobs, scheduler=scheduler, workers=workers, progress=progress, label=f"fit {manifest['name']}"
    )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    summary = _summarise(columns)
    with atomic_file(out / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
    return summary | {"seconds": round(time.monotonic() - started, 2)}


def _fit_shard(job: _Job) -> dict[str, np.ndarray]:
    """Write the sidecar of one shard, unless it is there; what the summary needs of it."""
    kept = ("accepted", "reason", "converged", "iterations", "error_3d", "error_2d")
    if _is_finished(job):
        with open_h5(_sidecar(job), "fit") as file:
            return {name: file["labels"][name][...] for name in kept}
    dataset, body = ShardDataset([job.shard]), load_body(job.body)
    labels = dataset.labels
    rows = np.flatnonzero(~labels["has_mesh"])
    without_mesh = {name: values[rows] for name, values in labels.items()}
    poses = None
    flat = np.flatnonzero(without_mesh["has_2d"] & ~without_mesh["has_3d"])
    if job.start is not None and len(flat):
        poses = np.full((len(rows), 3 * body.num_joints), np.nan)
        poses[flat] = job.start(dataset.subset(rows[flat]), body)
    fits = fit(without_mesh, body, job.config, start=poses, device=job.device)
    count = len(labels["keys"])

    def spread(values: np.ndarray, missing: Any) -> np.ndarray:
        whole = np.full((count, *values.shape[1:]), missing, values.dtype)
        whole[rows] = values
        return whole

    longest = max(map(len, Reason))
    arrays = {
        "keys": labels["keys"],
        "pose_aa": spread(fits.pose_aa, 0),
        "betas": spread(fits.betas, 0),
        "transl": spread(fits.transl, 0),
        "fit_error": spread(fits.error_3d, np.nan),
        "accepted": spread(fits.accepted, False),
        "reason": spread(fits.reason.astype(f"S{longest}"), Reason.HAS_MESH.encode()),
        "converged": spread(fits.converged, False),
        "iterations": spread(fits.iterations, 0),
        "error_3d": spread(fits.error_3d, np.nan),
        "error_2d": spread(fits.error_2d, np.nan),
    }
    write_fits(job.out, job.shard.name, arrays, {"recipe": job.recipe})
    return {name: arrays[name] for name in kept}


def _sidecar(job: _Job) -> Path:
    return job.out / job.shard.name.replace("shard-", "fit-")


def _is_finished(job: _Job) -> bool:
    try:
        with open_h5(_sidecar(job), "fit") as file:
            return read_facts(file).get("recipe") == job.recipe and bool(read_arrays(file))
    except (MetroError, OSError):
        return False  # missing or damaged: made again


def _summarise(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    accepted, reason = columns["accepted"], columns["reason"]
    had_mesh = reason == Reason.HAS_MESH.encode()
    tried = np.isfinite(columns["error_3d"]) | np.isfinite(columns["error_2d"])
    refused = reason[~accepted & ~had_mesh]
    return {
        "count": len(accepted),
        "accepted": int(accepted.sum()),
        "rejected": {name.decode(): count for name, count in sorted(Counter(refused.tolist()).items())},
        "kept_meshes": int(had_mesh.sum()),
        "error_3d_mm": _distribution(1000 * columns["error_3d"][accepted]),
        "error_2d_percent": _distribution(100 * columns["error_2d"][accepted]),
        "converged": round(float(columns["converged"][tried].mean()), 4) if tried.any() else None,
        "iterations": _distribution(columns["iterations"][tried]),
    }


def _distribution(values: np.ndarray) -> dict[str, float] | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    return {
        "mean": round(float(values.mean()), 3),
        **{f"p{q}": round(float(np.percentile(values, q)), 3) for q in _PERCENTILES},
        "max": round(float(values.max()), 3),
    }
