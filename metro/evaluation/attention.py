"""What the queries look at: attention of the network's last layer, over joints and mesh vertices.

Maps are the explicit softmax of the last layer of the last block, averaged over heads (section 4.4 of the paper). The
first J tokens are joints and the rest vertices, told apart by the model itself. (The official visualiser always drops
14 tokens, which shifts the map of a hand, with its 21 joints, by 7 vertices.)

Shape suffixes: B image, J joint token, V coarse vertex, F vertex of the full mesh, P body part.
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

from metro.body.bundle import BodyData
from metro.body.joints import names_of
from metro.config import AttentionConfig, TrainConfig
from metro.data.augment import normalise
from metro.data.loader import make_loader
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.mesh.sampling import Level
from metro.model.metro import Metro
from metro.viz import overlay, plots

QUERIES = {
    "J14": ("R_Wrist", "L_Wrist", "R_Ankle", "L_Knee", "Head"),
    "HAND21": ("Wrist", "Thumb4", "Index4", "Middle4", "Pinky4"),
}
"""Joint queries drawn for each example."""


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of joint queries over a set of images."""

    joint_names: tuple[str, ...]
    mean_JT: np.ndarray
    """Mean over images: share of each joint's attention that goes to each token; rows sum to 1."""
    examples_BJT: np.ndarray
    """The same for each example."""
    images: np.ndarray
    """(B, S, S, 3) uint8 crops of the examples."""
    vertices_BF3: np.ndarray
    """Their predicted meshes."""
    cameras_B3: np.ndarray
    joints_BJ3: np.ndarray
    count: int
    """Images averaged."""

    @property
    def joint_joint(self) -> np.ndarray:
        """(J, J): attention from joints (rows) to joints."""
        return self.mean_JT[:, : len(self.joint_names)]

    @property
    def joint_vertex(self) -> np.ndarray:
        """(J, V): attention from joints (rows) to coarse vertices."""
        return self.mean_JT[:, len(self.joint_names) :]


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
    size = min(8, config.samples)
    loader = make_loader([dataset], model.config, TrainConfig(batch_size=size, workers=0), training=False)
    total, count = np.zeros((joints, len(model.template_T3))), 0
    kept: list[tuple[np.ndarray, ...]] = []
    for batch in loader:
        images = batch["image"][: config.samples - count]
        ones = torch.ones(len(images), 3, device=device)
        output = model(normalise(images.to(device), ones), need_attention=True)
        assert output.attention is not None
        assert output.mesh_joints is not None
        weights_BJT = output.attention[-1][-1].mean(1)[:, :joints].double().cpu().numpy()
        total += weights_BJT.sum(0)
        wanted = max(0, config.examples - count)
        if wanted:
            tensors = (output.vertices[-1], output.camera, output.mesh_joints)
            kept.append(tuple(a[:wanted] for a in (weights_BJT, images.numpy(), *(t.cpu().numpy() for t in tensors))))
        count += len(images)
        if count >= config.samples:
            break
    if not kept:
        raise MetroError("attention: give attention.samples and attention.examples of at least 1")
    examples, crops, vertices, cameras, mesh_joints = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return Attention(names, total / count, examples, crops, vertices, cameras, mesh_joints, count)


def part_attention(attention: Attention, body: BodyData, levels: Sequence[Level]) -> np.ndarray:
    """(J, P): attention of each joint query to a vertex of each body part, in multiples of an even spread over tokens.

    A vertex belongs to the bone with its largest skin weight; parts without a coarse vertex are nan.
    """
    coarse = functools.reduce(lambda rows, level: rows[level.indices], levels, np.arange(body.num_vertices))
    part_V = body.weights[coarse].argmax(1)
    even = 1 / attention.mean_JT.shape[1]
    nothing = np.full(len(attention.joint_names), np.nan)
    means = [
        attention.joint_vertex[:, part_V == p].mean(1) if (part_V == p).any() else nothing
        for p in range(body.num_joints)
    ]
    return np.stack(means, 1) / even


def on_full_mesh(weights_V: np.ndarray, levels: Sequence[Level]) -> np.ndarray:
    """Weights of coarse vertices spread smoothly over the full mesh (F,)."""
    return functools.reduce(lambda values, level: level.up @ values, reversed(levels), weights_V)


def colours(times_uniform_F: np.ndarray) -> np.ndarray:
    """Mesh colours (F, 3): grey where attention is at most even, through orange to dark red where it is highest.

    The scale reaches at least to three times an even spread, so that a map without structure looks like one.
    """
    ramp = np.array([[0.86, 0.87, 0.89], [0.98, 0.80, 0.45], [0.93, 0.45, 0.16], [0.62, 0.07, 0.10]])
    top = max(3.0, float(np.quantile(times_uniform_F, 0.995)))
    level = np.clip((times_uniform_F - 1) / (top - 1), 0, 1) * (len(ramp) - 1)
    low = np.minimum(level.astype(int), len(ramp) - 2)
    return ramp[low] + (level - low)[:, None] * (ramp[low + 1] - ramp[low])


def write_attention(attention: Attention, body: BodyData, levels: Sequence[Level], folder: Path) -> dict[str, Any]:
    """Write matrices (``attention.npz``), a summary (``attention.json``) and figures; returns the summary.

    Figures: ``joints.png`` (joints to joints), ``parts.png`` (joints to body parts), ``mean.png`` (mean attention of
    each joint on the template), ``examples.png`` (single images).
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, parts = attention.joint_names, body.joint_names
    by_part, tokens = part_attention(attention, body, levels), attention.mean_JT.shape[1]
    np.savez_compressed(
        folder / "attention.npz",
        joint_joint=attention.joint_joint,
        joint_vertex=attention.joint_vertex,
        joint_part=by_part,
    )
    plots.heatmap(
        tokens * attention.joint_joint, names, names, folder / "joints.png",
        title="Attention of joint queries (rows) to joints", label="× an even spread over all tokens", reach=2,
    )  # fmt: skip
    plots.heatmap(
        by_part, names, parts, folder / "parts.png",
        title="Attention of joint queries (rows) to the vertices of body parts",
        label="× an even spread over all tokens", reach=2,
    )  # fmt: skip
    overlay.save_image(_mean_sheet(attention, body, levels), folder / "mean.png")
    overlay.save_image(_example_sheet(attention, body, levels), folder / "examples.png")
    summary = {
        "images": attention.count,
        "tokens": tokens,
        "share_on_joints": round(float(attention.joint_joint.sum(1).mean()), 4),
        "share_on_joints_if_uniform": round(len(names) / tokens, 4),
        "queries": [
            {
                "joint": name,
                "on_joints": round(float(attention.joint_joint[j].sum()), 4),
                "effective_tokens": round(float(np.exp(_entropy(attention.mean_JT[j]))), 1),
                "top_joints": _top(tokens * attention.joint_joint[j], names),
                "top_parts": _top(by_part[j], parts),
            }
            for j, name in enumerate(names)
        ],
    }
    (folder / "attention.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _mean_sheet(attention: Attention, body: BodyData, levels: Sequence[Level]) -> overlay.Image:
    upright = body.v_template * np.array([1, -1, -1])
    tiles = []
    for weights in attention.joint_vertex:
        tint = colours(on_full_mesh(attention.mean_JT.shape[1] * weights, levels))
        tiles.append(overlay.view(upright, body.faces, 200, colour=tint))
    return overlay.grid(tiles, 7, labels=list(attention.joint_names))


def _example_sheet(attention: Attention, body: BodyData, levels: Sequence[Level]) -> overlay.Image:
    joint_set = "HAND21" if len(attention.joint_names) == 21 else "J14"
    tiles, labels = [], []
    for b, picture in enumerate(attention.images):
        picture = overlay.resize(picture, 200)
        camera = attention.cameras_B3[b]
        points = overlay.project(attention.joints_BJ3[b], camera, 200)
        tiles.append(overlay.skeleton(picture, points, joint_set))
        labels.append("predicted joints")
        for name in QUERIES[joint_set]:
            j = attention.joint_names.index(name)
            weights = attention.examples_BJT[b, j, len(attention.joint_names) :]
            tint = colours(on_full_mesh(attention.mean_JT.shape[1] * weights, levels))
            faded = overlay.blend(picture, np.full_like(picture, 255), 0.55)
            drawn = overlay.mesh_overlay(faded, attention.vertices_BF3[b], body.faces, camera, colour=tint, alpha=1.0)
            tiles.append(_ring(drawn, points[j]))
            labels.append(f"query {name}")
    return overlay.grid(tiles, 1 + len(QUERIES[joint_set]), labels=labels)


def _ring(image: overlay.Image, point: np.ndarray) -> overlay.Image:
    import cv2

    canvas, centre = image.copy(), (round(16 * float(point[0])), round(16 * float(point[1])))
    for colour, width in ((overlay.PAPER, 4), (overlay.LEFT, 2)):
        cv2.circle(canvas, centre, 16 * 7, colour, width, cv2.LINE_AA, 4)
    return canvas


def _top(times_uniform: np.ndarray, names: Sequence[str], count: int = 3) -> dict[str, float]:
    order = np.argsort(-np.nan_to_num(times_uniform), kind="stable")[:count]
    return {names[k]: round(float(times_uniform[k]), 2) for k in order}


def _entropy(weights: np.ndarray) -> float:
    known = weights[weights > 0]
    return float(-(known * np.log(known)).sum())
