"""The page of a comparison: one HTML file that needs no network, made from a ``compare.json`` and pictures.

It looks as the report does and shares its style.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metro.files import atomic_file
from metro.viz import plots
from metro.viz.report import GROUPS, render

KINDS = {"joint": "joints", "body part": "body parts", **{key: f"people by {name}" for key, name in GROUPS.items()}}
"""Kinds of parts, as headings."""


def write_comparison(
    summary: Mapping[str, Any],
    changes_N: np.ndarray,
    path: Path,
    *,
    verdict: str,
    sheets: Mapping[str, Path] | None = None,
    unseen: str = "",
) -> Path:
    """Write the page.

    Parameters
    ----------
    summary
        The content of ``compare.json`` (`metro.evaluation.compare`).
    changes_N
        Difference of each person, for the histogram.
    path
        The HTML file.
    verdict
        The sentence under the title.
    sheets
        Pictures of the people that `improved` and `worsened` most.
    unseen
        Why there are none.
    """
    ranked = summary["metrics"][summary["ranked_by"]]
    with tempfile.TemporaryDirectory() as folder:
        charts = {
            KINDS[kind]: _chart(kind, summary["parts"], Path(folder) / f"{number}.png")
            for number, kind in enumerate(dict.fromkeys(part["kind"] for part in summary["parts"]))
        }
        spread = plots.histogram(
            np.round(changes_N, 3),  # below a micrometre there is rounding alone, which no bin should tell apart
            Path(folder) / "people.png",
            title=f"{ranked['label']} of each person: B minus A",
            unit="mm",
            marks={"mean": ranked["difference"]},
        )
        page = render(
            "comparison.html.j2",
            path.name,
            summary=summary,
            verdict=verdict,
            charts=charts,
            spread=spread,
            sheets=dict(sheets or {}),
            unseen=unseen,
            kinds=KINDS,
            moved=sorted((p for p in summary["parts"] if p["moved"]), key=lambda p: p["difference"]),
        )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _chart(kind: str, parts: Sequence[Mapping[str, Any]], path: Path) -> Path:
    shown = [part for part in parts if part["kind"] == kind]
    return plots.differences(
        [part["name"] if kind in ("joint", "body part") else f"{part['name']}  (n={part['n']})" for part in shown],
        [part["difference"] for part in shown],
        [part["ci95"] for part in shown],
        [part["moved"] for part in shown],
        path,
        title=f"{KINDS[kind].capitalize()}: B minus A",
    )
