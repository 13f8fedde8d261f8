"""Official checkpoints: golden outputs, exact coverage of keys, and the way back."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metro.errors import MetroError
from metro.model.official import POSITIONS, convert, describe, from_official, is_official, to_official
from metro.model.tensors import load_tensors
from tests.reference import reference

HAND = {"joint_set": "HAND21", "token_source": "pooled", "camera_from": "all"}
DEAD_PARTS = ("bert.embeddings.", "bert.pooler.", "backbone.classifier.")


def golden_weights(keys: dict[str, list[int]]) -> dict[str, Tensor]:
    """The weights that the golden outputs were made with, without those nobody reads."""
    state = {}
    for name, shape in keys.items():
        if any(part in name for part in DEAD_PARTS):
            continue
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(shape, dtype=torch.int64)
        elif name.endswith(("running_mean", "running_var")):
            state[name] = torch.full(shape, float(name.endswith("running_var")))
        else:
            rng = np.random.default_rng([0, zlib.crc32(name.encode())])
            values = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
            if len(shape) == 1:
                values = 0.02 * values if name.endswith(".bias") else 1 + 0.1 * values
            else:
                values *= (0.7 if len(shape) == 4 else 1.0) / np.sqrt(np.prod(shape[1:]))
            state[name] = values
    return state


@pytest.mark.parametrize(
    ("name", "backbone", "parameters", "used"),
    [
        ("body_resnet50", "resnet50", 138_518_381, 93_684_973),
        ("body_hrnet_w64", "hrnet_w64", 243_070_293, 196_187_885),
        # made with feed-forward layers of 3072; the published hand has 4 x width (test_official_sizes)
        ("hand_hrnet_w64", "hrnet_w64", 226_690_309, 181_806_685),
    ],
)
def test_every_key_is_known(name: str, backbone: str, parameters: int, used: int) -> None:
    keys = json.loads(reference(f"official/{name}.keys.json").read_text())
    # The record has shapes alone; batch normalisation counts its batches in whole numbers.
    state = {
        key: torch.empty(shape, device="meta", dtype=torch.int64 if key.endswith("num_batches_tracked") else None)
        for key, shape in keys.items()
    }
    config, converted = convert(state)
    assert config.backbone == backbone
    described = describe(state)
    tokens = len(converted["blocks.0.position_TD"])
    spare_rows = sum((POSITIONS - tokens) * block.width for block in config.blocks)
    assert described.parameters == parameters
    assert described.used == used - spare_rows


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("body_resnet50", ("vertices_sub2", "vertices_sub", "vertices")),
        ("body_hrnet_w64", ("vertices_sub2", "vertices_sub", "vertices")),
        ("hand_hrnet_w64", ("vertices_sub", "vertices")),
    ],
)
def test_golden_outputs(name: str, levels: tuple[str, ...]) -> None:
    keys = json.loads(reference(f"official/{name}.keys.json").read_text())
    golden = np.load(reference(f"official/{name}.npz"))
    model = from_official(golden_weights(keys), golden["template_tokens"])
    back = to_official(model)
    assert {key: list(value.shape) for key, value in back.items()} == keys

    images = np.random.default_rng([0, 777]).standard_normal((2, 3, 224, 224), dtype=np.float32)
    mask = torch.zeros(2, len(golden["template_tokens"]), dtype=torch.bool)
    mask[:, golden["masked_tokens"]] = True
    with torch.no_grad():
        feature = model.backbone(torch.from_numpy(images))
        close((feature.mean((2, 3)) if name.startswith("hand") else feature)[:, ::64], golden["feat_sample"])
        model.backbone = torch.nn.Identity()  # the costly part once
        for prefix, output in (("", model(feature)), ("masked_", model(feature, mask))):
            found = {"camera": output.camera, "joints": output.joints} | dict(zip(levels, output.vertices, strict=True))
            for key in found:
                if f"{prefix}{key}" in golden:
                    close(found[key], golden[f"{prefix}{key}"])
    assert {f"{p}{k}" for p in ("", "masked_") for k in ("camera", "joints", *levels[:2])} <= set(golden.files)


def close(found: Tensor, expected: np.ndarray) -> None:
    """Within 1e-4 of the scale of the output."""
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() <= 1e-4 * np.abs(expected).mean()


@pytest.mark.parametrize("kind", [{}, HAND], ids=["body", "hand"])
def test_there_and_back(make, images, kind) -> None:
    model = make(**kind)
    state = to_official(model)
    assert is_official(state)
    again = from_official(state, model.template_T3, heads=2)
    untold = {"dropout"} | ({"image_size"} if kind else set())  # by shapes
    assert again.config.model_dump(exclude=untold) == model.config.model_dump(exclude=untold)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    with torch.no_grad():
        torch.testing.assert_close(again(images).vertices[-1], model(images).vertices[-1])
    with torch.no_grad():  # the copy shares no memory with the dict it came from
        again.camera.out.bias += 1
    assert torch.equal(state["cam_param_fc3.bias"], model.camera.out.bias)


def test_unused_rows_and_tensors_change_nothing(make, images) -> None:
    model = make()
    state = to_official(model)
    state["trans_encoder.0.bert.position_embeddings.weight"][24:] = 9.0
    state["trans_encoder.1.bert.pooler.dense.weight"] += 9.0
    del state["trans_encoder.0.bert.embeddings.word_embeddings.weight"]
    with torch.no_grad():
        changed = from_official(state, model.template_T3, heads=2)(images)
        assert torch.equal(changed.vertices[-1], model(images).vertices[-1])


def test_damaged_files_are_refused(make) -> None:
    state = to_official(make())

    def without(*keys: str) -> dict[str, Tensor]:
        return {key: value for key, value in state.items() if key not in keys}

    layer = "trans_encoder.1.bert.encoder.layer.0."
    with pytest.raises(MetroError, match=r"layer\.0\.attention\.self\.key\.bias is missing; the file"):
        convert(without(f"{layer}attention.self.key.bias"), heads=2)
    with pytest.raises(MetroError, match=r"cam_param_fc2\.weight is missing"):
        convert(without("cam_param_fc2.weight"), heads=2)
    with pytest.raises(MetroError, match=r"output\.dense\.weight is 3×3, not 16×20"):
        convert(state | {f"{layer}output.dense.weight": torch.zeros(3, 3)}, heads=2)
    with pytest.raises(MetroError, match=r"graph_conv\.weight is unknown"):
        convert(state | {"graph_conv.weight": torch.zeros(1)}, heads=2)
    lost = [key for key in state if ".LayerNorm." in key and ".encoder." in key]
    with pytest.raises(MetroError, match=f"and {len(lost) - 3} more"):
        convert(without(*lost), heads=2)
    with pytest.raises(MetroError, match="no METRO state dict"):
        describe({"weight": torch.zeros(1)})
    with pytest.raises(MetroError, match="neither HRNet nor ResNet"):
        describe({key: value for key, value in state.items() if not key.startswith("backbone.7.1.")})
    with pytest.raises(MetroError, match=r"template has shape \(3, 3\)"):
        from_official(state, torch.zeros(3, 3), heads=2)


def test_an_export_loads_from_the_file_formats_of_then_and_now(make, tmp_path: Path) -> None:
    state = to_official(make())
    for zipped in (True, False):
        torch.save(state, tmp_path / "state_dict.bin", _use_new_zipfile_serialization=zipped)
        loaded = load_tensors(tmp_path / "state_dict.bin")
        assert loaded.keys() == state.keys()
        assert describe(loaded, heads=2) == describe(state, heads=2)


def test_networks_without_an_official_form(make) -> None:
    for changes in ({"upsampling": "fixed"}, {"backbone": "timm/regnetx_002"}):
        with pytest.raises(MetroError, match="only learned upsampling with a ResNet or HRNet"):
            to_official(make(**changes))
    for changes in ({"cells": 1}, {"positions": "learned"}):
        with pytest.raises(MetroError, match="only both, none and template have an official form"):
            to_official(make(**changes))
