"""Runs to compare: what a word stands for, the scores that are kept of it, and its network.

A folder is a checkpoint, a bundle or what `metro evaluate` wrote. Other words are asked of the project around the
library, which knows its commits and its tracked runs: the library knows neither git nor MLflow.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from metro.body.load import load_variant
from metro.body.model import BodyModel
from metro.config import EvaluateConfig
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.evaluation.compare import difference_of_data
from metro.evaluation.evaluate import RESULT, Result, evaluate
from metro.evaluation.figures import write_changes
from metro.export.bundle import Bundle
from metro.export.folder import META
from metro.export.load import body_config, body_of, open_bundle
from metro.files import read_json
from metro.shipped import SHIPPED
from metro.training.checkpoint import META as CHECKPOINT_META

PROJECT = "metro.runs"
"""Entry-point group of what the project adds: ``find(word: str, folder: Path) -> Run | None``, which may put files into
the folder, ``benchmark(name: str | None) -> Benchmark | None``, its first one by default, and
``log(title, tags, numbers, files) -> str``, which tells the id of the run that it made."""


@dataclass(frozen=True)
class Run:
    """One side of a comparison."""

    name: str
    """What the user calls it."""
    network: Path | str | None = None
    """What `metro.export.load.open_bundle` takes; None: only scores are at hand."""
    results: Mapping[str, Path] = field(default_factory=dict)
    """Benchmark → folder with ``result.json`` and ``samples.npz``."""

    @cached_property
    def bundle(self) -> Bundle:
        """Its network, opened when first asked for.

        Raises
        ------
        MetroError
            It has none, or that one cannot be opened.
        """
        if self.network is None:
            raise MetroError(f"{self.name}: its network is not at hand, only its scores")
        return open_bundle(self.network)

    def result(self, asked: str | None, usual: str | None = None) -> Result | None:
        """The scores that are kept of it on the benchmark asked for; else on the usual one, or on its only one.

        Raises
        ------
        MetroError
            The files are damaged, or it has several and none is asked for.
        """
        if asked or usual in self.results:
            folder = self.results.get(asked or usual or "")
        elif len(self.results) > 1:
            raise MetroError(f"{self.name}: scored on {', '.join(self.results)}; choose one with --benchmark")
        else:
            folder = next(iter(self.results.values()), None)
        return Result.read(folder) if folder else None


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the project."""

    name: str
    data: Path
    """Dataset folder."""
    protocol: str


def project(name: str) -> Callable[..., Any] | None:
    """A function of `PROJECT`, or None where none is installed."""
    found = metadata.entry_points(group=PROJECT, name=name)
    return next(iter(found)).load() if found else None


def find_run(word: str, folder: Path) -> Run:
    """What a word stands for: `open`, a folder, an address as `metro.load` takes it, or what the project knows.

    Parameters
    ----------
    word
        The word.
    folder
        Where files may be put that the run is read from.

    Raises
    ------
    MetroError
        It stands for nothing that can be compared.
    """
    if word in SHIPPED or re.match(r"\w{2,}:/", word):
        return Run(word, word)
    path = Path(word)
    if path.is_dir():
        network = path if any((path / name).is_file() for name in (META, CHECKPOINT_META)) else None
        scored = path / RESULT
        results = {}
        if scored.is_file():
            results[str(read_json(scored, "evaluate again", ("benchmark",))["benchmark"])] = path
        if not network and not results:
            raise MetroError(f"{path}: neither a checkpoint, a bundle nor what `metro evaluate` wrote")
        return Run(word, network, results)
    find = project("find")
    found: Run | None = find(word, folder) if find else None
    if found is None:
        known = "no such folder" if find is None else "no such folder, and no commit or MLflow run of this project"
        raise MetroError(f"{word}: {known}; give a checkpoint, bundle or evaluation folder, or `open`")
    return found


@dataclass(frozen=True)
class Judge:
    """Evaluates and draws networks on one dataset."""

    benchmark: str
    dataset: ShardDataset
    protocol: str
    device: torch.device
    batch_size: int = 64
    body: Path | None = None
    """File of a licensed body model."""

    @cached_property
    def records(self) -> str:
        """Digest of the dataset's records."""
        return self.dataset.digest()

    @cached_property
    def keys(self) -> list[str]:
        """Names of the records."""
        return [key.decode() for key in self.dataset.labels["keys"]]

    def score(self, run: Run) -> Result:
        """Scores of a run's network."""
        with tqdm(total=len(self.dataset), desc=run.name, unit="img", disable=not sys.stderr.isatty()) as bar:
            return evaluate(
                run.bundle.model,
                self.dataset,
                self._body(run),
                self.protocol,
                EvaluateConfig(batch_size=self.batch_size),
                device=self.device,
                benchmark=self.benchmark,
                about={"model": run.name, **run.bundle.meta["origin"]},
                progress=lambda done, total: bar.update(done - bar.n),
            )

    def saw(self, result: Result) -> bool:
        """Whether scores are of the records of this dataset."""
        return bool(result.summary.get("data", {}).get("records") == self.records)

    def draw(self, a: Run, b: Run, result: Result, cases: Mapping[str, Any], folder: Path) -> dict[str, Path]:
        """The people that changed most (`metro.evaluation.figures.write_changes`)."""
        models = (a.bundle.model, b.bundle.model)
        return write_changes(cases, models, self.dataset, self._body(a), result.protocol, folder, self.device)

    def _body(self, run: Run) -> BodyModel:
        meta = run.bundle.meta
        return BodyModel(body_of(meta, self.body), variants=partial(load_variant, body_config(meta, self.body)))


def scores(
    a: Run,
    b: Run,
    judge: Judge | None,
    *,
    benchmark: str | None = None,
    protocol: str | None = None,
    here: bool = False,
) -> tuple[Result, Result]:
    """Scores of two runs on the same people: those that are kept, if both have them, or else new ones of both.

    Kept scores may come from another definition of a metric, so new ones are not held against them, unless a run is
    nothing but its scores.

    Parameters
    ----------
    a, b
        The runs.
    judge
        What networks are evaluated by; None: there is no dataset at hand.
    benchmark, protocol
        Which scores are asked for, if any in particular.
    here
        Whether they must be of the judge's records.

    Raises
    ------
    MetroError
        A run has neither scores nor a network to evaluate, or there is nothing to evaluate it on.
    """
    kept = [run.result(benchmark, judge.benchmark if judge else None) for run in (a, b)]

    def fits(result: Result) -> bool:
        return protocol in (None, result.protocol.name) and (not here or judge is None or judge.saw(result))

    first, second = kept
    if first and second and fits(first) and fits(second) and not difference_of_data(first, second):
        return first, second
    told = []
    for run, result in zip((a, b), kept, strict=True):
        if judge and (run.network is not None or result is None):
            told.append(judge.score(run))
        elif result is None:
            where = f" on {benchmark}" if benchmark else ""
            raise MetroError(
                f"{run.name}: no scores{where} are kept of it; name a dataset to evaluate it on with --data"
            )
        else:
            told.append(result)
    return told[0], told[1]


def pictures(
    a: Run, b: Run, judge: Judge | None, result: Result, cases: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Path], str]:
    """Sheets of the people that changed most; where there are some but no pictures of them, why."""
    if not any(cases.values()):
        return {}, ""
    if judge is None or not judge.saw(result):
        return {}, "the pictures of these people are not at hand, name their dataset with --data"
    for run in (a, b):
        if run.network is None:
            return {}, f"the network of {run.name} is not at hand"
    return judge.draw(a, b, result, cases, folder), ""
