"""What `metro compare` asks of the project: benchmarks, commits through DVC's cache, tracked runs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from metro.errors import MetroError
from metro.logs import quiet
from pipeline import runs
from pipeline.tracking import noted

FILES = {
    "reports/evaluate/tiny/result.json": '{"schema": 1}',
    "reports/evaluate/tiny/samples.npz": "numbers",
    "models/train/best/checkpoint.json": "{}",
}


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "DVC_STAGE", "METRO_TRACKING", "MLFLOW_TRACKING_URI", "MLFLOW_UI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".dvc").mkdir()
    return tmp_path


@pytest.fixture
def commits(project: Path) -> Path:
    """Two commits: one without outputs, and one whose evaluation and model are in DVC's cache."""
    from dvc.repo import Repo

    git("init", "-q")
    (project / ".dvc/config").write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "empty")
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    stages = {
        "evaluate": {"foreach": ["tiny"], "do": {"cmd": "true", "outs": ["reports/evaluate/${item}"]}},
        "train": {"cmd": "true", "outs": ["models/train/best"]},
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    with quiet("dvc"), Repo() as repo:  # its handlers may hold a stream that another test has closed
        repo.commit(force=True)
    git("add", "dvc.yaml", "dvc.lock")
    git("commit", "-q", "-m", "outputs")
    for folder in ("reports", "models"):
        shutil.rmtree(folder)
    return project


def test_a_commit(commits: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("a")
    found = runs.find("HEAD", target / "a")
    assert found
    assert (found.name, found.network) == ("HEAD", target / "a/models/train/best")
    assert (found.results["tiny"] / "samples.npz").read_text() == "numbers"
    for word in ("--help", "nothing", "", "HEAD~5", "a b", "0" * 32):
        assert runs.find(word, target) is None
    with pytest.raises(MetroError, match=r"HEAD~1: that commit has no dvc\.lock"):
        runs.find("HEAD~1", target)

    # Without its evaluation the model is left, to be evaluated; then that leaves as well.
    cache = commits / ".dvc/cache/files/md5"
    md5 = hashlib.md5(b"numbers").hexdigest()
    (cache / md5[:2] / md5[2:]).unlink()
    found = runs.find("HEAD", target / "b")
    assert found
    assert (dict(found.results), found.network) == ({}, target / "b/models/train/best")
    shutil.rmtree(cache)
    with pytest.raises(
        MetroError, match=r"HEAD: DVC has no evaluation and no model of that commit .*`dvc fetch"
    ) as told:
        runs.find("HEAD", target / "c")
    assert "\n" not in str(told.value)


def test_not_noted_without_tracking_or_a_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("METRO_TRACKING", "off")
    with pytest.raises(MetroError, match="METRO_TRACKING switches tracking off"):
        noted("x", {}, {}, [])
    monkeypatch.delenv("METRO_TRACKING")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(MetroError, match="not inside the project"):
        noted("x", {}, {}, [])
    assert runs.find("HEAD", project) is None
    assert runs.find("0" * 32, project) is None


def test_benchmarks_of_the_parameters(project: Path) -> None:
    assert runs.benchmark(None) is None
    benchmarks = {name: {"dataset": "s", "protocol": "open"} for name in ("easy", "hard")}
    params = {"datasets": {"s": {"split": "test"}}, "benchmarks": benchmarks}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    first = runs.benchmark(None)
    assert first
    assert (first.name, first.data, first.protocol) == ("easy", Path("data/sets/s/shards"), "open")
    assert (found := runs.benchmark("hard"))
    assert found.name == "hard"
    with pytest.raises(MetroError, match=r"--benchmark hrad: no benchmark of params\.yaml; did you mean 'hard'"):
        runs.benchmark("hrad")
