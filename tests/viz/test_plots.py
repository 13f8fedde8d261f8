"""Charts: they are drawn, the same numbers give the same bytes, and nothing global is left changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from metro.viz import plots

CURVES = [
    *[
        {"step": 10 * k, "loss/total": 5.0 / (k + 1), "loss/vertices": 1.0, "lr": 1e-4, "grad_norm": 2.0}
        for k in range(20)
    ],
    {"step": 100, "validation/mpjpe": 0.12, "validation/pa_mpjpe": 0.08},
]

CHARTS: dict[str, Callable[[Path], Path]] = {
    "curves": lambda p: plots.learning_curves(CURVES, p),
    "curves_without_validation": lambda p: plots.learning_curves(CURVES[:-1], p),
    "ratio": lambda p: plots.ratio_curve([0.3, 0.0, 0.5], [90, 100, 95], [(88, 92), None, (90, 99)], p),
    "bars": lambda p: plots.bars(["a", "b"], [3, 4], p, intervals=[(2, 4), None], baseline=[5, 6], title="t"),
    "pck": lambda p: plots.pck_curves({"thresholds": [0, 50, 100], "model": [0, 0.5, 1], "camera_mean": [0, 0, 1]}, p),
    "histogram": lambda p: plots.histogram([1, 2, np.nan, 4], p, title="t", unit="mm", marks={"mean": 2.3}),
    "heatmap": lambda p: plots.heatmap([[1, np.nan], [3, 4]], ["a", "b"], ["c", "d"], p, title="t", reach=2),
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts(name: str, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    first, second = CHARTS[name](tmp_path / "sub" / "1.png"), CHARTS[name](tmp_path / "2.png")
    image = cv2.imread(str(first))
    assert image.shape[0] > 100
    assert image.std() > 5
    assert first.read_bytes() == second.read_bytes()
    assert dict(matplotlib.rcParams) == before


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a test draws."""
    kept: list[Figure] = []
    savefig = Figure.savefig

    def keep(self: Figure, *args: object, **options: object) -> None:
        kept.append(self)
        savefig(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


@pytest.mark.parametrize("name", ["curves", "ratio", "bars", "pck", "histogram"])
def test_no_legend_covers_what_is_drawn(name: str, tmp_path: Path, drawn: list[Figure]) -> None:
    CHARTS[name](tmp_path / "1.png")
    figure = drawn[0]
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    assert legends
    for legend in legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(ax.get_window_extent().shrunk(0.99, 0.99)) for ax in figure.axes)
        assert figure.bbox.x1 >= box.x1


def test_values_that_are_not_finite_leave_a_gap(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.ratio_curve([0.0, 0.3, 0.5], [np.nan, 90, 95], [None, (88, 92), None], tmp_path / "1.png")
    plots.ratio_curve([0.0, 0.3], [np.nan, np.nan], [None, None], tmp_path / "2.png")
    plots.histogram([np.nan, np.nan], tmp_path / "3.png", title="t", unit="mm", marks={"mean": np.nan})
    assert [text.get_text() for legend in drawn[0].legends for text in legend.get_texts()] == ["lowest, at 30 %"]
    assert [figure.legends for figure in drawn[1:]] == [[], []]


def test_smoothing_keeps_constants_and_length() -> None:
    assert plots._smooth([2.0] * 500).tolist() == pytest.approx([2.0] * 500)
    assert plots._smooth([1.0, 2.0]).tolist() == [1.0, 2.0]
