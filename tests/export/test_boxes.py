"""Boxes as people and detectors write them, and whose they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metro.errors import MetroError
from metro.export.boxes import read_boxes

ONE, TWO = [1, 2, 30, 40], [5, 6, 70, 80]


def told(content: object, images: list[str], folder: Path) -> list[object]:
    file = folder / "boxes.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_boxes(file, [Path(image) for image in images])


@pytest.mark.parametrize(
    ("content", "images", "rows"),
    [
        ({"a.jpg": [ONE], "b.jpg": []}, ["x/a.jpg", "b.jpg"], [[ONE], []]),
        ({"a.jpg": ONE, "b.jpg": None}, ["b.jpg", "a.jpg"], [None, ONE]),
        ({"x/a.jpg": [ONE], "y/a.jpg": [TWO]}, ["y/a.jpg", "/data/x/a.jpg"], [[TWO], [ONE]]),
        ({"./x/a.jpg": [ONE], "a": [TWO]}, ["x/a.jpg"], [[ONE]]),
        ({"a.jpg": [[*ONE, 0.5]]}, ["a.jpg", "a.jpg"], [[[*ONE, 0.5]]] * 2),
        (
            [{"file_name": "x/a.jpg", "bbox": ONE, "score": 0.5}, {"file_name": "x/a.jpg", "bbox": TWO, "score": 0.4}],
            ["x/a.jpg", "b.jpg"],
            [[[*ONE, 0.5], [*TWO, 0.4]], []],
        ),
        (
            [
                {"image_id": 785, "category_id": 1, "bbox": ONE, "score": 0.9},
                {"image_id": 785, "category_id": 18, "bbox": TWO, "score": 0.9},
            ],
            ["val/000000000785.jpg"],
            [[[*ONE, 0.9]]],
        ),
        ([{"image_id": "000785", "bbox": ONE}], ["000785.png"], [[ONE]]),
        (
            {
                "images": [{"id": 3, "file_name": "a.jpg"}, {"id": 4, "file_name": "b.jpg"}],
                "annotations": [
                    {"image_id": 3, "category_id": 1, "iscrowd": 0, "bbox": ONE},
                    {"image_id": 3, "category_id": 1, "iscrowd": 1, "bbox": TWO},
                ],
            },
            ["a.jpg", "b.jpg"],
            [[ONE], []],
        ),
    ],
)
def test_forms(content: object, images: list[str], rows: list[object], tmp_path: Path) -> None:
    assert told(content, images, tmp_path) == rows


@pytest.mark.parametrize(
    ("content", "images", "message"),
    [
        ({"a.jpg": [ONE]}, ["a.jpg", "c.jpg"], r"has no boxes for c\.jpg; its keys are file names or paths"),
        ({"a.jpg": [ONE]}, ["x/a.jpg", "y/a.jpg"], r"no boxes for x/a\.jpg, y/a\.jpg; .* 'a\.jpg' fits 2 images"),
        ({"a.jpg": [ONE], "x/a.jpg": [TWO]}, ["x/a.jpg", "y/a.jpg"], r"no boxes for y/a\.jpg; .* fits 2 images"),
        ([{"image_id": 785, "bbox": ONE}], ["000785.jpg", "785.jpg"], "785 fits 2 images"),
        ([{"file_name": "a.jpg", "bbox": ONE}], ["b.jpg"], r"has no boxes for b\.jpg"),
        (["x.png"], ["x.png"], "damaged"),
        ([{"file_name": "x.png"}], ["x.png"], "'bbox'"),
        ({"images": 3, "annotations": []}, ["x.png"], "damaged"),
        ("7", ["x.png"], "damaged"),
        ("{", ["x.png"], "not valid JSON"),
    ],
)
def test_refused(content: object, images: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=message) as caught:
        told(content, images, tmp_path)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=r"none\.json: missing; expected"):
        read_boxes(tmp_path / "none.json", [Path("a.jpg")])
