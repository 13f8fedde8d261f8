"""The whole pipeline on the debug preset, in a clone: made once, not made again, continued after a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    dropped = ("DVC_ROOT", "MLFLOW_TRACKING_URI", "METRO_TRACKING")
    return {**{k: v for k, v in os.environ.items() if k not in dropped}, "PATH": path, "OMP_NUM_THREADS": "1"}


def repro(folder: Path, *words: str) -> list[str]:
    """Names of the stages that `dvc repro` ran."""
    command = [sys.executable, "-m", "dvc", "repro", *words]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone") / "metro")


def clone(folder: Path) -> Path:
    """A clone of this repository on the debug preset."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    subprocess.run(
        [sys.executable, "-m", "metro.cli.app", "preset", "apply", "debug"], cwd=folder, env=environment(), check=True
    )
    return folder


def contents(folder: Path) -> set[str]:
    """Files that a user sees, the stores of DVC, MLflow and git left out."""
    stores = (".git", ".dvc", "mlartifacts", "__pycache__")
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return {str(p) for p in found if not any(part in stores or part.startswith("mlflow.db") for part in p.parts)}


def metrics(folder: Path) -> dict[str, str]:
    root = folder / "reports" / "metrics"
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.json"))}


def links(folder: Path) -> dict[str, str]:
    """Stages to the pages of their tracked runs."""
    words = [sys.executable, "-m", "pipeline.link"]
    env = {**environment(), "MLFLOW_UI": "http://127.0.0.1:5000"}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=True)
    pages: dict[str, str] = json.loads(done.stdout)
    return pages


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "params.yaml").read_text()
    assert old in text
    (folder / "params.yaml").write_text(text.replace(old, new))


def plan(folder: Path) -> None:
    command = [sys.executable, "-m", "metro.cli.app", "study", "plan"]
    subprocess.run(command, cwd=folder, env=environment(), check=True)


def kill_midway(folder: Path, stage: str) -> str:
    """Start a stage that trains, kill all of it once it has written a checkpoint; the id of its tracked run."""
    command = [sys.executable, "-m", "dvc", "repro", "-s", stage]
    running = subprocess.Popen(command, cwd=folder, env=environment(), start_new_session=True)
    work, name = folder / ".metro" / "work", stage.replace("@", "-")
    while not list(work.glob(f"{name}-*/step-*/checkpoint.json")) and running.poll() is None:
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    (told,) = work.glob(f"{name}-*/run.json")
    run_id: str = json.loads(told.read_text())["run_id"]
    assert stage not in links(folder)
    return run_id


def test_a_killed_training_goes_on_in_its_own_run(project: Path) -> None:
    repro(project, "catalogue", "sampling")
    edit(project, "  steps: 6 ", "  steps: 400 ")
    run_id = kill_midway(project, "train")
    assert not (project / "models/train/best").exists()
    assert repro(project, "-s", "train") == ["train"]
    assert links(project)["train"].endswith(f"/runs/{run_id}")
    steps = [record["step"] for record in json.loads((project / "models/train/curves.json").read_text())]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400
    assert not list((project / ".metro" / "work").glob("train-*"))


def test_a_killed_run_of_a_study_goes_on_in_its_own_run_to_the_same_numbers(project: Path) -> None:
    stage, numbers = "study@masking-both-30-2", project / "reports/metrics/studies/masking/both-30-2.json"
    edit(project, "train.steps: 2", "train.steps: 200")
    plan(project)
    repro(project, "catalogue", "sampling")
    run_id = kill_midway(project, stage)
    assert repro(project, "-s", stage) == [stage]
    assert links(project)[stage].endswith(f"/runs/{run_id}")
    continued = numbers.read_text()
    assert repro(project, "-s", "--force", "--no-run-cache", stage) == [stage]  # from its beginning
    assert numbers.read_text() == continued
    edit(project, "train.steps: 200", "train.steps: 2")
    plan(project)


def test_everything_is_made_once(project: Path) -> None:
    assert "report" in repro(project)
    assert (project / "reports/report/index.html").stat().st_size > 100_000
    assert repro(project) == []


def test_another_variant_or_seed_runs_nothing_else_again_and_a_dropped_one_leaves_the_report(project: Path) -> None:
    edit(
        project,
        "      both-30:\n",
        "      both-50:\n        train.mask: {joints: 0.5, vertices: 0.5}\n      both-30:\n",
    )
    command = [sys.executable, "-m", "dvc", "repro"]
    stale = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=False)
    assert stale.returncode != 0
    assert "`metro study plan` lists them anew" in stale.stderr
    plan(project)
    added = {"study@masking-both-50-1", "study@masking-both-50-2"}
    assert set(repro(project)) == {"catalogue", *added, "study-report@masking", "report"}
    edit(project, "seeds: [1, 2]", "seeds: [2]")
    plan(project)
    assert set(repro(project)) == {"catalogue", "study-report@masking", "report"}
    told = json.loads((project / "reports/study-report/masking/study.json").read_text())
    assert told["seeds"] == [2]
    assert [variant["name"] for variant in told["variants"]] == ["unmasked", "both-50", "both-30"]


def test_two_clones_make_the_same_lock(tmp_path: Path) -> None:
    """What differs from run to run (times, ids, paths) is in no output; runs are found by what they made."""
    one, two = clone(tmp_path / "one"), clone(tmp_path / "a-longer-name")
    pages = []
    for folder in (one, two):
        repro(folder)
        pages.append(links(folder))
    assert (one / "dvc.lock").read_text() == (two / "dvc.lock").read_text()
    assert metrics(one) == metrics(two)
    joins = ("train", "evaluate@synth-test", "attention", "occlusion", "export", "report")
    for page in pages:
        assert {"train", "fit@synth-3d", "study@masking-both-30-2", "study-report@masking", "report"} <= page.keys()
        assert len({page[stage] for stage in joins}) == 1
    repro(two, "--force", "-s", "train")
    assert (one / "dvc.lock").read_text() == (two / "dvc.lock").read_text()
    assert links(two)["train"] != pages[1]["train"]  # the run that made it last
    # A store that knows nothing of the training, as after `dvc pull`.
    (two / "mlflow.db").unlink()
    repro(two, "--force", "-s", "evaluate@synth-test")
    assert (one / "dvc.lock").read_text() == (two / "dvc.lock").read_text()
    assert links(two)["train"] == links(two)["evaluate@synth-test"]


def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    """kill -9 for the whole process group at ten random moments of `dvc repro`, one run after another."""
    calm, harried = clone(tmp_path / "calm"), clone(tmp_path / "harried")
    began = time.monotonic()
    repro(calm)
    typical = (time.monotonic() - began) / 8
    moments, command = random.Random(0), [sys.executable, "-m", "dvc", "repro"]
    killed = 0
    while killed < 10:
        running = subprocess.Popen(
            command, cwd=harried, env=environment(), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            running.wait(timeout=moments.uniform(0.2, 2.0) * typical)
            break  # it came to its end before the tenth kill
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            killed += 1
    repro(harried)
    assert killed >= 5
    assert {"train.json", "study-report/masking.json", "evaluate/synth-test.json"} <= metrics(calm).keys()
    assert metrics(harried) == metrics(calm)
    assert contents(harried) == contents(calm)
    assert repro(harried) == []
