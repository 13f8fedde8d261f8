"""docs/datasets.md keeps its word: options with their defaults, terms, commands and entries of parameters."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Literal, cast, get_args, get_origin

import pytest
import yaml

from metro.cli.app import app
from metro.config import load_params
from metro.options import OPTIONS
from metro.sources import adapter
from metro.words import Source

TEXT = (Path(__file__).resolve().parents[1] / "docs/datasets.md").read_text()
PAGES = {found[1]: page for page in TEXT.split("\n## ") if (found := re.search(r"^Source `(\w+)`", page, re.MULTILINE))}
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
ROW = re.compile(r"^\| `(\w+)` \| `(.+?)` \|", re.MULTILINE)


def test_every_raw_source_has_a_page() -> None:
    assert set(PAGES) == set(get_args(Source)) - {"synthetic"}


@pytest.mark.parametrize("source", PAGES)
def test_options_are_all_there_with_their_defaults(source: str) -> None:
    kind = OPTIONS[cast(Source, source)]
    defaults = kind().model_dump(mode="json")
    told = {name: yaml.safe_load(default) for name, default in ROW.findall(PAGES[source])}
    assert told == {name: "none" if value is None else value for name, value in defaults.items()}
    fields = kind.model_fields.values()
    words = [word for field in fields if get_origin(field.annotation) is Literal for word in get_args(field.annotation)]
    assert [word for word in words if f"`{word}`" not in PAGES[source]] == []


@pytest.mark.parametrize("source", sorted(set(PAGES) - {"own"}))
def test_terms_and_site_are_those_of_the_adapter(source: str) -> None:
    terms, site = adapter(source).LICENCE, adapter(source).SITE
    page = " ".join(PAGES[source].split())
    assert f"**Licence.** {terms[0].upper()}{terms[1:]}. <{site}>" in page


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("metro")])
def test_commands_are_understood(line: str) -> None:
    app.parse_args(shlex.split(line, comments=True)[1:])


def test_entries_of_parameters_are_valid() -> None:
    entries = [yaml.safe_load(block) for kind, block in BLOCKS if kind == "yaml"]
    assert entries
    for entry in entries:
        load_params(entry, "docs/datasets.md")
