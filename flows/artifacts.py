"""What a flow run shows in Prefect: what ran, the metrics, pictures, and the way to the MLflow runs."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from pipeline.flat import numbers

MAX_PICTURES = 12
MAX_PICTURE_BYTES = 600_000
"""Artifacts live in Prefect's database: pictures are few and small."""


@dataclass(frozen=True)
class Outcome:
    """What became of a stage."""

    stage: str
    result: str
    """`ran`, `unchanged` (up to date) or `restored` (its outputs came from the run cache)."""
    seconds: float


def show_outcome(root: Path, outcomes: Sequence[Outcome], failed: Mapping[str, str]) -> None:
    """Make the artifacts of a flow run; keys are stable, so that the UI keeps their history."""
    rows = [{"stage": o.stage, "result": o.result, "seconds": o.seconds} for o in outcomes]
    rows += [{"stage": stage, "result": "failed", "seconds": None} for stage in failed]
    create_table_artifact(rows, key="stages", description="What ran, what was up to date, what failed")
    note = ""
    if failed:
        text = "\n\n".join(f"### `{stage}`\n\n{failure_page(message)}" for stage, message in failed.items())
        create_markdown_artifact(text, key="failures", description="What the stages that failed said last")
        names = ", ".join(f"`{stage}`" for stage in failed)
        note = f"**{names} failed: what hangs on it is from an earlier run.**\n\n"
    create_markdown_artifact(note + metrics_table(root), key="metrics", description="Metrics of the workspace")
    pictures = picture_page(root)
    if pictures:
        create_markdown_artifact(note + pictures, key="pictures", description="Pictures that the stages drew")
    ran = [outcome.stage for outcome in outcomes if outcome.result != "unchanged"]
    for url, stages in run_links(root, ran).items():
        create_link_artifact(url, link_text=f"MLflow run of {', '.join(stages)}", key=artifact_key("mlflow", stages[0]))


def artifact_key(kind: str, stage: str) -> str:
    """A key as Prefect wants it: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{stage}".lower())


def failure_page(message: str) -> str:
    """The first line of a message, which may be long and is to be wrapped, and the others as they are."""
    first, _, others = message.partition("\n")
    return f"`` {first} ``\n\n```text\n{others.strip()}\n```"


def metrics_table(root: Path) -> str:
    """Metrics of the workspace as markdown, each beside what the last commit has."""
    files = _dvc_json(root, "metrics", "show", "--json").get("", {}).get("data", {})
    now = {
        f"{Path(path).stem}: {name}": value
        for path, content in files.items()
        for name, value in numbers(content.get("data", {}), ".").items()
    }
    changes = _dvc_json(root, "metrics", "diff", "--json")
    diff = changes.get("diff", changes)
    before = {
        f"{Path(path).stem}: {name}": change.get("old")
        for path, names in diff.items()
        if isinstance(names, dict)
        for name, change in names.items()
        if isinstance(change, dict)
    }
    if not now:
        return "No metrics yet."
    rows = [f"| {name} | {value:.5g} | {_old(before.get(name))} |" for name, value in now.items()]
    return "\n".join(["| metric | value | before, where it changed |", "| --- | ---: | ---: |", *rows])


def _old(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else ""


def picture_page(root: Path) -> str:
    """The reports' pictures as data URIs: Prefect serves no files."""
    parts: list[str] = []
    for path in sorted((root / "reports").rglob("*.png")):
        if path.stat().st_size <= MAX_PICTURE_BYTES and len(parts) < MAX_PICTURES:
            data = base64.b64encode(path.read_bytes()).decode()
            name = path.relative_to(root / "reports").with_suffix("")
            parts.append(f"### {name}\n\n![{name}](data:image/png;base64,{data})")
    return "\n\n".join(parts)


def run_links(root: Path, stages: Sequence[str]) -> dict[str, list[str]]:
    """Pages of the tracked runs that some stages have made or joined, where an MLflow UI shows them (``MLFLOW_UI``).

    Stages that look at a model join the run of its training, so a page may be that of several.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.link"], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        print(done.stderr.strip(), file=sys.stderr)
        return {}
    pages: dict[str, list[str]] = {}
    for stage, url in json.loads(done.stdout).items():
        if url.startswith("http") and stage in stages:
            pages.setdefault(url, []).append(stage)
    return pages


def _dvc_json(root: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else {}
    return found if isinstance(found, dict) else {}
