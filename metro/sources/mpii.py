"""MPII: photographs of everyday activities with 16 joints of people, in 2D.

::

    images/000001163.jpg
    annot/train.json, annot/valid.json      HRNet's conversion, also in the folder itself
    annot/train.h5, annot/valid.h5          the conversion of the stacked hourglass, also in the folder itself
    mpii_human_pose_v1_u12_1.mat            the official annotations, also in mpii_human_pose_v1_u12_2/ and annot/

The first of these that there is for the split is read; the official file does not tell which of its people others
validate on, and so is read for training alone.

========  ==============================================================================================================
.mat      `RELEASE`: `img_train`; `annolist` with `image.name` and `annorect` of `objpos` x, y, `scale` (person height
          over 200 px) and `annopoints.point` of `id` 0 to 15, x, y. One struct, several or none, fields missing
.h5       `imgname`, `person`, `center` N × 2, `scale`, `part` N × 16 × 2; 22,246 and 2,958 people
.json     list of `image`, `center`, `scale`, `joints` 16 × 2, `joints_vis` 16
unused    `is_visible` and `visible` (hidden joints are annotated all the same), head boxes, `normalize`, `torsoangle`
========  ==============================================================================================================

- All coordinates count from 1, which neither the .h5 nor METRO's own files undo: here they are less by 1.
- The crop is the one that the .h5 states and METRO takes: its side is 200 px · 1.25 · scale of the .mat, its centre
  15 px · scale below `objpos`. Nothing is added to it. The .h5 alone holds the numbers after that change.
- The .h5 cuts fractions of joints off. The pixel that is lost with them cannot be had back.
- A joint is annotated if it is there and neither coordinate is below 1, the first pixel. That takes all marks of
  missing joints, (0, 0) and (-1, -1), and what lies beyond the picture's first row or column, as the rule of GraphCMR,
  SPIN and METRO does that keeps 14,810 of train.h5.
- `person` is the number among the people of the picture. The .json has lost it: there it counts those it holds.

Licence and site are in `LICENCE` and `SITE`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.files import GET_AGAIN, readable
from metro.options import MpiiOptions
from metro.sources.formats.mat import number, read_mat, structs
from metro.sources.formats.stream import items
from metro.sources.labels import in_j24, numbers
from metro.sources.source import Check, RawFile, Row, Survey, root_of

LICENCE = "research only, commercial use is not allowed; the photographs are frames of videos of others"
SITE = "http://human-pose.mpi-inf.mpg.de"
EXPECTED = 14_810
"""People of train.h5 with all joints (METRO)."""

OFFICIAL = "mpii_human_pose_v1_u12_1.mat"
BELOW, LARGER = 15.0, 1.25
"""How the crop differs from `objpos` and `scale`: its centre is so many pixels times the scale further down."""
MOST = 1_000_000
"""People that an .h5 is believed to hold."""

Array = NDArray[np.float64]

_JOINTS = len(JOINT_SETS["MPII16"])
_ORIGINS = {
    ".json": "the README of https://github.com/leoxiaobin/deep-high-resolution-net.pytorch",
    ".h5": "https://github.com/anewell/pose-hg-train, folder data/mpii/annot",
    ".mat": f"mpii_human_pose_v1_u12_2.zip of {SITE}",
}


class _Person(NamedTuple):
    """What an annotation says, in its own pixels, that count from 1."""

    picture: str
    number: int | None
    """Among the people of the picture; None where they are to be counted."""
    center: Array
    """(2,) of the crop."""
    scale: float
    """Side of the crop over 200 px; nan if it has none."""
    joints: Array
    """(16, 2), nan where there is none."""


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """By names; an .h5 is opened."""
    root, name = root_of(config), _found(config)
    train = config.split == "train"
    if name is None:
        lacking = OFFICIAL if train else "annot/valid.h5"
        file = RawFile(lacking, False, _ORIGINS[Path(lacking).suffix])
        return Survey(dialect="no annotations", files=(file,))
    kind = Path(name).suffix
    checks, notes = [], []
    if kind == ".h5":
        cut = [bool(np.all(np.mod(row[-1], 1) == 0)) for _, row in _h5_people(root / name)]
        checks.append(
            Check("joints of the .h5 are whole pixels", all(cut), f"those of {sum(cut)} of {len(cut)} people")
        )
    if kind == ".mat":
        notes.append("the official file does not tell the people that others validate on (annot/valid.h5): they train")
    is_metro = kind == ".h5" and train and config.chosen(MpiiOptions).min_joints == _JOINTS
    return Survey(
        dialect={".json": "HRNet's JSON", ".h5": "HDF5 of the stacked hourglass", ".mat": "official"}[kind],
        files=(RawFile(name, True, _ORIGINS[kind]),),
        missing=() if (root / "images").is_dir() else (f"images (mpii_human_pose_v1.tar.gz of {SITE})",),
        expected=EXPECTED if is_metro else None,
        checks=tuple(checks),
        notes=tuple(notes),
    )


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row | Left | BadRecord]:
    """People in the order of the file. Labels are centre, scale and 16 × (x, y, confidence), pixels from 0."""
    name, least = _found(config), config.chosen(MpiiOptions).min_joints
    if name is None:
        raise MetroError(f"{config.root}: no annotations of split {config.split}; `metro data doctor mpii` tells which")
    path = root_of(config) / name
    people, parse = {".json": (_json_people, _of_json), ".h5": (_h5_people, _of_h5), ".mat": (_mat_people, _of_mat)}[
        path.suffix
    ]
    counted: Counter[str] = Counter()
    known: set[tuple[str, int]] = set()
    for where, content in people(path):
        try:
            person = parse(content)
            if Path(person.picture).name != person.picture or not person.picture.isprintable():
                raise ValueError("names no picture")
        except (ArithmeticError, TypeError, ValueError) as err:
            yield BadRecord(f"mpii:{path.name}, {where}", str(err))
            continue
        index = counted[person.picture] if person.number is None else person.number
        counted[person.picture] += 1
        seen_J = np.all(person.joints >= 1, axis=1)
        if (person.picture, index) in known:
            yield BadRecord(f"mpii:{path.name}, {where}", f"is person {index} of {person.picture} again")
        elif not person.scale > 0 or person.center[0] == -1:
            yield Left("no position or scale")
        elif seen_J.sum() < least:
            yield Left(f"fewer than {least} joints annotated")
        else:
            joints_J3 = np.column_stack([np.where(seen_J[:, None], person.joints - 1, 0), seen_J])
            frame = f"images/{person.picture}"
            yield Row(frame, index, frame, [(person.center - 1).tolist(), person.scale, joints_J3.tolist()])
        known.add((person.picture, index))


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record]:
    """Records of the people."""
    root = root_of(config)
    for frame, people in groupby(rows, attrgetter("frame")):
        image = root / frame
        for row in people:
            center, scale, joints = row.labels
            joints_J3 = np.array(joints)
            yield Record(
                source="mpii",
                frame=frame,
                person=row.person,
                image=image,
                center=np.array(center),
                scale=scale,
                keypoints_2d=in_j24("MPII16", joints_J3[:, :2], joints_J3[:, 2]),
            )


def _found(config: DatasetConfig) -> str | None:
    """The annotations that are read, relative to the root."""
    if config.split == "test":
        raise MetroError("source mpii: joints of the test split are not published; set split: train or validation")
    root, part = root_of(config), "train" if config.split == "train" else "valid"
    names = [f"{folder}{part}{kind}" for kind in (".json", ".h5") for folder in ("annot/", "")]
    if config.split == "train":
        names += [f"{folder}{OFFICIAL}" for folder in ("", "mpii_human_pose_v1_u12_2/", "annot/")]
    return next((name for name in names if (root / name).is_file()), None)


def _json_people(path: Path) -> Iterator[tuple[str, Any]]:
    return ((f"entry {k}", entry) for k, entry in enumerate(items(path, "item")))


def _of_json(entry: Any) -> _Person:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise ValueError("names no picture")
    joints_J2 = numbers(entry.get("joints"), "joints", _JOINTS, 2)
    annotated_J = numbers(entry.get("joints_vis"), "joints_vis", _JOINTS) > 0
    scale = float(numbers(entry.get("scale"), "scale"))
    center = numbers(entry.get("center"), "center", 2)
    return _Person(entry["image"], None, *_crop(center, scale), np.where(annotated_J[:, None], joints_J2, np.nan))


def _h5_people(path: Path) -> Iterator[tuple[str, Any]]:
    with readable(path, GET_AGAIN), h5py.File(path, "r") as file:
        columns = [
            _column(file, "imgname", "SO"),
            _column(file, "person", "iuf"),
            _column(file, "center", "iuf", 2),
            _column(file, "scale", "iuf"),
            _column(file, "part", "iuf", _JOINTS, 2),
        ]
        if len({len(column) for column in columns}) > 1:
            raise ValueError("its columns differ in length")
    yield from ((f"row {k}", row) for k, row in enumerate(zip(*columns, strict=True)))


def _column(file: h5py.File, name: str, kinds: str, *shape: int) -> np.ndarray:
    stored = file.get(name)
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in kinds or len(stored.shape) != 1 + len(shape):
        raise ValueError(f"has no column {name!r}")
    if stored.shape[1:] != shape or stored.shape[0] > MOST:
        raise ValueError(f"{name} has shape {stored.shape}, not N × {' × '.join(map(str, shape)) or '1'}")
    return np.asarray(stored)


def _of_h5(row: tuple[Any, ...]) -> _Person:
    name, person, center, scale, joints_J2 = row
    if not 0 <= person < MOST or int(person) != person:
        raise ValueError(f"person is {person}")
    picture = name.decode("ascii") if isinstance(name, bytes) else str(name)
    joints_J2 = np.asarray(joints_J2, np.float64)
    if not (np.isfinite(joints_J2).all() and np.isfinite(center).all() and np.isfinite(scale)):
        raise ValueError("has numbers that are not finite")
    return _Person(picture, int(person), np.asarray(center, np.float64), float(scale), joints_J2)


def _mat_people(path: Path) -> Iterator[tuple[str, Any]]:
    release = read_mat(path, ["RELEASE"])["RELEASE"]
    with readable(path, GET_AGAIN):
        (release,) = structs(release)
        pictures, train = structs(release.get("annolist")), np.atleast_1d(release.get("img_train", ())).ravel()
        if len(pictures) != len(train):
            raise ValueError(f"img_train tells of {len(train)} pictures, annolist of {len(pictures)}")
    for k in np.flatnonzero(train == 1).tolist():
        try:
            people: list[Any] = list(structs(pictures[k].get("annorect")))
        except ValueError:
            people = [None]
        for r, person in enumerate(people):
            yield f"annolist({k + 1}).annorect({r + 1})", (pictures[k].get("image"), r, person)


def _of_mat(content: tuple[Any, int, Any]) -> _Person:
    image, index, person = content
    if not isinstance(person, dict):
        raise ValueError("is no person")
    named = structs(image)
    picture = named[0].get("name") if len(named) == 1 else None
    if not isinstance(picture, str):
        raise ValueError("names no picture")
    joints_J2 = np.full((_JOINTS, 2), np.nan)
    for points in structs(person.get("annopoints")):
        for point in structs(points.get("point")):
            which, x, y = (number(point.get(key)) for key in ("id", "x", "y"))
            if which is None or which not in range(_JOINTS) or not np.isnan(joints_J2[int(which)]).all():
                raise ValueError(f"has a joint with id {which}" + ("" if which is None else ", or has it twice"))
            if x is not None and y is not None:
                joints_J2[int(which)] = numbers([x, y], "joints", 2)
    places, scale = structs(person.get("objpos")), number(person.get("scale"))
    x, y = (number(places[0].get(key)) if places else None for key in ("x", "y"))
    if x is None or y is None or scale is None:
        return _Person(picture, index, np.full(2, np.nan), np.nan, joints_J2)
    place = numbers([x, y, scale], "objpos with scale", 3)
    return _Person(picture, index, *_crop(place[:2], float(place[2])), joints_J2)


def _crop(objpos: Array, scale: float) -> tuple[Array, float]:
    """Centre and scale of the crop, which the .h5 holds, from those of the person."""
    if objpos[0] == -1:
        return objpos, scale  # the mark of what is missing
    return objpos + np.array([0, BELOW * scale]), LARGER * scale
