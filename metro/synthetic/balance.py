"""How a posed body stands, kneels or lies: the tilt of its pelvis."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from metro.kernels import njit
from metro.synthetic import exact
from metro.synthetic.archetypes import NAMES, Support, pose_table
from metro.synthetic.rotations import axis_rotations, product

Array = NDArray[np.float64]

SETTLE = {Support.FLOOR: 36.0, Support.KNEES: 9.0}
"""Most degrees that bodies fall from where their archetype puts them; on the knees muscles keep the balance."""
STEP, MOST_ROLL = 3.0, 18.0
"""Degrees."""


def pelvis_rotations(joints: Array, support: NDArray[np.int64], pelvis: Array) -> Array:
    """Rotations (B, 3, 3) of the pelvis: balanced over the feet, or tilted as asked and settled.

    `joints` (B, 24, 3) are those of the body with its pelvis upright, `pelvis` (B, 2) the tilt that the archetype asks
    for: forwards and to the left, degrees.
    """
    table = pose_table()
    left, right = (
        0.5 * (joints[:, NAMES.index(f"{side}_ankle")] + joints[:, NAMES.index(f"{side}_foot")])
        for side in ("left", "right")
    )
    # The lower foot carries the weight; at equal height both do.
    load = 1 / (1 + exact.exp(-(right[:, 1] - left[:, 1]) / 0.04))[:, None]
    lean = (joints * table.mass[:, None]).sum(1) - (load * left + (1 - load) * right)
    stands = support == Support.FEET
    tilt = np.zeros((len(joints), 3))
    tilt[:, 0] = np.where(stands, -np.rad2deg(exact.arctan2(lean[:, 2], lean[:, 1])), 0)
    tilt[:, 2] = np.where(stands, np.rad2deg(exact.arctan2(lean[:, 0], lean[:, 1])), 0)
    tilt = np.clip(tilt, -75, 75)
    tilt[:, [0, 2]] += np.where(stands, 0.3, 1.0)[:, None] * pelvis * [1, -1]
    for kind, most in SETTLE.items():
        for k in np.flatnonzero(support == kind):
            pitch, roll = settle(joints[k] - joints[k, 0], tilt[k, 0], tilt[k, 2], most, table.mass, table.flesh)
            tilt[k, [0, 2]] += pitch, roll
    rx, _, rz = axis_rotations(tilt)
    return product(rx, rz)


@njit
def settle(joints: Array, pitch: float, roll: float, most: float, mass: Array, flesh: Array) -> tuple[float, float]:
    """Extra pitch and roll, degrees, with which a stiff body (24, 3) comes to rest.

    Downhill from where it is, in the height of its mass above its lowest point, at most `most` degrees far.
    """
    dp, dr = 0.0, 0.0
    best = _energy(joints, pitch, roll, mass, flesh)
    while True:
        p, r = dp, dr
        for i in range(-1, 2):
            for j in range(-1, 2):
                a, b = p + i * STEP, r + j * STEP
                if abs(a) <= most and abs(b) <= min(most, MOST_ROLL):
                    energy = _energy(joints, pitch + a, roll + b, mass, flesh)
                    if energy < best:
                        best, dp, dr = energy, a, b
        if dp == p and dr == r:
            return dp, dr


@njit
def _energy(joints: Array, pitch: float, roll: float, mass: Array, flesh: Array) -> float:
    """Height of the mass of a body above its lowest point."""
    p, r = math.pi / 180 * pitch, math.pi / 180 * roll
    x, y, z = exact.cos(p) * exact.sin(r), exact.cos(p) * exact.cos(r), -exact.sin(p)  # what points up
    centre, lowest = 0.0, np.inf
    for j in range(joints.shape[0]):
        height = x * joints[j, 0] + y * joints[j, 1] + z * joints[j, 2]
        centre += mass[j] * height
        lowest = min(lowest, height - flesh[j])
    return centre - lowest
