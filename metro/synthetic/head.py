"""Colours of skin, face and hair, for `albedo.person_albedo`; see `cloth`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metro.kernels import njit
from metro.synthetic import exact
from metro.synthetic.cloth import Place, darken, ramp, tint
from metro.synthetic.looks import BALD, KNITTED_CAP, LONG, MEDIUM, NO_CAP, Look, Marks
from metro.synthetic.textures import Noise, noise_at

Array = NDArray[np.float32]


@njit(forceinline=True)
def paint_hand(at: Place, look: Look, noise: Noise, gloss: float, out: Array) -> float:
    """A glove, or darker creases between the fingers; returns the gloss."""
    if look.gloves:
        tint(out, look.hat, 0.85 + 0.3 * at.fine)
        return 0.01
    darken(out, 0.86 + 0.28 * noise_at(noise, at.x * 30, at.y * 30, at.z * 110))
    return gloss


@njit(forceinline=True)
def paint_face(at: Place, marks: Marks, look: Look, gloss: float, out: Array) -> float:
    """Cheeks, eyes, brows, lips and nostrils; returns the gloss."""
    ex, ey = at.ax - marks.eye_x, at.y - marks.eye_y
    flush = exact.exp(-((at.ax - 0.04) ** 2 + (at.y - marks.nose_y + 0.012) ** 2) / 0.0006)
    out[1] *= 1 - 0.12 * flush
    out[2] *= 1 - 0.12 * flush
    socket = exact.exp(-(ex * ex + (ey * 1.3) ** 2) / 0.00035)
    darken(out, 1 - 0.28 * socket)
    d2 = (ex / 0.0135) ** 2 + (ey / 0.0065) ** 2
    if d2 < 1:
        iris = np.sqrt(ex * ex + ey * ey)
        for c in range(3):
            out[c] = look.iris[c] if iris < 0.0062 else 0.55
        if iris < 0.003:
            out[0], out[1], out[2] = 0.01, 0.01, 0.01
        gloss = 0.25
    elif d2 < 1.9 and ey > 0:  # lashes
        darken(out, 0.35)
    brow = marks.eye_y + 0.021 - 2.5 * (ex - 0.004) ** 2 / 0.03
    if abs(at.y - brow) < 0.0045 and abs(ex) < 0.019:
        for c in range(3):
            out[c] = 0.3 * out[c] + 0.7 * look.hair[c]
    lip_y = at.y - marks.mouth_y
    if (at.ax / 0.025) ** 2 + (lip_y / 0.0095) ** 2 < 1:
        tint(out, look.lip, 0.45 if abs(lip_y) < 0.0014 else 1.0)
        gloss = 0.12
    nostril = (at.ax - 0.009) ** 2 + (at.y - marks.nose_y + 0.015) ** 2
    if nostril < 0.00002 and at.z > marks.nose_z - 0.025:
        darken(out, 0.45)
    return gloss


@njit
def hair_margin(x: float, y: float, z: float, marks: Marks, look: Look) -> float:
    """Height above the hair line in metres; positive is hair. The line rises over the ears to the forehead."""
    front = marks.eye_y + look.hair_front * (marks.top_y - marks.eye_y)
    side = marks.ear_y + 0.012
    nape = marks.chin_y + 0.028 - look.hair_nape
    falls = look.hair_style == MEDIUM or look.hair_style == LONG
    if falls:
        nape -= 0.09
        side -= 0.03
    t = (z - marks.ear_z) / (marks.eye_z - marks.ear_z)
    line = nape + (side - nape) * ramp(-0.25, -0.02, t) + (front - side) * ramp(0.28, 0.62, t)
    if t > -0.1 and t < 0.2 and abs(x) > marks.ear_x - 0.006 and not falls:  # the ear itself
        line = max(line, marks.ear_y + 0.03)
    return y - line


@njit(forceinline=True)
def paint_hair(
    at: Place, marks: Marks, look: Look, noise: Noise, gloss: float, fold: float, out: Array
) -> tuple[float, float]:
    """Hair and cap. Returns gloss and how strongly folds tilt the normal."""
    margin = hair_margin(at.x, at.y, at.z, marks, look) + 0.014 * (at.fine - 0.5)
    if look.hair_style != BALD and margin > 0:
        strand = noise_at(noise, at.x * 130 + look.seed_x, at.y * 25 + look.seed_y, at.z * 130)
        tint(out, look.hair, 0.45 + 1.1 * strand)
        gloss, fold = 0.05, 0.5
    if look.cap != NO_CAP:
        brim = marks.eye_y + 0.04
        if at.z < marks.ear_z + 0.02:
            brim -= 0.02 * ramp(marks.ear_z + 0.02, marks.ear_z - 0.06, at.z)
        if at.y > brim:
            tint(out, look.hat, 0.85 + 0.3 * at.fine)
            if look.cap == KNITTED_CAP and (at.y * 60) % 1.0 < 0.4:
                darken(out, 0.7)
            gloss, fold = 0.01, 0.15
    return gloss, fold
