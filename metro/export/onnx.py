"""ONNX and torch.export programs of the network, each checked against the network itself.

Both take ``image``: (B, 3, S, S) float32 RGB in [0, 1]; ImageNet's mean and deviation are inside the program, so that
they cannot be forgotten. Both give ``camera`` (B, 3), ``joints`` (B, J, 3) regressed from the mesh, and ``vertices``
(B, V, 3), in metres; frames as in `metro.model.metro`. B is free.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from metro.data.augment import IMAGENET_MEAN, IMAGENET_SD
from metro.errors import MetroError
from metro.export.networks import OUTPUTS
from metro.model.metro import Metro
from metro.model.onnx import onnx_of
from metro.model.runtime import open_session

if TYPE_CHECKING:
    from onnx import ModelProto

    from metro.export.bundle import Bundle

TOLERANCE = 1e-4
"""Largest difference (metres, or camera units) between a program and the network."""
BATCHES = (1, 3)
"""Batch sizes a program is checked with."""


class Deployed(nn.Module):
    """The network as it is shipped: from an image in [0, 1] to camera, joints and full mesh."""

    mean: Tensor
    sd: Tensor

    def __init__(self, model: Metro) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("sd", torch.tensor(IMAGENET_SD)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.model((image - self.mean) / self.sd)
        assert output.mesh_joints is not None
        return output.camera, output.mesh_joints, output.vertices[-1]


def program_of(bundle: Bundle) -> torch.export.ExportedProgram:
    """torch.export program with a free batch size."""
    deployed = Deployed(bundle.model).eval()
    size = bundle.model.config.image_size
    batch = torch.export.Dim("batch", min=1, max=4096)
    with torch.no_grad():
        # The program keeps its example.
        program = torch.export.export(deployed, (torch.zeros(2, 3, size, size),), dynamic_shapes={"image": {0: batch}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # holds the paths of this machine
    return program


def write_program(bundle: Bundle, path: Path) -> float:
    """Write a torch.export program (``.pt2``) and return its largest difference from the network.

    Raises
    ------
    MetroError
        The program differs from the network.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program_of(bundle), path)
    loaded = torch.export.load(path).module()
    return _compare(bundle, path, lambda image: loaded(image))


def write_onnx(bundle: Bundle, path: Path) -> float:
    """Write an ONNX file with a free batch size and return its largest difference from the network.

    Weights that half precision holds exactly, as those of a released checkpoint, are stored in it.

    Raises
    ------
    MetroError
        The ONNX packages are missing, or the file differs from the network.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401 - what `open_session` needs
        import onnxscript  # noqa: F401 - what `onnx_of` needs
    except ImportError as err:
        raise MetroError(f"{path}: ONNX export needs {err.name}; `pip install onnx onnxscript onnxruntime`") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    model = onnx_of(Deployed(bundle.model).eval(), bundle.model.config.image_size, OUTPUTS)
    _store_halves(model)
    record = {k: bundle.meta[k] for k in ("joint_names", "input", "output", "licence", "origin")}
    for key, value in record.items():
        onnx.helper.set_model_props(model, {p.key: p.value for p in model.metadata_props} | {key: json.dumps(value)})
    onnx.save(model, path)
    onnx.checker.check_model(str(path))
    session = open_session(path)
    return _compare(
        bundle, path, lambda image: tuple(map(torch.from_numpy, session.run(list(OUTPUTS), {"image": image.numpy()})))
    )


def _store_halves(model: ModelProto) -> None:
    """Store large arrays of float32 in float16, each with a cast before everything else, where no value changes."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 1000:
            continue
        full, name = numpy_helper.to_array(tensor), tensor.name
        with np.errstate(over="ignore"):
            half = full.astype(np.float16)
        if np.array_equal(half.astype(np.float32), full):
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _compare(bundle: Bundle, path: Path, run: Callable[[Tensor], Iterable[Tensor]]) -> float:
    deployed, size, worst = Deployed(bundle.model).eval(), bundle.model.config.image_size, 0.0
    for count in BATCHES:
        image = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            for ours, theirs in zip(deployed(image), run(image.clone()), strict=True):
                worst = float(np.maximum(worst, float((ours - theirs).abs().max())))  # unlike max(), hands NaN on
    if not worst <= TOLERANCE:
        raise MetroError(f"{path}: differs from the network by {worst:.2g} (allowed: {TOLERANCE:g}); do not use it")
    return worst
