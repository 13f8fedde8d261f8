"""`Run` is what a stage talks to: by itself it listens to nothing; `MlflowRun` writes to MLflow."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metro.logs import quiet
from pipeline import stage
from pipeline.tracking.ledger import Entry, Value
from pipeline.tracking.sender import Sender
from pipeline.tracking.store import first_line

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from torch import nn

REGISTERED_MODEL = "metro"


class Run:
    """What a stage may tell its run; this class, tracking switched off, listens to nothing."""

    run_id: str | None = None

    def log(self, record: Mapping[str, float], step: int = 0) -> None:
        """Metrics of a step."""

    def params(self, flat: Mapping[str, Any]) -> None:
        """Parameters by dotted name."""

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
    ) -> None:
        """The trained network, callable from MLflow.

        Parameters
        ----------
        model
            Maps float images (B,3,S,S) to one tensor, which is all that MLflow's generic models can give back.
        images
            Example batch, B ≥ 2: a batch of one would freeze the batch size.
        metric
            Name and value, lower is better. The alias `champion` moves to the best of all models registered with a
            value of this name, which therefore tells on which records it was measured.
        files
            Files kept beside the model.
        """


class MlflowRun(Run):
    """A run in MLflow. Its bookkeeping never ends the work it describes: what the store refuses is said, once.

    Parameters
    ----------
    run_id
        The run.
    own
        Whether it is this stage's own, to be ended with it; a run that a stage has joined stays as it is.
    """

    def __init__(self, run_id: str, own: bool = False) -> None:
        from mlflow import MlflowClient

        self.run_id: str = run_id
        self.own = own
        self._client = MlflowClient()
        self._sender = Sender(lambda batch: self.attempt(lambda: self._client.log_batch(run_id, metrics=batch)))
        self._warned = False
        self._entry = Entry(run_id, "KILLED" if own else None)

    def log(self, record: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._sender.put([Metric(key, float(value), now, step) for key, value in record.items()])

    def params(self, flat: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, str(value)[:6000]) for key, value in flat.items()]
        for start in range(0, len(entries), 100):  # the most that one request may hold
            self.attempt(partial(self._client.log_batch, self.run_id, params=entries[start : start + 100]))

    def figure(self, name: str, image: np.ndarray, step: int | None = None) -> None:
        if step is None:
            self.attempt(lambda: self._client.log_image(self.run_id, image, f"figures/{name}.png"))
        else:
            key = name.replace("/", "-")
            self.attempt(lambda: self._client.log_image(self.run_id, image, key=key, step=step))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self.attempt(lambda: send(self.run_id, str(path), folder))

    def tag(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(key, str(value)) for key, value in tags.items()]
        self.attempt(lambda: self._client.log_batch(self.run_id, tags=entries))

    def dataset(self, name: str, digest: str, path: Path, context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(name, digest[:36], "local", json.dumps({"uri": str(path)}))
        used = DatasetInput(entity, [InputTag("mlflow.data.context", context)])
        self.attempt(lambda: self._client.log_inputs(self.run_id, [used]))

    def model(
        self, model: nn.Module, images: np.ndarray, metric: tuple[str, float] | None, files: Iterable[Path] = ()
    ) -> None:
        import mlflow.pytorch
        import torch
        from mlflow.models import infer_signature

        if len(images) < 2:
            raise ValueError("an example batch of one would freeze the batch size of the logged model")
        with torch.no_grad():
            output = model(torch.from_numpy(images))
        said = {
            "signature": infer_signature(images, output.numpy()),
            "input_example": images,
            "pip_requirements": [f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
            "extra_files": [str(path) for path in files],
        }

        def send() -> None:
            info = mlflow.pytorch.log_model(
                model,
                name="model",
                run_id=self.run_id,
                serialization_format="pt2",
                registered_model_name=REGISTERED_MODEL,
                **said,
            )
            if metric is not None and info.registered_model_version is not None:
                self.promote(str(info.registered_model_version), *metric)

        with quiet("mlflow"):
            self.attempt(send)

    def promote(self, version: str, metric: str, value: float) -> None:
        """Note what the version scores (lower is better), and make the best with this metric `champion`."""
        self._client.set_model_version_tag(REGISTERED_MODEL, version, metric, repr(value))
        versions = self._client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
        best = min((v for v in versions if metric in v.tags), key=lambda v: (float(v.tags[metric]), int(v.version)))
        self._client.set_registered_model_alias(REGISTERED_MODEL, "champion", best.version)

    def end(self, status: str) -> None:
        """Send what is left and end the run, if it is the stage's own; what the store does not take stays noted."""
        import mlflow

        values: list[Metric] = []
        self.attempt(lambda: values.extend(self._sender.close()))
        if values:
            print(f"tracking: {len(values)} metric values of {stage.name()} are kept for later", file=sys.stderr)
        with quiet("mlflow"):
            ended = not self.own or self.attempt(lambda: mlflow.end_run(status))
        if values or not ended:
            left: list[Value] = [(value.key, value.value, value.timestamp, value.step) for value in values]
            self.attempt(lambda: self._entry.leave(status if self.own else None, left))
        else:
            self._entry.settled()
        self._entry.release()

    def attempt(self, send: Callable[[], object]) -> bool:
        """Whether the store took it.

        A store that breaks raises whatever it meets, so everything counts; the work goes on in any case.
        """
        try:
            send()
        except Exception as err:
            if not self._warned:
                self._warned = True
                print(f"tracking: the store does not answer, the stage goes on: {first_line(err)}", file=sys.stderr)
            return False
        return True
