"""Presets: small YAML files of the parameters in which a way of using the project differs from the defaults.

A preset may start with ``extends: OTHER``. Applying one writes ``params.yaml`` anew: defaults, then the presets from
the furthest ancestor on, merged key by key; collections of named things (datasets, benchmarks, photos, studies) are
replaced whole.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from metro.config import NAMED, Params, Section, load_params, merge_params
from metro.errors import MetroError
from metro.files import atomic_file, nearest, read_yaml, readable


def summaries() -> dict[str, str]:
    """What each preset is for, by name."""
    return {path.stem: _headline(path.stem) for path in sorted(preset_folder().glob("*.yaml"))}


def written(name: str) -> str:
    """A preset as it stands in its file."""
    return _text(name).rstrip()


def apply(name: str, params: Path = Path("params.yaml"), merge: bool = False) -> str:
    """Write `params` from a preset, over the defaults or (`merge`) over its present values; returns what changed."""
    if params.suffix not in (".yaml", ".yml"):
        raise MetroError(f"{params}: would be replaced by parameters; they stand in a .yaml file")
    if merge:
        before: Params | None = load_params(params)
        text = render(name, _content(params, params.read_text("utf-8")))
    else:
        before = _readable(params)
        text = render(name)
    with atomic_file(params) as temporary:
        temporary.write_text(text + "\n")
    if before is None:
        return f"{params}: written from preset {name!r}"
    changes = list(_differences(before.model_dump(mode="json"), load_params(params).model_dump(mode="json")))
    return "\n".join([f"{params}: preset {name!r}, {len(changes)} values changed", *changes])


def preset_folder() -> Path:
    """Where the presets lie: ``presets/`` of the working directory, else that of the checkout this code runs from."""
    for folder in (Path("presets"), Path(__file__).resolve().parents[1] / "presets"):
        if folder.is_dir():
            return folder
    raise MetroError("presets/: no such folder; run from the project root")


def resolve(name: str, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Parameters of a preset, the runs of its studies among them: `base` (default: nothing), its ancestors, itself;
    validated."""
    chain: list[dict[str, Any]] = []
    seen: list[str] = []
    following: str | None = name
    while following:
        if following in seen:
            raise MetroError(f"presets: {' → '.join([*seen, following])} extend each other in a circle")
        seen.append(following)
        chain.insert(0, _content(preset_folder() / f"{following}.yaml", _text(following)))
        following = chain[0].pop("extends", None)
    merged: dict[str, Any] = dict(base or {})
    for part in chain:
        merged = merge_params(merged, part)
    merged["preset"] = name
    merged.pop("study_runs", None)  # they follow from the studies
    runs = load_params(merged).planned_runs()
    return merged | {"study_runs": {key: run.model_dump(mode="json", exclude_unset=True) for key, run in runs.items()}}


def render(name: str, base: Mapping[str, Any] | None = None) -> str:
    """The complete ``params.yaml`` of a preset, every value with what it means."""
    params = load_params(resolve(name, base))
    lines = [
        f"# The only configuration of the pipeline, made by `metro preset apply {name}`. Edit freely:",
        "# `dvc repro` re-runs the stages that depend on what changed.",
        f"preset: {name}",
    ]
    for key, field in Params.model_fields.items():
        if key == "preset":
            continue
        value = getattr(params, key)
        lines.append("")
        if key in NAMED:
            lines += [*_wrapped(f"{field.description}"), *_collection(key, value)]
            continue
        lines += [f"# {' '.join((type(value).__doc__ or '').split())}", f"{key}:", *_section(value, 2)]
    return "\n".join(lines)


def plan(params: Path = Path("params.yaml")) -> str:
    """Write the runs of the studies into `params`, the rest of which stays as it is; returns what changed."""
    given = read_yaml(params, "run from the project root, or `metro preset apply open` makes one") or {}
    if not isinstance(given, dict):
        raise MetroError(f"{params}: holds no parameters by name; mend it")
    before = given.pop("study_runs", None) or {}
    after = load_params(given).planned_runs()
    block = "\n".join(_collection("study_runs", after)) + "\n"
    with readable(params, "mend it"):
        text = params.read_text("utf-8")
    present = re.compile(r"^study_runs:.*\n?(?:[ \t].*\n?)*", re.MULTILINE)
    if not present.search(text):
        text = text.rstrip("\n") + "\n\nstudy_runs:\n"
    text = present.sub(lambda _: block, text, count=1)
    load_params(_content(params, text)).require_plan()
    with atomic_file(params) as temporary:
        temporary.write_text(text)
    told = {name: run.model_dump(mode="json", exclude_unset=True) for name, run in after.items()}
    changes = [f"  - {name}" for name in before if name not in told]
    changes += [f"  + {name}" for name in told if name not in before]
    changes += [f"  {name}: changed" for name in told if name in before and before[name] != told[name]]
    return "\n".join([f"{params}: {len(told)} runs in {len(load_params(given).studies)} studies", *changes])


def _collection(key: str, value: Mapping[str, Section]) -> list[str]:
    """A collection of named things as YAML, what is left to the defaults left out."""
    kept = {name: item.model_dump(mode="json", exclude_unset=True) for name, item in value.items()}
    if key != "study_runs" or not kept:
        return _yaml({key: kept}) if kept else [f"{key}: {{}}"]
    rows = [_yaml({name: run}, flow=True) for name, run in kept.items()]  # one a line: there may be hundreds
    return [f"{key}:", *(f"  {line[1:-1]}" for row in rows for line in row)]


def _wrapped(comment: str, pad: str = "") -> list[str]:
    """A comment on lines of its own."""
    return textwrap.wrap(" ".join(comment.split()), 120, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ")


def _section(section: Section, indent: int) -> Iterator[str]:
    pad = " " * indent
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, Section):
            yield f"{pad}{key}:"
            yield from _section(value, indent + 2)
            continue
        plain = section.model_dump(mode="json")[key]
        rows = _yaml({key: plain})
        comment = " ".join((field.description or "").split())
        if len(rows) == 1 and len(pad) + max(34, len(rows[0])) + len(comment) < 120:
            yield f"{pad}{rows[0]:<33} # {comment}"
        else:
            yield from _wrapped(comment, pad)
            yield from (pad + row for row in rows)


def _yaml(value: Mapping[str, Any], flow: bool = False) -> list[str]:
    """Block style outside, flow style for collections of scalars; or all of it in a line."""
    style = flow or (None if any(isinstance(v, dict | list) for v in value.values()) else False)
    width = 10**6 if flow else 100
    text: str = yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, default_flow_style=style, width=width)
    return text.splitlines()


def _differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(k for k in after if k not in before)]:
            path = f"{where}.{key}" if where else str(key)
            if key not in after:
                yield f"  - {path}"
            elif key not in before:
                yield f"  + {path}"
            else:
                yield from _differences(before[key], after[key], path)
    elif before != after:
        yield f"  {where}: {before} → {after}"


def _readable(params: Path) -> Params | None:
    """The present parameters, or none where there are none or they are broken: a preset then mends the file."""
    try:
        return load_params(params)
    except MetroError:
        return None


def _text(name: str) -> str:
    known = sorted(path.stem for path in preset_folder().glob("*.yaml"))
    if name not in known:
        raise MetroError(f"no preset {name!r}; {nearest(name, known)}")
    path = preset_folder() / f"{name}.yaml"
    with readable(path, "restore it"):
        return path.read_text("utf-8")


def _content(path: Path, text: str) -> dict[str, Any]:
    with readable(path, "mend it"):
        content = yaml.safe_load(text) or {}
    if not isinstance(content, dict):
        raise MetroError(f"{path}: holds no parameters by name; mend it")
    return content


def _headline(name: str) -> str:
    first = _text(name).partition("\n")[0]
    return first.removeprefix("# ").rstrip(".") if first.startswith("#") else ""
