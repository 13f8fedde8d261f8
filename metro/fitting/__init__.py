"""SMPLify: pseudo-meshes from 2D or 3D joints, for datasets that have no meshes; and the parameters of given meshes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metro.fitting.mesh import MeshFits, from_mesh
    from metro.fitting.smplify import Fits, fit

__all__ = ["Fits", "MeshFits", "fit", "from_mesh"]


def __getattr__(name: str) -> Any:
    """Load the solver, and with it PyTorch, when it is asked for."""
    if name in ("Fits", "fit"):
        from metro.fitting import smplify

        return getattr(smplify, name)
    if name in ("MeshFits", "from_mesh"):
        from metro.fitting import mesh

        return getattr(mesh, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
