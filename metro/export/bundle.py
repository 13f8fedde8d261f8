"""Bundles: a network with what is needed to use it; no body model, no training code.

`metro.export.folder` tells the files. A bundle is written under a temporary name and renamed, and carries checksums, as
checkpoints do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save

from metro.body.arrays import BodyData, digest
from metro.body.figure import FIGURES
from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.config import ModelConfig
from metro.data.augment import IMAGENET_MEAN, IMAGENET_SD
from metro.export.folder import (
    CONTEXT,
    FORMAT,
    GEOMETRY,
    META,
    ONNX,
    PROGRAM,
    REMEDY,
    WEIGHTS,
    check_faces,
    read_folder,
)
from metro.export.onnx import write_onnx, write_program
from metro.files import atomic_folder, readable, sha256_of
from metro.mesh.sampling import Level
from metro.mesh.sparse import checked_csr
from metro.model.metro import Metro
from metro.model.upsampling import RigidUpsampling
from metro.training.checkpoint import Checkpoint, load_checkpoint
from metro.training.restore import load_weights, restore
from metro.version import __version__

PROGRAMS = {ONNX: write_onnx, PROGRAM: write_program}
"""Files that hold the network as a program, and what writes them."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A network with what is needed to use it."""

    model: Metro
    """In evaluation mode, on the CPU."""
    faces_F3: np.ndarray
    """Faces of the full mesh."""
    levels: list[Level]
    """Coarser mesh levels, fine to coarse."""
    regressor: sp.csr_matrix
    """(J, V) rows that read the joints off the full mesh."""
    meta: dict[str, Any]
    """The content of ``bundle.json``."""

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the predicted joints."""
        return JOINT_SETS[self.model.config.joint_set]


def bundle_of(model: Metro, body: BodyData, levels: list[Level], about: Mapping[str, Any] | None = None) -> Bundle:
    """Bundle of a network in memory; `about` (checkpoint, step, metrics) goes into its record."""
    meta = {
        "format": FORMAT,
        "metro": __version__,
        "model": model.config.model_copy(update={"backbone_weights": "none"}).model_dump(mode="json"),
        "body": {"kind": body.kind, "gender": body.gender, "digest": digest(body)},
        "joint_names": list(JOINT_SETS[model.config.joint_set]),
        "mesh_levels": [model.num_vertices, *(level.up.shape[1] for level in levels)],
        "input": {
            "size": model.config.image_size,
            "channels": "RGB",
            "mean": list(IMAGENET_MEAN),
            "sd": list(IMAGENET_SD),
            "context": CONTEXT,
        },
        "output": (
            "camera (s, tx, ty): a point projects to s (xy + t) in the crop, whose sides are -1 and 1. joints, "
            "vertices: metres, camera axes (x right, y down, z forward), relative to the root"
        ),
        "licence": body.licence,
        "origin": dict(about or {}),
    }
    figure = FIGURES[model.config.joint_set]
    regressor = sp.csr_matrix(body.regressors[figure.regressor][figure.token_rows])
    return Bundle(model.eval(), np.asarray(body.faces, np.int32), list(levels), regressor, meta)


def from_checkpoint(checkpoint: Checkpoint | Path | str) -> Bundle:
    """Bundle of a checkpoint, on the body model that its parameters name.

    Raises
    ------
    MetroError
        The checkpoint is missing or damaged, or was trained on another body model.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load_checkpoint(checkpoint)
    body = load_body(checkpoint.params.body)
    model = restore(checkpoint, body)
    about = {
        "checkpoint": checkpoint.folder.name,
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "sha256": checkpoint.sha256,
    }
    return bundle_of(model, body, checkpoint.levels, about)


def write_bundle(folder: Path | str, bundle: Bundle, programs: Sequence[str] = (), weights: bool = True) -> Path:
    """Write a bundle to `folder`, replacing one that is there.

    Parameters
    ----------
    folder
        The folder.
    bundle
        The network.
    programs
        Files of `PROGRAMS` to write with it. How far each is from the network stands in ``bundle.json``.
    weights
        False leaves the weights out, and of the geometry what only they need.

    Raises
    ------
    MetroError
        The folder holds something else or cannot be written; a program differs from the network.
    """
    folder = Path(folder)
    arrays: dict[str, np.ndarray] = {"faces_0": np.asarray(bundle.faces_F3, np.int32)}
    if weights:
        arrays["template_T3"] = bundle.model.template_T3.cpu().numpy()
        if isinstance(bundle.model.upsampling, RigidUpsampling):
            arrays["template_V3"] = bundle.model.upsampling.template_V3.cpu().numpy()
        for k, level in enumerate(bundle.levels, 1):
            arrays[f"faces_{k}"] = np.asarray(level.faces, np.int32)
            arrays[f"indices_{k}"] = np.asarray(level.indices, np.int64)
            arrays |= _sparse_arrays(f"up_{k}", level.up)
        arrays |= _sparse_arrays("regressor", bundle.regressor)
    with atomic_folder(folder, META, added=PROGRAMS) as partial:
        if weights:
            state = {k: v.contiguous().cpu() for k, v in bundle.model.state_dict().items()}
            (partial / WEIGHTS).write_bytes(save(state))
        (partial / GEOMETRY).write_bytes(save_arrays({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
        differences = {name: PROGRAMS[name](bundle, partial / name) for name in programs}
        sums = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
        meta = {**bundle.meta, "largest_difference_m": differences, "sha256": sums}
        (partial / META).write_text(json.dumps(meta, indent=1) + "\n")
    return folder


def load_bundle(folder: Path | str) -> Bundle:
    """Read a bundle.

    Raises
    ------
    MetroError
        Not a bundle, one without weights, of another format, or damaged.
    """
    found = read_folder(folder)
    path, arrays = found.verified(WEIGHTS), found.geometry()
    sizes, joints = found.meta["mesh_levels"], len(found.meta["joint_names"])
    with readable(found.folder / GEOMETRY, REMEDY):
        levels = [_level(k, arrays, *sizes[k - 1 : k + 1]) for k in range(1, len(sizes))]
        regressor = _sparse_matrix("regressor", arrays, (joints, sizes[0]))
        template_T3, template_V3 = arrays["template_T3"], arrays.get("template_V3", np.zeros((sizes[0], 3), np.float32))
        for array in (template_T3, template_V3):
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError("the template is not of finite float32 numbers")
        if template_V3.shape != (sizes[0], 3):
            raise ValueError(f"the full template has shape {template_V3.shape}, the mesh {sizes[0]} vertices")
    with readable(path, REMEDY):
        weights = load_file(path)
    with readable(found.folder / META, REMEDY), torch.random.fork_rng():
        # Fresh weights are overwritten; the caller's random stream stays as it was.
        config = ModelConfig.model_validate(found.meta["model"])
        config = config.model_copy(update={"backbone_weights": "none"})
        mesh = (template_V3, arrays["faces_0"]) if "template_V3" in arrays else None
        model = Metro(config, template_T3, levels, regressor, mesh)
    load_weights(model, weights, folder)
    return Bundle(model.eval(), arrays["faces_0"], levels, regressor, dict(found.meta))


def _level(k: int, arrays: Mapping[str, np.ndarray], finer: int, coarser: int) -> Level:
    indices, faces = arrays[f"indices_{k}"], arrays[f"faces_{k}"]
    kept = indices.dtype.kind == "i" and indices.shape == (coarser,)
    if not kept or indices[0] < 0 or indices[-1] >= finer or (indices[1:] <= indices[:-1]).any():
        raise ValueError(f"indices_{k} are not {coarser} ascending ones of {finer} vertices")
    check_faces(faces, coarser)
    return Level(indices, _sparse_matrix(f"up_{k}", arrays, (finer, coarser)), faces)


def _sparse_arrays(name: str, matrix: sp.spmatrix) -> dict[str, np.ndarray]:
    m = sp.csr_matrix(matrix)
    return {
        f"{name}.shape": np.array(m.shape, np.int64),
        f"{name}.indptr": m.indptr.astype(np.int64),
        f"{name}.indices": m.indices.astype(np.int64),
        f"{name}.data": m.data.astype(np.float64),
    }


def _sparse_matrix(name: str, arrays: Mapping[str, np.ndarray], shape: tuple[int, int]) -> sp.csr_matrix:
    if tuple(arrays[f"{name}.shape"].tolist()) != shape:
        raise ValueError(f"{name} is {arrays[f'{name}.shape'].tolist()}, the mesh levels need {shape}")
    data, indices, indptr = (arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    return checked_csr(data, indices, indptr, shape)
