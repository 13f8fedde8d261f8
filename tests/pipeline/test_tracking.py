"""Tracked runs: one store whoever comes first, a way from DVC to MLflow and back, and work that never ends for it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from metro.config import Params
from metro.errors import MetroError
from pipeline import tracking
from pipeline.flat import flatten, numbers
from pipeline.tracking import lineage
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
    stage = {"cmd": "true", "deps": ["data/sampling.npz"]}
    items = {"foreach": ["synth-test"], "do": stage}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage, "evaluate": items}}))
    return folder


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


def test_run_json_leads_to_the_run_and_the_lock_to_run_json_and_back(root: Path) -> None:
    with tracking.tracked(Params()) as run:
        pointer = run.pointer()
    (root / "models").mkdir(exist_ok=True)
    (root / "models/run.json").write_text(json.dumps(pointer))
    outs = [{"path": "models/best", "md5": "0123.dir"}, {"path": "models/run.json", "md5": "45"}]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train": {"outs": outs}}}))
    assert lineage.link() == {"train": run.run_id}
    from mlflow import MlflowClient

    found = MlflowClient().search_runs([setup()], "tags.`dvc.out.models/best` = '0123.dir'")
    assert [r.info.run_id for r in found] == [run.run_id]


def test_an_interrupted_run_goes_on_and_a_foreign_one_is_named() -> None:
    runs: list[tracking.Run] = []

    def interrupted() -> None:
        with tracking.tracked(Params()) as run:
            runs.append(run)
            run.log({"loss": 2.0}, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    run = runs[0]
    with tracking.tracked(Params(preset="other"), reopen=run.run_id) as again:
        again.log({"loss": 1.0}, 2)
    assert again.run_id == run.run_id
    assert read(run.run_id).data.metrics["loss"] == 1.0
    assert read(run.run_id).info.status == "FINISHED"
    with tracking.tracked(Params(), reopen="f" * 32) as foreign:
        pass
    assert read(foreign.run_id).data.tags["dvc.resumed_from"] == "f" * 32


def test_a_failed_evaluation_leaves_the_training_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking.tracked(Params()) as training:
        pass
    monkeypatch.setenv("DVC_STAGE", "evaluate@synth-test")
    for error, status in ((RuntimeError, "FAILED"), (SystemExit, "KILLED")):
        with pytest.raises(error), tracking.tracked(Params(), reopen=training.run_id):
            raise error
        assert read(training.run_id).info.status == "FINISHED"
        assert read(training.run_id).data.tags["ended.evaluate/synth-test"] == status
    with tracking.tracked(Params(), reopen=training.run_id) as run:
        run.log({"mpjpe_mm": 90.0})
    assert read(training.run_id).data.tags["ended.evaluate/synth-test"] == "FINISHED"
    assert read(training.run_id).data.metrics["mpjpe_mm"] == 90.0


def test_a_run_ends_even_if_its_last_values_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: MlflowRun) -> None:
        raise RuntimeError("cannot start new thread")

    monkeypatch.setattr(MlflowRun, "close", broken)
    with pytest.raises(RuntimeError, match="cannot start"), tracking.tracked(Params()) as run:
        pass
    assert read(run.run_id).info.status == "FINISHED"


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
    assert sender.close() == 0
    assert taken == list(range(1501))


def test_runs_of_a_group_share_a_parent() -> None:
    parents = set()
    for ratio in (0.1, 0.2):
        with tracking.tracked(Params(), name=f"mask {ratio}", group="mask-sweep:77") as run:
            pass
        parents.add(read(run.run_id).data.tags["mlflow.parentRunId"])
    assert len(parents) == 1
    assert parents == {tracking.parent_of(run.run_id)}
    assert read(parents.pop()).data.tags["metro.group"] == "mask-sweep:77"


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
        assert run.pointer()["run_id"] is None
    assert tracking.parent_of("x") is None
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(MetroError, match="no MLflow server answers") as caught, tracking.tracked(Params()):
        pytest.fail("the block must not run")
    assert "METRO_TRACKING=off" in str(caught.value)


def test_a_damaged_store_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_text("no database " * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(MetroError, match=r"cannot use the store .*METRO_TRACKING=off"):
        setup()


def test_a_store_that_goes_away_does_not_end_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def gone(*args: object, **kwargs: object) -> None:
        raise MlflowException("connection refused")

    with tracking.tracked(Params()) as run:
        monkeypatch.setattr(MlflowClient, "log_batch", gone)
        for step in range(2 * FLUSH_VALUES):
            run.log({"loss": 1.0}, step)
    told = capsys.readouterr().err
    assert "the stage goes on: connection refused" in told
    assert "1000 metric values of train could not be sent" in told


def test_a_logged_model_takes_any_batch_and_brings_its_files(root: Path) -> None:
    import torch

    class Tiny(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return 2 * image.mean((2, 3))

    images = np.random.default_rng(0).random((5, 3, 8, 8), np.float32)
    (root / "bundle.json").write_text("{}")
    with tracking.tracked(Params()) as run:
        address = run.model(Tiny(), images[:2], ("synth/mpjpe_mm", 90.0), [root / "bundle.json"])
    import mlflow.artifacts
    import mlflow.pyfunc

    predicted = mlflow.pyfunc.load_model(f"models:/{REGISTERED_MODEL}@champion").predict(images)
    np.testing.assert_allclose(predicted, 2 * images.mean((2, 3)), rtol=1e-5)
    assert address
    assert list(Path(mlflow.artifacts.download_artifacts(address)).rglob("bundle.json"))


def test_champion_moves_only_to_a_better_model() -> None:
    from mlflow import MlflowClient

    with tracking.tracked(Params()) as run:
        client, name = MlflowClient(), REGISTERED_MODEL
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        champions = []
        for error in (70.0, 75.0, 60.0):
            version = client.create_model_version(name, "models", run.run_id).version
            run.promote(str(version), "other/mpjpe_mm", error)
            champions.append(client.get_model_version_by_alias(name, "champion").tags["other/mpjpe_mm"])
    assert champions == ["70.0", "70.0", "60.0"]


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
