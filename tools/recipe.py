"""Rewrites the column of docs/recipe.md that says what preset `open` sets: ``python -m tools.recipe``.

A row's first cell names parameters, the first by its whole path and further ones of the same section by their own name;
its last cell is the same text with each name replaced by the value.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from metro.config import Params, load_params
from metro.presets import resolve

RECIPE = Path(__file__).resolve().parents[1] / "docs" / "recipe.md"
ROW = re.compile(r"^\| (?P<names>`[\w.\[\]]+\.\w+`[^|]*) \|(?P<others>.*)\| (?P<values>[^|]*) \|$", re.MULTILINE)


def filled(text: str, params: Params) -> str:
    """The text with the last column of its tables as `params` have it."""

    def row(match: re.Match[str]) -> str:
        section, _, _ = re.findall(r"`([^`]+)`", match["names"])[0].rpartition(".")

        def value(name: re.Match[str]) -> str:
            path = name[1] if "." in name[1] else f"{section}.{name[1]}"
            return _written(_value(params, path.split(".")))

        return f"| {match['names']} |{match['others']}| {re.sub('`([^`]+)`', value, match['names'])} |"

    return ROW.sub(row, text)


def _value(node: Any, path: list[str]) -> Any:
    if not path:
        return node
    if path[0].endswith("[]"):
        return [_value(item, path[1:]) for item in getattr(node, path[0][:-2])]
    return _value(getattr(node, path[0]), path[1:])


def _written(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(_written, value))
    return f"`{value}`" if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:g}"


if __name__ == "__main__":
    RECIPE.write_text(filled(RECIPE.read_text(), load_params(resolve("open"))))
