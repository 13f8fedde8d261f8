"""The network of a checkpoint, as the stages after training look at it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.paths import BODY, SAMPLING

if TYPE_CHECKING:
    from metro.model.metro import Metro


def load_network(checkpoint: Path) -> Metro:
    """The network of a checkpoint, on the pipeline's body and mesh levels.

    Raises
    ------
    MetroError
        It was trained on another body model or with other mesh levels.
    """
    from metro.body.arrays import read_npz
    from metro.mesh.sampling import load_sampling
    from metro.training.checkpoint import load_checkpoint
    from metro.training.restore import restore

    return restore(load_checkpoint(checkpoint), read_npz(BODY), load_sampling(SAMPLING))
