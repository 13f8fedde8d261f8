"""Poses of synthetic people: archetypes with noise, joint limits, mirroring, and rejection of overlap.

The archetypes and limits are `archetypes.pose_table`, whose file says how angles are written. What is random about a
person comes from its own `streams`. Sums here run over few numbers or along outer axes, which NumPy adds in one order
everywhere; matrix products and functions of angles are `exact`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metro.body.joints import PARENTS, flip_permutation
from metro.synthetic.archetypes import NAMES, Support, part_of, pose_table
from metro.synthetic.balance import pelvis_rotations
from metro.synthetic.overlap import overlap
from metro.synthetic.rotations import axis_rotations, product
from metro.synthetic.skinning import place_joints
from metro.synthetic.streams import Stream, stream

Array = NDArray[np.float64]

IS_RIGHT = np.array([name.startswith("right_") for name in NAMES])
IS_CENTRE = np.array([part_of(name) == name for name in NAMES])
MIRROR = np.array(flip_permutation(NAMES))
ARM_LIKE = np.array([part_of(name) in ("collar", "shoulder", "elbow", "wrist", "hand") for name in NAMES])
_MIRROR_SIGN = np.array([1.0, -1.0, -1.0])
_PARENTS = np.array(PARENTS["SMPL24"])


def joint_rotations(angles_deg: Array) -> Array:
    """Local rotations (B, 24, 3, 3) of angles (B, 24, 3) that already are in SMPL's frame on both sides."""
    rx, ry, rz = axis_rotations(angles_deg)
    return np.where(ARM_LIKE[:, None, None], product(ry, rz, rx), product(rx, rz, ry))


def forward_kinematics(rot: Array, joints_rest: Array) -> Array:
    """Positions (B, 24, 3) of the joints; the pelvis stays where it rests."""
    return np.stack([place_joints(*body, _PARENTS)[1] for body in zip(rot, joints_rest, strict=True)])


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


def sample_poses(
    seed: int, indices: Sequence[int], joints_rest: ArrayLike, uniform: float = 0.12, pastimes: float = 0.0
) -> Poses:
    """Draw one pose per person.

    Parameters
    ----------
    seed, indices
        Name the people.
    joints_rest : (B, 24, 3)
        Their joints in the rest pose, metres.
    uniform : float
        Share of poses drawn within the joint limits instead of around archetypes.
    pastimes : float
        Share of the other poses that are drawn around the file's pastimes instead of its archetypes.
    """
    rest = np.asarray(joints_rest, float)
    count = len(indices)
    rot, support = np.empty((count, 24, 3, 3)), np.zeros(count, np.int64)
    kind, attempts = np.zeros(count, np.int64), np.zeros(count, np.int64)
    names = [*pose_table().names, "uniform"]
    pending = np.arange(count)
    for attempt in range(MAX_ATTEMPTS):
        drawn = [_draw(stream(seed, indices[int(i)], Stream.POSE, attempt)) for i in pending]
        # Noise fades with the attempts; the last one is the noiseless archetype of standing, which is free of overlap.
        calm = 1 - attempt / (MAX_ATTEMPTS - 1)
        angles, rows, sup, pelvis = _angles(drawn, uniform, pastimes, calm)
        local = joint_rotations(angles)
        local[:, 0] = np.eye(3)
        local[:, 0] = pelvis_rotations(forward_kinematics(local, rest[pending]), sup, pelvis)
        good = overlap(forward_kinematics(local, rest[pending])) <= 0
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
    drawn: list[tuple[Array, Array, Array]], uniform: float, pastimes: float, calm: float
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64], Array]:
    """Angles in SMPL's frame (B, 24, 3), archetype rows, supports and pelvis tilts (B, 2) of raw draws."""
    table = pose_table()
    u, normal, beta = (np.stack(column) for column in zip(*drawn, strict=True))
    first, second = (np.searchsorted(table.share, u[:, k], side="right").clip(0, len(table.share) - 1) for k in (0, 1))
    chosen = len(table.share) + np.searchsorted(table.pastime_share, u[:, 0], side="right")
    first = np.where(u[:, 6] < pastimes, chosen.clip(0, len(table.names) - 1), first)
    is_uniform = (u[:, 2] < uniform) & (calm > 0)
    # A second archetype lends some of its flavour where both stand on their feet.
    both_stand = (table.support[first] == Support.FEET) & (table.support[second] == Support.FEET)
    blend = np.where((u[:, 3] < 0.4) & both_stand, 0.35 * u[:, 4], 0.0)[:, None, None]
    angles = (1 - blend) * table.angles[first] + blend * table.angles[second]
    angles = angles + calm * normal[:, :24] * table.noise
    lo, hi = table.limits[..., 0], table.limits[..., 1]
    angles = np.where(is_uniform[:, None, None], lo + (hi - lo) * beta, angles)
    if calm == 0:
        first[:] = table.names.index("stand")
        angles = table.angles[first]
    angles = np.clip(angles, lo, hi)
    flip = u[:, 5] < 0.5
    mirrored = np.where(IS_CENTRE[:, None], angles * _MIRROR_SIGN, angles[:, MIRROR])
    angles = np.where(flip[:, None, None], mirrored, angles)
    angles = np.where(IS_RIGHT[:, None], angles * _MIRROR_SIGN, angles)
    pelvis = table.pelvis[first] * np.stack([np.ones(len(u)), np.where(flip, -1.0, 1.0)], -1)
    pelvis = pelvis + calm * normal[:, 24, :2] * [5, 4]
    support = np.where(is_uniform, Support.FREE, table.support[first])
    pelvis = np.where(is_uniform[:, None], calm * normal[:, 24, :2] * [14, 8], pelvis)
    return angles, np.where(is_uniform, len(table.names), first), support, pelvis
