"""Rotations against SciPy's, and their behaviour at 0 and π."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.spatial.transform import Rotation

from metro.body.rotation import aa_from_rot, rot_from_aa

UNIT = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array).filter(lambda v: np.linalg.norm(v) > 1e-2)
AXES = UNIT.map(lambda v: v / np.linalg.norm(v))
# Angles of every size, dense around the two places where formulas break.
ANGLES = st.one_of(
    st.floats(0, np.pi),
    st.floats(-12, -1).map(lambda e: 10.0**e),
    st.floats(-12, -1).map(lambda e: np.pi - 10.0**e),
    st.just(np.pi),
    st.just(0.0),
)


@given(AXES, ANGLES)
@settings(max_examples=120, deadline=None)
def test_matrix_equals_scipy(axis, angle):
    ours = rot_from_aa(torch.tensor(axis * angle))
    np.testing.assert_allclose(ours.numpy(), Rotation.from_rotvec(axis * angle).as_matrix(), atol=1e-13)


@given(AXES, ANGLES)
@settings(max_examples=120, deadline=None)
def test_round_trip_in_double(axis, angle):
    aa = axis * angle
    back = aa_from_rot(rot_from_aa(torch.tensor(aa))).numpy()
    near = back if angle < np.pi - 1e-6 or back @ aa > 0 else -back  # at π both signs name the same rotation
    np.testing.assert_allclose(near, aa, atol=1e-8)


@given(AXES, ANGLES)
@settings(max_examples=100, deadline=None)
def test_round_trip_of_the_matrix_in_single(axis, angle):
    rot = rot_from_aa(torch.tensor(axis * angle, dtype=torch.float32))
    again = rot_from_aa(aa_from_rot(rot))
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, rot, atol=2e-6, rtol=0)


@given(AXES, ANGLES.filter(lambda a: a < np.pi - 1e-3))
@settings(max_examples=25, deadline=None)
def test_gradient_of_the_matrix(axis, angle):
    aa = torch.tensor(axis * angle, requires_grad=True)
    assert torch.autograd.gradcheck(rot_from_aa, (aa,), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_zero(dtype):
    aa = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    aa_from_rot(rot_from_aa(aa)).sum().backward()
    torch.testing.assert_close(aa.grad, torch.ones_like(aa))


def test_leading_dimensions():
    aa = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    rot = rot_from_aa(aa)
    assert rot.shape == (2, 5, 3, 3)
    torch.testing.assert_close(rot[1, 3], rot_from_aa(aa[1, 3]))
    torch.testing.assert_close(aa_from_rot(rot), aa, atol=1e-5, rtol=0)
