"""Raw data are inputs: the `prepare` stage of ``dvc.yaml``, run by DVC on a toy set and a set made by code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.flows import toy

ROOT = Path(__file__).resolve().parents[2]
PARAMS = """\
body: {kind: open}
datasets:
  mine: {source: mine, root: raw}
  made: {source: synthetic, root: code}
"""

SETS = """\
body: {kind: open}
datasets:
  people: {source: coco, root: raw/coco, options: {keep: limbs}}
  more: {source: mpii, root: raw/mpii}
files: {body: body.npz}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`prepare` as it is declared, without the project's own code: a set lists the files that it is made from."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    entry = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["prepare"]
    stage = entry["do"]
    stage["deps"] = ["${item.root}"]
    stage["cmd"] = "mkdir -p data/sets/${key} && ls -R ${item.root} > data/sets/${key}/shards"
    del stage["metrics"]
    folder = toy.make(tmp_path / "toy")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": entry}}))
    (folder / "params.yaml").write_text(PARAMS)
    for name in ("raw/images/a.jpg", "raw/labels.json", "code/draw.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`prepare` as it is declared, with something in the place of every file of code, for two sets and one body."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    entry = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["prepare"]
    entry["do"]["cmd"] = (
        "mkdir -p data/sets/${key}/shards reports/metrics/prepare && date +%N > data/sets/${key}/shards/x"
    )
    entry["do"]["cmd"] += " && echo 1 > reports/metrics/prepare/${key}.json"
    folder = toy.make(tmp_path / "toy")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": entry}}))
    (folder / "params.yaml").write_text(SETS)
    for dep in entry["do"]["deps"]:
        for source in ("coco", "mpii"):
            found = dep.replace("${item.source}", source).replace("${item.root}", f"raw/{source}")
            path = folder / found.replace("${files.body}", "body.npz")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("one")
    return folder


def test_touching_an_adapter_or_adding_an_option_prepares_its_own_set_again(declared: Path) -> None:
    assert set(ran(declared)) == {"prepare@people", "prepare@more"}
    (declared / "metro/sources/coco.py").write_text("two")
    assert set(stale(declared)) == {"prepare@people"}
    assert ran(declared) == ["prepare@people"]
    (declared / "params.yaml").write_text(SETS.replace("keep: limbs", "keep: limbs, year: 2014"))
    assert set(stale(declared)) == {"prepare@people"}
    assert ran(declared) == ["prepare@people"]
    (declared / "metro/sources/index.py").write_text("two")
    assert set(stale(declared)) == {"prepare@people", "prepare@more"}


def test_a_body_from_elsewhere_that_changes_prepares_all_sets_again(declared: Path) -> None:
    assert set(ran(declared)) == {"prepare@people", "prepare@more"}
    assert stale(declared) == []
    (declared / "body.npz").write_text("two")
    assert set(stale(declared)) == {"prepare@people", "prepare@more"}


def stale(project: Path) -> list[str]:
    return [line.rstrip(":") for line in toy.dvc(project, "status").splitlines() if line.startswith("prepare@")]


def ran(project: Path) -> list[str]:
    return [line.split("'")[1] for line in toy.dvc(project, "repro").splitlines() if line.startswith("Running stage")]


def test_a_set_is_prepared_again_when_its_raw_data_change(project: Path) -> None:
    assert set(ran(project)) == {"prepare@mine", "prepare@made"}
    assert ran(project) == []
    (project / "raw/images/a.jpg").write_text("other")
    assert "prepare@mine:\n\tchanged deps:\n\t\tmodified:           raw\n" in toy.dvc(project, "status")
    assert ran(project) == ["prepare@mine"]
    (project / "raw/images/b.jpg").touch()
    assert ran(project) == ["prepare@mine"]
    assert "b.jpg" in (project / "data/sets/mine/shards").read_text()
    assert ran(project) == []


def test_a_set_whose_raw_data_are_gone_is_refused_in_one_line(project: Path) -> None:
    ran(project)
    (project / "raw").rename(project / "elsewhere")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        toy.dvc(project, "repro", "prepare@mine")
    (told,) = (line for line in caught.value.stderr.splitlines() if line.startswith("ERROR"))
    assert "prepare@mine" in told
    assert str(project / "raw") in told
