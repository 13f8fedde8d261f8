"""Runs that this project has open and what the store did not take of them, so that whoever comes next can settle it.

A process that is killed cannot end its run, and a store that is away cannot be told. So each run has an entry,
``.metro/runs/RUN.PID.json``, which its process holds locked while it lives; an entry that nobody holds is settled by
the next stage that starts: values that were not sent are sent, and a run that is still open is ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from metro.files import atomic_file, read_json
from pipeline.tracking.sender import BATCH_VALUES
from pipeline.tracking.store import project_root, status_of, store_uri

if TYPE_CHECKING:
    from filelock import BaseFileLock

Value = tuple[str, float, int, int]
"""Name, value, time in milliseconds, step."""


class Content(TypedDict):
    """What an entry holds."""

    store: str
    run_id: str
    status: str | None
    """How the run is to be ended, if it is open still; None: it is not this entry's to end."""
    values: list[Any]
    """What the store has not taken, as `Value`."""


class Entry:
    """Entry of a run of this process."""

    def __init__(self, run_id: str, status: str | None) -> None:
        self.run_id = run_id
        self.path = folder() / f"{run_id}.{os.getpid()}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_of(self.path)
        self._lock.acquire()
        if status is not None:
            self.leave(status, [])

    def leave(self, status: str | None, values: Sequence[Value]) -> None:
        """What is to be done if nobody comes back."""
        content: Content = {"store": store_uri(), "run_id": self.run_id, "status": status, "values": list(values)}
        with atomic_file(self.path) as temporary:
            temporary.write_text(json.dumps(content) + "\n")

    def settled(self) -> None:
        """Nothing is left to do."""
        self.path.unlink(missing_ok=True)

    def release(self) -> None:
        """Let whoever comes next look at what is left."""
        _release(self._lock)


def folder() -> Path:
    """Where the entries lie."""
    return project_root() / ".metro" / "runs"


def settle() -> None:
    """Do what the entries say whose processes are gone, as far as they are of the present store.

    Called by one process at a time. A store that fails on the way keeps the entry for the next time.
    """
    from filelock import Timeout
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    for path in sorted(folder().glob("*.json")):
        lock = _lock_of(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue  # its process lives
        try:
            if not path.exists():
                continue  # ended meanwhile
            left: Content = read_json(path, "delete it", Content.__annotations__)
            if left["store"] != store_uri():
                continue
            now = status_of(left["run_id"])
            if now is not None:
                values = [Metric(*value) for value in left["values"]]
                for start in range(0, len(values), BATCH_VALUES):
                    MlflowClient().log_batch(left["run_id"], metrics=values[start : start + BATCH_VALUES])
            if now == "RUNNING" and left["status"]:
                MlflowClient().set_terminated(left["run_id"], left["status"])
            path.unlink()
        finally:
            _release(lock)


def _lock_of(path: Path) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(path.with_suffix(".lock"))


def _release(lock: BaseFileLock) -> None:
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
