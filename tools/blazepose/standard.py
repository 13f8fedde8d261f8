"""Mean and deviation of every channel of the landmark networks' maps, over people and hands that were rendered.

METRO sees the maps with mean 0 and deviation 1 in each channel (`metro.model.backbones.LandmarkMap`). The pictures are
those of the synthetic source, cut by the person's square as the loader does without augmentation. Channels that never
move keep their scale.

Shapes: B picture, C channels, F numbers of a picture.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metro.config import BodyConfig, DatasetConfig
from metro.data.augment import normalise
from metro.data.crop import cut
from metro.model.backbones import LandmarkMap
from metro.model.tensors import load_tensors
from metro.sources import synthetic

PEOPLE = 1000
SEED = 20_000
"""Of no set that a preset trains or tests on."""
_HANDS = {"heading_sd_deg": 40.0, "heading_uniform": 0.2, "truncation": 0.0}  # as in preset open-hand
_STILL = 1e-3
_BATCH = 20


@torch.no_grad()
def standard(name: str, weights: Path, count: int = PEOPLE) -> dict[str, Tensor]:
    """`mean_C` and `sd_C` of a backbone with these weights, by name of the backbone."""
    backbone = LandmarkMap(name).eval()
    trunk = {key: value for key, value in load_tensors(weights).items() if key.startswith("trunk.")}
    backbone.net.load_state_dict({key.removeprefix("trunk."): value for key, value in trunk.items()})
    pictures_BSS3 = torch.from_numpy(pictures(name == "blazehand", count, backbone.image_size))
    batches = (normalise(batch, torch.ones(len(batch), 3)) for batch in pictures_BSS3.split(_BATCH))
    features_BF = torch.cat([backbone.features(batch) for batch in batches]).double()
    fine, _ = backbone.split
    _, height, width = backbone.map_size
    map_BF, whole_BF = features_BF.tensor_split([fine * height * width], 1)
    channels = (map_BF.unflatten(1, (fine, -1)).transpose(0, 1).flatten(1), whole_BF.T)
    sd_C = torch.cat([values.std(1) for values in channels])
    return {
        f"{name}.mean_C": torch.cat([values.mean(1) for values in channels]).float(),
        f"{name}.sd_C": torch.where(sd_C > _STILL, sd_C, 1.0).float(),
    }


@cache
def pictures(hands: bool, count: int, size: int) -> np.ndarray:
    """(B, S, S, 3) uint8 RGB."""
    options = {"count": count, "seed": SEED, **(_HANDS if hands else {})}
    config = DatasetConfig(source="synthetic", root=Path("metro/synthetic"), split="train", options=options)
    body = BodyConfig(kind="open_hand" if hands else "open")
    out = np.empty((count, size, size, 3), np.uint8)
    for number, record in enumerate(synthetic.read(config, body, synthetic.rows(config, body))):
        out[number], _ = cut(record.image, *record.crop_square(), size, 1.0)
    return out
