"""`metro predict` starts without what only training needs, and the shipped ONNX file is the shipped checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import metro
from metro.config import ModelConfig
from metro.export.folder import ONNX, read_folder
from metro.export.networks import OnnxNetwork, TorchNetwork
from metro.shipped import SHIPPED, bundle_folder
from metro.training.checkpoint import load_checkpoint
from metro.viz.overlay import save_image

HEAVY = ("torch", "torchvision", "timm", "numba", "scipy", "pydantic", "yaml", "matplotlib", "trimesh", "onnx")
WATCHED = r"""
import json, re, sys
from metro.cli.app import main
status = main(sys.argv[1:])
found = [name for name in {heavy} if name in sys.modules]
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([status, found, peak]))
"""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    return save_image(noise, tmp_path / "p.png")


def test_predict_imports_nothing_that_only_training_needs(picture: Path) -> None:
    words = ["predict", str(picture), "--box", "200,20,180,430", "--scene", "--out", str(picture.parent / "out")]
    code = WATCHED.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    status, heavy, peak = json.loads(done.stdout.splitlines()[-1])
    assert status == 0
    assert heavy == []
    assert peak < 250  # MiB
    assert done.stderr == ""
    assert {path.name for path in (picture.parent / "out").iterdir()} == {
        *("p.obj", "p.glb", "p.json", "p_overlay.png", "p_scene.glb")
    }


def test_finding_people_does_not_either(tmp_path: Path) -> None:
    person = load_file(Path(__file__).parents[1] / "model" / "blazepose.safetensors")["pose_full.picture"]
    (tmp_path / "p.png").write_bytes(person.tobytes())
    words = ["predict", str(tmp_path / "p.png"), "--out", str(tmp_path / "out")]
    code = WATCHED.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    status, heavy, peak = json.loads(done.stdout.splitlines()[-1])
    assert (status, heavy, done.stderr) == (0, [], "")
    assert peak < 350  # MiB
    assert (tmp_path / "out" / "p.json").is_file()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_onnx_file_is_the_shipped_checkpoint(name: str, picture: Path) -> None:
    """Else: `metro export --model NAME --out metro/assets/NAME_bundle --no-weights --no-torch-export`."""
    folder = bundle_folder(name)
    assert read_folder(folder).meta["origin"]["sha256"] == load_checkpoint(name).sha256
    by_onnx, by_torch = metro.load(name), metro.load(name, "cpu")
    by_onnx.passes = by_torch.passes = 1  # a second one sees pixels that may be rounded otherwise
    assert isinstance(by_onnx.network, OnnxNetwork)
    assert isinstance(by_torch.network, TorchNetwork)
    onnx, torch = (
        {**network.meta, "model": ModelConfig.model_validate(network.meta["model"])}  # older files lack newer fields
        for network in (by_onnx.network, by_torch.network)
    )
    alone = {"largest_difference_m", "sha256"}
    assert {k: v for k, v in onnx.items() if k not in alone} == {k: v for k, v in torch.items() if k not in alone}
    boxes = [[200, 20, 180, 430], [-30, -40, 200, 300], [300, 100, 60, 60]]
    for ours, theirs in zip(by_onnx(picture, boxes), by_torch(picture, boxes), strict=True):
        for name in ("vertices", "joints", "camera"):
            assert np.abs(getattr(ours, name) - getattr(theirs, name)).max() < 1e-5
        assert np.array_equal(ours.faces, theirs.faces)
        assert ours.joint_names == theirs.joint_names
    assert (folder / ONNX).stat().st_size < 2.2e7
