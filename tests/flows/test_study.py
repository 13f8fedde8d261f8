"""A study under Prefect: its runs side by side, then its report, as DVC would make them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.flows.test_train_eval import artifact
from tests.pipeline.test_debug_pipeline import clone, repro

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("prefect_server")]


def test_a_study_and_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.train_eval import run_pipeline

    project = clone(tmp_path / "metro")
    monkeypatch.chdir(project)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    run_pipeline(targets=["study-report@masking"], parallel=2)
    rows = {row["stage"]: row["result"] for row in yaml.safe_load(artifact("stages"))}
    runs = {f"study@masking-{variant}-{seed}" for variant in ("unmasked", "both-30") for seed in (1, 2)}
    assert {stage for stage, result in rows.items() if stage.startswith("study") and result == "ran"} == {
        *runs,
        "study-report@masking",
    }
    told = json.loads((project / "reports/study-report/masking/study.json").read_text())
    assert told["seeds"] == [1, 2]
    assert repro(project, "study-report@masking") == []
