"""Benchmark evaluation: one exact pass over a dataset, tables with confidence intervals, baselines beside every number.

`evaluate` runs `measure` (network and metrics, one row per sample) and `summarise` (tables). On the processor each
process has one thread and takes whole batches, so that files are the same to the last byte however many there are;
`merge` joins what several machines measured and counts each sample once. (The official code averages per-process means
over padded, repeated samples.)

Files: ``result.json`` (tables, described in `metro.evaluation.summary`), ``metrics.json`` (its flat extract) and
``samples.npz`` (one row per sample).
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import torch
from typing_extensions import TypedDict

from metro.body.joints import names_of
from metro.body.model import BodyModel
from metro.config import EvaluateConfig
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.evaluation.baselines import Baselines
from metro.evaluation.measure import Samples, measure
from metro.evaluation.protocols import Protocol, protocol_of
from metro.evaluation.summary import SCHEMA, headline, summarise
from metro.files import read_arrays, read_json, readable
from metro.model.metro import Metro
from metro.model.views import mirror_vertices, views_of

RESULT, SAMPLES = "result.json", "samples.npz"
_JOINT, _REMEDY = "joint_", "evaluate again"


class _Protocol(TypedDict):
    name: str


class _Summary(TypedDict):
    """What is read from ``result.json``."""

    benchmark: str
    samples: int
    protocol: _Protocol
    model: dict[str, Any]
    data: NotRequired[dict[str, str]]


@dataclass(frozen=True)
class Result:
    """Outcome of one benchmark."""

    protocol: Protocol
    samples: Samples
    summary: dict[str, Any]
    """The content of ``result.json``, see `metro.evaluation.summary`."""

    @property
    def cases(self) -> dict[str, list[int]]:
        """Sample indices of the best, median and worst cases."""
        return {name: [case["index"] for case in cases] for name, cases in self.summary["cases"].items()}

    def headline(self) -> dict[str, float]:
        """Flat numbers: headline metrics in printed units, and their ratios to the baselines."""
        return headline(self.summary)

    def write(self, folder: Path) -> None:
        """Write ``metrics.json`` (flat), ``result.json`` (everything) and ``samples.npz`` (per sample)."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(self.headline(), indent=1) + "\n")
        (folder / RESULT).write_text(json.dumps(self.summary, indent=1, ensure_ascii=False) + "\n")
        s = self.samples
        arrays = {"index": s.index, "camera": s.camera, **s.values, **s.attributes}
        arrays |= {f"{_JOINT}{name}": errors for name, errors in s.joint_errors.items()}
        np.savez(folder / SAMPLES, **arrays)  # type: ignore[arg-type]

    @classmethod
    def read(cls, folder: Path) -> Result:
        """Read what `write` wrote, without the baselines of each sample, which it leaves out.

        Raises
        ------
        MetroError
            A file is missing, damaged or of another version.
        """
        summary = read_json(folder / RESULT, _REMEDY, version=("schema", SCHEMA), shape=_Summary)
        protocol = protocol_of(summary["protocol"]["name"])
        arrays = read_arrays(folder / SAMPLES, _REMEDY)
        with readable(folder / SAMPLES, _REMEDY):
            joints = len(names_of(protocol.joint_set))
            for name, array in arrays.items():
                width = {"camera": (3,)}.get(name, (joints,) if name.startswith(_JOINT) else ())
                if array.shape != (summary["samples"], *width) or array.dtype.kind not in "iuf":
                    raise ValueError(f"{name} is not of {summary['samples']} samples")
            index, camera = arrays.pop("index"), arrays.pop("camera")
            values = {key: arrays.pop(key) for key in protocol.metrics}
            errors = {name: arrays.pop(name) for name in [*arrays] if name.startswith(_JOINT)}
            errors = {name.removeprefix(_JOINT): array for name, array in errors.items()}
            if not {"mpjpe", "pa_mpjpe"} <= errors.keys() or not {"heading", "inside", "distance"} <= arrays.keys():
                raise ValueError("it lacks errors of joints or attributes of samples")
            if not np.array_equal(index, np.arange(len(index))):
                raise ValueError("it lacks samples")
        return cls(protocol, Samples(index, values, errors, arrays, {}, camera), summary)


def evaluate(
    model: Metro,
    dataset: ShardDataset,
    body: BodyModel,
    protocol: str | Protocol,
    config: EvaluateConfig | None = None,
    baseline: Baselines | None = None,
    device: torch.device | str = "cpu",
    *,
    benchmark: str = "",
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Evaluate a model on a benchmark.

    Parameters
    ----------
    model
        The network; it is put into evaluation mode.
    dataset
        Benchmark data.
    body
        Body model the ground truth is expressed in (neutral), with its `variants` where people have a gender.
    protocol
        A protocol or the name of one (`metro.evaluation.protocols.PROTOCOLS`).
    baseline
        Mean poses of the training sets; none: the result has no baselines, and says so.
    benchmark, about
        Name and facts (checkpoint, step) that the result carries.
    progress
        Called with samples done and samples in all.

    Raises
    ------
    MetroError
        The model, the body and the protocol do not belong together, or the dataset has no ground truth for it.
    """
    protocol = protocol_of(protocol)
    config = config or EvaluateConfig()
    template_V3, faces_F3 = body.template_C.view(3, -1).T.numpy(force=True), body.faces.numpy(force=True)
    views = views_of(config.views, model.config.joint_set, partial(mirror_vertices, template_V3, faces_F3))
    if views:
        about = {**(about or {}), "views": str(views)}
    samples = measure(
        model,
        dataset,
        body,
        protocol,
        baseline,
        device,
        batch_size=config.batch_size,
        processes=_processes(config, device),
        views=views,
        progress=progress,
    )
    data = {"records": dataset.digest(), "body": body.kind}
    summary = summarise(
        samples, protocol, config, baseline, keys=dataset.labels["keys"], benchmark=benchmark, about=about, data=data
    )
    return Result(protocol, samples, summary)


def _processes(config: EvaluateConfig, device: torch.device | str) -> int:
    """Processes to share the work; 0: this one has it all."""
    if torch.device(device).type != "cpu":
        return 0
    if multiprocessing.get_start_method() == "fork":
        return config.processes or len(os.sched_getaffinity(0))
    if config.processes:
        raise MetroError("evaluate.processes: this system does not fork, so that processes share nothing; leave it out")
    return 0
