"""Nested data as a flat mapping: parameters for MLflow, numbers for metrics files and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def flatten(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """The leaves of nested data by their path; sequences of mappings are numbered, other sequences are leaves."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= {f"{key}{separator}{path}": leaf for path, leaf in flatten(value, separator).items()}
        else:
            flat[str(key)] = value
    return flat


def numbers(tree: Mapping[str, Any], separator: str = "/") -> dict[str, float]:
    """The numbers of nested data by their path."""
    leaves = flatten(tree, separator).items()
    return {path: leaf for path, leaf in leaves if isinstance(leaf, int | float) and not isinstance(leaf, bool)}
