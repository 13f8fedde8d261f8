"""Odd words on the command line, over all commands: a line and status 2, or what was asked for; never a traceback."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from metro.cli.app import app, main
from tests.cli.test_app import leaves

# Words with which each command asks for what is missing, so that it ends at once.
BASE = {
    "doctor": [],
    "preset show": ["missing"],
    "preset apply": ["missing"],
    "body info": ["--kind", "mano"],
    "body convert": ["missing.pkl", "out.npz"],
    "body render": ["out.png", "--kind", "mano"],
    "mesh info": ["missing.npz"],
    "study plan": [],
    "data stats": ["missing"],
    "data show": ["missing"],
    "data doctor": ["coco", "--raw", "missing"],
    "data fixture": ["missing", "out"],
    "data unpack": ["coco", "--raw", "missing"],
    "data verify": ["missing"],
    "fit": ["missing"],
    "checkpoint info": ["missing"],
    "checkpoint import": ["missing.bin", "out", "body.npz"],
    "checkpoint export": ["missing", "out.bin"],
    "checkpoint blend": ["missing", "other", "out"],
    "checkpoint release": ["missing", "out"],
    "evaluate": ["missing"],
    "evaluate-photos": ["missing"],
    "compare": ["missing", "missing"],
    "submission": ["missing", "--model", "missing"],
    "attention": ["missing"],
    "occlusion": ["missing", "other"],
    "serve": ["--model", "missing"],
    "demo": ["--model", "missing"],
}
NO_WORDS = {"preset list", "data sources", "protocols"}
OWN_TESTS = {"predict", "export"}
"""Commands whose words are tried in `tests.export`."""
NUMBERS = ["0", "-1", "-0", "nan", "inf", "", "x", "-x", "1x", "9" * 400, "9" * 5000, "1000000000000"]
TEXTS = [
    *("", " ", "-x", "-1", "a" * 300, "a/" * 3000, "\udcff\udcfe", "\ud800", "é\n\x1b[31m", "nul\0l", "%s{0}${x}"),
    *("FILE", "FILE/x", "FOLDER", "LOOP", "SECRET", "..", "~", "/dev/null", "/proc/nowhere/x", "http://x/y"),
]


def kinds(function: Callable[..., Any]) -> Iterator[tuple[str, bool, set[type]]]:
    """(name, stands alone, plain types) of each parameter."""
    hints = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        plain = {kind for kind in (hints[name], *get_args(hints[name])) if isinstance(kind, type)}
        yield name, parameter.kind is parameter.POSITIONAL_ONLY, plain


COMMANDS = {
    words: leaf.default_command for words, leaf in leaves(app) if leaf.default_command and words not in OWN_TESTS
}
OPTIONS = [
    (words, f"--{name.replace('_', '-')}", plain)
    for words, function in COMMANDS.items()
    for name, alone, plain in kinds(function)
    if not alone
]
ALONE = [
    (words, place)
    for words, function in COMMANDS.items()
    for place, (_, alone, _) in enumerate(kinds(function))
    if alone
]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with odd things in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("mine")
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "LOOP").symlink_to("LOOP")
    (tmp_path / "SECRET").write_text("")
    (tmp_path / "SECRET").chmod(0)
    return tmp_path


def run(words: list[str], desk: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    before = sorted(desk.rglob("*"))
    status = main(words)
    told = capfd.readouterr().err
    assert status in (0, 2), words
    if status:
        assert told.startswith("metro: ")
        assert told.count("\n") == 1, told
        assert len(told) < 2100
        assert "\x1b" not in told
        assert sorted(desk.rglob("*")) == before
    assert (desk / "FILE").read_text() == "mine"
    return status, told


def test_every_command_is_tried() -> None:
    assert {*BASE, *NO_WORDS} == set(COMMANDS)


@pytest.mark.parametrize(("words", "option"), [(w, o) for w, o, plain in OPTIONS if int in plain])
def test_numbers_out_of_range_name_the_option(
    words: str, option: str, desk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for value in NUMBERS:
        status, told = run([*words.split(), *BASE[words], option, value], desk, capfd)
        assert status == 2
        assert option in told, value


@pytest.mark.parametrize(("words", "option"), [(w, o) for w, o, plain in OPTIONS if plain & {str, Path, type(Path())}])
def test_texts_of_options(words: str, option: str, desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for value in TEXTS:
        for given in ([option, value], [f"{option}={value}"]):
            run([*words.split(), *BASE[words], *given], desk, capfd)


@pytest.mark.parametrize(("words", "place"), ALONE)
def test_texts_that_stand_alone(words: str, place: int, desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for value in TEXTS:
        asked = [*BASE[words]]
        asked[place] = value
        run([*words.split(), *asked], desk, capfd)


@pytest.mark.parametrize(
    ("words", "option"), [(w, o) for w, o, plain in OPTIONS if o == "--out" or (w, o) == ("preset apply", "--params")]
)
def test_the_place_of_the_result_is_tried_before_anything_else(
    words: str, option: str, desk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for value in ("FILE/x", "/proc/nowhere/x", "a" * 300, "LOOP/x", "FOLDER" if words in TO_FILES else "FILE"):
        status, told = run([*words.split(), *BASE[words], option, value], desk, capfd)
        assert status == 2
        assert option in told


@pytest.mark.parametrize("words", ["body convert", "body render", "checkpoint import", "checkpoint export"])
def test_a_result_named_alone_is_tried_as_well(words: str, desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for value in ("FILE/x.npz", "/proc/nowhere/x.png", "a" * 300):
        asked = [value if word.startswith("out") else word for word in BASE[words]]
        status, told = run([*words.split(), *asked], desk, capfd)
        assert status == 2
        assert "OUT" in told


TO_FILES = {"data show", "preset apply", "submission"}

SHELL = [
    ("{metro} --help | true", 0, ""),
    ("{metro} evaluate --help | head -1 >/dev/null", 0, ""),
    ("{metro} protocols | true", 0, ""),
    ("{metro} protocols >&-", 0, ""),
    ("{metro} --help >&-", 0, ""),
    ("{metro} protocols >/dev/full", 2, "metro: output: No space left on device\n"),
    ("{metro} --help >/dev/full", 2, "metro: output: No space left on device\n"),
    ("{metro} preset show missing 2>&-", 2, ""),
    ("{metro} preset show missing 2>/dev/full", 2, ""),
    ("{metro} preset show missing >&- 2>&- <&-", 2, ""),
    ("{metro} preset show $'\\xff\\xfe'", 2, "metro: no preset '\\udcff\\udcfe'; "),
    ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {metro} protocols >/dev/null", 0, ""),
    ("{metro} preset list | head -c 1 >/dev/null", 0, ""),
]


@pytest.mark.parametrize(("line", "status", "said"), SHELL, ids=[line for line, *_ in SHELL])
def test_streams_that_are_closed_full_or_of_another_encoding(line: str, status: int, said: str, tmp_path: Path) -> None:
    metro = f"{sys.executable} -m metro.cli.app"
    line = f"set -o pipefail; {line.format(metro=metro)}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr.startswith(said)
    assert bool(done.stderr) == bool(said)


def test_a_signal_from_the_keyboard_ends_with_130(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "params.yaml")
    command = [sys.executable, "-m", "metro.cli.app", "doctor"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        while "python on PATH" not in running.stdout.readline():
            pass  # it now waits for somebody to write parameters
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert told == "metro: interrupted\n"
