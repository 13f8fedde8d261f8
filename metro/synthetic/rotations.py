"""Rotations with the same last bit on every processor.

SciPy's `Rotation` asks the C library for sines and arc tangents and may be compiled to fused multiplications, so these
few are written out over `exact`; tests hold them to SciPy's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metro.synthetic import exact

Array = NDArray[np.float64]


def axis_rotations(angles_deg: Array) -> tuple[Array, Array, Array]:
    """Rotation matrices about x, y and z for angles (..., 3): three arrays (..., 3, 3)."""
    radians = np.deg2rad(angles_deg)
    c, s = exact.cos(radians), exact.sin(radians)
    out = []
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        m = np.zeros((*angles_deg.shape[:-1], 3, 3))
        m[..., axis, axis] = 1
        m[..., i, i] = m[..., j, j] = c[..., axis]
        m[..., j, i], m[..., i, j] = s[..., axis], -s[..., axis]
        out.append(m)
    return out[0], out[1], out[2]


def product(first: Array, *others: Array) -> Array:
    """Product of rotation matrices (..., 3, 3), from the left."""
    for other in others:
        first = exact.matmul(first, other)
    return first


def uniform_rotation(g: np.random.Generator) -> Array:
    """A rotation matrix, uniform over all of them: a random direction of four dimensions, read as a quaternion."""
    q = g.standard_normal(4)
    w, x, y, z = q / np.sqrt((q * q).sum())
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def rotation_vector(rot: Array) -> Array:
    """Axis-angle (..., 3) of rotation matrices (..., 3, 3), stable at 0 and at π."""
    m = np.asarray(rot, float)
    diag = np.diagonal(m, axis1=-2, axis2=-1)
    trace = diag.sum(-1)
    # Four candidate quaternions (w, x, y, z), each exact where its own component is the largest.
    q = np.empty((*m.shape[:-2], 4, 4))
    skew = np.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1)
    q[..., 0, 0] = 1 + trace
    q[..., 0, 1:] = skew
    for i in range(3):
        q[..., i + 1, 0] = skew[..., i]
        for j in range(3):
            q[..., i + 1, j + 1] = m[..., i, j] + m[..., j, i]
        q[..., i + 1, i + 1] = 1 - trace + 2 * m[..., i, i]
    largest = np.concatenate([trace[..., None], diag], -1).argmax(-1)
    best = np.take_along_axis(q, largest[..., None, None], -2)[..., 0, :]
    best /= np.sqrt((best * best).sum(-1, keepdims=True))
    best = np.where(best[..., :1] < 0, -best, best)
    length = np.sqrt((best[..., 1:] ** 2).sum(-1, keepdims=True))
    angle = 2 * exact.arctan2(length, best[..., :1])
    return best[..., 1:] * np.where(length > 1e-12, angle / np.maximum(length, 1e-12), 2.0)
