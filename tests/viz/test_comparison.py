"""The page of a comparison: offline, complete, and honest where there is nothing to see."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from metro.evaluation.compare import compare, verdict
from metro.viz.comparison import write_comparison
from metro.viz.overlay import save_image
from tests.evaluation.test_compare import noisy, result

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def page(tmp_path: Path, shift: float, names: tuple[str, str] = ("old", "new"), **options: object) -> str:
    found = compare(result(noisy(seed=1)), result(noisy(seed=1, shift=shift)), names, cases=2, keys=["k<1>"] * 200)
    path = write_comparison(
        found.summary, found.changes_N, tmp_path / "compare.html", verdict=verdict(found.summary), **options
    )  # type: ignore[arg-type]
    return path.read_text()


def test_page(tmp_path: Path) -> None:
    sheets = {"improved": save_image(PICTURE, tmp_path / "sheet.png")}
    text = page(tmp_path, -0.01, ("old & <b>", "new"), sheets=sheets)
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "old &amp; &lt;b&gt; against new" in text
    assert "<b>" not in text.partition("<main")[0]
    assert text.count("data:image/png") == 4 + 1  # joints, body parts, headings, histogram; the sheet
    assert "−10.0 <small>mm</small>" in text
    assert "better with B: 200 of 200; worse: 0" in text
    assert "k&lt;1&gt;" in text
    assert "Largest losses" not in text
    assert "No pictures" not in text
    assert "last bit" not in text
    for anchor in re.findall(r'href="#([\w-]+)"', text):
        assert f'id="{anchor}"' in text


def test_equal_runs_and_missing_pictures_are_said(tmp_path: Path) -> None:
    text = page(tmp_path, 0.0, unseen="the network of old is not at hand")
    assert "there is no difference to see" in text
    assert re.search(r"None of \d+ moved", text)
    assert "No pictures: the network of old is not at hand." in text


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    assert page(tmp_path, -0.01) == page(tmp_path, -0.01)
