"""ONNX and torch.export programs equal the network, at batch sizes other than the one they were made with."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from metro.data.augment import normalise
from metro.errors import MetroError
from metro.export import onnx as programs
from metro.export.bundle import bundle_of
from metro.export.folder import ONNX, read_folder
from tests.conftest import World


def test_input_is_the_loaders_picture_over_255(world: World) -> None:
    picture = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        camera, joints, vertices = programs.Deployed(world.model)(picture.permute(0, 3, 1, 2) / 255)
        output = world.model(normalise(picture, torch.ones(2, 3)))
    assert torch.allclose(vertices, output.vertices[-1], atol=1e-5)
    assert torch.allclose(joints, output.mesh_joints, atol=1e-5)
    assert torch.allclose(camera, output.camera, atol=1e-5)


def test_programs_with_another_batch_size(world: World, exported: Path, tmp_path: Path) -> None:
    import onnxruntime

    bundle = bundle_of(world.model, world.data, world.levels)
    assert read_folder(exported).meta["largest_difference_m"][ONNX] < 1e-4
    assert programs.write_program(bundle, tmp_path / "m.pt2") < 1e-4
    image = torch.rand(5, 3, 64, 64)
    with torch.inference_mode():
        expected = [t.numpy() for t in programs.Deployed(world.model).eval()(image)]
    session = onnxruntime.InferenceSession(str(exported / ONNX), providers=["CPUExecutionProvider"])
    got = session.run(list(programs.OUTPUTS), {"image": image.numpy()})
    again = torch.export.load(tmp_path / "m.pt2").module()(image)
    for want, by_onnx, torch_export in zip(expected, got, again, strict=True):
        assert np.abs(by_onnx - want).max() < 1e-4
        assert np.abs(torch_export.detach().numpy() - want).max() < 1e-4
    assert "joint_names" in session.get_modelmeta().custom_metadata_map


def test_a_program_that_differs_is_refused(world: World, tmp_path: Path) -> None:
    bundle = bundle_of(world.model, world.data, world.levels)
    deployed = programs.Deployed(world.model).eval()
    with pytest.raises(MetroError, match=r"differs from the network by 0\.01"):
        programs._compare(bundle, tmp_path / "x", lambda image: [t + 0.01 for t in deployed(image)])


@pytest.mark.parametrize("broken", range(3))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_program_that_gives_no_numbers_is_refused(world: World, tmp_path: Path, value: float, broken: int) -> None:
    """Wherever they stand: in one output of one batch, before and after right ones."""
    bundle = bundle_of(world.model, world.data, world.levels)
    deployed = programs.Deployed(world.model).eval()
    for batch in programs.BATCHES:

        def run(image: torch.Tensor, batch: int = batch) -> list[torch.Tensor]:
            outputs = [t.clone() for t in deployed(image)]
            if len(image) == batch:
                outputs[broken][0, 0] = value
            return outputs

        with pytest.raises(MetroError, match=r"differs from the network by (nan|inf)"):
            programs._compare(bundle, tmp_path / "x", run)


def test_a_network_that_gives_no_numbers_is_refused(world: World, tmp_path: Path) -> None:
    bundle = bundle_of(copy.deepcopy(world.model), world.data, world.levels)
    bundle.model.camera.out.bias.data[1] = float("nan")
    deployed = programs.Deployed(world.model).eval()
    with pytest.raises(MetroError, match="differs from the network by nan"):
        programs._compare(bundle, tmp_path / "x", deployed)


def test_what_half_precision_holds_exactly_is_stored_in_it(world: World, exported: Path, tmp_path: Path) -> None:
    """Weights of a released checkpoint take half the space, and none changes; others stay as they are."""
    model = copy.deepcopy(world.model)
    model.load_state_dict({k: v.half().to(v.dtype) for k, v in model.state_dict().items()})
    for name, parameter in model.named_parameters():
        if name == "blocks.0.position_TD":
            parameter.data[0, 0] = 1 / 3  # not one of half precision
    programs.write_onnx(bundle_of(model, world.data, world.levels), tmp_path / "half.onnx")
    full, half = (
        {tensor.name.removesuffix(".half"): tensor.data_type for tensor in onnx.load(path).graph.initializer}
        for path in (exported / ONNX, tmp_path / "half.onnx")
    )
    large = {f"model.{name}" for name, parameter in model.named_parameters() if parameter.numel() >= 1000} & full.keys()
    large -= {"model.blocks.0.position_TD"}
    assert len(large) > 5
    assert {full[name] for name in large} == {onnx.TensorProto.FLOAT}
    assert {half[name] for name in large} == {onnx.TensorProto.FLOAT16}
    assert half["model.blocks.0.position_TD"] == onnx.TensorProto.FLOAT
