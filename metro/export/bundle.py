"""Bundles: a folder with everything inference needs and nothing else; no body model, no training code.

==================== ===================================================================================
``bundle.json``      format, model section, joint names, normalisation, origin, licence, sha256 of the rest
``model.safetensors`` weights
``geometry.safetensors`` template tokens, faces and up-sampling of each mesh level, joint regressor
``model.onnx``       the network as ONNX, and ``model.pt2`` as a torch.export program, where asked for
==================== ===================================================================================

A bundle is written under a temporary name and renamed, and carries checksums, as checkpoints do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save

from metro.body.arrays import BodyData, digest
from metro.body.figure import FIGURES
from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.config import ModelConfig
from metro.data.augment import IMAGENET_MEAN, IMAGENET_SD
from metro.errors import MetroError
from metro.files import atomic_folder, read_json, sha256_of
from metro.mesh.sampling import Level
from metro.model.metro import Metro
from metro.training.checkpoint import Checkpoint, load_checkpoint
from metro.training.restore import load_weights, restore
from metro.version import __version__

FORMAT = 1
META, WEIGHTS, GEOMETRY = "bundle.json", "model.safetensors", "geometry.safetensors"
ONNX, PROGRAM = "model.onnx", "model.pt2"
CONTEXT = 1.2
"""Side of the network's crop over the side of a tight box, as in training."""


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
    about = {"checkpoint": checkpoint.folder.name, "step": checkpoint.step, "metrics": checkpoint.metrics}
    return bundle_of(model, body, checkpoint.levels, about)


def write_bundle(folder: Path | str, bundle: Bundle) -> Path:
    """Write a bundle to `folder`, replacing one that is there with its ONNX file and program.

    Raises
    ------
    MetroError
        The folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    arrays: dict[str, np.ndarray] = {
        "template_T3": bundle.model.template_T3.cpu().numpy(),
        "faces_0": np.asarray(bundle.faces_F3, np.int32),
    }
    for k, level in enumerate(bundle.levels, 1):
        arrays |= {f"faces_{k}": np.asarray(level.faces, np.int32), f"indices_{k}": np.asarray(level.indices, np.int64)}
        arrays |= _sparse_arrays(f"up_{k}", level.up)
    arrays |= _sparse_arrays("regressor", bundle.regressor)
    with atomic_folder(folder, META, added=(ONNX, PROGRAM)) as partial:
        state = {k: v.contiguous().cpu() for k, v in bundle.model.state_dict().items()}
        (partial / WEIGHTS).write_bytes(save(state))
        (partial / GEOMETRY).write_bytes(save_arrays({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
        sums = {name: sha256_of(partial / name) for name in (WEIGHTS, GEOMETRY)}
        (partial / META).write_text(json.dumps({**bundle.meta, "sha256": sums}, indent=1) + "\n")
    return folder


def load_bundle(folder: Path | str) -> Bundle:
    """Read a bundle.

    Raises
    ------
    MetroError
        Not a bundle, a later format, or damaged files.
    """
    folder = Path(folder)
    remedy = "make a bundle with `metro export`"
    meta = read_json(folder / META, remedy, ("model", "mesh_levels", "sha256"), version=("format", FORMAT))
    for name in (WEIGHTS, GEOMETRY):
        if not (folder / name).is_file():
            raise MetroError(f"{folder / name}: missing, the bundle is incomplete; export it again")
        if sha256_of(folder / name) != meta["sha256"][name]:
            raise MetroError(f"{folder / name}: checksum differs from {META}, the file is damaged; export it again")
    try:
        arrays, weights = load_arrays(folder / GEOMETRY), load_file(folder / WEIGHTS)
        config = ModelConfig.model_validate(meta["model"])
    except (SafetensorError, ValidationError) as err:
        raise MetroError(f"{folder}: cannot be read ({' '.join(str(err).split())[:200]}); export it again") from None
    count = len(meta["mesh_levels"]) - 1
    levels = [
        Level(arrays[f"indices_{k}"], _sparse_matrix(f"up_{k}", arrays), arrays[f"faces_{k}"])
        for k in range(1, count + 1)
    ]
    with torch.random.fork_rng():  # fresh weights are overwritten; the caller's random stream stays as it was
        regressor = _sparse_matrix("regressor", arrays)
        model = Metro(config, arrays["template_T3"], levels, regressor)
    load_weights(model, weights, folder)
    return Bundle(model.eval(), arrays["faces_0"], levels, regressor, meta)


def _sparse_arrays(name: str, matrix: sp.spmatrix) -> dict[str, np.ndarray]:
    m = sp.csr_matrix(matrix)
    return {
        f"{name}.shape": np.array(m.shape, np.int64),
        f"{name}.indptr": m.indptr.astype(np.int64),
        f"{name}.indices": m.indices.astype(np.int64),
        f"{name}.data": m.data.astype(np.float64),
    }


def _sparse_matrix(name: str, arrays: Mapping[str, np.ndarray]) -> sp.csr_matrix:
    parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    return sp.csr_matrix(parts, shape=tuple(arrays[f"{name}.shape"]))
