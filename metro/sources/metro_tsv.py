"""METRO's own container: tab-separated files that a YAML file names, read row by row where their offsets point.

::

    train.yaml             img, label, hw, linelist: the files; composite: true if these are lists of files
    NAME.img.tsv           key, base64 of the picture: a row per person
    NAME.label.tsv         key, JSON list of one object
    NAME.hw.tsv            key, height and width; not read, pictures tell their size
    NAME.img.lineidx, …    byte at which each row begins; every TSV has one, and nothing else is read of it than the
                           rows of the line list
    NAME.linelist.tsv      numbers of the rows that belong to the set; of a composite set source and row

================================  ============================================================================
key of a label                    body, and hand where it differs
================================  ============================================================================
center, scale                     pixels; side of the crop / 200, which holds the factor 1.2 already
2d_joints, has_2d_joints          24 × 3 or 1 × 24 × 3: pixels, confidence. Hand: 21 × 3
3d_joints, has_3d_joints          24 × 4 or 1 × 24 × 4: metres, visibility. Hand: 21 × 4
pose, betas, has_smpl             72 and 10: SMPL. Hand: 48 and 10, MANO, relative to its mean pose
gender                            m, f or n; often missing, and METRO reads it nowhere: `gender: neutral` of the dataset
hrnet_2d_joints, …                detections; not read
================================  ============================================================================

Where people stand in the camera's frame no label says: joints have a root of their own, meshes no translation. 2D
joints of Human3.6M are projections without the lens. Rows that are listed more than once, to be drawn more often,
count once. FreiHAND's test rows hold placeholders, joints of zeros and parameters of ones, and so no labels.
"""

from __future__ import annotations

import base64
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.body.figure import BODY, HAND, Figure, figure_of
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.files import GET_AGAIN, read_yaml, readable
from metro.options import MetroTsvOptions
from metro.sources.labels import numbers
from metro.sources.source import RawFile, Row, Survey, root_of

LICENCE = "that of the sets it was made from"
SITE = "https://github.com/microsoft/MeshTransformer/blob/main/docs/DOWNLOAD.md"

Array = NDArray[np.float64]

LONGEST = 64 << 20
"""Bytes of a row at most: a picture of 48 MB."""
LONGEST_NUMBER = 100
"""Bytes of a line of numbers."""
GENDERS = {"m": "male", "f": "female", "n": "neutral", "male": "male", "female": "female", "neutral": "neutral"}

_UNFIT = (TypeError, ValueError, OverflowError, RecursionError, OSError)
"""What a row leads to that is not as it should be."""


class _Files(NamedTuple):
    """What the YAML file names: paths relative to the raw data; a picture and a label file per source."""

    yaml: str
    lists: tuple[str, ...]
    img: tuple[str, ...]
    label: tuple[str, ...]
    linelist: str | None
    composite: bool


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """The files that the YAML file names, and what the first label is of."""
    root, options = root_of(config), config.chosen(MetroTsvOptions)
    if not (root / options.yaml).is_file():
        yaml = RawFile(options.yaml, False, f"a set of {SITE}, or options.yaml of the dataset")
        return Survey(dialect="TSV", files=(yaml,), figure=None)
    named = _named(root, options.yaml)
    beside = [_offsets_of(path) for path in (*named.img, *named.label)]
    annotations = [named.yaml, *named.lists, *named.label, *beside, *([named.linelist] if named.linelist else [])]
    # False for what can be no file's name, where `Path.is_file` raises.
    files = tuple(RawFile(path, os.path.isfile(root / path), SITE) for path in dict.fromkeys(annotations))
    missing = tuple(f"{path} ({SITE})" for path in dict.fromkeys(named.img) if not os.path.isfile(root / path))
    seen = _figure(root, named) if all(file.found for file in files) else None
    figure = seen or figure_of(body.kind)
    return Survey(
        dialect=f"composite of {len(named.img)} sources" if named.composite else "single",
        files=files,
        missing=missing,
        figure=None if seen is None else "hand" if seen is HAND else "body",
        parameters="mano" if figure is HAND else "smpl",
        notes=() if named.linelist else ("no line list: all rows",),
    )


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row | Left | BadRecord]:
    """Rows of the line list, in its order."""
    root = root_of(config)
    named = _named(root, config.chosen(MetroTsvOptions).yaml)
    places = [_Places(root, img, label) for img, label in zip(named.img, named.label, strict=True)]
    for line, (source, row) in enumerate(_listed(root, named, places), 1):
        if not 0 <= source < len(places):
            yield BadRecord(f"metro_tsv:{named.linelist}, line {line}", f"source {source} of {len(places)}")
        elif not 0 <= row < len(places[source].img):
            held = f"which has {len(places[source].img)} rows, from 0"
            yield BadRecord(f"metro_tsv:{named.linelist}, line {line}", f"row {row} of {named.img[source]}, {held}")
        elif places[source].seen[row]:
            yield Left("listed again")
        else:
            places[source].seen[row] = True
            files = [named.img[source], named.label[source]]
            begins = [int(places[source].img[row]), int(places[source].label[row])]
            yield Row(f"{named.img[source]}@{row}", 0, named.img[source], [*files, *begins])


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record | Left | BadRecord]:
    """Records of rows; each file is opened once."""
    root, figure = root_of(config), figure_of(body.kind)
    with ExitStack() as stack:
        opened: dict[str, IO[bytes]] = {}
        for row in rows:
            img, label, *begins = row.labels
            for name in (img, label):
                if name not in opened:
                    with readable(root / name, GET_AGAIN):
                        opened[name] = stack.enter_context((root / name).open("rb"))
            try:
                picture, said = (_cells(opened[name], at) for name, at in zip((img, label), begins, strict=True))
                if picture[0] != said[0]:
                    raise ValueError(f"the keys of its picture and its label are {picture[0]!r} and {said[0]!r}")
                record = _record(config, figure, row.frame, picture[-1], _label(said[-1]))
            except _UNFIT as err:
                yield BadRecord(f"metro_tsv:{row.frame}#0", str(err))
                continue
            yield record if record.has_2d or record.has_3d or record.has_mesh else Left("no labels")


class _Places:
    """Where the rows of a source begin, and which of them were listed."""

    def __init__(self, root: Path, img: str, label: str) -> None:
        self.img, self.label = (_offsets(root / _offsets_of(name)) for name in (img, label))
        if len(self.img) != len(self.label):
            raise MetroError(f"{root / img}: has {len(self.img)} rows, {label} {len(self.label)}, by their .lineidx "
                             f"files; {GET_AGAIN}")  # fmt: skip
        self.seen = bytearray(len(self.img))


def _named(root: Path, name: str) -> _Files:
    """The files of a set, all within the raw data."""
    path = root / name
    content = read_yaml(path, GET_AGAIN)
    if not isinstance(content, dict):
        raise MetroError(f"{path}: is no list of files by name (img, label, hw, linelist); {GET_AGAIN}")
    composite = content.get("composite", False)
    if not isinstance(composite, bool):
        raise MetroError(f"{path}: composite is {composite!r}, not true or false; {GET_AGAIN}")

    def file(key: str) -> str:
        if not isinstance(content.get(key), str):
            raise MetroError(f"{path}: names no {key}; {GET_AGAIN}")
        return _within(root, name, content[key], f"{path}: {key}")

    def listed(key: str) -> tuple[str, ...]:
        where = root / file(key)
        with readable(where, GET_AGAIN):
            lines = where.read_text("utf-8").split("\n")
        return tuple(_within(root, name, line.strip(), str(where)) for line in lines if line.strip())

    linelist = file("linelist") if composite or content.get("linelist") is not None else None
    if not composite:
        return _Files(name, (), (file("img"),), (file("label"),), linelist, False)
    lists = [file("img"), file("label")]
    absent = next((item for item in lists if not os.path.isfile(root / item)), None)
    if absent:
        raise MetroError(f"{root / absent}: missing; {path} names it; {GET_AGAIN}")
    img, label = listed("img"), listed("label")
    if len(img) != len(label) or not img:
        raise MetroError(f"{path}: img lists {len(img)} files, label {len(label)}; {GET_AGAIN}")
    return _Files(name, tuple(lists), img, label, linelist, True)


def _within(root: Path, yaml: str, name: str, where: str) -> str:
    """A path that the YAML file or a list names, which is relative to the folder of that file, relative to the raw
    data."""
    path = os.path.normpath(os.path.join(os.path.abspath(root), os.path.dirname(yaml), name))
    relative = os.path.relpath(path, os.path.abspath(root))
    if relative == os.pardir or relative.startswith(os.pardir + os.sep) or not name.isprintable():
        raise MetroError(f"{where}: {name!r} is not within {root}; move the files there, or set `root` of the dataset "
                         "to the folder that holds them all")  # fmt: skip
    return Path(relative).as_posix()


def _offsets_of(name: str) -> str:
    """The file with the offsets of a TSV."""
    return f"{os.path.splitext(name)[0]}.lineidx"


def _offsets(path: Path) -> array[int]:
    with readable(path, GET_AGAIN):
        begins = array("q", (int(line) for line in _lines(path)))
        if any(begin < 0 for begin in begins):
            raise ValueError("an offset is negative")
    return begins


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of numbers that are not empty."""
    with path.open("rb") as file:
        while line := file.readline(LONGEST_NUMBER):
            if len(line) == LONGEST_NUMBER:
                raise ValueError("a line is too long for a number")
            if line.strip():
                yield line


def _listed(root: Path, named: _Files, places: list[_Places]) -> Iterator[tuple[int, int]]:
    """Source and row of each line of the line list."""
    if named.linelist is None:
        yield from ((0, row) for row in range(len(places[0].img)))
        return
    path = root / named.linelist
    columns = 2 if named.composite else 1
    with readable(path, GET_AGAIN):
        for number, line in enumerate(_lines(path), 1):
            cells = line.split(b"\t")
            if len(cells) != columns or not all(cell.strip().isdigit() for cell in cells):
                what = "source and row, with a tab between" if named.composite else "the number of a row"
                raise MetroError(f"{path}, line {number}: is not {what}; {GET_AGAIN}")
            yield (0 if columns == 1 else int(cells[0])), int(cells[-1])


def _cells(file: IO[bytes], begin: int) -> list[str]:
    """Cells of the row that begins at a byte."""
    if begin:
        file.seek(begin - 1)
        if file.read(1) != b"\n":
            raise ValueError(f"no row of {file.name} begins at byte {begin}: its .lineidx is of another file")
    else:
        file.seek(0)
    line = file.readline(LONGEST)
    cells = line.decode("utf-8").rstrip("\r\n").split("\t")
    if len(line) == LONGEST or len(cells) < 2:
        raise ValueError(f"the row of {file.name} at byte {begin} is not a key and a value")
    return cells


def _label(text: str) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], dict):
        raise ValueError("its label is not a list of one object, a person")
    return content[0]


def _figure(root: Path, named: _Files) -> Figure | None:
    """What the first row of the first source is a label of; None if that does not tell."""
    path = root / named.label[0]
    with readable(path, GET_AGAIN), path.open("rb") as file:
        try:
            label = _label(_cells(file, 0)[-1])
            sizes = [np.size(label.get("pose", ())), np.size(label.get("2d_joints", ()))]
        except _UNFIT:
            return None
    found = [figure for figure in (BODY, HAND) if sizes[0] == figure.pose_size or sizes[1] == 3 * figure.num_labels]
    return found[0] if len(found) == 1 else None


def _record(config: DatasetConfig, figure: Figure, frame: str, picture: str, label: dict[str, Any]) -> Record:
    """A record, which lacks labels where there are none; raises a TypeError or ValueError for a label that is wrong."""
    record = Record(
        source="metro_tsv",
        frame=frame,
        image=base64.b64decode(picture, validate=True),
        center=_labelled(label, "center", 2),
        scale=float(_labelled(label, "scale")),
    )
    joints = figure.num_labels
    if _says(label, "has_2d_joints"):
        record.keypoints_2d = _known(_labelled(label, "2d_joints", joints, 3))
    if _says(label, "has_3d_joints"):
        record.joints_3d = _known(_labelled(label, "3d_joints", joints, 4))
    if _says(label, "has_smpl"):
        pose, betas = _labelled(label, "pose", figure.pose_size), _labelled(label, "betas", 10)
        if not ((pose == 1).all() and (betas == 1).all()):
            gender = "neutral" if config.gender == "neutral" else GENDERS.get(str(label.get("gender", "n")).lower())
            if gender is None:
                raise ValueError(f"gender is {label['gender']!r}, not m, f or n")
            record.pose_aa, record.betas, record.gender, record.mesh_origin = pose, betas, gender, "fit"
    return record


def _says(label: dict[str, Any], name: str) -> bool:
    """Whether a label has what a key is about: 1 or 0, or a list of that."""
    value = np.asarray(label.get(name))
    if value.size != 1 or value.dtype.kind not in "biuf" or value.item() not in (0, 1):
        raise ValueError(f"{name} is {label.get(name)!r}, not 0 or 1"[:200])
    return bool(value.item())


def _labelled(label: dict[str, Any], name: str, *shape: int) -> Array:
    """Numbers of a shape, which may be in one more list."""
    value = np.array(label.get(name), np.float64)
    return numbers(value[0] if value.shape == (1, *shape) else value, name, *shape)


def _known(joints: Array) -> Array | None:
    """Joints with zeros where nothing is annotated; none if that is everywhere, or all are placeholders at zero."""
    joints = np.where(joints[:, -1:] > 0, joints, 0)
    return joints if joints[:, :-1].any() else None
