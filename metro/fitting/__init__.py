"""SMPLify: pseudo-meshes from 2D or 3D joints, for datasets that have no meshes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metro.fitting.smplify import Fits, fit

__all__ = ["Fits", "fit"]


def __getattr__(name: str) -> Any:
    """Load the solver, and with it PyTorch, when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from metro.fitting import smplify

    return getattr(smplify, name)
