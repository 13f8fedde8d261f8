"""Tracked runs: one store whoever comes first, a way from DVC to MLflow and back, and work that never ends for it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from metro.config import Params
from metro.errors import MetroError
from pipeline import runs, tracking
from pipeline.flat import flatten, numbers
from pipeline.tracking import lineage, store
from pipeline.tracking.run import REGISTERED_MODEL, MlflowRun
from pipeline.tracking.sender import FLUSH_VALUES, Sender
from pipeline.tracking.store import setup, store_uri


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    (folder / "data").mkdir()
    (folder / "data/sampling.npz").write_text("levels")
    (folder / "models").mkdir()
    (folder / "models/best").write_text("weights")
    (folder / "params.yaml").write_text("preset: open\n")
    stage = {"cmd": "true", "deps": ["data/sampling.npz"]}
    train = {"desc": "Train METRO", "outs": ["models/best"], **stage}
    items = {"foreach": ["synth-test", "hard"], "do": stage}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": train, "evaluate": items}}))
    return folder


@pytest.fixture
def train(project: Path) -> Callable[..., tracking.Run]:
    """A training whose weights are those of the text given."""

    def make(weights: str, **options: Any) -> tracking.Run:
        with tracking.tracked(Params(), **options) as run:
            (project / "models/best").write_text(weights)
        return run

    return make


@pytest.fixture(autouse=True)
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    for name in ("DVC_ROOT", "DVC_STAGE", "METRO_TRACKING", "MLFLOW_TRACKING_URI", "MLFLOW_UI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_STAGE", "train")
    return root


def read(run_id: str | None):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    assert run_id
    return MlflowClient().get_run(run_id)


@pytest.mark.slow
def test_four_first_users_at_once_make_one_store(root: Path) -> None:
    code = (
        "from metro.config import Params\nfrom pipeline import tracking\n"
        "with tracking.tracked(Params()) as run:\n    run.log({'loss': 1.0}, 1)\n    print(run.run_id)"
    )
    users = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    told = [user.communicate(timeout=280) for user in users]
    assert [user.returncode for user in users] == [0] * 4, told
    setup()
    assert {read(out.strip()).data.metrics["loss"] for out, _ in told} == {1.0}
    assert (root / "mlflow.db").is_file()
    assert not (root / "mlruns").exists()


def test_a_run_tells_where_it_comes_from_and_what_it_was_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "dvc.lock").write_text("stages: {}")
    monkeypatch.setenv("DVC_STAGE", "evaluate@synth-test")
    monkeypatch.setenv("DVC_EXP_NAME", "m02")
    monkeypatch.setenv("PREFECT_FLOW_RUN_ID", "flow-1")
    picture = np.zeros((4, 4, 3), np.uint8)
    with tracking.tracked(Params()) as run:
        for step in range(1200):
            run.log({"loss/total": step}, step)
        run.dataset("synth", "d" * 64, Path("data/sets/synth"), "training")
        run.figure("cases", picture)
        run.artifact(root / "dvc.lock", "notes")
    found = read(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["stage"] == "evaluate"
    assert found.data.tags["dvc.stage"] == "evaluate@synth-test"
    assert found.data.tags["dvc.exp.name"] == "m02"
    assert found.data.tags["prefect.flow_run"] == "flow-1"
    assert found.data.tags["dvc.dep.data/sampling.npz"] == hashlib.md5(b"levels").hexdigest()
    assert found.data.params["train.mask.joints"] == "0.3"
    assert found.data.params["model.blocks.0.width"] == "1024"
    assert found.inputs.dataset_inputs[0].dataset.name == "synth"
    from mlflow import MlflowClient

    history = MlflowClient().get_metric_history(run.run_id, "loss/total")
    assert [m.value for m in sorted(history, key=lambda m: m.step)] == list(range(1200))
    assert [a.path for a in MlflowClient().list_artifacts(run.run_id, "figures")] == ["figures/cases.png"]
    assert Path(found.info.artifact_uri.removeprefix("file://")).is_relative_to(root)


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_ends_as_its_stage_does(error: type[BaseException], status: str) -> None:
    with pytest.raises(error), tracking.tracked(Params()) as run:
        raise error
    assert read(run.run_id).info.status == status


def test_an_output_leads_to_the_run_that_made_it_and_the_run_to_the_lock(
    root: Path, train: Callable[..., tracking.Run]
) -> None:
    first, second = train("one"), train("two")
    for weights, run in (("one", first), ("two", second)):
        md5 = hashlib.md5(weights.encode()).hexdigest()
        assert read(run.run_id).data.tags["dvc.out.models/best"] == md5
        outs = [{"path": "models/best", "md5": md5}, {"path": "reports/metrics/train.json", "md5": "0"}]
        (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train": {"outs": outs}, "body": {"outs": []}}}))
        assert lineage.runs() == {"train": run.run_id}


def test_a_question_makes_no_store(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(root / ".dvc", tmp_path / ".dvc")
    outs = [{"path": "models/best", "md5": "1"}]
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train": {"outs": outs}}}))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert lineage.runs() == {}
    assert lineage.run_url("f" * 32) is None
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupted_run_goes_on_and_a_foreign_one_is_named(tmp_path: Path) -> None:
    runs: list[tracking.Run] = []

    def interrupted() -> None:
        with tracking.tracked(Params(), work=tmp_path) as run:
            runs.append(run)
            run.log({"loss": 2.0}, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with tracking.tracked(Params(preset="other"), work=tmp_path) as again:
        again.log({"loss": 1.0}, 2)
    assert again.run_id == runs[0].run_id
    assert read(again.run_id).data.metrics["loss"] == 1.0
    assert read(again.run_id).info.status == "FINISHED"
    (tmp_path / "run.json").write_text(json.dumps({"run_id": "f" * 32}))
    with tracking.tracked(Params(), work=tmp_path) as foreign:
        pass
    assert read(foreign.run_id).data.tags["resumed_from"] == "f" * 32
    (tmp_path / "run.json").write_text("{")
    with (
        pytest.raises(MetroError, match=r"run\.json: not valid JSON .*delete it"),
        tracking.tracked(Params(), work=tmp_path),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (SystemExit, "KILLED")])
def test_a_failed_evaluation_leaves_the_training_finished(
    error: type[BaseException], status: str, train: Callable[..., tracking.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = train("judged")
    ended = read(training.run_id).info.end_time
    monkeypatch.setenv("DVC_STAGE", "evaluate@synth-test")
    meanwhile = []

    def fails() -> None:
        with tracking.joined(Params(), "train") as run:
            meanwhile.append((run.run_id, read(run.run_id).info.status))
            raise error

    with pytest.raises(error):
        fails()
    assert meanwhile == [(training.run_id, "FINISHED")]  # so that kill -9 could not change it either
    assert read(training.run_id).info.status == "FINISHED"
    assert read(training.run_id).data.tags["ended.evaluate/synth-test"] == status
    with tracking.joined(Params(), "train") as run:
        run.log({"mpjpe_mm": 90.0})
    found = read(training.run_id)
    assert found.data.tags["ended.evaluate/synth-test"] == "FINISHED"
    assert found.data.metrics["mpjpe_mm"] == 90.0
    assert (found.info.status, found.info.end_time) == ("FINISHED", ended)


def test_outputs_that_no_run_of_the_store_has_made_get_one_run_to_stand_for_theirs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "models/best").write_text("from a colleague")
    ids = set()
    for item in ("synth-test", "hard"):
        monkeypatch.setenv("DVC_STAGE", f"evaluate@{item}")
        with tracking.joined(Params(), "train") as run:
            run.log({f"{item}/mpjpe_mm": 90.0})
        ids.add(run.run_id)
    (only,) = ids
    found = read(only)
    assert found.info.status == "FINISHED"
    assert found.data.metrics.keys() == {"synth-test/mpjpe_mm", "hard/mpjpe_mm"}
    assert found.data.tags["dvc.stage"] == "train"
    assert "made elsewhere" in found.info.run_name


def test_runs_of_killed_processes_are_ended_by_the_next_one(root: Path) -> None:
    code = (
        "import os\nfrom metro.config import Params\nfrom pipeline import tracking\n"
        "with tracking.tracked(Params()) as run:\n    print(run.run_id, flush=True)\n    {}"
    )
    dead = subprocess.run(
        [sys.executable, "-c", code.format("os.kill(os.getpid(), 9)")], stdout=subprocess.PIPE, text=True, check=False
    )
    alive = subprocess.Popen(
        [sys.executable, "-c", code.format("input()")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert alive.stdout is not None
    killed, living = dead.stdout.strip(), alive.stdout.readline().strip()
    setup()
    with tracking.tracked(Params()):
        assert read(killed).info.status == "KILLED"
        assert read(living).info.status == "RUNNING"
    alive.communicate("\n")
    assert read(living).info.status == "FINISHED"
    assert not list((root / ".metro/runs").iterdir())


def test_a_run_ends_even_if_its_last_values_cannot_be_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(sender: Sender) -> None:
        raise RuntimeError("cannot start new thread")

    monkeypatch.setattr(Sender, "close", broken)
    with tracking.tracked(Params()) as run:
        pass
    assert read(run.run_id).info.status == "FINISHED"
    assert "cannot start new thread" in capsys.readouterr().err


def test_values_that_were_refused_are_sent_again_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    answers = iter([True, False])

    def send(batch: Sequence[int]) -> bool:
        arrived = next(answers, True)
        taken.extend(batch if arrived else [])
        return arrived

    sender = Sender(send)
    sender.put(list(range(1500)))  # two batches, of which the second is refused
    sender.put([1500])
    assert sender.close() == []
    assert taken == list(range(1501))


def test_runs_of_a_group_share_a_parent_with_what_they_have_in_common(train: Callable[..., tracking.Run]) -> None:
    parents = set()
    for ratio in ("0.1", "0.2"):
        run = train(ratio, name=f"mask {ratio}", group="study-mask:77", grouped={"train": {"steps": 100}})
        parents.add(read(run.run_id).data.tags["mlflow.parentRunId"])
        with tracking.joined(Params(), "train", parent=True) as parent:
            parents.add(parent.run_id)
    (only,) = parents
    found = read(only)
    assert found.data.tags["metro.group"] == "study-mask:77"
    assert found.data.params == {"train.steps": "100"}
    assert found.info.status == "FINISHED"


def test_a_run_tells_what_it_is_and_what_it_computed_with(
    train: Callable[..., tracking.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy
    import torch
    from mlflow import MlflowClient
    from mlflow.artifacts import load_dict, load_text

    run = train("described")
    found, definition = read(run.run_id), f"runs:/{run.run_id}/definition"
    assert re.fullmatch(r"train open [0-9a-f]{7}", found.info.run_name)
    note = found.data.tags["mlflow.note.content"]
    assert note.startswith("Train METRO: stage `train` of the pipeline, preset `open`.")
    assert "`dvc repro train`" in note
    assert found.data.tags["env.torch"] == torch.__version__
    assert found.data.tags["env.kernels"].startswith(f"torch {torch.backends.cpu.get_cpu_capability()}")
    tracked = {artifact.path for artifact in MlflowClient().list_artifacts(run.run_id, "definition")}
    assert tracked >= {f"definition/{name}" for name in ("params.yaml", "dvc.yaml", "environment.json")}
    env = load_dict(f"{definition}/environment.json")
    assert env["packages"]["numpy"] == numpy.__version__
    assert env["computing"]["threads"] == torch.get_num_threads()
    assert load_text(f"{definition}/params.yaml") == "preset: open\n"
    monkeypatch.setenv("DVC_EXP_NAME", "nosy-chub")
    assert read(train("described").run_id).info.run_name == "train open nosy-chub"


def test_a_moved_or_copied_project_keeps_its_files_to_itself(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.artifacts import load_text

    with tracking.tracked(Params()) as run:
        run.artifact(root / "params.yaml", "notes")
    here = shutil.copytree(root, tmp_path / "copy")
    monkeypatch.chdir(here)
    with tracking.tracked(Params()) as new:
        pass
    assert f"files are now those in {(here / 'mlartifacts').as_uri()}\n" in capsys.readouterr().err
    for run_id in (run.run_id, new.run_id):
        assert Path(read(run_id).info.artifact_uri.removeprefix("file://")).is_relative_to(here)
    shutil.rmtree(root / "mlartifacts" / str(run.run_id))
    assert load_text(f"runs:/{run.run_id}/notes/params.yaml") == "preset: open\n"
    with tracking.tracked(Params()):
        pass
    assert "made in another place" not in capsys.readouterr().err


def test_the_store_is_that_of_the_main_repository_in_a_scratch_copy(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".dvc", "data", "dvc.yaml"):
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(root))
    assert store_uri() == f"sqlite:///{root.resolve() / 'mlflow.db'}"
    with tracking.tracked(Params()):
        pass
    assert not list(tmp_path.glob("ml*"))


def test_switched_off_it_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METRO_TRACKING", "off")
    with tracking.tracked(Params()) as run:
        run.log({"loss": 1.0}, 1)
        run.figure("x", np.zeros((2, 2, 3), np.uint8))
    with tracking.joined(Params(), "train") as run:
        run.tag({"x": "y"})
    assert lineage.runs() == {}
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(MetroError, match="no MLflow server answers") as caught, tracking.tracked(Params()):
        pytest.fail("the block must not run")
    assert "METRO_TRACKING=off" in str(caught.value)


def garbage(database: Path) -> None:
    database.write_bytes(b"no database " * 100)


def folder(database: Path) -> None:
    database.mkdir()


def nowhere(database: Path) -> None:
    database.symlink_to(database.parent / "good.db" / "mlflow.db")


def malformed(database: Path) -> None:
    content = bytearray((database.parent / "good.db").read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    database.write_bytes(content)


def of_another_program(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE experiments (colour TEXT)")


def of_another_version(database: Path) -> None:
    shutil.copy(database.parent / "good.db", database)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'unknown'")


@pytest.mark.parametrize("damage", [garbage, folder, nowhere, malformed, of_another_program, of_another_version])
def test_a_damaged_store_is_one_line(
    damage: Callable[[Path], None], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.tracked(Params()):
        pass
    shutil.copy(root / "mlflow.db", tmp_path / "good.db")
    damage(tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    code = (
        "from metro.config import Params\nfrom pipeline import stage, tracking\n"
        "def main(params):\n    with tracking.tracked(Params()):\n        print('worked')\n"
        "stage.run(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert re.fullmatch(r"train: tracking: cannot use the store .*METRO_TRACKING=off goes without\n", done.stderr)


def test_a_locked_store_is_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, train: Callable[..., tracking.Run]
) -> None:
    train("any")
    monkeypatch.setattr(store, "LOCK_SECONDS", 1)
    with contextlib.closing(sqlite3.connect(root / "mlflow.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MetroError, match=r"cannot use the store .*database is locked; .*METRO_TRACKING=off"):
            train("any")
        threading.Timer(0.3, other.rollback).start()
        train("any")


def test_what_a_store_that_went_away_did_not_take_is_told_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    from mlflow import MlflowClient
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    def gone(*args: object, **kwargs: object) -> None:
        raise ValueError("connection refused")  # whatever a broken store makes MLflow raise

    with monkeypatch.context() as patch, tracking.tracked(Params()) as run:
        for name in ("log_batch", "update_run_info"):
            patch.setattr(SqlAlchemyStore, name, gone)
        for step in range(2 * FLUSH_VALUES):
            run.log({"loss": float(step)}, step)
        run.figure("cases", np.zeros((4, 4, 3), np.uint8))
        run.tag({"a": "b"})
    told = capsys.readouterr().err
    assert told.count("the stage goes on: connection refused") == 1
    assert "1000 metric values of train are kept for later" in told
    assert read(run.run_id).info.status == "RUNNING"
    with tracking.tracked(Params()):
        pass
    assert read(run.run_id).info.status == "FINISHED"
    history = MlflowClient().get_metric_history(str(run.run_id), "loss")
    assert sorted(m.value for m in history) == list(range(1000))
    assert not list((root / ".metro/runs").iterdir())


def test_a_logged_model_takes_any_batch_and_brings_its_files(root: Path) -> None:
    import torch

    class Tiny(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return 2 * image.mean((2, 3))

    images = np.random.default_rng(0).random((5, 3, 8, 8), np.float32)
    (root / "bundle.json").write_text("{}")
    with tracking.tracked(Params()) as run:
        run.model(Tiny(), images[:2], ("synth/mpjpe_mm", 90.0), [root / "bundle.json"])
    import mlflow.artifacts
    import mlflow.pyfunc

    address = f"models:/{REGISTERED_MODEL}@champion"
    predicted = mlflow.pyfunc.load_model(address).predict(images)
    np.testing.assert_allclose(predicted, 2 * images.mean((2, 3)), rtol=1e-5)
    assert list(Path(mlflow.artifacts.download_artifacts(address)).rglob("bundle.json"))


def test_champion_is_the_best_of_the_models_that_were_validated_alike() -> None:
    from mlflow import MlflowClient

    with tracking.tracked(Params()) as run:
        assert isinstance(run, MlflowRun)
        client, name = MlflowClient(), REGISTERED_MODEL
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        champions = []
        for metric, error in (("a", 70.0), ("a", 75.0), ("a", 60.0), ("b", 300.0), ("a", 65.0)):
            version = client.create_model_version(name, "models", run.run_id).version
            run.promote(str(version), f"validation.{metric}/mpjpe_mm", error)
            tags = client.get_model_version_by_alias(name, "champion").tags
            champions.append(next(value for key, value in tags.items() if key == f"validation.{metric}/mpjpe_mm"))
    assert champions == ["70.0", "70.0", "60.0", "300.0", "60.0"]


def test_a_server_without_health_page_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(MetroError, match="no MLflow server answers"):
            setup()
        server.shutdown()


def test_nested_parameters_become_dotted_names() -> None:
    tree = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": 1.5}, {"e": True}], "f": []}
    assert flatten(tree) == {"a.b": 1, "a.c": [1, 2], "d.0.e": 1.5, "d.1.e": True, "f": []}
    assert numbers(tree) == {"a/b": 1, "d/0/e": 1.5}


def test_a_comparison_is_noted_and_a_run_is_found_by_its_id(root: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    (tmp_path / "compare.json").write_text("{}")
    numbers = {"people": 3.0, "mpjpe_difference_mm": -1.5}
    run_id = tracking.noted("a against b", {"compare.a": "a"}, numbers, [tmp_path / "compare.json"])
    run = read(run_id)
    assert (run.info.run_name, run.info.status, run.data.metrics) == ("a against b", "FINISHED", numbers)
    assert run.data.tags["compare.a"] == "a"
    assert [file.path for file in MlflowClient().list_artifacts(run_id)] == ["compare.json"]

    with pytest.raises(MetroError, match=f"{run_id}: a run without scores or a model"):
        runs.find(run_id, tmp_path)
    assert runs.find("0" * 32, tmp_path) is None
    (tmp_path / "evaluate/tiny").mkdir(parents=True)
    for name in ("result.json", "samples.npz", "worst.png"):
        (tmp_path / "evaluate/tiny" / name).write_text(name)
    MlflowClient().log_artifacts(run_id, str(tmp_path / "evaluate"), "evaluate")
    found = runs.find(run_id, tmp_path / "found")
    assert found
    assert {path.name: path.read_text() for path in found.results["tiny"].iterdir()} == {
        name: name for name in ("result.json", "samples.npz")
    }
    assert found.network is None
