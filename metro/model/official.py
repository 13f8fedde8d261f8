"""Official METRO checkpoints: state dicts of `microsoft/MeshTransformer` to this project's network and back.

Every official key is either consumed or known to be dead (no forward pass reads it: BERT's own embeddings, its pooler,
HRNet's classifier; 19 % of a body checkpoint). Anything else is refused. On export dead tensors are made up again, so
that the official code loads the result with ``strict=True``.

=====================================  ====================================================
official                               here
=====================================  ====================================================
conv_learn_tokens (T, P, 1)            mix (T, P)
trans_encoder.I.bert.img_embedding     blocks.I.embed
trans_encoder.I.bert.position_…        blocks.I.position_TD, without the unused rows (T to 512)
trans_encoder.I.bert.encoder.layer.L   blocks.I.layers.L, query, key and value as one matrix
trans_encoder.I.cls_head, .residual    blocks.I.head, .skip
cam_param_fc, fc2, fc3                 camera.flatten, .hidden, .out
upsampling, upsampling2                upsampling.0, .1
backbone.N (ResNet), backbone.NAME     backbone.NAME, backbone.net.NAME
=====================================  ====================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from metro.body.figure import FIGURES
from metro.body.joints import JOINT_SETS
from metro.config import BlockConfig, ModelConfig
from metro.errors import MetroError
from metro.mesh.sampling import Level
from metro.model.backbones import HRNETS, RESNETS
from metro.model.metro import Metro

POSITIONS, WORDS, TOKEN_TYPES, CLASSES = 512, 30522, 2, 1000  # sizes of tables in official files
RESNET_LAYERS = {(2, 2, 2, 2): "resnet18", (3, 4, 6, 3): "resnet34"}  # of two-convolution blocks; resnet50 has three
RESNET_CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")

DEAD = re.compile(
    r"trans_encoder\.\d+\.bert\.(embeddings|pooler)\.|backbone\.classifier\.(weight|bias)$|backbone\.fc\.(weight|bias)$"
)
# Ours → official, in this order; the remaining part of a name is equal on both sides.
RENAMES = (
    (r"^mix\.", "conv_learn_tokens."),
    (r"^camera\.flatten\.", "cam_param_fc."),
    (r"^camera\.hidden\.", "cam_param_fc2."),
    (r"^camera\.out\.", "cam_param_fc3."),
    (r"^upsampling\.0\.", "upsampling."),
    (r"^upsampling\.1\.", "upsampling2."),
    (r"^backbone\.net\.", "backbone."),
    (r"^blocks\.(\d+)\.layers\.(\d+)\.", r"trans_encoder.\1.bert.encoder.layer.\2."),
    (r"^blocks\.(\d+)\.embed\.", r"trans_encoder.\1.bert.img_embedding."),
    (r"^blocks\.(\d+)\.position_TD$", r"trans_encoder.\1.bert.position_embeddings.weight"),
    (r"^blocks\.(\d+)\.head\.", r"trans_encoder.\1.cls_head."),
    (r"^blocks\.(\d+)\.skip\.", r"trans_encoder.\1.residual."),
    (r"\.attention_out\.", ".attention.output.dense."),
    (r"\.attention_norm\.", ".attention.output.LayerNorm."),
    (r"\.expand\.", ".intermediate.dense."),
    (r"\.contract\.", ".output.dense."),
    (r"\.ffn_norm\.", ".output.LayerNorm."),
)


@dataclass(frozen=True)
class Description:
    """What an official state dict holds, read from its shapes."""

    config: ModelConfig
    """The network it belongs to."""
    sizes: tuple[int, ...]
    """Vertices of the mesh levels, coarse to full."""
    parameters: int
    """Learned numbers in the file (without BatchNorm statistics)."""
    used: int
    """Those that a forward pass reads."""


def is_official(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is in the official layout."""
    return "trans_encoder.0.bert.img_embedding.weight" in state


def describe(state: Mapping[str, Tensor], heads: int = 4) -> Description:
    """Tell the network of an official state dict from its shapes; `heads` is the one thing they do not show.

    Raises
    ------
    MetroError
        It is not an official METRO state dict, or has an unsupported backbone.
    """
    if not is_official(state):
        raise MetroError(
            "official checkpoint: no METRO state dict (trans_encoder.0.bert.img_embedding.weight is missing)"
        )
    try:
        return _describe(state, heads)
    except KeyError as err:
        raise MetroError(f"official checkpoint: {err.args[0]} is missing") from None
    except (ValueError, IndexError) as err:  # shapes of another rank, numbers that make no network
        raise MetroError(f"official checkpoint: {' '.join(str(err).split())[:200]}; the file is damaged") from None


def _describe(state: Mapping[str, Tensor], heads: int) -> Description:
    blocks: list[BlockConfig] = []
    while (prefix := f"trans_encoder.{len(blocks)}.") + "cls_head.weight" in state:
        layer = f"{prefix}bert.encoder.layer."
        layers = len({key[len(layer) :].split(".")[0] for key in state if key.startswith(layer)})
        out, width = state[f"{prefix}cls_head.weight"].shape
        ffn = len(state[f"{layer}0.intermediate.dense.weight"])
        blocks.append(BlockConfig(width=width, out=out, layers=layers, heads=heads, ffn=ffn))
    sizes = [state["upsampling.weight"].shape[1], len(state["upsampling.weight"])]
    if "upsampling2.weight" in state:
        sizes.append(len(state["upsampling2.weight"]))
    camera_width, seen = state["cam_param_fc2.weight"].shape
    grid = "conv_learn_tokens.weight" in state
    tokens, cells = state["conv_learn_tokens.weight"].shape[:2] if grid else (seen, 49)
    joint_sets = {len(JOINT_SETS[name]): name for name in FIGURES}
    if tokens - sizes[0] not in joint_sets:
        known = " or ".join(map(str, joint_sets))
        raise MetroError(f"official checkpoint: {tokens} tokens for {sizes[0]} vertices leave no {known} joints")
    config = ModelConfig.model_validate(
        {
            "joint_set": joint_sets[tokens - sizes[0]],
            "image_size": 32 * round(cells**0.5),
            "backbone": _backbone_name(state),
            "token_source": "grid" if grid else "pooled",
            "blocks": blocks,
            "camera_from": "all" if seen == tokens else "vertices",
            "camera_width": camera_width,
        }
    )
    learned = {key: value.numel() for key, value in state.items() if not re.search(r"running_|num_batches", key)}
    dead = sum(count for key, count in learned.items() if DEAD.match(key))
    unused_rows = sum((POSITIONS - tokens) * block.width for block in blocks)
    total = sum(learned.values())
    return Description(config, tuple(sizes), total, total - dead - unused_rows)


def _backbone_name(state: Mapping[str, Tensor]) -> str:
    if "backbone.stage4.0.branches.0.0.conv1.weight" in state:
        return f"hrnet_w{len(state['backbone.stage4.0.branches.0.0.conv1.weight'])}"
    counts = tuple(len({key.split(".")[2] for key in state if key.startswith(f"backbone.{i}.")}) for i in (4, 5, 6, 7))
    if "backbone.4.0.conv3.weight" in state and counts == (3, 4, 6, 3):
        return "resnet50"
    if "backbone.4.0.conv3.weight" not in state and counts in RESNET_LAYERS:
        return RESNET_LAYERS[counts]
    raise MetroError("official checkpoint: the backbone is neither HRNet nor ResNet-18, -34 or -50")


def convert(state: Mapping[str, Tensor], heads: int = 4) -> tuple[ModelConfig, dict[str, Tensor]]:
    """An official state dict as this project's model section and state dict.

    Raises
    ------
    MetroError
        Keys are missing, unknown or of the wrong shape; the message names the first few.
    """
    description = describe(state, heads)
    own = _skeleton(description).state_dict()
    problems, converted, consumed = [], {}, set()
    for name, value in own.items():
        keys = official_keys(name)
        shape = _official_shape(name, value)
        consumed.update(keys)
        for key in keys:
            if key not in state:
                problems.append(f"{key} is missing")
            elif tuple(state[key].shape) != shape:
                problems.append(f"{key} is {_times(state[key].shape)}, not {_times(shape)}")
            elif state[key].is_floating_point() != value.is_floating_point():
                problems.append(f"{key} holds {state[key].dtype}, not {value.dtype}")
        if not problems:
            joined = torch.cat([state[key] for key in keys]) if len(keys) > 1 else state[keys[0]]
            # position table: rows beyond T are never read; Conv1d of kernel 1: a trailing axis more
            converted[name] = (
                joined[: len(value)] if name.endswith("position_TD") else joined.view(value.shape)
            ).clone()
    problems += [f"{key} is unknown" for key in state if key not in consumed and not DEAD.match(key)]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise MetroError(f"official checkpoint: {'; '.join(problems[:3])}{more}; the file is damaged or not METRO's")
    return description.config, converted


def from_official(state: Mapping[str, Tensor], template_tokens: Tensor | np.ndarray, heads: int = 4) -> Metro:
    """Network with the weights of an official state dict, in evaluation mode.

    Parameters
    ----------
    state
        Official names and shapes: body or hand, HRNet or ResNet.
    template_tokens
        (T, 3), see `metro.model.metro.template_tokens`; the file does not hold them.
    heads
        Attention heads.

    Raises
    ------
    MetroError
        See `convert`; or the template does not fit.
    """
    _, converted = convert(state, heads)
    template_T3 = torch.as_tensor(template_tokens, dtype=torch.float32)
    model = _skeleton(describe(state, heads), template_T3)
    model.load_state_dict(converted, assign=True)
    model.template_T3 = template_T3
    return model.eval()


def to_official(model: Metro) -> dict[str, Tensor]:
    """State dict that the official code loads strictly; what it holds but never reads is zero (LayerNorm weights: one).

    Raises
    ------
    MetroError
        The network has no official form (another backbone, a neck, fixed upsampling, no joint queries).
    """
    config = model.config
    if config.neck:
        raise MetroError("official layout: model.neck has no official form")
    if config.queries != "both" or config.cells or config.positions != "template":
        raise MetroError(
            f"official layout: model.queries is {config.queries}, model.cells {config.cells or 'none'} and "
            f"model.positions {config.positions}, but only both, none and template have an official form"
        )
    if config.upsampling != "learned" or config.backbone not in (*RESNETS, *HRNETS):
        raise MetroError(
            f"official layout: model.upsampling is {config.upsampling} and model.backbone {config.backbone}, but only "
            "learned upsampling with a ResNet or HRNet has an official form"
        )
    official: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu()
        keys = official_keys(name)
        if name.endswith("position_TD"):
            value = torch.cat([value, value.new_zeros(POSITIONS - len(value), value.shape[1])])
        elif name == "mix.weight":
            value = value[..., None]
        official.update(zip(keys, value.chunk(len(keys)) if len(keys) > 1 else [value], strict=True))
    for key, shape in _dead_shapes(config).items():
        official[key] = torch.ones(shape) if key.endswith("LayerNorm.weight") else torch.zeros(shape)
    return official


def official_keys(name: str) -> list[str]:
    """Official key of one of our parameters, or the three that our joined one stands for."""
    child = name.split(".")[1] if name.startswith("backbone.") else ""
    if child in RESNET_CHILDREN:
        return [name.replace(f"backbone.{child}.", f"backbone.{RESNET_CHILDREN.index(child)}.", 1)]
    for ours, theirs in RENAMES:
        name = re.sub(ours, theirs, name)
    if ".qkv." in name:
        return [name.replace(".qkv.", f".attention.self.{part}.") for part in ("query", "key", "value")]
    return [name]


def _official_shape(name: str, value: Tensor) -> tuple[int, ...]:
    shape = tuple(value.shape)
    if name.endswith("position_TD"):
        return POSITIONS, shape[1]
    if name == "mix.weight":
        return *shape, 1
    return (shape[0] // 3, *shape[1:]) if ".qkv." in name else shape


def _dead_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i, block in enumerate(config.blocks):
        prefix, width = f"trans_encoder.{i}.bert.", block.width
        shapes |= {
            f"{prefix}embeddings.word_embeddings.weight": (WORDS, width),
            f"{prefix}embeddings.position_embeddings.weight": (POSITIONS, width),
            f"{prefix}embeddings.token_type_embeddings.weight": (TOKEN_TYPES, width),
            f"{prefix}embeddings.LayerNorm.weight": (width,),
            f"{prefix}embeddings.LayerNorm.bias": (width,),
            f"{prefix}pooler.dense.weight": (width, width),
            f"{prefix}pooler.dense.bias": (width,),
        }
    if config.backbone.startswith("hrnet"):
        shapes |= {"backbone.classifier.weight": (CLASSES, 2048), "backbone.classifier.bias": (CLASSES,)}
    return shapes


def _skeleton(description: Description, template_T3: Tensor | None = None) -> Metro:
    """The network with all parameters on the meta device: names and shapes only, nothing initialised."""
    levels = [  # learned upsampling takes only the sizes
        Level(np.arange(coarse), sparse.csr_matrix((fine, coarse)), np.empty((0, 3), np.int32))
        for coarse, fine in pairwise(description.sizes)
    ][::-1]
    if template_T3 is None:
        joints = len(JOINT_SETS[description.config.joint_set])
        template_T3 = torch.empty(joints + description.sizes[0], 3)
    with torch.device("meta"):
        return Metro(description.config, template_T3, levels)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
