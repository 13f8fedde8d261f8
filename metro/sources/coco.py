"""COCO: photographs with 2D joints of people, of the releases of 2014 and 2017, and SMPLify's fits to them.

::

    annotations/person_keypoints_train2017.json   also …_val2017, …_train2014, …_val2014
    train2017/000000000009.jpg                    or images/train2017/…
    train2014/COCO_train2014_000000000009.jpg
    coco_smplify_train.json                       the fits to train2017, where `options.fits` says

==================  ====================================================================================================
images              `id`, `file_name`
annotations         `id`, `image_id`; `bbox` x, y, w, h, edges of pixels; `keypoints` 17 × (x, y, v), centres of
                    pixels, v 0: not annotated, 1: hidden, 2: visible; `num_keypoints`; `iscrowd`
annotations, unused `segmentation` (polygons, or run lengths of a crowd), `area`, `category_id`
fits                by annotation id: `smpl_param` with `pose` 72 and `shape` 10, `cam_param` with `s` and `t` 2; or
                    `pose`, `shape` and `cam` without the level between
==================  ====================================================================================================

- Annotated joints have confidence 1, hidden ones too. The box is the annotated one × 1.2. Crowds, people without joints
  and boxes without extent are left out; pictures that show nobody else need not be there.
- Fits know no depth: Pose2Mesh's code takes s · (x, y) + t, metres times pixels per metre, for pixels of the whole
  picture. Such a record has pose and shape in the camera's frame, and neither translation nor intrinsics. People
  whose id is missing among the fits, and those whose fit holds NaN, have 2D joints alone.

`keep: limbs`, all 12 joints of arms and legs, is the rule of HMR, GraphCMR and SPIN. METRO's list of 40,000 people was
not published. Its authors say in MeshTransformer#30 that they took people with at least 12 visible keypoints and
followed GraphCMR, which are two rules: `40k` is the first to the letter, joints marked visible (v = 2).
Licence and site are in `LICENCE` and `SITE`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metro.body.joints import JOINT_SETS, index_map
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.options import CocoOptions
from metro.sources.bodies import wrapped
from metro.sources.boxes import edges_to_centres, enlarged
from metro.sources.formats.stream import entries, items
from metro.sources.labels import in_j24
from metro.sources.shelf import Shelf
from metro.sources.source import Check, RawFile, Row, Survey, root_of

LICENCE = "annotations CC BY 4.0; each photograph under the Flickr licence that the annotations name for it"
SITE = "https://cocodataset.org/#download"
FITS_SITE = "https://github.com/hongsukchoi/Pose2Mesh_RELEASE"

Array = NDArray[np.float64]

BOX_SCALE = 1.2
VISIBLE_40K = 12
SAMPLE = 2000
"""Annotations, and fits, that the survey looks into."""
FARTHEST_OFF = 0.5
"""Median distance between the place of a fit and the box's middle, over its side: beyond, `t` is something else."""
PICTURES_2017 = {"train": 64_115, "val": 2_693}
"""Pictures with annotated joints."""

_LIMBS = index_map("COCO17", [name for name in JOINT_SETS["J14"] if name not in ("Neck", "Head")])


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """By names; of annotations and fits the first few are compared."""
    root, options = root_of(config), config.chosen(CocoOptions)
    part = _part(config)
    annotations, pictures = _annotations(config), _pictures(config)
    files = [
        RawFile(annotations, (root / annotations).is_file(), f"annotations_trainval{options.year}.zip of {SITE}"),
    ]
    notes, fits, checks = [], _fits(config), []
    if fits is not None:
        files.append(RawFile(str(fits), (root / fits).is_file(), f"the README of {FITS_SITE}"))
        if all(file.found for file in files):
            checks.append(_where_fits_lie(root / annotations, root / fits))
    elif config.supervision == "mesh":
        notes.append("no fits: records have 2D joints alone, from which the stage `fit` makes meshes")
    if options.year == 2017:
        notes.append(f"{PICTURES_2017[part]:,} pictures of the complete set have annotated joints; how many people "
                     "a rule keeps is not published")  # fmt: skip
    missing = () if (root / pictures).is_dir() else (f"{pictures} ({part}{options.year}.zip of {SITE})",)
    return Survey(
        dialect=f"release of {options.year}" + (", with fits" if fits is not None else ""),
        files=tuple(files),
        missing=missing,
        parameters=None if fits is None else "smpl",
        checks=tuple(checks),
        notes=tuple(notes),
    )


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row | Left | BadRecord]:
    """People in the order of their pictures' ids and their own. Labels are the box, the 51 numbers, and the fit."""
    root, options = root_of(config), config.chosen(CocoOptions)
    path, fits = root / _annotations(config), _fits(config)
    order: list[tuple[int, int]] = []
    with Shelf() as people, Shelf() as fitted:
        for item in items(path, "annotations.item"):
            try:
                found = _person(item, options)
            except (ArithmeticError, ValueError) as err:
                yield BadRecord(f"coco:annotation {_id_of(item)}", str(err))
                continue
            if isinstance(found, Left):
                yield found
            elif found[1] in people:
                yield BadRecord(f"coco:annotation {found[1]}", "its id is that of another before")
            else:
                order.append(found[:2])
                people[found[1]] = found[2]
        if fits is not None:
            yield from _join(root / fits, people, fitted)
        names = _names(path, {picture for picture, _ in order})
        folder = _pictures(config)
        for picture, person in sorted(order):
            name = names.get(picture)
            if person not in people:
                continue  # its fit is bad
            if name is None:
                yield BadRecord(f"coco:annotation {person}", f"image_id {picture} names no picture of the list")
                continue
            frame = f"{folder}/{name}"
            yield Row(frame, person, frame, [*people[person], fitted.get(person)])


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record]:
    """Records of the people."""
    root, options = root_of(config), config.chosen(CocoOptions)
    for frame, people in groupby(rows, attrgetter("frame")):
        image = root / frame
        for row in people:
            box, joints, fit = row.labels
            joints_J3 = np.array(joints).reshape(17, 3)
            record = Record(
                source="coco",
                frame=frame,
                person=row.person,
                image=image,
                box=enlarged(edges_to_centres(box), BOX_SCALE),
                keypoints_2d=in_j24("COCO17", joints_J3[:, :2], joints_J3[:, 2] > 0),
            )
            if fit is not None:
                pose, betas = np.split(np.array(fit), [72])
                record.pose_aa = wrapped(pose)
                record.betas = np.where(np.abs(betas).max() > options.max_beta, 0, betas)
                record.mesh_origin = "fit"
            yield record


def _part(config: DatasetConfig) -> str:
    if config.split == "test":
        raise MetroError("source coco: joints of the test split are not published; set split: train or validation")
    return "train" if config.split == "train" else "val"


def _annotations(config: DatasetConfig) -> str:
    return f"annotations/person_keypoints_{_part(config)}{config.chosen(CocoOptions).year}.json"


def _pictures(config: DatasetConfig) -> str:
    """Folder of the pictures, relative to the root."""
    folder = f"{_part(config)}{config.chosen(CocoOptions).year}"
    inside = f"images/{folder}"
    return inside if (root_of(config) / inside).is_dir() and not (root_of(config) / folder).is_dir() else folder


def _fits(config: DatasetConfig) -> Path | None:
    """The file of fits, relative to the root, if meshes are asked for."""
    return config.chosen(CocoOptions).fits if config.supervision == "mesh" else None


def _names(path: Path, wanted: set[int]) -> dict[int, str | None]:
    """Files of pictures by id; None where an id is of two, or its name is that of no file in the folder.

    The list may stand before the annotations or after them. Going through the file a second time for it, which builds
    nothing of what it passes, takes as long as the first time does for reading annotations.
    """
    names: dict[int, str | None] = {}
    for item in items(path, "images.item"):
        number = item.get("id") if isinstance(item, dict) else None
        if type(number) is int and number in wanted:
            name = item.get("file_name")
            known = isinstance(name, str) and Path(name).name == name and name.isprintable()
            names[number] = name if known and names.get(number, name) == name else None
    return names


def _id_of(item: Any) -> str:
    return repr(item.get("id") if isinstance(item, dict) else item)[:40]


def _person(item: Any, options: CocoOptions) -> tuple[int, int, list[Any]] | Left:
    """Numbers of the picture and of the person, and box and joints; or the rule that leaves the person out.

    Raises
    ------
    ArithmeticError, ValueError
        The annotation is none.
    """
    if not isinstance(item, dict):
        raise ValueError("is no annotation")
    for key in ("id", "image_id"):
        if type(item.get(key)) is not int or not 0 <= item[key] < 1 << 53:
            raise ValueError(f"{key} is no number of a {'person' if key == 'id' else 'picture'}")
    if item.get("iscrowd", 0) not in (0, 1):
        raise ValueError("iscrowd is neither 0 nor 1")
    if item.get("iscrowd"):
        return Left("a crowd")
    if item.get("num_keypoints", 1) == 0:
        return Left("no joints annotated")
    joints, box = _numbers(item.get("keypoints"), "keypoints", 51), _numbers(item.get("bbox"), "bbox", 4)
    seen = joints[2::3]
    if not {0, 1, 2}.issuperset(seen):
        raise ValueError("keypoints have a v that is not 0, 1 or 2")
    if not min(box[2:]) > 0:
        return Left("a box without extent")
    if not any(seen):
        return Left("no joints annotated")
    if options.keep == "limbs" and not all(seen[k] for k in _LIMBS):
        return Left("not all 12 limb joints annotated")
    if options.keep == "visible" and len(seen) - seen.count(0) < options.min_joints:
        return Left(f"fewer than {options.min_joints} joints annotated")
    if options.keep == "40k" and seen.count(2) < VISIBLE_40K:
        return Left(f"fewer than {VISIBLE_40K} joints marked visible")
    return item["image_id"], item["id"], [box, joints]


def _numbers(value: Any, what: str, count: int) -> list[float]:
    """Numbers as they are in the file: arrays for each of them would take longer than all the rest."""
    plain = isinstance(value, list) and len(value) == count and {int, float}.issuperset(map(type, value))
    if not plain or not math.isfinite(sum(value)):
        raise ValueError(f"{what} is not {count} finite numbers")
    return list(value)


def _join(path: Path, people: Shelf, fitted: Shelf) -> Iterator[BadRecord]:
    """Keep the fits to people; people whose fit is none go."""
    used = 0
    for key, fit in entries(path):
        person = int(key) if key.isascii() and key.isdecimal() and len(key) < 17 else -1
        if person not in people:
            continue
        used += 1
        try:
            parameters = _parameters(fit)
        except (ArithmeticError, TypeError, ValueError) as err:
            yield BadRecord(f"coco:annotation {person}", f"its fit in {path.name}: {err}")
            del people[person]
            continue
        if np.isfinite(parameters).all():
            fitted[person] = parameters.tolist()
    if not used and len(people):
        raise MetroError(f"{path}: fits nobody of these annotations; are its keys annotation ids of the same release "
                         "and split? Leave `fits` out for records without meshes")  # fmt: skip


def _parameters(fit: Any) -> Array:
    """Pose and shape (82,) of a fit; nan where it holds no numbers.

    Raises
    ------
    ArithmeticError, TypeError, ValueError
        It is no fit.
    """
    inner = fit.get("smpl_param", fit) if isinstance(fit, dict) else None
    if not isinstance(inner, dict):
        raise ValueError("is no pose and shape")
    pose, shape = (np.asarray(inner.get(key), np.float64).ravel() for key in ("pose", "shape"))
    if len(pose) != 72 or len(shape) != 10:
        raise ValueError(f"has {len(pose)} and {len(shape)} numbers as pose and shape, not 72 and 10")
    return np.concatenate([pose, shape])


def _where_fits_lie(annotations: Path, fits: Path) -> Check:
    """Whether fits are placed in the whole picture: their `t` against the boxes, for those of the first few people."""
    what = "fits are placed by t in pixels of the whole picture"
    boxes: dict[str, list[float]] = {}
    for item in islice(items(annotations, "annotations.item"), SAMPLE):
        with suppress(ArithmeticError, LookupError, TypeError, ValueError):
            boxes[str(item["id"])] = _numbers(item["bbox"], "bbox", 4)
    off: list[float] = []
    for key, fit in islice(entries(fits), SAMPLE):
        with suppress(ArithmeticError, LookupError, TypeError, ValueError):
            place = _numbers((fit["cam_param"] if "cam_param" in fit else fit["cam"])["t"], "t", 2)
            x, y, width, height = boxes[key]
            off.append(max(abs(place[0] - x - width / 2), abs(place[1] - y - height / 2)) / max(width, height))
    if not off:
        return Check(what, None, f"the first {SAMPLE:,} people and fits have none in common that says so")
    middle = float(np.median(off))
    seen = f"in the median {middle:.2f} of the box's side from its middle, of {len(off)} fits"
    return Check(what, middle < FARTHEST_OFF, seen)
