"""UP-3D: photographs of LSP, LSP-extended, MPII and FashionPose with SMPL fits that people accepted.

::

    train.txt, val.txt, trainval.txt, test.txt   5,703, 1,423, 7,126 and 1,389 lines /00001_image.png
    00001_image.png                              the picture
    00001_body.pkl                               the fit
    00001_joints.npy                             3 × 14: x, y, confidence of LSP's joints
    00001_render_light.png                       the fitted body on white
    00001_fit_crop_info.txt                      H W y1 y2 x1 x2
    00001_dataset_info.txt                       the set that the picture is from; not read

=================  =====================================================================================
key of body.pkl
=================  =====================================================================================
pose, betas        72 and 10: the neutral SMPL; some roots turn more than four times
t, f               3 and 1: X_cam = X_smpl + t, focal length 5000 px
rt, trans          zeros
j2d                25 × 2 px: SMPL's joints and the top of the head, to check which picture was fitted
=================  =====================================================================================

The picture that was fitted is H × W, its centre (W // 2, H // 2) in whole pixels. Where it is a scaled crop (rows y1 to
y2, columns x1 to x2) of the picture in the folder, the camera is brought back: pixels / s + (x1, y1) with s the mean of
H / (y2 - y1) and W / (x2 - x1).

Depths are 50 to 60 m, because the focal length is a guess: joints and translation are in that camera's frame and exact
in the picture, but how far away people are they do not tell. 2D joints are the annotated ones, 3D joints are read off
the mesh, boxes are the silhouette × 1.2, all as METRO has them (which takes 1.2 × here as for 3DPW).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.body.joints import JOINT_SETS, index_map
from metro.body.pickles import read_pickle
from metro.config import BodyConfig, DatasetConfig
from metro.data.crop import decode
from metro.data.records import BadRecord, Record
from metro.errors import MetroError
from metro.files import GET_AGAIN, readable
from metro.options import Up3dOptions
from metro.sources.bodies import Bodies, wrapped
from metro.sources.boxes import around
from metro.sources.labels import in_j24, numbers
from metro.sources.pictures import size_of
from metro.sources.source import Check, RawFile, Row, Survey, root_of

LICENCE = "research only: the terms of UP-3D and of the sets that its photographs are from"
SITE = "http://files.is.tuebingen.mpg.de/classner/up"

Array = NDArray[np.float64]

BOX_SCALE = 1.2
EXPECTED = {"train": 5_703, "trainval": 7_126, "val": 1_423, "test": 1_389}
SAMPLE = 8
"""Fits that the survey looks into."""
LARGEST_ANGLE = 100.0
"""Of a joint about an axis, radians: sixteen turns."""
FARTHEST_APART = 0.25
"""Median distance between fitted and annotated joints over the extent of these: beyond, one is of another picture."""

_LABELS = ("body.pkl", "joints.npy", "fit_crop_info.txt")
_PICTURES = ("image.png", "render_light.png")
_SHAPES: dict[str, tuple[int, ...]] = {"pose": (72,), "betas": (10,), "t": (3,), "rt": (3,), "trans": (3,), "f": ()}
_SHAPES |= {"j2d": (25, 2)}

_LIMBS = [name for name in JOINT_SETS["LSP14"] if name not in ("Neck", "Top_of_Head")]
_FITTED = [JOINT_SETS["SMPL24"].index(f"{'right' if n[0] == 'R' else 'left'}_{n[2:].lower()}") for n in _LIMBS]
_ANNOTATED = index_map("LSP14", _LIMBS)


class _Fit(NamedTuple):
    """What a fit says, and how its picture lies in the one of the folder: pixel p is at p / zoom + corner there."""

    pose: Array
    betas: Array
    transl: Array
    focal: float
    j2d: Array
    size: tuple[int, int]  # width and height of the picture that was fitted
    cut: tuple[int, int, int, int]  # x1, y1, x2, y2 in the picture that it was cut from
    zoom: float
    corner: Array

    def to_picture(self, points_N2: Array) -> Array:
        """Pixels of the picture in the folder from those of the one that was fitted."""
        return points_N2 / self.zoom + self.corner


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """The list of the split and the fits that it names; looks into a few of them."""
    root = root_of(config)
    name = _list(config)
    path = root / f"{name}.txt"
    origin = f"up-3d.zip of {SITE}"
    if not path.is_file():
        return Survey(dialect="flat folder", files=(RawFile(path.name, False, origin),), parameters="smpl")
    stems = [stem for line in _lines(path) if (stem := _stem(line))]
    there = {entry.name for entry in root.iterdir()}
    lacking = [file for stem in stems for part in _LABELS if (file := f"{stem}_{part}") not in there]
    pictures = [file for stem in stems for part in _PICTURES if (file := f"{stem}_{part}") not in there]
    notes = [
        f"{len(gone)} of the files it lists are missing, the first: {gone[0]}" for gone in (lacking, pictures) if gone
    ]
    labels = [RawFile(f"*_{part}", any(name.endswith(part) for name in there), origin) for part in _LABELS]
    return Survey(
        dialect="flat folder",
        files=(RawFile(path.name, True, origin), *labels),
        missing=() if len(pictures) < 2 * len(stems) else (f"the pictures that {path.name} lists ({origin})",),
        expected=EXPECTED[name],
        parameters="smpl",
        posed=config.supervision != "joints_2d",
        checks=_checks(root, stems[:: max(1, len(stems) // SAMPLE)]),
        notes=tuple(notes),
    )


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row | BadRecord]:
    """The pictures of the list."""
    path = root_of(config) / f"{_list(config)}.txt"
    known: set[str] = set()
    for number, line in enumerate(_lines(path), 1):
        stem = _stem(line)
        if stem is None or stem in known:
            problem = "names no picture" if stem is None else f"names {stem} again"
            yield BadRecord(f"up3d:{path.name}, line {number}", problem)
        else:
            known.add(stem)
            yield Row(f"{stem}_image.png", 0, stem)


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record | BadRecord]:
    """Records of the pictures."""
    root, bodies = root_of(config), Bodies(config, body)
    if config.supervision != "joints_2d":
        bodies.require("neutral")
    for row in rows:
        try:
            yield _record(config, bodies, root, row)
        except MetroError as err:
            yield BadRecord(f"up3d:{row.frame}#0", str(err))


def _record(config: DatasetConfig, bodies: Bodies, root: Path, row: Row) -> Record:
    stem, image = row.group, root / row.frame
    size, joints_J3 = size_of(image), _annotated(root / f"{stem}_joints.npy")
    fit, apart = _placed(_fit(root, stem), size, joints_J3)
    if apart > FARTHEST_APART:
        raise MetroError(f"{image}: its fit and its joints lie apart by {apart:.2f} of their extent: which picture was "
                         "fitted is not clear")  # fmt: skip
    low, high = _silhouette(root / f"{stem}_render_light.png", size, fit)
    centre = fit.to_picture(np.array(fit.size) // 2)
    focal = fit.focal / fit.zoom
    record = Record(
        source="up3d",
        frame=row.frame,
        image=image,
        box=around([low, high], BOX_SCALE),
        keypoints_2d=in_j24("LSP14", joints_J3[:, :2], joints_J3[:, 2]),
        pose_aa=wrapped(fit.pose),
        betas=fit.betas,
        transl=fit.transl,
        intrinsics=np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]]),
        mesh_origin="fit",
    )
    if config.supervision != "joints_2d":
        joints = bodies.joints("neutral", fit.pose[None], fit.betas[None], fit.transl[None])[0]
        record.joints_3d = np.concatenate([joints, np.ones((len(joints), 1))], 1)
    return record


def _list(config: DatasetConfig) -> str:
    if config.chosen(Up3dOptions).trainval and config.split != "train":
        raise MetroError(f"source up3d: trainval: true goes with split: train, not with {config.split}")
    name = {"train": "train", "validation": "val", "test": "test"}[config.split]
    return "trainval" if config.chosen(Up3dOptions).trainval else name


def _lines(path: Path) -> list[str]:
    with readable(path, GET_AGAIN):
        return path.read_text("ascii").split()


def _stem(line: str) -> str | None:
    """The number of a picture as file names have it."""
    match = re.fullmatch(r"/?(\d{5})_image\.png", line)
    return match[1] if match else None


def _fit(root: Path, stem: str) -> _Fit:
    path = root / f"{stem}_body.pkl"
    content = read_pickle(path)
    with readable(path, GET_AGAIN):
        found = {name: _stored(content, name, *shape) for name, shape in _SHAPES.items()}
        if found["rt"].any() or found["trans"].any():
            raise MetroError(f"{path}: rt and trans are not 0, which no fit of the set is known to have; {GET_AGAIN}")
        if np.abs(found["pose"]).max() > LARGEST_ANGLE:
            raise MetroError(f"{path}: pose is no rotation vectors; {GET_AGAIN}")
        if not found["t"][2] > 0:
            raise MetroError(f"{path}: the body is not before the camera; {GET_AGAIN}")
    info = root / f"{stem}_fit_crop_info.txt"
    with readable(info, GET_AGAIN):
        height, width, y1, y2, x1, x2 = (int(word) for word in info.read_text("ascii").split())
        if min(height, width, y2 - y1, x2 - x1, y1 + 1, x1 + 1) < 1:
            raise ValueError("H W y1 y2 x1 x2 are no part of a picture")
    zoom = (height / (y2 - y1) + width / (x2 - x1)) / 2
    return _Fit(
        pose=found["pose"],
        betas=found["betas"],
        transl=found["t"],
        focal=float(found["f"]),
        j2d=found["j2d"],
        size=(width, height),
        cut=(x1, y1, x2, y2),
        zoom=zoom,
        corner=np.array([x1, y1], np.float64),
    )


def _stored(content: Any, name: str, *shape: int) -> Array:
    """Raises a ValueError or KeyError where a pickle holds something else."""
    value = np.asarray(content[name]) if isinstance(content[name], np.ndarray | float | int) else None
    return numbers(value if value is not None and value.dtype.kind in "iuf" else (), name, *shape)


def _placed(fit: _Fit, size: tuple[int, int], joints_J3: Array) -> tuple[_Fit, float]:
    """The fit with the place of its picture in the one of the folder, and how far it is from the annotated joints.

    The set does not say whether its folder holds the picture that was fitted or the one that this was cut from: where
    sizes allow both, the joints tell.
    """
    whole = fit._replace(zoom=1.0, corner=np.zeros(2))
    part = fit.cut != (0, 0, *fit.size) and fit.cut[2] <= size[0] and fit.cut[3] <= size[1]
    candidates = [*([whole] if size == fit.size else []), *([fit] if part else [])]
    if not candidates:
        raise MetroError(f"the picture of {size[0]} × {size[1]} pixels is neither the one of {fit.size[0]} × "
                         f"{fit.size[1]} that was fitted, nor one that holds its part {fit.cut}")  # fmt: skip
    apart, best = min((_apart(candidate, joints_J3), n) for n, candidate in enumerate(candidates))
    return candidates[best], apart


def _apart(fit: _Fit, joints_J3: Array) -> float:
    """Median distance of fitted and annotated limb joints over the extent of these; 0 where too few are annotated."""
    annotated_L3 = joints_J3[_ANNOTATED]
    known_L = annotated_L3[:, 2] > 0
    if known_L.sum() < len(_LIMBS) / 2:
        return 0.0
    annotated_L2 = annotated_L3[known_L, :2]
    with np.errstate(all="ignore"):
        distance_L = np.linalg.norm(fit.to_picture(fit.j2d)[_FITTED][known_L] - annotated_L2, axis=1)
    return float(np.median(distance_L) / max(1.0, float(np.ptp(annotated_L2, axis=0).max())))


def _annotated(path: Path) -> Array:
    """Annotated joints (14, 3) in the order of LSP14."""
    with readable(path, GET_AGAIN):
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(stored, np.ndarray) or stored.shape != (3, 14) or stored.dtype.kind not in "iuf":
            raise ValueError("not 3 × 14 numbers")
        return np.array(stored.T, np.float64)


def _silhouette(path: Path, size: tuple[int, int], fit: _Fit) -> tuple[Array, Array]:
    """Corners (2,) of what is not white in the drawing of a fit, in pixels of the picture in the folder."""
    with readable(path, GET_AGAIN):
        drawing = decode(path.read_bytes())
    if drawing is None:
        raise MetroError(f"{path}: not a readable image; {GET_AGAIN}")
    drawn = np.any(drawing < 255, axis=2)
    columns, lines = np.flatnonzero(drawn.any(0)), np.flatnonzero(drawn.any(1))
    if not len(columns):
        raise MetroError(f"{path}: shows nobody; {GET_AGAIN}")
    corners = np.array([[columns[0], lines[0]], [columns[-1], lines[-1]]], np.float64)
    if (drawing.shape[1], drawing.shape[0]) == size:
        return corners[0], corners[1]
    if (drawing.shape[1], drawing.shape[0]) == fit.size:
        return fit.to_picture(corners)[0], fit.to_picture(corners)[1]
    raise MetroError(f"{path}: is neither of the size of its picture nor of the one that was fitted; {GET_AGAIN}")


def _checks(root: Path, stems: list[str]) -> tuple[Check, ...]:
    """Whether fits lie on the annotated joints, and whether these have a confidence."""
    apart, cut, sure = [], 0, []
    for stem in stems:
        with suppress(MetroError):
            joints_J3 = _annotated(root / f"{stem}_joints.npy")
            fit, distance = _placed(_fit(root, stem), size_of(root / f"{stem}_image.png"), joints_J3)
            apart.append(distance)
            cut += fit.zoom != 1 or bool(fit.corner.any())
            sure.append(joints_J3[:, 2])
    if not apart:
        return (Check("fits lie on the annotated joints", None, f"none of {len(stems)} fits can be read"),)
    return (
        Check(
            "fits lie on the annotated joints of the picture in the folder",
            max(apart) < FARTHEST_APART,
            f"median distance up to {max(apart):.3f} of the extent in {len(apart)} fits, {cut} of them of parts",
        ),
        Check(
            "the third row of joints.npy is a confidence",
            all(((row >= 0) & (row <= 1)).all() for row in sure),
            f"1 throughout in {sum(bool((row == 1).all()) for row in sure)} of {len(sure)} files",
        ),
    )
