"""Raw sources by name: adapters from what the sites of datasets hand out to records (`metro.sources.source`)."""

from __future__ import annotations

import importlib
from typing import cast, get_args

from metro.errors import MetroError
from metro.files import nearest
from metro.sources.source import Source
from metro.words import SETS
from metro.words import Source as Name

NAMES: tuple[str, ...] = get_args(Name)
"""Sources that there are."""


def adapter(name: str) -> Source:
    """The adapter of a source.

    Raises
    ------
    MetroError
        There is no such source.
    """
    if name not in NAMES:
        raise MetroError(f"no source {name!r}; {nearest(name, NAMES, SETS)}")
    return cast(Source, importlib.import_module(f"metro.sources.{name}"))
