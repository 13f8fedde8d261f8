"""The colour of a person at a place, put together from `cloth` and `head`.

What is called for each sample is inlined by force: passing tuples of arrays costs more than what they compute.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metro.kernels import njit
from metro.synthetic.cloth import Place, paint_legs, paint_shirt, tint
from metro.synthetic.head import paint_face, paint_hair, paint_hand
from metro.synthetic.looks import Look, Marks
from metro.synthetic.textures import Noise, noise_at

Array = NDArray[np.float32]


@njit
def person_albedo(
    rx: float,
    ry: float,
    rz: float,
    footprint: float,
    marks: Marks,
    look: Look,
    noise: Noise,
    tiles: Array,
    surfaces: int,
    out: Array,
) -> tuple[float, float]:
    """Colour of a dressed person, linear RGB, written to `out` (3,).

    Parameters
    ----------
    rx, ry, rz : float
        Place on the rest pose, metres.
    footprint : float
        Width of the sample, metres.
    marks, look : records of `looks.MARKS` and `looks.LOOK`
    noise, tiles, surfaces
        The noise volume, the atlas, and how many of its tiles are surfaces.

    Returns
    -------
    gloss, fold : float
        Strength of the highlight, and how strongly folds tilt the normal.
    """
    ax = abs(rx)
    fine = noise_at(noise, rx * 60 + look.seed_x, ry * 60 + look.seed_y, rz * 60)
    broad = noise_at(noise, rx * 18 + look.seed_y, ry * 18 + look.seed_x, rz * 18)
    at = Place(rx, ry, rz, ax, footprint, fine, broad)
    arm = ax > marks.shoulder_x - 0.03 and ry > marks.arm_y - 0.16
    neck = ry > marks.chin_y - 0.06 and ax < marks.shoulder_x * 0.6
    tint(out, look.skin, 0.9 + 0.2 * broad)
    gloss, fold = look.skin_gloss, 0.0
    if not (arm or neck) and ry < look.waist_y:
        gloss, fold = paint_legs(at, marks, look, gloss, fold, out)
    if not neck:
        gloss, fold = paint_shirt(at, arm, marks, look, tiles, surfaces, gloss, fold, out)
    if arm and ax > marks.wrist_x - 0.005:
        gloss = paint_hand(at, look, noise, gloss, out)
    if neck and ry > marks.chin_y - 0.015 and rz > marks.eye_z - 0.045:
        gloss = paint_face(at, marks, look, gloss, out)
    if neck:
        gloss, fold = paint_hair(at, marks, look, noise, gloss, fold, out)
    return gloss, fold
