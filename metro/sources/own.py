"""One's own data: pictures with a JSON file in COCO's manner, or with a CSV table of joints.

::

    people.json    {"images": [...], "people": [...]}, or
    people.csv     image, person, joint, x, y, confidence, X, Y, Z, split: a row per joint
    …/*.jpg        pictures, at the paths that these tell

=================  =======================================================================================
an image           what it is
=================  =======================================================================================
id                 a whole number
file_name          path relative to the raw data
width, height      pixels, as the picture is stored
camera             optional: fx, fy, cx, cy in pixels; distortion (4, 5 or 8 numbers, OpenCV's order) and lens
**a person**
id, image_id       whole numbers; the id is `Record.person`
box                optional: x, y, width, height of the square's box as it is to be used, or "auto"
keypoints_2d       optional: {NAME: [x, y] or [x, y, confidence]}, pixels
keypoints_3d       optional: {NAME: [x, y, z]}, metres, camera frame
mesh               optional: pose_aa, betas; transl (metres), gender and model if they are known
split              train unless it says validation or test
=================  =======================================================================================

`docs/own-data.md` has the rules in full, and examples. Names of joints are J24's or HAND21's, pixel (0, 0) is the
middle of the first one, and the box "auto" is that of the 2D joints in the picture, × 1.2. Errors name the place:
`people[3].keypoints_2d.R_Wrist` counts people from 0, and lines of a CSV file count from 1.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from metro.body.figure import HAND, Figure, figure_of
from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Record
from metro.errors import MetroError
from metro.files import nearest, readable
from metro.options import OwnOptions
from metro.sources.boxes import around
from metro.sources.formats.stream import items
from metro.sources.pictures import size_of
from metro.sources.source import RawFile, Row, Survey, root_of, whose_parameters
from metro.words import BodyKind, Gender

LICENCE = "your own"
SITE = "your own"

REMEDY = "docs/own-data.md says what it must hold"
BOX_SCALE = 1.2
SAMPLE = 100
"""People that the survey looks at."""
COLUMNS = ("image", "person", "joint", "x", "y", "confidence", "X", "Y", "Z", "split")
NEEDED = ("image", "person", "joint", "x", "y")
SPLITS = ("train", "validation", "test")


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not name.isprintable() or path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError("must be a path below the raw data, with / between folders")
    return str(path)


_Kind = TypeVar("_Kind", bound=BaseModel)


class _Entry(BaseModel):
    """Of the JSON file: no other keys, numbers that are finite, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


_Size = Annotated[int, Field(ge=1, le=100_000)]
_Id = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Point = Annotated[list[float], Field(min_length=3, max_length=3)]
_Box = Annotated[list[float], Field(min_length=4, max_length=4)]
_Name = Annotated[str, AfterValidator(_inside)]


class _Camera(_Entry):
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: Annotated[list[float], Field(min_length=4, max_length=8)] | None = None
    lens: Literal["none", "opencv", "h36m"] = "none"


class _Image(_Entry):
    id: _Id
    file_name: _Name
    width: _Size
    height: _Size
    camera: _Camera | None = None


class _Mesh(_Entry):
    pose_aa: list[float]
    betas: Annotated[list[float], Field(min_length=10, max_length=10)]
    transl: _Point | None = None
    gender: Gender = "neutral"
    model: BodyKind | None = None


class _Person(_Entry):
    id: _Id
    image_id: _Id
    box: Annotated[_Box | None, BeforeValidator(lambda box: None if box == "auto" else box)] = None
    keypoints_2d: dict[str, Annotated[list[float], Field(min_length=2, max_length=3)]] = {}
    keypoints_3d: dict[str, _Point] = {}
    mesh: _Mesh | None = None
    split: Literal["train", "validation", "test"] = "train"


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """The file of the options; looks at the first people."""
    root, name = root_of(config), config.chosen(OwnOptions).file
    kind = name.rpartition(".")[2].lower()
    if kind not in ("json", "csv"):
        raise MetroError(f"source own: options.file is {name!r}, not a .json or .csv file; {REMEDY}")
    file = RawFile(name, (root / name).is_file(), f"your own: {REMEDY}")
    parameters: Literal["smpl", "mano"] | None = None
    if file.found and kind == "json":
        meshes = [person.get("mesh") for person in islice(items(root / name, "people.item"), SAMPLE)
                  if isinstance(person, dict)]  # fmt: skip
        if any(isinstance(mesh, dict) and mesh.get("model") in (None, "smpl", "mano") for mesh in meshes):
            parameters = "mano" if figure_of(body.kind) is HAND else "smpl"
    return Survey(dialect=kind.upper(), files=(file,), figure=None, parameters=parameters)


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row | BadRecord]:
    """People of the split, in the order of the file."""
    path = root_of(config) / config.chosen(OwnOptions).file
    make = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    yield from make(config, body, path)


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record | BadRecord]:
    """Records of people, whose labels the rows hold."""
    root, figure = root_of(config), figure_of(body.kind)
    for frame, people in groupby(rows, key=lambda row: row.frame):
        image = root / frame
        for row in people:
            try:
                yield _record(figure, image, row)
            except MetroError as err:
                yield BadRecord(f"own:{frame}#{row.person}", str(err))


def _record(figure: Figure, image: Path, row: Row) -> Record:
    labels, size = row.labels, size_of(image)
    if labels["size"] not in (None, [*size]):
        raise MetroError(f"{image}: has {size[0]} × {size[1]} pixels, {labels['place']} says {labels['size'][0]} × "
                         f"{labels['size'][1]}; annotate the picture as it is stored")  # fmt: skip
    record = Record(source="own", frame=row.frame, person=row.person, image=image)
    if labels["keypoints_2d"]:
        record.keypoints_2d = _joints(figure, labels["keypoints_2d"])
    if labels["keypoints_3d"]:
        record.joints_3d = _joints(figure, labels["keypoints_3d"])
    if labels["mesh"]:
        mesh = labels["mesh"]
        record.pose_aa, record.betas = np.array(mesh["pose_aa"]), np.array(mesh["betas"])
        record.transl = np.array(mesh["transl"]) if mesh["transl"] else None
        record.gender, record.mesh_origin = mesh["gender"], "fit"
    if camera := labels["camera"]:
        fx, fy, cx, cy = (camera[name] for name in ("fx", "fy", "cx", "cy"))
        record.intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        record.lens = camera["lens"]
        if camera["distortion"]:
            record.distortion = np.zeros(8)
            record.distortion[: len(camera["distortion"])] = camera["distortion"]
    if labels["box"] is None:
        points = np.zeros((0, 3)) if record.keypoints_2d is None else record.keypoints_2d
        record.box = around(points[points[:, 2] > 0, :2], BOX_SCALE, size)
        if record.box is None:
            raise MetroError(f"{labels['place']}: needs a box: fewer than two of its 2D joints are in the picture")
    else:
        record.box = np.array(labels["box"])
    return record


def _joints(figure: Figure, points: dict[str, list[float]]) -> np.ndarray:
    """Joints in the order of the figure: those that are named, with their confidence last."""
    names = JOINT_SETS[figure.labels]
    out = np.zeros((len(names), len(next(iter(points.values())))))
    for name, point in points.items():
        out[names.index(name)] = point if point[-1] > 0 else 0
    return out


def _json_rows(config: DatasetConfig, body: BodyConfig, path: Path) -> Iterator[Row | BadRecord]:
    name = path.relative_to(root_of(config)).as_posix()
    images: dict[int, dict[str, Any] | str] = {}  # or what is wrong with one
    for n, entry in enumerate(items(path, "images.item")):
        try:
            image = _checked(_Image, entry, f"images[{n}]")
            _check_lens(image.camera, f"images[{n}].camera")
        except MetroError as err:
            if isinstance(entry, dict) and isinstance(entry.get("id"), int):
                images.setdefault(entry["id"], str(err))
            else:
                yield BadRecord(f"own:{name}", str(err))
            continue
        again = f"images[{n}].id: {image.id} is the id of an image before it"
        images[image.id] = again if image.id in images else image.model_dump()
    check_model = _model_check(config, body)
    known: set[int] = set()
    for n, entry in enumerate(items(path, "people.item")):
        place = f"people[{n}]"
        try:
            person = _checked(_Person, entry, place)
            _check_person(figure_of(body.kind), person, place)
            found = images.get(person.image_id, f"{place}.image_id: there is no image {person.image_id}")
            if isinstance(found, str):
                raise MetroError(found)
            if person.id in known:
                raise MetroError(f"{place}.id: {person.id} is the id of a person before it")
        except MetroError as err:
            yield BadRecord(f"own:{name}", str(err))
            continue
        known.add(person.id)
        if person.split != config.split:
            continue
        if person.mesh is not None:
            check_model(person.mesh.model, f"{path}: {place}.mesh")
        yield Row(found["file_name"], person.id, found["file_name"], {
            "place": f"{name}: {place}",
            "size": [found["width"], found["height"]],
            "camera": found["camera"],
            "box": person.box,
            "keypoints_2d": {joint: [*point, 1.0][:3] for joint, point in person.keypoints_2d.items()},
            "keypoints_3d": {joint: [*point, 1.0] for joint, point in person.keypoints_3d.items()},
            "mesh": person.mesh and person.mesh.model_dump(),
        })  # fmt: skip


def _checked(kind: type[_Kind], entry: Any, place: str) -> _Kind:
    """An entry of the JSON file; the error names the first place that is wrong."""
    try:
        return kind.model_validate(entry)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in first["loc"])
    if first["type"] == "extra_forbidden":
        inner: dict[str, type[BaseModel]] = {"camera": _Camera, "mesh": _Mesh}
        of = inner.get(str(first["loc"][0]), kind) if len(first["loc"]) > 1 else kind
        problem = f"is no field of it; {nearest(_shown(str(first['loc'][-1])), of.model_fields)}"
    elif first["type"] == "missing":
        problem = "is missing"
    else:
        said = first["msg"].removeprefix("Value error, ")
        problem = f"{said[:1].lower()}{said[1:]}"
    raise MetroError(f"{place}{where}: {problem}".replace("\n", " "))


def _check_lens(camera: _Camera | None, place: str) -> None:
    if camera is None:
        return
    if (camera.distortion is None) != (camera.lens == "none"):
        raise MetroError(f"{place}: distortion and lens (opencv, h36m) go together")
    if camera.distortion is not None and len(camera.distortion) not in (4, 5, 8):
        raise MetroError(f"{place}.distortion: has {len(camera.distortion)} numbers, not 4, 5 or 8")


def _check_person(figure: Figure, person: _Person, place: str) -> None:
    """What the figure decides, and what a person must have."""
    names = JOINT_SETS[figure.labels]
    for field in ("keypoints_2d", "keypoints_3d"):
        for joint in getattr(person, field):
            if joint not in names:
                raise MetroError(f"{place}.{field}.{_shown(joint)}: is no joint of {figure.labels}; "
                                 f"{nearest(_shown(joint), names)}")  # fmt: skip
    for joint, point in person.keypoints_2d.items():
        if len(point) == 3 and not 0 <= point[2] <= 1:
            raise MetroError(f"{place}.keypoints_2d.{joint}[2]: the confidence is {point[2]:g}, not within 0 and 1")
    if person.box is not None and not min(person.box[2:]) > 0:
        raise MetroError(f"{place}.box: is {person.box[2]:g} × {person.box[3]:g} pixels large")
    if person.mesh is not None and len(person.mesh.pose_aa) != figure.pose_size:
        raise MetroError(f"{place}.mesh.pose_aa: has {len(person.mesh.pose_aa)} numbers, not {figure.pose_size}")
    if not (person.keypoints_2d or person.keypoints_3d or person.mesh):
        raise MetroError(f"{place}: has neither keypoints_2d, keypoints_3d nor a mesh")


def _shown(name: str) -> str:
    return (name if name.isprintable() else ascii(name))[:80]


def _model_check(config: DatasetConfig, body: BodyConfig) -> Callable[[str | None, str], None]:
    """A check that a mesh belongs to the body of the settings; one that tells no model belongs to the licensed one."""
    licensed = figure_of(body.kind).licensed
    plain = Survey(dialect="", files=(), parameters="mano" if licensed == "mano" else "smpl")
    usual = whose_parameters(config, plain)

    def check(model: str | None, place: str) -> None:
        whose = model or usual
        if whose != body.kind and config.supervision == "mesh":
            said = "" if model else " (it tells no `model`)"
            raise MetroError(f"{place}: is one of {whose}{said}, body.kind is {body.kind}; set body.kind: {whose}, "
                             "or supervision: joints_3d of the dataset, which leaves meshes out")  # fmt: skip

    return check


def _csv_rows(config: DatasetConfig, body: BodyConfig, path: Path) -> Iterator[Row | BadRecord]:
    name, figure = path.relative_to(root_of(config)).as_posix(), figure_of(body.kind)
    known: set[tuple[str, str]] = set()
    for key, group in groupby(_csv_lines(path), key=lambda line: (line[1]["image"], line[1]["person"])):
        lines = list(group)
        place = f"line {lines[0][0]}"
        try:
            if key in known:
                raise MetroError(f"{place}: person {key[1]!r} of {key[0]!r} comes again after others; keep their lines "
                                 "together")  # fmt: skip
            known.add(key)
            frame, person, labels = _csv_person(figure, lines)
        except MetroError as err:
            yield BadRecord(f"own:{name}", str(err))
            continue
        if (lines[0][1].get("split") or "train") == config.split:
            yield Row(
                frame, person, frame, {"place": f"{name}: {place}", "size": None, "camera": None, "box": None, **labels}
            )


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and cells of each line."""
    with readable(path, REMEDY), path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.reader(file, strict=True)
        try:
            header = next(table, [])
            for column in header:
                if column not in COLUMNS or header.count(column) > 1:
                    hint = "twice" if column in COLUMNS else nearest(_shown(column), COLUMNS)
                    raise MetroError(
                        f"{path}, line 1: column {_shown(column)!r}: {hint}; columns are set apart by commas"
                    )
            for column in NEEDED:
                if column not in header:
                    raise MetroError(f"{path}, line 1: has no column {column}; {REMEDY}")
            for cells in table:
                if len(cells) not in (0, len(header)):
                    raise MetroError(f"{path}, line {table.line_num}: has {len(cells)} cells, the first line has "
                                     f"{len(header)}")  # fmt: skip
                if cells:
                    yield table.line_num, dict(zip(header, cells, strict=True))
        except csv.Error as err:
            raise MetroError(f"{path}, line {table.line_num}: {err}; {REMEDY}") from None


def _csv_person(
    figure: Figure, lines: list[tuple[int, dict[str, str]]]
) -> tuple[str, int, dict[str, dict[str, list[float]] | None]]:
    """Picture, number and joints of a person."""
    flat: dict[str, list[float]] = {}
    space: dict[str, list[float]] = {}
    known: set[str] = set()
    names = JOINT_SETS[figure.labels]
    for number, cells in lines:
        place = f"line {number}"
        try:
            frame, person, joint = _inside(cells["image"]), int(cells["person"]), cells["joint"]
            if abs(person) >= 2**63:
                raise ValueError("the number is too large")
        except ValueError as err:
            raise MetroError(f"{place}: image or person: {_shown(str(err))}") from None
        if joint not in names:
            raise MetroError(f"{place}: joint {_shown(joint)!r} is none of {figure.labels}; "
                             f"{nearest(_shown(joint), names)}")  # fmt: skip
        if joint in known:
            raise MetroError(f"{place}: joint {joint} comes twice")
        if cells.get("split", "") not in ("", *SPLITS) or cells.get("split") != lines[0][1].get("split"):
            raise MetroError(f"{place}: split is {_shown(cells['split'])!r}; give all lines of a person one of "
                             f"{', '.join(SPLITS)}")  # fmt: skip
        known.add(joint)
        if point := _csv_point(place, cells, ("x", "y")):
            sure = cells.get("confidence", "") or "1"
            flat[joint] = [*point, _csv_number(place, "confidence", sure)]
            if not 0 <= flat[joint][2] <= 1:
                raise MetroError(f"{place}: confidence is {_shown(sure)}, not within 0 and 1")
        if point := _csv_point(place, cells, ("X", "Y", "Z")):
            space[joint] = [*point, 1.0]
    if not (flat or space):
        raise MetroError(f"{place}: person {person} has no joint with coordinates")
    return frame, person, {"keypoints_2d": flat, "keypoints_3d": space, "mesh": None}


def _csv_point(place: str, cells: dict[str, str], columns: tuple[str, ...]) -> list[float] | None:
    """A point, unless all of its cells are empty."""
    given = [cells.get(column, "") for column in columns]
    if not any(given):
        return None
    return [_csv_number(place, column, text) for column, text in zip(columns, given, strict=True)]


def _csv_number(place: str, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise MetroError(f"{place}: {column} is {_shown(text)!r}, which is no number")
    return number
