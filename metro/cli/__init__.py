"""The console command `metro`: one sub-command per typed function, imported when it is called.

`COMMANDS` is the whole map. Help texts are the functions' docstrings, read from source so that ``metro --help`` imports
none of them; arguments are generated from their signatures by jsonargparse.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from metro import __version__
from metro.errors import MetroError
from metro.files import nearest

COMMANDS: Mapping[str, str | Mapping[str, str]] = {
    "doctor": "metro.cli.doctor:doctor",
    "preset": {"list": "metro.presets:list_presets", "show": "metro.presets:show", "apply": "metro.presets:apply"},
    "body": {
        "info": "metro.cli.body:info",
        "convert": "metro.cli.body:convert",
        "render": "metro.cli.viz:render",
    },
    "mesh": {"info": "metro.cli.mesh:info"},
    "data": {
        "sources": "metro.cli.data:sources",
        "stats": "metro.cli.data:stats",
        "show": "metro.cli.data:show",
        "verify": "metro.cli.data:verify",
    },
    "fit": "metro.cli.fitting:fit",
    "checkpoint": {
        "info": "metro.cli.training:info",
        "import": "metro.cli.training:import_official",
        "export": "metro.cli.training:export_official",
        "release": "metro.cli.training:release",
    },
    "evaluate": "metro.cli.evaluation:evaluate",
    "protocols": "metro.cli.evaluation:protocols",
    "attention": "metro.cli.evaluation:attention",
    "export": "metro.cli.export:export",
    "predict": "metro.cli.export:predict",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``metro ARGV``; returns the exit status (2 for a mistake the user can mend)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except MetroError as err:
        print(f"metro: {' '.join(str(err).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("metro: interrupted", file=sys.stderr)
        return 130


def _dispatch(words: list[str]) -> int:
    if words and words[0] in ("--version", "-V"):
        print(f"metro {__version__}")
        return 0
    path: list[str] = []
    node: str | Mapping[str, str] | Mapping[str, str | Mapping[str, str]] = COMMANDS
    while not isinstance(node, str):
        if not words or words[0] in ("-h", "--help"):
            print(_listing(path, node))
            return 0 if words or not path else 2
        word = words.pop(0)
        if word not in node:
            raise MetroError(_unknown(word, path, node))
        path.append(word)
        node = node[word]
    return _call(" ".join(["metro", *path]), node, words)


def _call(prog: str, target: str, words: list[str]) -> int:
    from jsonargparse import auto_cli

    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    try:
        result = auto_cli(function, args=_options(words, function), prog=prog)
    except SystemExit as stop:  # argparse has printed its help or the mistake
        return stop.code if isinstance(stop.code, int) else 2
    if isinstance(result, str):
        print(result)
    elif isinstance(result, Mapping):
        print(json.dumps(result, indent=2, default=str, ensure_ascii=False))
    return 0


def _options(words: list[str], function: Callable[..., Any]) -> list[str]:
    """Let arguments be given as people type them.

    Options are spelled with dashes and switches without a value (``--on-top`` for ``--on_top=true``); lists take the
    words that follow (``predict A.jpg B.jpg``, ``--train SET1 SET2``).
    """
    kinds = get_type_hints(function)
    switches = {name for name, kind in kinds.items() if kind is bool}
    lists = {name for name, kind in kinds.items() if list in (get_origin(k) for k in (kind, *get_args(kind)))}
    first = next(iter(kinds), "")
    plain: list[str] = []
    gathered: dict[str, list[str]] = {}
    current = first if first in lists else None
    for word in words:
        if not word.startswith("--") and current is not None:
            gathered.setdefault(current, []).append(word)
            continue
        current = None
        if word.startswith("--") and word != "--":
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            if not equals and name in lists:
                current = name
                continue
            if not equals and name in switches:
                equals, value = "=", "true"
            elif not equals and name.removeprefix("no_") in switches:
                name, equals, value = name.removeprefix("no_"), "=", "false"
            word = f"--{name}{equals}{value}"
        plain.append(word)
    positional = [json.dumps(gathered.pop(first))] if first in gathered else []
    return [*positional, *(f"--{name}={json.dumps(values)}" for name, values in gathered.items()), *plain]


def _unknown(word: str, path: list[str], node: Mapping[str, Any]) -> str:
    return f"no command {' '.join([*path, word])!r}; {nearest(word, node)}"


def _listing(path: list[str], node: Mapping[str, str | Mapping[str, str]] | Mapping[str, str]) -> str:
    prog = " ".join(["metro", *path])
    lines = [f"usage: {prog} COMMAND ...", ""]
    if not path:
        lines = ["METRO: image to 3D joints and full mesh.", "", *lines]
    rows: list[tuple[str, str]] = []
    for word, target in node.items():
        if isinstance(target, str):
            rows.append((word, summary(target)))
        else:
            rows += [(f"{word} {sub}", summary(leaf)) for sub, leaf in target.items()]
    width = max(len(left) for left, _ in rows)
    lines += [f"  {left:<{width}}  {right}" for left, right in rows]
    return "\n".join([*lines, "", f"{prog} COMMAND --help explains one."])


def summary(target: str) -> str:
    """First docstring line of ``module:function``, read from the source without importing it."""
    module, _, name = target.partition(":")
    file = Path(__file__).parent.parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    tree = ast.parse(file.read_text()) if file.is_file() else ast.Module([], [])
    for item in tree.body:
        if isinstance(item, ast.FunctionDef) and item.name == name:
            return (ast.get_docstring(item) or "").partition("\n")[0].rstrip(".")
    raise MetroError(f"{target}: the command table points to a function that does not exist; reinstall metro")


if __name__ == "__main__":
    sys.exit(main())
