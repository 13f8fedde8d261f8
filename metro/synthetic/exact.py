"""Sine, cosine, exponential, logarithm, power, arc functions and matrix products that round alike everywhere.

NumPy, OpenCV, BLAS and the C library choose code by the processor at hand, and their last bits differ. What decides a
byte of a shard is therefore computed here: IEEE additions, multiplications, divisions and square roots in double
precision, in a fixed order. The series are Taylor's about 0, after a reduction of the argument that makes their rest
smaller than rounding; errors stay below 1e-14 for arguments of everyday size.

Every function takes arrays (as a NumPy ufunc) and, inside of kernels, numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metro.kernels import njit, vectorize

LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
"""ln 2 in two parts, the first with 32 bits only: whole multiples of it are exact."""
HALF_PI_HIGH, HALF_PI_LOW = 1.57079632673412561417e00, 6.07710050650619224932e-11
"""pi / 2 likewise, the first with 33 bits."""


@njit
def _sine(r: float) -> float:
    """Sine of |r| <= pi / 4."""
    s, term = r, r
    for n in range(3, 18, 2):
        term *= -r * r * (1.0 / (n * (n - 1)))
        s += term
    return s


@njit
def _cosine(r: float) -> float:
    """Cosine of |r| <= pi / 4."""
    s, term = 1.0, 1.0
    for n in range(2, 18, 2):
        term *= -r * r * (1.0 / (n * (n - 1)))
        s += term
    return s


@njit
def _turn(x: float, quarters: int) -> float:
    """Sine of x plus so many quarters of a turn."""
    k = math.floor(x / (HALF_PI_HIGH + HALF_PI_LOW) + 0.5)
    r = (x - k * HALF_PI_HIGH) - k * HALF_PI_LOW
    quadrant = (int(k) + quarters) & 3
    size = _cosine(r) if quadrant & 1 else _sine(r)
    return -size if quadrant & 2 else size


@vectorize
def sin(x: float) -> float:
    """Sine, for |x| below a million."""
    return _turn(np.float64(x), 0)


@vectorize
def cos(x: float) -> float:
    """Cosine, for |x| below a million."""
    return _turn(np.float64(x), 1)


@njit
def _exp(x: float) -> float:
    """Exponential between 2^-1022 and 2^1023; 1.5 · 2^52 rounds what it is added to and leaves it in the last bits."""
    shifted = x / (LN2_HIGH + LN2_LOW) + 6755399441055744.0
    k = shifted - 6755399441055744.0
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    s = 1.0
    for n in range(13, 0, -1):
        s = 1 + s * (r * (1.0 / n))
    exponent = ((np.float64(shifted).view(np.int64) & 2047) + 1023) & 2047
    return s * np.int64(exponent << 52).view(np.float64)


@vectorize
def exp(x: float) -> float:
    """Exponential; 0 below the smallest normal number, infinite above the largest."""
    y = np.float64(x)
    if y < -708:
        return 0.0
    if y > 709:
        return np.inf
    return _exp(y)


@njit
def _log(x: float) -> float:
    """Logarithm of a normal number: of its exponent and of its digits, between the root of 1/2 and that of 2."""
    bits = np.float64(x).view(np.int64)
    e = (bits >> 52) - 1023
    m = np.int64((bits & 0xFFFFFFFFFFFFF) | (1023 << 52)).view(np.float64)
    if m > 1.4142135623730951:
        m, e = m / 2, e + 1
    z = (m - 1) / (m + 1)
    s = 0.0
    for n in range(21, 0, -2):
        s = s * (z * z) + 1.0 / n
    return e * LN2_HIGH + (2 * z * s + e * LN2_LOW)


@vectorize
def log(x: float) -> float:
    """Natural logarithm of a positive number that is not too small for full precision (above 1e-307)."""
    return _log(np.float64(x))


@vectorize
def power(x: float, p: float) -> float:
    """x to the power p, for x >= 0 and what doubles can hold; 0 stays 0."""
    return _exp(min(max(np.float64(p) * _log(np.float64(x)), -708.0), 709.0)) if x > 0 else 0.0


@njit
def _arctan(x: float) -> float:
    """Arc tangent of |x| <= 1: the angle is halved twice, then its series summed."""
    x = x / (1 + math.sqrt(1 + x * x))
    x = x / (1 + math.sqrt(1 + x * x))
    s = 0.0
    for n in range(23, 0, -2):
        s = 1.0 / n - s * (x * x)
    return 4 * x * s


@njit
def _arctan2(y: float, x: float) -> float:
    if x == 0 and y == 0:
        return 0.0
    if abs(y) <= abs(x):
        a = _arctan(y / x)
        if x > 0:
            return a
        return a + math.pi if y >= 0 else a - math.pi
    a = _arctan(x / y)
    return (math.pi / 2 if y > 0 else -math.pi / 2) - a


@vectorize
def arctan2(y: float, x: float) -> float:
    """The angle of (x, y), in [-pi, pi]; 0 for the origin."""
    return _arctan2(np.float64(y), np.float64(x))


@vectorize
def arccos(x: float) -> float:
    """Arc cosine of |x| <= 1."""
    y = np.float64(x)
    return _arctan2(math.sqrt((1 - y) * (1 + y)), y)


def matmul(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Matrix products (..., N, K), (..., K, M) -> (..., N, M) as `np.matmul`, summed in order of K."""
    left, right = np.ascontiguousarray(a, np.float64), np.ascontiguousarray(b, np.float64)
    if left.ndim == right.ndim == 2:
        single: NDArray[np.float64] = _matmul(left[None], right[None])[0]
        return single
    lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*lead, *left.shape[-2:])).reshape(-1, *left.shape[-2:])
    right = np.broadcast_to(right, (*lead, *right.shape[-2:])).reshape(-1, *right.shape[-2:])
    out: NDArray[np.float64] = _matmul(left, right)
    return out.reshape(*lead, *out.shape[1:])


@njit
def _matmul(a_BNK: NDArray[np.float64], b_BKM: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.zeros((a_BNK.shape[0], a_BNK.shape[1], b_BKM.shape[2]))
    for i in range(out.shape[0]):
        for n in range(out.shape[1]):
            for k in range(a_BNK.shape[2]):
                for m in range(out.shape[2]):
                    out[i, n, m] += a_BNK[i, n, k] * b_BKM[i, k, m]
    return out
