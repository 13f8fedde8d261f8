"""How people are dressed: the look of one person, drawn once, and the landmarks that place it on a body.

There is no texture map. Every sample knows where it lies on the *rest pose* of the mean body, and cloth, hair and face
are functions of that place (`albedo.person_albedo`), bounded by landmarks of the body at hand (joints, nose, eyes,
ears, chin), so that they stay where they belong on any body with SMPL's joints. Colours are linear RGB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metro.body.arrays import BodyData
from metro.body.joints import JOINT_SETS
from metro.synthetic import exact
from metro.synthetic.skinning import regress

Array = NDArray[np.float64]
Marks = Any
"""One record of `MARKS`; NumPy's types do not tell the fields."""
Look = Any
"""One record of `LOOK`."""

PLAIN, BANDS, PINSTRIPES, PLAID, BLOTCHES, DOTS, BLOCK, FADE, DENIM = range(9)
BALD, SHORT, MEDIUM, BUN, LONG = range(5)
NO_CAP, CAP, KNITTED_CAP = range(3)

# fmt: off
MARKS = np.dtype([(name, "f4") for name in (
    "shoulder_x", "elbow_x", "wrist_x", "arm_y",
    "neck_y", "neck_z", "chest_y", "waist_y", "hip_x", "hip_y", "crotch_y", "knee_y", "ankle_y", "sole_y",
    "chin_y", "mouth_y", "nose_y", "nose_z", "eye_x", "eye_y", "eye_z", "ear_x", "ear_y", "ear_z", "top_y",
)])
"""Landmarks of the rest pose, metres, on the left side."""

_COLOURS = ("skin", "lip", "hair", "iris", "shirt", "shirt2", "pants", "pants2", "shoe", "sole", "sock", "hat")

LOOK = np.dtype([
    # Where garments begin and end: x along the arm, y along the body.
    ("sleeve_x", "f4"), ("hem_y", "f4"), ("neckline_y", "f4"), ("waist_y", "f4"), ("leg_y", "f4"),
    ("shoe_y", "f4"), ("sock_y", "f4"),
    ("neck_radius", "f4"), ("neck_v", "f4"),  # depth of a V, 0 for a round neck
    ("jacket", "f4"),  # half of how far a jacket stands open, 0 for none
    ("skirt", "f4"), ("flare", "f4"),  # length, 0 for none; widening per length
    ("shirt_ease", "f4"), ("pants_ease", "f4"), ("hair_ease", "f4"),  # how far they stand off the skin
    # Cloth.
    ("shirt_pattern", "i4"), ("shirt_scale", "f4"), ("pants_pattern", "i4"), ("pants_scale", "f4"),  # repeats per metre
    ("print_tile", "i4"), ("print_size", "f4"),  # picture on the chest, -1 for none; half its width
    ("wrinkle", "f4"), ("cloth_gloss", "f4"),
    ("barefoot", "?"), ("tights", "?"), ("gloves", "?"), ("belt", "?"),
    # Head.
    ("hair_style", "i4"), ("hair_front", "f4"), ("hair_nape", "f4"), ("hair_length", "f4"),
    ("cap", "i4"), ("skin_gloss", "f4"),
    ("seed_x", "f4"), ("seed_y", "f4"),  # place in the noise
    *((name, "f4", 3) for name in _COLOURS),
])
"""One person's appearance. The second colour of a garment is its pattern's."""

_SKINS = np.array([
    [0.78, 0.55, 0.44], [0.70, 0.45, 0.34], [0.60, 0.37, 0.26], [0.47, 0.27, 0.17], [0.32, 0.17, 0.10],
    [0.19, 0.095, 0.055], [0.10, 0.05, 0.032],
])
_HAIRS = np.array([
    [0.012, 0.010, 0.009], [0.035, 0.020, 0.012], [0.09, 0.048, 0.024], [0.30, 0.19, 0.085], [0.22, 0.065, 0.02],
    [0.35, 0.34, 0.33], [0.55, 0.46, 0.30],
])
# fmt: on
_IRISES = np.array([[0.04, 0.02, 0.012], [0.08, 0.14, 0.25], [0.07, 0.12, 0.06]])


def landmarks(body: BodyData) -> Marks:
    """The landmarks (a record of `MARKS`) of a body's mean shape."""
    rest = body.v_template.astype(np.float64)
    joint = dict(zip(JOINT_SETS["SMPL24"], regress(body.J_regressor.astype(np.float64), rest), strict=False))
    point = dict(
        zip(JOINT_SETS["J24"], regress(body.regressors["j24"].toarray().astype(np.float64), rest), strict=True)
    )
    nose, eye, ear = point["Nose"], point["L_Eye"], point["L_Ear"]
    front = rest[(np.abs(rest[:, 0]) < 0.02) & (rest[:, 2] > nose[2] - 0.06) & (rest[:, 1] < nose[1])]
    chin_y = front[front[:, 1] > joint["neck"][1], 1].min()
    between = rest[np.abs(rest[:, 0]) < 0.01]
    m = np.zeros((), MARKS)
    m["shoulder_x"], m["arm_y"] = joint["left_shoulder"][:2]
    m["elbow_x"], m["wrist_x"] = joint["left_elbow"][0], joint["left_wrist"][0]
    m["neck_y"], m["neck_z"] = joint["neck"][1:]
    m["chest_y"] = joint["spine3"][1]
    m["waist_y"] = 0.65 * joint["spine1"][1] + 0.35 * joint["pelvis"][1]
    m["hip_x"], m["hip_y"] = joint["left_hip"][:2]
    m["crotch_y"] = between[between[:, 1] < joint["pelvis"][1], 1].min()
    m["knee_y"], m["ankle_y"], m["sole_y"] = joint["left_knee"][1], joint["left_ankle"][1], rest[:, 1].min()
    m["chin_y"], m["nose_y"], m["nose_z"] = chin_y, nose[1], nose[2]
    m["mouth_y"] = nose[1] + 0.52 * (chin_y - nose[1])
    m["eye_x"], m["eye_y"], m["eye_z"] = eye
    m["ear_x"], m["ear_y"], m["ear_z"] = ear
    m["top_y"] = rest[:, 1].max()
    return m[()]


def sample_look(g: np.random.Generator, marks: Marks, tiles: int) -> Look:
    """Dress one person: a record of `LOOK`.

    `tiles` is the number of picture tiles that a print may show (after the surface tiles).
    """
    colours, denim = _colours(g)
    drawn: dict[str, Any] = colours | _clothes(g, marks, tiles, denim) | _head(g)
    drawn["gloves"] = g.random() < 0.04
    drawn["belt"] = g.random() < 0.3
    drawn["wrinkle"] = g.uniform(0.25, 0.9)
    drawn["seed_x"], drawn["seed_y"] = g.uniform(0, 32, 2)
    drawn["skin_gloss"], drawn["cloth_gloss"] = g.uniform(0.03, 0.12), g.uniform(0.0, 0.03)
    drawn["shirt_ease"] = g.uniform(0.002, 0.014) * (1.5 if drawn["jacket"] else 1)
    drawn["pants_ease"] = g.uniform(0.001, 0.012)
    drawn["hair_length"] = g.uniform(0.04, 0.26)
    if g.random() < (0.28 if drawn["hair_style"] in (BUN, LONG) else 0.02):
        drawn |= _skirt(g, marks, drawn)
    drawn["hair_ease"] = g.uniform(0.006, 0.022)
    look = np.zeros((), LOOK)
    for name, value in drawn.items():
        look[name] = np.clip(value, 0.004, 0.9) if name in _COLOURS else value
    return look[()]


def _hue(g: np.random.Generator, saturation: float, value: float) -> Array:
    h = g.random() * 6 - np.array([0, 2, 4])
    ramp = np.clip(np.abs((h + 3) % 6 - 3) * -1 + 2, 0, 1)
    return value * (1 - saturation * (1 - ramp))


def _cloth_colour(g: np.random.Generator) -> Array:
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


def _colours(g: np.random.Generator) -> tuple[dict[str, Array], bool]:
    """The colours of a look, and whether the trousers are jeans."""
    c = {}
    tone = g.random() * (len(_SKINS) - 1)
    low = int(tone)
    c["skin"] = _SKINS[low] + (tone - low) * (_SKINS[min(low + 1, len(_SKINS) - 1)] - _SKINS[low])
    c["skin"] *= g.uniform(0.9, 1.1, 3)
    c["lip"] = c["skin"] * [0.95, 0.62, 0.62]
    dark = tone > 3
    weights = [0.6, 0.25, 0.06, 0.01, 0.02, 0.05, 0.01] if dark else [0.24, 0.2, 0.2, 0.13, 0.06, 0.1, 0.07]
    c["hair"] = _HAIRS[g.choice(len(_HAIRS), p=weights)] * g.uniform(0.7, 1.3)
    c["iris"] = _IRISES[0 if dark else g.choice(3, p=[0.6, 0.25, 0.15])]
    c |= {name: _cloth_colour(g) for name in ("shirt", "shirt2", "pants2", "shoe", "sock", "hat")}
    trousers = g.random()
    if trousers < 0.35:
        c["pants"] = np.array([0.05, 0.085, 0.17]) * g.uniform(0.3, 2.2)
    elif trousers < 0.6:
        c["pants"] = np.full(3, g.uniform(0.012, 0.08))
    elif trousers < 0.75:
        c["pants"] = np.array([0.36, 0.26, 0.16]) * g.uniform(0.5, 1.5)
    else:
        c["pants"] = _cloth_colour(g)
    c["sole"] = np.full(3, g.choice([0.7, 0.03, 0.25])) * g.uniform(0.8, 1.1)
    return c, trousers < 0.35


def _clothes(g: np.random.Generator, marks: Marks, tiles: int, denim: bool) -> dict[str, Any]:
    """Shirt, trousers and shoes: lengths, necklines and patterns."""
    v: dict[str, Any] = {}
    shoulder, elbow, wrist = marks["shoulder_x"], marks["elbow_x"], marks["wrist_x"]
    sleeves = [
        shoulder - 0.02,
        0.55 * shoulder + 0.45 * elbow,
        elbow - 0.02,
        0.5 * (elbow + wrist),
        wrist - 0.01,
        wrist,
    ]
    v["sleeve_x"] = g.choice(sleeves, p=[0.1, 0.3, 0.1, 0.08, 0.27, 0.15]) + g.uniform(-0.02, 0.012)
    v["waist_y"] = marks["waist_y"] + g.uniform(-0.035, 0.03)
    length = g.choice([-0.01, 0.07, 0.14, 0.26], p=[0.3, 0.4, 0.22, 0.08])
    v["hem_y"] = v["waist_y"] - length + g.uniform(-0.02, 0.02)
    v["neckline_y"] = marks["neck_y"] - g.uniform(0.02, 0.055)
    v["neck_radius"] = g.uniform(0.062, 0.085)
    v["neck_v"] = g.choice([0.0, g.uniform(0.05, 0.14)], p=[0.65, 0.35])
    knee, ankle, crotch = marks["knee_y"], marks["ankle_y"], marks["crotch_y"]
    ends = [crotch - 0.06, knee + 0.06, knee - 0.05, knee - 0.22, ankle + 0.04, ankle - 0.02]
    v["leg_y"] = g.choice(ends, p=[0.06, 0.14, 0.06, 0.04, 0.3, 0.4]) + g.uniform(-0.03, 0.03)
    v["shoe_y"] = ankle - 0.015 + (g.uniform(0.05, 0.12) if g.random() < 0.15 else g.uniform(-0.012, 0.01))
    v["sock_y"] = v["shoe_y"] + (g.uniform(0.02, 0.2) if g.random() < 0.5 else 0)
    v["barefoot"] = g.random() < 0.07
    v["shirt_pattern"] = g.choice(8, p=[0.5, 0.12, 0.05, 0.1, 0.06, 0.05, 0.07, 0.05])
    v["shirt_scale"] = exact.exp(g.uniform(exact.log(8), exact.log(36)))
    plain = [PLAIN, PINSTRIPES, PLAID, BLOTCHES]
    v["pants_pattern"] = DENIM if denim else g.choice(plain, p=[0.82, 0.06, 0.06, 0.06])
    v["pants_scale"] = exact.exp(g.uniform(exact.log(10), exact.log(36)))
    v["jacket"] = g.uniform(0.02, 0.06) if g.random() < 0.2 and v["sleeve_x"] > elbow else 0
    v["print_tile"] = g.integers(tiles) if g.random() < 0.15 else -1
    v["print_size"] = g.uniform(0.05, 0.1)
    return v


def _head(g: np.random.Generator) -> dict[str, Any]:
    """Hair and what is worn on the head."""
    return {
        "hair_style": g.choice([BALD, SHORT, MEDIUM, BUN, LONG], p=[0.07, 0.42, 0.19, 0.1, 0.22]),
        "hair_front": g.uniform(0.45, 0.72),
        "hair_nape": g.uniform(0.0, 0.05),
        "cap": g.choice([NO_CAP, CAP, KNITTED_CAP], p=[0.84, 0.1, 0.06]),
    }


def _skirt(g: np.random.Generator, marks: Marks, drawn: dict[str, Any]) -> dict[str, Any]:
    """What a skirt or a dress changes in a look."""
    v: dict[str, Any] = {
        "skirt": g.choice([0.36, 0.52, 0.72]) * g.uniform(0.9, 1.12),
        "flare": g.uniform(0.05, 0.32),
        "leg_y": marks["crotch_y"] - 0.04,
        "tights": g.random() < 0.3,
        "belt": False,
    }
    if g.random() < 0.5:  # a dress: one cloth from the shoulders down
        v |= {"pants" + end: drawn["shirt" + end] for end in ("", "2", "_pattern", "_scale")}
        v["hem_y"] = drawn["waist_y"]
    return v
