"""Image backbones: one image to a feature map.

`resnet18/34/50` come from torchvision, `hrnet_w18 … hrnet_w64` from timm with the classification head's 2048-channel
map (what METRO uses; timm names its parameters as the HRNet authors do), and `timm/NAME` is the last feature map of any
timm model, `timm/NAME@16` the one of stride 16.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from metro.errors import MetroError

RESNETS = ("resnet18", "resnet34", "resnet50")
HRNETS = tuple(f"hrnet_w{width}" for width in (18, 30, 32, 40, 44, 48, 64))


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


def build_backbone(name: str, weights: str = "none", image_size: int = 224) -> tuple[nn.Module, int, tuple[int, int]]:
    """Backbone, its channels C and the size (h, w) of its map.

    Parameters
    ----------
    name
        `resnet50`, `hrnet_w64`, `timm/resnet10t`, `timm/resnet10t@16`, …
    weights
        `none`, `imagenet` (downloaded) or the path of a classifier's state dict.
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
        _load(backbone, Path(weights), name)
    # Shapes alone: parameters and image stay on the meta device, so that nothing is computed.
    backbone.eval()
    state = {key: torch.empty_like(value, device="meta") for key, value in backbone.state_dict().items()}
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    _, channels, height, width = torch.func.functional_call(backbone, state, (image,)).shape
    return backbone.train(), channels, (height, width)


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """Read a flat dict of tensors: safetensors, or any era of `torch.save`, without running code from the file.

    Raises
    ------
    MetroError
        Missing, unreadable, or more than tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise MetroError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise MetroError(f"{path}: a folder; give the state dict file in it") from None
    except pickle.UnpicklingError:
        raise MetroError(
            f"{path}: holds more than tensors (a whole pickled model?); save its state_dict() instead"
        ) from None
    except Exception as err:  # zip, pickle and safetensors readers each raise their own
        raise MetroError(f"{path}: not a readable state dict ({' '.join(str(err).split())[:120]})") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MetroError(f"{path}: holds no flat dict of tensors; save the model's state_dict()")
    return dict(state)


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
    """Load a classifier's state dict; its classifier is left out, anything else must fit exactly."""
    net = backbone.get_submodule("" if isinstance(backbone, nn.Sequential) else "net")
    heads = ("fc.", "classifier.", "head.")
    state = {key: value for key, value in load_tensors(path).items() if not key.startswith(heads)}
    try:
        net.load_state_dict(state)
    except RuntimeError as err:
        raise MetroError(f"{path}: these weights do not fit {name}: {_line(err)}") from None


def _line(err: Exception) -> str:
    return " ".join(str(err).split()).split(". ")[0][:200]
