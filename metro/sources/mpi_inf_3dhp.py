"""MPI-INF-3DHP: people in a green-screen studio before 14 cameras, and a test set outdoors and in, without markers.

::

    S{1..8}/Seq{1,2}/annot.mat                                MATLAB file of version 5 or 7.3
    S{1..8}/Seq{1,2}/camera.calibration                       text, 7 lines per camera
    S{1..8}/Seq{1,2}/imageSequence/video_{0..13}.avi          2048 × 2048, or instead of a video:
    S{1..8}/Seq{1,2}/imageFrames/video_0/frame_000001.jpg …   its pictures; picture n is row n - 1 of the annotations
    mpi_inf_3dhp_test_set/TS{1..6}/annot_data.mat             MATLAB file of version 7.3
    mpi_inf_3dhp_test_set/TS{1..6}/imageSequence/img_000001.jpg …
    mpi_inf_3dhp_test_set/test_util/camera_calibration/ts1-4cameras.calib, ts5-6cameras.calib

===================================  ===============================================================================
annot2, annot3 of annot.mat          a cell per camera: T × 56 px and T × 84 mm in the camera's frame, 28 joints
intrinsic of camera.calibration      4 × 4, row by row; the other lines are not read
annot2, annot3 of annot_data.mat     2 × 17 × 1 × T px, 3 × 17 × 1 × T mm: MuCo-3DHP's joints but for hands and toes
valid_frame                          T: whether a frame of the test set counts
univ_annot3, of both                 a skeleton of another size, no metric joints: not read
===================================  ===============================================================================

2D joints are `annot2` as annotated, which projections of `annot3` miss by up to 2.2 px. Annotations go on where videos
have ended: as many frames are taken as both have. Boxes are around the joints inside of the picture, × 1.2.

Nothing tells how cameras of the test set are to be read, and TS5 and TS6 were taken through a lens that distorts. Where
`annot3` falls on `annot2` through the camera and the lens that the file seems to describe, records have both, otherwise
neither. METRO takes people of this set from MuCo-3DHP; there are no meshes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from metro.body.joints import JOINT_SETS, shared
from metro.config import BodyConfig, DatasetConfig
from metro.data.lens import project
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.files import GET_AGAIN, readable
from metro.options import MpiInf3dhpOptions
from metro.sources.boxes import around
from metro.sources.formats import video
from metro.sources.formats.mat import read_mat
from metro.sources.labels import in_j24
from metro.sources.pictures import size_of
from metro.sources.sequences import SHARED, SITE, annotated, intrinsics, test_camera
from metro.sources.source import Check, RawFile, Row, Survey, root_of

LICENCE = "research only, no redistribution: the terms that come with the set"

Array = NDArray[np.float64]
_Camera = tuple[Array | None, Array | None]
"""Camera matrix and distortion."""

BOX_SCALE = 1.2
FRAMES = {
    "S1/Seq1": 6416, "S1/Seq2": 12430, "S2/Seq1": 6502, "S2/Seq2": 6081, "S3/Seq1": 12488, "S3/Seq2": 12283,
    "S4/Seq1": 6171, "S4/Seq2": 6675, "S5/Seq1": 12820, "S5/Seq2": 12312, "S6/Seq1": 6188, "S6/Seq2": 6145,
    "S7/Seq1": 6239, "S7/Seq2": 6320, "S8/Seq1": 6468, "S8/Seq2": 6054,
}  # fmt: skip
"""Of the videos of a sequence."""
SHORT = {("S6/Seq2", 2): 3911}
"""Of the one video that ends before the others of its sequence."""
TEST = "mpi_inf_3dhp_test_set"
TEST_CAMERAS = {f"TS{n}": ("ts1-4cameras.calib", (2048, 2048)) for n in range(1, 5)} | {
    f"TS{n}": ("ts5-6cameras.calib", (1920, 1080)) for n in (5, 6)
}
"""Camera file and size of pictures of each test sequence."""
TEST_JOINTS = JOINT_SETS["MUCO21"][:17]
TEST_VALID = 2929
"""Frames of the test set that count; some lists have 2,935."""
OFF_PX = 5.0
"""By which projections of `annot3` may miss `annot2`; in a frame of the set that was looked at, they do by 2.2 px."""
_SAMPLE = 50  # frames that the survey projects
_QUICK = 1 << 24  # bytes


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """The sequences that there are; counts frames of videos, and looks into one sequence."""
    root, options = root_of(config), config.chosen(MpiInf3dhpOptions)
    if config.split == "validation":
        raise MetroError("source mpi_inf_3dhp: the set has no validation split; choose train or test")
    if config.split == "test":
        return _survey_test(root)
    found = _sequences(root)
    names = found or ["S1/Seq1"]
    files = [root / name / file for name in names for file in ("annot.mat", "camera.calibration")]
    lost = [name for name in found if not any((root / name / f).is_dir() for f in ("imageSequence", "imageFrames"))]
    return Survey(
        dialect="training set",
        files=tuple(RawFile(p.relative_to(root).as_posix(), p.is_file(), f"the training set of {SITE}") for p in files),
        missing=tuple(f"{name}/imageSequence (the training set of {SITE})" for name in lost),
        expected=sum(len(range(0, _official(name, k), options.step)) for name in FRAMES for k in {*options.cameras}),
        checks=(_check_lengths(root, found, options.cameras), _check_projection(root, found, options.cameras[0])),
        notes=(f"{len(found)} of {len(FRAMES)} sequences",),
    )


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row | Left | BadRecord]:
    """Frames by sequence, camera and number."""
    root, options = root_of(config), config.chosen(MpiInf3dhpOptions)
    if config.split == "test":
        yield from _test_rows(root)
        return
    cameras = sorted({*options.cameras})
    for name in _sequences(root):
        lost = cameras.copy()
        try:
            matrices = intrinsics(root / name / "camera.calibration")
            tables = annotated(root / name / "annot.mat", cameras)
            for camera, (pixels_TK2, points_TK3) in zip(cameras, tables, strict=True):
                if camera >= len(matrices):
                    raise MetroError(f"{root / name}/camera.calibration: has no camera {camera}; {GET_AGAIN}")
                yield from _camera_rows(root, name, camera, options.step, matrices[camera], pixels_TK2, points_TK3)
                lost.remove(camera)
        except MetroError as err:
            count = sum(len(range(0, _official(name, camera), options.step)) for camera in lost)
            yield BadRecord(f"mpi_inf_3dhp:{name}", str(err), count)


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record | Left | BadRecord]:
    """Records of frames; a video is decoded once for the rows of it that follow one another."""
    root = root_of(config)
    for group, members in groupby(rows, key=lambda row: row.group):
        if group.endswith(".avi"):
            yield from _from_video(root / group, list(members))
            continue
        for row in members:
            try:
                yield _record(row, root / row.frame, size_of(root / row.frame))
            except MetroError as err:
                yield BadRecord(f"mpi_inf_3dhp:{row.frame}#0", str(err))


def _camera_rows(
    root: Path, name: str, camera: int, step: int, matrix: Array, pixels_TK2: Array, points_TK3: Array
) -> Iterator[Row | Left | BadRecord]:
    """Every `step`-th frame that both a camera's pictures and its annotations have."""
    where, film, there = f"{name}/imageSequence/video_{camera}.avi", True, None
    try:
        if not (root / where).is_file() and (root / name / f"imageFrames/video_{camera}").is_dir():
            where, film = f"{name}/imageFrames/video_{camera}", False
            there = _pictures(root / where)
            length = max(there, default=-1) + 1
        else:
            length = video.count(root / where) or len(points_TK3)
    except MetroError as err:
        yield BadRecord(f"mpi_inf_3dhp:{where}", str(err), len(range(0, len(points_TK3), step)))
        return
    frames = min(length, len(points_TK3))
    wanted = range(0, frames, step)
    passed = frames - len(wanted) if there is None else sum(k < frames and k % step > 0 for k in there)
    beyond = len(range(0, max(length, len(points_TK3)), step)) - len(wanted)
    if passed:
        yield Left("frame step", passed)
    if beyond:
        yield Left("annotated after the last picture" if length < len(points_TK3) else "not annotated", beyond)
    for k in wanted:
        frame = f"{where}@{k}" if film else f"{where}/frame_{k + 1:06d}.jpg"
        if there is not None and k not in there:
            yield BadRecord(f"mpi_inf_3dhp:{frame}#0", "the picture is missing")
        else:
            yield _row(frame, where, pixels_TK2[k], points_TK3[k], (matrix, None))


def _test_rows(root: Path) -> Iterator[Row | Left | BadRecord]:
    """Frames of the test set that count."""
    for path in _tests(root):
        name = path.parent.relative_to(root).as_posix()
        try:
            pixels_TK2, points_TK3, valid_T = _test(path)
        except MetroError as err:
            yield BadRecord(f"mpi_inf_3dhp:{name}", str(err), max(1, len([*path.parent.glob("imageSequence/*.jpg")])))
            continue
        if not valid_T.all():
            yield Left("frame marked as not valid", int((~valid_T).sum()))
        camera = _test_camera(path, pixels_TK2[valid_T], points_TK3[valid_T])[0]
        for k in np.flatnonzero(valid_T).tolist():
            yield _row(f"{name}/imageSequence/img_{k + 1:06d}.jpg", name, pixels_TK2[k], points_TK3[k], camera)


def _row(frame: str, group: str, pixels_K2: Array, points_K3: Array, camera: _Camera) -> Row | BadRecord:
    if not (np.isfinite(pixels_K2).all() and np.isfinite(points_K3).all()):
        return BadRecord(f"mpi_inf_3dhp:{frame}#0", "some of its joints are no finite numbers")
    numbers = [None if part is None else part.tolist() for part in (pixels_K2, points_K3, *camera)]
    return Row(frame, 0, group, numbers)


def _from_video(path: Path, rows: list[Row]) -> Iterator[Record | Left | BadRecord]:
    done = 0
    problem = "the video ends before this frame, or cannot be decoded from here on"
    try:
        numbers = [int(row.frame.rpartition("@")[2]) for row in rows]
        for row, (_, image) in zip(rows, video.frames(path, numbers), strict=False):
            done += 1
            yield _record(row, image, (image.shape[1], image.shape[0]))
    except MetroError as err:
        problem = str(err)
    if done < len(rows):
        yield BadRecord(f"mpi_inf_3dhp:{rows[done].frame}#0", problem, len(rows) - done)


def _record(row: Row, image: np.ndarray | Path, size: tuple[int, int]) -> Record | Left:
    pixels_K2, points_K3, matrix, distortion = row.labels
    box = around(pixels_K2, BOX_SCALE, size)
    if box is None:
        return Left("no joint inside of the picture")
    return Record(
        source="mpi_inf_3dhp",
        frame=row.frame,
        image=image,
        box=box,
        keypoints_2d=in_j24(SHARED, pixels_K2),
        joints_3d=in_j24(SHARED, np.array(points_K3) / 1000),
        intrinsics=np.array(matrix) if matrix else None,
        distortion=np.array(distortion) if distortion else None,
        lens="opencv" if distortion else "none",
    )


def _sequences(root: Path) -> list[str]:
    return [name for name in FRAMES if (root / name).is_dir()]


def _official(name: str, camera: int) -> int:
    """Frames of a video of the set."""
    return SHORT.get((name, camera), FRAMES[name])


def _pictures(folder: Path) -> Collection[int]:
    """Rows that the pictures in a folder belong to.

    Raises
    ------
    MetroError
        The pictures are counted from 0: which rows they are of is not known.
    """
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        found = {int(m[1]) - 1 for e in entries if (m := re.fullmatch(r"(?:frame|img)_(\d{6})\.jpg", e.name))}
    if -1 in found:
        raise MetroError(f"{folder}: has a picture 000000, the set counts from 1; extract the pictures again")
    return found


def _tests(root: Path) -> list[Path]:
    folders = [root / TEST / f"TS{n}" for n in range(1, 7)]
    return [folder / "annot_data.mat" for folder in folders if folder.is_dir()]


def _test(path: Path) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Joints (T, K, 2) px and (T, K, 3) mm of a sequence of the test set, and which of its frames count."""
    with readable(path, GET_AGAIN):
        content = read_mat(path, ["annot2", "annot3", "valid_frame"])
        valid_T = np.ravel(content["valid_frame"])
        at, joints = shared(TEST_JOINTS, "J24")[0], len(TEST_JOINTS)
        found: dict[str, Array] = {}
        for name, axes in (("annot2", 2), ("annot3", 3)):
            value = content[name]
            if not isinstance(value, np.ndarray) or value.shape[:2] != (axes, joints) or value.dtype.kind not in "iuf":
                raise ValueError(f"{name} is not {axes} × {joints} × 1 × frames numbers")
            table = value.reshape(axes, joints, -1)
            if table.shape[2] != len(valid_T):
                raise ValueError(f"{name} is of {table.shape[2]} frames, valid_frame of {len(valid_T)}")
            found[name] = table.transpose(2, 1, 0)[:, at].astype(np.float64)
    return found["annot2"], found["annot3"], valid_T.astype(np.float64) > 0


def _test_camera(path: Path, pixels_TK2: Array, points_TK3: Array) -> tuple[_Camera, str]:
    """The camera of a test sequence if its people are where its annotations say, and in words how far off they are."""
    file, size = TEST_CAMERAS[path.parent.name]
    try:
        matrix, distortion = test_camera(path.parents[1] / "test_util/camera_calibration" / file, size)
    except MetroError as err:
        return (None, None), str(err)
    with np.errstate(all="ignore"):
        found = project(points_TK3, matrix, distortion, "none" if distortion is None else "opencv")
    off = np.abs(found - pixels_TK2).max(-1, initial=0)
    off = off[np.isfinite(off)]
    miss = float(np.median(off)) if len(off) else np.inf
    said = f"{path.parent.name} off by {miss:.2f} px in the median"
    return ((matrix, distortion) if miss <= OFF_PX else (None, None)), said


def _survey_test(root: Path) -> Survey:
    paths = _tests(root)
    origin = f"mpi_inf_3dhp_test_set.zip of {SITE}"
    lost = [folder for path in paths if not (folder := path.parent / "imageSequence").is_dir()]
    total, said, cameras = 0, "", []
    for path in paths:
        try:
            pixels_TK2, points_TK3, valid_T = _test(path)
            total += int(valid_T.sum())
            cameras.append(_test_camera(path, pixels_TK2[valid_T], points_TK3[valid_T]))
        except MetroError as err:
            said = f"; {err}"
    seen = [matrix is not None for (matrix, _), _ in cameras]
    return Survey(
        dialect="test set",
        files=tuple(
            RawFile(p.relative_to(root).as_posix(), p.is_file(), origin)
            for p in paths or [root / TEST / "TS1/annot_data.mat"]
        ),
        missing=tuple(f"{folder.relative_to(root).as_posix()} ({origin})" for folder in lost),
        expected=TEST_VALID,
        checks=(
            Check("as many frames count as in the test set: 2,929", total == TEST_VALID, f"{total:,}{said}"),
            Check(
                f"annot3 falls on annot2 through cameras and lenses of {TEST}/test_util, to {OFF_PX} px",
                all(seen) if seen else None,
                "; ".join(dict.fromkeys(words for _, words in cameras)),
            ),
        ),
        notes=(f"{len(paths)} of 6 sequences", f"{seen.count(False)} without camera: their records have none"),
    )


def _check_lengths(root: Path, names: list[str], cameras: Iterable[int]) -> Check:
    """Whether videos are as long as those of the set: a download that was cut short gives fewer frames and no error."""
    what = "videos have the frames that the set's have (one more or fewer: containers do not count alike)"
    right, others = 0, []
    for name in names:
        for camera in cameras:
            with suppress(MetroError):
                path = root / name / f"imageSequence/video_{camera}.avi"
                pictures = root / name / f"imageFrames/video_{camera}"
                count = video.count(path) if path.is_file() else max(_pictures(pictures), default=-1) + 1
                if abs(count - _official(name, camera)) <= 1:
                    right += 1
                    continue
                others.append(f"{name} video {camera} has {count:,}, not {_official(name, camera):,}")
    seen = f"{right} have" + (f", {len(others)} have not, the first: {others[0]}" if others else "")
    return Check(what, not others if right or others else None, seen)


def _check_projection(root: Path, names: list[str], camera: int) -> Check:
    """Whether `annot3` is what that camera sees, in millimetres: its projection falls on `annot2`."""
    what = f"annot3 falls on annot2 through the camera, to {OFF_PX} px"
    for name in names:
        path = root / name / "annot.mat"
        # Those of version 5 are read as a whole, which takes longer than a survey may.
        if path.is_file() and (h5py.is_hdf5(path) or path.stat().st_size < _QUICK):
            try:
                matrix = intrinsics(root / name / "camera.calibration")[camera]
                pixels_TK2, points_TK3 = next(annotated(path, [camera]))
            except (MetroError, IndexError) as err:
                return Check(what, None, f"{name}: {err}")
            some = slice(None, None, max(1, len(points_TK3) // _SAMPLE))
            with np.errstate(all="ignore"):
                off = np.linalg.norm(project(points_TK3[some], matrix, None, "none") - pixels_TK2[some], axis=-1)
            worst = float(off.max(initial=0))
            return Check(what, worst <= OFF_PX, f"{name} camera {camera}: up to {worst:.2f} px")
    return Check(what, None, "no annot.mat that is quick to open")
