"""ONNX and torch.export programs equal the network, at batch sizes other than the one they were made with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from metro.data.augment import normalise
from metro.errors import MetroError
from metro.export import onnx as programs
from metro.export.bundle import bundle_of
from tests.conftest import World


def test_input_is_the_loaders_picture_over_255(world: World) -> None:
    picture = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        camera, joints, vertices = programs.Deployed(world.model)(picture.permute(0, 3, 1, 2) / 255)
        output = world.model(normalise(picture, torch.ones(2, 3)))
    assert torch.allclose(vertices, output.vertices[-1], atol=1e-5)
    assert torch.allclose(joints, output.mesh_joints, atol=1e-5)
    assert torch.allclose(camera, output.camera, atol=1e-5)


def test_programs_with_another_batch_size(world: World, tmp_path: Path) -> None:
    import onnxruntime

    bundle = bundle_of(world.model, world.data, world.levels)
    assert programs.write_onnx(bundle, tmp_path / "m.onnx") < 1e-4
    assert programs.write_program(bundle, tmp_path / "m.pt2") < 1e-4
    image = torch.rand(5, 3, 64, 64)
    with torch.inference_mode():
        expected = [t.numpy() for t in programs.Deployed(world.model).eval()(image)]
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    got = session.run(list(programs.OUTPUTS), {"image": image.numpy()})
    again = torch.export.load(tmp_path / "m.pt2").module()(image)
    for want, onnx, torch_export in zip(expected, got, again, strict=True):
        assert np.abs(onnx - want).max() < 1e-4
        assert np.abs(torch_export.detach().numpy() - want).max() < 1e-4
    assert "joint_names" in session.get_modelmeta().custom_metadata_map


def test_a_program_that_differs_is_refused(world: World, tmp_path: Path) -> None:
    bundle = bundle_of(world.model, world.data, world.levels)
    deployed = programs.Deployed(world.model).eval()
    with pytest.raises(MetroError, match=r"differs from the network by 0\.01"):
        programs._compare(bundle, tmp_path / "x", lambda image: [t + 0.01 for t in deployed(image)])
