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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`prepare` as it is declared, without the project's own code: a set lists the files that it is made from."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    entry = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["prepare"]
    stage = entry["do"]
    stage["deps"] = ["${item.root}"]
    stage["cmd"] = "mkdir -p data/sets/${key} && ls -R ${item.root} > data/sets/${key}/shards"
    folder = toy.make(tmp_path / "toy")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": entry}}))
    (folder / "params.yaml").write_text(PARAMS)
    for name in ("raw/images/a.jpg", "raw/labels.json", "code/draw.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


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
