"""What `metro compare` asks of the project: benchmarks, commits as DVC keeps their outputs, tracked runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from metro.config import load_params
from metro.errors import MetroError
from metro.evaluation.runs import Benchmark, Run
from metro.files import nearest, readable
from pipeline.environment import environment
from pipeline.paths import EVALUATE, MODEL, shards
from pipeline.tracking.store import connect, first_line, is_there, project_root, usable

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARAMS = Path("params.yaml")


def benchmark(name: str | None) -> Benchmark | None:
    """A benchmark of ``params.yaml``, by default the first one; None where there is no such file, or it names none.

    Raises
    ------
    MetroError
        It has none of that name, or is damaged.
    """
    known = load_params().benchmarks if PARAMS.is_file() else {}
    if not known:
        return None
    if name is not None and name not in known:
        raise MetroError(f"--benchmark {name}: no benchmark of {PARAMS}; {nearest(name, known)}")
    name = name or next(iter(known))
    return Benchmark(name, shards(known[name].dataset), known[name].protocol)


def find(word: str, folder: Path) -> Run | None:
    """The tracked run or the commit of this project that a word stands for, or None; its files come into `folder`.

    Raises
    ------
    MetroError
        There is such a run or commit, but neither scores nor a network of it are at hand.
    """
    if re.fullmatch("[0-9a-f]{32}", word) and (run := _tracked(word, folder)):
        return run
    return _committed(word, folder)


def _tracked(run_id: str, folder: Path) -> Run | None:
    """A run of MLflow: what evaluate stages told it, and the model that the export stage did."""
    if not (environment().store or _in_project()) or not is_there():
        return None
    with usable():
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        connect()
        client = MlflowClient()
        try:
            found = client.get_run(run_id)
        except MlflowException as err:
            if err.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        results = _scores(client, run_id, folder)
        models = [
            client.get_logged_model(made.model_id) for made in (found.outputs.model_outputs if found.outputs else ())
        ]
    network = max(models, key=lambda model: model.creation_timestamp, default=None)
    if not results and network is None:
        raise MetroError(f"{run_id}: a run without scores or a model; name one that an evaluate or export stage joined")
    return Run(run_id, f"models:/{network.model_id}" if network else None, results)


def _scores(client: MlflowClient, run_id: str, folder: Path) -> dict[str, Path]:
    from mlflow.artifacts import download_artifacts

    found = {}
    for place in client.list_artifacts(run_id, "evaluate"):
        files = {Path(file.path).name: file.path for file in client.list_artifacts(run_id, place.path)}
        if {"result.json", "samples.npz"} <= files.keys():
            target = folder / Path(place.path).name
            for name in ("result.json", "samples.npz"):
                got = Path(download_artifacts(run_id=run_id, artifact_path=files[name], dst_path=str(target)))
                found[target.name] = got.parent
    return found


def _committed(word: str, folder: Path) -> Run | None:
    """A commit of git: what DVC keeps of its evaluations and its training."""
    if not _in_project():
        return None
    root = project_root()
    commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{word}^{{commit}}")
    if commit is None:
        return None
    lock = _git(root, "show", f"{commit}:dvc.lock")
    if lock is None:
        raise MetroError(f"{word}: that commit has no dvc.lock, so DVC has no outputs of it; name a later one")
    with readable(Path(f"{word}:dvc.lock"), "name another commit"):
        stages = yaml.safe_load(lock)["stages"].values()
        made = [Path(out["path"]) for entry in stages for out in entry.get("outs", [])]
    wanted = [path for path in made if path.parent == EVALUATE or path == MODEL]
    missing = _fetch(root, commit, wanted, folder)
    if len(missing) == len(wanted):
        why = next(iter(missing.values()), "dvc.lock lists no evaluation and no training")
        raise MetroError(
            f"{word}: DVC has no evaluation and no model of that commit ({why}); `dvc fetch --all-commits` takes them "
            "from a remote, or check it out and run `dvc repro`"
        )
    results = {path.name: folder / path for path in wanted if path.parent == EVALUATE and path not in missing}
    return Run(word, folder / MODEL if MODEL in wanted and MODEL not in missing else None, results)


def _fetch(root: Path, commit: str, paths: list[Path], folder: Path) -> dict[Path, str]:
    """Copy outputs of a commit from DVC's cache or remote; returns those that it does not have, and what it said."""
    from dvc.api import DVCFileSystem

    missing = {}
    for path in paths:
        try:
            DVCFileSystem(url=str(root), rev=commit).get(str(path), str(folder / path), recursive=True)
        except Exception as err:  # of whichever of DVC's layers noticed it
            missing[path] = first_line(err)
    return missing


def _git(root: Path, *words: str) -> str | None:
    """What git says; None where it knows no such thing."""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _in_project() -> bool:
    try:
        project_root()
    except MetroError:
        return False
    return True
