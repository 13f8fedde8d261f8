"""`metro doctor`: what it tells, on a whole and on a broken machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from metro.cli.app import main

ROOT = Path(__file__).resolve().parents[2]


def test_it_says_what_presets_need(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    main(["doctor"])
    shown = capsys.readouterr().out
    assert "preset paper-body" in shown
    assert "the licensed smpl model" in shown
    assert "adapters that do not exist yet: freihand;" in shown
    assert "preset open-hand" in shown


def test_a_package_that_cannot_be_imported_hides_nothing_before_it() -> None:
    code = "import sys; sys.modules['torch'] = None; from metro.cli.app import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    topics = [line.split()[1] for line in done.stdout.splitlines()[1:]]
    assert topics[:3] == ["python", "torch", "torchvision"]
    assert {"cores", "import", "git", "params"} <= set(topics)
    assert any(line.startswith("PROBLEM import") and "torch" in line for line in done.stdout.splitlines())
    assert done.returncode == 2
    assert "to mend, see above" in done.stderr
