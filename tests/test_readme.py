"""The README keeps its word: what can run here is run, everything else it names is there.

A `metro` command runs if the files it names exist in the sandbox below; the others are parsed by the command line.
Words in capitals stand for something: NAME for the default preset.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import pytest
from cyclopts import MissingArgumentError
from safetensors.numpy import load_file

from metro.cli.app import app, main
from metro.fixtures import write
from pipeline.compare import committed
from tests.data.conftest import made

__all__ = ["made"]
ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "metro").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCE.findall(TEXT)
RUN = {"metro", "make", "python", "prefect", "dvc", "mlflow"}


def commands() -> Iterator[str]:
    """Command lines of the shell blocks, and those quoted in the text; alternatives `a|b` one by one."""
    lines = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
    quoted = re.findall(r"`([^`]+)`", FENCE.sub("", TEXT))
    lines += [span for span in quoted if span.split()[0] in RUN and len(span.split()) > 1]
    for line in dict.fromkeys(" ".join(shlex.split(line, comments=True)) for line in lines):
        choice = re.search(r"\S+\|\S+", line)
        yield from [line.replace(choice[0], one) for one in choice[0].split("|")] if choice else [line]


def of(*tools: str) -> list[str]:
    return [line for line in commands() if line.split()[0] in tools]


@pytest.fixture(scope="module")
def sandbox(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README's examples are about."""
    folder = tmp_path_factory.mktemp("readme")
    pictures = load_file(Path(__file__).parent / "model" / "blazepose.safetensors")
    for name, file in {"pose_full.picture": "photo.jpg", "hand_full.picture": "hand.jpg"}.items():
        cv2.imwrite(str(folder / file), cv2.imdecode(pictures[name], cv2.IMREAD_COLOR))
    (folder / "data/sets/mine").mkdir(parents=True)
    (folder / "data/sets/mine/shards").symlink_to(made)
    write("coco", folder / "data/raw/coco")
    return folder


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {kind for kind, _ in BLOCKS} <= {"bash", "python", "yaml", "mermaid", ""}
    assert {line.split()[0] for line in commands()} <= RUN | {"source"}


@pytest.mark.parametrize("line", of("metro"))
def test_metro(line: str, sandbox: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(sandbox)
    words = line.replace("NAME", "open").split()[1:]
    try:
        command, bound, _ = app.parse_args(words)
    except MissingArgumentError:
        return  # a command quoted without its arguments
    if words[0] == "compare":
        return  # of runs, which are no files and not in the sandbox
    kinds = inspect.signature(command).parameters
    given = [value for name, value in bound.arguments.items() if kinds[name].kind is inspect.Parameter.POSITIONAL_ONLY]
    flat = [one for value in given for one in (value if isinstance(value, list) else [value])]
    if flat and all(one.exists() for one in flat if isinstance(one, Path)):
        assert main(words) == 0, capsys.readouterr().err
        assert capsys.readouterr().out
        if "--out" in words:
            assert any((sandbox / words[words.index("--out") + 1]).iterdir())


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_python(block: str, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sandbox)
    names: dict[str, object] = {}
    exec(block, names)
    for line in block.splitlines():
        expressions, _, comment = line.partition("  # ")
        if shapes := re.findall(r"\([\d, ]+\)", comment):
            assert [str(array.shape) for array in eval(expressions, names)] == shapes
    written = re.findall(r'save_\w+\("([^"]+)"\)', block)
    assert written
    assert all((sandbox / name).stat().st_size for name in written)


@pytest.mark.parametrize("line", of("make"))
def test_make(line: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in line.split()[1:]:
        variable, equals, _ = word.partition("=")
        assert re.search(rf"^{variable} *\?=" if equals else rf"^{word}:", makefile, re.MULTILINE), word


@pytest.mark.parametrize("line", of("python"))
def test_scripts(line: str) -> None:
    _, script, *options = line.split()
    if script == "-m":
        script, *options = f"{options[0].replace('.', '/')}.py", *options[1:]
    text = (ROOT / script).read_text()
    assert all(f'"{option}"' in text for option in options if option.startswith("--"))


@cache
def help_of(*words: str) -> str:
    tool = Path(sys.executable).parent / words[0]
    environment = {**os.environ, "COLUMNS": "200", "DO_NOT_TRACK": "1"}
    done = subprocess.run([tool, *words[1:], "--help"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("line", of("prefect", "dvc", "mlflow"))
def test_other_tools_know_the_command_and_its_options(line: str) -> None:
    words = line.split()
    shown = help_of(*words)
    for option in (word.split("=")[0] for word in words if word.startswith("-")):
        assert option in shown or option in help_of(words[0])


def rows(section: str) -> list[list[str]]:
    """Cells of the tables in a section, without heads."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert text
    cells = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in text[1].splitlines() if "|" in line]
    return [row for row in cells if not set("".join(row)) <= set("- :")][1:]


def test_results_are_those_of_the_committed_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    metrics = committed(Path("reports/metrics/evaluate/synth-test.json"))
    if not metrics:
        pytest.skip("no git history here")
    keys = ("mpjpe", "pa_mpjpe", "mpve")
    errors = [f"{metrics[f'{key}_mm']:.0f}" for key in keys]
    camera, canonical = (
        [f"{metrics[f'{key}_vs_{name}']:.2f}" for key in keys] for name in ("camera_mean", "canonical_mean")
    )
    assert [row[1:] for row in rows("How good it is")] == [errors, camera, canonical]
    assert f"On {metrics['samples']} synthetic people" in TEXT


def test_measured_ratios_stand_in_the_tables_that_they_link_to() -> None:
    recorded = [(row, re.search(r"\((benchmarks/\S+\.md)\)", row[-1])) for row in rows("Measured")]
    assert sum(link is not None for _, link in recorded) >= 6
    for row, link in recorded:
        if link:
            figures = re.findall(r"\d+\.\d+", row[2])
            assert figures, row
            assert set(figures) <= set(re.findall(r"\d+\.\d+", (ROOT / link[1]).read_text())), row
        else:
            assert row[-1] == "once"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []
