"""The wiring of ``dvc.yaml``: it declares what the stages read, and a change re-runs what depends on it and no more."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from metro.config import Params
from pipeline import paths

ROOT = Path(__file__).resolve().parents[2]
DVC_YAML = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, dict[str, Any]] = {name: entry.get("do", entry) for name, entry in DVC_YAML["stages"].items()}
NOT_INPUTS = {
    "metro/config.py": "parameters are declared as such",
    "metro/errors.py": "texts",
    "metro/files.py": "how files are written, not what is in them",
    "metro/viz/overlay.py": "pictures for the tracked run, and files whose writing does not change",
}


def modules_of(stage: str) -> set[str]:
    """Modules of the library that a stage's module names, also inside of functions."""
    script = STAGES[stage]["cmd"].split()[2].replace(".", "/") + ".py"
    tree = ast.parse((ROOT / script).read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("metro"):
            found.add(node.module)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_it_calls(stage: str) -> None:
    declared = [Path(str(dep)) for dep in STAGES[stage]["deps"]]
    assert Path(STAGES[stage]["cmd"].split()[2].replace(".", "/") + ".py") in declared
    for module in modules_of(stage):
        file = Path(module.replace(".", "/"))
        file = file / "__init__.py" if (ROOT / file).is_dir() else file.with_suffix(".py")
        covered = any(file == dep or dep in file.parents for dep in declared)
        assert covered or str(file) in NOT_INPUTS, f"{stage} calls {module}: add it to its deps in dvc.yaml"


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_names_exists(stage: str) -> None:
    entry = STAGES[stage]
    for dep in entry["deps"]:
        if str(dep).startswith(("metro", "pipeline")):
            assert (ROOT / dep).exists(), dep
    known = set(Params.model_fields)
    assert {name.partition(".")[0] for name in entry["params"]} <= known
    assert entry["desc"]


def test_declared_outputs_are_those_of_the_code() -> None:
    declared = {str(out) for entry in STAGES.values() for out in entry["outs"]}
    written = {paths.SAMPLING, paths.TRAIN_SETS, paths.BENCHMARK_SETS, paths.MEAN_POSES, paths.MODEL, paths.CURVES}
    written |= {paths.TRAIN_RUN, paths.EXPORT, paths.ATTENTION, paths.SWEEP_REPORT, paths.REPORT, paths.BODY.parent}
    written |= {paths.shards("${key}"), paths.fits("${item.dataset}"), paths.EVALUATE / "${key}"}
    assert declared == {*map(str, written), f"{paths.SWEEP}/${{item.ratio}}"}


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    """DVC's stages by name, with the parameters they track and the stages they need."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    from flows.dag import read_dag

    dag = read_dag(ROOT)
    with Repo(str(ROOT)) as repo:
        tracked = {
            stage.name: {name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params}
            for stage in repo.index.stages
        }
    return {name: (tracked[name], set(needs)) for name, needs in dag.items()}


def rerun_by(stages: dict[str, Any], changed: str) -> set[str]:
    """Stages that a change of the parameter makes out of date, item names left out."""
    stale: set[str] = set()
    for name, (tracked, needs) in stages.items():
        if any(changed == p or changed.startswith(f"{p}.") for p in tracked) or needs & stale:
            stale.add(name)
    return stale


def kinds(names: Iterable[str]) -> set[str]:
    return {name.partition("@")[0] for name in names}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("export.onnx", {"export", "report"}),
        ("attention.samples", {"attention", "report"}),
        ("sweep.steps", {"sweep", "sweep-report", "report"}),
        (
            "train.lr",
            {"train", "sweep", "evaluate", "sweep-report", "attention", "export", "report"},
        ),
        (
            "sampling.sizes",
            {"sampling", "train", "sweep", "evaluate", "sweep-report", "attention", "export", "report"},
        ),
    ],
)
def test_a_change_runs_its_dependants_and_no_more(stages: dict[str, Any], changed: str, expected: set[str]) -> None:
    assert kinds(rerun_by(stages, changed)) == expected


def test_a_change_to_one_dataset_leaves_the_others(stages: dict[str, Any]) -> None:
    stale = rerun_by(stages, "datasets.synth-2d.synthetic.count")
    assert {"prepare@synth-2d", "fit@synth-2d", "catalogue"} <= stale
    assert not {"prepare@synth-3d", "fit@synth-3d", "prepare@synth-mesh", "body", "sampling"} & stale


def test_training_hangs_on_the_catalogue_of_its_own_sets_only(stages: dict[str, Any]) -> None:
    """A test set reaches training through the catalogue alone, whose file on training sets it does not change."""
    assert stages["train"][1] == {"body", "sampling", "catalogue"}
    assert "data/catalogue/benchmarks.json" not in STAGES["train"]["deps"]
