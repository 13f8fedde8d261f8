"""`metro body info` and `convert`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from metro.cli.options import OutFile, Place, check_new
from metro.words import BodyKind, Gender


def info(*, kind: BodyKind = "open", gender: Gender = "neutral", path: Place | None = None) -> dict[str, Any]:
    """Describe a body model: counts, joints, regressors, size, licence, digest.

    Parameters
    ----------
    kind
        Model to describe.
    gender
        Its variant.
    path
        Licensed file, or folder of them; the open models need none.
    """
    from metro.body.arrays import describe
    from metro.body.load import load_body

    return describe(load_body(kind, gender, path, partial=True))


def convert(source: Path, out: OutFile, /, *, gender: Gender | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Convert a licensed SMPL, SMPL-X or MANO file (.pkl or .npz) to this project's npz layout.

    The file is read without running anything in it. METRO's regressor files for SMPL (J_regressor_h36m_correct.npy,
    J_regressor_extra.npy) are included when they lie beside it.

    Parameters
    ----------
    source
        The downloaded file.
    out
        File to write, usually KIND_GENDER.npz.
    gender
        Variant it holds; taken from the file name if left out.
    overwrite
        Replace `out` if it exists.
    """
    from metro.body.arrays import describe, save_body
    from metro.body.convert import read_licensed
    from metro.errors import MetroError

    if out.suffix != ".npz":
        raise MetroError(f"{out}: the result is an npz file; give it that ending")
    check_new(out, overwrite)
    data = read_licensed(source, gender)
    save_body(data, out)
    try:
        data.require_regressors()
    except MetroError as err:
        print(f"metro: {out}: {err}; training and prediction need it", file=sys.stderr)
    return {"written": str(out), **describe(data)}
