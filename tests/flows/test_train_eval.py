"""The flow on a toy project: what runs, what does not run again, what fails, and that DVC would do the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from metro.errors import MetroError
from tests.flows import toy

pytestmark = [pytest.mark.usefixtures("prefect_server")]


def artifact(key: str) -> str:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

    with get_client(sync_client=True) as client:
        wanted = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
        found = client.read_latest_artifacts(artifact_filter=wanted)
    return str(found[0].data)


def states() -> dict[str, str | None]:
    """What the tasks of the newest flow run ended as, by stage."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        newest = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)[0]
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[newest.id])))
    return {run.name: run.state_name for run in runs}


def test_the_flow_does_what_dvc_does_once_and_goes_on_after_a_failure(project: Path) -> None:
    from flows.train_eval import StageFailedError, run_pipeline

    twin = project.parent / "twin"
    shutil.copytree(project, twin)
    toy.dvc(twin, "repro")

    trouble = toy.trouble(project, "item@0.2", "fail")
    with pytest.raises(StageFailedError, match=r"1 of 5 stages failed: item@0\.2"):
        run_pipeline()
    assert (project / "out/alone").exists()
    assert (project / "out/item/0.1").exists()
    assert not (project / "out/gather").exists()
    failures = artifact("failures")
    assert failures.startswith(
        "### `item@0.2`\n\n`` item@0.2: something is wrong here ``\n\n```text\nIts last lines:\n"
    )
    assert artifact("metrics").startswith("**`item@0.2` failed: ")

    trouble.unlink()
    run_pipeline()
    assert artifact("metrics") == "No metrics yet."
    rows = {row["stage"]: row["result"] for row in yaml.safe_load(artifact("stages"))}
    assert rows == {
        "root": "unchanged",
        "alone": "unchanged",
        "item@0.1": "unchanged",
        "item@0.2": "ran",
        "gather": "ran",
    }
    assert states() == {"root": "Unchanged", "alone": "Unchanged", "item@0.1": "Unchanged"} | dict.fromkeys(
        ["item@0.2", "gather"], "Completed"
    )
    assert yaml.safe_load((project / "dvc.lock").read_text()) == yaml.safe_load((twin / "dvc.lock").read_text())


def test_a_killed_stage_is_tried_again_and_targets_limit_the_run(project: Path) -> None:
    from flows.train_eval import run_pipeline

    toy.trouble(project, "root", "die")
    run_pipeline(targets=["root"])
    assert (project / "out/root").read_text() == "root()"
    assert not (project / "out/alone").exists()


def test_wrong_parameters_stop_the_flow_before_any_stage(project: Path) -> None:
    from flows.train_eval import run_pipeline

    (project / "params.yaml").write_text(toy.PARAMS.replace("yaws_deg", "yaw_deg"))
    with pytest.raises(MetroError, match="did you mean 'yaws_deg'"):
        run_pipeline()
    assert not (project / "out").exists()
