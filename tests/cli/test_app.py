"""The console command: everything it lists explains itself, its help is quick, mistakes are one line."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from cyclopts import App

import metro
from metro import cli
from metro.cli.app import app, main
from metro.errors import MetroError

COMMANDS = (
    *("doctor", "fit", "evaluate", "evaluate-photos", "compare", "protocols", "submission", "attention", "occlusion"),
    *("export", "predict", "serve", "demo"),
    *("mesh info", "preset list", "preset show", "preset apply", "body info", "body convert", "body render"),
    *("data sources", "data doctor", "data fixture", "data stats", "data show", "data unpack", "data verify"),
    *("study plan", "checkpoint info", "checkpoint import", "checkpoint export", "checkpoint blend"),
    "checkpoint release",
)


def leaves(node: App, path: str = "") -> Iterator[tuple[str, App]]:
    for word, child in node.resolved_commands().items():
        if not word.startswith("-"):
            yield from [(f"{path}{word}", child)] if child.default_command else leaves(child, f"{path}{word} ")


@pytest.fixture
def echo() -> Iterator[None]:
    """A command of its own that returns what it was given."""

    def command(
        images: list[Path], /, *, two_words: int = 1, loud: bool = False, sets: list[str] | None = None
    ) -> dict[str, object]:
        """Return what it was given."""
        return {"images": images, "two_words": two_words, "loud": loud, "sets": sets}

    app.command(command, name="echo")
    yield
    del app["echo"]


def test_the_commands_are_these() -> None:
    assert sorted(words for words, _ in leaves(app)) == sorted(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_explains_itself_and_all_its_options(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"Usage: metro {words}" in shown
    function = dict(leaves(app))[words].default_command
    assert function
    assert " ".join((inspect.getdoc(function) or "").partition("\n")[0].split()[:3]).replace("`", "") in shown
    described = (inspect.getdoc(function) or "").partition("Parameters\n-----")[2].splitlines()
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(parameter.default):  # options of one subject, each with its description below it
            source = inspect.getsource(type(parameter.default))
            for field in fields(parameter.default):
                assert f" --{field.name.replace('_', '-')} " in shown
                assert re.search(rf'\n    {field.name}: .*\n    """\w', source)
            continue
        written = name.upper() if parameter.kind is parameter.POSITIONAL_ONLY else f"--{name.replace('_', '-')}"
        assert f" {written} " in shown
        assert name in described


def test_every_public_function_of_a_command_module_is_a_command() -> None:
    offered = set()
    for module in pkgutil.iter_modules(cli.__path__, "metro.cli."):
        if module.name not in ("metro.cli.app", "metro.cli.options"):
            functions = inspect.getmembers(importlib.import_module(module.name), inspect.isfunction)
            offered |= {f for n, f in functions if f.__module__ == module.name and not n.startswith("_")}
    assert offered == {leaf.default_command for _, leaf in leaves(app)}


@pytest.mark.parametrize("words", ["", "predict", "data"])
def test_help_imports_nothing_heavy(words: str) -> None:
    heavy = ("torch", "numpy", "pydantic", "yaml", "matplotlib", "cv2", "numba", "mlflow", "dvc", "prefect")
    code = (
        f"import sys; from metro.cli.app import main; main({[*words.split(), '--help']});"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prdict", 'Did you mean "predict"'),
        ("data verfy", 'Did you mean "verify"'),
        ("zzz", "Available commands: "),
        ("preset show opne", "did you mean 'open'"),
        ("preset show open --resolvd", "Did you mean --resolved"),
        ("body info --gender femal", 'Did you mean "female"'),
        ("mesh info", "PATH requires an argument"),
        ("preset show open debug", "debug"),
        ("predict a.jpg --batch-size 0", "--batch-size. Must be from 1"),
        ("predict a.jpg --batch-size -1", "--batch-size. Must be from 1"),
        ("predict a.jpg --batch-size many", "--batch-size"),
        ("predict a.jpg --out FILE", "Is a file; name a folder"),
        ("predict a.jpg --out FILE/sub", "FILE"),
        ("predict a.jpg --box --vertices", "--box. Requires an argument"),
        ("export --out FILE", "Is a file; name a folder"),
        ("evaluate set --out FILE", "Is a file; name a folder"),
        ("evaluate set --batch-size 0", "--batch-size. Must be from 1"),
        ("evaluate set --limit 0", "--limit. Must be from 1"),
        ("evaluate set --bootstrap 0", "--bootstrap. Must be from 1"),
        ("evaluate set --cases -1", "--cases. Must be from 1"),
        ("evaluate set --train", "--train requires at least 1 element"),
        ("compare one", "RUN_B requires an argument"),
        ("compare one two --out FILE", "Is a file; name a folder"),
        ("compare one two --bootstrap 10", "--bootstrap. Must be from 100"),
        ("attention set --out FILE", "Is a file; name a folder"),
        ("attention set --samples 0", "--samples. Must be from 1"),
        ("attention set --examples 0", "--examples. Must be from 1"),
        ("fit set --out FILE", "Is a file; name a folder"),
        ("fit set --workers 0", "--workers. Must be from 1"),
        ("data show set --count -3", "--count. Must be from 1"),
        ("body render sheet.png --size 0", "--size. Must be from 16 to 4096"),
        ("body render sheet.png --size 99999", "--size. Must be from 16 to 4096"),
    ],
)
def test_a_mistake_is_one_line_and_status_2_before_anything_is_done(
    words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "FILE").write_text("mine")
    assert main([word.replace("FILE", str(tmp_path / "FILE")) for word in words.split()]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("metro: ")
    assert said.lower() in told.err.lower()
    assert told.err.count("\n") == 1
    assert not told.out
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_a_group_without_a_command_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preset"]) == 2
    shown = capsys.readouterr().out
    assert "Usage: metro preset COMMAND" in shown
    assert " apply " in shown
    assert main([]) == main(["preset", "--help"]) == 0


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["a b"], {"images": ["a b"]}),
        (["a", "b", "--two-words", "3", "--loud"], {"images": ["a", "b"], "two_words": 3, "loud": True}),
        (["a", "--no-loud", "--two-words", "-3"], {"two_words": -3}),
        (["--two-words=-3", "--loud", "a"], {"two_words": -3, "loud": True}),
        (["--sets", "x", "y", "--loud", "a"], {"sets": ["x", "y"], "loud": True}),
        (["--", "-a.jpg"], {"images": ["-a.jpg"]}),
    ],
)
def test_arguments_are_given_as_people_type_them(
    words: list[str], given: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["echo", *words]) == 0
    assert json.loads(capsys.readouterr().out) == {"images": ["a"], "two_words": 1, "loud": False, "sets": None} | given


def test_an_error_of_a_command_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise MetroError("here is what,\n where and how")

    monkeypatch.setattr("metro.presets.summaries", broken)
    assert main(["preset", "list"]) == 2
    assert capsys.readouterr().err == "metro: here is what, where and how\n"


def test_ctrl_c_ends_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("metro.presets.summaries", stopped)
    assert main(["preset", "list"]) == 130
    assert capsys.readouterr().err == "metro: interrupted\n"


def test_a_reader_who_leaves_is_no_error() -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", "import sys; from metro.cli.app import main; input(); sys.exit(main(['protocols']))"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout
    command.stdout.close()
    command.stdout = None
    assert command.communicate(b"\n", timeout=60)[1] == b""
    assert command.returncode == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--version", "-V"):
        assert main([flag]) == 0
        assert capsys.readouterr().out == f"metro {metro.__version__}\n"


def test_a_shell_completes_commands_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--install-completion", "--shell", "bash"]) == 0
    script = tmp_path / ".local/share/bash-completion/completions/metro"
    ask = 'COMP_WORDS=({}); COMP_CWORD={}; {}; echo "${{COMPREPLY[@]}}"'
    function = "$(complete -p metro | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    for words, answer in (("metro pre", {"predict", "preset"}), ("metro predict --ba", {"--batch-size"})):
        line = ask.format(words, len(words.split()) - 1, function)
        done = subprocess.run(["bash", "-c", f"source {script}; {line}"], capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) == answer


def test_a_file_is_not_replaced_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.png", "mine.npz", "mine.bin", "mine.txt"):
        Path(name).write_text("years of work")
    model = str(Path(metro.__file__).parent / "body" / "data" / "open.npz")
    for words in (
        ["data", "show", "shards", "--out", "mine.png"],
        ["body", "render", "mine.png"],
        ["body", "convert", model, "mine.npz"],
        ["checkpoint", "export", "open", "mine.bin"],
        ["preset", "apply", "debug", "--params", "mine.txt"],
    ):
        assert main(words) == 2
        assert re.search("exists already; give --overwrite|would be replaced", capsys.readouterr().err), words
    assert {path.read_text() for path in Path().iterdir()} == {"years of work"}
