"""What the queries look at: attention over joints and mesh vertices.

Maps are the explicit softmax of each head of each layer of each block; figures show their mean over the heads of a
layer (section 4.4 of the paper). The paper shows the last layer of the last block; where that one spreads its attention
evenly over all tokens, as small networks may, the layer with the most structure is shown beside it. The first J tokens
are joints and the rest vertices, told apart by the model itself. (The official visualiser always drops 14 tokens, which
shifts the map of a hand, with its 21 joints, by 7 vertices.)

Means and variances over people are gathered as they come: memory does not grow with their number. The maps take
16 (H + L) J T bytes, 1.3 MB for the shipped network and 6 MB for the paper's, beside what one picture needs in the
network. People pass the network one by one, since sums in float32 depend on how many go together.

What raw attention does not prove. A weight says how much of a token's value is mixed in, not what the value holds
(after the first layer it holds a bit of every token), nor what the prediction would be without it: residuals pass
attention by, and the skips pass whole blocks by. Most of a map is the same for everybody (`same_for_all`), hence no
answer to the picture. Intervals are over people, for one trained network; another seed gives another one. Attention
rollout (Abnar and Zuidema 2020) is left out. The plain sum of the raw maps explains 80 % of its variance over tokens
and 84 % over parts (``benchmarks/attention.md``), and the rest are products that take each layer to pass on half of
what comes in, while METRO's blocks also embed anew and have linear skips.

Shape suffixes: H head (of all layers), L layer, B image, J joint token, V coarse vertex, T token (J, then V), P part.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from metro.body.arrays import BodyData
from metro.body.figure import FIGURES, HAND
from metro.body.joints import names_of
from metro.config import AttentionConfig
from metro.data.augment import normalise
from metro.data.loader import EvalPass
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.evaluation.hardness import Hidden, folding
from metro.evaluation.moments import Moments
from metro.mesh.sampling import Level
from metro.model.metro import Metro
from metro.viz import overlay, plots
from metro.viz.attention import Figure, coarse_rows, colours, on_full_mesh

SHARPER = 0.99
"""A layer is shown beside the last one if its effective number of tokens is below this share of the last one's."""
BONES = {
    "head": ("neck", "head", "jaw", "eye"),
    "trunk": ("pelvis", "spine", "collar"),
    "upper arm": ("shoulder",),
    "lower arm": ("elbow",),
    "hand": ("wrist", "hand", "thumb", "index", "middle", "ring", "pinky"),
    "upper leg": ("hip",),
    "lower leg": ("knee",),
    "foot": ("ankle", "foot"),
}
"""Parts of a body, and the joints whose bones they are of: that of an elbow reaches to the wrist."""
CLAIMED = ("lower arm", "lower leg")
"""Parts that the paper found to be attended to the most."""
KINDS = ("hidden", "folded", "plain")
"""Whom examples show in turn: the most hidden, the most folded, the first ones."""
TILE = 200
"""Side of a tile of the sheets, pixels."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Body parts, or bones of a hand, as sets of coarse vertices; each vertex belongs to the bone of its largest skin
    weight."""

    names: tuple[str, ...]
    joints: int
    """J."""
    of_PV: np.ndarray
    """Whether a vertex belongs to a part; every part has one."""

    def times_even(self, weights: np.ndarray) -> np.ndarray:
        """(…, P): attention (…, T) to a vertex of each part, in multiples of an even spread over tokens."""
        own_PV = self.of_PV / self.of_PV.sum(1, keepdims=True)
        return weights.shape[-1] * weights[..., self.joints :] @ own_PV.T

    @cached_property
    def claimed_V(self) -> np.ndarray:
        """Whether a vertex is of a lower arm or lower leg."""
        rows = [any(name.endswith(part) for part in CLAIMED) for name in self.names]
        return np.asarray(self.of_PV[rows].any(0))


def parts_of(body: BodyData, levels: Sequence[Level]) -> Parts:
    """The parts of a body; those without a coarse vertex are left out."""
    joints = len(names_of(body.figure.joint_set))
    bone_V = body.weights[coarse_rows(levels, body.num_vertices)].argmax(1)
    part_V = np.array([_part(name) for name in body.joint_names])[bone_V]
    kept = {name: part_V == name for name in dict.fromkeys(map(_part, body.joint_names)) if name in part_V}
    return Parts(tuple(kept), joints, np.stack([*kept.values()]))


class Seen(NamedTuple):
    """What a network predicts of one picture, and where its joint queries look."""

    weights_HJT: np.ndarray
    """Share of each joint's attention that goes to each token, by head; float64, rows sum to 1."""
    effective_H: np.ndarray
    """Effective number of tokens, exp of the entropy, mean over joints. An even spread has T."""
    vertices_F3: np.ndarray
    joints_J3: np.ndarray
    camera_3: np.ndarray


@torch.inference_mode()
def look(model: Metro, image_SS3: torch.Tensor) -> Seen:
    """Attention of a network, in evaluation mode, over one picture (uint8 RGB), on the network's device.

    Raises
    ------
    MetroError
        The network has no joint queries.
    """
    if not model.num_joints:
        raise MetroError(
            "attention: the network has no joint queries to look from (model.queries: vertices); take one that has both"
        )
    device, joints = model.template_T3.device, model.num_joints
    output = model(normalise(image_SS3[None].to(device), torch.ones(1, 3, device=device)), need_attention=True)
    assert output.attention is not None
    assert output.mesh_joints is not None
    maps = [head[:joints].double() for block in output.attention for layer in block for head in layer[0]]
    weights_HJT = torch.stack(maps)
    effective_H = torch.special.entr(weights_HJT).sum(-1).exp().mean(-1)
    rest = (output.vertices[-1], output.mesh_joints, output.camera)
    return Seen(*(t.cpu().numpy() for t in (weights_HJT, effective_H, *(t[0].float() for t in rest))))


def heads_of(model: Metro) -> tuple[tuple[int, int, int], ...]:
    """Block, layer and head, counted from 1, of each H."""
    return tuple(
        (b, k, n)
        for b, block in enumerate(model.config.blocks, 1)
        for k in range(1, block.layers + 1)
        for n in range(1, block.heads + 1)
    )


@dataclass(frozen=True, eq=False)
class Example:
    """A picture that is drawn."""

    index: int
    """Position in the dataset."""
    hidden: float
    """Share of the limb joints that cannot be seen (`metro.evaluation.hardness`); nan: not known."""
    folding: float
    """Mean bend of the joints, degrees; nan: not known."""
    kind: str
    """One of `KINDS`."""
    image: np.ndarray
    seen: Seen


@dataclass(eq=False)
class Attention:
    """Attention of joint queries over a set of images, in every head and layer. Moments are over images."""

    joint_set: str
    heads: tuple[tuple[int, int, int], ...]
    """Block, layer and head, counted from 1, of each H."""
    parts: Parts
    tokens: int
    """T."""
    by_head: Moments = field(init=False)
    """(H, J, T): share of each joint's attention that goes to each token."""
    by_layer: Moments = field(init=False)
    """(L, J, T): the same, mean over heads."""
    by_part: Moments = field(init=False)
    """(L, J, P): attention to a vertex of a part, in multiples of an even spread; mean over heads."""
    overall: Moments = field(init=False)
    """(L, P): the same, mean over joints."""
    claim: Moments = field(init=False)
    """(L, 3): attention to the vertices of lower arms and legs, to all others (× even), and the difference."""
    effective: Moments = field(init=False)
    """(H,): effective number of tokens."""
    examples: list[Example] = field(default_factory=list)

    def __post_init__(self) -> None:
        joints, layers, parts = len(self.joint_names), len(self.layers), len(self.parts.names)
        self.by_head = Moments((len(self.heads), joints, self.tokens))
        self.by_layer = Moments((layers, joints, self.tokens))
        self.by_part = Moments((layers, joints, parts))
        self.overall, self.claim = Moments((layers, parts)), Moments((layers, 3))
        self.effective = Moments((len(self.heads),))

    def add(self, seen: Sequence[Seen]) -> None:
        """Take what was seen in some images."""
        weights_BHJT = np.stack([one.weights_HJT for one in seen])
        weights_BLJT = np.stack([self.mean_heads(one.weights_HJT) for one in seen])
        parts_BLJP = self.parts.times_even(weights_BLJT)
        self.by_head.add(weights_BHJT)
        self.by_layer.add(weights_BLJT)
        self.by_part.add(parts_BLJP)
        self.overall.add(parts_BLJP.mean(2))
        self.effective.add(np.stack([one.effective_H for one in seen]))
        if self.parts.claimed_V.any():
            times_BLV = self.tokens * weights_BLJT[..., len(self.joint_names) :].mean(2)
            claimed_BL = times_BLV[..., self.parts.claimed_V].mean(-1)
            others_BL = times_BLV[..., ~self.parts.claimed_V].mean(-1)
            self.claim.add(np.stack((claimed_BL, others_BL, claimed_BL - others_BL), -1))

    @property
    def count(self) -> int:
        """Images taken."""
        return self.by_head.count

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the J joints."""
        return names_of(self.joint_set)

    @cached_property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Block and layer, counted from 1, of each L."""
        return tuple(dict.fromkeys((block, layer) for block, layer, _ in self.heads))

    def mean_heads(self, values_H: np.ndarray) -> np.ndarray:
        """(L, …): mean over the heads of each layer of values (H, …)."""
        own = [[h[:2] == layer for h in self.heads] for layer in self.layers]
        return np.stack([values_H[rows].mean(0) for rows in own])

    @property
    def effective_L(self) -> np.ndarray:
        """Effective number of tokens, mean over images, heads and queries."""
        return self.mean_heads(self.effective.mean)

    @property
    def sharpest(self) -> int:
        """Position of the layer with the most structure."""
        return int(self.effective_L.argmin())

    def same_for_all(self, layer: int) -> float:
        """Share of what tells the weights of a map apart that is the same for everybody, from 0 to 1.

        Variance over tokens of the mean map, over that and the mean variance over images.
        """
        fixed = float(self.by_layer.mean[layer].var(1).mean())
        own = float(self.by_layer.variance[layer].mean())
        return fixed / (fixed + own) if fixed + own > 0 else float("nan")

    def to_joints(self, layer: int = -1) -> np.ndarray:
        """(J, J): attention from joints (rows) to joints."""
        return self.by_layer.mean[layer, :, : len(self.joint_names)]

    def to_vertices(self, layer: int = -1) -> np.ndarray:
        """(J, V): attention from joints (rows) to coarse vertices."""
        return self.by_layer.mean[layer, :, len(self.joint_names) :]


def measure_attention(
    model: Metro,
    dataset: ShardDataset,
    body: BodyData,
    levels: Sequence[Level],
    config: AttentionConfig | None = None,
    device: torch.device | str = "cpu",
    *,
    batch_size: int = 8,
) -> Attention:
    """Attention of a network over the first `config.samples` images of a dataset, or all of them.

    Parameters
    ----------
    body
        What the network was trained on; its skin weights tell the parts.
    levels
        The network's mesh levels, fine to coarse.
    batch_size
        Images read at a time, which does not change the result.

    Raises
    ------
    MetroError
        The dataset is empty or does not fit the model.
    """
    config = config or AttentionConfig()
    model = model.to(device).eval()
    measured = Attention(model.config.joint_set, heads_of(model), parts_of(body, levels), len(model.template_T3))
    some = dataset.first(config.samples or len(dataset))
    hidden_of = None if dataset.figure is HAND else Hidden()
    best: dict[str, list[tuple[float, _Person]]] = {kind: [] for kind in KINDS}
    for batch in EvalPass(some, model.config, batch_size):
        images = batch["image"]
        measured.add([look(model, image) for image in images])
        hidden = hidden_of(images.numpy()) if hidden_of else np.full(len(images), np.nan)
        folded = folding(batch["joints_3d"].numpy(), dataset.figure)
        people = [*map(_Person, batch["index"].tolist(), hidden.tolist(), folded.tolist())]
        for kind, scores in zip(KINDS, (hidden, folded, -batch["index"].numpy()), strict=True):
            found = [(score, one) for score, one in zip(scores.tolist(), people, strict=True) if np.isfinite(score)]
            best[kind] = sorted(best[kind] + found, key=lambda row: (-row[0], row[1].place))[: config.examples]
    for kind, person in _picked(best, min(config.examples, len(some))):
        image = next(iter(EvalPass(some.subset([person.place]), model.config, 1)))["image"][0]
        measured.examples.append(Example(*person, kind, image.numpy(), look(model, image)))
    return measured


class _Person(NamedTuple):
    place: int
    hidden: float
    folding: float


def _picked(best: dict[str, list[tuple[float, _Person]]], count: int) -> Iterator[tuple[str, _Person]]:
    """So many people, each once: the first of each kind in turn who is left, and the first of all for want of one."""
    taken: set[int] = set()
    for wanted in itertools.islice(itertools.cycle(KINDS), count):
        left = ((kind, one) for kind in (wanted, "plain") for _, one in best[kind] if one.place not in taken)
        kind, person = next(left)
        taken.add(person.place)
        yield kind, person


def verdict(attention: Attention, layer: int) -> str:
    """Whether the paper's finding, that lower arms and lower legs are attended to the most, holds in a layer.

    Empty where there are no such parts.
    """
    if not attention.claim.count:
        return ""
    block, number = attention.layers[layer]
    claimed, others, apart = attention.claim.mean[layer]
    low, high = (ends[layer, 2] for ends in attention.claim.interval)
    answer = "confirmed" if low > 0 else "refuted" if high < 0 else "undecided"
    spread = f"95 % interval {low:+.3f} to {high:+.3f}" if np.isfinite(low) else "one image gives no interval"
    order = [attention.parts.names[p] for p in np.argsort(-attention.overall.mean[layer], kind="stable")]
    ranks = [order.index(name) + 1 for name in order if name.endswith(CLAIMED)]
    return (
        f"Block {block}, layer {number}: {answer} that lower arms and lower legs are attended to more than the rest. "
        f"Their vertices get {claimed:.3f} times an even share, all others {others:.3f} (difference {apart:+.3f}, "
        f"{spread}, {attention.count} images); of {len(order)} parts they are numbers {_listed(ranks)}, and "
        f"{order[0]} is the first."
    )


def write_attention(attention: Attention, body: BodyData, levels: Sequence[Level], folder: Path) -> dict[str, Any]:
    """Write matrices (``attention.npz``), a summary (``attention.json``) and figures; returns the summary.

    ``heads.png``: heads of all layers to body parts. Figures of the last layer: ``joints.png`` (joints to joints),
    ``parts.png`` (joints to body parts), ``mean.png`` (mean attention of each joint on the template), ``examples.png``
    (single images: lines over the picture, colour on the mesh). If another layer has more structure, its figures are
    ``sharpest_joints.png`` and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, sharpest = len(attention.layers) - 1, attention.sharpest
    joints = len(attention.joint_names)
    np.savez(
        folder / "attention.npz",
        layers=np.array(attention.layers),
        heads=np.array(attention.heads),
        parts=np.array(attention.parts.names),
        joint_joint=attention.by_layer.mean[:, :, :joints],
        joint_vertex=attention.by_layer.mean[:, :, joints:],
        joint_token_sd=np.sqrt(attention.by_layer.variance),
        joint_part=attention.by_part.mean,
        joint_part_ci95=np.stack(attention.by_part.interval),
        head_joint_token=attention.by_head.mean,
        head_joint_token_sd=np.sqrt(attention.by_head.variance),
    )
    plots.heatmap(
        attention.parts.times_even(attention.by_head.mean).mean(1),
        [f"block {block}, layer {layer}, head {head}" for block, layer, head in attention.heads],
        attention.parts.names,
        folder / "heads.png",
        title="Attention of all joint queries to the vertices of body parts, by head",
        label="× an even spread over all tokens",
        reach=1.5,
    )
    shown = {"last": _write_layer(attention, body, levels, last, folder, "")}
    if attention.effective_L[sharpest] < SHARPER * attention.effective_L[last]:
        shown["sharpest"] = _write_layer(attention, body, levels, sharpest, folder, "sharpest_")
    summary = {
        "images": attention.count,
        "tokens": attention.tokens,
        "layers": [
            {
                "block": block,
                "layer": layer,
                "effective_tokens": round(float(attention.effective_L[k]), 1),
                "same_for_all": _rounded(attention.same_for_all(k)),
                "lower_limbs": verdict(attention, k),
            }
            for k, (block, layer) in enumerate(attention.layers)
        ],
        "heads": [
            {
                "block": block,
                "layer": layer,
                "head": head,
                "effective_tokens": round(float(attention.effective.mean[h]), 1),
                "share_on_joints": round(float(attention.by_head.mean[h, :, :joints].sum(1).mean()), 4),
                "top_parts": _top(attention.parts.times_even(attention.by_head.mean[h]).mean(0), attention.parts.names),
            }
            for h, (block, layer, head) in enumerate(attention.heads)
        ],
        "examples": [
            {"index": e.index, "kind": e.kind, "hidden": _rounded(e.hidden), "folding_deg": _rounded(e.folding, 1)}
            for e in attention.examples
        ],
        **shown,
    }
    (folder / "attention.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _write_layer(
    attention: Attention, body: BodyData, levels: Sequence[Level], layer: int, folder: Path, prefix: str
) -> dict[str, Any]:
    """Figures of one layer, and its tables."""
    names, parts, tokens = attention.joint_names, attention.parts.names, attention.tokens
    by_part, to_joints = attention.by_part.mean[layer], tokens * attention.to_joints(layer)
    low, high = (ends[layer] for ends in attention.by_part.interval)
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
                "top_parts": top_parts(by_part[j], low[j], high[j], parts),
            }
            for j, name in enumerate(names)
        ],
    }


def _mean_sheet(attention: Attention, body: BodyData, levels: Sequence[Level], layer: int) -> overlay.Image:
    upright = body.v_template * np.array([1, -1, -1])
    tiles = []
    for weights in attention.to_vertices(layer):
        tint = colours(on_full_mesh(attention.tokens * weights, levels))
        tiles.append(overlay.view(upright, body.faces, TILE, colour=tint))
    return overlay.grid(tiles, 7, labels=list(attention.joint_names))


def _example_sheet(attention: Attention, body: BodyData, levels: Sequence[Level], layer: int) -> overlay.Image:
    """For each example two rows: the joints and lines of each query, the picture and the mesh coloured for each."""
    queries = FIGURES[attention.joint_set].queries
    tiles, labels = [], []
    for example in attention.examples:
        seen = example.seen
        times_JT = attention.tokens * attention.mean_heads(seen.weights_HJT)[layer]
        drawn = Figure(
            example.image, seen.vertices_F3, body.faces, seen.joints_J3, seen.camera_3, attention.joint_set, levels
        )
        rows = [attention.joint_names.index(name) for name in queries]
        tiles += [drawn.joints(TILE), *(drawn.lines(j, times_JT[j], TILE) for j in rows)]
        tiles += [overlay.resize(example.image, TILE), *(drawn.coloured(j, times_JT[j], TILE) for j in rows)]
        labels += [_told(example), *(f"query {name}" for name in queries)]
        labels += [example.kind, *("" for _ in queries)]
    return overlay.grid(tiles, 1 + len(queries), labels=labels)


def _told(example: Example) -> str:
    hidden = f"{100 * example.hidden:.0f} % hidden" if np.isfinite(example.hidden) else ""
    bent = f"bent by {example.folding:.0f}°" if np.isfinite(example.folding) else ""
    return ", ".join(filter(None, (hidden, bent))) or example.kind


def top_parts(
    times_P: np.ndarray, low_P: np.ndarray, high_P: np.ndarray, names: Sequence[str], count: int = 3
) -> list[dict[str, Any]]:
    """The most attended parts of a query, with the ends of their intervals; none where there is no interval."""
    return [
        {
            "part": names[p],
            "times_even": _rounded(times_P[p], 3),
            "ci95": [_rounded(low_P[p], 3), _rounded(high_P[p], 3)] if np.isfinite(low_P[p]) else None,
        }
        for p in np.argsort(-times_P, kind="stable")[:count]
    ]


def _top(times_even: np.ndarray, names: Sequence[str], count: int = 3) -> dict[str, float]:
    order = np.argsort(-times_even, kind="stable")[:count]
    return {names[k]: round(float(times_even[k]), 2) for k in order}


def _part(bone: str) -> str:
    """The part of a body that a bone is of, its own name for other bones."""
    side, _, joint = bone.partition("_") if bone.startswith(("left_", "right_")) else ("", "", bone)
    found = next((part for part, bones in BONES.items() if joint.rstrip("0123456789") in bones), None)
    if found is None:
        return bone
    return f"{side} {found}" if side and found not in ("head", "trunk") else found


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _rounded(value: float, digits: int = 4) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None
