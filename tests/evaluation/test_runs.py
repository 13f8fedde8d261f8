"""Runs by the words that name them, and whose scores are taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from metro.errors import MetroError
from metro.evaluation import runs
from metro.evaluation.runs import Judge, Run, find_run, pictures, scores
from tests.evaluation.test_compare import DATA, noisy, result, written


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No project around the library."""
    monkeypatch.setattr(runs, "project", lambda name: None)


def judge(records: str = "d" * 64) -> Any:
    """Scores every network alike, on the records named."""

    def score(run: Run) -> Any:
        return result(noisy(5), data={**DATA, "records": records})

    return SimpleNamespace(
        benchmark="tiny", score=score, saw=lambda found: found.summary["data"].get("records") == records
    )


def test_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("open", "models:/metro/3", "runs:/1/model"):
        assert find_run(word, tmp_path).network == word
    scored = written(tmp_path / "scored")
    assert find_run(str(scored), tmp_path) == Run(str(scored), None, {"tiny": scored})
    checkpoint = written(tmp_path / "checkpoint")
    (checkpoint / "checkpoint.json").write_text("{}")
    assert find_run(str(checkpoint), tmp_path).network == checkpoint
    with pytest.raises(MetroError, match="neither a checkpoint, a bundle nor what `metro evaluate` wrote"):
        find_run(str(tmp_path), tmp_path)
    with pytest.raises(MetroError, match="HEAD: no such folder; give a checkpoint"):
        find_run("HEAD", tmp_path)
    monkeypatch.setattr(runs, "project", lambda name: lambda word, folder: Run(word) if word == "HEAD" else None)
    assert find_run("HEAD", tmp_path) == Run("HEAD")
    with pytest.raises(MetroError, match="HEAD~: no such folder, and no commit or MLflow run of this project"):
        find_run("HEAD~", tmp_path)


def test_which_of_its_scores(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one"), written(tmp_path / "two")
    both = Run("both", None, {"one": one, "two": two})
    with pytest.raises(MetroError, match="both: scored on one, two; choose one with --benchmark"):
        both.result(None)
    assert both.result("three") is None
    assert both.result(None, "two") is not None
    single = Run("single", None, {"one": one})
    assert single.result(None, "two") is not None
    assert single.result("two") is None
    assert Run("none").result(None) is None


def test_kept_scores_are_taken_if_both_have_them(tmp_path: Path) -> None:
    kept = Run("kept", "weights", {"tiny": written(tmp_path / "kept")})
    fresh, bare = Run("fresh", "weights"), Run("bare", None, kept.results)
    asked: list[str] = []
    seen = judge()
    counting = cast(Judge, SimpleNamespace(**{**vars(seen), "score": lambda run: asked.append(run.name)}))

    def evaluated(a: Run, b: Run, by: Judge | None = counting, **options: Any) -> list[str]:
        asked.clear()
        scores(a, b, by, **options)
        return asked

    assert evaluated(kept, kept) == evaluated(kept, bare) == []
    assert evaluated(kept, kept, None) == []
    assert evaluated(kept, fresh) == ["kept", "fresh"]
    assert evaluated(bare, fresh) == ["fresh"]
    assert evaluated(kept, kept, protocol="3dpw") == ["kept", "kept"]
    other = cast(Judge, SimpleNamespace(**{**vars(counting), "saw": lambda found: False}))
    assert evaluated(kept, kept, other) == []
    assert evaluated(kept, kept, other, here=True) == ["kept", "kept"]
    with pytest.raises(MetroError, match=r"fresh: no scores on tiny are kept of it; name a dataset .* --data"):
        scores(kept, fresh, None, benchmark="tiny")


def test_no_pictures_without_people_data_or_networks(tmp_path: Path) -> None:
    found, cases = result(noisy(5)), {"improved": [{"index": 0}], "worsened": []}
    a, b = Run("a", "weights"), Run("b")
    assert pictures(a, b, judge(), found, {"improved": []}, tmp_path) == ({}, "")
    assert "name their dataset with --data" in pictures(a, b, None, found, cases, tmp_path)[1]
    assert "name their dataset with --data" in pictures(a, b, judge("e"), found, cases, tmp_path)[1]
    assert pictures(a, b, judge(), found, cases, tmp_path)[1] == "the network of b is not at hand"
    with pytest.raises(MetroError, match="b: its network is not at hand, only its scores"):
        _ = replace(b).bundle
