"""METRO: image to 3D joints and full mesh, as a reproducible pipeline (Lin, Wang, Liu, CVPR 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from metro.export.predictor import Predictor

__version__ = "0.1.0"


def load(source: Path | str, device: torch.device | str | None = None) -> Predictor:
    """Open a trained network for prediction.

    Parameters
    ----------
    source
        A checkpoint folder, a bundle folder (`metro export`), `open` for the checkpoint that ships, or the MLflow URI
        of a registered or logged model (``models:/NAME/VERSION``).
    device
        Where to run; none: a GPU if there is one.

    Raises
    ------
    MetroError
        There is no usable model, or the device cannot be used.
    """
    from metro.export.load import open_bundle
    from metro.export.predictor import Predictor

    return Predictor(open_bundle(source), device)
