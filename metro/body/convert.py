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

import re
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from metro.body.arrays import EXTRA_FILE, H36M_FILE, REGISTER, BodyData, Stored, joint_names_for, read_npz
from metro.body.joints import FINGERTIPS, JOINT_SETS, TIP_VERTICES, index_map
from metro.body.pickles import plain, read_pickle
from metro.errors import MetroError
from metro.files import read_arrays, readable

_REMEDY = "get it again from where it came"
_KEYS = (
    *("v_template", "shapedirs", "posedirs", "weights", "J_regressor", "kintree_table", "f"),
    *("hands_mean", "hands_components"),
)

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
        if read_arrays(path, _REMEDY, ("meta",)):
            data = read_npz(path)
            _require_gender(path, data.gender, gender)
            return data
        # SMPL-X files also hold pickled objects, which are never opened.
        return _from_arrays(Stored(read_arrays(path, _REMEDY, _KEYS), path), path, gender)
    if path.suffix == ".pkl":
        content = read_pickle(path)
        if not isinstance(content, dict):
            raise MetroError(f"{path}: holds a {type(content).__name__}, not the dict of a body model")
        with readable(path, _REMEDY):
            arrays = {key: plain(content[key]) for key in _KEYS if key in content}
            for key, value in arrays.items():
                if not (isinstance(value, np.ndarray) or sp.issparse(value)):
                    raise MetroError(f"{path}: {key} is a {type(value).__name__}, not an array")
        return _from_arrays(Stored(arrays, path), path, gender)
    raise MetroError(f"{path}: a body model ends in .pkl or .npz")


def _from_arrays(stored: Stored, path: Path, gender: str | None) -> BodyData:
    template = stored.take("v_template", None, 3)
    if len(template) not in KIND_BY_VERTICES:
        known = ", ".join(f"{kind} {n}" for n, kind in KIND_BY_VERTICES.items())
        raise MetroError(f"{path}: {len(template)} vertices; known models: {known}")
    kind = KIND_BY_VERTICES[len(template)]
    if kind == "mano" and "LEFT" in path.stem.upper():
        raise MetroError(f"{path}: METRO models the right hand (left hands are mirrored); give MANO_RIGHT.pkl")
    told = _gender_in(path.stem)
    _require_gender(path, told, gender)
    fields = stored.body(kind)
    regressors = _regressors(kind, stored.take("J_regressor", None, None), template, path.parent)
    return BodyData(
        kind=kind,
        gender=gender or told or "neutral",
        regressors={name: sp.csr_matrix(rows.astype(np.float32)) for name, rows in regressors.items()},
        joint_names=joint_names_for(kind),
        licence=f"licensed to you by its makers ({REGISTER[kind]}); not to be passed on",
        **fields | {"shapedirs": fields["shapedirs"][:, :, :NUM_BETAS]},
    )


def _regressors(kind: str, own: np.ndarray, template: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Joint regressor rows (K, V) by name."""
    vertices = len(template)
    if kind == "mano":
        tips = np.eye(vertices)[list(TIP_VERTICES["regressor"])]  # as METRO reads the tips of what it predicts
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
    with readable(path, "get it again from where it came", ("a single NumPy array (npy)",)):
        return Stored({path.name: np.load(path, allow_pickle=False)}, path.parent).floats(path.name, *shape)


def _require_gender(path: Path, told: str | None, wanted: str | None) -> None:
    if wanted and told and told != wanted:
        raise MetroError(f"{path}: is for body.gender={told}, not {wanted}")


def _gender_in(stem: str) -> str | None:
    """Gender that a model's file name tells: SMPL_FEMALE, basicmodel_m_lbs_…, …; None where it tells none."""
    words = re.split("[^a-z]+", stem.lower())
    for gender in ("neutral", "female", "male"):
        if gender in words or (gender != "neutral" and gender[0] in words):
            return gender
    return None
