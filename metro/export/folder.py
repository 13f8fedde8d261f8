"""The folder of a bundle, read without torch: everything inference needs and nothing else.

==================== ===================================================================================
``bundle.json``      format, model section, joint names, normalisation, origin, licence, sha256 of the rest
``geometry.safetensors`` template tokens, faces and up-sampling of each mesh level, joint regressor
``model.safetensors`` weights
``model.onnx``       the network as ONNX, and ``model.pt2`` as a torch.export program, where asked for
==================== ===================================================================================

A bundle without weights predicts through ONNX Runtime alone; of the geometry it has the faces of the full mesh.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from metro.body.joints import JOINT_SETS
from metro.errors import MetroError
from metro.files import read_json, readable, sha256_of

FORMAT = 1
META, WEIGHTS, GEOMETRY = "bundle.json", "model.safetensors", "geometry.safetensors"
ONNX, PROGRAM = "model.onnx", "model.pt2"
CONTEXT = 1.2
"""Side of the network's crop over the side of a tight box, as in training."""
REMEDY = "make a bundle with `metro export`"


@dataclass(frozen=True, eq=False)
class BundleFolder:
    """A bundle on disk; a file's checksum is verified, and its content checked, when it is asked for."""

    folder: Path
    meta: Mapping[str, Any]
    """The content of ``bundle.json``."""

    def holds(self, name: str) -> bool:
        """Whether the bundle was written with a file of that name."""
        return name in self.meta["sha256"]

    def verified(self, name: str) -> Path:
        """Path of a file of the bundle.

        Raises
        ------
        MetroError
            It is missing, or its content is not what was written.
        """
        path = self.folder / name
        if not self.holds(name):
            raise MetroError(f"{path}: not part of this bundle; export it again, with it")
        if not path.is_file():
            raise MetroError(f"{path}: missing, the bundle is incomplete; export it again")
        if sha256_of(path) != self.meta["sha256"][name]:
            raise MetroError(f"{path}: checksum differs from {META}, the file is damaged; export it again")
        return path

    def geometry(self) -> dict[str, np.ndarray]:
        """Arrays of the mesh; ``faces_0`` (F, 3) are those of the full one."""
        path = self.verified(GEOMETRY)
        with readable(path, REMEDY):
            arrays = load_file(path)
            check_faces(arrays["faces_0"], self.meta["mesh_levels"][0])
        return arrays


def read_folder(folder: Path | str) -> BundleFolder:
    """Open a bundle.

    Raises
    ------
    MetroError
        Not a bundle, of another format, or damaged.
    """
    path = Path(folder) / META
    meta = read_json(path, REMEDY, ("model", "joint_names", "mesh_levels", "sha256"), version=("format", FORMAT))
    with readable(path, REMEDY):
        joints, sizes, side = meta["model"]["joint_set"], meta["mesh_levels"], meta["model"]["image_size"]
        if meta["joint_names"] != list(JOINT_SETS[joints]):
            raise ValueError(f"joint_names are not those of {joints}")
        if not all(type(number) is int and number > 0 for number in (*sizes, side)):
            raise ValueError("mesh_levels and image_size are not positive whole numbers")
        if not sizes or any(b >= a for a, b in itertools.pairwise(sizes)):
            raise ValueError("mesh_levels do not descend")
        if not all(type(value) is str for value in meta["sha256"].values()):
            raise ValueError("sha256 are not strings")
    return BundleFolder(Path(folder), meta)


def check_faces(faces_F3: np.ndarray, count: int) -> None:
    """Raise a ValueError unless these are triangles (F, 3) over `count` vertices."""
    if faces_F3.ndim != 2 or faces_F3.shape[1] != 3 or faces_F3.dtype.kind not in "iu":
        raise ValueError(f"faces of shape {faces_F3.shape} and type {faces_F3.dtype}")
    if len(faces_F3) and not (faces_F3.min() >= 0 and faces_F3.max() < count):
        raise ValueError(f"faces name vertices that a mesh of {count} has not")
