"""`metro fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from metro.cli.options import Between, Place, ToFolder, Word, Writable
from metro.errors import MetroError


def fit(
    folder: Path,
    /,
    *,
    out: ToFolder | None = None,
    params: Place | None = None,
    scheduler: Word | None = None,
    workers: Annotated[int, Parameter(validator=Between(1, 1024))] | None = None,
    device: Word = "cpu",
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
    from metro.model.device import device_of

    device_of(device)
    if out is None:
        try:
            out = (Path.cwd() / folder).with_name(f"{(Path.cwd() / folder).name}-fits")
            Writable(folder=True)(Path, out)
        except ValueError as err:
            raise MetroError(f"{folder}-fits: {err} Give --out.") from None
    settings = load_params(params) if params is not None else Params()
    return fit_dataset(folder, out, settings.body, settings.fit, scheduler, workers, device=device)
