"""The console command: everything it lists exists, its help is quick, mistakes are one line."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import metro
from metro import cli
from metro.errors import MetroError

ROOT = Path(__file__).resolve().parents[1]


def targets() -> Iterator[tuple[str, str]]:
    for word, node in cli.COMMANDS.items():
        if isinstance(node, str):
            yield word, node
        else:
            yield from ((f"{word} {sub}", leaf) for sub, leaf in node.items())


@pytest.mark.parametrize(("words", "target"), list(targets()))
def test_every_command_has_help(words: str, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: metro {words}" in shown
    assert cli.summary(target).split()[0] in shown


def test_every_public_function_of_a_command_module_is_a_command() -> None:
    offered = set()
    for module in pkgutil.iter_modules(cli.__path__, "metro.cli."):
        functions = inspect.getmembers(importlib.import_module(module.name), inspect.isfunction)
        offered |= {f"{module.name}:{n}" for n, f in functions if f.__module__ == module.name and not n.startswith("_")}
    assert offered == {target for _, target in targets() if target.startswith("metro.cli.")}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from metro import cli; cli.main(['--help']);"
        "print([m for m in ('torch', 'numpy', 'jsonargparse', 'matplotlib', 'mlflow', 'dvc', 'prefect', 'pydantic')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prdict"], "did you mean 'predict'"),
        (["data", "verfy"], "did you mean 'verify'"),
        (["zzz"], "known: "),
        (["preset", "show", "opne"], "did you mean 'open'"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert not told.out


def test_a_wrong_option_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preset", "show", "open", "--resolvd"]) == 2
    assert "resolvd" in capsys.readouterr().err


def test_a_group_without_a_command_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preset"]) == 2
    shown = capsys.readouterr().out
    assert "usage: metro preset COMMAND" in shown
    assert "  apply  " in shown


def test_switches_need_no_value_and_dashes_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(path: Path, two_words: int = 1, loud: bool = False) -> dict[str, object]:
        """Return what it was given."""
        return {"path": str(path), "two_words": two_words, "loud": loud}

    monkeypatch.setattr("metro.presets.show", command)
    assert cli.main(["preset", "show", "a b", "--two-words", "3", "--loud"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": "a b", "two_words": 3, "loud": True}
    assert cli.main(["preset", "show", "a", "--no-loud"]) == 0
    assert json.loads(capsys.readouterr().out)["loud"] is False


def test_an_error_of_a_command_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        """Fail."""
        raise MetroError("here is what,\n where and how")

    monkeypatch.setattr("metro.presets.list_presets", command)
    assert cli.main(["preset", "list"]) == 2
    assert capsys.readouterr().err == "metro: here is what, where and how\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"metro {metro.__version__}\n"


def test_doctor_says_what_presets_need(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    cli.main(["doctor"])
    shown = capsys.readouterr().out
    assert "preset paper-body" in shown
    assert "the licensed smpl model" in shown
    assert "adapters that do not exist yet: freihand;" in shown
    assert "preset open-hand" in shown
