"""Poses that the correctives and regressors are fitted to: archetypes, noise, and uniform draws within joint limits.

Angles are degrees about x, y, z in SMPL's axes for the left side and the mid-line; the right side mirrors them. This
sampler is part of the recipe of the shipped arrays: changing it changes them.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from tools.open_body.skeleton import SMPL24

Angles = tuple[float, float, float]

_LIMITS = {
    "hip": ((-115, 25), (-35, 35), (-20, 45)),
    "knee": ((0, 140), (-5, 5), (-3, 3)),
    "ankle": ((-25, 40), (-15, 15), (-12, 12)),
    "foot": ((-15, 25), (-3, 3), (-3, 3)),
    "spine1": ((-10, 35), (-15, 15), (-12, 12)),
    "spine2": ((-8, 25), (-15, 15), (-10, 10)),
    "spine3": ((-8, 20), (-15, 15), (-10, 10)),
    "neck": ((-20, 30), (-35, 35), (-18, 18)),
    "head": ((-20, 25), (-35, 35), (-12, 12)),
    "collar": ((-6, 6), (-15, 10), (-8, 22)),
    "shoulder": ((-60, 60), (-110, 35), (-85, 75)),
    "elbow": ((-60, 60), (-145, 0), (-4, 4)),
    "wrist": ((-25, 25), (-20, 20), (-55, 50)),
    "hand": ((-3, 3), (-8, 8), (-35, 10)),
}

_NOISE: dict[str, Angles] = {
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

# Joint → angles; "L:" and "R:" tell the sides apart, both in the left side's signs.
_ARCHETYPES: dict[str, dict[str, Angles]] = {
    "stand": {"shoulder": (0, -5, -72), "elbow": (0, -12, 0), "hip": (0, 4, 3)},
    "walk": {
        **{"L:hip": (-28, 0, 1), "R:hip": (18, 0, 1), "L:knee": (12, 0, 0), "R:knee": (28, 0, 0)},
        **{"L:shoulder": (0, 20, -68), "R:shoulder": (0, -35, -68), "elbow": (0, -25, 0), "R:ankle": (15, 0, 0)},
    },
    "run": {
        **{"L:hip": (-65, 0, 1), "R:hip": (20, 0, 1), "L:knee": (80, 0, 0), "R:knee": (45, 0, 0)},
        **{"L:shoulder": (0, 35, -60), "R:shoulder": (0, -60, -55), "elbow": (0, -85, 0)},
        **{"spine1": (8, 0, 0), "R:ankle": (25, 0, 0)},
    },
    "sit": {
        **{"hip": (-88, 0, 8), "knee": (85, 0, 0), "shoulder": (0, -30, -66), "elbow": (0, -45, 0)},
        "spine1": (8, 0, 0),
    },
    "squat": {
        **{"hip": (-100, 0, 18), "knee": (115, 0, 0), "ankle": (-20, 0, 0), "shoulder": (0, -80, -5)},
        **{"elbow": (0, -15, 0), "spine1": (22, 0, 0), "spine2": (10, 0, 0)},
    },
    "reach_up": {
        **{"L:shoulder": (0, -20, 70), "R:shoulder": (0, -10, -70), "elbow": (0, -15, 0)},
        "L:collar": (0, 0, 18),
    },
    "arms_up": {"shoulder": (0, -20, 62), "elbow": (0, -20, 0), "collar": (0, 0, 15)},
    "arms_out": {"shoulder": (0, -10, -5), "elbow": (0, -10, 0)},
    "reach_fwd": {"shoulder": (0, -85, -10), "elbow": (0, -12, 0)},
    "bend": {
        **{"hip": (-55, 0, 3), "spine1": (25, 0, 0), "spine2": (15, 0, 0), "spine3": (8, 0, 0)},
        **{"shoulder": (0, -70, -35), "elbow": (0, -10, 0), "knee": (12, 0, 0)},
    },
    "phone": {
        **{"L:shoulder": (10, -30, -62), "L:elbow": (0, -130, 0), "R:shoulder": (0, -5, -72)},
        **{"R:elbow": (0, -12, 0), "head": (8, 8, 0)},
    },
    "hips": {"shoulder": (-35, 12, -48), "elbow": (0, -80, 0), "wrist": (0, 0, -25)},
    "kick": {
        **{"L:hip": (-75, 0, 5), "L:knee": (25, 0, 0), "R:hip": (5, 0, 2), "L:shoulder": (0, 15, -30)},
        **{"R:shoulder": (0, -50, -30), "elbow": (0, -25, 0)},
    },
    "lunge": {
        **{"L:hip": (-80, 0, 3), "L:knee": (85, 0, 0), "R:hip": (22, 0, 2), "R:knee": (25, 0, 0)},
        **{"shoulder": (0, -20, -55), "elbow": (0, -30, 0), "R:foot": (20, 0, 0)},
    },
    "carry": {"shoulder": (0, -35, -70), "elbow": (10, -90, 0)},
    "kneel": {
        **{"hip": (-15, 0, 4), "knee": (105, 0, 0), "ankle": (35, 0, 0), "shoulder": (0, -10, -68)},
        "elbow": (0, -20, 0),
    },
}
_FREQUENCY = {"stand": 3.0, "walk": 3.0, "run": 1.5, "sit": 2.0}

# Limbs swing first and twist innermost in the arms, the other way round elsewhere.
_TWIST_LAST = ("shoulder", "elbow", "wrist", "hand", "collar")


def sample_poses(count: int, seed: int, uniform_share: float, any_heading: bool = False) -> np.ndarray:
    """Joint rotations (N, 24, 3, 3), each relative to its parent.

    Parameters
    ----------
    count, seed
        How many, and the seed.
    uniform_share
        Share drawn within the joint limits instead of around an archetype.
    any_heading
        Whether the root is turned: any heading, slight tilt.
    """
    rng = np.random.default_rng(seed)
    names = list(_ARCHETYPES)
    frequency = np.array([_FREQUENCY.get(name, 1.0) for name in names])
    frequency /= frequency.sum()
    degrees = np.zeros((count, 24, 3))
    for pose in degrees:
        first = names[rng.choice(len(names), p=frequency)]
        flipped = rng.random() < 0.5
        uniform = rng.random() < uniform_share
        second = names[rng.choice(len(names), p=frequency)]
        share = rng.random() * 0.35 if rng.random() < 0.4 else 0.0
        for joint, name in enumerate(SMPL24[1:], 1):
            kind = _kind(name)
            low, high = np.array(_LIMITS[kind], float).T
            if uniform:
                angles = low + (high - low) * rng.beta(2, 2, 3)
            else:
                mixed = (1 - share) * _archetype(first, name, flipped) + share * _archetype(second, name, flipped)
                angles = mixed + rng.normal(size=3) * _NOISE[kind]
            angles = np.clip(angles, low, high)
            central = not name.startswith(("left_", "right_"))
            if name.startswith("right_") or (central and not uniform and rng.random() < 0.5):
                angles = angles * [1, -1, -1]
            pose[joint] = angles
    rotations = _rotations(degrees)
    if any_heading:
        heading = Rotation.from_euler("y", rng.uniform(-180, 180, (count, 1)), degrees=True)
        tilt = Rotation.from_euler("xz", rng.normal(size=(count, 2)) * [10, 6], degrees=True)
        rotations[:, 0] = (heading * tilt).as_matrix()
    return rotations


def _kind(joint: str) -> str:
    return joint.removeprefix("left_").removeprefix("right_")


def _archetype(pose: str, joint: str, flipped: bool) -> np.ndarray:
    angles, kind = _ARCHETYPES[pose], _kind(joint)
    if joint == kind:
        return np.array(angles.get(kind, (0, 0, 0)), float)
    side = "L" if joint.startswith("left_") != flipped else "R"
    return np.array(angles.get(f"{side}:{kind}", angles.get(kind, (0, 0, 0))), float)


def _rotations(degrees_NJ3: np.ndarray) -> np.ndarray:
    out = np.zeros((*degrees_NJ3.shape, 3))
    for joint, name in enumerate(SMPL24):
        order = "YZX" if _kind(name) in _TWIST_LAST else "XZY"
        angles = degrees_NJ3[:, joint][:, ["XYZ".index(axis) for axis in order]]
        out[:, joint] = Rotation.from_euler(order, angles, degrees=True).as_matrix()
    return out
