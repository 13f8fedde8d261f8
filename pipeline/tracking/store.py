"""The MLflow store: where it is, made by whoever comes first, and the runs that it knows.

Without ``MLFLOW_TRACKING_URI`` it is a SQLite file in the project, with the runs' files in ``mlartifacts`` beside it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metro.errors import MetroError
from pipeline.environment import environment

EXPERIMENT = "metro"
WITHOUT = "METRO_TRACKING=off goes without"
LOCK_SECONDS = 30
"""How long a SQLite store may be locked by somebody else before a stage gives up."""
PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Where MLflow's tables hold absolute addresses of files."""


def setup() -> str:
    """Point MLflow at the store, made first where it is missing; returns the experiment's id.

    Raises
    ------
    MetroError
        The tracking server does not answer, or the store cannot be used.
    """
    with locked(), usable():
        import mlflow

        database = database_of(store_uri())
        # A server decides for itself where the runs' files lie.
        artifacts = (database.parent / "mlartifacts").as_uri() if database else None
        if database and not is_there():
            _make(database, artifacts)
        connect(writes=True)
        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            identity = _make_experiment(artifacts)
        else:
            identity = experiment.experiment_id
            made_in = experiment.artifact_location
            if database and artifacts and made_in != artifacts and re.fullmatch(r"file:.*/mlartifacts", made_in):
                _move_in(database, made_in, artifacts)
        mlflow.set_experiment(experiment_id=identity)
    return str(identity)


def _make(database: Path, artifacts: str | None) -> None:
    """Make a SQLite store, which takes seconds, under a temporary name: MLflow cannot go on with half of one."""
    uri, partial = store_uri(), database.with_name(f"{database.name}.partial")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        _prepare_mlflow(f"sqlite:///{partial}")
        _make_experiment(artifacts)
        partial.replace(database)
    finally:
        _prepare_mlflow(uri)  # which keeps the address in the environment, where `store_uri` looks
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _make_experiment(artifacts: str | None) -> str:
    import mlflow

    # Without an explicit location artifacts go to the working directory of the first use.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(mlflow.create_experiment(EXPERIMENT, artifact_location=artifacts, tags=kind))


def connect(writes: bool = False) -> None:
    """Point MLflow at the store, and see that it answers, before MLflow tries for minutes.

    Raises
    ------
    MetroError
        The tracking server does not answer, or the SQLite file cannot be read (or written to, where that is wanted).
    """
    uri = store_uri()
    if uri.startswith(("http://", "https://")):
        _ping(uri)
    with usable():
        if database := database_of(uri):
            # `mode=rw` makes no file, and `rw` is `r` where the file may not be written to.
            with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", LOCK_SECONDS, uri=True)) as found:
                found.execute("BEGIN IMMEDIATE" if writes else "SELECT count(*) FROM sqlite_master")
                found.rollback()
        _prepare_mlflow(uri)


def _prepare_mlflow(uri: str) -> None:
    """Point MLflow at a store, and make it as brief as a stage wants it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # A store that went away should cost seconds, not the minutes of the default back-off.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    import mlflow

    for name in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics", "mlflow.tracking.fluent"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is said by whoever asked, in one line
    mlflow.set_tracking_uri(uri)
    mlflow.set_system_metrics_sampling_interval(5)


@contextlib.contextmanager
def usable() -> Iterator[None]:
    """Around the first use of the store: whatever MLflow raises becomes a line that says how to go without.

    On a damaged store that may be anything, from SQLAlchemy's errors to those of decoding what the tables hold.
    """
    try:
        yield
    except MetroError:
        raise
    except Exception as err:
        why = first_line(err)
        raise MetroError(f"tracking: cannot use the store {store_uri()}: {why}; mend or move it; {WITHOUT}") from err


def store_uri() -> str:
    """Address of the MLflow store."""
    return environment().store or f"sqlite:///{project_root() / 'mlflow.db'}"


def database_of(uri: str) -> Path | None:
    """File of a SQLite store, links followed."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def is_there() -> bool:
    """Whether there is a store to ask; a SQLite file that was never written to is none."""
    database = database_of(store_uri())
    return database is None or (database.exists() and (database.is_dir() or database.stat().st_size > 0))


def _move_in(database: Path, old: str, new: str) -> None:
    """In a copied or moved project, lead MLflow to the files that came along instead of to those of the old place."""
    with contextlib.closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as connection, connection:
        for table, column in PLACES.items():
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )
    print(f"tracking: {database} was made in another place; its runs' files are now those in {new}", file=sys.stderr)


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
    from filelock import FileLock, Timeout

    folder = project_root() / ".metro"
    lock = FileLock(folder / "tracking.lock", timeout=600)  # of a machine that is very busy
    try:
        folder.mkdir(exist_ok=True)
        lock.acquire()
    except Timeout:
        raise MetroError(f"tracking: another process holds {lock.lock_file}; end it and run again") from None
    except OSError as err:
        raise MetroError(f"{folder}: cannot be written: {err.strerror}; {WITHOUT}") from None
    try:
        yield
    finally:
        lock.release()


def status_of(run_id: str) -> str | None:
    """`RUNNING`, `FINISHED`, `FAILED` or `KILLED`; None if the store has no such run, or it was deleted."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        info = MlflowClient().get_run(run_id).info
    except MlflowException as err:
        if err.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return str(info.status) if info.lifecycle_stage == "active" else None


def newest(experiment: str, tags: Mapping[str, str]) -> Any:
    """The newest run with all of these tags, or None."""
    from mlflow import MlflowClient

    wanted = query(tags)
    found = MlflowClient().search_runs([experiment], wanted, max_results=1, order_by=["attributes.start_time DESC"])
    return found[0] if found else None


def query(tags: Mapping[str, str]) -> str:
    """What finds the runs with these tags, in MLflow's search box as well."""
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def first_line(err: BaseException) -> str:
    """What an exception says, shortened to a line; of a database's the part that comes from the database."""
    err = getattr(err.__cause__ or err, "orig", None) or err
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:200]


def _ping(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            return
    except (OSError, urllib.error.URLError, ValueError) as err:
        raise MetroError(
            f"tracking: no MLflow server answers at {uri} ({first_line(err)}): start it (`make serve`), unset "
            f"MLFLOW_TRACKING_URI to use the local store; {WITHOUT}"
        ) from None
