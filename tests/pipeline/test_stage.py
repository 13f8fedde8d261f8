"""The frame of the stages: outputs appear whole or not at all, and what goes wrong is one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from metro.config import Params
from metro.errors import MetroError
from pipeline import stage
from tests.test_processes import lives


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / "params.yaml").write_text("preset: open\n")
    return tmp_path


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("body: {path: a.npz}", "body.path names a.npz: set files.body to it as well"),
        ("sampling: {checkpoint: models/mine}", "sampling.checkpoint names models/mine: set files.sampling to it"),
        ("train: {init: mine}\nfiles: {init: models/other}", "train.init names mine: set files.init to it"),
        ("body: {path: a.npz}\nfiles: {body: a.npz}\nfit: {prior: gmm_08.pkl}", "fit.prior names gmm_08.pkl: set"),
        ("train: {init: open}\nsampling: {checkpoint: open}\nmodel: {backbone_weights: imagenet}", ""),
        ("train: {init: models/mine}\nfiles: {init: models/mine}", ""),
    ],
)
def test_a_file_is_named_where_dvc_watches_it(
    params: str, said: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "params.yaml").write_text(params)
    monkeypatch.setattr(sys, "argv", ["some.py"])
    with pytest.raises(SystemExit) if said else nullcontext():
        stage.run(lambda params: None)
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == bool(said)


def test_a_folder_is_published_whole_and_replaces_the_old_one() -> None:
    target = Path("out/folder")
    for content in ("old", "new"):
        with stage.publish(target) as folder:
            (folder / content).write_text(content)
            assert not (target / content).exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_a_failed_publication_leaves_the_old_one() -> None:
    target = Path("folder")
    with stage.publish(target) as folder:
        (folder / "old").touch()

    def fail() -> None:
        with stage.publish(target) as folder:
            (folder / "new").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in target.iterdir()] == ["old"]
    assert not list(Path().glob(".*partial"))


DVC_YAML = """\
stages:
  train:
    cmd: python -m pipeline.train
    params: [train.lr, sampling]
    deps: [code, data/shards]
    outs: [models/best]
    metrics: [{reports/train.json: {cache: false}}]
  fit:
    foreach: [a, a-b]
    do:
      cmd: python -m pipeline.fit ${item}
      params: [fit.robust]
      deps: [code]
"""


@pytest.fixture
def dvc_project(project: Path) -> Path:
    for folder in (".dvc", "code", "data/shards"):
        (project / folder).mkdir(parents=True)
    (project / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    (project / "code/a.py").write_text("1")
    (project / "data/shards/0.h5").write_text("shard")
    (project / "params.yaml").write_text("train: {lr: 1}\nsampling: {}\nfit: {robust: 4}\n")
    (project / "dvc.yaml").write_text(DVC_YAML)
    return project


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def test_inputs_are_those_that_dvc_resolves(dvc_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/pipeline/train.py"])
    found = stage.inputs()
    assert found.params == ["train.lr", "sampling"]
    listed = json.dumps([{"md5": md5("1"), "relpath": "a.py"}])
    assert found.files["code"] == f"{md5(listed)}.dir"
    assert set(found.files) == {"code", "data/shards"}
    monkeypatch.setattr(sys, "argv", ["/x/pipeline/fit.py", "a-b"])
    assert stage.inputs() == ({"code": found.files["code"]}, ["fit.robust"])


def test_outputs_are_known_by_the_md5_that_dvc_gives_them(dvc_project: Path) -> None:
    with pytest.raises(MetroError, match=r"models/best: missing; `dvc repro train` makes"):
        stage.outputs("train")
    (dvc_project / "models/best").mkdir(parents=True)
    (dvc_project / "models/best/weights").write_text("1")
    listed = json.dumps([{"md5": md5("1"), "relpath": "weights"}])
    assert stage.outputs("train") == {"models/best": f"{md5(listed)}.dir"}


@pytest.mark.parametrize(("running", "missing"), [("nosuch", "nosuch"), ("train", "data/shards")])
def test_unknown_stages_and_missing_inputs_are_said_in_one_line(
    running: str, missing: str, dvc_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dvc_project / "data/shards").rename(dvc_project / "data/elsewhere")
    monkeypatch.setenv("DVC_STAGE", running)
    with pytest.raises(MetroError, match=missing):
        stage.inputs()


def test_work_is_taken_up_only_under_the_same_conditions(dvc_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(lr: float = 1.0, accumulate: int = 1, **sections: object) -> Path:
        return stage.work_folder(Params.model_validate({"train": {"lr": lr, "accumulate": accumulate}, **sections}))

    monkeypatch.setenv("DVC_STAGE", "train")
    first = folder()
    assert first.name.startswith("train-")
    assert folder() == first
    assert folder(accumulate=2) == first  # no parameter of this stage
    assert folder(lr=2.0) != first
    assert folder(sampling={"sizes": [7]}) != first
    for path, text in (("code/a.py", "2"), ("data/shards/0.h5", "other")):
        before = (dvc_project / path).read_text()
        (dvc_project / path).write_text(text)
        assert folder() != first, path
        (dvc_project / path).write_text(before)
        assert folder() == first, path


def test_finished_work_takes_the_leftovers_of_its_own_stage_with_it(
    dvc_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "fit@a-b")
    other = stage.work_folder(Params())
    monkeypatch.setenv("DVC_STAGE", "fit@a")
    stale = stage.work_folder(Params.model_validate({"fit": {"robust": 2}}))
    work = stage.work_folder(Params())
    (work / "result").touch()
    stage.publish_work(work, Path("out/fits"))
    assert Path("out/fits/result").exists()
    assert other.exists()
    assert not stale.exists()
    assert not work.exists()


def test_outputs_of_other_stages_are_named_when_missing_or_broken() -> None:
    with pytest.raises(MetroError, match="dvc repro train"):
        stage.read_json(Path("run.json"), "train")
    Path("run.json").write_text("{")
    with pytest.raises(MetroError, match="not valid JSON"):
        stage.read_json(Path("run.json"), "train")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (MetroError("what,\nwhere"), "here@x: what, where\n"),
        (OSError(errno.ENOSPC, "No space left on device", "big.h5"), "here@x: disk full while writing big.h5; "),
    ],
)
def test_a_problem_is_one_line_and_status_2(
    problem: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(params: Params, item: str) -> None:
        raise problem

    monkeypatch.setattr(sys, "argv", ["stage", "x"])
    monkeypatch.setenv("DVC_STAGE", "here@x")
    with pytest.raises(SystemExit) as caught:
        stage.run(main)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(said)
    assert told.count("\n") == 1


def test_a_helper_process_says_which_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setattr(sys, "argv", ["train", "too", "many"])
    with pytest.raises(SystemExit):
        stage.run(lambda params: None)
    assert capsys.readouterr().err.startswith("train (process 1): ")


def test_the_item_is_that_of_dvc_or_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    items: list[str] = []
    monkeypatch.setattr(sys, "argv", ["fit.py", "by-hand"])
    stage.run(lambda params, item: items.append(item))
    monkeypatch.setattr(sys, "argv", ["fit.py"])
    monkeypatch.setenv("DVC_STAGE", "fit@a-b")
    stage.run(lambda params, item: items.append(item))
    monkeypatch.setenv("DVC_STAGE", "train")
    stage.run(lambda params: items.append("none"))
    assert items == ["by-hand", "a-b", "none"]


def test_a_missing_item_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare.py"])
    with pytest.raises(SystemExit):
        stage.run(lambda params, item: None)
    assert "takes 1 argument, got 0" in capsys.readouterr().err


def test_a_missing_place_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit):
        stage.run(lambda params: Path("no/such/file").read_text())
    assert capsys.readouterr().err == "stage: no/such/file: No such file or directory\n"


WAITS = """
import os, sys, time
from pipeline import stage
def main(params):
    try:
        print(os.getpid(), flush=True)
        time.sleep(600)
    finally:
        print("out", flush=True)
sys.argv = ["stage"]
stage.run(main)
"""


def begin(code: str = WAITS, **options: Any) -> subprocess.Popen[str]:
    """A stage that waits; it has begun."""
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0
    return process


@pytest.mark.parametrize(
    ("told", "status", "said"),
    [
        (signal.SIGTERM, 128 + signal.SIGTERM, ""),
        (signal.SIGHUP, 128 + signal.SIGHUP, ""),
        (signal.SIGINT, 130, "stage: interrupted\n"),
    ],
)
def test_a_stage_that_is_told_to_end_unwinds(told: signal.Signals, status: int, said: str) -> None:
    process = begin()
    process.send_signal(told)
    assert process.communicate(timeout=60) == ("out\n", said)
    assert process.returncode == status


def test_nohup_is_respected() -> None:
    process = begin(f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN){WAITS}")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.kill()
    process.communicate()


def test_an_ending_that_hangs_is_cut_short() -> None:
    process = begin(WAITS.replace('print("out"', 'time.sleep(600); print("out"'))
    process.terminate()
    assert process.wait(stage.ENDING_SECONDS + 60) == -signal.SIGALRM
    process.communicate()


@pytest.mark.parametrize("by_dvc", [True, False])
def test_a_stage_ends_with_dvc(by_dvc: bool) -> None:
    """One that was started by hand goes by the rules of its terminal, which does not end it by being killed."""
    env = {**os.environ, "DVC_STAGE": "stage" if by_dvc else ""}
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    command = [sys.executable, "-c", parent, WAITS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True) as dvc:
        assert dvc.stdout is not None
        pid = int(dvc.stdout.readline())
        dvc.kill()
        if by_dvc:
            assert dvc.stdout.readline() == "out\n"
        else:
            assert lives(pid, 1)
            os.kill(pid, signal.SIGKILL)
    assert not lives(pid)


def test_one_process_at_a_time_makes_a_stage() -> None:
    first = begin()
    second = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    holder = f"process {first.pid} is at it already; wait for it, or end it with `kill {first.pid}`"
    assert second.stderr == f"stage: {holder}\n"
    first.kill()  # whatever ends it: the kernel lets go of the lock
    first.communicate()
    third = begin()
    third.kill()
    third.communicate()


def test_what_a_killed_stage_half_published_goes_with_the_next_stage() -> None:
    half = """
import os, sys, time
from pathlib import Path
from pipeline import stage
def main(params):
    with stage.publish(Path("out")) as folder:
        (folder / "half").touch()
        print(os.getpid(), flush=True)
        time.sleep(600)
sys.argv = ["other"]
stage.run(main)
"""
    killed, alive = begin(half), begin(half.replace("other", "third"))
    killed.kill()
    killed.communicate()
    assert not Path("out").exists()
    begin().kill()
    assert [path.name for path in Path(".metro/work").glob("*.partial")] == [f"out-{alive.pid}.partial"]
    alive.kill()
    alive.communicate()
