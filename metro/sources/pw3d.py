"""3DPW: people outdoors before a moving camera, tracked by inertial sensors; two in some sequences.

::

    imageFiles/SEQ/image_00000.jpg …                     picture k shows row k of the arrays (30 Hz)
    sequenceFiles/{train,validation|val,test}/SEQ.pkl    24, 12 and 24 sequences
    3DPW_{train,validation,test}.json                    instead: Pose2Mesh's COCO-style file, or 3DPW_latest_….json

============================  ======================================================================================
key of a pickle, per actor
============================  ======================================================================================
betas                         10, or 300 of which the first 10 are taken
poses, trans                  N × 72 axis-angle, N × 3 metres: SMPL of the actor's gender, in the world
genders (or gender)           m, f
jointPositions                N × 72: SMPL's 24 joints, world, metres. No annotated joints: they give boxes and checks
poses2d (or poses2D)          N × 3 × 18, OpenPose: x, y, confidence; all zero where fewer than 6 were found
campose_valid                 N: whether the camera fits this actor
**of the sequence**
cam_poses, cam_intrinsics     N × 4 × 4 world → camera, 3 × 3; no distortion
img_frame_ids, …_60Hz         belong to 60 Hz: they name no pictures, and are not read
============================  ======================================================================================

The JSON file has `images` (id, sequence, file_name, width, height, cam_param: focal, princpt) and `annotations` (id,
image_id, bbox, smpl_param: pose, shape, trans, gender; the newer ones person_id and joint_cam), in the camera's frame
and of people with a valid camera alone. Its `trans` was made with the neutral pelvis (Pose2Mesh's `3dpw2coco.py`);
where `joint_cam` tells the pelvis, the body of the person's own gender is put there.

Annotated joints are read off the mesh of the actor's gender, METRO's are those of the neutral one (`gender: neutral`).
METRO's boxes are the JSON file's, which hold a factor of 1.2 already, × 1.2 again: `box: json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.body.pickles import read_pickle
from metro.config import BodyConfig, DatasetConfig
from metro.data.lens import project
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.files import GET_AGAIN, readable
from metro.options import Pw3dOptions
from metro.sources.bodies import Bodies, to_camera, wrapped
from metro.sources.boxes import around, enlarged
from metro.sources.formats.stream import items
from metro.sources.pictures import size_of
from metro.sources.source import Check, RawFile, Row, Survey, root_of
from metro.synthetic import exact

LICENCE = "research only, no redistribution: the terms that come with the set"
SITE = "https://virtualhumans.mpi-inf.mpg.de/3DPW"

Array = NDArray[np.float64]

BOX_SCALE = 1.2
TEST_VALID = 35_515
"""People of the test split with a valid camera, whom SPIN and METRO count."""
SEQUENCES = {"train": 24, "validation": 12, "test": 24}
GENDERS = {"m": "male", "f": "female", "male": "male", "female": "female", "neutral": "neutral"}
PELVIS_FARTHEST, PELVIS_SPREAD = 0.5, 0.01
"""Metres from SMPL's origin to its pelvis at most, and by how much that may change in a sequence."""
PELVIS_NEUTRAL = 0.1
"""Metres by which the neutral pelvis may move a body at most."""
LARGEST_ANGLE = 100.0
"""Of a joint, radians: sixteen turns."""

_UNFIT = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What an entry of a JSON file leads to that is not as it should be."""


class _Actor(NamedTuple):
    """What a pickle tells of one of its actors, T frames."""

    gender: str
    betas: Array
    pose_T72: Array
    transl_T3: Array
    joints_T24: Array  # (T, 24, 3), world
    detected_T18: Array  # (T, 18, 3)
    valid_T: NDArray[np.bool_]


class _Sequence(NamedTuple):
    """What a pickle holds."""

    camera_T44: Array
    intrinsics: Array
    actors: list[_Actor]
    lost: int
    """Frames that some of its arrays have and others lack."""


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """The sequences of the split, or its JSON file; looks into one sequence."""
    root, options = root_of(config), config.chosen(Pw3dOptions)
    if options.joints == "none" and config.supervision != "mesh":
        raise MetroError(f"source pw3d: joints: none leaves the mesh alone, which supervision: {config.supervision} "
                         "leaves out; choose joints: get_joints")  # fmt: skip
    pickles, annotations = _pickles(root, config.split), _json(root, options, config.split)
    if annotations and (options.box == "poses2d" or options.camera == "all"):
        raise MetroError(f"{annotations}: has neither detected joints nor people of an invalid camera, which "
                         "box: poses2d and camera: all ask for; the sequence pickles have them")  # fmt: skip
    named = [annotations] if annotations else pickles or [root / f"sequenceFiles/{config.split}/*.pkl"]
    origin = "the page of Pose2Mesh" if annotations else f"sequenceFiles.zip of {SITE}"
    folders = ["imageFiles"] if annotations or not pickles else [f"imageFiles/{path.stem}" for path in pickles]
    found = f"{len(pickles)} of {SEQUENCES[config.split]} sequences"
    return Survey(
        dialect="COCO-style JSON" if annotations else "sequence pickles",
        files=tuple(RawFile(path.relative_to(root).as_posix(), path.is_file(), origin) for path in named),
        missing=tuple(f"{name} (imageFiles.zip of {SITE})" for name in folders if not (root / name).is_dir()),
        expected=TEST_VALID if (config.split, options.camera) == ("test", "valid") else None,
        parameters="smpl",
        posed=options.joints == "get_joints",
        checks=() if annotations or not pickles else (_check_pelvis(pickles[0]),),
        notes=() if annotations else (found,),
    )


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row | Left | BadRecord]:
    """People by sequence, picture and actor; those of the JSON file in its order."""
    root, options = root_of(config), config.chosen(Pw3dOptions)
    if annotations := _json(root, options, config.split):
        yield from _json_rows(annotations)
        return
    for path in _pickles(root, config.split):
        name, pictures = path.relative_to(root).as_posix(), f"imageFiles/{path.stem}"
        try:
            sequence = _open(path)
        except MetroError as err:
            yield BadRecord(f"pw3d:{name}", str(err), max(1, len([*(root / pictures).glob("*.jpg")])))
            continue
        if sequence.lost:
            yield BadRecord(f"pw3d:{name}", "its arrays differ in frames", sequence.lost * len(sequence.actors))
        problems = [_problems(sequence.camera_T44, actor) for actor in sequence.actors]
        for k in range(len(sequence.camera_T44)):
            frame = f"{pictures}/image_{k:05d}.jpg"
            for number, actor in enumerate(sequence.actors):
                if options.camera == "valid" and not actor.valid_T[k]:
                    yield Left("camera not aligned")
                elif k in problems[number]:
                    yield BadRecord(f"pw3d:{frame}#{number}", problems[number][k])
                else:
                    yield Row(frame, number, name, k)


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record | Left | BadRecord]:
    """Records of rows; a pickle is opened once for the rows of its sequence."""
    root, bodies = root_of(config), Bodies(config, body)
    for group, members in groupby(rows, key=lambda row: row.group):
        sequence = _open(root / group) if group.endswith(".pkl") else None
        bodies.require(*(actor.gender for actor in sequence.actors) if sequence else GENDERS.values())
        for frame, people in groupby(members, key=lambda row: row.frame):
            image = root / frame
            for row in people:
                try:
                    yield _record(config, bodies, image, row, sequence)
                except MetroError as err:
                    yield BadRecord(f"pw3d:{frame}#{row.person}", str(err))


def _record(config: DatasetConfig, bodies: Bodies, image: Path, row: Row, sequence: _Sequence | None) -> Record | Left:
    options = config.chosen(Pw3dOptions)
    made = (
        _from_json(options, bodies, row) if sequence is None else _from_sequence(options, bodies, image, row, sequence)
    )
    gender, pose, betas, transl, intrinsics, box = made
    if box is None:
        return Left("no joint inside of the picture")
    record = Record(
        source="pw3d",
        frame=row.frame,
        person=row.person,
        image=image,
        box=box,
        pose_aa=wrapped(pose),
        betas=betas,
        transl=transl,
        gender=gender,
        intrinsics=intrinsics,
        mesh_origin="mocap",
    )
    if options.joints == "get_joints":
        joints = bodies.joints(gender, pose[None], betas[None], transl[None])[0]
        ones = np.ones((len(joints), 1))
        pixels = np.concatenate([project(joints, intrinsics, None, "none"), ones], 1)
        record.joints_3d = np.concatenate([joints, ones], 1)
        record.keypoints_2d = np.where(joints[:, 2:] > 0, pixels, 0)
    return record


_Made = tuple[str, Array, Array, Array, Array, Array | None]
"""Gender, pose, betas, translation, camera matrix and box."""


def _from_sequence(options: Pw3dOptions, bodies: Bodies, image: Path, row: Row, sequence: _Sequence) -> _Made:
    actor, k = sequence.actors[row.person], row.labels
    rotation, translation = sequence.camera_T44[k, :3, :3], sequence.camera_T44[k, :3, 3]
    gender = bodies.variant(actor.gender)
    pelvis = bodies.pelvis(gender, actor.betas[None])
    pose, transl = to_camera(rotation, translation, actor.pose_T72[k, None], actor.transl_T3[k, None], pelvis)
    if options.box == "poses2d":
        points = actor.detected_T18[k][actor.detected_T18[k, :, 2] > 0, :2]
    else:
        points = _pixels(exact.matmul(actor.joints_T24[k], rotation.T) + translation, sequence.intrinsics)
    # Detections may lie absurdly far out: a box is around what the picture shows.
    box = around(points, BOX_SCALE, size_of(image))
    return gender, pose[0], actor.betas, transl[0], sequence.intrinsics, box


def _from_json(options: Pw3dOptions, bodies: Bodies, row: Row) -> _Made:
    labels = row.labels
    gender = bodies.variant(labels["gender"])
    pose, betas, transl = (np.array(labels[name]) for name in ("pose", "betas", "transl"))
    if labels["pelvis"] and gender == labels["gender"]:
        placed = labels["pelvis"] - bodies.pelvis(gender, betas[None])[0]
        if not np.linalg.norm(placed - transl) < PELVIS_NEUTRAL:
            raise MetroError("its joint_cam and smpl_param are apart")
        transl = placed
    fx, fy, cx, cy = labels["camera"]
    intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    if options.box == "json":
        return gender, pose, betas, transl, intrinsics, enlarged(labels["box"], BOX_SCALE)
    joints = bodies.kinematic(gender, pose[None], betas[None], transl[None])[0]
    box = around(_pixels(joints, intrinsics), BOX_SCALE, tuple(labels["size"]))
    return gender, pose, betas, transl, intrinsics, box


def _pixels(points_N3: Array, intrinsics: Array) -> Array:
    """Pixels (M, 2) of those points that lie before the camera."""
    return project(points_N3[points_N3[:, 2] > 0], intrinsics, None, "none")


def _pickles(root: Path, split: str) -> list[Path]:
    folders = ("validation", "val") if split == "validation" else (split,)
    return sorted(path for folder in folders for path in (root / "sequenceFiles" / folder).glob("*.pkl"))


def _json(root: Path, options: Pw3dOptions, split: str) -> Path | None:
    """The COCO-style file, if it is what is asked for or all there is."""
    paths = [root / f"3DPW_latest_{split}.json", root / f"3DPW_{split}.json"]
    if options.box == "json":
        return next((path for path in paths if path.is_file()), paths[1])
    return None if _pickles(root, split) else next((path for path in paths if path.is_file()), None)


def _open(path: Path) -> _Sequence:
    """A pickle, with arrays of the right shape that are cut to equal length."""
    content = read_pickle(path)

    def take(*names: str) -> Any:
        for name in names:
            if isinstance(content, dict) and name in content:
                return content[name]
        raise MetroError(f"{path}: has no {names[0]}; {GET_AGAIN}")

    def numbers(name: str, value: Any, *shape: int | None) -> Array:
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise MetroError(f"{path}: {name} is a {type(value).__name__}, not an array of numbers; {GET_AGAIN}")
        if len(shape) != value.ndim or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True)):
            wanted = " × ".join("N" if n is None else str(n) for n in shape)
            raise MetroError(f"{path}: {name} has shape {value.shape}, not {wanted}; {GET_AGAIN}")
        return np.array(value, np.float64)

    def each(*names: str, shape: tuple[int | None, ...]) -> list[Array]:
        parts = take(*names)
        if len(parts) != len(genders):
            raise MetroError(f"{path}: {names[0]} of {len(parts)} actors, genders of {len(genders)}; {GET_AGAIN}")
        return [numbers(names[0], part, *shape) for part in parts]

    with readable(path, GET_AGAIN):
        genders = [GENDERS.get(str(word), "") for word in take("genders", "gender")]
        if not genders or "" in genders:
            raise MetroError(f"{path}: genders are other than m and f; {GET_AGAIN}")
        betas = each("betas", shape=(None,))
        if min(len(part) for part in betas) < 10:
            raise MetroError(f"{path}: betas are fewer than 10; {GET_AGAIN}")
        camera = numbers("cam_poses", take("cam_poses"), None, 4, 4)
        poses, transl = each("poses", shape=(None, 72)), each("trans", shape=(None, 3))
        joints, valid = each("jointPositions", shape=(None, 72)), each("campose_valid", shape=(None,))
        detected = each("poses2d", "poses2D", shape=(None, 3, 18))
        lengths = [len(array) for array in (camera, *poses, *transl, *joints, *valid, *detected)]
        frames = min(lengths)
        actors = [
            _Actor(
                gender=gender,
                betas=betas[n][:10],
                pose_T72=poses[n][:frames],
                transl_T3=transl[n][:frames],
                joints_T24=joints[n][:frames].reshape(-1, 24, 3),
                detected_T18=detected[n][:frames].transpose(0, 2, 1),
                valid_T=valid[n][:frames] > 0,
            )
            for n, gender in enumerate(genders)
        ]
        intrinsics = numbers("cam_intrinsics", take("cam_intrinsics"), 3, 3)
    return _Sequence(camera[:frames], intrinsics, actors, max(lengths) - frames)


def _problems(camera_T44: Array, actor: _Actor) -> dict[int, str]:
    """What is wrong with an actor, by frame."""
    turn_T33, offset_T3 = camera_T44[:, :3, :3], actor.joints_T24[:, 0] - actor.transl_T3
    finite_N3 = offset_T3[np.isfinite(offset_T3).all(1)]
    usual = np.median(finite_N3, 0) if len(finite_N3) else np.zeros(3)
    with np.errstate(all="ignore"):
        angle_T = np.linalg.norm(actor.pose_T72.reshape(-1, 24, 3), axis=2).max(1)
        spread_T = np.abs(offset_T3 - usual).max(1)
        skew_T = np.abs(turn_T33 @ turn_T33.swapaxes(1, 2) - np.eye(3)).max((1, 2))
        rules = {
            "its pose is no rotation vectors": angle_T < LARGEST_ANGLE,
            "its camera is no rotation and translation": (skew_T < 1e-3) & (np.linalg.det(turn_T33) > 0),
            "its jointPositions lie apart from its trans": np.linalg.norm(offset_T3, axis=1) < PELVIS_FARTHEST,
            "its jointPositions and trans go together otherwise than in the rest": spread_T < PELVIS_SPREAD,
        }
    return {int(k): problem for problem, fine_T in rules.items() for k in np.flatnonzero(~fine_T)}


def _check_pelvis(path: Path) -> Check:
    """Whether `trans` is the pelvis but for a constant, as the way into the camera's frame takes it to be."""
    what = f"jointPositions[:3] - trans is below {PELVIS_FARTHEST} m and constant in a sequence: SMPL's pelvis"
    try:
        offsets = [actor.joints_T24[:, 0] - actor.transl_T3 for actor in _open(path).actors]
    except MetroError as err:
        return Check(what, None, str(err))
    length = max(float(np.linalg.norm(offset_T3, axis=1).max(initial=0)) for offset_T3 in offsets)
    spread = max(float(np.abs(offset_T3 - offset_T3[:1]).max(initial=0)) for offset_T3 in offsets)
    fine = length < PELVIS_FARTHEST and spread < PELVIS_SPREAD
    return Check(what, fine, f"{path.stem}: {length:.3f} m, changing by {1000 * spread:.2g} mm")


def _json_rows(path: Path) -> Iterator[Row | BadRecord]:
    pictures: dict[Any, tuple[str, dict[str, list[float]]]] = {}
    for image in items(path, "images.item"):
        with suppress(*_UNFIT):  # people of this picture will miss it
            camera, frame = image["cam_param"], f"imageFiles/{image['sequence']}/{image['file_name']}"
            if frame.isprintable() and ".." not in frame.split("/"):
                size = _floats(2, [image["width"], image["height"]])
                pictures[image["id"]] = (
                    frame,
                    {"size": size, "camera": _floats(4, [*camera["focal"], *camera["princpt"]])},
                )
    known: set[tuple[str, int]] = set()
    for number, person in enumerate(items(path, "annotations.item")):
        try:
            row = _json_row(person, pictures)
            if row[:2] in known:
                raise ValueError("this person of this picture comes twice")
        except _UNFIT as err:
            said = f"has no {err}" if isinstance(err, KeyError) else str(err)
            yield BadRecord(f"pw3d:{path.name}, annotation {number}", said)
        else:
            known.add(row[:2])
            yield row


def _json_row(person: Any, pictures: dict[Any, tuple[str, dict[str, list[float]]]]) -> Row:
    """Raises one of `_UNFIT` where a field is missing or is something else."""
    if person["image_id"] not in pictures:
        raise ValueError("its picture is not listed with name, size and camera")
    frame, picture = pictures[person["image_id"]]
    smpl, joints = person["smpl_param"], person.get("joint_cam")
    labels: dict[str, Any] = picture | {
        "box": _floats(4, person["bbox"]),
        "pose": _floats(72, smpl["pose"]),
        "betas": _floats(10, smpl["shape"][:10]),
        "transl": _floats(3, smpl["trans"]),
        "gender": GENDERS[smpl["gender"]],
        "pelvis": _floats(3, joints[0]) if joints else None,
    }
    return Row(frame, int(person.get("person_id", person["id"])), frame, labels)


def _floats(count: int, values: Any) -> list[float]:
    array = np.array(values, np.float64)
    if array.shape != (count,) or not (np.abs(array) < 1e9).all():
        raise ValueError(f"{array.size} numbers or none, where {count} are expected")
    found: list[float] = array.tolist()
    return found
