"""Colours of cloth and shoes on a body, for `albedo.person_albedo`.

Every function paints `out` (3,), linear RGB, and returns gloss and how strongly folds tilt the normal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.kernels import njit
from metro.synthetic.looks import BANDS, BLOCK, BLOTCHES, DENIM, DOTS, FADE, PINSTRIPES, PLAID, Look, Marks
from metro.synthetic.textures import tile_at

Array = NDArray[np.float32]


class Place(NamedTuple):
    """A sample on the rest pose."""

    x: float  # metres
    y: float
    z: float
    ax: float  # |x|
    blur: float  # width of the sample, metres
    fine: float  # noise in [0, 1] of about 17 mm
    broad: float  # and of 55 mm


@njit(inline="always")
def ramp(lo: float, hi: float, x: float) -> float:
    """0 at `lo`, 1 at `hi`, smooth between them; constant beyond."""
    t = min(max((x - lo) / (hi - lo), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@njit(forceinline=True)
def tint(out: Array, colour: Array, factor: float) -> None:
    """Set a colour to another times a factor."""
    for c in range(3):
        out[c] = colour[c] * factor


@njit(forceinline=True)
def darken(out: Array, factor: float) -> None:
    """Multiply a colour."""
    for c in range(3):
        out[c] *= factor


@njit
def weave(
    pattern: int, scale: float, along: float, around: float, at: Place, first: Array, second: Array, out: Array
) -> None:
    """Colour of cloth at (along, around) metres; patterns finer than a sample fade."""
    m = 0.0
    if pattern == BANDS:
        m = 1.0 if (along * scale) % 1.0 < 0.5 else 0.0
    elif pattern == PINSTRIPES:
        m = 0.8 if (around * scale * 1.6) % 1.0 < 0.25 else 0.0
    elif pattern == PLAID:
        m = (0.5 if (along * scale) % 1.0 < 0.45 else 0.0) + (0.5 if (around * scale) % 1.0 < 0.45 else 0.0)
    elif pattern == BLOTCHES:
        m = ramp(0.5, 0.56, at.broad)
    elif pattern == DOTS:
        u, w = (along * scale) % 1.0 - 0.5, (around * scale) % 1.0 - 0.5
        m = 1.0 if u * u + w * w < 0.06 else 0.0
    elif pattern == BLOCK:
        m = 1.0 if along > 0.0 else 0.0
    elif pattern == FADE:
        m = min(max(0.5 + along * 2, 0.0), 1.0)
    elif pattern == DENIM:
        m = 0.18 * ramp(0.02, 0.09, at.z) + 0.25 * (at.broad - 0.5)
    if pattern in (BANDS, PINSTRIPES, PLAID, DOTS):
        fade = ramp(0.9, 0.35, at.blur * scale) if at.blur * scale > 0.35 else 1.0
        m = m * fade + 0.45 * (1 - fade)
    for c in range(3):
        out[c] = first[c] + (second[c] - first[c]) * m


@njit(forceinline=True)
def paint_legs(at: Place, marks: Marks, look: Look, gloss: float, fold: float, out: Array) -> tuple[float, float]:
    """Trousers, tights, socks and shoes."""
    leg = look.leg_y + 0.006 * (at.fine - 0.5)
    if at.y > leg:
        weave(look.pants_pattern, look.pants_scale, at.y, at.x, at, look.pants, look.pants2, out)
        gloss, fold = look.cloth_gloss, look.wrinkle
        seam = at.ax if at.y > marks.crotch_y else abs(at.ax - marks.hip_x)
        shade = 0.9 + 0.2 * at.fine
        if seam < 0.004:
            shade *= 0.88
        if at.y < leg + 0.02:
            shade *= 0.85
        darken(out, shade)
    elif look.tights:
        for c in range(3):
            out[c] = 0.35 * out[c] + 0.65 * look.sock[c] * 0.4
    elif not look.barefoot and at.y < look.sock_y:
        tint(out, look.sock, 0.85 + 0.3 * at.fine)
        gloss = 0.0
    if not look.barefoot and at.y < look.shoe_y + 0.004 * (at.fine - 0.5):
        tint(out, look.sole if at.y < marks.sole_y + 0.022 else look.shoe, 0.9 + 0.2 * at.fine)
        gloss, fold = 0.06, 0.0
    return gloss, fold


@njit(forceinline=True)
def paint_shirt(
    at: Place,
    arm: bool,
    marks: Marks,
    look: Look,
    tiles: Array,
    surfaces: int,
    gloss: float,
    fold: float,
    out: Array,
) -> tuple[float, float]:
    """Shirt or jacket, with a print on the chest, and the belt below it."""
    radius = np.sqrt(at.x * at.x + (at.z - marks.neck_z) ** 2)
    line = look.neckline_y - 1.2 * max(0.085 - radius, 0.0) + 3.0 * max(radius - look.neck_radius, 0.0)
    if look.neck_v > 0 and at.z > marks.neck_z:
        line = min(line, look.neckline_y - look.neck_v + 1.6 * at.ax)
    edge = 0.005 * (at.fine - 0.5)
    on_sleeve = arm and at.ax < look.sleeve_x + edge
    on_body = (not arm) and at.y < line and at.y > look.hem_y + edge
    if on_sleeve or on_body:
        if on_sleeve:
            along, around = marks.shoulder_x - at.ax, at.y - marks.arm_y + at.z
        else:
            along, around = at.y - marks.chest_y + 0.03, at.x
        weave(look.shirt_pattern, look.shirt_scale, along, around, at, look.shirt, look.shirt2, out)
        shade = 0.9 + 0.2 * at.fine
        if on_body and at.z > marks.neck_z + 0.02:
            if look.jacket > 0:
                shade *= _paint_opening(at, marks, look, out)
            elif look.print_tile >= 0:
                _paint_print(at, marks, look, tiles, surfaces, out)
        if (on_sleeve and at.ax > look.sleeve_x - 0.018) or (on_body and at.y < look.hem_y + 0.016):
            shade *= 0.86
        if on_body and at.y > line - 0.012:
            shade *= 0.88
        darken(out, shade)
        gloss, fold = look.cloth_gloss, look.wrinkle
    elif (not arm) and look.belt and abs(at.y - look.waist_y + 0.016) < 0.016:
        tint(out, look.shoe, 0.6)
        gloss, fold = 0.06, 0.0
    return gloss, fold


@njit(forceinline=True)
def _paint_opening(at: Place, marks: Marks, look: Look, out: Array) -> float:
    """The shirt between the sides of an open jacket; returns the shade at its edges."""
    opening = look.jacket * (0.6 + 1.2 * (marks.neck_y - at.y))
    if at.ax < opening:
        tint(out, look.shirt2, 1.0)
        return 0.6 if at.ax > opening - 0.008 else 1.0
    return 1.12 if at.ax < opening + 0.03 and at.y > marks.chest_y else 1.0


@njit(forceinline=True)
def _paint_print(at: Place, marks: Marks, look: Look, tiles: Array, surfaces: int, out: Array) -> None:
    """A picture on the chest."""
    u, v = at.x / look.print_size / 2 + 0.5, (marks.chest_y - at.y) / look.print_size / 2 + 0.5
    if u > 0 and u < 1 and v > 0 and v < 1:
        out[0], out[1], out[2] = tile_at(tiles, surfaces + look.print_tile, u, v, at.blur / look.print_size / 2)
