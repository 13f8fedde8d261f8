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

_LICENSED = Path("body_models")  # where licensed files are looked for unless told


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


def load_variant(config: BodyConfig, gender: str) -> BodyData:
    """The body that people of a gender are posed on: that of the settings for `neutral`, and for the others their own.

    Raises
    ------
    MetroError
        There is no body for the gender, or as in `load_body`.
    """
    if gender in ("neutral", config.gender):
        return load_body(config)
    if config.kind in OPEN_KINDS:
        folder = _shipped() if config.path is None else config.path
    else:
        folder = _LICENSED if config.path is None else config.path
    name = f"{config.kind}_{gender}.npz"
    # Not each file tells its gender: one that is named alone stands for nothing but the body of the settings.
    if folder.suffix or not (folder / name).is_file():
        raise MetroError(
            f"{folder}: is no folder with {name}, the body that {gender} people are posed on; set body.path to one, or "
            "in the section of their dataset `gender: neutral`, and prepare it again"
        )
    return load_body(config, gender)


def _licensed_file(kind: str, gender: str, path: Path | None) -> Path:
    """The model file: `path` itself, or `KIND_GENDER.npz` in it when it is a folder."""
    where = path if path is not None else _LICENSED
    expected = where if where.suffix else where / f"{kind}_{gender}.npz"
    if expected.is_file():
        return expected
    raise MetroError(
        f"{expected}: no such file. body.kind={kind} needs a licensed model: register at {REGISTER[kind]}, download "
        f"it, run `metro body convert DOWNLOADED_FILE {expected.with_suffix('.npz')}` and set body.path to the result; "
        f"or use body.kind={figure_of(kind).free}, which is free and ships with the project"
    )


def _shipped() -> Path:
    return Path(str(resources.files("metro.body") / "data"))


def _load_open(kind: str, gender: str, path: Path | None) -> BodyData:
    """An open model from the package, or from a folder that `python -m tools.open_body` wrote."""
    folder = _shipped() if path is None else path
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
