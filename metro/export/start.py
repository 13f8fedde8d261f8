"""Poses that a network sees in a prepared dataset's people, for fits to start from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metro.body.arrays import BodyData, digest
from metro.config import ModelConfig
from metro.data.loader import EvalPass
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.export.load import open_network
from metro.fitting import from_mesh

if TYPE_CHECKING:
    from metro.export.networks import Network

_BATCH = 16


@dataclass(frozen=True)
class StartFrom:
    """`metro.fitting.dataset.Start` of a network. A process opens it when it first needs it."""

    source: str
    """Checkpoint or bundle, as `metro.load` takes it."""
    device: str | None = None
    """Where PyTorch runs; none: ONNX Runtime where the network has an ONNX file."""

    @cached_property
    def network(self) -> Network:
        """The network. Raises as `metro.load`."""
        return open_network(self.source, self.device)

    def __getstate__(self) -> dict[str, str | None]:
        """Without the network, which each process opens for itself."""
        return {"source": self.source, "device": self.device}

    @property
    def recipe(self) -> str:
        """Digest of the network's record, which holds the checksums of its weights."""
        return hashlib.sha256(json.dumps(dict(self.network.meta), sort_keys=True).encode()).hexdigest()

    def check(self, body: BodyData) -> None:
        """Refuse a body that the network was not trained on.

        Raises
        ------
        MetroError
            The network cannot be opened, or was trained on another body.
        """
        trained = self.network.meta["body"]
        if trained["digest"] != digest(body):
            raise MetroError(
                f"--start {self.source}: was trained on another body ({trained['kind']}) than the one that is fitted "
                f"({body.kind}); set the `body` section of --params to that one"
            )

    def __call__(self, people: ShardDataset, body: BodyData) -> NDArray[np.floating]:
        """Poses (N, 72) of the bodies nearest to the meshes that the network sees."""
        model = ModelConfig.model_validate(self.network.meta["model"])
        batches = EvalPass(people, model, _BATCH)
        vertices_NV3 = np.concatenate([self.network(batch["image"].numpy())[2] for batch in batches])
        return from_mesh(vertices_NV3, body, device=self.device or "cpu").pose_aa
