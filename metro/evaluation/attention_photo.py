"""What a joint's query looks at in one photograph, for everybody in it.

Shape suffixes: J joint token, T token, P part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from metro.body.arrays import BodyData
from metro.body.figure import FIGURES
from metro.body.joints import names_of
from metro.data.crop import compose, enlarging
from metro.errors import MetroError
from metro.evaluation.attention import Seen, heads_of, look, parts_of
from metro.export.bundle import Bundle
from metro.export.networks import TorchNetwork
from metro.export.predictor import Photo, Prediction, Predictor, knows_hands
from metro.files import atomic_file, nearest
from metro.viz import overlay
from metro.viz.attention import Figure

TILE = 400
"""Side of a tile, pixels."""


class WatchedNetwork(TorchNetwork):
    """A network that remembers what its queries looked at in the pictures of its last call."""

    def __init__(self, bundle: Bundle, device: torch.device | str | None = None) -> None:
        super().__init__(bundle, device)
        self.seen: list[Seen] = []

    def __call__(self, pixels_BSS3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.seen = [look(self.model, torch.from_numpy(np.ascontiguousarray(one))) for one in pixels_BSS3]
        camera, joints, vertices = zip(*((s.camera_3, s.joints_J3, s.vertices_F3) for s in self.seen), strict=True)
        return np.stack(camera), np.stack(joints), np.stack(vertices)


@dataclass(frozen=True, eq=False)
class Watched:
    """A person or hand in a photograph, and where the network's queries look in it."""

    person: Prediction
    seen: Seen


def watch(predictor: Predictor, photo: Photo, boxes: Any) -> list[Watched]:
    """Everybody in a photograph, in the boxes given or where the predictor's detector finds them.

    Attention is that of the last time that the network looks at a person. The predictor's network is a
    `WatchedNetwork`.

    Raises
    ------
    MetroError
        Nobody is found, or as the predictor.
    """
    assert isinstance(predictor.network, WatchedNetwork)
    if boxes is None and predictor.detector is not None:
        boxes = predictor.detector(photo.pixels)
        if not boxes:
            nobody = "no hands" if knows_hands(predictor.network) else "nobody"
            raise MetroError(
                f"{photo.source}: {predictor.detector.name} finds {nobody} in it; give --box x,y,width,height"
            )
    people = []
    for box in [None] if boxes is None else boxes:
        (person,) = predictor(photo, None if box is None else [box])
        people.append(Watched(person, predictor.network.seen[0]))
    return people


def joint_called(word: str, names: Sequence[str]) -> int:
    """Position of a joint, by its name or as bodies call it: `R_Wrist`, `right_wrist`.

    Raises
    ------
    MetroError
        There is none of that name.
    """

    def plain(name: str) -> str:
        return name.lower().replace("-", "_").replace("right_", "r_").replace("left_", "l_")

    for place, name in enumerate(names):
        if plain(name) == plain(word):
            return place
    raise MetroError(f"--joint {word}: the model has no such joint, {nearest(word, names)}")


def layer_called(model_heads: Sequence[tuple[int, int, int]], block: int | None, layer: int | None) -> tuple[int, int]:
    """A block and one of its layers, counted from 1; none: the last one.

    Raises
    ------
    MetroError
        The model has no such one.
    """
    layers = sorted({head[:2] for head in model_heads})
    blocks = layers[-1][0]
    block = block or blocks
    if block > blocks:
        raise MetroError(f"--block {block}: the model has {blocks} blocks")
    last = max(number for b, number in layers if b == block)
    if (layer or last) > last:
        raise MetroError(f"--layer {layer}: block {block} of the model has {last}")
    return block, layer or last


def write_watched(
    watched: Watched,
    photo: Photo,
    network: WatchedNetwork,
    bundle: Bundle,
    body: BodyData,
    joint: int | None,
    where: tuple[int, int],
    stem: Path,
) -> dict[str, Any]:
    """Write STEM_attention.png and STEM_attention.json; returns what the latter holds.

    The picture has the predicted joints, then for the joint, or for each of those that figures show, lines from it to
    what its query attends to, and the mesh coloured by that.

    Parameters
    ----------
    body
        What the network was trained on.
    joint
        Position of the joint; none: `Figure.queries` of the body or hand.
    where
        Block and layer.
    """
    seen, person = watched.seen, watched.person
    names, tokens = names_of(person.joint_set), seen.weights_HJT.shape[2]
    heads = [head[:2] == where for head in heads_of(network.model)]
    times_JT = tokens * seen.weights_HJT[heads].mean(0)
    parts = parts_of(body, bundle.levels)
    times_JP = parts.times_even(times_JT / tokens)
    rows = [names.index(name) for name in FIGURES[person.joint_set].queries] if joint is None else [joint]

    to_tile = compose(enlarging(TILE / person.crop_size), person.affine)
    picture = cv2.warpAffine(photo.pixels, to_tile, (TILE, TILE), flags=cv2.INTER_AREA, borderValue=overlay.PAPER)
    drawn = Figure(
        picture.astype(np.uint8), person.vertices, person.faces, person.joints, person.camera, person.joint_set,
        bundle.levels,
    )  # fmt: skip
    block, layer = where
    tiles, labels = [], []
    for j in rows:
        tiles += [drawn.joints(TILE), drawn.lines(j, times_JT[j], TILE), drawn.coloured(j, times_JT[j], TILE)]
        labels += ["predicted joints", f"query {names[j]}, block {block}, layer {layer}", "the same on the mesh"]
    overlay.save_image(overlay.grid(tiles, 3, labels=labels), stem.with_name(f"{stem.name}_attention.png"))

    record = {
        "image": person.source,
        "box_xywh": [float(x) for x in person.box],
        "block": block,
        "layer": layer,
        "tokens": tokens,
        "effective_tokens": round(float(seen.effective_H[heads].mean()), 1),
        "units": "multiples of an even spread over all tokens, mean over heads",
        "note": "which queries exchange information in this layer; not why the prediction is what it is",
        "queries": {
            names[j]: {
                "joints": _sorted(names, times_JT[j, : len(names)]),
                "parts": _sorted(parts.names, times_JP[j]),
            }
            for j in rows
        },
    }
    with atomic_file(stem.with_name(f"{stem.name}_attention.json")) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    return record


def told(record: Mapping[str, Any]) -> str:
    """One line about what `write_watched` wrote."""
    looks = [
        f"{joint} at {', '.join(f'{part} {value:.2f}' for part, value in list(query['parts'].items())[:3])}"
        for joint, query in record["queries"].items()
    ]
    return (
        f"block {record['block']}, layer {record['layer']} looks × an even spread from {'; '.join(looks)} "
        f"({record['effective_tokens']:.0f} of {record['tokens']} tokens in effect)"
    )


def _sorted(names: Sequence[str], times: np.ndarray) -> dict[str, float]:
    return {names[k]: round(float(times[k]), 3) for k in np.argsort(-times, kind="stable")}
