"""`metro fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts.types import Directory, PositiveInt


def fit(
    folder: Path,
    /,
    *,
    out: Directory | None = None,
    params: Path | None = None,
    scheduler: str | None = None,
    workers: PositiveInt | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Fit the body model to a prepared dataset's joints and write pseudo-meshes beside it.

    Parameters
    ----------
    folder
        Dataset folder with shards and manifest.json. It is not changed.
    out
        Folder for the fits, one file per shard, and summary.json; FOLDER-fits if left out.
    params
        Params file with `body` and `fit` sections; the defaults if left out.
    scheduler
        Address of a Dask scheduler; without it the work is done by processes of this machine.
    workers
        Processes; one per core if left out.
    device
        Where to compute: cpu, cuda, ...
    """
    from metro.config import Params, load_params
    from metro.fitting.dataset import fit_dataset

    out = out or folder.with_name(f"{folder.name}-fits")
    settings = load_params(params) if params is not None else Params()
    return fit_dataset(folder, out, settings.body, settings.fit, scheduler, workers, device=device)
