"""What the queries look at: attention over joints and mesh vertices.

Maps are the explicit softmax of a layer, averaged over heads (section 4.4 of the paper). The paper shows the last layer
of the last block; where that one spreads its attention evenly over all tokens, as small networks may, the layer with
the most structure is shown beside it. The first J tokens are joints and the rest vertices, told apart by the model
itself. (The official visualiser always drops 14 tokens, which shifts the map of a hand, with its 21 joints, by 7
vertices.)

Shape suffixes: L layer, B image, J joint token, V coarse vertex, T token (J, then V), F full-mesh vertex, P part.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metro.body.arrays import BodyData
from metro.body.figure import FIGURES
from metro.body.joints import names_of
from metro.config import AttentionConfig
from metro.data.augment import normalise
from metro.data.loader import EvalPass
from metro.data.shards import ShardDataset
from metro.mesh.sampling import Level
from metro.model.metro import Metro
from metro.viz import overlay, plots
from metro.viz.camera import project

SHARPER = 0.99
"""A layer is shown beside the last one if its effective number of tokens is below this share of the last one's."""


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of joint queries over a set of images, in every layer."""

    joint_names: tuple[str, ...]
    layers: tuple[tuple[int, int], ...]
    """Block and layer, counted from 1, of each L."""
    mean_LJT: np.ndarray
    """Mean over heads and images: share of each joint's attention that goes to each token; rows sum to 1."""
    effective_L: np.ndarray
    """Effective number of tokens, exp of the entropy: mean over images, heads and queries. An even spread has T."""
    examples_LBJT: np.ndarray
    """Mean over heads, for each example."""
    images: np.ndarray
    """(B, S, S, 3) uint8 crops of the examples."""
    vertices_BF3: np.ndarray
    """Their predicted meshes."""
    cameras_B3: np.ndarray
    joints_BJ3: np.ndarray
    count: int
    """Images averaged."""

    @property
    def tokens(self) -> int:
        """T."""
        return self.mean_LJT.shape[2]

    @property
    def sharpest(self) -> int:
        """Position of the layer with the most structure."""
        return int(self.effective_L.argmin())

    def to_joints(self, layer: int = -1) -> np.ndarray:
        """(J, J): attention from joints (rows) to joints."""
        return self.mean_LJT[layer, :, : len(self.joint_names)]

    def to_vertices(self, layer: int = -1) -> np.ndarray:
        """(J, V): attention from joints (rows) to coarse vertices."""
        return self.mean_LJT[layer, :, len(self.joint_names) :]


@torch.inference_mode()
def measure_attention(
    model: Metro, dataset: ShardDataset, config: AttentionConfig | None = None, device: torch.device | str = "cpu"
) -> Attention:
    """Attention of a network over the first `config.samples` images of a dataset.

    Raises
    ------
    MetroError
        The dataset is empty or does not fit the model.
    """
    config = config or AttentionConfig()
    model = model.to(device).eval()
    joints, names = model.num_joints, names_of(model.config.joint_set)
    layers = tuple((b, k) for b, block in enumerate(model.config.blocks, 1) for k in range(1, block.layers + 1))
    total, entropy, count = np.zeros((len(layers), joints, len(model.template_T3))), np.zeros(len(layers)), 0
    kept: list[tuple[np.ndarray, ...]] = []
    for batch in EvalPass(dataset, model.config, min(8, config.samples)):
        images = batch["image"][: config.samples - count]
        ones = torch.ones(len(images), 3, device=device)
        output = model(normalise(images.to(device), ones), need_attention=True)
        assert output.attention is not None
        assert output.mesh_joints is not None
        maps = [weights_BNTT[:, :, :joints].double() for block in output.attention for weights_BNTT in block]
        entropy += [float(torch.special.entr(w).sum(-1).exp().mean()) * len(images) for w in maps]
        weights_LBJT = torch.stack([w.mean(1) for w in maps]).cpu().numpy()
        total += weights_LBJT.sum(1)
        wanted = max(0, config.examples - count)
        if wanted:
            tensors = (output.vertices[-1], output.camera, output.mesh_joints)
            rows = (weights_LBJT.swapaxes(0, 1), images.numpy(), *(t.cpu().numpy() for t in tensors))
            kept.append(tuple(a[:wanted] for a in rows))
        count += len(images)
        if count >= config.samples:
            break
    examples, crops, vertices, cameras, mesh_joints = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    mean, effective = total / count, entropy / count
    return Attention(
        names, layers, mean, effective, examples.swapaxes(0, 1), crops, vertices, cameras, mesh_joints, count
    )


def part_attention(attention: Attention, body: BodyData, levels: Sequence[Level], layer: int = -1) -> np.ndarray:
    """(J, P): attention of each joint query to a vertex of each body part, in multiples of an even spread over tokens.

    A vertex belongs to the bone with its largest skin weight; parts without a coarse vertex are nan.
    """
    coarse = functools.reduce(lambda rows, level: rows[level.indices], levels, np.arange(body.num_vertices))
    part_V, weights_JV = body.weights[coarse].argmax(1), attention.tokens * attention.to_vertices(layer)
    nothing = np.full(len(attention.joint_names), np.nan)
    members = [part_V == part for part in range(body.num_joints)]
    return np.stack([weights_JV[:, own].mean(1) if own.any() else nothing for own in members], 1)


def on_full_mesh(weights_V: np.ndarray, levels: Sequence[Level]) -> np.ndarray:
    """Weights of coarse vertices spread smoothly over the full mesh (F,)."""
    return functools.reduce(lambda values, level: level.up @ values, reversed(levels), weights_V)


def colours(times_uniform_F: np.ndarray) -> np.ndarray:
    """Mesh colours (F, 3): grey where attention is at most even, through orange to dark red where it is highest.

    The scale reaches at least to 1.5 times an even spread, so that a map without structure looks like one.
    """
    ramp = np.array([[0.86, 0.87, 0.89], [0.98, 0.80, 0.45], [0.93, 0.45, 0.16], [0.62, 0.07, 0.10]])
    top = max(1.5, float(np.quantile(times_uniform_F, 0.995)))
    level = np.clip((times_uniform_F - 1) / (top - 1), 0, 1) * (len(ramp) - 1)
    low = np.minimum(level.astype(int), len(ramp) - 2)
    return ramp[low] + (level - low)[:, None] * (ramp[low + 1] - ramp[low])


def write_attention(attention: Attention, body: BodyData, levels: Sequence[Level], folder: Path) -> dict[str, Any]:
    """Write matrices (``attention.npz``), a summary (``attention.json``) and figures; returns the summary.

    Figures of the last layer: ``joints.png`` (joints to joints), ``parts.png`` (joints to body parts), ``mean.png``
    (mean attention of each joint on the template), ``examples.png`` (single images). If another layer has more
    structure, its figures are ``sharpest_joints.png`` and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, sharpest = len(attention.layers) - 1, attention.sharpest
    np.savez(
        folder / "attention.npz",
        layers=np.array(attention.layers),
        joint_joint=np.stack([attention.to_joints(k) for k in range(last + 1)]),
        joint_vertex=np.stack([attention.to_vertices(k) for k in range(last + 1)]),
        joint_part=np.stack([part_attention(attention, body, levels, k) for k in range(last + 1)]),
    )
    shown = {"last": _write_layer(attention, body, levels, last, folder, "")}
    if attention.effective_L[sharpest] < SHARPER * attention.effective_L[last]:
        shown["sharpest"] = _write_layer(attention, body, levels, sharpest, folder, "sharpest_")
    summary = {
        "images": attention.count,
        "tokens": attention.tokens,
        "layers": [
            {"block": block, "layer": layer, "effective_tokens": round(float(effective), 1)}
            for (block, layer), effective in zip(attention.layers, attention.effective_L, strict=True)
        ],
        **shown,
    }
    (folder / "attention.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _write_layer(
    attention: Attention, body: BodyData, levels: Sequence[Level], layer: int, folder: Path, prefix: str
) -> dict[str, Any]:
    """Figures of one layer, and its tables."""
    names, parts, tokens = attention.joint_names, body.joint_names, attention.tokens
    by_part = part_attention(attention, body, levels, layer)
    to_joints = tokens * attention.to_joints(layer)
    block, number = attention.layers[layer]
    where, scale = f"block {block}, layer {number}", "× an even spread over all tokens"
    plots.heatmap(
        to_joints, names, names, folder / f"{prefix}joints.png",
        title=f"Attention of joint queries (rows) to joints, {where}", label=scale, reach=1.5,
    )  # fmt: skip
    plots.heatmap(
        by_part, names, parts, folder / f"{prefix}parts.png",
        title=f"Attention of joint queries (rows) to the vertices of body parts, {where}", label=scale, reach=1.5,
    )  # fmt: skip
    overlay.save_image(_mean_sheet(attention, body, levels, layer), folder / f"{prefix}mean.png")
    overlay.save_image(_example_sheet(attention, body, levels, layer), folder / f"{prefix}examples.png")
    return {
        "block": block,
        "layer": number,
        "share_on_joints": round(float(attention.to_joints(layer).sum(1).mean()), 4),
        "share_on_joints_if_uniform": round(len(names) / tokens, 4),
        "queries": [
            {
                "joint": name,
                "on_joints": round(float(attention.to_joints(layer)[j].sum()), 4),
                "top_joints": _top(to_joints[j], names),
                "top_parts": _top(by_part[j], parts),
            }
            for j, name in enumerate(names)
        ],
    }


def _mean_sheet(attention: Attention, body: BodyData, levels: Sequence[Level], layer: int) -> overlay.Image:
    upright = body.v_template * np.array([1, -1, -1])
    tiles = []
    for weights in attention.to_vertices(layer):
        tint = colours(on_full_mesh(attention.tokens * weights, levels))
        tiles.append(overlay.view(upright, body.faces, 200, colour=tint))
    return overlay.grid(tiles, 7, labels=list(attention.joint_names))


def _example_sheet(attention: Attention, body: BodyData, levels: Sequence[Level], layer: int) -> overlay.Image:
    figure = next(f for f in FIGURES.values() if names_of(f.joint_set) == attention.joint_names)
    tiles, labels = [], []
    for b, picture in enumerate(attention.images):
        picture = overlay.resize(picture, 200)
        camera = attention.cameras_B3[b]
        points = project(attention.joints_BJ3[b], camera, 200)
        tiles.append(overlay.skeleton(picture, points, figure.joint_set))
        labels.append("predicted joints")
        for name in figure.queries:
            j = attention.joint_names.index(name)
            weights = attention.examples_LBJT[layer, b, j, len(attention.joint_names) :]
            tint = colours(on_full_mesh(attention.tokens * weights, levels))
            faded = overlay.blend(picture, np.full_like(picture, 255), 0.55)
            drawn = overlay.mesh_overlay(faded, attention.vertices_BF3[b], body.faces, camera, colour=tint, alpha=1.0)
            tiles.append(_ring(drawn, points[j]))
            labels.append(f"query {name}")
    return overlay.grid(tiles, 1 + len(figure.queries), labels=labels)


def _ring(image: overlay.Image, point: np.ndarray) -> overlay.Image:
    import cv2

    canvas, centre = image.copy(), (round(16 * float(point[0])), round(16 * float(point[1])))
    for colour, width in ((overlay.PAPER, 4), (overlay.LEFT, 2)):
        cv2.circle(canvas, centre, 16 * 7, colour, width, cv2.LINE_AA, 4)
    return canvas


def _top(times_uniform: np.ndarray, names: Sequence[str], count: int = 3) -> dict[str, float]:
    order = np.argsort(-np.nan_to_num(times_uniform), kind="stable")[:count]
    return {names[k]: round(float(times_uniform[k]), 2) for k in order}
