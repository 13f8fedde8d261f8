"""SMPL's vertex slots: where other software expects nose, eyes, ears, fingertips, toes and heels.

Loaders of SMPL report landmarks by fixed vertex numbers. The mesh is reordered so that these numbers hit the same
landmarks here; all other vertices follow from head to foot.
"""

from __future__ import annotations

import numpy as np

from tools.open_body.source import Source
from tools.open_body.topology import Topology

SLOTS = {
    "nose": 332,
    **{"right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583},
    **{"right_thumb": 6191, "right_index": 5782, "right_middle": 5905, "right_ring": 6016, "right_pinky": 6133},
    **{"left_thumb": 2746, "left_index": 2319, "left_middle": 2445, "left_ring": 2556, "left_pinky": 2673},
    **{"left_big_toe": 3216, "left_small_toe": 3226, "left_heel": 3387},
    **{"right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787},
}

_FRONT = np.array([0, 0, 0.01])  # from the middle of the eye hole to the lid, metres

_FINGERS = ("thumb", "index", "middle", "ring", "pinky")  # Anny's finger 1 to 5


def slot_order(topology: Topology, shape_V3: np.ndarray, source: Source, placed_B3: np.ndarray) -> np.ndarray:
    """Order of the vertices that puts landmarks into `SLOTS`.

    Parameters
    ----------
    topology
        Mesh in any order.
    shape_V3
        Mean T-pose of the source mesh (all its vertices).
    source
        Gives the skin weights that tell the fingers apart.
    placed_B3
        Mean T-pose bone heads.
    """
    at = shape_V3[topology.vertices]
    landmarks = _left_landmarks(topology, at, source, placed_B3)
    landmarks |= {
        name.replace("left", "right"): int(topology.mirror[v]) for name, v in landmarks.items() if name != "nose"
    }
    taken = set(landmarks.values())
    if len(taken) != len(SLOTS):
        raise AssertionError("two landmarks fell on one vertex")
    others = (v for v in np.lexsort((at[:, 0], at[:, 2], -at[:, 1])) if v not in taken)
    fixed = {SLOTS[name]: v for name, v in landmarks.items()}
    return np.array([fixed[i] if i in fixed else next(others) for i in range(len(at))])


def _left_landmarks(topology: Topology, at: np.ndarray, source: Source, placed_B3: np.ndarray) -> dict[str, int]:
    def farthest(inside: np.ndarray, score: np.ndarray) -> int:
        members = np.flatnonzero(inside)
        return int(members[np.argmax(score[members])])

    x, y, z = at.T
    left, head, foot = x > 0.002, topology.parts["head"], topology.parts["foot.L"] & (x > 0.002)
    eye = at[np.isin(topology.vertices, topology.left_eye) & left].mean(0)
    face = np.flatnonzero(left & head)
    found = {
        "nose": farthest(head & (np.abs(x) < 1e-4), z),
        "left_eye": int(face[np.argmin(np.linalg.norm(at[face] - (eye + _FRONT), axis=1))]),
        "left_ear": farthest(head & left & (np.abs(y - eye[1]) < 0.06), x),
    }
    weights = source.weights[topology.vertices]
    for number, finger in enumerate(_FINGERS, 1):
        last, before = (source.index[f"finger{number}-{k}.L"] for k in (3, 2))
        along = placed_B3[last] - placed_B3[before]
        found[f"left_{finger}"] = farthest((weights[:, last] > 0.5) & left, at @ along)
    big, small = (placed_B3[source.index[f"toe{k}-1.L"], 0] for k in (1, 5))
    found["left_big_toe"] = farthest(foot & (np.abs(x - big) < 0.02), z)
    found["left_small_toe"] = farthest(foot & (x > small - 0.005), z)
    found["left_heel"] = farthest(foot & (y < y[foot].min() + 0.03), -z)
    return found
