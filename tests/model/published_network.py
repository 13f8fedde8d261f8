"""METRO's forward pass written down from its description, layer by layer, on a state dict in the official layout.

No modules, no fusion, float64, tokens built in full: slow and obvious. The image feature map is an argument.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

State = dict[str, Tensor]


def forward(state: State, feature: Tensor, template_T3: Tensor, heads: int, masked: Tensor | None = None) -> dict:
    """`feature` is (B, C, h, w) for bodies and (B, C) for hands; `masked` (B, T) is true where a token is hidden."""
    state = {k: v.double() for k, v in state.items()}
    if "conv_learn_tokens.weight" in state:
        cells = feature.double().flatten(2).transpose(1, 2)
        weight, bias = state["conv_learn_tokens.weight"], state["conv_learn_tokens.bias"]
        image = torch.nn.functional.conv1d(cells, weight, bias)
    else:
        image = feature.double()[:, None].expand(-1, len(template_T3), -1)
    tokens = torch.cat([template_T3.double().expand(len(image), -1, -1), image], 2)
    if masked is not None:
        keep = 1.0 - masked.double()[..., None]
        tokens = tokens * keep + 0.01 * (1.0 - keep)

    block = 0
    while f"trans_encoder.{block}.cls_head.weight" in state:
        tokens = encoder(state, f"trans_encoder.{block}.", tokens, heads)
        block += 1

    if "conv_learn_tokens.weight" in state:
        joints, coarse = tokens[:, :14], tokens[:, 14:]
        seen = coarse
    else:
        joints, coarse = tokens[:, :21], tokens[:, 21:]
        seen = tokens
    x = linear(state, "cam_param_fc", seen).transpose(1, 2)
    camera = linear(state, "cam_param_fc3", linear(state, "cam_param_fc2", x))[:, 0]
    meshes = [coarse]
    for name in ("upsampling", "upsampling2"):
        if f"{name}.weight" in state:
            meshes.append(linear(state, name, meshes[-1].transpose(1, 2)).transpose(1, 2))
    return {"camera": camera, "joints": joints, "vertices": meshes}


def encoder(state: State, prefix: str, x: Tensor, heads: int) -> Tensor:
    h = linear(state, f"{prefix}bert.img_embedding", x)
    h = h + state[f"{prefix}bert.position_embeddings.weight"][: x.shape[1]]
    layer = 0
    while f"{prefix}bert.encoder.layer.{layer}.output.dense.weight" in state:
        h = bert_layer(state, f"{prefix}bert.encoder.layer.{layer}.", h, heads)
        layer += 1
    return linear(state, f"{prefix}cls_head", h) + linear(state, f"{prefix}residual", x)


def bert_layer(state: State, prefix: str, x: Tensor, heads: int) -> Tensor:
    outputs = []
    width = x.shape[-1] // heads
    q, k, v = (linear(state, f"{prefix}attention.self.{name}", x) for name in ("query", "key", "value"))
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width)
        outputs.append(torch.softmax(scores, -1) @ v[..., part])
    x = norm(
        state, f"{prefix}attention.output", linear(state, f"{prefix}attention.output.dense", torch.cat(outputs, -1)) + x
    )
    h = linear(state, f"{prefix}intermediate.dense", x)
    h = h * 0.5 * (1.0 + torch.erf(h / math.sqrt(2.0)))
    return norm(state, f"{prefix}output", linear(state, f"{prefix}output.dense", h) + x)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-12)
    return scaled * state[f"{name}.LayerNorm.weight"] + state[f"{name}.LayerNorm.bias"]
