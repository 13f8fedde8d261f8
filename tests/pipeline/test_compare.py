"""The last line of `make repro`: how far the numbers are from the committed ones."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from metro.config import Params
from metro.errors import MetroError
from pipeline import compare

FILE = Path("reports/metrics/evaluate/synth-test.json")
PARAMS = Params.model_validate(
    {"datasets": {"s": {"split": "test"}}, "benchmarks": {"synth-test": {"dataset": "s", "protocol": "open"}}}
)


def write(**metrics: float) -> None:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps({"samples": 400, **metrics}))


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    write(mpjpe_mm=160.0, pa_mpjpe_mm=100.0, mpjpe_vs_camera_mean=0.5)
    git("add", ".")
    git("commit", "-q", "-m", "numbers")


def told(capsys: pytest.CaptureFixture[str]) -> str:
    compare.main(PARAMS)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line.endswith("; open reports/report/index.html\n")
    return line


def test_small_differences_are_called_small(capsys: pytest.CaptureFixture[str]) -> None:
    write(mpjpe_mm=160.0, pa_mpjpe_mm=100.9, mpjpe_vs_camera_mean=0.9)
    assert told(capsys).startswith(
        "synth-test: mpjpe 160.0 mm (committed 160.0, +0.0 %), pa_mpjpe 100.9 mm (committed 100.0, +0.9 %): "
        "within the 1 % that another processor may change;"
    )


@pytest.mark.parametrize("value", [98.9, 101.1, float("nan")])
def test_one_large_difference_says_what_to_look_at(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    write(mpjpe_mm=160.0, pa_mpjpe_mm=value)
    line = told(capsys)
    assert "more than the 1 % that another processor may change" in line
    assert "dvc params diff" in line


def test_without_committed_numbers_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    git("rm", "-q", "--cached", "-r", ".")
    git("commit", "-q", "-m", "gone")
    assert "synth-test: mpjpe 160.0 mm, pa_mpjpe 100.0 mm: no committed metrics to compare with;" in told(capsys)


def test_without_git_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "no committed metrics to compare with" in told(capsys)


def test_without_metrics_it_names_the_stage() -> None:
    FILE.unlink()
    with pytest.raises(MetroError, match="dvc repro evaluate@synth-test"):
        compare.main(PARAMS)
