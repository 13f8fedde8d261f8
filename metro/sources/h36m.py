"""Human3.6M: videos or extracted frames of four cameras, joints of motion capture in 2D and 3D, fitted SMPL bodies.

::

    metadata.xml                                        names of the actions by subject, cameras, sizes of pictures
    S1/MyPoseFeatures/D2_Positions/ACTION.CAMERA.cdf    also S1/Poses_D2_Positions/… and s1/D2_Positions/…
    S1/MyPoseFeatures/D3_Positions_mono/ACTION.CAMERA.cdf
    S1/MyPoseFeatures/D3_Positions/ACTION.cdf           joints in the world: not needed, `survey` compares one
    S1/MySegmentsMat/ground_truth_bb/ACTION.CAMERA.mat  for boxes from masks
    S1/Videos/ACTION.CAMERA.mp4                         or extracted frames, see `h36m_files.LAYOUTS`
    Human36M_subject1_smpl_param.json                   fitted bodies, if there are any; also in annotations/
    S1/ACTION_cam0_aligned.pkl                          MoSh's bodies, taken where there is no fit; `h36m_files.MOSH`

=================  =====================================================================================================
D2_Positions       `Pose` 1 × T × 64: pixels of 32 joints, of which 17 differ
D3_Positions_mono  `Pose` 1 × T × 96: the same joints in the camera frame, mm; `…_mono_universal` is another skeleton
ground_truth_bb    `Masks`: T pictures of the person's box
smpl_param         by action, subaction and frame: `pose` 72, `shape` 10, `trans` 3; in the world, every 5th frame
MoSh               `new_poses` T/5 × 72, `betas` 10, by camera; no translation
metadata.xml       `mapping` of actions to names; `w0`: 4 cameras × 11 subjects × (3 angles, position in mm), then
                   4 cameras × (f 2, c 2, k 3, p 2)
=================  =====================================================================================================

Frame k of a video, from 0, shows row k of the pose files; extracted frames are named by k + 1 in all layouts but one.
Lengths differ by a frame or so: frames that both have are taken, others are counted. The lens is the set's own formula.

- Bodies turn about their pelvis; all are of the neutral model. The error of a fit is the mean distance of its joints to
  the annotated ones after the means of both are put together, as the authors of the fits have it. If it is too large
  the record has joints alone. A shape too far from the mean becomes the mean one before all else.
- In three actions of S9 the joints are shifted along x of the world. 2D joints are projections of the shifted ones, so
  nothing shows when they are compared. `correct` moves 3D joints and fits by -200 mm in the world and projects the
  moved joints through the lens; boxes from masks stay, since they come from the picture.

METRO's own files differ: their 2D joints are projected without distortion, and so not where the picture shows them.
Licence and site are in `LICENCE` and `SITE`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from metro.body.joints import shared
from metro.config import BodyConfig, DatasetConfig
from metro.data.lens import project
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.options import H36mOptions
from metro.sources.bodies import Bodies, to_camera, wrapped
from metro.sources.boxes import around
from metro.sources.formats import video
from metro.sources.formats.cdf import read_pose
from metro.sources.h36m_files import (
    FITS,
    MASKS,
    MOSH,
    Camera,
    Layout,
    Metadata,
    Sequence,
    mask_boxes,
    pictures,
    read_fits,
    read_joints,
    read_metadata,
    read_mosh,
)
from metro.sources.labels import in_j24, packed, unpacked
from metro.sources.source import Check, RawFile, Row, Survey, root_of
from metro.synthetic import exact

LICENCE = "academic use only, by an agreement with the authors; neither the data nor what is made from it is passed on"
SITE = "http://vision.imar.ro/human3.6m"
EXPECTED = {"train": 312_188, "p2_graphcmr": 27_558}
"""Records by protocol, every fifth frame (METRO)."""
SHIFT_M = -0.2
"""What moves the faulty joints of S9 back, along x of the world."""

_AT, _TO = shared("H36M_MOCAP17", "J24")
_SLACK = 25  # frames, half a second: a video that ends earlier than that before its poses is not whole
_TOLERANCE_PX = 1.0  # between 2D joints and projected 3D joints: those of one frame and camera agree to 1e-4


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """By names; of pose files, videos and fits one each is opened."""
    root, options = root_of(config), config.chosen(H36mOptions)
    if (options.protocol == "train") != (config.split == "train"):
        raise MetroError(f"source h36m: protocol {options.protocol!r} of the options and split {config.split!r} are of "
                         "different subjects; set the one or the other")  # fmt: skip
    if not (root / "metadata.xml").is_file():
        lacking = RawFile("metadata.xml", False, f"the code that {SITE} offers beside the data")
        return Survey(dialect="not known without metadata.xml", files=(lacking,))
    metadata = read_metadata(root)
    everything, step = _chosen(metadata, options)
    sequences = _here(root, everything, step)
    files, missing = [RawFile("metadata.xml", True, SITE)], []
    shown: dict[Sequence, Layout] = {}
    for subject, group in groupby(sequences or everything, attrgetter("subject")):
        mine = list(group)
        for kind in ("D2_Positions", "D3_Positions_mono"):
            files += _pose_files(root, mine, kind, f"Poses_{kind}_S{subject}.tgz")
        found = {sequence: layout for sequence in mine if (layout := sequence.layout(root, step))}
        if not found:
            missing.append(f"pictures of S{subject} (Videos_S{subject}.tgz, or frames extracted from it)")
        if options.box != "joints":
            archive = f"Segments_mat_gt_bb_S{subject}.tgz"
            paths = [(s.find(root, MASKS), s.path(MASKS[0])) for s in found]
            files += [RawFile(path or official, path is not None, archive) for path, official in paths]
        shown |= found
    absent = Counter(s.subject for s in everything) - Counter(s.subject for s in sequences)
    notes = [f"S{s}: {n} sequences of the protocol are not here, and are not made" for s, n in absent.items()]
    notes += [f"{s.group}: no pictures; what it holds counts as bad" for s in sequences if s not in shown]
    fits = _bodies_of(root, sequences) if config.supervision == "mesh" else []
    if config.supervision == "mesh" and not fits:
        notes.append("no fitted bodies: records have joints alone, from which the stage `fit` makes meshes")
    return Survey(
        dialect=", ".join(sorted({layout.words for layout in shown.values()})) or "no pictures",
        files=(*files, *(RawFile(path, True, "bodies fitted to the set by others") for path in fits)),
        missing=tuple(missing),
        expected=EXPECTED.get(options.protocol) if options.s9_faults != "drop" and options.step == 5 else None,
        parameters="smpl" if fits else None,
        checks=tuple(_checks(root, metadata, shown)),
        notes=tuple(notes),
    )


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row | Left | BadRecord]:
    """Video by video. Labels are the number of the frame and, where there is one, the fit to it: its 85 numbers as
    base64, which takes a tenth of the time of writing them out, for each of four cameras."""
    root, options = root_of(config), config.chosen(H36mOptions)
    sequences, step = _chosen(read_metadata(root), options)
    for subject, group in groupby(_here(root, sequences, step), attrgetter("subject")):
        mine = list(group)
        path = mine[0].find(root, FITS) if config.supervision == "mesh" else None
        given = read_fits(root / path, subject)[0] if path else {}
        fits = {of: packed(fit) for of, fit in given.items() if np.isfinite(fit).all()}
        for sequence in mine:
            yield from _rows(root, sequence, step, sequence.faulty and options.s9_faults == "drop", fits)


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record | BadRecord]:
    """The records of a video together: it is decoded once, from its beginning."""
    root, options = root_of(config), config.chosen(H36mOptions)
    metadata, bodies = read_metadata(root), Bodies(config, body)
    known = {sequence.group: sequence for sequence in _chosen(metadata, options)[0]}
    for group, members in groupby(rows, attrgetter("group")):
        sequence, mine = known[group], list(members)
        camera = metadata.camera(sequence)
        try:
            labels = _labels(config, root, sequence, camera, mine, bodies)
        except MetroError as err:
            yield BadRecord(f"h36m:{group}", str(err), len(mine))
            continue
        for row, fields, picture in zip(mine, labels, pictures(root, mine, camera.size), strict=True):
            if isinstance(fields, str) or isinstance(picture, str):
                yield BadRecord(f"h36m:{row.frame}#0", fields if isinstance(fields, str) else str(picture))
            else:
                yield Record(source="h36m", frame=row.frame, image=picture, **fields)


def _chosen(metadata: Metadata, options: H36mOptions) -> tuple[list[Sequence], int]:
    """Sequences of the protocol, and every which frame."""
    subjects = (1, 5, 6, 7, 8) if options.protocol == "train" else (9, 11)
    cameras = (3,) if options.protocol in ("p2_graphcmr", "p2_i2l") else (0, 1, 2, 3)
    step = 64 if options.protocol in ("p2_i2l", "p2_every64") else options.step
    return metadata.sequences(subjects, cameras), step


def _here(root: Path, sequences: list[Sequence], step: int) -> list[Sequence]:
    """Sequences of which there is anything. Who has fetched a part of the set can use that part."""
    kinds = ("D2_Positions", "D3_Positions_mono")
    return [
        sequence
        for sequence in sequences
        if any((root / sequence.pose_file(root, kind)).is_file() for kind in kinds) or sequence.layout(root, step)
    ]


def _pose_files(root: Path, sequences: list[Sequence], kind: str, archive: str) -> list[RawFile]:
    """The pose files of a subject, or their folder if it is missing as a whole."""
    paths = [sequence.pose_file(root, kind) for sequence in sequences]
    folder = Path(paths[0]).parent
    if not (root / folder).is_dir():
        return [RawFile(folder.as_posix(), False, archive)]
    return [RawFile(path, (root / path).is_file(), archive) for path in paths]


def _bodies_of(root: Path, sequences: list[Sequence]) -> list[str]:
    """Files of fitted bodies: those that `rows` and `read` take."""
    paths = [sequence.find(root, FITS) or sequence.find(root, MOSH) for sequence in sequences]
    return sorted({path for path in paths if path})


def _rows(
    root: Path, sequence: Sequence, step: int, drop: bool, fits: dict[tuple[int, int, int], str]
) -> Iterator[Row | Left | BadRecord]:
    layout, posed, shown, problem = sequence.layout(root, step), 0, 0, ""
    try:
        posed = len(read_pose(root / sequence.pose_file(root, "D3_Positions_mono")))
    except MetroError as err:
        problem = str(err)
    try:
        if layout is None:
            problem = problem or "its video, or its extracted frames, are missing"
        elif layout.first is None:
            shown = video.count(root / sequence.path(layout.pattern)) or posed  # 0: the container does not tell
        else:
            shown = _extracted(root, sequence, layout, range(0, posed, step))
    except MetroError as err:
        problem = problem or str(err)
    if problem or layout is None:
        yield BadRecord(f"h36m:{sequence.group}", problem, max(1, len(range(0, posed or shown, step))))
        return
    wanted = range(0, min(posed, shown), step)
    if drop:
        yield Left("S9 action whose joints are shifted", len(wanted))
        return
    unseen = len(range(0, posed, step)) - len(wanted)
    if unseen and posed - shown > _SLACK:
        yield BadRecord(f"h36m:{sequence.group}", f"its pictures end after {shown} of {posed} frames", unseen)
    elif unseen:
        yield Left("frame after the end of the video", unseen)
    if unknown := len(range(0, shown, step)) - len(wanted):
        yield Left("frame after the end of the poses", unknown)
    yield Left(f"not one of every {step} frames", wanted.stop - len(wanted))
    for frame in wanted:
        fit = fits.get((sequence.action, sequence.subaction, frame))
        labels = [frame] if fit is None else [frame, fit]
        yield Row(sequence.picture(layout, frame), 0, sequence.group, labels)


def _extracted(root: Path, sequence: Sequence, layout: Layout, wanted: range) -> int:
    """Frames that there are pictures of, taken from the last wanted one: all of them if it is there."""
    last = next((k for k in reversed(wanted) if (root / sequence.picture(layout, k)).is_file()), -1)
    return wanted.stop if wanted and last == wanted[-1] else last + 1


def _labels(
    config: DatasetConfig, root: Path, sequence: Sequence, camera: Camera, rows: list[Row], bodies: Bodies
) -> list[dict[str, Any] | str]:
    """Fields of the record of each row, or what is wrong with it."""
    options = config.chosen(H36mOptions)
    frames = np.array([row.labels[0] for row in rows])
    px_N172 = read_joints(root / sequence.pose_file(root, "D2_Positions"), frames, 2)
    cam_N173 = read_joints(root / sequence.pose_file(root, "D3_Positions_mono"), frames, 3) / 1000
    seen_N17, known_N17 = np.isfinite(px_N172.sum(2)), np.isfinite(cam_N173.sum(2))
    lens = (camera.intrinsics_33, camera.distortion_8, "h36m")
    with np.errstate(all="ignore"):  # of joints that are none
        apart_N17 = np.abs(project(cam_N173, *lens) - px_N172).max(2)
    apart_N = np.where(seen_N17 & known_N17, apart_N17, 0).max(1)
    shift_3 = np.zeros(3)
    if sequence.faulty and options.s9_faults == "correct":
        shift_3[0] = SHIFT_M
        cam_N173 = cam_N173 + camera.rotation_33[:, 0] * SHIFT_M
        px_N172 = project(cam_N173, *lens)
        seen_N17 &= known_N17
    if options.box == "joints":
        tight = [around(px[seen], 1.2) for px, seen in zip(px_N172, seen_N17, strict=True)]
        boxes = ["its 2D joints span no box" if box is None else box for box in tight]
    else:
        path = root / (sequence.find(root, MASKS) or sequence.path(MASKS[0]))
        boxes = mask_boxes(path, frames.tolist(), camera.size, float(options.box.removeprefix("mask_")))
    meshes = _meshes(config, root, sequence, camera, rows, bodies, shift_3, cam_N173, known_N17)
    labels: list[dict[str, Any] | str] = []
    for n, (box, mesh) in enumerate(zip(boxes, meshes, strict=True)):
        if not (seen_N17[n] | known_N17[n]).any():
            labels.append("its joints are missing, or not numbers")
        elif not apart_N[n] < _TOLERANCE_PX:
            labels.append(f"its 2D joints are {apart_N[n]:.3g} px from where the lens shows its 3D joints")
        elif isinstance(box, str):
            labels.append(box)
        else:
            fields = {
                "box": box,
                "keypoints_2d": in_j24("H36M_MOCAP17", px_N172[n], seen_N17[n]),
                "joints_3d": in_j24("H36M_MOCAP17", cam_N173[n], known_N17[n]),
                "intrinsics": camera.intrinsics_33,
                "distortion": camera.distortion_8,
                "lens": "h36m",
            }
            labels.append(fields | mesh)
    return labels


def _meshes(
    config: DatasetConfig,
    root: Path,
    sequence: Sequence,
    camera: Camera,
    rows: list[Row],
    bodies: Bodies,
    shift_3: np.ndarray,
    cam_N173: np.ndarray,
    known_N17: np.ndarray,
) -> list[dict[str, Any]]:
    """Fields of the mesh of each row; none where there is none that is near enough to the joints."""
    options = config.chosen(H36mOptions)
    meshes: list[dict[str, Any]] = [{} for _ in rows]
    fitted = [n for n, row in enumerate(rows) if len(row.labels) == 2]
    origin, transl_F3 = "fit", np.zeros((len(fitted), 3))
    if fitted:
        pose_F72, given_F10, transl_F3 = np.split(np.array([unpacked(rows[n].labels[1]) for n in fitted]), [72, 82], 1)
        betas_F10 = given_F10 * (np.abs(given_F10).max(1, keepdims=True) <= options.max_beta)
        pelvis_F3, world = bodies.pelvis("neutral", betas_F10), (camera.rotation_33, camera.translation_3)
        pose_F72, transl_F3 = to_camera(*world, pose_F72, transl_F3 + shift_3, pelvis_F3)
    elif config.supervision == "mesh" and not sequence.find(root, FITS) and (path := sequence.find(root, MOSH)):
        origin = "mocap"
        fitted, pose_F72, betas_F10 = read_mosh(root / path, [row.labels[0] for row in rows])
        transl_F3 = np.zeros((len(fitted), 3))
    if not fitted:
        return meshes
    pose_F72 = wrapped(pose_F72)
    joints_F173 = bodies.joints("neutral", pose_F72, betas_F10, transl_F3)[:, _TO]
    for i, n in enumerate(fitted):
        known_17 = known_N17[n, _AT]
        off_K3 = (joints_F173[i] - cam_N173[n, _AT])[known_17]
        error = float(np.sqrt(((off_K3 - off_K3.mean(0)) ** 2).sum(1)).mean()) if len(off_K3) else np.inf
        if error <= options.max_fit_error:
            meshes[n] = {"pose_aa": pose_F72[i], "betas": betas_F10[i], "mesh_origin": origin}
            meshes[n] |= {"transl": transl_F3[i], "fit_error": error} if origin == "fit" else {}
    return meshes


def _lens_seen(root: Path, sequence: Sequence, layout: Layout, camera: Camera) -> tuple[bool, str] | None:
    cam_173 = _first_joints(root, sequence, "D3_Positions_mono", 3) / 1000
    px_172 = _first_joints(root, sequence, "D2_Positions", 2)
    through = (camera.intrinsics_33, camera.distortion_8)
    off = {lens: float(np.abs(project(cam_173, *through, lens) - px_172).max()) for lens in ("h36m", "opencv")}
    return off["h36m"] < 0.01, f"{off['h36m']:.2g} px off in {sequence.group}, through OpenCV's {off['opencv']:.2g} px"


def _world_seen(root: Path, sequence: Sequence, layout: Layout, camera: Camera) -> tuple[bool, str] | None:
    if not (root / sequence.pose_file(root, "D3_Positions")).is_file():
        return None
    world_173 = _first_joints(root, sequence, "D3_Positions", 3) / 1000
    off_173 = exact.matmul(world_173, camera.rotation_33.T) + camera.translation_3
    off = float(np.abs(off_173 - _first_joints(root, sequence, "D3_Positions_mono", 3) / 1000).max())
    return off < 1e-3, f"{1000 * off:.2g} mm off in {sequence.group}"


def _size_seen(root: Path, sequence: Sequence, layout: Layout, camera: Camera) -> tuple[bool, str] | None:
    if layout.first is not None:
        return None
    film = root / sequence.path(layout.pattern)
    size = next((picture.shape[1::-1] for _, picture in video.frames(film, [0])), ())
    return size == camera.size, f"{' × '.join(map(str, size))} pixels, {video.count(film)} frames in {film.name}"


def _unit_seen(root: Path, sequence: Sequence, layout: Layout, camera: Camera) -> tuple[bool, str] | None:
    path = sequence.find(root, FITS)
    if path is None:
        return None
    unit = read_fits(root / path, sequence.subject)[1]
    return unit < 1, f"{path} is in {'millimetres' if unit < 1 else 'metres, and read as such'}"


def _first_joints(root: Path, sequence: Sequence, kind: str, size: int) -> np.ndarray:
    return read_joints(root / sequence.pose_file(root, kind), np.array([0]), size)[0]


_LOOKS = {
    "2D joints are 3D joints through the set's own lens": _lens_seen,
    "cameras take joints of the world to their own": _world_seen,
    "pictures are as large as metadata.xml tells": _size_seen,
    "translations of fits are in millimetres": _unit_seen,
}


def _checks(root: Path, metadata: Metadata, shown: dict[Sequence, Layout]) -> Iterator[Check]:
    """What the first sequence tells about the set."""
    for sequence, layout in [*shown.items()][:1]:
        for what, look in _LOOKS.items():
            try:
                found = look(root, sequence, layout, metadata.camera(sequence))
            except MetroError as err:  # one bad file is no reason to prepare nothing
                found = (False, str(err))
            if found:
                yield Check(what, *found)
