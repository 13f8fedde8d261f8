"""Sequences of MPI-INF-3DHP's training set: joints and cameras of its people, whom MuCo-3DHP is made of as well.

::

    S{1..8}/Seq{1,2}/annot.mat            annot2 and annot3: a cell per camera, T × 56 px and T × 84 mm, camera frame
    S{1..8}/Seq{1,2}/camera.calibration   Skeletool's text: a head line, then 7 lines per camera

Shapes: T frames, K joints that the set and J24 share, in the order of J24.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metro.body.joints import JOINT_SETS, shared
from metro.files import GET_AGAIN, readable
from metro.sources.formats.mat import cells

SITE = "https://vcai.mpi-inf.mpg.de/3dhp-dataset"
CAMERAS = 14
SHARED = tuple(name for name in JOINT_SETS["J24"] if name in JOINT_SETS["MPIINF28"])
"""The K joints."""

Array = NDArray[np.float64]


def annotated(path: Path, cameras: Iterable[int]) -> Iterator[tuple[Array, Array]]:
    """What `annot.mat` says of each camera: joints (T, K, 2) in pixels and (T, K, 3) in millimetres, camera frame.

    Raises
    ------
    MetroError
        The file is missing or damaged, or holds something else.
    """
    wanted = list(cameras)
    at, joints = shared("MPIINF28", "J24")[0], len(JOINT_SETS["MPIINF28"])
    with readable(path, GET_AGAIN):
        for pixels, points in zip(cells(path, "annot2", wanted), cells(path, "annot3", wanted), strict=True):
            for name, value, axes in (("annot2", pixels, 2), ("annot3", points, 3)):
                if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or value.ndim != 2:
                    raise ValueError(f"a cell of {name} holds no table of numbers")
                if value.shape[1] != joints * axes:
                    raise ValueError(f"a cell of {name} has {value.shape[1]} columns, not {joints * axes}")
            frames = min(len(pixels), len(points))
            yield (
                pixels[:frames].reshape(frames, joints, 2)[:, at].astype(np.float64),
                points[:frames].reshape(frames, joints, 3)[:, at].astype(np.float64),
            )


def intrinsics(path: Path) -> list[Array]:
    """Camera matrices (3, 3) of `camera.calibration`, pixels, in the order of the file, which is that of the videos.

    Raises
    ------
    MetroError
        The file is missing, or is none of that kind.
    """
    with readable(path, GET_AGAIN):
        text = path.read_text("ascii")
        if not text.startswith("Skeletool Camera Calibration File"):
            raise ValueError("does not begin as Skeletool's camera files do")
        entries = [line.split() for line in text.splitlines() if line.strip()]
        names = sum(words[0] == "name" for words in entries)
        found = [np.reshape([float(word) for word in words[1:]], (4, 4))[:3, :3]
                 for words in entries if words[0] == "intrinsic"]  # fmt: skip
        if not found or names != len(found):
            raise ValueError(f"names {names} cameras and tells the intrinsics of {len(found)}")
        for matrix in found:
            if not np.isfinite(matrix).all() or not (np.diag(matrix) > 0).all():
                raise ValueError("the intrinsics of a camera are no camera matrix")
        return found


def test_camera(path: Path, size: tuple[int, int]) -> tuple[Array, Array | None]:
    """Camera matrix (3, 3), pixels, and distortion (8,) of the lens, if it has one, of a camera of the test set.

    Parameters
    ----------
    path
        `ts1-4cameras.calib` or `ts5-6cameras.calib`: a key and its values per line, lengths in mm of the sensor. No
        document tells what they mean; taken as here, people in the pictures are where the annotations say, or not.
    size
        Width and height of the pictures.

    Raises
    ------
    MetroError
        The file is missing, or says something else.
    """
    with readable(path, GET_AGAIN):
        lines = [line.partition("#")[0].split() for line in path.read_text("ascii").splitlines()]
        values = {words[0]: words[1:] for words in lines if words}
        sensor, offset = (np.array(values[key][:2], np.float64) for key in ("sensorSize", "centerOffset"))
        if float(values["pixelAspect"][0]) != 1 or values["distortionModel"] != ["OpenCV"]:
            raise ValueError("pixels that are not square, or a lens that is not OpenCV's")
        scale = np.array(size) / sensor
        (fx, fy), (cx, cy) = float(values["focalLength"][0]) * scale, np.array(size) / 2 + offset * scale
        distortion = np.zeros(8)
        distortion[:5] = [float(word) for word in values["distortion"]]
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        if not (np.isfinite(matrix).all() and np.isfinite(distortion).all() and min(fx, fy) > 0):
            raise ValueError("numbers that are no camera's")
    return matrix, distortion if distortion.any() else None
