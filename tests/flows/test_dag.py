"""The graph that the flow runs is DVC's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.dag import needed_for, read_dag
from metro.errors import MetroError
from tests.flows import toy

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("which", ["toy", "metro"])
def test_edges_are_those_that_dvc_prints(which: str, project: Path) -> None:
    root = project if which == "toy" else ROOT
    printed = toy.dvc(root, "dag", "--mermaid")
    names = dict(re.findall(r'(node\d+)\["([^"]+)"\]', printed))
    edges = {(names[a], names[b]) for a, b in re.findall(r"(node\d+)-->(node\d+)", printed)}
    dag = read_dag(root)
    assert {(need, stage) for stage, needs in dag.items() for need in needs} == edges
    assert set(dag) == set(names.values())


def test_a_stage_comes_after_all_that_it_needs(project: Path) -> None:
    seen: set[str] = set()
    for stage, needs in read_dag(project).items():
        assert seen.issuperset(needs)
        seen.add(stage)
    assert seen == {"root", "item@0.1", "item@0.2", "gather", "alone"}


def test_targets_bring_what_they_need(project: Path) -> None:
    dag = read_dag(project)
    assert set(needed_for(dag, ["item@0.1"])) == {"root", "item@0.1"}
    assert set(needed_for(dag, ["item"])) == {"root", "item@0.1", "item@0.2"}
    with pytest.raises(MetroError, match="did you mean 'gather'"):
        needed_for(dag, ["gathr"])


def test_a_broken_pipeline_file_is_one_line(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {a: {}}")
    with pytest.raises(MetroError, match=r"^dvc.yaml: .*") as caught:
        read_dag(project)
    assert "\n" not in str(caught.value)
