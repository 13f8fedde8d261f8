"""A tflite file as what it computes: operators in order, and the constants they take.

The flatbuffer's tables are read with the schema that comes inside of `ai-edge-litert`. Weights are stored as float16
behind a `DEQUANTIZE` each, and those of the person detector as sparse rows behind a `DENSIFY`; both are resolved here,
so that an operator's constants are the plain arrays, float16 as in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metro.errors import MetroError

_STORED = {0: np.float32, 1: np.float16, 2: np.int32}
"""NumPy's type of TensorType FLOAT32, FLOAT16, INT32."""
_UNFOLDED = ("DEQUANTIZE", "DENSIFY")


@dataclass(frozen=True)
class Operator:
    """One step of the graph. Tensors are named by their index in the file."""

    kind: str
    """As the schema calls it: `CONV_2D`, `ADD`, …"""
    inputs: tuple[int, ...]
    """Computed tensors that it takes; constants are apart."""
    constants: tuple[np.ndarray, ...]
    """Its constants in the file's layout (a convolution's weights: out, height, width, in; depthwise: 1, height, width,
    channels), then its bias, or whatever the operator takes."""
    output: int
    shape: tuple[int, ...]
    """Of the output: images are (1, height, width, channels)."""
    options: dict[str, Any]
    """Stride, padding, activation, … by the schema's names; enumerations are words."""


@dataclass(frozen=True)
class Graph:
    """A file's only graph."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


def read_graph(path: Path) -> Graph:
    """Read a tflite file.

    Raises
    ------
    MetroError
        The file is missing or no tflite file, or the schema is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        raise MetroError("ai_edge_litert is not installed; `pip install ai-edge-litert` to read tflite files") from None
    try:
        encoded = path.read_bytes()
    except OSError as err:
        raise MetroError(f"{path}: {err.strerror}; unpack the package it comes in") from None
    if encoded[4:8] != b"TFL3":
        raise MetroError(f"{path}: no tflite file; get it again")
    model = schema.ModelT.InitFromPackedBuf(encoded, 0)
    words = {kind: _words(getattr(schema, kind)) for kind in ("BuiltinOperator", "Padding", "ActivationFunctionType")}
    (graph,) = model.subgraphs
    constants: dict[int, np.ndarray] = {}
    for index, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            stored = np.frombuffer(np.asarray(data, np.uint8).tobytes(), _STORED[tensor.type])
            constants[index] = stored if tensor.sparsity else stored.reshape(tensor.shape)
    operators = []
    for operator in graph.operators:
        kind = words["BuiltinOperator"][model.operatorCodes[operator.opcodeIndex].builtinCode]
        (output,) = (int(index) for index in operator.outputs)
        inputs = [int(index) for index in operator.inputs if index >= 0]
        if kind in _UNFOLDED:
            constant, tensor = constants[inputs[0]], graph.tensors[inputs[0]]
            constants[output] = dense(constant, tensor) if kind == "DENSIFY" else constant
            continue
        options = {} if operator.builtinOptions is None else dict(vars(operator.builtinOptions))
        for name in options.keys() & {"padding", "fusedActivationFunction"}:
            family = "Padding" if name == "padding" else "ActivationFunctionType"
            options[name] = words[family][options[name]]
        operators.append(
            Operator(
                kind,
                tuple(index for index in inputs if index not in constants),
                tuple(constants[index] for index in inputs if index in constants),
                output,
                tuple(int(size) for size in graph.tensors[output].shape),
                options,
            )
        )
    return Graph(tuple(map(int, graph.inputs)), tuple(map(int, graph.outputs)), tuple(operators))


def dense(values: np.ndarray, tensor: Any) -> np.ndarray:
    """Fill a sparse tensor (`SparsityParameters` of the schema): axes in traversal order, each dense or as CSR."""
    sparsity = tensor.sparsity
    axes = [int(axis) for axis in sparsity.traversalOrder]
    if len(axes) != len(tensor.shape):
        raise MetroError("a sparse tensor is stored in blocks, which is not read here; use the float16 file")
    places = np.zeros((1, 0), np.int64)  # positions so far, one row per stored group
    for level in sparsity.dimMetadata:
        if level.format == 0:  # dense: every index of this axis below each position
            count = level.denseSize
            index = np.tile(np.arange(count), len(places))
            places = np.repeat(places, count, axis=0)
        else:  # compressed: segments say which indices are there
            counts = np.diff(np.asarray(level.arraySegments.values, np.int64))
            index = np.asarray(level.arrayIndices.values, np.int64)
            places = np.repeat(places, counts, axis=0)
        places = np.concatenate((places, index[:, None]), axis=1)
    out = np.zeros(tuple(tensor.shape), values.dtype)
    where = np.empty_like(places)
    where[:, axes] = places
    out[tuple(where.T)] = values
    return out


def _words(enumeration: type) -> dict[int, str]:
    return {number: word for word, number in vars(enumeration).items() if isinstance(number, int)}


def leading_to(graph: Graph, outputs: Sequence[int]) -> list[Operator]:
    """The operators that some outputs need, in the order in which a reader would write them down.

    That is each after what it takes, branch by branch: the first input of an operator and all that leads to it comes
    before the second one's. A file has them as its converter left them, branches mixed.
    """
    made_by = {operator.output: operator for operator in graph.operators}
    found: dict[int, Operator] = {}
    open_ends = [*reversed(outputs)]
    while open_ends:
        index = open_ends[-1]
        operator = made_by.get(index)
        missing = [] if operator is None else [i for i in operator.inputs if i in made_by and i not in found]
        if operator is None or index in found or not missing:
            open_ends.pop()
            if operator is not None:
                found.setdefault(index, operator)
        else:
            open_ends.append(missing[0])
    return list(found.values())
