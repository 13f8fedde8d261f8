"""Licensed model files → this project's npz layout, and what is missing when one cannot be found.

Accepted: SMPL `.pkl` (also the original Python 2 ones with chumpy arrays), SMPL-X `.npz` or `.pkl`, MANO_RIGHT `.pkl`,
each also as an `.npz` with the same keys. Joint regressors that METRO uses with SMPL are separate files; they are
taken from the model file's folder under their published names:

- `J_regressor_h36m_correct.npy` (17, 6890): Human3.6M joints, the joints of METRO's predictions (`h36m17`);
- `J_regressor_extra.npy` (14, 6890): stacked under SMPL's own 24 joints it gives the annotation joints (`j24`,
  `coco17`).

SMPL-X has no such published rows. Its regressors are defined here from its kinematic joints and face vertices; errors
measured with them do not compare with published ones.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from metro.body.arrays import REGISTER, BodyData, joint_names_for, read_npz
from metro.body.joints import FINGERTIPS, JOINT_SETS, TIP_VERTICES, index_map
from metro.body.pickles import plain, read_pickle
from metro.errors import MetroError

H36M_FILE = "J_regressor_h36m_correct.npy"
EXTRA_FILE = "J_regressor_extra.npy"

NUM_BETAS = 10  # METRO's; the files hold 10, 16, 300 or 400

KIND_BY_VERTICES = {6890: "smpl", 10475: "smplx", 778: "mano"}

# Face vertices of SMPL-X, the ones its own layer reports as landmarks.
_SMPLX_FACE = {"Nose": 9120, "R_Eye": 9929, "L_Eye": 9448, "R_Ear": 616, "L_Ear": 6}

# Annotation joints whose place a kinematic joint of SMPL takes, in METRO's get_joints.
_KINEMATIC = {
    f"{side}_{joint}": f"{long}_{joint.lower()}"
    for side, long in (("R", "right"), ("L", "left"))
    for joint in ("Ankle", "Knee", "Wrist", "Elbow", "Shoulder")
}


def read_licensed(path: Path, gender: str | None = None) -> BodyData:
    """Read a licensed model file in any accepted form.

    Parameters
    ----------
    path
        `.npz` made by `metro body convert`, or an original `.pkl` or `.npz`.
    gender
        Gender the file is for. Left out, it is what a converted file says or what the file name says.

    Raises
    ------
    MetroError
        The file is unreadable, is none of the known models, has arrays of unexpected shape, or is for another gender.
    """
    path = Path(path)
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as stored:
                if "meta" in stored.files:
                    data = read_npz(path)
                    if gender not in (None, data.gender):
                        raise MetroError(f"{path}: is for body.gender={data.gender}, not {gender}")
                    return data
                arrays: Mapping[str, Any] = _LazyArrays(stored, path)
                return _from_arrays(arrays, path, gender)
        except (OSError, EOFError, zipfile.BadZipFile) as err:
            raise MetroError(f"{path}: not a readable npz ({err})") from None
    if path.suffix == ".pkl":
        content = read_pickle(path)
        if not isinstance(content, dict):
            raise MetroError(f"{path}: holds a {type(content).__name__}, not the dict of a body model")
        return _from_arrays({key: content[key] for key in content if isinstance(key, str)}, path, gender)
    raise MetroError(f"{path}: a body model ends in .pkl or .npz")


class _LazyArrays(Mapping[str, Any]):
    """Entries of an npz on demand: SMPL-X files also hold pickled ones, which are never touched."""

    def __init__(self, stored: Any, path: Path) -> None:
        self._stored, self._path = stored, path

    def __getitem__(self, key: str) -> Any:
        try:
            return self._stored[key]
        except ValueError as err:
            raise MetroError(f"{self._path}: {key} is not a plain array ({err})") from None

    def __iter__(self) -> Any:
        return iter(self._stored.files)

    def __len__(self) -> int:
        return len(self._stored.files)


def _from_arrays(arrays: Mapping[str, Any], path: Path, gender: str | None) -> BodyData:
    def get(key: str, *shape: int | None) -> np.ndarray:
        if key not in arrays:
            raise MetroError(f"{path}: has no {key!r}; not a SMPL, SMPL-X or MANO file")
        value = plain(arrays[key])
        value = value.toarray() if sp.issparse(value) else np.asarray(value)
        if value.dtype.kind not in "fiu":
            raise MetroError(f"{path}: {key} holds {value.dtype}, expected numbers")
        if len(value.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True)):
            wanted = " × ".join("any" if n is None else str(n) for n in shape)
            raise MetroError(f"{path}: {key} has shape {value.shape}, expected {wanted}")
        if not np.isfinite(value).all():
            raise MetroError(f"{path}: {key} has values that are not finite")
        return value

    template = get("v_template", None, 3)
    vertices = len(template)
    if vertices not in KIND_BY_VERTICES:
        known = ", ".join(f"{kind} {n}" for n, kind in KIND_BY_VERTICES.items())
        raise MetroError(f"{path}: {vertices} vertices; known models: {known}")
    kind = KIND_BY_VERTICES[vertices]
    if kind == "mano" and "LEFT" in path.stem.upper():
        raise MetroError(f"{path}: METRO models the right hand (left hands are mirrored); give MANO_RIGHT.pkl")
    names = joint_names_for(kind)
    joints = len(names)
    regressor = get("J_regressor", None, vertices)
    if len(regressor) != joints:
        raise MetroError(f"{path}: {len(regressor)} joints, a {kind} model has {joints} (SMPL+H is not supported)")
    parents = get("kintree_table", 2, joints)[0].astype(np.int64)
    parents[0] = -1  # stored as -1 or as the largest uint32
    if not all(0 <= parent < joint for joint, parent in enumerate(parents[1:], 1)):
        raise MetroError(f"{path}: kintree_table has a joint before its parent")
    faces = get("f", None, 3).astype(np.int64)
    if faces.min() < 0 or faces.max() >= vertices:
        raise MetroError(f"{path}: f refers to vertices that do not exist")
    weights = get("weights", vertices, joints)
    if not np.allclose(weights.sum(1), 1, atol=1e-3):
        raise MetroError(f"{path}: skinning weights do not sum to one")
    hand = kind == "mano"
    return BodyData(
        kind=kind,
        gender=gender or _gender_in(path.stem),
        v_template=template.astype(np.float32),
        shapedirs=get("shapedirs", vertices, 3, None)[:, :, :NUM_BETAS].astype(np.float32),
        posedirs=get("posedirs", vertices, 3, 9 * (joints - 1)).astype(np.float32),
        weights=weights.astype(np.float32),
        J_regressor=regressor.astype(np.float32),
        parents=tuple(int(p) for p in parents),
        faces=faces.astype(np.int32),
        regressors={
            name: sp.csr_matrix(rows.astype(np.float32))
            for name, rows in _regressors(kind, regressor, template, path.parent).items()
        },
        joint_names=names,
        licence=f"licensed to you by its makers ({REGISTER[kind]}); not to be passed on",
        hands_mean=get("hands_mean", 45).astype(np.float32) if hand else None,
        hands_components=get("hands_components", 45, 45).astype(np.float32) if hand else None,
    )


def _regressors(kind: str, own: np.ndarray, template: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Joint regressor rows (K, V) by name."""
    vertices = len(template)
    if kind == "mano":
        tips = np.eye(vertices)[list(TIP_VERTICES["regressor"])]
        order = index_map(JOINT_SETS["MANO16"] + FINGERTIPS, "HAND21")
        return {"hand21": np.concatenate([own, tips])[order]}
    if kind == "smplx":
        rows = dict(zip(JOINT_SETS["SMPLX55"], own, strict=True))
        rows |= {name: np.eye(1, vertices, at)[0] for name, at in _SMPLX_FACE.items()}
        rows["Top_of_Head"] = np.eye(1, vertices, int(template[:, 1].argmax()))[0]
        rows |= {name: rows[joint] for name, joint in _KINEMATIC.items()}
        rows |= {
            **{"R_Hip": rows["right_hip"], "L_Hip": rows["left_hip"], "Pelvis": rows["pelvis"]},
            **{"Spine": rows["spine2"], "Torso": rows["spine2"], "Neck": rows["neck"], "Jaw": rows["jaw"]},
            "Thorax": (rows["left_shoulder"] + rows["right_shoulder"]) / 2,
            "Head": (rows["head"] + rows["Top_of_Head"]) / 2,
        }
        return {key: np.stack([rows[name] for name in JOINT_SETS[key.upper()]]) for key in ("h36m17", "j24", "coco17")}
    found: dict[str, np.ndarray] = {}
    if (folder / H36M_FILE).is_file():
        found["h36m17"] = _rows(folder / H36M_FILE, (17, vertices))
    if (folder / EXTRA_FILE).is_file():
        extra = _rows(folder / EXTRA_FILE, (14, vertices))
        wanted = [_KINEMATIC.get(name, name) for name in JOINT_SETS["J24"]]
        stacked = np.concatenate([own, extra])
        found["j24"] = stacked[index_map(JOINT_SETS["SMPL24"] + JOINT_SETS["EXTRA14"], wanted)]
        found["coco17"] = found["j24"][index_map("J24", "COCO17")]
    return found


def _rows(path: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        raise MetroError(f"{path}: not a readable npy array ({err})") from None
    if rows.shape != shape:
        raise MetroError(f"{path}: shape {rows.shape}, expected {shape}")
    return rows


def _gender_in(stem: str) -> str:
    """Gender that a model's file name tells: SMPL_FEMALE, basicmodel_m_lbs_…, …; neutral otherwise."""
    words = stem.lower().replace("-", "_").split("_")
    for gender, marks in (("female", ("female", "f")), ("male", ("male", "m"))):
        if any(mark in words for mark in marks):
            return gender
    return "neutral"
