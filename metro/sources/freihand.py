"""FreiHAND, version 2: right hands before a green screen, whose background was exchanged, with MANO fits.

::

    training/rgb/00000000.jpg …             130,240 of 224 × 224 px; evaluation/rgb: 3,960
    training_{K,mano,xyz,scale}.json        lists of 32,560; training_verts.json (1.7 GB) with `verts: true` alone
    evaluation_{K,scale}.json               lists of 3,960; evaluation_{mano,xyz,verts}.json are public since 2022

==========  ============================================================================================
list        an entry
==========  ============================================================================================
K           3 × 3 camera matrix
xyz         21 × 3 metres, camera frame: HAND21, with the tips `TIP_VERTICES["freihand"]`
mano        1 × 61: pose 48, relative to MANO's mean pose as `Record.pose_aa` is; shape 10; u, v and scale of the root
scale       metres from keypoint 9 to 10; read by the survey, as a check
verts       778 × 3 metres, camera frame
==========  ============================================================================================

There are n poses and up to four versions of each: picture i shows pose i mod n. Rows go by pose, so that each list is
read once; those of the evaluation set are in the order of its pictures. The root is keypoint 9, at
(u - cx, v - cy, f) / scale with f the mean of both focal lengths; MANO's translation is what brings that joint of the
posed hand there. Crops are METRO's: 180 px about (112, 112).

METRO trained on refits of these hands (Pose2Mesh, I2L-MeshNet), so its poses have other values. Its joints are those of
the posed hand, whose tips are a few mm from the annotated ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metro.body.joints import FINGERTIPS, JOINT_SETS, TIP_VERTICES, index_map, shared
from metro.config import BodyConfig, DatasetConfig
from metro.data.lens import project
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.options import FreihandOptions
from metro.sources.bodies import Bodies, wrapped
from metro.sources.formats.stream import items
from metro.sources.labels import numbers, packed, unpacked
from metro.sources.source import Check, RawFile, Row, Survey, root_of, whose_parameters

LICENCE = "research only, commercial use prohibited: the terms in the README that comes with the set"
SITE = "https://lmb.informatik.uni-freiburg.de/projects/freihand"

Array = NDArray[np.float64]

POSES, EVALUATION = 32_560, 3_960
BACKGROUNDS = 4
CENTER, SCALE = (112.0, 112.0), 0.9
ROOT, NEXT = JOINT_SETS["HAND21"].index("Middle1"), JOINT_SETS["HAND21"].index("Middle2")
SAMPLE = 16
"""Poses that the survey looks into."""
EXACT, APART, FARTHEST = 1e-4, 2e-3, 1e-2
"""Metres that say the same; that mean and largest difference of a mesh and what it was fitted to may be. Version 2 was
converted from an older MANO, which moved vertices by 0.6 mm in the mean and 6 mm at most."""

_SHAPES: dict[str, tuple[int, ...]] = {"K": (3, 3), "mano": (61,), "xyz": (21, 3), "verts": (778, 3), "scale": ()}
_KEPT = ("K", "mano", "xyz")


def survey(config: DatasetConfig, body: BodyConfig) -> Survey:
    """The lists and pictures of the split; looks into the first poses."""
    root, options = root_of(config), config.chosen(FreihandOptions)
    if config.split == "validation" and not options.validation:
        raise MetroError("source freihand: split: validation needs options.validation, the share of the training poses "
                         "that is held back, in this set and in the one of split: train")  # fmt: skip
    part, versions = _part(config)
    labelled = _labelled(root, part)
    names = _names(options) if labelled else ["K"]
    origin = f"FreiHAND_pub_v2{'_eval' if part == 'evaluation' and labelled else ''}.zip of {SITE}"
    files = tuple(RawFile(f"{part}_{name}.json", (root / f"{part}_{name}.json").is_file(), origin) for name in names)
    found = all(file.found for file in files)
    missing, notes = [], []
    if not (root / part / "rgb").is_dir():
        missing.append(f"{part}/rgb ({origin})")
    elif found and not (root / _frame(part, versions * (poses := _count(root, part)) - 1)).is_file():
        notes.append(f"{part}/rgb lacks the last of {versions * poses} pictures: {versions} versions of {poses} poses")
    if not labelled:
        notes.append(f"the pictures have no labels: {part}_xyz.json and {part}_mano.json, public since 2022, are "
                     "missing")  # fmt: skip
    made = Survey(
        dialect=f"version 2, {part} set{'' if labelled else ' without labels'}",
        files=files,
        missing=tuple(missing),
        expected=_expected(config) if labelled else None,
        figure="hand",
        parameters="mano",
        notes=tuple(notes),
    )
    if not (labelled and found):
        return made
    posable = Bodies(config, body) if whose_parameters(config, made) == body.kind else None
    return replace(made, checks=_checks(root, part, _names(options), posable))


def rows(config: DatasetConfig, body: BodyConfig) -> Iterator[Row | Left | BadRecord]:
    """Pose by pose the pictures of it."""
    root, options = root_of(config), config.chosen(FreihandOptions)
    part, versions = _part(config)
    poses = _count(root, part)
    if not _labelled(root, part):
        yield Left("no labels", poses)
        return
    bodies = Bodies(config, body)
    for pose, entry in enumerate(_entries(root, part, _names(options))):
        if part == "training" and _held_back(pose, options.validation) != (config.split == "validation"):
            continue
        frames = [_frame(part, pose + version * poses) for version in range(versions)]
        try:
            labels = {name: _entry(name, value) for name, value in entry.items()}
            _check_root(labels)
            if options.verts and (off := _off(bodies, labels).max()) > FARTHEST:
                raise ValueError(f"its mesh is up to {1000 * off:.1f} mm from {part}_verts.json")
        except (TypeError, ValueError, OverflowError) as err:
            yield BadRecord(f"freihand:{frames[0]}#0", f"pose {pose}: {err}", versions)
            continue
        kept = _as_text(labels)
        yield from (Row(frame, 0, str(pose), kept) for frame in frames)


def read(config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record]:
    """Records of the pictures; a hand is posed once for all versions of its picture."""
    root, bodies = root_of(config), Bodies(config, body)
    for _, group in groupby(rows, key=lambda row: row.group):
        members = list(group)
        labels = _from_text(members[0].labels)
        # Only meshes need the body.
        mesh = _mesh(bodies, labels) if config.supervision == "mesh" else {}
        ones = np.ones((len(labels["xyz"]), 1))
        pixels = project(labels["xyz"], labels["K"], None, "none")
        for row in members:
            yield Record(
                source="freihand",
                frame=row.frame,
                image=root / row.frame,
                center=np.array(CENTER),
                scale=SCALE,
                keypoints_2d=np.concatenate([pixels, ones], 1),
                joints_3d=np.concatenate([labels["xyz"], ones], 1),
                intrinsics=labels["K"],
                **mesh,
            )


def _part(config: DatasetConfig) -> tuple[str, int]:
    """The part of the set that a split is in, and the versions of each of its pictures."""
    return ("evaluation", 1) if config.split == "test" else ("training", config.chosen(FreihandOptions).backgrounds)


def _names(options: FreihandOptions) -> list[str]:
    """Lists that are read."""
    return [*_KEPT, *(["verts"] if options.verts else [])]


def _labelled(root: Path, part: str) -> bool:
    """Whether there are labels; the evaluation set may lack them."""
    return part == "training" or any((root / f"{part}_{name}.json").is_file() for name in ("mano", "xyz"))


def _frame(part: str, number: int) -> str:
    return f"{part}/rgb/{number:08d}.jpg"


def _count(root: Path, part: str) -> int:
    """Poses: by the smallest of the lists."""
    return sum(1 for _ in items(root / f"{part}_K.json", "item"))


def _held_back(pose: int, share: float) -> bool:
    """Whether a training pose is one of the share for validation, which its number alone decides."""
    return int.from_bytes(hashlib.sha256(b"freihand %d" % pose).digest()[:6]) < share * 2**48


def _expected(config: DatasetConfig) -> int:
    part, versions = _part(config)
    if part == "evaluation":
        return EVALUATION
    share = config.chosen(FreihandOptions).validation
    held = sum(_held_back(pose, share) for pose in range(POSES)) if share else 0
    return versions * (held if config.split == "validation" else POSES - held)


def _entries(root: Path, part: str, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Entries of lists, side by side: those of one pose by name of the list."""
    paths = [root / f"{part}_{name}.json" for name in names]
    end = object()
    for pose, values in enumerate(zip_longest(*(items(path, "item") for path in paths), fillvalue=end)):
        if end in values:
            ended = paths[values.index(end)]
            raise MetroError(f"{ended}: ends after {pose} entries, before others of its like: which labels belong to "
                             "which picture cannot be told; get all of them again from where they came")  # fmt: skip
        yield dict(zip(names, values, strict=True))


def _entry(name: str, value: Any) -> Array:
    """An entry of a list; raises a TypeError or ValueError if it is something else."""
    array = np.array(value, np.float64)
    if name == "mano" and array.shape == (1, 61):
        array = array[0]
    return numbers(array, name, *_SHAPES[name])


def _as_text(labels: dict[str, Array]) -> str:
    """Labels for rows of the index."""
    return packed(np.concatenate([labels[name].ravel() for name in _KEPT]))


def _from_text(text: str) -> dict[str, Array]:
    ends = np.cumsum([np.prod(_SHAPES[name], dtype=int) for name in _KEPT])
    parts = zip(_KEPT, np.split(unpacked(text), ends[:-1]), strict=True)
    return {name: part.reshape(_SHAPES[name]) for name, part in parts}


def _check_root(labels: dict[str, Array]) -> None:
    if not (labels["mano"][60] > 0 and (labels["xyz"][:, 2] > 0).all()):
        raise ValueError("the hand is not before the camera")
    if (off := float(np.linalg.norm(_root(labels) - labels["xyz"][ROOT]))) > FARTHEST:
        raise ValueError(f"mano has keypoint {ROOT} {1000 * off:.1f} mm from where xyz has it")


def _root(labels: dict[str, Array]) -> Array:
    """Where `mano` has keypoint 9: metres, camera frame."""
    K, (u, v, scale) = labels["K"], labels["mano"][58:]
    return np.array([u - K[0, 2], v - K[1, 2], (K[0, 0] + K[1, 1]) / 2]) / scale


def _mesh(bodies: Bodies, labels: dict[str, Array]) -> dict[str, Any]:
    """Pose, shape and translation."""
    pose, betas = labels["mano"][:48].copy(), labels["mano"][48:58]
    # The root turns as any joint does; fingers are added to the mean pose.
    pose[:3] = wrapped(pose[:3])
    posed = bodies.kinematic("neutral", pose[None], betas[None], np.zeros((1, 3)))[0]
    transl = _root(labels) - posed[JOINT_SETS["MANO16"].index("Middle1")]
    return {"pose_aa": pose, "betas": betas, "transl": transl, "mesh_origin": "fit"}


def _off(bodies: Bodies, labels: dict[str, Array]) -> Array:
    """How far the vertices of the mesh are from `verts`, metres (778,)."""
    mesh = _mesh(bodies, labels)
    vertices = bodies.vertices("neutral", mesh["pose_aa"][None], mesh["betas"][None], mesh["transl"][None])[0]
    if vertices.shape != labels["verts"].shape:
        raise ValueError(f"verts has {len(labels['verts'])} vertices, the hand model {len(vertices)}")
    return np.linalg.norm(vertices - labels["verts"], axis=1)


def _checks(root: Path, part: str, names: list[str], bodies: Bodies | None) -> tuple[Check, ...]:
    """Whether the lists go together, and which version of the set they are, on the first poses."""
    sample = []
    scales = root / f"{part}_scale.json"
    lists = [*names, *(["scale"] if scales.is_file() else [])]
    for entry in islice(_entries(root, part, lists), SAMPLE):
        try:
            sample.append({name: _entry(name, value) for name, value in entry.items()})
        except (TypeError, ValueError, OverflowError):
            continue  # `rows` reports it
    if not sample:
        return (Check("the lists go together", None, "none of the first entries can be read"),)
    long = [float(np.linalg.norm(labels["xyz"][ROOT] - labels["xyz"][NEXT])) for labels in sample]
    roots = [float(np.linalg.norm(_root(labels) - labels["xyz"][ROOT])) for labels in sample]
    checks = [_within(f"the root of mano is keypoint {ROOT} of xyz", max(roots), EXACT, len(sample))]
    if "scale" in lists:
        off = max(abs(length - float(labels["scale"])) for length, labels in zip(long, sample, strict=True))
        checks.append(_within(f"scale is the length from keypoint {ROOT} to {NEXT}", off, EXACT, len(sample)))
    if "verts" in lists:
        tips = index_map("HAND21", FINGERTIPS)
        off = max(np.abs(e["xyz"][tips] - e["verts"][list(TIP_VERTICES["freihand"])]).max() for e in sample)
        checks.append(_within("the tips of xyz are vertices of verts", float(off), EXACT, len(sample)))
    return (*checks, *_check_version(sample, bodies))


def _check_version(sample: list[dict[str, Array]], bodies: Bodies | None) -> Iterator[Check]:
    """The release of 2018 belongs to an older MANO: with the present one its parameters miss its joints."""
    what = "mano gives the joints and vertices of the set (version 2)"
    if bodies is None:
        yield Check(what, None, "body.kind is not the hand that they belong to")
        return
    at, to = shared("MANO16", "HAND21")
    off: list[Array] = []
    try:
        for labels in sample:
            mesh = _mesh(bodies, labels)
            place = (mesh["pose_aa"][None], mesh["betas"][None], mesh["transl"][None])
            joints = bodies.kinematic("neutral", *place)[0]
            off.append(np.linalg.norm(joints[at] - labels["xyz"][to], axis=1))
            if "verts" in labels:
                off.append(_off(bodies, labels))
    except MetroError as err:
        yield Check(what, None, str(err))
        return
    mean, most = float(np.mean([part.mean() for part in off])), float(max(part.max() for part in off))
    seen = f"{1000 * mean:.2f} mm in the mean, {1000 * most:.2f} mm at most in {len(sample)} poses"
    yield Check(what, mean < APART and most < FARTHEST, seen)


def _within(what: str, off: float, limit: float, count: int) -> Check:
    return Check(what, off < limit, f"off by up to {1000 * off:.3f} mm in {count} poses")
