"""What a flow run shows in Prefect: what ran, the metrics, pictures, and the way to the MLflow runs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

if TYPE_CHECKING:
    from flows.train_eval import Outcome

MAX_PICTURES = 12
MAX_PICTURE_BYTES = 600_000
"""Artifacts live in Prefect's database: pictures are few and small."""


def publish(root: Path, outcomes: Sequence[Outcome], failed: Mapping[str, str]) -> None:
    """Make the artifacts of a flow run; keys are stable, so that the UI keeps their history."""
    rows = [{"stage": o.stage, "result": o.result, "seconds": o.seconds} for o in outcomes]
    rows += [{"stage": stage, "result": "failed", "seconds": None} for stage in failed]
    create_table_artifact(rows, key="stages", description="What ran, what was up to date, what failed")
    if failed:
        text = "\n\n".join(f"### {stage}\n\n```text\n{message}\n```" for stage, message in failed.items())
        create_markdown_artifact(text, key="failures", description="Last lines of the stages that failed")
    create_markdown_artifact(metrics_table(root), key="metrics", description="Metrics of the workspace")
    pictures = picture_page(root)
    if pictures:
        create_markdown_artifact(pictures, key="pictures", description="Pictures that the stages drew")
    for stage, url in run_links(root).items():
        create_link_artifact(url, link_text=f"MLflow run of {stage}", key=f"mlflow-{stage}")


def metrics_table(root: Path) -> str:
    """Metrics of the workspace, and what changed since the last commit, as markdown."""
    shown = _dvc(root, "metrics", "show", "--md")
    changed = _dvc(root, "metrics", "diff", "--md")
    parts = [f"## Metrics\n\n{shown}" if shown else "No metrics yet."]
    if changed:
        parts.append(f"## Changes since the last commit\n\n{changed}")
    return "\n\n".join(parts)


def picture_page(root: Path) -> str:
    """The reports' pictures as data URIs: Prefect serves no files."""
    parts: list[str] = []
    for path in sorted((root / "reports").rglob("*.png")):
        if path.stat().st_size <= MAX_PICTURE_BYTES and len(parts) < MAX_PICTURES:
            data = base64.b64encode(path.read_bytes()).decode()
            name = path.relative_to(root / "reports").with_suffix("")
            parts.append(f"### {name}\n\n![{name}](data:image/png;base64,{data})")
    return "\n\n".join(parts)


def run_links(root: Path) -> dict[str, str]:
    """Link the tracked runs with ``dvc.lock``, and give the pages of those that an MLflow UI shows (``MLFLOW_UI``)."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.link"], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        print(done.stderr.strip(), file=sys.stderr)
        return {}
    return {stage: url for stage, url in json.loads(done.stdout or "{}").items() if url and stage == "train"}


def _dvc(root: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
    )
    return done.stdout.strip() if done.returncode == 0 else ""
