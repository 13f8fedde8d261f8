"""The landmark networks equal the files they come from, and are backbones that METRO can train with and ship."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from metro.config import BlockConfig, ModelConfig
from metro.data.augment import normalise
from metro.errors import MetroError
from metro.export import onnx as programs
from metro.export.bundle import bundle_of
from metro.model import packaged
from metro.model.backbones import LandmarkMap, build_backbone
from metro.model.blazehand import BlazeHand
from metro.model.blazepose import BlazePose
from metro.model.metro import build_model
from metro.model.tensors import load_tensors
from tests.conftest import World
from tools.blazepose.golden import run
from tools.blazepose.networks import OTHERS, SHIPPED

GOLDEN = Path(__file__).parent / "blazepose.safetensors"
"""Made by `python -m tools.blazepose WHEEL --golden tests/model/blazepose.safetensors`."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN)


def picture_of(golden: dict[str, Tensor], name: str) -> Tensor:
    """(S, S, 3) uint8 RGB."""
    image = cv2.imdecode(golden[f"{name}.picture"].numpy(), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return torch.from_numpy(image)


def check(network: nn.Module, picture_HW3: Tensor, expected: list[Tensor]) -> None:
    with torch.no_grad():
        found = network.eval()(picture_HW3.permute(2, 0, 1)[None] / 255)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.flatten() - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize(("name", "network"), [("pose_full", BlazePose()), ("hand_full", BlazeHand())])
def test_equals_what_the_file_computes(golden: dict[str, Tensor], name: str, network: nn.Module) -> None:
    network.load_state_dict(load_tensors(packaged.shipped_weights(name)))
    outputs = len(SHIPPED[name].outputs)
    check(network, picture_of(golden, name), [golden[f"{name}.{number}"] for number in range(outputs)])


@pytest.mark.parametrize("name", [*SHIPPED, *OTHERS])
def test_equals_the_file_itself(golden: dict[str, Tensor], name: str) -> None:
    """`METRO_TFLITE` names the folder that MediaPipe's wheel is unpacked in, with the files of `OTHERS` beside it."""
    folder = os.environ.get("METRO_TFLITE")
    if not folder:
        pytest.skip("METRO_TFLITE does not name a folder with MediaPipe's files")
    file, make, outputs, unused = (SHIPPED | OTHERS)[name]
    path = Path(folder, file) if name in OTHERS else Path(folder, "mediapipe", "modules", file)
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    from tools.blazepose.convert import tensors

    network, picture = make(), picture_of(golden, "hand_full" if name.startswith("hand") else "pose_full")
    network.load_state_dict(tensors(path, network, outputs, unused))
    expected = run(path, picture.numpy() / 255, outputs)
    check(network, picture, [torch.from_numpy(value.flatten()) for value in expected])


def test_the_person_is_where_the_network_says(golden: dict[str, Tensor]) -> None:
    network = BlazePose().eval()
    network.load_state_dict(load_tensors(packaged.shipped_weights("pose_full")))
    with torch.no_grad():
        found = network(picture_of(golden, "pose_full").permute(2, 0, 1)[None] / 255)
    assert found.presence_B > 0.5
    nose, ankles = found.points_BK5[0, 0, :2], found.points_BK5[0, 27:29, :2]
    assert (nose > 0).all()
    assert (ankles[:, 1] > nose[1] + 80).all()  # a standing person fills the picture
    assert found.world_BK3[0, 23:25].mean(0).norm() < 0.05  # from the middle of the hips


@pytest.mark.parametrize(
    ("name", "size", "channels", "side"), [("blazepose", 256, 1440, 8), ("blazehand", 224, 1344, 7)]
)
def test_cells_are_the_trunks_maps(golden: dict[str, Tensor], name: str, size: int, channels: int, side: int) -> None:
    """From the loader's pixels to cells: ImageNet's range undone, the map standardised, the rest in every cell."""
    backbone, *found = build_backbone(name, "shipped", size)
    assert found == [channels, (side, side)]
    picture = picture_of(golden, packaged.LANDMARK_NETWORKS[name])
    with torch.no_grad():
        cells = backbone.eval()(normalise(picture[None], torch.ones(1, 3)))[0]
        fine, *_, whole = backbone.net(picture.permute(2, 0, 1)[None] / 255)  # type: ignore[operator]
    undone = cells * backbone.sd_C[:, None, None] + backbone.mean_C[:, None, None]  # type: ignore[index]
    expected = torch.cat((fine[0], whole.flatten()[:, None, None].expand(-1, side, side)))
    torch.testing.assert_close(undone, expected, rtol=1e-3, atol=1e-3)
    assert 0.5 < cells[backbone.sd_C != 1].std() < 2  # of the channels that move


def test_cells_come_from_features() -> None:
    for name, size, numbers in (("blazepose", 256, 8 * 8 * 288 + 1152), ("timm/test_resnet", 64, None)):
        backbone, channels, (height, width) = build_backbone(name, "none", size)
        image = torch.randn(2, 3, size, size)
        with torch.no_grad():
            features = backbone.eval().features(image)
            assert torch.equal(backbone.cells(features), backbone(image))
        assert features.shape == (2, numbers or channels * height * width)


def test_gradients_reach_the_first_layer() -> None:
    backbone, *_ = build_backbone("blazepose", "shipped", 256)
    backbone(torch.randn(1, 3, 256, 256)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert next(backbone.parameters()).grad.abs().max() > 0  # type: ignore[union-attr]


def test_the_backbone_of_a_checkpoint(tmp_path: Path) -> None:
    donor, *_ = build_backbone("blazehand", "shipped", 224)
    with torch.no_grad():
        for parameter in donor.parameters():
            parameter.add_(1)  # as training does
    state = {f"backbone.{key}": value for key, value in donor.state_dict().items()}
    save_file(state | {"mix.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    backbone, *_ = build_backbone("blazehand", str(tmp_path / "model.safetensors"), 224)
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in backbone.state_dict().items())
    assert not torch.equal(backbone.get_buffer("sd_C"), torch.ones(1344))


def test_what_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MetroError, match=r"model\.image_size: blazepose takes pictures of 256 pixels, not 224"):
        build_backbone("blazepose", "shipped", 224)
    with pytest.raises(MetroError, match=r"model\.image_size: blazehand takes pictures of 224 pixels, not 256"):
        build_backbone("blazehand", "shipped", 256)
    with pytest.raises(MetroError, match="blazepose has no ImageNet weights; use shipped"):
        build_backbone("blazepose", "imagenet", 256)
    with pytest.raises(MetroError, match="shipped are those of blazepose, blazepose_heavy, blazehand, not of resnet18"):
        build_backbone("resnet18", "shipped")
    with pytest.raises(MetroError, match=r"hand_full\.safetensors: these weights do not fit blazepose"):
        build_backbone("blazepose", str(packaged.shipped_weights("hand_full")), 256)
    monkeypatch.setattr(packaged, "_BLAZEPOSE", tmp_path)
    with pytest.raises(
        MetroError, match=r"pose_heavy\.safetensors: missing; .*python -m tools\.blazepose --heavy FILE"
    ):
        build_backbone("blazepose_heavy", "shipped", 256)


@pytest.mark.slow
def test_a_metro_on_it_is_exported(world: World, tmp_path: Path) -> None:
    block = BlockConfig(width=16, out=3, layers=1, heads=2, ffn=16)
    config = ModelConfig(
        backbone="blazepose", backbone_weights="shipped", image_size=256, blocks=(block,), upsampling="fixed"
    )
    model = build_model(config, world.data, world.levels).eval()
    assert isinstance(model.backbone, LandmarkMap)
    assert programs.write_onnx(bundle_of(model, world.data, world.levels), tmp_path / "m.onnx") < 1e-4
