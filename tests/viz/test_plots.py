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

LINE = {10: plots.Measured(91.0, None, [91.0]), 30: plots.Measured(90.0, (88.0, 92.0), [89.0, 91.0])}

CHARTS: dict[str, Callable[[Path], Path]] = {
    "curves": lambda p: plots.learning_curves(CURVES, p),
    "curves_without_validation": lambda p: plots.learning_curves(CURVES[:-1], p),
    "lines": lambda p: plots.variant_lines({"both": LINE}, ("none", LINE[10]), p, axis="share, %"),
    "rows": lambda p: plots.variant_rows({"a": LINE[10], "b": LINE[30]}, "a", p),
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


@pytest.mark.parametrize("name", ["curves", "lines", "bars", "pck", "histogram"])
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
    plots.histogram([np.nan, np.nan], tmp_path / "3.png", title="t", unit="mm", marks={"mean": np.nan})
    assert [figure.legends for figure in drawn] == [[]]


def test_every_variant_and_seed_has_its_place(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.variant_lines({"both": LINE, "joints": {30: LINE[30]}}, ("none", LINE[10]), tmp_path / "1.png", axis="%")
    plots.variant_rows({"a": LINE[10], "b": LINE[30]}, "a", tmp_path / "2.png")
    lines, rows = (figure.axes[0] for figure in drawn)
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["none", "both", "joints"]
    assert list(lines.get_xticks()) == [10, 30]
    assert [label.get_text() for label in rows.get_yticklabels()] == ["a", "b"]
    for axes, seeds in ((lines, [89.0, 91.0]), (rows, [89.0, 91.0])):
        values = [list(line.get_ydata() if axes is lines else line.get_xdata()) for line in axes.get_lines()]
        assert seeds in values


def test_smoothing_keeps_constants_and_length() -> None:
    assert plots._smooth([2.0] * 500).tolist() == pytest.approx([2.0] * 500)
    assert plots._smooth([1.0, 2.0]).tolist() == [1.0, 2.0]
