"""The functions that round alike everywhere, against long doubles."""

import numpy as np
import pytest

from metro.kernels import njit
from metro.synthetic import exact

WIDE = np.concatenate([np.linspace(-60, 60, 40001), np.random.default_rng(0).normal(size=2000)])
POSITIVE = np.concatenate([np.geomspace(1e-12, 1e6, 4001), np.linspace(0.4, 2.5, 4001)])


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sine_and_cosine(name):
    expected = getattr(np, name)(WIDE.astype(np.longdouble))
    np.testing.assert_allclose(getattr(exact, name)(WIDE), expected.astype(float), rtol=0, atol=1e-15)


def test_exponential_and_logarithm_and_power():
    np.testing.assert_allclose(exact.exp(WIDE), np.exp(WIDE.astype(np.longdouble)).astype(float), rtol=2e-15)
    np.testing.assert_allclose(
        exact.log(POSITIVE), np.log(POSITIVE.astype(np.longdouble)).astype(float), rtol=2e-15, atol=1e-16
    )
    for p in (0.45, 0.6, 2.2, -1.6, 24):
        expected = (POSITIVE.astype(np.longdouble) ** np.longdouble(p)).astype(float)
        np.testing.assert_allclose(exact.power(POSITIVE, p), expected, rtol=1e-13)
    assert exact.power(0.0, 2.2) == 0
    assert exact.exp(-800.0) == 0
    assert exact.exp(800.0) == np.inf


def test_angles():
    y, x = np.random.default_rng(1).normal(size=(2, 20000))
    x[:100], y[100:200] = 0, 0
    expected = np.arctan2(y.astype(np.longdouble), x.astype(np.longdouble)).astype(float)
    np.testing.assert_allclose(exact.arctan2(y, x), expected, rtol=0, atol=1e-15)
    cosine = np.linspace(-1, 1, 20001)
    expected = np.arccos(cosine.astype(np.longdouble)).astype(float)
    np.testing.assert_allclose(exact.arccos(cosine), expected, rtol=0, atol=1e-15)


def test_products_broadcast_as_numpy_does():
    g = np.random.default_rng(2)
    for left, right in [((3, 3), (3, 3)), ((5, 1, 2, 3), (4, 3, 6)), ((7, 3), (2, 3, 1))]:
        a, b = g.normal(size=left), g.normal(size=right)
        np.testing.assert_allclose(exact.matmul(a, b), a @ b, atol=1e-14)


def test_kernels_and_single_precision_get_the_same_numbers():
    @njit
    def inside(x, y):
        return exact.sin(x) + exact.power(x, y) * exact.arctan2(x, y)

    x, y = np.float32(0.7), np.float32(1.3)
    outside = exact.sin(float(x)) + exact.power(float(x), float(y)) * exact.arctan2(float(x), float(y))
    assert inside(float(x), float(y)) == inside(x, y) == outside
    assert exact.cos(np.array([x])).dtype == np.float64
