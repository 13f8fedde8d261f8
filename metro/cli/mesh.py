"""`metro mesh info`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from metro.cli.options import Place
from metro.words import BodyKind, Gender


def info(
    path: Path,
    /,
    *,
    kind: BodyKind = "open",
    gender: Gender = "neutral",
    body: Place | None = None,
) -> dict[str, Any]:
    """Describe the coarse levels in a sampling file, or in a published mesh_downsampling.npz.

    Per level: vertices, faces, whether the mesh is closed and a manifold, how far up-sampling misses the template's
    vertices, and whether it is a published level (which official METRO weights need).

    Parameters
    ----------
    path
        `sampling.npz` of the `sampling` stage, or a published file.
    kind
        Body model that the levels belong to.
    gender
        Its variant.
    body
        Licensed model file; the open models need none.
    """
    import numpy as np

    from metro.body.load import load_body
    from metro.errors import MetroError
    from metro.mesh.legacy import load_legacy, published_name
    from metro.mesh.sampling import compose_indices, load_meta, load_sampling, up_sampling_errors
    from metro.mesh.topology import euler, is_manifold, is_watertight

    model = load_body(kind, gender, body, partial=True)
    legacy = _is_legacy(path)
    levels = load_legacy(path, model.faces) if legacy else load_sampling(path)
    made_for, vertices = levels[0].up.shape[0], len(model.v_template)
    if made_for != vertices:
        raise MetroError(f"{path}: made for {made_for} vertices, the {kind} body has {vertices}; give --kind")
    described = []
    errors = up_sampling_errors(levels, model.v_template[None].astype(np.float64))[:, 0] * 1000
    for level, indices, error in zip(levels, compose_indices(levels), errors, strict=True):
        facts: dict[str, Any] = {"vertices": len(indices), "faces": len(level.faces)}
        if len(level.faces):
            facts |= {"watertight": is_watertight(level.faces), "manifold": is_manifold(level.faces)}
            facts["euler"] = euler(level.faces)
        facts["template_error_mm"] = {"mean": round(float(error.mean()), 3), "max": round(float(error.max()), 2)}
        facts["published"] = published_name(indices)
        described.append(facts)
    return {"file": str(path), "layout": "published" if legacy else "metro", "levels": described} | (
        {} if legacy else {"meta": load_meta(path)}
    )


def _is_legacy(path: Path) -> bool:
    """Whether an npz has the published layout; whatever else is wrong with it, the reader says."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "D.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
