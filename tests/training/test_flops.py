"""The arithmetic of a network against published figures, and the machine's ceiling."""

from __future__ import annotations

import pytest
import torch

from metro.body.load import load_body
from metro.config import BlockConfig, ModelConfig
from metro.mesh.sampling import build_sampling
from metro.model.metro import build_model
from metro.training.flops import flops_per_image, flops_per_step, matmul_flops


def test_a_resnet_and_one_layer():
    """ResNet-50 without its classifier: 4.09 G multiply-adds at 224 px (He et al. 2016 count 3.8 without shortcuts)."""
    data = load_body("open")
    levels = build_sampling(data.v_template, data.faces)
    block = BlockConfig(width=64, out=3, layers=1, heads=1, ffn=64)
    model = build_model(ModelConfig(backbone="resnet50", blocks=(block,), upsampling="fixed"), data, levels).train()
    tokens, width = 445, 64
    attention = 2 * tokens * tokens * width + 4 * tokens * width**2  # scores and mixture; q, k, v and output
    feed_forward = 2 * tokens * width * 64
    first = 49 * 2048 * (width + 3) + 49 * tokens * (width + 3)  # cells to width 64 and to 3, then mixed
    regressor = 14 * 431 * 3
    head = 2 * (attention + feed_forward + first + regressor)
    expected = 2 * 4.09e9 + head
    statistics = model.backbone.bn1.running_mean.clone()
    assert flops_per_image(model) == pytest.approx(expected, rel=0.01)
    assert flops_per_step(model) == pytest.approx(3 * expected, rel=0.01)
    frozen = ("backbone", "backbone.layer1")
    assert flops_per_step(model, frozen) == pytest.approx(2 * 4.09e9 + 3 * head, rel=0.01)
    assert flops_per_step(model, frozen, cached=True) == pytest.approx(3 * head, rel=0.01)
    assert model.training
    assert torch.equal(model.backbone.bn1.running_mean, statistics)


def test_the_ceiling_is_that_of_a_processor():
    assert 1e8 < matmul_flops(torch.device("cpu")) < 1e14
