"""Modules that a training leaves as they are: no gradient, no graph, no statistics, no state of the optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from metro.errors import MetroError
from metro.files import nearest
from metro.model.metro import Metro


class Frozen:
    """The frozen modules of a network, whose parameters ask for no gradient from here on.

    Parameters
    ----------
    metro
        The network.
    names
        `train.freeze`: names of modules, as they begin the names of weights in a checkpoint.

    Raises
    ------
    MetroError
        There is no such module, or it has no weights, or nothing is left to train.
    """

    def __init__(self, metro: Metro, names: Sequence[str]) -> None:
        modules = dict(metro.named_modules())
        for name in names:
            if not name or not _has_weights(modules.get(name)):
                hint = nearest(name, _beside(name, modules))
                raise MetroError(f"train.freeze: no module with weights is called {name!r}; {hint}")
            modules[name].requires_grad_(False)
        if not any(parameter.requires_grad for parameter in metro.parameters()):
            raise MetroError("train.freeze: no weights are left to train; name fewer modules")
        self._modules = [modules[name] for name in names]
        self.names = tuple(names)

    def train(self, network: nn.Module) -> None:
        """Put the network into training mode, and what is frozen into evaluation mode: dropout is off in there, and
        BatchNorm neither uses a batch's statistics nor gathers them."""
        network.train()
        for module in self._modules:
            module.eval()

    def holds(self, weight: str) -> bool:
        """Whether a weight, by its name in a checkpoint, is that of a frozen module."""
        return weight.startswith(tuple(f"{name}." for name in self.names))


def _has_weights(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())


def _beside(name: str, modules: Mapping[str, nn.Module]) -> list[str]:
    """Names of the modules with weights where one of this name would be, or the nearest place above."""
    parent = name.rpartition(".")[0]
    while parent not in modules:
        parent = parent.rpartition(".")[0]
    children = modules[parent].named_children()
    return [f"{parent}.{child}".lstrip(".") for child, module in children if _has_weights(module)]
