"""From the files of a checkpoint to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from metro.body.arrays import BodyData, digest
from metro.errors import MetroError
from metro.mesh.sampling import Level
from metro.model.metro import Metro, build_model
from metro.training.checkpoint import Checkpoint


def restore(checkpoint: Checkpoint, body: BodyData, levels: Sequence[Level] | None = None) -> Metro:
    """The network of a checkpoint, in evaluation mode on the CPU, with the mesh levels it was trained with.

    Parameters
    ----------
    checkpoint
        Checkpoint of this project.
    body
        The body model it was trained on.
    levels
        Where the caller has levels of its own: they must be those of the checkpoint.

    Raises
    ------
    MetroError
        The body or the levels are others, or the files are damaged.
    """
    checkpoint.check_body(digest(body))
    if levels is not None:
        checkpoint.check_levels(levels)
    config = checkpoint.params.model.model_copy(update={"backbone_weights": "none"})
    network = build_model(config, body, checkpoint.levels)
    load_weights(network, checkpoint.weights(), checkpoint.folder)
    return network.eval()


def load_weights(model: nn.Module, state: Mapping[str, Tensor], origin: Path | str) -> None:
    """Load `state` strictly; a mismatch names the first keys that differ.

    Raises
    ------
    MetroError
        The checkpoint belongs to another configuration.
    """
    own = model.state_dict()
    wrong = [
        f"{k} {_shape(state, k)} in the checkpoint, {_shape(own, k)} in the model"
        for k in sorted(own.keys() | state.keys())
        if _shape(own, k) != _shape(state, k)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise MetroError(
            f"{origin}: checkpoint of another configuration: {'; '.join(wrong[:3])}{more}; "
            "use the model section that is in its checkpoint.json"
        )
    model.load_state_dict(dict(state), strict=True)


def _shape(state: Mapping[str, Tensor], key: str) -> str:
    return "×".join(map(str, state[key].shape)) or "scalar" if key in state else "absent"
