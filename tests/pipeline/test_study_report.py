"""The report of a study: which of the two figures it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metro.viz import plots
from pipeline.study_report import draw


@pytest.mark.parametrize(
    ("reference", "others", "lines"),
    [
        ("none", [("both", 10), ("both", 30), ("joints", 30)], True),
        ("both-0", [("both", 10), ("both", 30)], True),  # the reference is a place of the line too
        ("none", [("both", 10), ("plain", None)], False),
        ("both", [("both", 10), ("both", 30)], False),  # two things of one name
    ],
)
def test_variants_with_numbers_are_drawn_as_lines(
    reference: str, others: list[Any], lines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(plots, "variant_lines", lambda found, *_, **__: calls.append(found))
    monkeypatch.setattr(plots, "variant_rows", lambda *_, **__: calls.append(None))
    place = ("both", 0) if reference == "both-0" else (None, None)
    named = {reference: place} | {f"{line}-{at}" if at else line: (line if at else None, at) for line, at in others}
    error = {"mpjpe": {"value": 90.0, "ci95": None, "seeds": [90.0]}}
    variants = [{"name": name, "line": line, "at": at, "metrics": error} for name, (line, at) in named.items()]
    metrics = {"mpjpe": {"label": "MPJPE", "unit": "mm"}}
    draw(
        {"ranked_by": "mpjpe", "reference": reference, "axis": "%", "metrics": metrics, "variants": variants},
        Path("unused.png"),
    )
    (drawn,) = calls
    assert (drawn is not None) == lines
    if lines:
        assert {(line, at) for line, points in drawn.items() for at in points} == {p for p in named.values() if p[0]}
