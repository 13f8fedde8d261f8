"""What metrics ask of points, on a processor: moments, distances and nearest points, a person at a time in one pass.

The sums are those of `metro.evaluation.metrics`, which a GPU takes as tensors; a processor would spend nearly all of
its time on moving intermediate arrays of thousands of vertices.

Shapes: B samples, N and M points, 3 xyz. Inputs are float32 or float64, results float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from metro.kernels import njit


class Moments(NamedTuple):
    """Weighted moments of pairs of points."""

    centre_s: np.ndarray
    """(B, 3): mean of the source."""
    centre_t: np.ndarray
    """(B, 3): mean of the target."""
    covariance: np.ndarray
    """(B, 3, 3): mean of t sᵀ, both centred."""
    variance: np.ndarray
    """(B,): mean of |s|², centred."""


def moments(source_BN3: np.ndarray, target_BN3: np.ndarray, weights_BN: np.ndarray | None) -> Moments:
    """Moments of the pairs; none of a weight give zeros."""
    weighted = weights_BN is not None
    weights = np.ones((1, 1)) if weights_BN is None else weights_BN
    return Moments(*_moments(source_BN3, target_BN3, weights, weighted))


def distances(source_BN3: np.ndarray, target_BN3: np.ndarray, turn_B33: np.ndarray, shift_B3: np.ndarray) -> np.ndarray:
    """|turn · source + shift − target|, (B, N)."""
    result: np.ndarray = _distances(source_BN3, target_BN3, turn_B33, shift_B3)
    return result


def mean_distances(source_BN3: np.ndarray, target_BN3: np.ndarray, shift_B3: np.ndarray) -> np.ndarray:
    """Mean of |source + shift − target| over the points, (B,)."""
    result: np.ndarray = _mean_distances(source_BN3, target_BN3, shift_B3)
    return result


def nearest(points_N3: np.ndarray, among_M3: np.ndarray, reach: float) -> np.ndarray:
    """Distance (N,) of each point to the nearest of the others; inf where none is within `reach`."""
    axis = int(np.ptp(among_M3, 0).argmax()) if len(among_M3) else 0  # along which they lie farthest apart
    result: np.ndarray = _nearest(points_N3, among_M3[among_M3[:, axis].argsort()], axis, reach)
    return result


@njit
def _moments(source, target, weights, weighted):  # type: ignore[no-untyped-def]
    people, count, _ = source.shape
    centre_s, centre_t = np.zeros((people, 3)), np.zeros((people, 3))
    covariance, variance = np.zeros((people, 3, 3)), np.zeros(people)
    for b in range(people):
        sx = sy = sz = tx = ty = tz = total = 0.0
        for n in range(count):
            w = np.float64(weights[b, n]) if weighted else 1.0
            total += w
            sx += w * source[b, n, 0]
            sy += w * source[b, n, 1]
            sz += w * source[b, n, 2]
            tx += w * target[b, n, 0]
            ty += w * target[b, n, 1]
            tz += w * target[b, n, 2]
        share = 1 / max(total, 1e-300)
        sx, sy, sz, tx, ty, tz = sx * share, sy * share, sz * share, tx * share, ty * share, tz * share
        centre_s[b, 0], centre_s[b, 1], centre_s[b, 2] = sx, sy, sz
        centre_t[b, 0], centre_t[b, 1], centre_t[b, 2] = tx, ty, tz
        xx = xy = xz = yx = yy = yz = zx = zy = zz = square = 0.0  # of the target, then of the source
        for n in range(count):
            w = np.float64(weights[b, n]) if weighted else 1.0
            px, py, pz = source[b, n, 0] - sx, source[b, n, 1] - sy, source[b, n, 2] - sz
            qx, qy, qz = w * (target[b, n, 0] - tx), w * (target[b, n, 1] - ty), w * (target[b, n, 2] - tz)
            xx += qx * px
            xy += qx * py
            xz += qx * pz
            yx += qy * px
            yy += qy * py
            yz += qy * pz
            zx += qz * px
            zy += qz * py
            zz += qz * pz
            square += w * (px * px + py * py + pz * pz)
        covariance[b, 0, 0], covariance[b, 0, 1], covariance[b, 0, 2] = xx * share, xy * share, xz * share
        covariance[b, 1, 0], covariance[b, 1, 1], covariance[b, 1, 2] = yx * share, yy * share, yz * share
        covariance[b, 2, 0], covariance[b, 2, 1], covariance[b, 2, 2] = zx * share, zy * share, zz * share
        variance[b] = square * share
    return centre_s, centre_t, covariance, variance


@njit
def _distances(source, target, turn, shift):  # type: ignore[no-untyped-def]
    people, count, _ = source.shape
    found = np.empty((people, count))
    for b in range(people):
        xx, xy, xz = turn[b, 0, 0], turn[b, 0, 1], turn[b, 0, 2]
        yx, yy, yz = turn[b, 1, 0], turn[b, 1, 1], turn[b, 1, 2]
        zx, zy, zz = turn[b, 2, 0], turn[b, 2, 1], turn[b, 2, 2]
        x0, y0, z0 = shift[b, 0], shift[b, 1], shift[b, 2]
        for n in range(count):
            px, py, pz = source[b, n, 0], source[b, n, 1], source[b, n, 2]
            dx = xx * px + xy * py + xz * pz + x0 - target[b, n, 0]
            dy = yx * px + yy * py + yz * pz + y0 - target[b, n, 1]
            dz = zx * px + zy * py + zz * pz + z0 - target[b, n, 2]
            found[b, n] = np.sqrt(dx * dx + dy * dy + dz * dz)
    return found


@njit
def _mean_distances(source, target, shift):  # type: ignore[no-untyped-def]
    people, count, _ = source.shape
    found = np.empty(people)
    for b in range(people):
        x0, y0, z0 = shift[b, 0], shift[b, 1], shift[b, 2]
        total = 0.0
        for n in range(count):
            dx = np.float64(source[b, n, 0]) - target[b, n, 0] + x0
            dy = np.float64(source[b, n, 1]) - target[b, n, 1] + y0
            dz = np.float64(source[b, n, 2]) - target[b, n, 2] + z0
            total += np.sqrt(dx * dx + dy * dy + dz * dz)
        found[b] = total / count
    return found


@njit
def _nearest(points, among, axis, reach):  # type: ignore[no-untyped-def]
    place_M = among[:, axis].copy()
    found = np.full(len(points), np.inf)
    for n in range(len(points)):
        px, py, pz = points[n, 0], points[n, 1], points[n, 2]
        least = np.inf
        first = np.searchsorted(place_M, points[n, axis] - reach)
        for m in range(first, np.searchsorted(place_M, points[n, axis] + reach, side="right")):
            dx, dy, dz = px - among[m, 0], py - among[m, 1], pz - among[m, 2]
            square = dx * dx + dy * dy + dz * dz
            least = square if square < least else least
        if least <= reach * reach:
            found[n] = np.sqrt(least)
    return found
