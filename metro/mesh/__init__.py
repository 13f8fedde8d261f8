"""Coarse levels of a mesh and the operators between them; topology checks; closest points."""

from importlib import import_module
from typing import Any

__all__ = ["Level", "build_sampling", "compose_indices", "compose_up", "load_sampling", "save_sampling"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for: who needs topology alone does not depend on sampling."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.sampling"), name)
