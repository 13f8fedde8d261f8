"""A body model as data: arrays in SMPL / MANO layout plus joint regressors, read from and written to one npz layout.

The npz uses the key names of the SMPL releases (`v_template`, `shapedirs`, `posedirs`, `J_regressor`, `weights`,
`kintree_table`, `f`, `hands_mean`, `hands_components`), so other loaders read it too; `regressor_NAME` holds each
joint regressor and `meta` a JSON record (layout version, kind, gender, joint names, licence).

Frame: metres, y up, the body faces +z, its left hand points to +x.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from typing_extensions import TypedDict

from metro.body.figure import HAND, Figure, figure_of
from metro.body.joints import JOINT_SETS
from metro.errors import MetroError
from metro.files import atomic_file, check_shape, read_arrays, readable
from metro.words import BodyKind, Gender

LAYOUT_VERSION = 1

OPEN_KINDS = ("open", "open_hand")

VARIANT_ARRAYS = ("v_template", "shapedirs", "J_regressor")
"""What an open body of one sex does not share with the neutral one."""

REGISTER = {
    "smpl": "https://smpl.is.tue.mpg.de",
    "smplx": "https://smpl-x.is.tue.mpg.de",
    "mano": "https://mano.is.tue.mpg.de",
}
"""Where each licensed model is had from."""

H36M_FILE = "J_regressor_h36m_correct.npy"
EXTRA_FILE = "J_regressor_extra.npy"
"""METRO's regressors for SMPL, files of their own."""


@dataclass(frozen=True)
class BodyData:
    """Arrays of a body or hand model. V vertices, J joints, F faces, S shape and P = 9 (J - 1) pose directions."""

    kind: str
    """`open`, `open_hand`, `smpl`, `smplx` or `mano`."""
    gender: str
    """`neutral`, `female` or `male`."""
    v_template: np.ndarray
    """(V, 3) float32, metres: the mean shape in the zero pose."""
    shapedirs: np.ndarray
    """(V, 3, S) float32: displacement per unit of beta."""
    posedirs: np.ndarray
    """(V, 3, P) float32: displacement per entry of the joint rotations minus identity."""
    weights: np.ndarray
    """(V, J) float32 skinning weights, rows sum to one."""
    J_regressor: np.ndarray
    """(J, V) float32: rest joints from rest vertices."""
    parents: tuple[int, ...]
    """Parent of each joint, -1 at the root; a parent always comes before its children."""
    faces: np.ndarray
    """(F, 3) int32, counter-clockwise seen from outside."""
    regressors: dict[str, sp.csr_matrix] = field(default_factory=dict)
    """(K, V) rows by name: `h36m17`, `j24`, `coco17` for bodies, `hand21` for hands."""
    joint_names: tuple[str, ...] = ()
    """Names of the J joints."""
    licence: str = ""
    """Terms the arrays come under, one line."""
    hands_mean: np.ndarray | None = None
    """(45,) axis-angle of the mean hand pose; MANO adds it to the pose unless the mean is meant to be flat."""
    hands_components: np.ndarray | None = None
    """(45, 45) rows are the principal hand poses."""

    @property
    def figure(self) -> Figure:
        """What this is a model of."""
        return figure_of(self.kind)

    @property
    def is_hand(self) -> bool:
        """Whether this is a hand model."""
        return self.figure is HAND

    def regressor(self, name: str) -> sp.csr_matrix:
        """The regressor of that name.

        Raises
        ------
        MetroError
            The model has none.
        """
        if name not in self.regressors:
            raise no_regressor(self.kind, name, self.regressors)
        return self.regressors[name]

    def require_regressors(self) -> None:
        """Raise a MetroError if a regressor is missing that training, fitting or prediction needs."""
        for name in (self.figure.regressor, self.figure.label_regressor):
            self.regressor(name)

    @property
    def num_vertices(self) -> int:
        """V."""
        return len(self.v_template)

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.parents)

    @property
    def num_betas(self) -> int:
        """S."""
        return self.shapedirs.shape[2]


def no_regressor(kind: str, name: str, known: Iterable[str]) -> MetroError:
    """The error that says so of a model, and for SMPL how it gets one."""
    message = f"the {kind} model has no regressor {name!r}; it has {', '.join(known) or 'none'}"
    if kind == "smpl":
        message += f" (put {H36M_FILE} and {EXTRA_FILE} beside the model file and convert it again)"
    return MetroError(message)


def save_variant(data: BodyData, path: Path) -> None:
    """Write what a body of one sex has of its own; the rest is that of the neutral body. Shape directions as halves."""
    arrays = {name: getattr(data, name) for name in VARIANT_ARRAYS}
    write_npz(arrays | {"shapedirs": data.shapedirs.astype(np.float16)}, path)


class Stored:
    """What a body file holds, checked as it is taken.

    Raises
    ------
    MetroError
        An entry is missing, is no array of finite numbers, or has another shape.
    """

    def __init__(self, arrays: Mapping[str, Any], path: Path) -> None:
        self._arrays, self._path = arrays, path

    def take(self, key: str, *shape: int | None) -> np.ndarray:
        """Numbers under `key`; None in the shape stands for any size."""
        if key not in self._arrays:
            raise self.wrong(f"has no {key!r}; not a SMPL, SMPL-X or MANO file")
        value = self._arrays[key]
        if len(value.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True)):
            wanted = " × ".join("any" if n is None else str(n) for n in shape)
            raise self.wrong(f"{key} has shape {value.shape}, expected {wanted}")
        value = value.toarray() if sp.issparse(value) else np.asarray(value)
        if value.dtype.kind not in "fiu":
            raise self.wrong(f"{key} holds {value.dtype}, expected numbers")
        if not np.isfinite(value).all():
            raise self.wrong(f"{key} has values that are not finite")
        return value

    def floats(self, key: str, *shape: int | None) -> np.ndarray:
        """As `take`, in single precision."""
        with np.errstate(over="ignore"):
            value = self.take(key, *shape).astype(np.float32)
        if not np.isfinite(value).all():
            raise self.wrong(f"{key} has values beyond single precision")
        return value

    def body(self, kind: str) -> dict[str, Any]:
        """The fields of `BodyData` that all models have, consistent with one another."""
        joints = len(joint_names_for(kind))
        v_template = self.floats("v_template", None, 3)
        vertices = len(v_template)
        regressor = self.floats("J_regressor", None, vertices)
        if len(regressor) != joints:
            raise self.wrong(f"{len(regressor)} joints, a {kind} model has {joints} (SMPL+H is not supported)")
        parents = self.take("kintree_table", 2, joints)[0].astype(np.int64).tolist()
        parents[0] = -1  # stored as -1 or as the largest uint32
        if not all(0 <= parent < joint for joint, parent in enumerate(parents[1:], 1)):
            raise self.wrong("kintree_table has a joint before its parent")
        faces = self.take("f", None, 3).astype(np.int64)
        if not len(faces) or faces.min() < 0 or faces.max() >= vertices:
            raise self.wrong("f refers to vertices that do not exist")
        weights = self.floats("weights", vertices, joints)
        if not np.allclose(weights.sum(1), 1, atol=1e-3):
            raise self.wrong("skinning weights do not sum to one")
        hand = kind == "mano" or "hands_mean" in self._arrays
        return {
            "v_template": v_template,
            "shapedirs": self.floats("shapedirs", vertices, 3, None),
            "posedirs": self.floats("posedirs", vertices, 3, 9 * (joints - 1)),
            "weights": weights,
            "J_regressor": regressor,
            "parents": tuple(parents),
            "faces": faces.astype(np.int32),
            "hands_mean": self.floats("hands_mean", 45) if hand else None,
            "hands_components": self.floats("hands_components", 45, 45) if hand else None,
        }

    def wrong(self, why: str) -> MetroError:
        """The error that says so of this file."""
        return MetroError(f"{self._path}: {why}")


class Meta(TypedDict):
    """The record in the layout."""

    layout: int
    kind: BodyKind
    gender: Gender
    joint_names: list[str]
    licence: str


def read_npz(path: Path) -> BodyData:
    """Read the npz layout that `save_body` writes.

    Raises
    ------
    MetroError
        The file is not an npz of this layout.
    """
    remedy = "convert the original again, or run the stage that makes it"
    arrays = read_arrays(path, remedy)
    if "meta" not in arrays:
        raise MetroError(f"{path}: not in this project's layout; run `metro body convert {path} OUT.npz` first")
    with readable(path, remedy):
        meta = json.loads(str(arrays["meta"]))
        check_shape(meta, dict[str, Any])
        if meta.get("layout") != LAYOUT_VERSION:
            raise MetroError(
                f"{path}: layout version {meta.get('layout')}, this program reads {LAYOUT_VERSION}; {remedy}"
            )
        check_shape(meta, Meta)
        stored, kind = Stored(arrays, path), meta["kind"]
        fields = stored.body(kind)
        if tuple(meta["joint_names"]) != joint_names_for(kind):
            raise ValueError("names of other joints")
        names = [key.removeprefix("regressor_") for key in sorted(arrays) if key.startswith("regressor_")]
        regressors = {
            name: stored.floats(f"regressor_{name}", len(JOINT_SETS[name.upper()]), len(fields["v_template"]))
            for name in names
        }
    return BodyData(
        kind=kind,
        gender=meta["gender"],
        regressors={name: sp.csr_matrix(rows) for name, rows in regressors.items()},
        joint_names=tuple(meta["joint_names"]),
        licence=meta["licence"],
        **fields,
    )


def save_body(data: BodyData, path: Path, *, compressed: bool = False) -> None:
    """Write a model as one npz; the bytes depend on the data alone, compressed ones on the version of zlib as well.

    Pose directions that half precision holds exactly (those of the open body) are stored in it.
    """
    half = data.posedirs.astype(np.float16)
    exact = np.array_equal(half.astype(np.float32), data.posedirs)
    meta = {
        "layout": LAYOUT_VERSION,
        "kind": data.kind,
        "gender": data.gender,
        "joint_names": data.joint_names,
        "licence": data.licence,
    }
    arrays: dict[str, Any] = {
        "meta": np.array(json.dumps(meta)),
        "v_template": data.v_template,
        "shapedirs": data.shapedirs,
        "posedirs": half if exact else data.posedirs,
        "weights": data.weights,
        "J_regressor": data.J_regressor,
        "kintree_table": np.array([data.parents, range(data.num_joints)], np.int64),
        "f": data.faces,
        **{f"regressor_{name}": rows.toarray() for name, rows in sorted(data.regressors.items())},
    }
    if data.hands_mean is not None:
        arrays |= {"hands_mean": data.hands_mean, "hands_components": data.hands_components}
    write_npz(arrays, path, compressed=compressed)


def write_npz(arrays: dict[str, np.ndarray], path: Path, *, compressed: bool = True) -> None:
    """Write an npz; equal arrays give equal bytes."""
    save = np.savez_compressed if compressed else np.savez
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        save(file, allow_pickle=False, **{k: np.asarray(v, order="C") for k, v in arrays.items()})


def digest(data: BodyData) -> str:
    """SHA-256 (hex) of everything that affects a result: arrays, tree and regressors, not the licence text."""
    sha = hashlib.sha256()
    fields = {
        "v_template": data.v_template,
        "shapedirs": data.shapedirs,
        "posedirs": data.posedirs,
        "weights": data.weights,
        "J_regressor": data.J_regressor,
        "parents": np.array(data.parents, np.int64),
        "faces": data.faces,
        **{f"regressor_{name}": rows.toarray() for name, rows in sorted(data.regressors.items())},
    }
    if data.hands_mean is not None:
        fields |= {"hands_mean": data.hands_mean, "hands_components": np.asarray(data.hands_components)}
    for name, array in fields.items():
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def describe(data: BodyData) -> dict[str, Any]:
    """Counts, joint names, regressors, size (metres), licence and digest, as plain values."""
    return {
        "kind": data.kind,
        "gender": data.gender,
        "vertices": data.num_vertices,
        "faces": len(data.faces),
        "joints": data.num_joints,
        "betas": data.num_betas,
        "pose_correctives": bool(np.any(data.posedirs)),
        "regressors": {name: rows.shape[0] for name, rows in data.regressors.items()},
        "extent_m": [round(float(n), 3) for n in np.ptp(data.v_template, axis=0)],
        "joint_names": list(data.joint_names),
        "licence": data.licence,
        "digest": digest(data),
    }


def joint_names_for(kind: str) -> tuple[str, ...]:
    """Joint names of a model kind."""
    return JOINT_SETS[
        {"open": "SMPL24", "smpl": "SMPL24", "smplx": "SMPLX55", "open_hand": "MANO16", "mano": "MANO16"}[kind]
    ]
