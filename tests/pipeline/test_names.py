"""Names in params.yaml, which DVC pastes into commands and paths: none runs a word or leaves the project."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.flows import toy

ROOT = Path(__file__).resolve().parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TEMPLATES = {name: entry for name, entry in STAGES.items() if {"foreach", "matrix"} & set(entry)}
"""Stages that are made once for each name."""


def body(entry: dict) -> dict:
    return entry.get("do", entry)


def project(folder: Path, name: str) -> Path:
    """A project whose only set, benchmark and study have this name; the stages as declared, but for their inputs."""
    made = toy.make(folder)
    entries = yaml.safe_load(yaml.safe_dump(TEMPLATES))
    for entry in entries.values():
        body(entry).update(deps=["raw"], params=[])
    (made / "dvc.yaml").write_text(yaml.safe_dump({"stages": entries}))
    sections = {
        "datasets": {name: {"root": "raw"}},
        "fit": {"datasets": [name]},
        "benchmarks": {name: {"dataset": name}},
        "photos": {name: {"labels": "raw", "images": "raw"}},
        "studies": {name: {"benchmark": name, "reference": "a", "variants": {"a": {}, "b": {}}}},
        "study_runs": {name: {"study": name, "variant": "v", "seed": 1, "benchmark": name, "dataset": name}},
    }
    (made / "params.yaml").write_text(yaml.safe_dump(sections))
    (made / "raw").mkdir()
    return made


def test_these_stages_have_names() -> None:
    assert set(TEMPLATES) == {"prepare", "fit", "evaluate", "evaluate-photos", "study", "study-report"}


@pytest.mark.parametrize("entry", TEMPLATES.values(), ids=TEMPLATES)
def test_no_command_holds_a_name(entry: dict) -> None:
    assert "${" not in body(entry)["cmd"]


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        *((stage, "../../../mine") for stage in TEMPLATES),
        *(("prepare", name) for name in ("a/../../../../mine", "../../../../{above}/toy/a/b/c", "../x", "a/b")),
    ],
)
def test_a_name_that_is_no_plain_folder_is_refused_before_an_output_is_removed(
    stage: str, name: str, tmp_path: Path
) -> None:
    name = name.format(above=tmp_path.name)
    made = project(tmp_path / "toy", name)
    out = body(TEMPLATES[stage])["outs"][-1].replace("${item.variant}-${item.seed}", "v-1")
    theirs = made / re.sub(r"\$\{.*?\}", name, out)
    theirs.mkdir(parents=True)
    (theirs / "thesis.tex").touch()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        toy.dvc(made, "repro", "--single-item", f"{stage}@{name}")
    assert "failed to parse" in caught.value.stderr
    assert (theirs / "thesis.tex").exists()


def test_a_name_is_no_word_of_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = project(tmp_path / "toy", "a;touch pwned")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        toy.dvc(made, "repro", "--single-item", "prepare@a;touch pwned")
    assert "'a;touch pwned' cannot be a name" in caught.value.stderr
    assert not (made / "pwned").exists()
