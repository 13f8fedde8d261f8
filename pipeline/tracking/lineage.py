"""Between DVC, git and MLflow: what a run tells of where it comes from, and the way from an output of DVC to its run.

A run is tagged with the md5 of every input and, once it is finished, of every output of its stage, as ``dvc.lock`` has
them. So it is found by what it made: outputs hold no name of a run, and two runs that make the same are alike.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from pipeline import stage
from pipeline.environment import environment
from pipeline.paths import METRICS
from pipeline.tracking.store import EXPERIMENT, connect, is_there, newest, store_uri, usable


def facts() -> dict[str, str]:
    """Where the run of this stage comes from, as tags: DVC's stage, experiment and inputs, the commit, the flow run."""
    env = environment()
    told = {
        "stage": stage.name().partition("@")[0],
        "dvc.stage": stage.name(),
        "dvc.exp.name": env.experiment,
        "dvc.exp.baseline": env.baseline,
        "prefect.flow_run": env.flow_run,
    }
    tags = {key: value for key, value in told.items() if value}
    lock = Path("dvc.lock")
    if lock.is_file():
        tags["dvc.lock"] = hashlib.sha256(lock.read_bytes()).hexdigest()[:32]
    return tags | _named("dep", stage.inputs().files) | git_facts(Path())


def made(of: str) -> dict[str, str]:
    """What the stage `of` has made, as tags."""
    return _named("out", stage.outputs(of))


def _named(kind: str, files: Mapping[str, str]) -> dict[str, str]:
    return {re.sub(r"[^\w./: -]", "_", f"dvc.{kind}.{path}"): md5 for path, md5 in files.items()}  # what MLflow takes


def git_facts(root: Path) -> dict[str, str]:
    """The commit, and whether tracked files other than the pipeline's own products differ from it."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock", ":!reports")
    return {"git.commit": commit, "git.dirty": str(bool(dirty)).lower()}


def runs(root: Path | None = None) -> dict[str, str]:
    """Stage to the run that made, or judged, the outputs that ``dvc.lock`` holds; a question, which makes no store.

    Stages whose outputs no run of this store has made are left out.
    """
    lock = (root or Path.cwd()) / "dvc.lock"
    if not (environment().tracking and lock.is_file() and is_there()):
        return {}
    outs = {
        name: {out["path"]: out["md5"] for out in entry.get("outs", []) if METRICS not in Path(out["path"]).parents}
        for name, entry in (yaml.safe_load(lock.read_text()) or {}).get("stages", {}).items()
    }
    with usable():
        import mlflow

        connect()
        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return {}
        found = {name: newest(experiment.experiment_id, _named("out", paths)) for name, paths in outs.items() if paths}
    return {name: str(run.info.run_id) for name, run in found.items() if run}


def run_url(run_id: str) -> str | None:
    """Page of a run in the MLflow UI, where `MLFLOW_UI` or the tracking address tells where that is."""
    base = environment().mlflow_ui or store_uri()
    if not base.startswith("http"):
        return None
    with usable():
        from mlflow import MlflowClient

        connect()
        experiment = MlflowClient().get_run(run_id).info.experiment_id
    return f"{base.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
