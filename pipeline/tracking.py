"""MLflow, and the only module that knows it.

`tracked` opens a run for a stage; `Run` is what the stage talks to. Every run carries the resolved parameters, the git
commit and the md5 that ``dvc.lock`` holds for each of the stage's inputs; the stage writes `Run.pointer` to its
``run.json``, a cached output, so that either side leads to the other. `link` adds the md5 of the outputs once DVC knows
them.

The store is ``MLFLOW_TRACKING_URI`` or, without it, a SQLite file at an absolute path below the DVC root: queued
experiments run in scratch copies, and a path relative to those would be deleted with them. ``METRO_TRACKING=off``
switches tracking off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from metro.config import Params
from metro.errors import MetroError

if TYPE_CHECKING:
    from torch import nn

EXPERIMENT = "metro"
REGISTERED_MODEL = "metro"
FLUSH_SECONDS = 5.0
FLUSH_RECORDS = 500
RETRY_SECONDS = 60.0


class Run:
    """What a stage may tell its run; this class, tracking switched off, listens to nothing."""

    run_id: str | None = None

    def log(self, record: Mapping[str, float], step: int = 0) -> None:
        """Metrics of a step."""

    def figure(self, name: str, image: np.ndarray, step: int | None = None) -> None:
        """A picture, uint8 RGB (H,W,3); with a step it becomes part of a series."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A small file or folder. Data and checkpoints stay with DVC."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Tags of the run."""

    def dataset(self, name: str, digest: str, path: Path, context: str) -> None:
        """A dataset that the run used, by its digest."""

    def model(
        self, model: nn.Module, images: np.ndarray, metric: tuple[str, float] | None, files: Iterable[Path] = ()
    ) -> str | None:
        """The trained network, callable from MLflow; returns its address.

        Parameters
        ----------
        model
            Maps float images (B,3,S,S) to one tensor, which is all that MLflow's generic models can give back.
        images
            Example batch, B ≥ 2: a batch of one would freeze the batch size.
        metric
            Name and value, lower is better: the alias `champion` moves to the best model registered so far.
        files
            Files kept beside the model.
        """
        return None

    def pointer(self) -> dict[str, Any]:
        """Content of ``run.json``."""
        return {"tracking": "off", "experiment": None, "run_id": None}


class MlflowRun(Run):
    """A run in MLflow.

    Metrics are sent in batches from a thread of their own. A store that goes away in the middle of a training does not
    end it: what could not be sent is kept and tried again, and reported at the end.
    """

    def __init__(self, run_id: str, stage: str) -> None:
        from mlflow import MlflowClient

        self.run_id: str = run_id
        self._stage = stage
        self._client = MlflowClient()
        self._buffer: list[Any] = []
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._sending: Future[None] | None = None
        self._due = time.monotonic() + FLUSH_SECONDS
        self._warned = False

    def log(self, record: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._buffer += [Metric(key, float(value), now, step) for key, value in record.items()]
        if len(self._buffer) >= FLUSH_RECORDS or time.monotonic() >= self._due:
            self._flush()

    def figure(self, name: str, image: np.ndarray, step: int | None = None) -> None:
        if step is None:
            self._attempt(lambda: self._client.log_image(self.run_id, image, f"figures/{name}.png"))
        else:
            key = name.replace("/", "-")
            self._attempt(lambda: self._client.log_image(self.run_id, image, key=key, step=step))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._attempt(lambda: send(self.run_id, str(path), folder))

    def tag(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(key, str(value)) for key, value in tags.items()]
        self._attempt(lambda: self._client.log_batch(self.run_id, tags=entries))

    def dataset(self, name: str, digest: str, path: Path, context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(name, digest[:36], "local", json.dumps({"uri": str(path)}))
        used = DatasetInput(entity, [InputTag("mlflow.data.context", context)])
        self._attempt(lambda: self._client.log_inputs(self.run_id, [used]))

    def model(
        self, model: nn.Module, images: np.ndarray, metric: tuple[str, float] | None, files: Iterable[Path] = ()
    ) -> str | None:
        import mlflow
        import mlflow.pytorch
        import torch
        from mlflow.models import infer_signature

        if len(images) < 2:
            raise ValueError("an example batch of one would freeze the batch size of the logged model")
        with torch.no_grad():
            output = model(torch.from_numpy(images))
        with _quiet("mlflow"):
            info = mlflow.pytorch.log_model(
                model,
                name="model",
                signature=infer_signature(images, output.numpy()),
                input_example=images,
                pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
                serialization_format="pt2",
                registered_model_name=REGISTERED_MODEL,
                extra_files=[str(path) for path in files],
            )
        if metric is not None and info.registered_model_version is not None:
            self._crown(str(info.registered_model_version), *metric)
        return str(info.model_uri)

    def _crown(self, version: str, name: str, value: float) -> None:
        """Move `champion` to this version unless the present one scores better on the same metric."""
        from mlflow.exceptions import MlflowException

        self._client.set_model_version_tag(REGISTERED_MODEL, version, name, repr(value))
        try:
            best = self._client.get_model_version_by_alias(REGISTERED_MODEL, "champion").tags.get(name)
        except MlflowException:
            best = None
        if best is None or value < float(best):
            self._client.set_registered_model_alias(REGISTERED_MODEL, "champion", version)

    def pointer(self) -> dict[str, Any]:
        return {"tracking": "mlflow", "experiment": EXPERIMENT, "run_id": self.run_id}

    def close(self) -> None:
        """Send what is left; say what could not be sent."""
        if self._sending is not None:
            self._sending.result()
        self._flush()
        self._sender.shutdown(wait=True)
        if self._buffer:
            print(f"tracking: {len(self._buffer)} metric values of {self._stage} could not be sent", file=sys.stderr)

    def _flush(self) -> None:
        if self._sending is not None and not self._sending.done():
            return
        batch, self._buffer = self._buffer, []
        self._due = time.monotonic() + FLUSH_SECONDS
        if batch:
            self._sending = self._sender.submit(self._send, batch)

    def _send(self, batch: list[Any]) -> None:
        def send() -> None:
            for start in range(0, len(batch), 1000):  # the most that one request may hold
                self._client.log_batch(self.run_id, metrics=batch[start : start + 1000])

        if not self._attempt(send):
            self._buffer = batch + self._buffer
            self._due = time.monotonic() + RETRY_SECONDS

    def _attempt(self, send: Any) -> bool:
        """Whether it went through; a run's bookkeeping never ends the work it describes."""
        from mlflow.exceptions import MlflowException

        try:
            send()
        except (MlflowException, OSError) as err:
            if not self._warned:
                self._warned = True
                print(f"tracking: the store does not answer, the stage goes on: {_line(err)}", file=sys.stderr)
            return False
        return True


@contextlib.contextmanager
def tracked(
    stage: str,
    params: Params,
    inputs: Iterable[str | Path] = (),
    *,
    name: str | None = None,
    group: str | None = None,
    tags: Mapping[str, str] | None = None,
    reopen: str | None = None,
) -> Iterator[Run]:
    """Run of a stage, ended as finished, failed or killed by how the block is left.

    Parameters
    ----------
    stage
        Name in ``dvc.yaml``; ``DVC_STAGE`` has precedence, which names the item of a matrix too.
    params
        Resolved parameters; logged flat.
    inputs
        Paths whose md5 in ``dvc.lock`` become tags.
    name
        Title of the run; default: the stage.
    group
        Key of a parent run that this one is nested under; made by whoever comes first.
    tags
        More tags.
    reopen
        Run to go on with: an interrupted run, or the training that an evaluation belongs to. Where the store does not
        know it (results pulled from a colleague) a new run is tagged with it.
    """
    if os.environ.get("METRO_TRACKING", "").lower() in ("off", "0", "false", "no"):
        yield Run()
        return
    experiment = setup()
    import mlflow

    known = reopen is not None and _exists(reopen)
    facts = {} if known else {"stage": stage, **_facts(stage, inputs), **(tags or {})}
    if reopen is not None and not known:
        facts["dvc.resumed_from"] = reopen
    parent = _parent(experiment, group, params, facts) if group and not known else None
    active = mlflow.start_run(
        run_id=reopen if known else None,
        run_name=None if known else name or os.environ.get("DVC_STAGE") or stage,
        parent_run_id=parent,
        tags=facts or None,
        log_system_metrics=True,
    )
    run = MlflowRun(active.info.run_id, stage)
    status = "FAILED"
    try:
        if not known:
            _log_params(run, params)
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.close()
        with _quiet("mlflow"):
            run._attempt(lambda: mlflow.end_run(status))


def setup() -> str:
    """Point MLflow at the store, made first where it is missing; returns the experiment's id.

    Raises
    ------
    MetroError
        The tracking server does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # A store that went away should cost seconds, not the minutes of the default back-off.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    uri = store_uri()
    if uri.startswith(("http://", "https://")):
        _knock(uri)
    import mlflow
    from filelock import FileLock
    from mlflow.exceptions import MlflowException

    for name in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics", "mlflow.tracking.fluent"):
        logging.getLogger(name).setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri)
    mlflow.set_system_metrics_sampling_interval(5)
    root = project_root()
    (root / ".metro").mkdir(exist_ok=True)
    try:
        # The first user of a SQLite store creates its tables; two at once would break it.
        with FileLock(root / ".metro" / "tracking.lock", timeout=120):
            experiment = mlflow.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                # Without an explicit location artifacts go to the working directory of the first use.
                location = (root / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
                kind = {"mlflow.experimentKind": "custom_model_development"}
                identity = mlflow.create_experiment(EXPERIMENT, artifact_location=location, tags=kind)
            else:
                identity = experiment.experiment_id
    except MlflowException as err:
        raise MetroError(
            f"tracking: cannot use the store {uri}: {_line(err)}; METRO_TRACKING=off goes without"
        ) from None
    mlflow.set_experiment(experiment_id=identity)
    return str(identity)


def store_uri() -> str:
    """Address of the MLflow store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / 'mlflow.db'}"


def project_root() -> Path:
    """Root of the DVC repository; inside a queued experiment that of the main one, not of the scratch copy."""
    named = os.environ.get("DVC_ROOT")
    here = Path(named) if named else Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir():
            return folder.resolve()
    raise MetroError(f"{here}: not inside the project (no .dvc folder above); run from the project root")


def link(root: Path | None = None) -> dict[str, str]:
    """Tag the runs that ``dvc.lock`` points to (through ``run.json``) with the md5 of their stages' outputs.

    Returns
    -------
    dict
        Stage to run id, of the runs that were tagged. Runs that the store does not know are left out.
    """
    root = root or Path.cwd()
    linked: dict[str, str] = {}
    for stage, entry in _lock(root).get("stages", {}).items():
        outs = {out["path"]: out.get("md5", "") for out in entry.get("outs", [])}
        for path in outs:
            if Path(path).name != "run.json" or not (root / path).is_file():
                continue
            run_id = json.loads((root / path).read_text()).get("run_id")
            if not run_id:
                continue
            if not linked:
                setup()
            if not _exists(run_id):
                continue
            tags = {f"dvc.out.{out}": md5 for out, md5 in outs.items() if md5 and out != path}
            MlflowRun(run_id, stage).tag({**tags, **_git_facts(root)})
            linked[stage] = run_id
    return linked


def run_url(run_id: str) -> str | None:
    """Page of a run in the MLflow UI, where `MLFLOW_UI` or the tracking address tells where that is."""
    base = os.environ.get("MLFLOW_UI") or store_uri()
    if not base.startswith("http"):
        return None
    setup()
    from mlflow import MlflowClient

    experiment = MlflowClient().get_run(run_id).info.experiment_id
    return f"{base.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as dotted names; sequences of mappings are numbered."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}.")
        elif isinstance(value, Sequence) and value and all(isinstance(v, Mapping) for v in value):
            for number, item in enumerate(value):
                flat |= flatten(item, f"{path}.{number}.")
        else:
            flat[path] = str(value)
    return flat


def _log_params(run: MlflowRun, params: Params) -> None:
    from mlflow.entities import Param

    entries = [Param(key, value[:6000]) for key, value in flatten(params.model_dump(mode="json")).items()]
    for start in range(0, len(entries), 100):  # the most that one request may hold
        run._attempt(lambda start=start: run._client.log_batch(run.run_id, params=entries[start : start + 100]))


def _parent(experiment: str, group: str, params: Params, facts: Mapping[str, str]) -> str:
    """The run that all runs of a group are nested under."""
    from filelock import FileLock
    from mlflow import MlflowClient

    client = MlflowClient()
    with FileLock(project_root() / ".metro" / "tracking.lock", timeout=120):
        found = client.search_runs([experiment], f"tags.`metro.group` = '{group}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        kept = {key: value for key, value in facts.items() if key.startswith("git.")}
        tags = {"metro.group": group, "stage": group.partition(":")[0], "preset": params.preset, **kept}
        run = client.create_run(experiment, run_name=group.partition(":")[0], tags=tags)
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)


def group_run(group: str) -> str | None:
    """Run id of a group's parent, where there is one."""
    if os.environ.get("METRO_TRACKING", "").lower() in ("off", "0", "false", "no"):
        return None
    identity = setup()
    from mlflow import MlflowClient

    found = MlflowClient().search_runs([identity], f"tags.`metro.group` = '{group}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _exists(run_id: str) -> bool:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return bool(MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False


def _facts(stage: str, inputs: Iterable[str | Path]) -> dict[str, str]:
    """Where a run comes from: DVC's stage and experiment, the lock, the inputs' md5, the git commit, the flow run."""
    named = {
        "dvc.stage": os.environ.get("DVC_STAGE", stage),
        "dvc.exp.name": os.environ.get("DVC_EXP_NAME"),
        "dvc.exp.baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "prefect.flow_run": os.environ.get("PREFECT_FLOW_RUN_ID"),
    }
    facts = {key: value for key, value in named.items() if value}
    lock_file = Path("dvc.lock")
    if lock_file.is_file():
        facts["dvc.lock"] = hashlib.sha256(lock_file.read_bytes()).hexdigest()[:32]
    wanted = [Path(path) for path in inputs]
    for entry in _lock(Path()).get("stages", {}).values():
        for out in entry.get("outs", []):
            path = Path(out["path"])
            if any(path == want or want in path.parents or path in want.parents for want in wanted):
                facts[f"dvc.dep.{out['path']}"] = out.get("md5", "")
    return facts | _git_facts(Path())


def _git_facts(root: Path) -> dict[str, str]:
    def git(*words: str) -> str | None:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock", ":!reports")
    return {"git.commit": commit, "git.dirty": str(bool(dirty)).lower()}


def _lock(root: Path) -> dict[str, Any]:
    path = root / "dvc.lock"
    return yaml.safe_load(path.read_text()) or {} if path.is_file() else {}


def _knock(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            return
    except (OSError, urllib.error.URLError, ValueError) as err:
        raise MetroError(
            f"tracking: no MLflow server answers at {uri} ({_line(err)}): start it (`make serve`), unset "
            "MLFLOW_TRACKING_URI to use the local store, or set METRO_TRACKING=off"
        ) from None


def _line(err: BaseException) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:200]


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Hold back a library's chatter (not its errors) for a while."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
