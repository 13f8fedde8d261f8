"""`metro doctor`: what it tells, on a whole and on a broken machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metro.cli.app import main
from metro.cli.doctor import _missing
from metro.config import load_params
from metro.model.packaged import LANDMARK_NETWORKS

ROOT = Path(__file__).resolve().parents[2]


def test_it_says_what_presets_need(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    main(["doctor"])
    shown = capsys.readouterr().out
    assert "preset paper-body" in shown
    assert "the licensed smpl model" in shown
    assert "preset open-hand" in shown


def test_a_package_that_cannot_be_imported_hides_nothing_before_it() -> None:
    code = "import sys; sys.modules['yaml'] = None; from metro.cli.app import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    topics = [line.split()[1] for line in done.stdout.splitlines()[1:]]
    assert topics[:3] == ["python", "torch", "torchvision"]
    assert {"cores", "import", "git", "tracking", "open"} <= set(topics)
    assert any(line.startswith("PROBLEM import") and "yaml" in line for line in done.stdout.splitlines())
    assert done.returncode == 2
    assert "to mend, see above" in done.stderr


def test_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "numba", "scipy", "mlflow", "dvc", "prefect")
    code = (
        f"import sys; from metro.cli.app import main; main(['doctor']);print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def told(topic: str, capsys: pytest.CaptureFixture[str]) -> str:
    main(["doctor"])
    return next(line for line in capsys.readouterr().out.splitlines() if line[8:].startswith(topic))


def test_a_damaged_checkpoint_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert told("open checkpoint", capsys).startswith("ok ")
    copy = shutil.copytree(ROOT / "metro" / "assets", tmp_path / "assets") / "open"
    monkeypatch.setattr("metro.shipped._ASSETS", tmp_path / "assets")
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    (copy / "levels.npz").unlink()
    line = told("open checkpoint", capsys)
    assert line.startswith("PROBLEM")
    assert "levels.npz" in line
    assert "model.safetensors" in line


@pytest.mark.parametrize("port", ["0", "65536", "x", "9" * 400, "٣"])
def test_a_port_that_is_none_is_told(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLFLOW_PORT", port)
    assert told("port  ", capsys).startswith("PROBLEM")


def test_wrong_parameters_are_told_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("train: {log_every: 0, lr: .nan}\nbody: {kind: open_hand}\n")
    line = told("params", capsys)
    assert line.startswith("PROBLEM")
    assert "train.log_every" in line
    assert "train.lr" in line


def test_a_landmark_network_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(Path("params.yaml"))
    model = params.model.model_copy(update={"backbone": "blazepose", "backbone_weights": "shipped", "image_size": 256})
    without = list(_missing(params))
    assert list(_missing(params.model_copy(update={"model": model}))) == without  # shipped
    monkeypatch.setitem(LANDMARK_NETWORKS, "blazepose", "pose_none")
    (told,) = set(_missing(params.model_copy(update={"model": model}))) - set(without)
    assert "pose_none.safetensors: missing" in told
