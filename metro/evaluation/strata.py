"""What samples are grouped by: what their names tell (sequence, action, camera), and who stands before whom.

Records carry no labels of sequences or actions; their names are the paths that the sets give their pictures, of which
each source's module describes the layouts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

_H36M_CAMERAS = ("54138969", "55011271", "58860488", "60457274")
_H36M_ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting", "SittingDown"),
    *("Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether"),
)  # numbers 2 to 16
_H36M_OTHER = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}  # as files of S1 and the papers have them
_SCENES = {
    **dict.fromkeys(("TS1", "TS2"), "studio with green screen"),
    **dict.fromkeys(("TS3", "TS4"), "studio without green screen"),
    **dict.fromkeys(("TS5", "TS6"), "outdoors"),
}

_PW3D = re.compile(rb"pw3d:imageFiles/(?P<sequence>[^/]+)/")
_MPI_INF = re.compile(rb"mpi_inf_3dhp:(?:.*/)?(?P<sequence>TS\d|S\d/Seq\d)/(?:.*/video_(?P<camera>\d+)[/.])?")
_H36M_NAMED = re.compile(
    rb"h36m:(?:images/)?[sS](?P<subject>\d+)[/_].*?(?P<action>[A-Za-z]+)(?:[ _]\d+)?\.(?P<camera>\d{8})"
)
_H36M_NUMBERED = re.compile(rb"h36m:(?:images/)?s_(?P<subject>\d+)_act_(?P<action>\d+)_subact_\d+_ca_(?P<camera>\d+)")


def told(key: bytes) -> Mapping[str, str]:
    """What the name of a record tells: of `sequence`, `scene`, `action`, `subject` and `camera` those that it does."""
    source = key.partition(b":")[0]
    if source == b"pw3d":
        return _found(_PW3D, key)
    if source == b"mpi_inf_3dhp":
        found = _found(_MPI_INF, key)
        return found | ({"scene": _SCENES[found["sequence"]]} if found.get("sequence") in _SCENES else {})
    if source != b"h36m":
        return {}
    if found := _found(_H36M_NUMBERED, key):
        action, camera = int(found["action"]) - 2, int(found["camera"]) - 1
        if not (0 <= action < len(_H36M_ACTIONS) and 0 <= camera < len(_H36M_CAMERAS)):
            return {}
        found |= {"action": _H36M_ACTIONS[action], "camera": _H36M_CAMERAS[camera]}
    elif found := _found(_H36M_NAMED, key):
        found["action"] = _H36M_OTHER.get(found["action"], found["action"])
    return found | ({"subject": f"S{int(found['subject'])}"} if found else {})


def named_groups(keys: Sequence[bytes] | np.ndarray, index_N: np.ndarray) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Groups of N records by what their names tell: name and rows (N,) bool of each, in the order of names.

    Records whose name does not tell it are in none; what no name tells is left out.

    Parameters
    ----------
    keys
        Names of all records of a set.
    index_N
        Which of them the rows are.
    """
    codes: dict[str, dict[str, int]] = {}
    columns: dict[str, np.ndarray] = {}
    for row, number in enumerate(index_N):
        for what, word in told(keys[number]).items():
            if what not in columns:
                codes[what], columns[what] = {}, np.full(len(index_N), -1, np.int32)
            columns[what][row] = codes[what].setdefault(word, len(codes[what]))
    return {
        what: [(word, columns[what] == code) for word, code in sorted(codes[what].items(), key=_order)]
        for what in ("scene", "sequence", "action", "subject", "camera")
        if what in columns
    }


def overlaps(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Largest share (N,) of each person's box that the box of another one of the frame covers; nan: there is no other.

    Parameters
    ----------
    labels
        `keys` and `box` of N records.
    """
    keys, box_N4 = labels["keys"], labels["box"].astype(np.float64)
    frame_N = np.fromiter((hash(key.rpartition(b"#")[0]) for key in keys), np.int64, len(keys))
    order_N = np.argsort(frame_N, kind="stable")
    frame_N, share_N, apart = frame_N[order_N], np.full(len(keys), np.nan), 1
    while (first := np.flatnonzero(frame_N[apart:] == frame_N[:-apart])).size:  # pairs so many places apart
        a, b = order_N[first], order_N[first + apart]
        low, high = (
            np.maximum(box_N4[a, :2], box_N4[b, :2]),
            np.minimum(*(box_N4[n, :2] + box_N4[n, 2:] for n in (a, b))),
        )
        area = np.clip(high - low, 0, None).prod(1)
        for rows in (a, b):  # in each of which a record comes once at most
            share_N[rows] = np.fmax(share_N[rows], area / box_N4[rows, 2:].prod(1))
        apart += 1
    return share_N


def _found(pattern: re.Pattern[bytes], key: bytes) -> dict[str, str]:
    match = pattern.match(key)
    return {k: v.decode(errors="replace") for k, v in match.groupdict().items() if v} if match else {}


def _order(entry: tuple[str, int]) -> tuple[str, int]:
    """Names by their letters, then by the number at their end: S9 comes before S11."""
    word = entry[0]
    digits = re.search(r"\d*$", word)[0]  # type: ignore[index]
    return word.removesuffix(digits), int(digits or 0)
