"""A body model as data: arrays in SMPL / MANO layout plus joint regressors, read from and written to one npz layout.

The npz uses the key names of the SMPL releases (`v_template`, `shapedirs`, `posedirs`, `J_regressor`, `weights`,
`kintree_table`, `f`, `hands_mean`, `hands_components`), so other loaders read it too; `regressor_NAME` holds each
joint regressor and `meta` a JSON record (layout version, kind, gender, joint names, licence).

Frame: metres, y up, the body faces +z, its left hand points to +x.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy.sparse as sp

from metro.body.figure import HAND, Figure, figure_of
from metro.body.joints import JOINT_SETS
from metro.errors import MetroError
from metro.files import atomic_file

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


def save_variant(data: BodyData, path: Path) -> None:
    """Write what a body of one sex has of its own; the rest is that of the neutral body. Shape directions as halves."""
    arrays = {name: getattr(data, name) for name in VARIANT_ARRAYS}
    write_npz(arrays | {"shapedirs": data.shapedirs.astype(np.float16)}, path)


def read_npz(file: IO[bytes] | Path, name: str | None = None) -> BodyData:
    """Read the npz layout that `save_body` writes.

    Raises
    ------
    MetroError
        The file is not an npz of this layout.
    """
    name = name or str(file)
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as err:
        raise MetroError(f"{name}: cannot be read as an npz of plain arrays ({err})") from None
    if "meta" not in arrays:
        raise MetroError(f"{name}: not in this project's layout; run `metro body convert {name} OUT.npz` first")
    meta = json.loads(str(arrays["meta"]))
    if meta["layout"] != LAYOUT_VERSION:
        raise MetroError(
            f"{name}: layout version {meta['layout']}, this program reads {LAYOUT_VERSION}; convert the original again"
        )
    return BodyData(
        kind=meta["kind"],
        gender=meta["gender"],
        v_template=arrays["v_template"].astype(np.float32),
        shapedirs=arrays["shapedirs"].astype(np.float32),
        posedirs=arrays["posedirs"].astype(np.float32),
        weights=arrays["weights"].astype(np.float32),
        J_regressor=arrays["J_regressor"].astype(np.float32),
        parents=(-1, *map(int, arrays["kintree_table"][0][1:])),
        faces=arrays["f"].astype(np.int32),
        regressors={
            key.removeprefix("regressor_"): sp.csr_matrix(arrays[key].astype(np.float32))
            for key in sorted(arrays)
            if key.startswith("regressor_")
        },
        joint_names=tuple(meta["joint_names"]),
        licence=meta["licence"],
        hands_mean=arrays.get("hands_mean"),
        hands_components=arrays.get("hands_components"),
    )


def save_body(data: BodyData, path: Path) -> None:
    """Write a model as one compressed npz; the bytes depend on the data alone.

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
    write_npz(arrays, path)


def write_npz(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write a compressed npz; equal arrays give equal bytes."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{k: np.asarray(v, order="C") for k, v in arrays.items()})


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
