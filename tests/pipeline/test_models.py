"""Models that MLflow keeps, opened by their address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from metro.errors import MetroError
from pipeline import models


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_no_store_is_made_by_looking(project: Path) -> None:
    with pytest.raises(MetroError, match=r"models:/metro/1: no MLflow store at .* yet; set MLFLOW_TRACKING_URI"):
        models.download("models:/metro/1")
    (project / ".dvc").rmdir()
    with pytest.raises(MetroError, match="run from the project root"):
        models.download("models:/metro/1")
    assert not list(project.iterdir())


@pytest.fixture
def mlflow() -> Iterator[ModuleType]:
    """MLflow, which keeps the address of a store for the whole process."""
    import mlflow

    yield mlflow
    mlflow.set_tracking_uri(None)


def test_what_a_run_logged_comes_back(project: Path, mlflow: ModuleType) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    run = mlflow.MlflowClient().create_run("0")
    (project / "bundle").mkdir()
    (project / "bundle" / "bundle.json").write_text('{"step": 7}')
    mlflow.MlflowClient().log_artifacts(run.info.run_id, project / "bundle", "bundle")
    mlflow.set_tracking_uri(None)

    fetched = models.download(f"runs:/{run.info.run_id}/bundle")
    assert (fetched / "bundle.json").read_text() == '{"step": 7}'
    with pytest.raises(MetroError, match=r"models:/nobody/1: MLflow cannot provide it \(.*nobody.*\); check the name"):
        models.download("models:/nobody/1")
