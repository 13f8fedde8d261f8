"""Tracked runs, and the only package that knows MLflow.

`tracked` gives the stage that is running a run, which `run.Run` is: one of its own, or that of the training whose model
it looks at. Every run carries the resolved parameters, the git commit, what it computes with, and the md5 of its
stage's inputs and outputs as ``dvc.lock`` has them; by those it is found (`lineage`). No output of a stage names a run.

The store is ``MLFLOW_TRACKING_URI`` or, without it, a SQLite file at an absolute path below the DVC root: queued
experiments run in scratch copies, and a path relative to those would be deleted with them. ``METRO_TRACKING=off``
switches tracking off.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metro.config import Params
from metro.errors import MetroError
from metro.files import read_json
from pipeline import stage
from pipeline.environment import environment
from pipeline.flat import flatten
from pipeline.tracking.ledger import settle
from pipeline.tracking.lineage import facts, git_facts, made
from pipeline.tracking.machine import machine, summary
from pipeline.tracking.run import MlflowRun, Run
from pipeline.tracking.store import locked, newest, setup, status_of, usable

NOTE = "mlflow.note.content"
"""Tag whose markdown MLflow shows as the description of a run."""


@contextlib.contextmanager
def tracked(
    params: Params,
    *,
    name: str | None = None,
    group: str | None = None,
    grouped: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    work: Path | None = None,
) -> Iterator[Run]:
    """Run of the stage's own, ended as finished, failed or killed by how the block is left.

    By then the stage has made its outputs: a finished run is tagged with their md5.

    Parameters
    ----------
    params
        Resolved parameters; logged flat.
    name
        What the title says first; default: the stage.
    group, grouped
        Key of a parent run that this one is nested under, made by whoever comes first, and its parameters.
    tags
        More tags.
    work
        Folder of half-done work, which remembers the run: who goes on with the work goes on with the run.
    """
    if not environment().tracking:
        yield Run()
        return
    experiment = _begin()
    pointer = work / "run.json" if work else None
    with usable():
        import mlflow

        told = _interrupted(pointer)
        if told and status_of(told):
            run = MlflowRun(mlflow.start_run(run_id=told, log_system_metrics=True).info.run_id, own=True)
        else:
            parent = _parent(experiment, group, params, grouped or {}) if group else None
            env, origin = machine(), facts()
            note = {NOTE: _note(params, origin), **({"resumed_from": told} if told else {})}
            started = mlflow.start_run(
                run_name=_title(params, name or stage.name()),
                parent_run_id=parent,
                tags={"preset": params.preset, **origin, **summary(env), **note, **(tags or {})},
                log_system_metrics=True,
            )
            run = MlflowRun(started.info.run_id, own=True)
            run.params(_logged(params))
            _keep_definition(run, env)
    if pointer:
        stage.write_json(pointer, {"run_id": run.run_id})
    with _ended(run, makes=True):
        yield run


@contextlib.contextmanager
def joined(params: Params, of: str, *, makes: bool = True, parent: bool = False) -> Iterator[Run]:
    """The run that made the present outputs of the stage `of`, joined by a stage that looks at them.

    It keeps its status whatever becomes of the stage. Where the store knows no such run (DVC took the outputs from a
    cache or a colleague's remote), one is made that stands for it.

    Parameters
    ----------
    params
        Resolved parameters.
    of
        Stage with its item.
    makes
        Whether the run is to tell what the stage makes and how it ended: a stage may join several.
    parent
        Join the run that it is nested under instead.
    """
    if not environment().tracking:
        yield Run()
        return
    experiment = _begin()
    with usable():
        run = MlflowRun(_maker(experiment, params, of, parent))
    with _ended(run, makes):
        yield run


def noted(title: str, tags: Mapping[str, str], metrics: Mapping[str, float], files: Sequence[Path]) -> str:
    """Id of a new run, over already, of work that is no stage.

    Raises
    ------
    MetroError
        Tracking is switched off, there is no project around, or the store cannot be used.
    """
    if not environment().tracking:
        raise MetroError("METRO_TRACKING switches tracking off")
    experiment = setup()
    with usable():
        from mlflow import MlflowClient

        client = MlflowClient()
        run_id = str(client.create_run(experiment, run_name=title, tags={**tags, **git_facts(Path())}).info.run_id)
        for key, value in metrics.items():
            client.log_metric(run_id, key, value)
        for path in files:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id)
    return run_id


def _begin() -> str:
    """Make the store ready and settle what runs of dead processes have left; returns the experiment's id."""
    experiment = setup()
    with locked(), usable():
        settle()
    return experiment


@contextlib.contextmanager
def _ended(run: MlflowRun, makes: bool) -> Iterator[None]:
    """End a run as the block ends."""
    status = "FAILED"
    try:
        yield
        if makes:
            run.attempt(lambda: run.tag(made(stage.name())))
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        if makes and not run.own:  # whose status is that of another stage
            run.tag({f"ended.{stage.name().replace('@', '/')}": status})
        run.end(status)


def _logged(params: Params) -> dict[str, Any]:
    """The parameters of a run by dotted name; those of other trainings are none of it."""
    return flatten(params.alone().model_dump(mode="json"))


def _interrupted(pointer: Path | None) -> str | None:
    """Run that the half-done work belongs to."""
    if pointer is None or not pointer.is_file():
        return None
    run_id: str = read_json(pointer, "delete it; the training then goes on in a new run", ("run_id",))["run_id"]
    return run_id


def _title(params: Params, what: str) -> str:
    """Title of a run: what it is, the preset, and the experiment's name or the first digits of all conditions."""
    return f"{what} {params.preset} {environment().experiment or stage.conditions(params)[:7]}"


def _note(params: Params, origin: Mapping[str, str]) -> str:
    """Description of a run, markdown."""
    what, command = stage.described()
    commit = origin.get("git.commit", "none")[:12]
    changed = ", with changes that are not committed" if origin.get("git.dirty") == "true" else ""
    return (
        f"{what}: stage `{stage.name()}` of the pipeline, preset `{params.preset}`.\n\n"
        f"- `{command}`, which `dvc repro {stage.name()}` runs\n"
        f"- code: commit `{commit}`{changed}\n"
        "- parameters, pipeline and environment: the artifacts in `definition`\n"
    )


def _keep_definition(run: Run, env: Mapping[str, Any]) -> None:
    """What the run was made from and with, as artifacts."""
    for path in map(Path, ("params.yaml", "dvc.yaml", "dvc.lock")):
        if path.is_file():
            run.artifact(path, "definition")
    with tempfile.TemporaryDirectory() as folder:
        stage.write_json(Path(folder) / "environment.json", env)
        run.artifact(Path(folder) / "environment.json", "definition")


def _maker(experiment: str, params: Params, of: str, parent: bool) -> str:
    """Id of the run that made the outputs of a stage, or of its parent; of one that stands for it otherwise."""
    with locked():
        outs = made(of)
        found = newest(experiment, outs)
        if found is not None:
            return str((found.data.tags.get("mlflow.parentRunId") if parent else None) or found.info.run_id)
        note = (
            f"Stands for the run that made what stage `{of}` has put out: this store does not know it, DVC took the "
            "outputs from a cache or a remote. Parameters are those of the stage that looked at them first."
        )
        known = {"stage": of.partition("@")[0], "dvc.stage": of, "preset": params.preset, NOTE: note}
        title = _title(params, f"{of}, made elsewhere,")
        return _ended_run(experiment, title, outs | known, _logged(params))


def _parent(experiment: str, group: str, params: Params, grouped: Mapping[str, Any]) -> str:
    """The run that all runs of a group are nested under."""
    kind, _, digest = group.partition(":")
    with locked():
        found = newest(experiment, {"metro.group": group})
        if found is not None:
            return str(found.info.run_id)
        note = f"Runs of preset `{params.preset}` that are compared with one another."
        tags = {"metro.group": group, "stage": kind, "preset": params.preset, NOTE: note, **git_facts(Path())}
        return _ended_run(experiment, f"{kind} {params.preset} {digest[:7]}", tags, flatten(grouped))


def _ended_run(experiment: str, title: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
    """A run that no stage has open, for others to tell things."""
    from mlflow import MlflowClient

    run_id = str(MlflowClient().create_run(experiment, run_name=title, tags=dict(tags)).info.run_id)
    run = MlflowRun(run_id)
    run.params(params)
    run.end("FINISHED")
    MlflowClient().set_terminated(run_id)
    return run_id
