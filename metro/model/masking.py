"""Masked vertex modelling, the paper's idea (section 3.3): in training some queries are hidden, and all are predicted.

A network that must say where a wrist is without being asked about it has to learn it from the other joints and
vertices, near and far. The mask of a sample is drawn here and applied where the queries are projected
(`metro.model.metro`); losses are taken on all queries alike. Nothing is masked at inference.
"""

from __future__ import annotations

import numpy as np

from metro.config import MaskConfig

MASK_VALUE = 0.01
"""Every number of a masked query, template position and image feature alike."""


def query_mask(config: MaskConfig, joints: int, vertices: int, rng: np.random.Generator) -> np.ndarray:
    """Mask of one sample: (joints + vertices,) bool, true where the query is hidden.

    Joints and vertices independently: the share is uniform in [0, ratio), rounded down to whole queries, and the
    queries are drawn without replacement (official `human_mesh_tsv.py`).
    """
    parts = []
    for queries, ratio in ((joints, config.joints), (vertices, config.vertices)):
        masked = int(rng.random() * ratio * queries)
        parts.append(rng.permutation(queries) < masked)
    return np.concatenate(parts)
