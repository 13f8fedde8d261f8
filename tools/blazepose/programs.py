"""ONNX files of the networks that detect: the graph alone; its weights lie in the safetensors file beside it.

So a detector starts in ONNX Runtime, without PyTorch, and no weight is stored twice: a safetensors file holds each
tensor as plain bytes at a place that its header tells, which is all that ONNX's external data need.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from metro.detect.programs import INPUT_PX
from metro.files import atomic_file
from metro.model.onnx import onnx_of
from metro.model.tensors import load_tensors

_TYPES = {"F16": onnx.TensorProto.FLOAT16, "F32": onnx.TensorProto.FLOAT}


def write_program(network: nn.Module, weights: Path) -> Path:
    """Write the ONNX file of a network beside its weights: ``image`` (B, 3, S, S) in [0, 1] in, the fields of its
    output out.

    Raises
    ------
    MetroError
        The weights are not those of the network.
    """
    network.load_state_dict({name: tensor.float() for name, tensor in load_tensors(weights).items()})
    network.eval()
    side = INPUT_PX[weights.stem]
    with torch.no_grad():
        outputs = network(torch.zeros(1, 3, side, side))._fields
    model = onnx_of(network, side, outputs)
    del model.graph.value_info[:]
    _point_to(model, weights)
    path = weights.with_suffix(".onnx")
    with atomic_file(path) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    return path


def _point_to(model: onnx.ModelProto, weights: Path) -> None:
    """Let the network's tensors be read from a safetensors file, and cast to float32 where that holds halves."""
    table, start = _layout(weights)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.name not in table:  # a shape, not a weight
            continue
        entry, name = table[tensor.name], tensor.name
        begin, end = entry["data_offsets"]
        tensor.ClearField("raw_data")
        tensor.name, tensor.data_type = f"{name}.stored", _TYPES[entry["dtype"]]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", start + begin), ("length", end - begin)):
            tensor.external_data.add(key=key, value=str(value))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _layout(weights: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Entries of a safetensors file by name, and where their bytes begin."""
    encoded = weights.read_bytes()
    length = int.from_bytes(encoded[:8], "little")
    return json.loads(encoded[8 : 8 + length]), 8 + length
