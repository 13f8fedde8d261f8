"""Open a body model by kind: the open ones that ship with the package, or a licensed file."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from metro.body.arrays import OPEN_KINDS, REGISTER, VARIANT_ARRAYS, BodyData, Stored, read_npz
from metro.body.convert import read_licensed
from metro.body.figure import figure_of
from metro.config import BodyConfig
from metro.errors import MetroError
from metro.files import read_arrays


def load_body(
    config: BodyConfig | str, gender: str | None = None, path: Path | None = None, *, partial: bool = False
) -> BodyData:
    """Load a body model.

    Parameters
    ----------
    config
        The `body` section of the params, or a kind (`open`, `open_hand`, `smpl`, `smplx`, `mano`).
    gender, path
        Replace those of the section.
    partial
        Take a licensed model as well that lacks METRO's joint regressors, to look at it.

    Raises
    ------
    MetroError
        The licensed file is missing, is not what the kind needs or lacks METRO's joint regressors, or the gender is
        not available.
    """
    if isinstance(config, str):
        if config not in (*OPEN_KINDS, *REGISTER):
            raise MetroError(f"no body model {config!r}; known: {', '.join((*OPEN_KINDS, *REGISTER))}")
        config = BodyConfig(kind=config)  # type: ignore[arg-type]
    section = config
    gender, path = gender or section.gender, path or section.path
    if section.kind in OPEN_KINDS:
        return _load_open(section.kind, gender, path)
    data = read_licensed(_licensed_file(section.kind, gender, path), gender)
    if data.kind != section.kind:
        raise MetroError(f"{path}: holds a {data.kind} model, but body.kind={section.kind}")
    if not partial:
        data.require_regressors()
    return data


def _licensed_file(kind: str, gender: str, path: Path | None) -> Path:
    """The model file: `path` itself, or `KIND_GENDER.npz` in it when it is a folder."""
    where = path if path is not None else Path("body_models")
    expected = where if where.suffix else where / f"{kind}_{gender}.npz"
    if expected.is_file():
        return expected
    raise MetroError(
        f"{expected}: no such file. body.kind={kind} needs a licensed model: register at {REGISTER[kind]}, download "
        f"it, run `metro body convert DOWNLOADED_FILE {expected.with_suffix('.npz')}` and set body.path to the result; "
        f"or use body.kind={figure_of(kind).free}, which is free and ships with the project"
    )


def _load_open(kind: str, gender: str, path: Path | None) -> BodyData:
    """An open model from the package, or from a folder that `python -m tools.open_body` wrote."""
    folder = Path(str(resources.files("metro.body") / "data")) if path is None else path
    neutral, variant = folder / f"{kind}.npz", folder / f"{kind}_{gender}.npz"
    if not neutral.is_file():
        raise MetroError(f"{neutral}: no such file; leave body.path out to use the {kind} model that ships with metro")
    data = read_npz(neutral)
    if gender == "neutral":
        return data
    if not variant.is_file():
        raise MetroError(f"body.gender={gender}: the {kind} model has no such variant; use body.gender=neutral")
    own = Stored(read_arrays(variant, "make it again with `python -m tools.open_body`", VARIANT_ARRAYS), variant)
    arrays: dict[str, Any] = {name: own.floats(name, *getattr(data, name).shape) for name in VARIANT_ARRAYS}
    return replace(data, gender=gender, **arrays)
