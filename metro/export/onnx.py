"""ONNX and torch.export programs of the network, each checked against the network itself.

Both take ``image``: (B, 3, S, S) float32 RGB in [0, 1]; ImageNet's mean and deviation are inside the program, so that
they cannot be forgotten. Both give ``camera`` (B, 3), ``joints`` (B, J, 3) regressed from the mesh, and ``vertices``
(B, V, 3), in metres; frames as in `metro.model.metro`. B is free.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from metro.data.augment import IMAGENET_MEAN, IMAGENET_SD
from metro.errors import MetroError
from metro.export.bundle import Bundle
from metro.model.metro import Metro

STACK_TRACE = "pkg.torch.onnx.stack_trace"
"""What the exporter notes at every node: lines of code, by their paths on this machine."""
OUTPUTS = ("camera", "joints", "vertices")
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

    Raises
    ------
    MetroError
        The ONNX packages are missing, or the file differs from the network.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as err:
        raise MetroError(f"{path}: ONNX export needs {err.name}; `pip install onnx onnxscript onnxruntime`") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    size = bundle.model.config.image_size
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            Deployed(bundle.model).eval(),
            (torch.rand(2, 3, size, size),),
            dynamo=True,
            dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=4096)}},
            input_names=["image"],
            output_names=list(OUTPUTS),
        )
    assert program is not None
    model = program.model_proto
    for node in itertools.chain(model.graph.node, *(function.node for function in model.functions)):
        kept = [entry for entry in node.metadata_props if entry.key != STACK_TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    record = {k: bundle.meta[k] for k in ("joint_names", "input", "output", "licence", "origin")}
    for key, value in record.items():
        onnx.helper.set_model_props(model, {p.key: p.value for p in model.metadata_props} | {key: json.dumps(value)})
    onnx.save(model, path)
    onnx.checker.check_model(str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return _compare(
        bundle, path, lambda image: tuple(map(torch.from_numpy, session.run(list(OUTPUTS), {"image": image.numpy()})))
    )


def _compare(bundle: Bundle, path: Path, run: Callable[[Tensor], Iterable[Tensor]]) -> float:
    deployed, size, worst = Deployed(bundle.model).eval(), bundle.model.config.image_size, 0.0
    for count in BATCHES:
        image = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            pairs = zip(deployed(image), run(image.clone()), strict=True)
            worst = max([worst, *(float((a - b).abs().max()) for a, b in pairs)])
    if not worst <= TOLERANCE:
        raise MetroError(f"{path}: differs from the network by {worst:.2g} (allowed: {TOLERANCE:g}); do not use it")
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress lines and deprecation notes about its own internals."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
