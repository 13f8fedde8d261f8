"""From a file's operators to the tensors of one of our modules.

The module's layers are registered in the order in which the file's operators lead to its outputs
(`tools.blazepose.tflite.leading_to`), so that the two lists are laid side by side; kinds and shapes must agree
throughout and nothing may be left over on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from metro.errors import MetroError
from tools.blazepose.tflite import Operator, leading_to, read_graph

_LAYERS: dict[str, type[nn.Module]] = {
    "CONV_2D": nn.Conv2d,
    "DEPTHWISE_CONV_2D": nn.Conv2d,
    "FULLY_CONNECTED": nn.Linear,
    "PRELU": nn.PReLU,
}
_AXES = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2)}
"""Where PyTorch has the axes of a convolution's weights."""


def tensors(path: Path, network: nn.Module, outputs: Sequence[int], unused: int = 0) -> dict[str, Tensor]:
    """Weights of a tflite file by the names that a module has for them, float16 as in the file.

    Parameters
    ----------
    path
        The tflite file.
    network
        The module; only names and shapes count.
    outputs
        Which of the file's outputs the module has, in the module's order.
    unused
        How many of the file's layers lead to other outputs only.

    Raises
    ------
    MetroError
        File and module are not the same network.
    """
    graph = read_graph(path)
    needed = leading_to(graph, [graph.outputs[number] for number in outputs])
    theirs = [operator for operator in needed if operator.kind in _LAYERS]
    spare = sum(operator.kind in _LAYERS for operator in graph.operators) - len(theirs)
    ours = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, tuple(_LAYERS.values()))]
    if (len(theirs), spare) != (len(ours), unused):
        raise MetroError(
            f"{path}: has {len(theirs)} layers and {spare} that are not needed, not {len(ours)} and {unused}; "
            "take the file of the version named in tools/blazepose"
        )
    state: dict[str, Tensor] = {}
    for (name, layer), operator in zip(ours, theirs, strict=True):
        values = _weights(operator)
        found = {key: tuple(value.shape) for key, value in values.items()}
        wanted = {key: tuple(value.shape) for key, value in layer.named_parameters()}
        if not isinstance(layer, _LAYERS[operator.kind]) or found != wanted:
            raise MetroError(f"{path}: tensor {operator.output} is no {name}: {operator.kind} {found}, not {wanted}")
        state |= {f"{name}.{key}": value for key, value in values.items()}
    if state.keys() != network.state_dict().keys():
        raise MetroError(f"{path}: has nothing for {sorted(network.state_dict().keys() - state.keys())}")
    return state


def _weights(operator: Operator) -> dict[str, Tensor]:
    """A layer's constants as PyTorch has them."""
    if operator.kind == "PRELU":
        return {"weight": torch.tensor(operator.constants[0]).flatten()}
    weight, bias = (torch.tensor(constant) for constant in operator.constants)
    return {"weight": weight.permute(_AXES.get(operator.kind, (0, 1))).contiguous(), "bias": bias}
