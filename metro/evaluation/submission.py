"""FreiHAND's submission: hands of the evaluation pictures as ``pred.json`` in a zip, for the set's server.

``pred.json`` is a list of two: joints of each hand (21 × 3, HAND21, which is the set's order) and vertices of each
(778 × 3, MANO's order), metres, in the order of the pictures. The scorer aligns joints and meshes of a hand separately
by rotation or reflection, scale and translation, so that hands may stand anywhere: here, as in METRO's file, with the
wrist that is read off the mesh at the origin. Its numbers that are not aligned mean nothing then.

Pictures are cut as METRO cuts them, 180 px about (112, 112), straight from the files; labels are not needed.
Sources: the README and ``eval.py`` of the set; METRO's handling of its results (Lin et al. 2021 §4).
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from metro.body.joints import FINGERTIPS, TIP_VERTICES, index_map
from metro.body.model import BodyModel
from metro.data.augment import normalise
from metro.data.crop import cut
from metro.data.records import EXTENT_M
from metro.errors import MetroError
from metro.files import GET_AGAIN, atomic_file, readable
from metro.model.metro import Metro
from metro.sources.freihand import CENTER, EVALUATION, SCALE

NAME = "pred.json"
MICROMETRES = 6
"""Decimals that are written."""
TIP_FAR = 0.015
"""Metres by which tips lie from their vertices at most in the mean: conventions differ by less than a centimetre."""


class Hands(NamedTuple):
    """N hands, metres, wrist at the origin."""

    joints_N213: np.ndarray
    vertices_N7783: np.ndarray


def pictures(root: Path, count: int = EVALUATION) -> list[Path]:
    """The evaluation pictures of a raw tree, in their order.

    Raises
    ------
    MetroError
        They are not those that the server scores.
    """
    folder = root / "evaluation" / "rgb"
    found = sorted(path for path in folder.glob("*.jpg") if re.fullmatch(r"\d{8}", path.stem))
    if [int(path.stem) for path in found] != list(range(count)):
        raise MetroError(f"{folder}: holds {len(found)} pictures, not 00000000.jpg to {count - 1:08d}.jpg, which the "
                         f"server scores all; {GET_AGAIN}")  # fmt: skip
    return found


def check_hand(model: Metro, body: BodyModel) -> None:
    """Refuse networks whose meshes the server cannot score.

    Raises
    ------
    MetroError
        The mesh is none of MANO's.
    """
    if body.kind != "mano" or model.config.joint_set != "HAND21":
        raise MetroError(f"the server scores meshes of MANO, the model's are of the {body.kind} body; name a model "
                         "trained with `body.kind: mano`, and the licensed file")  # fmt: skip


@torch.inference_mode()
def predict(
    model: Metro,
    body: BodyModel,
    paths: Sequence[Path],
    device: torch.device | str = "cpu",
    *,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Hands:
    """Hands of pictures; `progress` is called with how many are done.

    Raises
    ------
    MetroError
        A picture cannot be read.
    """
    model, body = model.to(device).eval(), body.to(device)
    joints, vertices = [], []
    for first in range(0, len(paths), batch_size):
        part = paths[first : first + batch_size]
        image = np.stack([cut(path, np.array(CENTER), SCALE, model.config.image_size, 1.0)[0] for path in part])
        normal = normalise(torch.from_numpy(image).to(device), torch.ones(len(part), 3, device=device))
        mesh = model(normal).vertices[-1]
        found = body.regress(body.figure.regressor, mesh)
        joints.append((found - found[:, :1]).cpu().numpy())
        vertices.append((mesh - found[:, :1]).cpu().numpy())
        if progress:
            progress(first + len(part))
    return Hands(np.concatenate(joints), np.concatenate(vertices))


def write(hands: Hands, path: Path) -> None:
    """Write the zip, after it was read again and checked.

    Raises
    ------
    MetroError
        The server would refuse it, or the file cannot be written.
    """
    entry = zipfile.ZipInfo(NAME)  # whose date is always the same
    entry.compress_type = zipfile.ZIP_DEFLATED
    with atomic_file(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive, archive.open(entry, "w") as file:
            for text in _text(hands):
                file.write(text.encode())
        check(temporary, len(hands.joints_N213))


def check(path: Path, count: int = EVALUATION) -> Hands:
    """Read a zip as the server does, and what it would not tell: other units, another order of joints or vertices.

    Raises
    ------
    MetroError
        One line that names what is wrong.
    """
    with readable(path, "write it again"):
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read(NAME))
        if not isinstance(content, list) or [len(part) for part in content] != [count, count]:
            raise ValueError(f"{NAME} is not a list of {count} hands' joints and {count} hands' vertices")
        hands = Hands(_points(content[0], 21, "joints"), _points(content[1], 778, "vertices"))
        low, _, high = EXTENT_M["HAND21"]
        extent_N = np.ptp(hands.vertices_N7783, axis=1).max(1)
        if not ((extent_N > low) & (extent_N < high)).all():
            raise ValueError(f"hand {int(np.argmax((extent_N <= low) | (extent_N >= high)))} is no hand in metres")
        tips_N53 = hands.joints_N213[:, index_map("HAND21", FINGERTIPS)]
        off_N = np.linalg.norm(tips_N53 - hands.vertices_N7783[:, list(TIP_VERTICES["freihand"])], axis=2).mean(1)
        if np.median(off_N) > TIP_FAR:
            raise ValueError(
                "tips of fingers are not at the tips of the meshes: joints or vertices are in another order"
            )
    return hands


def _text(hands: Hands) -> Iterator[str]:
    yield "["
    for number, points_NP3 in enumerate(hands):
        yield ", [" if number else "["
        for row, points_P3 in enumerate(points_NP3.astype(np.float64).round(MICROMETRES)):
            yield (", " if row else "") + json.dumps(points_P3.tolist())
        yield "]"
    yield "]"


def _points(values: Any, points: int, what: str) -> np.ndarray:
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape[1:] != (points, 3) or not np.isfinite(array).all():
        raise ValueError(f"{what} are not {points} × 3 finite numbers for each hand")
    return array
