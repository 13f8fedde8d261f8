"""The flow `metro`: every stage of ``dvc.yaml`` as a Prefect task, independent ones side by side.

A task runs ``dvc --wait-for-lock repro -s STAGE``: DVC decides what is out of date, so a run that failed goes on at the
failed stage when it is retried, and the result is the same as that of ``dvc repro``. Everyday use::

    prefect deployment run metro/train-eval --watch
"""

from __future__ import annotations

import os
import queue
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import UnfinishedRun
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.tasks import Task
from prefect.utilities.annotations import quote

from flows.artifacts import Outcome, artifact_key, show_outcome
from flows.dag import needed_for, read_dag
from flows.process import Finished, Group, killed_on_sigterm
from metro.config import load_params
from metro.errors import MetroError

_HEALS = re.compile(
    r"exited with (-\d+|13[479])\b|Unable to acquire lock|is busy|Cannot allocate memory|database is locked"
)


class StageFailedError(Exception):
    """A stage ended with an error; trying again would not help."""


class StageInterruptedError(StageFailedError):
    """A stage was killed, ran out of memory or met a lock: it may go through the next time."""


def can_heal(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed stage is worth another try."""
    try:
        state.result()
    except StageInterruptedError:
        return True
    except Exception:
        return False
    return False


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[2, 20],
    retry_condition_fn=can_heal,
)
def run_stage(stage: str, group: Group, root: Path, timeout_minutes: float | None) -> State[Outcome]:
    """Bring one stage up to date, its inputs being so already; the state is called after what that took."""
    logger = get_run_logger()
    # Stages say `python`: the one that runs this flow.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    context = {"PREFECT_FLOW_RUN_ID": str(flow_run.get_id() or ""), "PATH": path}
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", stage]
    done = group.run(
        command,
        say=logger.info,
        progress=_progress_of(stage),
        env=context,
        cwd=root,
        timeout=None if timeout_minutes is None else 60 * timeout_minutes,
    )
    if done.status != 0:
        raise _failure(stage, done, group)
    outcome = Outcome(stage, _result(done), round(done.seconds, 1))
    return Completed(name=None if outcome.result == "ran" else outcome.result.capitalize(), data=outcome)


def run_name() -> str:
    """A run is called after the preset it works on and the moment it starts."""
    try:
        preset = load_params().preset
    except MetroError:
        preset = "metro"
    return f"{preset}-{time.strftime('%m%d-%H%M%S')}"


@flow(name="metro", flow_run_name=run_name, persist_result=False)
def run_pipeline(
    targets: list[str] | None = None, parallel: int | None = None, stage_timeout_minutes: float | None = None
) -> None:
    """Bring the pipeline up to date.

    Parameters
    ----------
    targets
        Stages wanted, with all they need; ``study`` stands for all of its items. None: everything.
    parallel
        Stages that may run at the same time; none: one for every four cores, at least two.
    stage_timeout_minutes
        Time limit of each stage.
    """
    root = Path.cwd()
    load_params(root / "params.yaml")
    dag = read_dag(root)
    dag = needed_for(dag, targets) if targets else dag
    group = Group()
    with killed_on_sigterm(group):
        try:
            ended = _run_all(dag, group, root, parallel or max(2, (os.cpu_count() or 1) // 4), stage_timeout_minutes)
        finally:
            group.kill()
    outcomes = [result for result in ended.values() if isinstance(result, Outcome)]
    done = {outcome.stage for outcome in outcomes}
    # What was never started, because something that it needs failed, is not to blame.
    failed = {
        stage: str(result) for stage, result in ended.items() if stage not in done and done.issuperset(dag[stage])
    }
    show_outcome(root, outcomes, failed)
    if failed:
        names = ", ".join(failed)
        raise StageFailedError(f"{len(failed)} of {len(dag)} stages failed: {names}; mend and retry this run")


def _run_all(
    dag: dict[str, list[str]], group: Group, root: Path, parallel: int, timeout_minutes: float | None
) -> dict[str, object]:
    """What came of every stage (an `Outcome` or what was raised); each is started once all that it needs has ended."""
    futures: dict[str, PrefectFuture[Outcome]] = {}
    ended: set[str] = set()
    finished: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start(stage: str) -> None:
        needs = [futures[needed] for needed in dag[stage]]
        options: Any = {"group": quote(group), "root": root, "timeout_minutes": timeout_minutes}
        futures[stage] = run_stage.submit(stage, **options, wait_for=needs)
        futures[stage].add_done_callback(lambda _: finished.put(stage))

    while len(ended) < len(dag):
        for stage, needs in dag.items():
            if len(futures) - len(ended) >= parallel:
                break
            if stage not in futures and ended.issuperset(needs):
                start(stage)
        ended.add(finished.get())
    return {stage: _came_of(future) for stage, future in futures.items()}


def _came_of(future: PrefectFuture[Outcome]) -> object:
    try:
        return future.result(raise_on_failure=False)
    except UnfinishedRun as never_started:
        return never_started


def _failure(stage: str, done: Finished, group: Group) -> StageFailedError:
    tail = "\n".join(done.tail)
    interrupted = (done.status < 0 or _HEALS.search(tail)) and not group.stopped
    kind = StageInterruptedError if interrupted else StageFailedError
    # The stage's own sentence is not the last: DVC has one too.
    said = next((line for line in reversed(done.tail) if line.startswith(f"{stage}: ")), f"{stage} failed")
    return kind(f"{said}\nIts last lines:\n{tail}")


def _result(done: Finished) -> str:
    text = "\n".join(done.tail)
    if "is cached - skipping run" in text:
        return "restored"
    return "unchanged" if "didn't change, skipping" in text or "up to date" in text else "ran"


def _progress_of(stage: str) -> Callable[[float], None]:
    """A progress artifact that follows a stage; made with its first report, updated every two seconds at most."""
    artifact: UUID | None = None
    told = 0.0

    def show(share: float) -> None:
        nonlocal artifact, told
        now = time.monotonic()
        if now - told < 2 and share < 100:
            return
        told = now
        if artifact is None:
            made = create_progress_artifact(progress=share, key=artifact_key("progress", stage), description=stage)
            artifact = made if isinstance(made, UUID) else None
        else:
            update_progress_artifact(artifact, progress=share)

    return show


if __name__ == "__main__":
    run_pipeline()
