"""The wiring of ``dvc.yaml``: it declares what the stages read, and a change re-runs what depends on it and no more."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from metro.config import FilesConfig, FitConfig, Params, load_params
from metro.presets import render
from metro.sources import NAMES
from pipeline import paths

ROOT = Path(__file__).resolve().parents[2]
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
SECTIONS = set(Params.model_fields)
NOT_INPUTS = {
    "metro/__init__.py": "`load`, which no stage calls",
    "metro/config.py": "parameters are declared as such",
    "metro/errors.py": "texts",
    "metro/options.py": "parameters are declared as such",
    "metro/mesh/__init__.py": "names, imported when asked for",
    "metro/files.py": "how files are written, not what is in them",
    "metro/logs.py": "what libraries print",
    "metro/processes.py": "how processes end",
    "metro/version.py": "noted beside results",
    "metro/words.py": "parameters are declared as such",
    "pipeline/environment.py": "where a stage computes and who hears of it",
    "pipeline/paths.py": "where outputs lie, which DVC knows",
    "pipeline/stage.py": "the frame around a stage: how outputs appear, not what is in them",
    "pipeline/tracking": "what others hear of a stage",
}
"""Code that decides no output; imports are not followed beyond it."""


SOURCES = Path("metro/sources")
ADAPTERS = [SOURCES / f"{name}.py" for name in NAMES if (ROOT / SOURCES / f"{name}.py").is_file()]
OWN = {SOURCES / "synthetic.py", Path("metro/synthetic")}
"""What `prepare` of the synthetic sets, which stand for all in here, depends on and others do not: adapter and root."""


class Stage(NamedTuple):
    """A stage as DVC resolves it, the first item standing for all of a matrix."""

    script: Path
    deps: set[Path]
    params: set[str]
    needs: set[str]
    outs: set[Path]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """Every stage with its item, of the committed parameters; with photographs, and files from elsewhere."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    from flows.dag import read_dag

    folder = tmp_path_factory.mktemp("project")
    Repo.init(str(folder), no_scm=True).close()
    shutil.copy(ROOT / "dvc.yaml", folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["files"] = {name: f"/elsewhere/{name}" for name in FilesConfig.model_fields}
    params["photos"] = {"my-photos": {"labels": "people.json", "images": "/elsewhere/photos"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    dag = read_dag(folder)
    with Repo(str(folder)) as repo:
        return {
            stage.name: Stage(
                Path(stage.cmd.partition("-m ")[2].split()[0].replace(".", "/") + ".py"),
                {Path(dep.def_path) for dep in stage.deps if not isinstance(dep, ParamsDependency)},
                {name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params},
                set(dag[stage.name]),
                {Path(out.def_path) for out in stage.outs},
            )
            for stage in repo.index.stages
        }


@pytest.fixture
def stage(items: dict[str, Stage], request: pytest.FixtureRequest) -> Stage:
    return next(found for name, found in items.items() if name.partition("@")[0] == request.param)


def covers(declared: Iterable[Path | str], file: Path) -> bool:
    return any(file == Path(path) or Path(path) in file.parents for path in declared)


@cache
def executed(file: Path) -> ast.Module:
    """A module without what only the type checker reads."""

    class Runtime(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.If | None:
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else node

    return Runtime().visit(ast.parse((ROOT / file).read_text()))


def files_of(module: str) -> Iterator[Path]:
    """The file of a module of the project and those of the packages it lies in; nothing for other names."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        path = Path(*parts[:length])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if parts[0] in ("metro", "pipeline") and (ROOT / file).is_file():
                yield file


@cache
def reached_from(file: Path) -> set[Path]:
    """Modules that a module imports, also inside of functions and by their names in strings, and data beside them."""
    found: set[Path] = set()
    if file.suffix != ".py":
        return found
    for node in ast.walk(executed(file)):
        if isinstance(node, ast.Import):
            found.update(f for alias in node.names for f in files_of(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f for alias in node.names for f in files_of(f"{node.module}.{alias.name}"))
        elif isinstance(node, ast.Constant) and re.fullmatch(r"metro(\.\w+)+(:\w+)?", str(node.value)):
            found.update(files_of(str(node.value).partition(":")[0]))
    for package, below in re.findall(r"resources\.files\('([\w.]+)'\)((?: / '[\w.]+')+)", ast.unparse(executed(file))):
        found.add(Path(package.replace(".", "/"), *re.findall(r"'([\w.]+)'", below)))
    return found


def is_empty(file: Path) -> bool:
    """Whether a module holds no more than a docstring."""
    return file.suffix == ".py" and all(isinstance(node, ast.Expr) for node in executed(file).body)


def closure(*scripts: Path) -> set[Path]:
    """All files of the project that decide what scripts write."""
    found, pending = {*scripts}, [*scripts]
    if Path("pipeline/prepare.py") in scripts and len(scripts) == 1:  # adapters are imported by their names
        return closure(*scripts, *ADAPTERS) - {*ADAPTERS} | {SOURCES / "synthetic.py"}
    while pending:
        for file in reached_from(pending.pop()):
            if file not in found and not covers(NOT_INPUTS, file) and not is_empty(file):
                found.add(file)
                pending.append(file)
    return found


@pytest.mark.parametrize("stage", STAGES, indirect=True)
def test_a_stage_depends_on_all_code_that_it_reaches_and_on_no_other(stage: Stage) -> None:
    code = {dep for dep in stage.deps if dep.parts[0] in ("metro", "pipeline")}
    reached = closure(stage.script)
    missing = sorted(str(file) for file in reached if not covers(code, file))
    idle = sorted(str(dep) for dep in code if not any(covers([dep], file) for file in reached))
    assert (missing, idle) == ([], []), f"deps of {stage.script} in dvc.yaml: add {missing}, remove {idle}"


@pytest.mark.parametrize("adapter", ADAPTERS, ids=str)
def test_a_set_hangs_on_its_own_adapter_and_on_what_all_share(items: dict[str, Stage], adapter: Path) -> None:
    declared = next(stage.deps for name, stage in items.items() if name.startswith("prepare@"))
    assert declared >= OWN
    declared = declared if adapter in OWN else declared - OWN | {adapter}
    reached = closure(Path("pipeline/prepare.py"), adapter)
    assert not reached & {*ADAPTERS} - {adapter}
    assert [file for file in sorted(reached) if not covers(declared, file)] == []


def test_exceptions_are_reached_and_no_stage_reaches_the_command_line(items: dict[str, Stage]) -> None:
    reached = {file for stage in items.values() for found in closure(stage.script) for file in reached_from(found)}
    assert all(any(covers([exception], file) for file in reached) for exception in NOT_INPUTS)
    assert not any(covers(["metro/cli", "metro/presets.py"], file) for file in reached)


@pytest.mark.parametrize("stage", ["prepare", "fit", "train"], indirect=True)
def test_pictures_and_tables_are_made_again_without_what_takes_long(stage: Stage) -> None:
    drawing = ("metro/viz/overlay.py", "metro/viz/plots.py", "metro/viz/report.py", "metro/data/show.py")
    assert not any(covers(stage.deps, Path(file)) for file in drawing)


def sections_read(file: Path) -> set[str]:
    """Sections that a module takes from a variable `params`, by name, by `stage.section` or by a method of `Params`."""
    found: set[str] = set()
    for node in ast.walk(executed(file)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params":
            method = getattr(Params, node.attr, None)
            inside = re.findall(r"self\.(\w+)", inspect.getsource(method)) if inspect.isfunction(method) else []
            found |= SECTIONS & {node.attr, *inside}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "stage.section":
            found |= {str(word.value) for word in node.args[1:] if isinstance(word, ast.Constant)}
    return found


@pytest.mark.parametrize("stage", STAGES, indirect=True)
def test_a_stage_depends_on_the_parameters_that_it_reads(stage: Stage) -> None:
    read = {section for file in closure(stage.script) if file.suffix == ".py" for section in sections_read(file)}
    declared = {name.partition(".")[0] for name in stage.params}
    assert read <= declared <= SECTIONS


def test_fits_depend_on_all_of_their_section_but_the_list_of_sets(items: dict[str, Stage]) -> None:
    declared = next(stage.params for name, stage in items.items() if name.startswith("fit@"))
    assert declared == {"body", *(f"fit.{field}" for field in FitConfig.model_fields if field != "datasets")}


@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "presets").glob("*.yaml")))
def test_every_dataset_says_what_it_is_made_from(preset: str) -> None:
    """`prepare` depends on it, and DVC refuses a set without."""
    assert all("root" in item for item in yaml.safe_load(render(preset))["datasets"].values())


def test_paths_are_those_that_dvc_declares(items: dict[str, Stage]) -> None:
    """Every output is where `pipeline.paths` says, and every path there is (or holds, or lies in) an output."""
    outs = {out for stage in items.values() for out in stage.outs}
    known = {value for value in vars(paths).values() if isinstance(value, Path)}
    runs = load_params(yaml.safe_load(render("open"))).study_runs
    for name in items:
        kind, _, item = name.partition("@")
        if kind == "study":
            known |= {root / paths.study_run(runs[item]) for root in (paths.STUDIES, paths.STUDY_MODELS)}
        elif item:
            makers = {"prepare": paths.shards, "fit": paths.fits}
            folders = {
                "evaluate": paths.EVALUATE,
                "evaluate-photos": paths.EVALUATE,
                "study-report": paths.STUDY_REPORTS,
            }
            known.add(makers[kind](item) if kind in makers else folders[kind] / item)
    kept = {paths.WORK, paths.FEATURES, paths.COSTS}
    for folder in kept:
        assert not any(covers(outs, folder) or covers([folder], out) for out in outs)
    known -= kept
    metrics = {out for out in outs if covers([paths.METRICS], out)}
    assert all(any(covers([out], path) for path in known) for out in outs - metrics)
    assert all(any(covers([out], path) or covers([path], out) for out in outs) for path in known)


def rerun_by(items: dict[str, Stage], changed: str) -> set[str]:
    """Stages that a change of the parameter makes out of date."""
    stale: set[str] = set()
    for name in sorted(items, key=lambda name: len(ancestors(items, name))):
        stage = items[name]
        if any(changed == p or changed.startswith(f"{p}.") for p in stage.params) or stage.needs & stale:
            stale.add(name)
    return stale


def ancestors(items: dict[str, Stage], name: str) -> set[str]:
    return {name}.union(*(ancestors(items, needed) for needed in items[name].needs))


def kinds(names: Iterable[str]) -> set[str]:
    return {name.partition("@")[0] for name in names}


AFTER_TRAINING = {
    *("evaluate", "evaluate-photos", "study", "study-report"),  # runs of a study train by the same parameters
    *("attention", "occlusion", "export", "report"),
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("export.onnx", {"export", "report"}),
        ("attention.samples", {"attention", "report"}),
        ("occlusion.patch", {"occlusion", "report"}),
        ("train.lr", {"train", *AFTER_TRAINING}),
        ("sampling.sizes", {"sampling", "train", *AFTER_TRAINING}),
    ],
)
def test_a_change_runs_its_dependants_and_no_more(items: dict[str, Stage], changed: str, expected: set[str]) -> None:
    assert kinds(rerun_by(items, changed)) == expected


def test_a_change_to_one_dataset_leaves_the_others(items: dict[str, Stage]) -> None:
    stale = rerun_by(items, "datasets.synth-2d.options.count")
    assert {"prepare@synth-2d", "fit@synth-2d", "catalogue"} <= stale
    assert not {"prepare@synth-3d", "fit@synth-3d", "prepare@synth-mesh", "body", "sampling"} & stale


def test_photographs_are_judged_anew_when_their_files_change(items: dict[str, Stage]) -> None:
    photos = items["evaluate-photos@my-photos"]
    assert {Path("people.json"), Path("/elsewhere/photos")} <= photos.deps
    assert photos.needs == {"body", "sampling", "train"}
    assert "evaluate-photos@my-photos" in items["report"].needs


@pytest.mark.parametrize(
    ("file", "first"),
    [
        ("body", {"body", "prepare", "catalogue", "train", "study", "evaluate", "occlusion", "report"}),
        ("sampling", {"sampling"}),
        ("prior", {"fit"}),
        ("backbone", {"train", "study"}),
        ("init", {"train", "study"}),
    ],
)
def test_a_file_that_a_parameter_names_is_an_input_of_who_reads_it(
    items: dict[str, Stage], file: str, first: set[str]
) -> None:
    assert kinds(name for name, stage in items.items() if Path("/elsewhere", file) in stage.deps) == first


def test_where_no_file_is_named_one_stands_that_the_stages_depend_on_anyway(items: dict[str, Stage]) -> None:
    for name, path in FilesConfig():
        assert (ROOT / path).is_file()
        assert all(covers(s.deps, path) for s in items.values() if Path("/elsewhere", name) in s.deps)


def test_a_run_of_a_study_hangs_on_its_own_parameters_and_sets_only(items: dict[str, Stage]) -> None:
    name = "masking-both-30-1"
    run = items[f"study@{name}"]
    assert {p for p in run.params if "." in p} == {f"study_runs.{name}", "benchmarks.synth-test"}
    assert not {"datasets", "studies", "study_runs", "benchmarks", "fit"} & run.params
    catalogue = {dep for dep in run.deps if covers(["data/catalogue"], dep)}
    assert catalogue == {Path("data/catalogue/studies/masking/both-30.json"), paths.MEAN_POSES}
    assert run.needs == {"body", "sampling", "catalogue", "prepare@synth-test"}
    assert all(stage.outs.isdisjoint(run.outs) for other, stage in items.items() if other != f"study@{name}")


def test_training_hangs_on_the_catalogue_of_its_own_sets_only(items: dict[str, Stage]) -> None:
    """A test set reaches training through the catalogue alone, whose file on training sets it does not change."""
    assert items["train"].needs == {"body", "sampling", "catalogue"}
    assert Path("data/catalogue/benchmarks.json") not in items["train"].deps
