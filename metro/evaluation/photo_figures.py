"""Pictures of benchmark `photos`: the best, median and worst people, annotated and predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metro.body.joints import JOINT_SETS, index_map
from metro.data.crop import apply, cut
from metro.evaluation.photo_labels import LIMBS
from metro.evaluation.photos import Photos, open_photo
from metro.export.predictor import Predictor
from metro.viz import overlay

TILE = 320
"""Side of a tile, pixels."""
AROUND = 1.4
"""Side of what a tile shows, over the longer side of the annotated box."""


def write_cases(result: Photos, predictor: Predictor, images: Path, folder: Path) -> None:
    """Write ``best.png``, ``median.png`` and ``worst.png``: annotated joints, and mesh and joints predicted.

    Parameters
    ----------
    predictor, images
        Those that the result is of: meshes are predicted once more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind, entries in result.summary["cases"].items():
        tiles, labels = [], []
        for number, entry in enumerate(entries, 1):
            tiles += _tiles(result, predictor, images, entry["row"])
            labels += [f"{kind} {number}: PCK@0.1 {entry['pck10']:.0f} %"]
            labels += ["prediction" if np.isfinite(result.boxes_N4[entry["row"]]).all() else "not found"]
        overlay.save_image(overlay.grid(tiles, 4, labels=labels), folder / f"{kind}.png")


def _tiles(result: Photos, predictor: Predictor, images: Path, row: int) -> list[overlay.Image]:
    people, box_4 = result.people, result.people.boxes_N4[row]
    photo = open_photo(people, images, people.files[row])
    centre, scale = box_4[:2] + box_4[2:] / 2, AROUND * float(people.side_N[row]) / 200
    plain, affine_23 = cut(photo.pixels, centre, scale, TILE, 1.0)
    drawn = plain
    if np.isfinite(result.boxes_N4[row]).all():
        (person,) = predictor(photo, result.boxes_N4[row])
        drawn, _ = cut(person.overlay(photo.pixels), centre, scale, TILE, 1.0)
    return [
        _with_joints(plain, affine_23, people.joints_NL2[row], people.annotated_NL[row]),
        _with_joints(drawn, affine_23, result.joints_NL2[row], np.isfinite(result.joints_NL2[row]).all(-1)),
    ]


def _with_joints(
    tile: overlay.Image, affine_23: np.ndarray, joints_L2: np.ndarray, shown_L: np.ndarray
) -> overlay.Image:
    """A tile with the skeleton of limbs."""
    to = index_map("J14", LIMBS)
    points = np.full((len(JOINT_SETS["J14"]), 2), np.nan)
    points[to] = np.where(shown_L[:, None], apply(affine_23, joints_L2), np.nan)
    return overlay.skeleton(tile, points, "J14")
