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

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.body.joints import JOINT_SETS
from metro.body.pickles import read_pickle
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.options import Pw3dOptions
from metro.sources.bodies import Bodies, to_camera, wrapped
from metro.sources.boxes import around
from metro.sources.formats.stream import items
from metro.sources.pictures import size_of
from metro.sources.source import Check, RawFile, Row, Survey, root_of

LICENCE = "research only, no redistribution: the terms that come with the set"
SITE = "https://virtualhumans.mpi-inf.mpg.de/3DPW"

Array = NDArray[np.float64]

BOX_SCALE = 1.2
TEST_VALID = 35_515
"""People of the test split with a valid camera, which SPIN and METRO count."""
GENDERS = {"m": "male", "f": "female", "male": "male", "female": "female"}
PELVIS_FARTHEST, PELVIS_SPREAD = 0.5, 0.01
"""Metres from SMPL's origin to its pelvis at most, and by how much that may change in a sequence."""
LARGEST_ANGLE = 100.0
"""Of a joint, radians: sixteen turns."""


class _Sequence(NamedTuple):
    """What a pickle holds: T frames, lists by actor."""

    camera_T44: Array
    intrinsics: Array
    gender: list[str]
    betas: list[Array]
    pose_T72: list[Array]
    transl_T3: list[Array]
    joints_T24: list[Array]  # (T, 24, 3)
    detected_T18: list[Array]  # (T, 18, 3)
    valid_T: list[NDArray[np.bool_]]


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """The sequences of the split, or its JSON file; looks into one sequence."""
    root, options = root_of(config), config.chosen(Pw3dOptions)
    if options.joints == "none" and config.supervision != "mesh":
        raise MetroError("source pw3d: options.joints: none leaves the mesh alone, which supervision: "
                         f"{config.supervision} leaves out; choose get_joints")  # fmt: skip
    origin = f"{SITE} (sequenceFiles.zip)"
    pickles, checks, notes = _pickles(root, config.split), (), ()
    if options.box == "json" or not pickles and _json(root, config.split):
        dialect, origin = "COCO-style JSON with SMPL parameters", "the page of Pose2Mesh (3DPW)"
        annotations = _json(root, config.split) or root / f"3DPW_{config.split}.json"
        if options.box == "poses2d" or options.camera == "all":
            raise MetroError(f"{annotations}: knows neither detected joints nor people of an invalid camera, which "
                             "box: poses2d and camera: all ask for; sequenceFiles has them")  # fmt: skip
        files = [annotations]
    else:
        dialect, files = "sequence pickles", pickles or [root / "sequenceFiles" / config.split / "SEQ.pkl"]
        checks = (_check_pelvis(pickles[0]),) if pickles else ()
        notes = (f"{len(pickles)} sequences; the set has {12 if config.split == 'validation' else 24}",)
    folders = [root / "imageFiles" / path.stem for path in pickles] or [root / "imageFiles"]
    return Survey(
        dialect=dialect,
        files=tuple(RawFile(path.relative_to(root).as_posix(), path.is_file(), origin) for path in files),
        missing=tuple(
            f"{folder.relative_to(root).as_posix()} ({SITE}, imageFiles.zip)" for folder in folders if not folder.is_dir()
        ),
        expected=TEST_VALID if (config.split, options.camera) == ("test", "valid") else None,
        parameters="smpl",
        posed=options.joints == "get_joints",
        checks=checks,
        notes=notes,
    )


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row | Left | BadRecord]:
    """People by sequence, picture and actor."""
    root, options = root_of(config), config.chosen(Pw3dOptions)
    pickles = _pickles(root, config.split)
    annotations = _json(root, config.split)
    if annotations and (options.box == "json" or not pickles):
        yield from _json_rows(annotations)
        return
    for path in pickles:
        name, pictures = path.relative_to(root).as_posix(), root / "imageFiles" / path.stem
        try:
            sequence = _open(path)
        except MetroError as err:
            yield BadRecord(f"pw3d:{name}", str(err), max(1, sum(1 for _ in pictures.glob("image_*.jpg"))))
            continue
        problems = [_problems(sequence, actor) for actor in range(len(sequence.gender))]
        for k in range(len(sequence.camera_T44)):
            frame = f"imageFiles/{path.stem}/image_{k:05d}.jpg"
            for actor, valid_T in enumerate(sequence.valid_T):
                if options.camera == "valid" and not valid_T[k]:
                    yield Left("camera not aligned")
                elif problem := problems[actor].get(k):
                    yield BadRecord(f"pw3d:{frame}#{actor}", problem)
                else:
                    yield Row(frame, actor, name, k)


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record | Left | BadRecord]:
    """Records of rows; a pickle is opened once for the rows of its sequence."""
    root, bodies = root_of(config), Bodies(config, body)
    for group, members in groupby(rows, key=lambda row: row.group):
        sequence = _open(root / group) if group.endswith(".pkl") else None
        for frame, people in groupby(members, key=lambda row: row.frame):
            image = root / frame
            for row in people:
                try:
                    if sequence:
                        yield _from_sequence(config, bodies, image, row, sequence)
                    else:
                        yield _from_json(config, bodies, image, row)
                except MetroError as err:
                    yield BadRecord(f"pw3d:{frame}#{row.person}", str(err))


def _from_sequence(config: DatasetConfig, bodies: Bodies, image: Path, row: Row, sequence: _Sequence) -> Record | Left:
    k, actor = row.labels, row.person
    rotation, translation = sequence.camera_T44[k, :3, :3], sequence.camera_T44[k, :3, 3]
    gender, betas = bodies.variant(sequence.gender[actor]), sequence.betas[actor]
    pose, transl = to_camera(
        rotation,
        translation,
        sequence.pose_T72[actor][k, None],
        sequence.transl_T3[actor][k, None],
        bodies.pelvis(gender, betas[None]),
    )
    if config.chosen(Pw3dOptions).box == "poses2d":
        found = sequence.detected_T18[actor][k]
        points = found[found[:, 2] > 0, :2]
    else:
        points = _project(sequence.joints_T24[actor][k] @ rotation.T + translation, sequence.intrinsics)
    box = around(points, BOX_SCALE, size_of(image))
    return _record(config, bodies, image, row, gender, pose[0], betas, transl[0], sequence.intrinsics, box)


def _from_json(config: DatasetConfig, bodies: Bodies, image: Path, row: Row) -> Record | Left:
    labels = row.labels
    gender, own = bodies.variant(labels["gender"]), labels["gender"]
    pose, betas, transl = (np.array(labels[name]) for name in ("pose", "betas", "transl"))
    if labels["pelvis"] is not None and gender == own:
        transl = labels["pelvis"] - bodies.pelvis(gender, betas[None])[0]
        if not np.linalg.norm(transl - labels["transl"]) < PELVIS_FARTHEST / 5:
            raise MetroError("joint_cam and smpl_param are not of one place")
    fx, fy, cx, cy = labels["camera"]
    intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    if config.chosen(Pw3dOptions).box == "json":
        x, y, width, height = labels["box"]
        box = around(np.array([[x, y], [x + width, y + height]]), BOX_SCALE)
    else:
        joints = bodies.kinematic(gender, pose[None], betas[None], transl[None])[0]
        box = around(_project(joints, intrinsics), BOX_SCALE, tuple(labels["size"]))
    return _record(config, bodies, image, row, gender, pose, betas, transl, intrinsics, box)


def _record(
    config: DatasetConfig,
    bodies: Bodies,
    image: Path,
    row: Row,
    gender: str,
    pose: Array,
    betas: Array,
    transl: Array,
    intrinsics: Array,
    box: Array | None,
) -> Record | Left:
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
    if config.chosen(Pw3dOptions).joints == "get_joints":
        joints = bodies.joints(gender, pose[None], betas[None], transl[None])[0]
        if not (joints[:, 2] > 0).all():
            raise MetroError("stands behind the camera in part")
        ones = np.ones((len(joints), 1))
        record.joints_3d = np.concatenate([joints, ones], 1)
        record.keypoints_2d = np.concatenate([_project(joints, intrinsics), ones], 1)
    return record


def _project(points_N3: Array, intrinsics: Array) -> Array:
    """Pixels (M, 2) of those points that lie before the camera."""
    points_N3 = points_N3[points_N3[:, 2] > 0]
    return points_N3[:, :2] / points_N3[:, 2:] * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2]
