"""Between DVC, git and MLflow: where a run comes from, and tags that lead from an output of DVC back to its run."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import yaml

from pipeline import stage
from pipeline.environment import environment
from pipeline.tracking.run import MlflowRun
from pipeline.tracking.store import setup, status_of, store_uri

POINTER = "run.json"


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
    for path, md5 in stage.inputs().files.items():
        tags[re.sub(r"[^\w./: -]", "_", f"dvc.dep.{path}")] = md5  # what MLflow takes as a name
    return tags | git_facts(Path())


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


def link(root: Path | None = None) -> dict[str, str]:
    """Tag the runs that ``dvc.lock`` points to (through ``run.json``) with the md5 of their stages' outputs.

    Returns
    -------
    dict
        Stage to run id, of the runs that were tagged. Runs that the store does not know are left out.
    """
    root = root or Path.cwd()
    lock = root / "dvc.lock"
    stages = (yaml.safe_load(lock.read_text()) or {}).get("stages", {}) if lock.is_file() else {}
    outs = {name: {out["path"]: out.get("md5", "") for out in entry.get("outs", [])} for name, entry in stages.items()}
    runs = {name: run_id for name, made in outs.items() if (run_id := _pointed_to(root, made))}
    if not runs:
        return {}
    setup()
    known = {name: run_id for name, run_id in runs.items() if status_of(run_id)}
    for name, run_id in known.items():
        tags = {f"dvc.out.{path}": md5 for path, md5 in outs[name].items() if md5 and Path(path).name != POINTER}
        MlflowRun(run_id).tag({**tags, **git_facts(root)})
    return known


def _pointed_to(root: Path, outs: Iterable[str]) -> str | None:
    """Run that a stage's ``run.json`` names, if it is an output of its own."""
    for path in outs:
        if Path(path).name == POINTER and (root / path).is_file():
            run_id: str | None = json.loads((root / path).read_text()).get("run_id")
            return run_id
    return None


def run_url(run_id: str) -> str | None:
    """Page of a run in the MLflow UI, where `MLFLOW_UI` or the tracking address tells where that is."""
    base = environment().mlflow_ui or store_uri()
    if not base.startswith("http"):
        return None
    setup()
    from mlflow import MlflowClient

    experiment = MlflowClient().get_run(run_id).info.experiment_id
    return f"{base.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
