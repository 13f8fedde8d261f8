"""How a person is dressed and painted: drawn once per person, evaluated per sample by `person_albedo`.

There is no texture map. Every sample knows where it lies on the *rest pose* of the mean body, and cloth, hair and face
are functions of that place, bounded by landmarks of the body at hand (joints, nose, eyes, ears, chin), so that they
stay where they belong on any body with SMPL's joints. Colours are linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from metro.body.arrays import BodyData
from metro.body.joints import JOINT_SETS
from metro.synthetic.textures import Noise, noise_at, tile_at

Array = NDArray[np.float32]

# Landmarks of the rest pose, entries of one array (metres).
(
    M_SHOULDER_X,
    M_ELBOW_X,
    M_WRIST_X,
    M_ARM_Y,
    M_ARM_Z,
    M_NECK_Y,
    M_NECK_Z,
    M_CHEST_Y,
    M_WAIST_Y,
    M_HIP_Y,
    M_HIP_X,
    M_KNEE_Y,
    M_ANKLE_Y,
    M_SOLE_Y,
    M_CHIN_Y,
    M_MOUTH_Y,
    M_NOSE_Y,
    M_NOSE_Z,
    M_EYE_X,
    M_EYE_Y,
    M_EYE_Z,
    M_EAR_X,
    M_EAR_Y,
    M_EAR_Z,
    M_TOP_Y,
    M_CROTCH_Y,
    M_COUNT,
) = range(27)

# Numbers of a look, entries of one array.
(
    SLEEVE_X,
    HEM_Y,
    NECKLINE_Y,
    NECK_V,
    LEG_Y,
    WAIST_Y,
    SHOE_Y,
    SOCK_Y,
    SHIRT_PATTERN,
    SHIRT_SCALE,
    PANTS_PATTERN,
    PANTS_SCALE,
    JACKET,
    PRINT_TILE,
    PRINT_SIZE,
    HAIR_STYLE,
    HAIR_FRONT,
    HAIR_NAPE,
    BEARD,
    GLASSES,
    CAP,
    GLOVES,
    BELT,
    WRINKLE,
    SEED_X,
    SEED_Y,
    NECK_R,
    SKIN_GLOSS,
    CLOTH_GLOSS,
    SHIRT_EASE,
    PANTS_EASE,
    HAIR_EASE,
    BAREFOOT,
    SKIRT,
    FLARE,
    HAIR_LENGTH,
    TIGHTS,
    LOOK_COUNT,
) = range(38)

# Colours of a look.
C_SKIN, C_LIP, C_HAIR, C_IRIS, C_SHIRT, C_SHIRT2, C_PANTS, C_PANTS2, C_SHOE, C_SOLE, C_SOCK, C_CAP, C_COUNT = range(13)

PLAIN, BANDS, PINSTRIPES, PLAID, BLOTCHES, DOTS, BLOCK, FADE, DENIM = range(9)
BALD, SHORT, MEDIUM, BUN, LONG = range(5)


def landmarks(body: BodyData) -> Array:
    """The landmark array of a body's mean shape."""
    rest = body.v_template.astype(np.float64)
    joint = dict(zip(JOINT_SETS["SMPL24"], body.J_regressor.astype(np.float64) @ rest, strict=False))
    point = dict(zip(JOINT_SETS["J24"], body.regressors["j24"] @ rest, strict=True))
    nose, eye, ear = point["Nose"], point["L_Eye"], point["L_Ear"]
    front = rest[(np.abs(rest[:, 0]) < 0.02) & (rest[:, 2] > nose[2] - 0.06) & (rest[:, 1] < nose[1])]
    chin_y = front[front[:, 1] > joint["neck"][1], 1].min()
    between = rest[np.abs(rest[:, 0]) < 0.01]
    crotch_y = between[between[:, 1] < joint["pelvis"][1], 1].min()
    m = np.zeros(M_COUNT)
    m[M_SHOULDER_X], m[M_ARM_Y], m[M_ARM_Z] = joint["left_shoulder"]
    m[M_ELBOW_X], m[M_WRIST_X] = joint["left_elbow"][0], joint["left_wrist"][0]
    m[M_NECK_Y], m[M_NECK_Z] = joint["neck"][1:]
    m[M_CHEST_Y] = joint["spine3"][1]
    m[M_WAIST_Y] = 0.65 * joint["spine1"][1] + 0.35 * joint["pelvis"][1]
    m[M_HIP_X], m[M_HIP_Y] = joint["left_hip"][:2]
    m[M_KNEE_Y], m[M_ANKLE_Y], m[M_SOLE_Y] = joint["left_knee"][1], joint["left_ankle"][1], rest[:, 1].min()
    m[M_CHIN_Y], m[M_NOSE_Y], m[M_NOSE_Z] = chin_y, nose[1], nose[2]
    m[M_MOUTH_Y] = nose[1] + 0.52 * (chin_y - nose[1])
    m[M_EYE_X], m[M_EYE_Y], m[M_EYE_Z] = eye
    m[M_EAR_X], m[M_EAR_Y], m[M_EAR_Z] = ear
    m[M_TOP_Y], m[M_CROTCH_Y] = rest[:, 1].max(), crotch_y
    return m.astype(np.float32)


@dataclass(frozen=True)
class Look:
    """One person's appearance: `values` (LOOK_COUNT,) and `colours` (C_COUNT, 3), for `person_albedo`."""

    values: Array
    colours: Array


_SKINS = np.array([
    [0.78, 0.55, 0.44], [0.70, 0.45, 0.34], [0.60, 0.37, 0.26], [0.47, 0.27, 0.17], [0.32, 0.17, 0.10],
    [0.19, 0.095, 0.055], [0.10, 0.05, 0.032],
])  # fmt: skip
_HAIRS = np.array([
    [0.012, 0.010, 0.009], [0.035, 0.020, 0.012], [0.09, 0.048, 0.024], [0.30, 0.19, 0.085], [0.22, 0.065, 0.02],
    [0.35, 0.34, 0.33], [0.55, 0.46, 0.30],
])  # fmt: skip


def _hue(g: np.random.Generator, saturation: float, value: float) -> NDArray[np.float64]:
    h = g.random() * 6 - np.array([0, 2, 4])
    ramp = np.clip(np.abs((h + 3) % 6 - 3) * -1 + 2, 0, 1)
    return value * (1 - saturation * (1 - ramp))


def _cloth_colour(g: np.random.Generator) -> NDArray[np.float64]:
    """Cloth is mostly dark, pale, grey or muted; now and then loud."""
    kind = g.random()
    if kind < 0.2:
        return np.full(3, g.uniform(0.012, 0.05)) * g.uniform(0.85, 1.15, 3)
    if kind < 0.36:
        return np.full(3, g.uniform(0.5, 0.82)) * g.uniform(0.94, 1.0, 3)
    if kind < 0.5:
        return np.full(3, g.uniform(0.06, 0.4)) * g.uniform(0.92, 1.08, 3)
    if kind < 0.62:
        return np.array([0.02, 0.035, 0.10]) * g.uniform(0.6, 2.2)
    if kind < 0.8:
        return _hue(g, g.uniform(0.3, 0.7), g.uniform(0.05, 0.4))
    return _hue(g, g.uniform(0.7, 0.97), g.uniform(0.15, 0.7))


def sample_look(g: np.random.Generator, marks: Array, tiles: int) -> Look:
    """Dress one person; `tiles` is the number of picture tiles that a print may show (after the surface tiles)."""
    v, c = np.zeros(LOOK_COUNT), np.zeros((C_COUNT, 3))
    tone = g.random() * (len(_SKINS) - 1)
    low = int(tone)
    c[C_SKIN] = _SKINS[low] + (tone - low) * (_SKINS[min(low + 1, len(_SKINS) - 1)] - _SKINS[low])
    c[C_SKIN] *= g.uniform(0.9, 1.1, 3)
    c[C_LIP] = c[C_SKIN] * [0.95, 0.62, 0.62]
    dark = tone > 3
    weights = [0.6, 0.25, 0.06, 0.01, 0.02, 0.05, 0.01] if dark else [0.24, 0.2, 0.2, 0.13, 0.06, 0.1, 0.07]
    c[C_HAIR] = _HAIRS[g.choice(len(_HAIRS), p=weights)] * g.uniform(0.7, 1.3)
    c[C_IRIS] = [[0.04, 0.02, 0.012], [0.08, 0.14, 0.25], [0.07, 0.12, 0.06]][
        0 if dark else g.choice(3, p=[0.6, 0.25, 0.15])
    ]
    for k in (C_SHIRT, C_SHIRT2, C_PANTS2, C_SHOE, C_SOCK, C_CAP):
        c[k] = _cloth_colour(g)
    trousers = g.random()
    if trousers < 0.35:
        c[C_PANTS] = np.array([0.05, 0.085, 0.17]) * g.uniform(0.3, 2.2)
    elif trousers < 0.6:
        c[C_PANTS] = np.full(3, g.uniform(0.012, 0.08))
    elif trousers < 0.75:
        c[C_PANTS] = np.array([0.36, 0.26, 0.16]) * g.uniform(0.5, 1.5)
    else:
        c[C_PANTS] = _cloth_colour(g)
    c[C_SOLE] = np.full(3, g.choice([0.7, 0.03, 0.25])) * g.uniform(0.8, 1.1)

    shoulder, elbow, wrist = marks[M_SHOULDER_X], marks[M_ELBOW_X], marks[M_WRIST_X]
    sleeves = [
        shoulder - 0.02,
        0.55 * shoulder + 0.45 * elbow,
        elbow - 0.02,
        0.5 * (elbow + wrist),
        wrist - 0.01,
        wrist,
    ]
    v[SLEEVE_X] = g.choice(sleeves, p=[0.1, 0.3, 0.1, 0.08, 0.27, 0.15]) + g.uniform(-0.02, 0.012)
    v[WAIST_Y] = marks[M_WAIST_Y] + g.uniform(-0.035, 0.03)
    v[HEM_Y] = v[WAIST_Y] - g.choice([-0.01, 0.07, 0.14, 0.26], p=[0.3, 0.4, 0.22, 0.08]) + g.uniform(-0.02, 0.02)
    v[NECKLINE_Y] = marks[M_NECK_Y] - g.uniform(0.02, 0.055)
    v[NECK_R] = g.uniform(0.062, 0.085)
    v[NECK_V] = g.choice([0.0, g.uniform(0.05, 0.14)], p=[0.65, 0.35])
    knee, ankle, crotch = marks[M_KNEE_Y], marks[M_ANKLE_Y], marks[M_CROTCH_Y]
    v[LEG_Y] = g.choice([crotch - 0.06, knee + 0.06, knee - 0.05, knee - 0.22, ankle + 0.04, ankle - 0.02],
                        p=[0.06, 0.14, 0.06, 0.04, 0.3, 0.4]) + g.uniform(-0.03, 0.03)  # fmt: skip
    v[SHOE_Y] = ankle - 0.015 + (g.uniform(0.05, 0.12) if g.random() < 0.15 else g.uniform(-0.012, 0.01))
    v[SOCK_Y] = v[SHOE_Y] + (g.uniform(0.02, 0.2) if g.random() < 0.5 else 0)
    v[BAREFOOT] = g.random() < 0.07
    v[SHIRT_PATTERN] = g.choice(8, p=[0.5, 0.12, 0.05, 0.1, 0.06, 0.05, 0.07, 0.05])
    v[SHIRT_SCALE] = np.exp(g.uniform(np.log(8), np.log(36)))
    v[PANTS_PATTERN] = (
        DENIM if trousers < 0.35 else g.choice([PLAIN, PINSTRIPES, PLAID, BLOTCHES], p=[0.82, 0.06, 0.06, 0.06])
    )
    v[PANTS_SCALE] = np.exp(g.uniform(np.log(10), np.log(36)))
    v[JACKET] = g.uniform(0.02, 0.06) if g.random() < 0.2 and v[SLEEVE_X] > elbow else 0
    v[PRINT_TILE] = g.integers(tiles) if g.random() < 0.15 else -1
    v[PRINT_SIZE] = g.uniform(0.05, 0.1)
    v[HAIR_STYLE] = g.choice([BALD, SHORT, MEDIUM, BUN, LONG], p=[0.07, 0.42, 0.19, 0.1, 0.22])
    v[HAIR_FRONT] = g.uniform(0.45, 0.72)
    v[HAIR_NAPE] = g.uniform(0.0, 0.05)
    v[BEARD] = g.uniform(0.3, 0.95) if g.random() < 0.22 else 0
    v[GLASSES] = g.random() < 0.15
    v[CAP] = g.choice([0.0, 1.0, 2.0], p=[0.84, 0.1, 0.06])
    v[GLOVES] = g.random() < 0.04
    v[BELT] = g.random() < 0.3
    v[WRINKLE] = g.uniform(0.25, 0.9)
    v[SEED_X], v[SEED_Y] = g.uniform(0, 32, 2)
    v[SKIN_GLOSS], v[CLOTH_GLOSS] = g.uniform(0.03, 0.12), g.uniform(0.0, 0.03)
    v[SHIRT_EASE] = g.uniform(0.002, 0.014) * (1.5 if v[JACKET] else 1)
    v[PANTS_EASE] = g.uniform(0.001, 0.012)
    v[HAIR_LENGTH] = g.uniform(0.04, 0.26)
    if v[HAIR_STYLE] in (BUN, LONG):
        v[BEARD] = 0
    if g.random() < (0.28 if v[HAIR_STYLE] in (BUN, LONG) else 0.02):
        v[SKIRT], v[FLARE] = g.choice([0.36, 0.52, 0.72]) * g.uniform(0.9, 1.12), g.uniform(0.05, 0.32)
        v[LEG_Y] = crotch - 0.04
        v[TIGHTS] = g.random() < 0.3
        v[BELT] = 0
        if g.random() < 0.5:  # a dress
            c[C_PANTS], c[C_PANTS2] = c[C_SHIRT], c[C_SHIRT2]
            v[PANTS_PATTERN], v[PANTS_SCALE], v[HEM_Y] = v[SHIRT_PATTERN], v[SHIRT_SCALE], v[WAIST_Y]
    v[HAIR_EASE] = g.uniform(0.006, 0.022)
    return Look(v.astype(np.float32), np.clip(c, 0.004, 0.9).astype(np.float32))


@njit(cache=True, error_model="numpy", inline="always")
def _ramp(lo: float, hi: float, x: float) -> float:
    t = min(max((x - lo) / (hi - lo), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@njit(cache=True, error_model="numpy")
def hair_margin(x: float, y: float, z: float, marks: Array, values: Array) -> float:
    """Height above the hair line in metres; positive is hair. The line rises over the ears to the forehead."""
    ear_z, ear_y, eye_y = marks[M_EAR_Z], marks[M_EAR_Y], marks[M_EYE_Y]
    front = eye_y + values[HAIR_FRONT] * (marks[M_TOP_Y] - eye_y)
    side = ear_y + 0.012
    nape = marks[M_CHIN_Y] + 0.028 - values[HAIR_NAPE]
    if values[HAIR_STYLE] >= MEDIUM and values[HAIR_STYLE] != BUN:
        nape -= 0.09
        side -= 0.03
    t = (z - ear_z) / (marks[M_EYE_Z] - ear_z)
    line = nape + (side - nape) * _ramp(-0.25, -0.02, t) + (front - side) * _ramp(0.28, 0.62, t)
    ax = abs(x)
    if (
        t > -0.1
        and t < 0.2
        and ax > marks[M_EAR_X] - 0.006
        and values[HAIR_STYLE] != MEDIUM
        and values[HAIR_STYLE] != LONG
    ):  # the ear itself
        line = max(line, ear_y + 0.03)
    return y - line


@njit(cache=True, error_model="numpy")
def ease(rest: Array, marks: Array, values: Array) -> Array:
    """How far cloth and hair stand off the skin, (V,) metres, for rest places (V, 3)."""
    out = np.zeros(rest.shape[0], np.float32)
    for i in range(rest.shape[0]):
        x, y, z = rest[i, 0], rest[i, 1], rest[i, 2]
        ax = abs(x)
        arm = ax > marks[M_SHOULDER_X] - 0.02 and y > marks[M_ARM_Y] - 0.16
        if y > marks[M_CHIN_Y] - 0.06 and ax < marks[M_SHOULDER_X] * 0.6:
            if values[HAIR_STYLE] != BALD:
                margin = hair_margin(x, y, z, marks, values)
                out[i] = values[HAIR_EASE] * _ramp(-0.004, 0.03, margin)
                if values[HAIR_STYLE] == MEDIUM:
                    out[i] *= 1.4
            if values[HAIR_STYLE] == BUN:
                dy, dz = y - (marks[M_EYE_Y] + 0.05), z - (marks[M_EAR_Z] - 0.075)
                out[i] += 0.05 * np.exp(-(x * x + dy * dy + dz * dz) / 0.0012)
            if values[CAP] == 1 and y > marks[M_EYE_Y] + 0.03:  # a peak
                front = _ramp(marks[M_EYE_Z] - 0.03, marks[M_EYE_Z], z)
                out[i] += 0.05 * front * np.exp(-(((y - marks[M_EYE_Y] - 0.045) / 0.012) ** 2))
        elif arm:
            if ax < values[SLEEVE_X]:
                out[i] = values[SHIRT_EASE] * 0.8
        elif y > values[HEM_Y] and y < marks[M_NECK_Y] - 0.03:
            out[i] = values[SHIRT_EASE]
        elif y <= values[HEM_Y] and y > max(values[LEG_Y], values[SHOE_Y]):
            out[i] = values[PANTS_EASE]
    return out


@njit(cache=True, error_model="numpy")
def _cloth(
    pattern: int,
    scale: float,
    along: float,
    around: float,
    depth: float,
    first: Array,
    second: Array,
    blur: float,
    n: float,
    out: Array,
) -> None:
    """Colour of cloth at (along, around) metres; `blur` is the width of a sample, beyond which patterns fade."""
    m = 0.0
    if pattern == BANDS:
        m = 1.0 if (along * scale) % 1.0 < 0.5 else 0.0
    elif pattern == PINSTRIPES:
        m = 0.8 if (around * scale * 1.6) % 1.0 < 0.25 else 0.0
    elif pattern == PLAID:
        m = (0.5 if (along * scale) % 1.0 < 0.45 else 0.0) + (0.5 if (around * scale) % 1.0 < 0.45 else 0.0)
    elif pattern == BLOTCHES:
        m = _ramp(0.5, 0.56, n)
    elif pattern == DOTS:
        u, w = (along * scale) % 1.0 - 0.5, (around * scale) % 1.0 - 0.5
        m = 1.0 if u * u + w * w < 0.06 else 0.0
    elif pattern == BLOCK:
        m = 1.0 if along > 0.0 else 0.0
    elif pattern == FADE:
        m = min(max(0.5 + along * 2, 0.0), 1.0)
    elif pattern == DENIM:
        m = 0.18 * _ramp(0.02, 0.09, depth) + 0.25 * (n - 0.5)
    if pattern in (BANDS, PINSTRIPES, PLAID, DOTS):
        fade = _ramp(0.9, 0.35, blur * scale) if blur * scale > 0.35 else 1.0
        m = m * fade + 0.45 * (1 - fade)
    for c in range(3):
        out[c] = first[c] + (second[c] - first[c]) * m


@njit(cache=True, error_model="numpy")
def person_albedo(
    x: float,
    y: float,
    z: float,
    blur: float,
    marks: Array,
    values: Array,
    colours: Array,
    noise: Noise,
    tiles: Array,
    surfaces: int,
    out: Array,
) -> tuple[float, float]:
    """Colour at a place of the rest pose, written to `out` (3,). Returns gloss and how strongly folds tilt the normal.

    `blur` is the width of a sample in metres.
    """
    ax = abs(x)
    sx, sy = values[SEED_X], values[SEED_Y]
    fine = noise_at(noise, x * 60 + sx, y * 60 + sy, z * 60)
    broad = noise_at(noise, x * 18 + sy, y * 18 + sx, z * 18)
    arm = ax > marks[M_SHOULDER_X] - 0.03 and y > marks[M_ARM_Y] - 0.16
    neck = y > marks[M_CHIN_Y] - 0.06 and ax < marks[M_SHOULDER_X] * 0.6
    head = y > marks[M_CHIN_Y] - 0.015 and ax < marks[M_SHOULDER_X] * 0.6
    skin = colours[C_SKIN]
    mottle = 0.9 + 0.2 * broad
    for c in range(3):
        out[c] = skin[c] * mottle
    gloss, fold = values[SKIN_GLOSS], 0.0

    if not (arm or neck) and y < values[WAIST_Y]:  # legs
        leg = values[LEG_Y] + 0.006 * (fine - 0.5)
        if y > leg:
            _cloth(
                int(values[PANTS_PATTERN]),
                values[PANTS_SCALE],
                y,
                x,
                z,
                colours[C_PANTS],
                colours[C_PANTS2],
                blur,
                broad,
                out,
            )
            gloss, fold = values[CLOTH_GLOSS], values[WRINKLE]
            seam = ax if y > marks[M_CROTCH_Y] else abs(ax - marks[M_HIP_X])
            shade = 0.9 + 0.2 * fine
            if seam < 0.004:
                shade *= 0.88
            if y < leg + 0.02:
                shade *= 0.85
            for c in range(3):
                out[c] *= shade
        elif values[TIGHTS] > 0.5:
            for c in range(3):
                out[c] = 0.35 * out[c] + 0.65 * colours[C_SOCK, c] * 0.4
        elif values[BAREFOOT] < 0.5 and y < values[SOCK_Y]:
            for c in range(3):
                out[c] = colours[C_SOCK, c] * (0.85 + 0.3 * fine)
            gloss = 0.0
        if values[BAREFOOT] < 0.5 and y < values[SHOE_Y] + 0.004 * (fine - 0.5):
            sole = y < marks[M_SOLE_Y] + 0.022
            k = C_SOLE if sole else C_SHOE
            for c in range(3):
                out[c] = colours[k, c] * (0.9 + 0.2 * fine)
            gloss, fold = 0.06, 0.0

    if not neck:  # shirt
        radius = np.sqrt(x * x + (z - marks[M_NECK_Z]) ** 2)
        line = values[NECKLINE_Y] - 1.2 * max(0.085 - radius, 0.0) + 3.0 * max(radius - values[NECK_R], 0.0)
        if values[NECK_V] > 0 and z > marks[M_NECK_Z]:
            line = min(line, values[NECKLINE_Y] - values[NECK_V] + 1.6 * ax)
        edge = 0.005 * (fine - 0.5)
        on_sleeve = arm and ax < values[SLEEVE_X] + edge
        on_body = (not arm) and y < line and y > values[HEM_Y] + edge
        if on_sleeve or on_body:
            pattern = int(values[SHIRT_PATTERN])
            if on_sleeve:
                along, around = marks[M_CHEST_Y] - (ax - marks[M_SHOULDER_X]) - marks[M_CHEST_Y], y - marks[M_ARM_Y] + z
            else:
                along, around = y - marks[M_CHEST_Y] + 0.03, x
            _cloth(
                pattern,
                values[SHIRT_SCALE],
                along,
                around,
                z,
                colours[C_SHIRT],
                colours[C_SHIRT2],
                blur,
                broad,
                out,
            )
            front = z > marks[M_NECK_Z] + 0.02
            shade = 0.9 + 0.2 * fine
            if values[JACKET] > 0 and on_body and front:
                opening = values[JACKET] * (0.6 + 1.2 * (marks[M_NECK_Y] - y))
                if ax < opening:
                    for c in range(3):
                        out[c] = colours[C_SHIRT2, c]
                    if ax > opening - 0.008:
                        shade *= 0.6
                elif ax < opening + 0.03 and y > marks[M_CHEST_Y]:
                    shade *= 1.12
            elif values[PRINT_TILE] >= 0 and on_body and front:
                u, w = x / values[PRINT_SIZE] / 2 + 0.5, (marks[M_CHEST_Y] - y) / values[PRINT_SIZE] / 2 + 0.5
                if u > 0 and u < 1 and w > 0 and w < 1:
                    r, g, b = tile_at(tiles, surfaces + int(values[PRINT_TILE]), u, w, blur / values[PRINT_SIZE] / 2)
                    out[0], out[1], out[2] = r, g, b
            if (on_sleeve and ax > values[SLEEVE_X] - 0.018) or (on_body and y < values[HEM_Y] + 0.016):
                shade *= 0.86
            if on_body and y > line - 0.012:
                shade *= 0.88
            for c in range(3):
                out[c] *= shade
            gloss, fold = values[CLOTH_GLOSS], values[WRINKLE]
        elif (not arm) and values[BELT] > 0.5 and abs(y - values[WAIST_Y] + 0.016) < 0.016:
            for c in range(3):
                out[c] = colours[C_SHOE, c] * 0.6
            gloss, fold = 0.06, 0.0

    if arm and ax > marks[M_WRIST_X] - 0.005:  # hands
        if values[GLOVES] > 0.5:
            for c in range(3):
                out[c] = colours[C_CAP, c] * (0.85 + 0.3 * fine)
            gloss = 0.01
        else:  # darker creases between the fingers, paler nails
            crease = noise_at(noise, x * 30, y * 30, z * 110)
            for c in range(3):
                out[c] *= 0.86 + 0.28 * crease

    if head:
        eye_x, eye_y = marks[M_EYE_X], marks[M_EYE_Y]
        face = z > marks[M_EYE_Z] - 0.045
        if face:
            ex, ey = ax - eye_x, y - eye_y
            flush = np.exp(-((ax - 0.04) ** 2 + (y - marks[M_NOSE_Y] + 0.012) ** 2) / 0.0006)
            out[1] *= 1 - 0.12 * flush
            out[2] *= 1 - 0.12 * flush
            socket = np.exp(-(ex * ex + (ey * 1.3) ** 2) / 0.00035)
            for c in range(3):
                out[c] *= 1 - 0.28 * socket
            d2 = (ex / 0.0135) ** 2 + (ey / 0.0065) ** 2
            if d2 < 1:
                iris = np.sqrt(ex * ex + ey * ey)
                for c in range(3):
                    out[c] = colours[C_IRIS, c] if iris < 0.0062 else 0.55
                if iris < 0.003:
                    out[0], out[1], out[2] = 0.01, 0.01, 0.01
                gloss = 0.25
            elif d2 < 1.9 and ey > 0:  # lashes
                for c in range(3):
                    out[c] *= 0.35
            brow = eye_y + 0.021 - 2.5 * (ex - 0.004) ** 2 / 0.03
            if abs(y - brow) < 0.0045 and abs(ex) < 0.019:
                for c in range(3):
                    out[c] = 0.3 * out[c] + 0.7 * colours[C_HAIR, c]
            lip_y = y - marks[M_MOUTH_Y]
            lip = (ax / 0.025) ** 2 + (lip_y / 0.0095) ** 2
            if lip < 1:
                for c in range(3):
                    out[c] = colours[C_LIP, c] * (0.45 if abs(lip_y) < 0.0014 else 1.0)
                gloss = 0.12
            nostril = (ax - 0.009) ** 2 + (y - marks[M_NOSE_Y] + 0.015) ** 2
            if nostril < 0.00002 and z > marks[M_NOSE_Z] - 0.025:
                for c in range(3):
                    out[c] *= 0.45
            if values[GLASSES] > 0.5:
                rim = np.sqrt((ex / 1.15) ** 2 + ey * ey)
                if abs(rim - 0.019) < 0.0026 or (abs(ey - 0.003) < 0.0022 and ax < eye_x - 0.014):
                    out[0], out[1], out[2] = 0.02, 0.02, 0.02
        if values[GLASSES] > 0.5 and not face and abs(y - eye_y - 0.003) < 0.003 and z > marks[M_EAR_Z]:
            out[0], out[1], out[2] = 0.02, 0.02, 0.02
        if values[BEARD] > 0:
            jaw = marks[M_MOUTH_Y] + 0.016 + 0.5 * max(ax - 0.035, 0.0)
            lip_gap = (ax / 0.025) ** 2 + ((y - marks[M_MOUTH_Y]) / 0.01) ** 2
            if y < jaw + 0.006 * (fine - 0.5) and z > marks[M_EAR_Z] + 0.012 and lip_gap > 1:
                m = values[BEARD] * _ramp(0.0, 0.02, jaw - y)
                for c in range(3):
                    out[c] += (colours[C_HAIR, c] * (0.6 + 0.8 * fine) - out[c]) * m
                gloss *= 0.5
    if head or neck:
        margin = hair_margin(x, y, z, marks, values) + 0.014 * (fine - 0.5)
        if values[HAIR_STYLE] != BALD and margin > 0:
            strand = noise_at(noise, x * 130 + sx, y * 25 + sy, z * 130)
            for c in range(3):
                out[c] = colours[C_HAIR, c] * (0.45 + 1.1 * strand)
            gloss, fold = 0.05, 0.5
        if values[CAP] > 0:
            brim = marks[M_EYE_Y] + 0.04
            back = _ramp(marks[M_EAR_Z] + 0.02, marks[M_EAR_Z] - 0.06, z) if z < marks[M_EAR_Z] + 0.02 else 0.0
            if y > brim - 0.02 * back:
                for c in range(3):
                    out[c] = colours[C_CAP, c] * (0.85 + 0.3 * fine)
                if values[CAP] == 2 and (y * 60) % 1.0 < 0.4:
                    for c in range(3):
                        out[c] *= 0.7
                gloss, fold = 0.01, 0.15
    return gloss, fold
