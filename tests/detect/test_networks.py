"""The detectors equal the files they come from, and their ONNX files equal them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from metro.detect.programs import FOLDER, INPUT_PX, Program
from metro.errors import MetroError
from metro.model.tensors import load_tensors
from tools.blazepose.networks import DETECTORS, SHIPPED

GOLDEN = Path(__file__).parent / "golden.safetensors"
"""Made by `python -m tools.blazepose WHEEL --golden-detectors tests/detect/golden.safetensors`."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN)


def picture_of(golden: dict[str, Tensor], name: str) -> np.ndarray:
    image = cv2.imdecode(golden[f"{name}.picture"].numpy(), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image


@pytest.mark.parametrize("name", DETECTORS)
def test_equals_what_the_file_computes(golden: dict[str, Tensor], name: str) -> None:
    network = DETECTORS[name].make().eval()
    network.load_state_dict({key: value.float() for key, value in load_tensors(FOLDER / f"{name}.safetensors").items()})
    with torch.no_grad():
        scores, numbers = network(torch.from_numpy(picture_of(golden, name)).permute(2, 0, 1)[None] / 255)
    for ours, theirs in ((scores[0, ::16, None], golden[f"{name}.0"]), (numbers[0, ::16], golden[f"{name}.1"])):
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("name", SHIPPED | DETECTORS)
def test_the_onnx_file_is_the_network(name: str) -> None:
    """Else: `python -m tools.blazepose WHEEL`."""
    network = (SHIPPED | DETECTORS)[name].make().eval()
    network.load_state_dict({key: value.float() for key, value in load_tensors(FOLDER / f"{name}.safetensors").items()})
    side = INPUT_PX[name]
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    found = Program(name)(images)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours - theirs.numpy()).max() < 1e-4 * theirs.abs().max()


def test_a_missing_or_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metro.detect.programs.FOLDER", tmp_path)
    for content in (None, (FOLDER / "palm_detector.onnx").read_bytes(), b"no graph"):  # the second lacks its weights
        if content is not None:
            (tmp_path / "palm_detector.onnx").write_bytes(content)
        with pytest.raises(MetroError, match=r"palm_detector\.onnx: .*; install metro again") as caught:
            Program("palm_detector")(np.zeros((1, 192, 192, 3), np.uint8))
        assert "\n" not in str(caught.value)
