"""The MLflow store: where it is, made by whoever comes first, and the runs that it knows."""

from __future__ import annotations

import contextlib
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from metro.errors import MetroError
from pipeline.environment import environment

EXPERIMENT = "metro"
WITHOUT = "METRO_TRACKING=off goes without"


def setup() -> str:
    """Point MLflow at the store, made first where it is missing; returns the experiment's id.

    Raises
    ------
    MetroError
        The tracking server does not answer, or the store cannot be used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # A store that went away should cost seconds, not the minutes of the default back-off.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    uri = store_uri()
    if uri.startswith(("http://", "https://")):
        _ping(uri)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics", "mlflow.tracking.fluent"):
        logging.getLogger(name).setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri)
    mlflow.set_system_metrics_sampling_interval(5)
    try:
        with locked():
            experiment = mlflow.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                # Without an explicit location artifacts go to the working directory of the first use.
                location = (project_root() / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
                kind = {"mlflow.experimentKind": "custom_model_development"}
                identity = mlflow.create_experiment(EXPERIMENT, artifact_location=location, tags=kind)
            else:
                identity = experiment.experiment_id
    except (MlflowException, SQLAlchemyError) as err:
        raise MetroError(f"tracking: cannot use the store {uri}: {first_line(err)}; {WITHOUT}") from None
    mlflow.set_experiment(experiment_id=identity)
    return str(identity)


def store_uri() -> str:
    """Address of the MLflow store."""
    return environment().store or f"sqlite:///{project_root() / 'mlflow.db'}"


def project_root() -> Path:
    """Root of the DVC repository; inside a queued experiment that of the main one, not of the scratch copy."""
    named = environment().root
    here = Path(named) if named else Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir():
            return folder.resolve()
    raise MetroError(f"{here}: not inside the project (no .dvc folder above); run from the project root")


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One process at a time: two first users at once would break a SQLite store, or make a group's parent twice."""
    from filelock import FileLock

    folder = project_root() / ".metro"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "tracking.lock", timeout=120):
        yield


def status_of(run_id: str) -> str | None:
    """`RUNNING`, `FINISHED`, `FAILED` or `KILLED`; None if the store has no such run, or it was deleted."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        info = MlflowClient().get_run(run_id).info
    except MlflowException:
        return None
    return str(info.status) if info.lifecycle_stage == "active" else None


def first_line(err: BaseException) -> str:
    """What an exception says, shortened to a line."""
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:200]


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Hold back a library's chatter (not its errors) for a while."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _ping(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            return
    except (OSError, urllib.error.URLError, ValueError) as err:
        raise MetroError(
            f"tracking: no MLflow server answers at {uri} ({first_line(err)}): start it (`make serve`), unset "
            f"MLFLOW_TRACKING_URI to use the local store; {WITHOUT}"
        ) from None
