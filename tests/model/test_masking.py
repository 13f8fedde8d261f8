"""Masks: shares and queries as the official recipe draws them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metro.config import MaskConfig
from metro.model.masking import query_mask
from metro.random import stream


def masks(config: MaskConfig, joints: int, vertices: int, count: int, seed: int = 0) -> np.ndarray:
    return np.array([query_mask(config, joints, vertices, stream(seed, sample)) for sample in range(count)])


def test_masked_share_is_uniform_below_the_ratio():
    mask = masks(MaskConfig(joints=0.3, vertices=0.3), 14, 431, 6000)
    joints, vertices = mask[:, :14].sum(1), mask[:, 14:].sum(1)
    # int(u · 0.3 · 14): 0 … 4, each as often as its part of [0, 4.2).
    np.testing.assert_allclose(np.bincount(joints) / 6000, [1 / 4.2] * 4 + [0.2 / 4.2], atol=0.02)
    assert vertices.max() == 129
    assert vertices.mean() == pytest.approx(64.15, rel=0.03)
    np.testing.assert_allclose(np.quantile(vertices, [0.25, 0.5, 0.75]), [32, 64, 96], atol=4)
    assert abs(np.corrcoef(joints, vertices)[0, 1]) < 0.04
    np.testing.assert_allclose(mask[:, 14:].mean(0), 64.15 / 431, atol=0.03)  # no query is preferred


@settings(max_examples=30)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
def test_masks_of_any_ratio(joints, vertices, seed):
    mask = masks(MaskConfig(joints=joints, vertices=vertices), 21, 195, 8, seed)
    assert mask.shape == (8, 216)
    assert (mask[:, :21].sum(1) <= joints * 21).all()
    assert (mask[:, 21:].sum(1) <= vertices * 195).all()


def test_a_ratio_of_zero_masks_nothing():
    assert not masks(MaskConfig(joints=0, vertices=0), 21, 195, 50).any()
