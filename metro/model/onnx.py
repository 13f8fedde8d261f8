"""ONNX models of networks of this project."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from metro.logs import quiet

if TYPE_CHECKING:
    from onnx import ModelProto


def onnx_of(network: nn.Module, size: int, outputs: Sequence[str]) -> ModelProto:
    """ONNX model of a network that takes ``image``, with a free batch size and the weights as they are.

    Parameters
    ----------
    network
        In evaluation mode; from (B, 3, size, size) to a tuple.
    size
        Side of the image.
    outputs
        Names of what it gives.
    """
    from onnxscript import optimizer

    # The exporter prints its progress, and warns of its own internals.
    with (
        quiet("torch.onnx", "onnxscript"),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, size, size),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            input_names=["image"],
            output_names=list(outputs),
            optimize=False,
        )
        assert program is not None
        # Of the exporter's optimisation all but its fusions, which ONNX Runtime does as well when it opens the file:
        # weights stay as they are.
        optimizer.inline(program.model)
        optimizer.fold_constants(program.model)
        optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.value_info):
        del part.metadata_props[:]  # where the exporter was called from
    return model
