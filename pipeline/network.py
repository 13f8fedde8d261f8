"""The network of a checkpoint, as the stages after training look at it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metro.errors import MetroError
from pipeline.paths import BODY, SAMPLING

if TYPE_CHECKING:
    from metro.model.metro import Metro


def load_network(checkpoint: Path) -> Metro:
    """The network of a checkpoint, on the pipeline's body and mesh levels.

    Raises
    ------
    MetroError
        It was trained on another body model.
    """
    from metro.body.arrays import digest, read_npz
    from metro.mesh.sampling import load_sampling
    from metro.model.metro import build_model
    from metro.training.checkpoint import load_checkpoint, load_weights

    found, body = load_checkpoint(checkpoint), read_npz(BODY)
    if found.body_digest != digest(body):
        raise MetroError(f"{checkpoint}: trained on another body model than {BODY}; run `dvc repro` to train again")
    config = found.params.model.model_copy(update={"backbone_weights": "none"})
    network = build_model(config, body, load_sampling(SAMPLING))
    load_weights(network, found.weights(), checkpoint)
    return network.eval()


def device() -> str:
    """Where stages compute: a GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
