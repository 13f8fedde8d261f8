"""The environment variables that the pipeline and the flows look at, in one place."""

from __future__ import annotations

import os
from typing import NamedTuple

from metro.environment import port, store, tracked
from metro.errors import MetroError


class Environment(NamedTuple):
    """What the environment says at the moment; what is not said is None, or the default of the field."""

    tracking: bool
    """``METRO_TRACKING``: `off`, `0`, `false` or `no` goes without MLflow."""
    dask: str | None
    """``METRO_DASK``: address of a running Dask scheduler to use instead of this machine's cores."""
    store: str | None
    """``MLFLOW_TRACKING_URI``: MLflow store; without it a SQLite file in the project."""
    mlflow_ui: str | None
    """``MLFLOW_UI``: address of the MLflow UI, for links to runs; set by `make serve`."""
    mlflow_port: str
    """``MLFLOW_PORT``: where `make serve` puts the MLflow UI."""
    prefect_port: str
    """``PREFECT_PORT``: where `make serve` puts the Prefect server."""
    stage: str | None
    """``DVC_STAGE``: stage that DVC is running, with its item."""
    root: str | None
    """``DVC_ROOT``: root of the DVC repository; in a queued experiment of the main one, not of the scratch copy."""
    experiment: str | None
    """``DVC_EXP_NAME``: DVC experiment that is being run."""
    baseline: str | None
    """``DVC_EXP_BASELINE_REV``: commit that the experiment started from."""
    flow_run: str | None
    """``PREFECT_FLOW_RUN_ID``: flow run that started the stage."""
    rank: int
    """``RANK`` or ``LOCAL_RANK``: number of this process among those that train together; 0 leads."""


def environment() -> Environment:
    """Read the environment; an empty variable counts as none."""
    get = os.environ.get
    return Environment(
        tracking=tracked(),
        dask=get("METRO_DASK") or None,
        store=store(),
        mlflow_ui=get("MLFLOW_UI") or None,
        mlflow_port=port("MLFLOW_PORT"),
        prefect_port=port("PREFECT_PORT"),
        stage=get("DVC_STAGE") or None,
        root=get("DVC_ROOT") or None,
        experiment=get("DVC_EXP_NAME") or None,
        baseline=get("DVC_EXP_BASELINE_REV") or None,
        flow_run=get("PREFECT_FLOW_RUN_ID") or None,
        rank=_rank(get("RANK") or get("LOCAL_RANK") or "0"),
    )


def _rank(written: str) -> int:
    if not written.isdecimal() or len(written) > 9:
        raise MetroError(f"RANK={written!r:.40} is not the number of a process: unset it, torchrun sets it")
    return int(written)
