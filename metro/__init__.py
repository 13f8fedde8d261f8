"""METRO: image to 3D joints and full mesh, as a reproducible pipeline (Lin, Wang, Liu, CVPR 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metro.version import __version__

if TYPE_CHECKING:
    import torch

    from metro.export.predictor import Predictor
    from metro.words import Tta

__all__ = ["__version__", "load"]


def load(
    source: Path | str,
    device: torch.device | str | None = None,
    *,
    detector: str = "blazepose",
    tta: Tta = "none",
    body: Path | None = None,
) -> Predictor:
    """Open a trained network for prediction.

    Parameters
    ----------
    source
        A checkpoint folder, a bundle folder (`metro export`), `open` or `open-hand` for those that ship, or an address
        that an installed package resolves: the pipeline does so for MLflow's ``models:/NAME/VERSION`` and ``runs:/…``.
    device
        Where PyTorch runs, e.g. ``cuda`` or ``cpu``. None: a bundle with an ONNX file (`open` is one) runs in ONNX
        Runtime on the CPU, which starts in a fraction of the time, other networks in PyTorch, on a GPU if there is one.
    detector
        Who finds people, or the hands of a hand model, in images that come without boxes: `blazepose`, `torchvision`,
        or `none`, which takes the middle square of the image. It is opened when it is first needed.
    tta
        Test-time augmentation: `flip` sees each person in the mirror too, `few` turned by 10° both ways as well,
        `paper` is METRO's for hands, 95 views. Time grows with the views.
    body
        Licensed body model file, which `tta` needs for models that were trained on one.

    Raises
    ------
    MetroError
        There is no usable model, the device cannot be used, or the model knows no such views.
    """
    from metro.detect import detector as detector_of
    from metro.export.load import network_views, open_network, predictor_of
    from metro.export.predictor import knows_hands

    network = open_network(source, device)
    views = None if tta == "none" else network_views(network, tta, body)
    return predictor_of(network, detector_of(detector, hands=knows_hands(network)), views)
