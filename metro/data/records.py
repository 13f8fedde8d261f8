"""The record: one person (or hand) in one frame, as a source yields it.

Conventions, for every source:

- Pixel coordinates are OpenCV's: integer coordinates are pixel *centres*, (0, 0) is the centre of the top-left pixel.
- The camera frame is OpenCV's: x right, y down, z forward, metres. `pose_aa[:3]` turns the body model into that frame.
- Body joints are in J24 order, hand joints in HAND21 order (`metro.body.joints`). A joint that is not annotated has
  confidence 0, and its coordinates are 0.
- The box already includes the context a source's recipe asks for (1.2 × the tight box in the METRO line of work).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from metro.body.figure import BODY, Figure
from metro.errors import MetroError
from metro.words import Gender

GENDERS = get_args(Gender)
"""Genders; shards store the position in this tuple."""

MESH_ORIGINS = ("none", "mocap", "fit", "synthetic")
"""Where a mesh comes from; shards store the position in this tuple."""


@dataclass(kw_only=True, slots=True)
class Record:
    """One person (or hand) in one frame. Fields that a source does not have stay `None`.

    A source yields records without checking them; `check` is called once by `prepare`, so that a bad record is
    skipped and counted instead of ending its shard.
    """

    source: str
    """Name of the dataset, as in `SOURCES`."""
    frame: str
    """Names the frame within the source: its relative path, or path and frame number of a video."""
    image: np.ndarray | bytes | Path
    """The frame: (H, W, 3) uint8 RGB, or an encoded image (bytes, or the file to read them from)."""
    person: int = 0
    """Tells people of the same frame apart."""
    box: np.ndarray | None = None
    """(4,) x, y, width, height in pixels. Either this or `center` and `scale`."""
    center: np.ndarray | None = None
    """(2,) centre of the square crop, pixels."""
    scale: float | None = None
    """Side of the square crop in units of 200 px (HMR, METRO)."""
    keypoints_2d: np.ndarray | None = None
    """(24 | 21, 3) pixels of the frame and confidence."""
    joints_3d: np.ndarray | None = None
    """(24 | 21, 4) metres in the camera frame and confidence. Root-relative where a source has no absolute position."""
    pose_aa: np.ndarray | None = None
    """(72 | 48,) axis-angle pose, SMPL or MANO order; the first three turn the body into the camera frame."""
    betas: np.ndarray | None = None
    """(10,) shape."""
    transl: np.ndarray | None = None
    """(3,) translation of the body model into the camera frame, metres."""
    gender: str = "neutral"
    """Variant of the body model that `pose_aa` and `betas` belong to."""
    intrinsics: np.ndarray | None = None
    """(3, 3) camera matrix of the frame, pixels."""
    mesh_origin: str = "none"
    """Where pose and shape come from: `mocap`, `fit`, `synthetic` or `none`."""
    fit_error: float | None = None
    """Mean joint error of the fit, metres, where `mesh_origin` is `fit` and the source tells it."""

    @property
    def has_2d(self) -> bool:
        """Whether there are 2D joints."""
        return self.keypoints_2d is not None

    @property
    def has_3d(self) -> bool:
        """Whether there are 3D joints."""
        return self.joints_3d is not None

    @property
    def has_mesh(self) -> bool:
        """Whether pose and shape are known."""
        return self.pose_aa is not None and self.betas is not None

    @property
    def name(self) -> str:
        """`source:frame#person`, unique within a dataset; the key stored in shards."""
        return f"{self.source}:{self.frame}#{self.person}"

    def crop_square(self) -> tuple[np.ndarray, float]:
        """Centre (2,) in pixels and scale (side / 200 px) of the square crop: as given, or around the box."""
        if self.center is not None and self.scale is not None:
            return np.asarray(self.center, np.float64), float(self.scale)
        if self.box is None:
            raise MetroError(f"{self.name}: neither a box nor center and scale")
        x, y, width, height = np.asarray(self.box, np.float64)
        return np.array([x + width / 2, y + height / 2]), max(width, height) / 200

    def check(self, figure: Figure = BODY) -> None:
        """Check shapes and values.

        Parameters
        ----------
        figure
            What the record is of: gives the number of joints and of pose parameters.

        Raises
        ------
        MetroError
            One line that names the record, the field and what is wrong with it.
        """
        shapes: dict[str, tuple[int, ...]] = {
            "box": (4,),
            "center": (2,),
            "keypoints_2d": (figure.num_labels, 3),
            "joints_3d": (figure.num_labels, 4),
            "pose_aa": (figure.pose_size,),
            "betas": (10,),
            "transl": (3,),
            "intrinsics": (3, 3),
        }
        for field, shape in shapes.items():
            value = getattr(self, field)
            if value is not None:
                self._check_array(field, value, shape)
        if self.scale is not None and not np.isfinite(self.scale):
            self._fail("scale", f"is {self.scale}")
        if (self.center is None) != (self.scale is None):
            self._fail("center", "and scale go together")
        if not 0 < self.crop_square()[1] < 1e3:
            self._fail("box", f"has side {200 * self.crop_square()[1]:.4g} px")
        for field in ("keypoints_2d", "joints_3d"):
            value = getattr(self, field)
            if value is not None and not (np.asarray(value)[:, -1] >= 0).all():
                self._fail(field, "has a negative confidence")
        if (self.pose_aa is None) != (self.betas is None):
            self._fail("pose_aa", "and betas go together")
        if not (self.has_2d or self.has_3d or self.has_mesh):
            self._fail("labels", "are all missing")
        if self.gender not in GENDERS:
            self._fail("gender", f"is {self.gender!r}, not one of {', '.join(GENDERS)}")
        if self.mesh_origin not in MESH_ORIGINS or (self.mesh_origin == "none") == self.has_mesh:
            self._fail("mesh_origin", f"is {self.mesh_origin!r}, which does not fit has_mesh={self.has_mesh}")
        if isinstance(self.image, np.ndarray):
            if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3 or not self.image.size:
                self._fail("image", f"is {self.image.dtype} {self.image.shape}, not uint8 (H, W, 3)")
        elif not isinstance(self.image, (bytes, Path)):
            self._fail("image", f"is a {type(self.image).__name__}, not an array, bytes or a path")

    def _check_array(self, field: str, value: Any, shape: tuple[int, ...]) -> None:
        array = np.asarray(value)
        if array.shape != shape:
            self._fail(field, f"has shape {array.shape}, not {shape}")
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            self._fail(field, "has values that are not finite numbers")

    def _fail(self, field: str, problem: str) -> None:
        raise MetroError(f"{self.name}: {field} {problem}")


@dataclass(frozen=True, slots=True)
class BadRecord:
    """What a source yields in place of a record that it cannot read, so that it is counted and reported."""

    name: str
    """The record, as in `Record.name`, or the file."""
    problem: str
    """What is wrong with it, in one line."""
