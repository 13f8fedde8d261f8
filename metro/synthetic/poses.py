"""Body poses: archetypes with noise, joint limits, mirroring and rejection of bodies that overlap themselves.

Everything random about person `index` of seed `seed` comes from Philox streams keyed by the two numbers, one stream per
purpose and attempt, so that any person can be made alone and no two seeds share a person.

Angles are degrees about x, y, z in SMPL's frame (y up, z forward, x to the person's left) and are written for the
*left* side: the right side is its mirror image (y and z negated). Rotations compose as Y·Z·X in the arms, where the
twist about the bone is innermost, and as X·Z·Y elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metro.body.joints import JOINT_SETS

Array = NDArray[np.float64]
Triple = tuple[float, float, float]

NAMES = JOINT_SETS["SMPL24"]
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


def _part(name: str) -> str:
    return name.removeprefix("left_").removeprefix("right_")


def _twin(name: str) -> str:
    if name.startswith("left_"):
        return "right_" + name.removeprefix("left_")
    return "left_" + name.removeprefix("right_") if name.startswith("right_") else name


IS_RIGHT = np.array([name.startswith("right_") for name in NAMES])
IS_CENTRE = np.array([_part(name) == name for name in NAMES])
MIRROR = np.array([NAMES.index(_twin(name)) for name in NAMES])
ARM_LIKE = np.array([_part(name) in ("collar", "shoulder", "elbow", "wrist", "hand") for name in NAMES])


class Stream(IntEnum):
    """Purposes of the random streams of one person."""

    POSE = 0
    SHAPE = 1
    LOOK = 2
    SCENE = 3
    CAMERA = 4
    STRANGER = 5
    COMPANY = 6


def stream(seed: int, index: int, purpose: Stream, attempt: int = 0) -> np.random.Generator:
    """The random numbers of one person for one purpose: a Philox generator keyed by (seed, index)."""
    key = np.array([seed, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, attempt, purpose], np.uint64)))


# Lowest and highest angle about x, y, z.
LIMITS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "pelvis": ((0, 0), (0, 0), (0, 0)),
    "hip": ((-120, 30), (-40, 40), (-20, 55)),
    "knee": ((0, 145), (-5, 5), (-3, 3)),
    "ankle": ((-25, 45), (-15, 15), (-12, 12)),
    "foot": ((-15, 25), (-3, 3), (-3, 3)),
    "spine1": ((-12, 35), (-15, 15), (-12, 12)),
    "spine2": ((-10, 25), (-15, 15), (-10, 10)),
    "spine3": ((-10, 20), (-15, 15), (-10, 10)),
    "neck": ((-20, 30), (-35, 35), (-18, 18)),
    "head": ((-20, 25), (-35, 35), (-12, 12)),
    "collar": ((-6, 6), (-15, 10), (-8, 22)),
    "shoulder": ((-65, 65), (-110, 35), (-85, 75)),
    "elbow": ((-60, 60), (-145, 0), (-4, 4)),
    "wrist": ((-25, 25), (-20, 20), (-55, 50)),
    "hand": ((-3, 3), (-8, 8), (-35, 10)),
}

# Standard deviation of the noise around an archetype.
NOISE: dict[str, Triple] = {
    "pelvis": (0, 0, 0),
    "hip": (10, 7, 5),
    "knee": (10, 1, 1),
    "ankle": (7, 4, 4),
    "foot": (4, 1, 1),
    "spine1": (5, 5, 4),
    "spine2": (4, 5, 3),
    "spine3": (4, 5, 3),
    "neck": (7, 12, 5),
    "head": (6, 12, 4),
    "collar": (2, 4, 5),
    "shoulder": (14, 16, 14),
    "elbow": (14, 18, 1),
    "wrist": (8, 7, 12),
    "hand": (1, 3, 9),
}


class Support(IntEnum):
    """What carries the body: it decides how the pelvis is tilted and what is drawn underneath."""

    FEET = 0
    SEAT = 1
    FLOOR = 2
    KNEES = 3
    FREE = 4


@dataclass(frozen=True)
class Archetype:
    """A pose worth varying: angles per part (both sides) or per `left_`/`right_` joint."""

    weight: float
    angles: dict[str, Triple]
    support: Support = Support.FEET
    pelvis: tuple[float, float] = (0, 0)
    """Tilt forwards and to the left, degrees, for poses that do not stand."""


def _hang(outward: float = 0, elbow: float = -12) -> dict[str, Triple]:
    return {"shoulder": (0, -5, -72 + outward), "elbow": (0, elbow, 0)}


ARCHETYPES: dict[str, Archetype] = {
    "stand": Archetype(3, {**_hang(), "hip": (0, 4, 3)}),
    "contrapposto": Archetype(
        1.5, {**_hang(), "left_hip": (-12, 8, 6), "left_knee": (18, 0, 0), "right_hip": (3, 0, -3), "spine1": (0, 0, 4)}
    ),
    "walk": Archetype(
        3,
        {
            **{"left_hip": (-28, 0, 1), "right_hip": (18, 0, 1), "left_knee": (12, 0, 0), "right_knee": (28, 0, 0)},
            **{"left_shoulder": (0, 20, -68), "right_shoulder": (0, -35, -68), "elbow": (0, -25, 0)},
            "right_ankle": (15, 0, 0),
        },
    ),
    "run": Archetype(
        1.5,
        {
            **{"left_hip": (-65, 0, 1), "right_hip": (20, 0, 1), "left_knee": (80, 0, 0), "right_knee": (45, 0, 0)},
            **{"left_shoulder": (0, 35, -60), "right_shoulder": (0, -60, -55), "elbow": (0, -85, 0)},
            **{"spine1": (8, 0, 0), "right_ankle": (25, 0, 0)},
        },
        Support.FREE,
        (8, 0),
    ),
    "sit": Archetype(
        1.6,
        {
            **{"hip": (-86, 6, 10), "knee": (84, 0, 0), "spine1": (6, 0, 0)},
            **{"shoulder": (0, -32, -56), "elbow": (0, -56, 0)},
        },
        Support.SEAT,
    ),
    "sit_leaning": Archetype(
        0.8,
        {
            **{"hip": (-80, 8, 16), "knee": (78, 0, 0), "spine1": (20, 0, 0), "spine2": (12, 0, 0)},
            **{"shoulder": (0, -54, -38), "elbow": (0, -56, 0), "neck": (-12, 0, 0)},
        },
        Support.SEAT,
        (8, 0),
    ),
    "floor_sit": Archetype(
        0.5,
        {"hip": (-88, 8, 12), "knee": (16, 0, 0), "ankle": (20, 0, 0), "shoulder": (0, 10, -48), "elbow": (0, -18, 0)},
        Support.FLOOR,
        (-10, 0),
    ),
    "knees_up": Archetype(
        0.5,
        {"hip": (-112, 4, 12), "knee": (105, 0, 0), "shoulder": (0, -48, -38), "elbow": (0, -42, 0)},
        Support.FLOOR,
        (-6, 0),
    ),
    "squat": Archetype(
        1,
        {
            **{"hip": (-100, 0, 18), "knee": (115, 0, 0), "ankle": (-20, 0, 0), "spine1": (22, 0, 0)},
            **{"spine2": (10, 0, 0), "shoulder": (0, -80, -5), "elbow": (0, -15, 0)},
        },
    ),
    "kneel": Archetype(
        0.8,
        {"hip": (-15, 0, 4), "knee": (105, 0, 0), "ankle": (35, 0, 0), "shoulder": (0, -10, -66), "elbow": (0, -20, 0)},
        Support.KNEES,
        (4, 0),
    ),
    "half_kneel": Archetype(
        0.6,
        {
            **{"left_hip": (-85, 4, 6), "left_knee": (88, 0, 0), "right_hip": (-4, 0, 4), "right_knee": (92, 0, 0)},
            **{"right_ankle": (30, 0, 0), "shoulder": (0, -32, -58), "elbow": (0, -42, 0)},
        },
        Support.KNEES,
    ),
    "lunge": Archetype(
        1,
        {
            **{"left_hip": (-78, 0, 3), "left_knee": (82, 0, 0), "right_hip": (22, 0, 2), "right_knee": (25, 0, 0)},
            **{"shoulder": (0, -20, -55), "elbow": (0, -30, 0), "right_foot": (20, 0, 0)},
        },
    ),
    "bend": Archetype(
        1,
        {
            **{"hip": (-62, 0, 4), "spine1": (22, 0, 0), "spine2": (14, 0, 0), "spine3": (8, 0, 0), "knee": (14, 0, 0)},
            **{"shoulder": (0, -72, -28), "elbow": (0, -14, 0)},
        },
    ),
    "kick": Archetype(
        0.8,
        {
            **{"left_hip": (-75, 0, 5), "left_knee": (25, 0, 0), "right_hip": (5, 0, 2), "elbow": (0, -25, 0)},
            **{"left_shoulder": (0, 15, -30), "right_shoulder": (0, -50, -30)},
        },
    ),
    "climb": Archetype(
        0.6,
        {
            **{"left_hip": (-85, 8, 20), "left_knee": (95, 0, 0), "right_knee": (20, 0, 0), "right_hip": (-8, 0, 8)},
            **{"left_shoulder": (0, -45, 50), "right_shoulder": (0, -60, -10), "elbow": (0, -50, 0)},
        },
        Support.FREE,
    ),
    "jump": Archetype(
        0.7,
        {"hip": (-35, 0, 10), "knee": (55, 0, 0), "ankle": (30, 0, 0), "shoulder": (0, -25, 35), "elbow": (0, -25, 0)},
        Support.FREE,
    ),
    "reach_up": Archetype(
        1,
        {
            **{"left_shoulder": (0, -20, 70), "right_shoulder": (0, -10, -70), "elbow": (0, -15, 0)},
            "left_collar": (0, 0, 18),
        },
    ),
    "arms_up": Archetype(1, {"shoulder": (0, -20, 62), "elbow": (0, -20, 0), "collar": (0, 0, 15)}),
    "arms_out": Archetype(1, {"shoulder": (0, -10, -5), "elbow": (0, -10, 0), "hip": (0, 4, 6)}),
    "reach_forward": Archetype(1, {"shoulder": (0, -85, -10), "elbow": (0, -12, 0)}),
    "point": Archetype(
        0.8,
        {
            **{"left_shoulder": (0, -60, -2), "left_elbow": (0, -6, 0), "head": (0, 15, 0)},
            **{"right_shoulder": (0, -5, -70), "right_elbow": (0, -16, 0)},
        },
    ),
    "wave": Archetype(
        0.8,
        {
            **{"left_shoulder": (-40, -20, -8), "left_elbow": (-20, -105, 0), "right_shoulder": (0, -5, -72)},
            "right_elbow": (0, -12, 0),
        },
    ),
    "phone": Archetype(
        1,
        {
            **{"left_shoulder": (10, -34, -58), "left_elbow": (0, -128, 0), "head": (8, 8, 0)},
            **{"right_shoulder": (0, -5, -70), "right_elbow": (0, -12, 0)},
        },
    ),
    "read": Archetype(1, {"shoulder": (0, -36, -62), "elbow": (0, -88, 0), "neck": (16, 0, 0), "head": (10, 0, 0)}),
    "hips": Archetype(1, {"shoulder": (-35, 12, -46), "elbow": (0, -80, 0), "wrist": (0, 0, -25)}),
    "arms_crossed": Archetype(
        0.8,
        {
            **{"left_shoulder": (-10, -46, -56), "left_elbow": (0, -100, 0)},
            **{"right_shoulder": (20, -52, -62), "right_elbow": (0, -92, 0)},
        },
    ),
    "carry": Archetype(1, {"shoulder": (0, -36, -68), "elbow": (10, -80, 0)}),
    "throw": Archetype(
        0.8,
        {
            **{"left_shoulder": (40, 25, 10), "left_elbow": (0, -95, 0), "right_shoulder": (0, -75, -15)},
            **{"right_elbow": (0, -15, 0), "spine1": (0, 12, 0), "spine2": (0, 10, 0), "spine3": (0, 10, 0)},
            **{"left_hip": (15, 0, 6), "right_hip": (-35, 0, 5), "right_knee": (25, 0, 0)},
        },
    ),
    "swing": Archetype(
        0.8,
        {
            **{"left_shoulder": (0, -95, -30), "right_shoulder": (0, -40, -45), "elbow": (0, -25, 0)},
            **{"spine1": (18, -12, 0), "spine2": (8, -12, 0), "spine3": (0, -8, 0), "hip": (-25, 0, 8)},
            "knee": (25, 0, 0),
        },
    ),
    "dance": Archetype(
        1,
        {
            **{"left_shoulder": (0, -30, 40), "right_shoulder": (0, -20, -20), "elbow": (0, -55, 0)},
            **{"left_hip": (-30, 15, 14), "left_knee": (50, 0, 0), "right_hip": (0, -5, 6), "spine1": (0, 8, 8)},
            **{"spine3": (0, -8, -6), "right_knee": (12, 0, 0)},
        },
    ),
    "arabesque": Archetype(
        0.4,
        {
            **{"left_hip": (28, 0, 20), "left_knee": (15, 0, 0), "right_hip": (-25, 0, 2), "left_ankle": (35, 0, 0)},
            **{"shoulder": (0, -25, 0), "elbow": (0, -15, 0)},
        },
    ),
    "all_fours": Archetype(
        0.4,
        {
            **{"hip": (-88, 0, 5), "knee": (92, 0, 0), "ankle": (35, 0, 0), "shoulder": (0, -88, -15)},
            **{"elbow": (0, -8, 0), "neck": (-15, 0, 0), "head": (-10, 0, 0)},
        },
        Support.FLOOR,
        (82, 0),
    ),
    "plank": Archetype(
        0.3,
        {"hip": (0, 0, 4), "ankle": (-20, 0, 0), "shoulder": (0, -80, -12), "elbow": (0, -12, 0), "neck": (-12, 0, 0)},
        Support.FLOOR,
        (72, 0),
    ),
    "lie_back": Archetype(
        0.4,
        {"hip": (-12, 0, 8), "knee": (25, 0, 0), "shoulder": (0, 0, -45), "elbow": (0, -25, 0), "ankle": (25, 0, 0)},
        Support.FLOOR,
        (-88, 0),
    ),
    "lie_side": Archetype(
        0.3,
        {
            **{"hip": (-35, 0, 4), "knee": (50, 0, 0), "left_shoulder": (0, -60, -30), "right_shoulder": (0, -70, -40)},
            "elbow": (0, -50, 0),
        },
        Support.FLOOR,
        (0, 86),
    ),
}


def _rows(table: dict[str, Triple]) -> Array:
    """(24, 3) angles from a table of parts and sided joints, in the left convention on both sides."""
    return np.array([table.get(name, table.get(_part(name), (0, 0, 0))) for name in NAMES], float)


_ANGLES = np.stack([_rows(a.angles) for a in ARCHETYPES.values()])  # (A, 24, 3)
_WEIGHT = np.cumsum([a.weight for a in ARCHETYPES.values()]) / sum(a.weight for a in ARCHETYPES.values())
_SUPPORT = np.array([a.support for a in ARCHETYPES.values()])
_PELVIS = np.array([a.pelvis for a in ARCHETYPES.values()], float)
_LIMITS = np.array([LIMITS[_part(name)] for name in NAMES], float)  # (24, 3, 2)
_NOISE = np.array([NOISE[_part(name)] for name in NAMES], float)
_MIRROR_SIGN = np.array([1.0, -1.0, -1.0])


def axis_rotations(angles_deg: Array) -> tuple[Array, Array, Array]:
    """Rotation matrices about x, y and z for angles (..., 3): three arrays (..., 3, 3)."""
    c, s = np.cos(np.deg2rad(angles_deg)), np.sin(np.deg2rad(angles_deg))
    out = []
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        m = np.zeros((*angles_deg.shape[:-1], 3, 3))
        m[..., axis, axis] = 1
        m[..., i, i] = m[..., j, j] = c[..., axis]
        m[..., j, i], m[..., i, j] = s[..., axis], -s[..., axis]
        out.append(m)
    return out[0], out[1], out[2]


def joint_rotations(angles_deg: Array) -> Array:
    """Local rotations (B, 24, 3, 3) of angles (B, 24, 3) that already are in SMPL's frame on both sides."""
    rx, ry, rz = axis_rotations(angles_deg)
    return np.where(ARM_LIKE[:, None, None], ry @ rz @ rx, rx @ rz @ ry)


def rotation_vector(rot: Array) -> Array:
    """Axis-angle (..., 3) of rotation matrices (..., 3, 3), stable at 0 and at π."""
    m = np.asarray(rot, float)
    trace = np.trace(m, axis1=-2, axis2=-1)
    # Four candidate quaternions (w, x, y, z), each exact where its own component is the largest.
    diag = np.stack([trace, m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]], -1)
    q = np.empty((*m.shape[:-2], 4, 4))
    skew = np.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1)
    q[..., 0, 0] = 1 + trace
    q[..., 0, 1:] = skew
    for i in range(3):
        q[..., i + 1, 0] = skew[..., i]
        for j in range(3):
            q[..., i + 1, j + 1] = m[..., i, j] + m[..., j, i]
        q[..., i + 1, i + 1] = 1 - trace + 2 * m[..., i, i]
    best = np.take_along_axis(q, diag.argmax(-1)[..., None, None], -2)[..., 0, :]
    best /= np.linalg.norm(best, axis=-1, keepdims=True)
    best = np.where(best[..., :1] < 0, -best, best)
    length = np.linalg.norm(best[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(length, best[..., :1])
    return best[..., 1:] * np.where(length > 1e-12, angle / np.maximum(length, 1e-12), 2.0)


def forward_kinematics(rot: Array, joints_rest: Array) -> tuple[Array, Array]:
    """World rotations (B, 24, 3, 3) and positions (B, 24, 3) of the joints; the pelvis stays where it rests."""
    world, where = np.empty_like(rot), np.empty(joints_rest.shape)
    for j, parent in enumerate(PARENTS):
        if parent < 0:
            world[:, j], where[:, j] = rot[:, j], joints_rest[:, j]
        else:
            world[:, j] = world[:, parent] @ rot[:, j]
            bone = joints_rest[:, j] - joints_rest[:, parent]
            where[:, j] = where[:, parent] + (world[:, parent] @ bone[..., None])[..., 0]
    return world, where


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
    return np.linalg.norm(between + d1 * t1[..., None] - d2 * t2[..., None], axis=-1)


def overlap(joints: Array) -> Array:
    """Deepest overlap of two body parts beyond what is forgiven, metres (B,), of joints (B, 24, 3); > 0 is bad."""
    start = joints[:, _FROM]
    end = joints[:, _TO] + (joints[:, _TO] - start) * _BEYOND[:, None]
    gap = segment_distance(start[:, _PAIR_A], end[:, _PAIR_A], start[:, _PAIR_B], end[:, _PAIR_B])
    return (_PAIR_REACH - gap).max(-1)


@dataclass(frozen=True)
class Poses:
    """Sampled poses; the pelvis is tilted as its support asks, but faces forwards.

    Attributes
    ----------
    rot : (B, 24, 3, 3)
        Local joint rotations, SMPL's frame.
    support : (B,)
        `Support` of each.
    archetype : tuple of B names
        `uniform` for poses drawn within the joint limits.
    attempts : (B,)
        Draws until one did not overlap itself.
    """

    rot: Array
    support: NDArray[np.int64]
    archetype: tuple[str, ...]
    attempts: NDArray[np.int64]


MAX_ATTEMPTS = 16


def sample_poses(seed: int, indices: Sequence[int], joints_rest: ArrayLike, uniform: float = 0.12) -> Poses:
    """Draw one pose per person.

    Parameters
    ----------
    seed, indices
        Name the people.
    joints_rest : (B, 24, 3)
        Their joints in the rest pose, metres.
    uniform : float
        Share of poses drawn within the joint limits instead of around archetypes.
    """
    rest = np.asarray(joints_rest, float)
    count = len(indices)
    rot, support = np.empty((count, 24, 3, 3)), np.zeros(count, np.int64)
    kind, attempts = np.zeros(count, np.int64), np.zeros(count, np.int64)
    names = [*ARCHETYPES, "uniform"]
    pending = np.arange(count)
    for attempt in range(MAX_ATTEMPTS):
        drawn = [_draw(stream(seed, indices[int(i)], Stream.POSE, attempt)) for i in pending]
        # Noise fades with the attempts; the last one is the noiseless archetype of standing, which is free of overlap.
        calm = 1 - attempt / (MAX_ATTEMPTS - 1)
        angles, rows, sup, pelvis = _angles(drawn, uniform, calm)
        local = joint_rotations(angles)
        local[:, 0] = _ground(local, rest[pending], sup, pelvis)
        good = overlap(forward_kinematics(local, rest[pending])[1]) <= 0
        good |= attempt == MAX_ATTEMPTS - 1
        done = pending[good]
        rot[done], support[done], kind[done], attempts[done] = local[good], sup[good], rows[good], attempt + 1
        pending = pending[~good]
        if not len(pending):
            break
    return Poses(rot, support, tuple(names[k] for k in kind), attempts)


def _draw(g: np.random.Generator) -> tuple[Array, Array, Array]:
    return g.random(8), g.standard_normal((25, 3)), g.beta(2, 2, (24, 3))


def _angles(
    drawn: list[tuple[Array, Array, Array]], uniform: float, calm: float
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64], Array]:
    """Angles in SMPL's frame (B, 24, 3), archetype rows, supports and pelvis tilts (B, 2) of raw draws."""
    u = np.stack([d[0] for d in drawn])
    normal = np.stack([d[1] for d in drawn])
    beta = np.stack([d[2] for d in drawn])
    first = np.searchsorted(_WEIGHT, u[:, 0], side="right").clip(0, len(_WEIGHT) - 1)
    second = np.searchsorted(_WEIGHT, u[:, 1], side="right").clip(0, len(_WEIGHT) - 1)
    is_uniform = (u[:, 2] < uniform) & (calm > 0)
    # A second archetype lends some of its flavour where both stand on their feet.
    both_stand = (_SUPPORT[first] == Support.FEET) & (_SUPPORT[second] == Support.FEET)
    blend = np.where((u[:, 3] < 0.4) & both_stand, 0.35 * u[:, 4], 0.0)[:, None, None]
    angles = (1 - blend) * _ANGLES[first] + blend * _ANGLES[second]
    angles = angles + calm * normal[:, :24] * _NOISE
    lo, hi = _LIMITS[..., 0], _LIMITS[..., 1]
    angles = np.where(is_uniform[:, None, None], lo + (hi - lo) * beta, angles)
    if calm == 0:
        first[:] = list(ARCHETYPES).index("stand")
        angles = _ANGLES[first]
    angles = np.clip(angles, lo, hi)
    flip = u[:, 5] < 0.5
    mirrored = np.where(IS_CENTRE[:, None], angles * _MIRROR_SIGN, angles[:, MIRROR])
    angles = np.where(flip[:, None, None], mirrored, angles)
    angles = np.where(IS_RIGHT[:, None], angles * _MIRROR_SIGN, angles)
    pelvis = _PELVIS[first] * np.stack([np.ones(len(u)), np.where(flip, -1.0, 1.0)], -1)
    pelvis = pelvis + calm * normal[:, 24, :2] * [5, 4]
    support = np.where(is_uniform, Support.FREE, _SUPPORT[first])
    pelvis = np.where(is_uniform[:, None], calm * normal[:, 24, :2] * [14, 8], pelvis)
    return angles, np.where(is_uniform, len(_WEIGHT), first), support, pelvis


# Rough share of the body's mass near each joint, for the balance of standing people (after Winter's segment masses).
_MASS: dict[str, float] = {
    "pelvis": 14,
    "spine1": 14,
    "spine2": 12,
    "spine3": 10,
    "head": 8,
    "hip": 10,
    "knee": 8,
    "ankle": 3,
}
_MASS |= {"shoulder": 4, "elbow": 2.5, "wrist": 1.2}
_MASSES = np.array([_MASS.get(_part(name), 0.0) for name in NAMES])
_MASSES /= _MASSES.sum()


def _ground(local: Array, rest: Array, support: NDArray[np.int64], pelvis: Array) -> Array:
    """Pelvis rotations (B, 3, 3): balanced over the feet, or tilted as the archetype says and settled."""
    upright = local.copy()
    upright[:, 0] = np.eye(3)
    _, joints = forward_kinematics(upright, rest)
    mass = (joints * _MASSES[:, None]).sum(1)
    ankles = joints[:, [NAMES.index("left_ankle"), NAMES.index("right_ankle")]]
    feet = joints[:, [NAMES.index("left_foot"), NAMES.index("right_foot")]]
    soles = 0.5 * (ankles + feet)
    # The lower foot carries the weight; at equal height both do.
    load = 1 / (1 + np.exp(-(soles[:, 1, 1] - soles[:, 0, 1]) / 0.04))
    foothold = load[:, None] * soles[:, 0] + (1 - load[:, None]) * soles[:, 1]
    lean = mass - foothold
    forwards = -np.rad2deg(np.arctan2(lean[:, 2], lean[:, 1]))
    sideways = np.rad2deg(np.arctan2(lean[:, 0], lean[:, 1]))
    stands = support == Support.FEET
    tilt = np.stack([np.where(stands, forwards, 0), np.zeros(len(local)), np.where(stands, sideways, 0)], -1)
    tilt = np.clip(tilt, -75, 75)
    tilt[:, 0] += np.where(stands, 0.3 * pelvis[:, 0], pelvis[:, 0])
    tilt[:, 2] -= np.where(stands, 0.3 * pelvis[:, 1], pelvis[:, 1])
    for kind, most in ((Support.FLOOR, 36.0), (Support.KNEES, 9.0)):  # upright on the knees, muscles keep the balance
        for k in np.flatnonzero(support == kind):
            tilt[k] += _settle(joints[k] - joints[k, 0], tilt[k], most)
    rx, _, rz = axis_rotations(tilt)
    return rx @ rz


# How far the skin lies below a joint when the body rests on the floor, metres.
_FLESH = {"pelvis": 0.1, "spine1": 0.1, "spine2": 0.1, "spine3": 0.12, "neck": 0.06, "head": 0.1, "shoulder": 0.06}
_FLESH |= {"hip": 0.1, "knee": 0.06, "ankle": 0.055, "elbow": 0.045, "wrist": 0.03, "hand": 0.02, "foot": 0.03}
_FLESHES = np.array([_FLESH.get(_part(name), 0.0) for name in NAMES])
_PITCHES, _ROLLS = np.arange(-36.0, 37, 3), np.arange(-18.0, 19, 3)


def _settle(joints: Array, tilt: Array, most: float) -> Array:
    """Extra tilt (3,) of at most `most` degrees with which a stiff body (24, 3) comes to rest.

    Downhill from where it is, in the height of its mass above its lowest point.
    """
    trial = np.zeros((len(_PITCHES), len(_ROLLS), 3))
    trial[..., 0], trial[..., 2] = _PITCHES[:, None], _ROLLS[None]
    rx, _, rz = axis_rotations(tilt + trial)
    height = (rx @ rz)[..., 1, :] @ joints.T  # (P, R, 24)
    energy = height @ _MASSES - (height - _FLESHES).min(-1)
    energy[(np.abs(trial) > most).any(-1)] = np.inf
    i, j = len(_PITCHES) // 2, len(_ROLLS) // 2
    while True:
        around = energy[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        k, m = np.unravel_index(around.argmin(), around.shape)
        if around[k, m] >= energy[i, j]:
            return trial[i, j]
        i, j = max(i - 1, 0) + int(k), max(j - 1, 0) + int(m)
