"""Bodies that overlap themselves: limbs and trunk as capsules."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metro.synthetic.archetypes import NAMES

Array = NDArray[np.float64]

# Capsules: name, from joint, to joint, radius in metres, extension beyond the end as a share of the length.
_CAPSULES: list[tuple[str, str, str, float, float]] = [
    *[
        capsule
        for s in ("left_", "right_")
        for capsule in (
            (f"{s}forearm", f"{s}elbow", f"{s}wrist", 0.034, 0.0),
            (f"{s}palm", f"{s}wrist", f"{s}hand", 0.03, 0.8),
            (f"{s}upper_arm", f"{s}shoulder", f"{s}elbow", 0.042, 0.0),
            (f"{s}thigh", f"{s}hip", f"{s}knee", 0.066, 0.0),
            (f"{s}shin", f"{s}knee", f"{s}ankle", 0.042, 0.0),
            (f"{s}sole", f"{s}ankle", f"{s}foot", 0.035, 0.4),
        )
    ],
    ("torso", "pelvis", "spine3", 0.112, 0.25),
    ("skull", "neck", "head", 0.085, 1.0),
]


def _pairs() -> list[tuple[int, int, float]]:
    """Capsules that may collide, with the overlap that soft tissue forgives."""
    number = {capsule[0]: i for i, capsule in enumerate(_CAPSULES)}
    out: list[tuple[str, str, float]] = []
    for s, other in (("left_", "right_"), ("right_", "left_")):
        for arm in ("forearm", "palm"):
            targets = ("torso", "skull", *(side + leg for side in (s, other) for leg in ("thigh", "shin", "sole")))
            out += [(s + arm, target, 0.012) for target in targets]
            out += [(s + arm, other + arm2, 0.005) for arm2 in ("forearm", "palm", "upper_arm") if s < other]
        for leg in ("shin", "sole"):
            out += [(s + leg, "torso", 0.0), (s + leg, other + "thigh", 0.0)]
            out += [(s + leg, other + leg2, 0.0) for leg2 in ("shin", "sole") if s < other]
    out.append(("left_thigh", "right_thigh", 0.06))
    return [(number[a], number[b], slack) for a, b, slack in out]


_PAIRS = _pairs()
_PAIR_A, _PAIR_B = np.array([p[0] for p in _PAIRS]), np.array([p[1] for p in _PAIRS])
_PAIR_REACH = np.array([_CAPSULES[a][3] + _CAPSULES[b][3] - slack for a, b, slack in _PAIRS])
_FROM = np.array([NAMES.index(c[1]) for c in _CAPSULES])
_TO = np.array([NAMES.index(c[2]) for c in _CAPSULES])
_BEYOND = np.array([c[4] for c in _CAPSULES])


def segment_distance(p: Array, q: Array, r: Array, s: Array) -> Array:
    """Shortest distance of the segments p–q and r–s, all (..., 3) (Ericson, Real-Time Collision Detection, 5.1.9)."""
    d1, d2, between = q - p, s - r, p - r
    a, e, f = (d1 * d1).sum(-1), (d2 * d2).sum(-1), (d2 * between).sum(-1)
    b, c = (d1 * d2).sum(-1), (d1 * between).sum(-1)
    denominator = np.maximum(a * e - b * b, 1e-12)
    t1 = np.clip((b * f - c * e) / denominator, 0, 1)
    t2 = np.clip((b * t1 + f) / np.maximum(e, 1e-12), 0, 1)
    t1 = np.clip((b * t2 - c) / np.maximum(a, 1e-12), 0, 1)
    apart = between + d1 * t1[..., None] - d2 * t2[..., None]
    return np.sqrt((apart * apart).sum(-1))


def overlap(joints: Array) -> Array:
    """Deepest overlap of two body parts beyond what is forgiven, metres (B,), of joints (B, 24, 3); > 0 is bad."""
    start = joints[:, _FROM]
    end = joints[:, _TO] + (joints[:, _TO] - start) * _BEYOND[:, None]
    gap = segment_distance(start[:, _PAIR_A], end[:, _PAIR_A], start[:, _PAIR_B], end[:, _PAIR_B])
    return (_PAIR_REACH - gap).max(-1)
