"""Tracked runs, and the only package that knows MLflow.

`tracked` opens a run for the stage that is running; `run.Run` is what the stage talks to. Every run carries the
resolved parameters, the git commit and the md5 that DVC knows of each of the stage's inputs; the stage writes
`Run.pointer` to its ``run.json``, a cached output, so that either side leads to the other. `lineage.link` adds the md5
of the outputs once DVC knows them.

The store is ``MLFLOW_TRACKING_URI`` or, without it, a SQLite file at an absolute path below the DVC root: queued
experiments run in scratch copies, and a path relative to those would be deleted with them. ``METRO_TRACKING=off``
switches tracking off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from metro.config import Params
from pipeline import stage
from pipeline.environment import environment
from pipeline.flat import flatten
from pipeline.tracking.lineage import facts
from pipeline.tracking.run import MlflowRun, Run
from pipeline.tracking.store import locked, quiet, setup, status_of


@contextlib.contextmanager
def tracked(
    params: Params,
    *,
    name: str | None = None,
    group: str | None = None,
    tags: Mapping[str, str] | None = None,
    reopen: str | None = None,
) -> Iterator[Run]:
    """Run of the stage, ended as finished, failed or killed by how the block is left.

    Parameters
    ----------
    params
        Resolved parameters; logged flat.
    name
        Title of the run; default: the stage.
    group
        Key of a parent run that this one is nested under; made by whoever comes first.
    tags
        More tags.
    reopen
        Run to go on with: an interrupted one, or the finished training that an evaluation belongs to, which stays
        finished whatever becomes of the evaluation. Where the store does not know it (results pulled from a colleague)
        a new run is tagged with it.
    """
    if not environment().tracking:
        yield Run()
        return
    experiment = setup()
    import mlflow

    before = status_of(reopen) if reopen else None
    if before is not None:
        active = mlflow.start_run(run_id=reopen, log_system_metrics=before != "FINISHED")
    else:
        origin = {**facts(), **(tags or {}), **({"dvc.resumed_from": reopen} if reopen else {})}
        parent = _parent(experiment, group, params, origin) if group else None
        title = name or stage.name()
        active = mlflow.start_run(run_name=title, parent_run_id=parent, tags=origin, log_system_metrics=True)
    run = MlflowRun(active.info.run_id)
    status = "FAILED"
    try:
        if before is None:
            run.params(flatten(params.model_dump(mode="json")))
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        if before == "FINISHED":
            run.tag({f"ended.{stage.name().replace('@', '/')}": status})
            status = before
        try:
            run.close()
        finally:
            with quiet("mlflow"):
                run.attempt(lambda: mlflow.end_run(status))


def parent_of(run_id: str | None) -> str | None:
    """Run that a run is nested under, where there is one and tracking is on."""
    if run_id is None or not environment().tracking:
        return None
    setup()
    if status_of(run_id) is None:
        return None
    from mlflow import MlflowClient

    parent: str | None = MlflowClient().get_run(run_id).data.tags.get("mlflow.parentRunId")
    return parent


def _parent(experiment: str, group: str, params: Params, origin: Mapping[str, str]) -> str:
    """The run that all runs of a group are nested under."""
    from mlflow import MlflowClient

    client = MlflowClient()
    with locked():
        found = client.search_runs([experiment], f"tags.`metro.group` = '{group}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        kept = {key: value for key, value in origin.items() if key.startswith("git.")}
        tags = {"metro.group": group, "stage": group.partition(":")[0], "preset": params.preset, **kept}
        run = client.create_run(experiment, run_name=group.partition(":")[0], tags=tags)
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)
