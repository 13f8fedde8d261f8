"""Boxes of images from a JSON file, as people and detectors write them.

- ``{"NAME.jpg": [[x, y, width, height], …], …}``: names or paths of images; rows may end with a score.
- ``[{"image_id": 785, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}, …]``: COCO's results, or with
  ``file_name`` instead of ``image_id``. An id is the number or the name that an image's file name consists of.
- ``{"images": [{"id": 785, "file_name": "…"}, …], "annotations": [{"image_id": 785, "bbox": …}, …]}``: COCO's labels.

Of COCO's, boxes of another category than people (1) and of crowds are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from metro.errors import MetroError
from metro.files import read_json, readable

REMEDY = 'expected {"NAME.jpg": [[x, y, width, height], ...], ...} or a list of COCO results'
PERSON = 1
"""COCO's category of people."""


def read_boxes(file: Path, images: Sequence[Path]) -> list[Any]:
    """What a file says about each image: rows of boxes, or None where it says so. Rows are not checked.

    An image that a COCO file does not mention has nobody in it; other files must have every image.

    Raises
    ------
    MetroError
        The file is damaged or of no known form, lacks an image, or has a name that fits several.
    """
    return rows_of(read_json(file, REMEDY), file, images, "boxes", REMEDY, _box)


def read_table(file: Path) -> tuple[Mapping[Any, Any], bool]:
    """What a file holds by the names or numbers of images, and whether it must name every image (COCO's need not).

    Raises
    ------
    MetroError
        The file is damaged or of no known form.
    """
    content = read_json(file, REMEDY)
    with readable(file, REMEDY):
        return _table(content, _box)


def rows_of(
    content: Any,
    file: Path,
    images: Sequence[Path],
    what: str,
    remedy: str,
    row: Callable[[Mapping[str, Any]], Any],
) -> list[Any]:
    """What the content of a file in one of these forms says about the people of each image; see `read_boxes`.

    Parameters
    ----------
    content, file
        The content, and the file that it was read from, for messages.
    images
        Paths of the images.
    what, remedy
        What the rows are called in messages, and what the file should be.
    row
        Makes a row of an entry in COCO's manner.
    """
    with readable(file, remedy):
        table, complete = _table(content, row)
        by_name: dict[Any, list[Any]] = defaultdict(list)
        for key in table:
            by_name[key if isinstance(key, int) else PurePath(key).name].append(key)
    fitting = {image: _fitting(image, by_name) for image in images}
    fits: dict[Any, set[Path]] = defaultdict(set)
    for image, keys in fitting.items():
        for key in keys:
            fits[key].add(image)
    lacking = [str(image) for image, keys in fitting.items() if not keys]
    if lacking and (complete or len(lacking) == len(fitting)):
        raise MetroError(f"{file}: has no {what} for {', '.join(lacking[:3])}; its keys are file names or paths")
    chosen = {image: max(keys, key=_parts) if keys else None for image, keys in fitting.items()}
    if shared := [image for image, key in chosen.items() if len(fits[key]) > 1]:
        raise MetroError(
            f"{file}: has no {what} for {', '.join(map(str, shared[:3]))}; its keys are file names or paths, and "
            f"{chosen[shared[0]]!r} fits {len(fits[chosen[shared[0]]])} images"
        )
    return [table[chosen[image]] if fitting[image] else [] for image in images]


def _table(content: Any, row: Callable[[Mapping[str, Any]], Any]) -> tuple[Mapping[Any, Any], bool]:
    complete = isinstance(content, dict) and not {"images", "annotations"} <= content.keys()
    return (content, True) if complete else (_of_coco(content, row), False)


def _of_coco(content: Any, row: Callable[[Mapping[str, Any]], Any]) -> dict[Any, list[Any]]:
    table: dict[Any, list[Any]] = {}
    entries: Iterable[Mapping[str, Any]] = content
    names: Mapping[Any, str] = {}
    if isinstance(content, dict):
        names, entries = {image["id"]: image["file_name"] for image in content["images"]}, content["annotations"]
        table = {name: [] for name in names.values()}
    for entry in entries:
        key = entry["file_name"] if "file_name" in entry else names.get(entry["image_id"], entry["image_id"])
        rows = table.setdefault(key, [])
        if entry.get("category_id", PERSON) == PERSON and not entry.get("iscrowd"):
            rows.append(row(entry))
    return table


def _box(entry: Mapping[str, Any]) -> list[Any]:
    return [*entry["bbox"], *([entry["score"]] if "score" in entry else [])]


def _fitting(image: Path, by_name: Mapping[Any, Sequence[Any]]) -> list[Any]:
    """Keys that may mean an image: its number, or the end of its path, with the file's ending or without."""
    found = list(by_name.get(int(image.stem), ())) if image.stem.isdecimal() else []
    for path in {image.absolute(), image.absolute().with_suffix("")}:
        found += [key for key in by_name.get(path.name, ()) if path.parts[-_parts(key) :] == PurePath(key).parts]
    return found


def _parts(key: Any) -> int:
    return 1 if isinstance(key, int) else len(PurePath(key).parts)
