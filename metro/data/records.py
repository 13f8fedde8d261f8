"""The record: one person (or hand) in one frame, as a source yields it.

Conventions, for every source:

- Pixel coordinates are OpenCV's: integer coordinates are pixel *centres*, (0, 0) is the centre of the top-left pixel.
- The camera frame is OpenCV's: x right, y down, z forward, metres. `pose_aa[:3]` turns the body model into that frame.
- Body joints are in J24 order, hand joints in HAND21 order (`metro.body.joints`). A joint that is not annotated has
  confidence 0, and its coordinates are 0.
- The box already includes the context a source's recipe asks for (1.2 × the tight box in the METRO line of work).
- Pixels are those of the file as it is stored. A picture whose EXIF data say that viewers turn it is refused unless the
  record's `upright` tells which of both its coordinates refer to (`metro.data.crop.decode` is what reads pictures).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metro.body.figure import BODY, HAND, Figure
from metro.data.lens import LENSES
from metro.errors import MetroError
from metro.words import GENDERS

MESH_ORIGINS = ("none", "mocap", "fit", "synthetic")
"""Where a mesh comes from; shards store the position in this tuple."""

EXTENT_M = {BODY.labels: (0.1, 1.6, 4.0), HAND.labels: (0.01, 0.17, 0.6)}
"""Largest distance between the joints of a person, and of a hand: smallest believed, usual, largest believed."""
UNITS = {"millimetres": 1e-3, "centimetres": 1e-2, "inches": 0.0254, "kilometres": 1e3}
FARTHEST_M = 200.0
"""Distance from the camera that is believed."""
LARGEST_ANGLE = 20.0
"""Rotation of a joint that is believed, radians: fits may turn a joint more than once."""
LARGEST_BETA = 50.0
FOCAL_PX = (10.0, 1e6)
LARGEST_RADIAL, LARGEST_TANGENTIAL = 1e3, 1.0
"""Coefficients of a lens that are believed: those of rational models cancel and may be large."""


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
    distortion: np.ndarray | None = None
    """(8,) k1 k2 p1 p2 k3 k4 k5 k6 of the lens. The frame and `keypoints_2d` are as the lens shows them."""
    lens: str = "none"
    """Whose formula `distortion` belongs to: `none` (there is none), `opencv` or `h36m` (`metro.data.lens`)."""
    mesh_origin: str = "none"
    """Where pose and shape come from: `mocap`, `fit`, `synthetic` or `none`."""
    fit_error: float | None = None
    """Mean joint error of the fit, metres, where `mesh_origin` is `fit` and the source tells it."""
    upright: bool | None = None
    """Whether coordinates refer to the picture as its EXIF orientation turns it, or to the stored pixels; `None` where
    no picture has one."""

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
        """Check shapes and values, and whether they can be: a person of a kilometre has been measured in millimetres.

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
            "distortion": (8,),
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
        if self.box is not None and not (np.asarray(self.box)[2:] > 0).all():
            self._fail("box", f"has width {self.box[2]:.4g} and height {self.box[3]:.4g} px")
        if self.fit_error is not None and not 0 <= self.fit_error <= 10:
            self._fail("fit_error", f"is {self.fit_error} m")
        given = {field: getattr(self, field) for field in shapes}
        alone = {field: np.asarray(value)[None] for field, value in given.items() if value is not None}
        for _, field, problem in implausible(figure, alone):
            self._fail(field, problem)
        if self.keypoints_2d is not None:
            center, scale = self.crop_square()
            known = np.asarray(self.keypoints_2d, np.float64)
            known = known[known[:, 2] > 0, :2]
            if len(known) and (np.abs(known - center).max(1) > 200 * scale).all():
                self._fail("keypoints_2d", "lie outside of twice the box, all of them; are they pixels of the frame?")
        if (self.pose_aa is None) != (self.betas is None):
            self._fail("pose_aa", "and betas go together")
        if not (self.has_2d or self.has_3d or self.has_mesh):
            self._fail("labels", "are all missing")
        if self.lens not in LENSES:
            self._fail("lens", f"is {self.lens!r}, not one of {', '.join(LENSES)}")
        if (self.lens == "none") == (self.distortion is not None):
            self._fail("distortion", f"is {'missing' if self.distortion is None else 'given'} with lens {self.lens!r}")
        if self.lens != "none" and self.intrinsics is None:
            self._fail("distortion", "needs intrinsics, which are missing")
        if self.lens == "h36m" and np.asarray(self.distortion)[5:].any():
            self._fail("distortion", "has k4, k5 or k6, which the lens 'h36m' has not")
        if self.gender not in GENDERS:
            self._fail("gender", f"is {self.gender!r}, not one of {', '.join(GENDERS)}")
        if self.mesh_origin not in MESH_ORIGINS or (self.mesh_origin == "none") == self.has_mesh:
            self._fail("mesh_origin", f"is {self.mesh_origin!r}, which does not fit has_mesh={self.has_mesh}")
        if isinstance(self.image, np.ndarray):
            if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3 or not self.image.size:
                self._fail("image", f"is {self.image.dtype} {self.image.shape}, not uint8 (H, W, 3)")
        elif not isinstance(self.image, (bytes, Path)):
            self._fail("image", f"is a {type(self.image).__name__}, not an array, bytes or a path")
        if not self.name.isprintable():
            self._fail("frame", "holds characters that cannot be stored")

    def _check_array(self, field: str, value: Any, shape: tuple[int, ...]) -> None:
        array = np.asarray(value)
        if array.shape != shape:
            self._fail(field, f"has shape {array.shape}, not {shape}")
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            self._fail(field, "has values that are not finite numbers")

    def _fail(self, field: str, problem: str) -> None:
        name = self.name if self.name.isprintable() else ascii(self.name)
        raise MetroError(f"{name}: {field} {problem}")


def implausible(figure: Figure, labels: Mapping[str, np.ndarray | None]) -> Iterator[tuple[int, str, str]]:
    """What labels say that cannot be: row, name of the label and problem, with the likely unit.

    Parameters
    ----------
    figure
        What the records are of.
    labels
        Of N records, in the units of `Record`: `keypoints_2d` (N, J, 3), `joints_3d` (N, J, 4), `pose_aa` (N, P),
        `betas` (N, 10), `transl` (N, 3), `intrinsics` (N, 3, 3) and `distortion` (N, 8). Those that are missing or
        `None`, and rows that are not finite, are not looked at.
    """
    wanted = ("keypoints_2d", "joints_3d", "pose_aa", "betas", "transl", "intrinsics", "distortion")
    given = {name: np.asarray(labels[name], np.float64) for name in wanted if labels.get(name) is not None}
    for name in ("keypoints_2d", "joints_3d"):
        if name in given:
            least_N, most_N = given[name][..., -1].min(1), given[name][..., -1].max(1)
            for row in _where((least_N < 0) | (most_N > 1)):
                yield row, name, f"has confidences from {least_N[row]:.4g} to {most_N[row]:.4g}, not within 0 and 1"
    if "joints_3d" in given:
        least, usual, most = EXTENT_M[figure.labels]
        seen_NJ = given["joints_3d"][..., 3] > 0
        extent_N = _extents(given["joints_3d"][..., :3], seen_NJ)
        far_N = (np.abs(given["joints_3d"][..., :3]).max(2) * seen_NJ).max(1)
        # A few joints, of the face say, may lie close together.
        wrong_N = (extent_N > most) | (extent_N < least) & (seen_NJ.sum(1) > figure.num_labels / 2)
        for row in _where(wrong_N):
            yield row, "joints_3d", f"reach over {extent_N[row]:.4g} m{_likely_unit(extent_N[row], usual)}"
        for row in _where(~wrong_N & (far_N > FARTHEST_M)):
            yield row, "joints_3d", f"are {far_N[row]:.4g} m from the camera"
    if "transl" in given:
        far_N = np.abs(given["transl"]).max(1)
        for row in _where(far_N > FARTHEST_M):
            yield row, "transl", f"is {far_N[row]:.4g} m{_likely_unit(far_N[row], 4.0)}"
    if "pose_aa" in given:
        angle_N = np.linalg.norm(given["pose_aa"].reshape(len(given["pose_aa"]), -1, 3), axis=2).max(1)
        for row in _where(angle_N > LARGEST_ANGLE):
            yield row, "pose_aa", f"turns a joint by {angle_N[row]:.4g} radians; are they degrees?"
    if "betas" in given:
        size_N = np.abs(given["betas"]).max(1)
        for row in _where(size_N > LARGEST_BETA):
            yield row, "betas", f"reach {size_N[row]:.4g}, which is no human shape"
    if "intrinsics" in given:
        camera_N33 = given["intrinsics"]
        known_N = np.isfinite(camera_N33).all((1, 2))
        focal_N2 = camera_N33[:, [0, 1], [0, 1]]
        low, high = FOCAL_PX
        blurred_N = ((focal_N2 < low) | (focal_N2 > high)).any(1)
        for row in _where(known_N & blurred_N):
            yield row, "intrinsics", f"have focal lengths {focal_N2[row, 0]:.4g} and {focal_N2[row, 1]:.4g} px"
        odd_N = (camera_N33[:, [1, 2, 2, 2], [0, 0, 1, 2]] != [0, 0, 0, 1]).any(1)
        for row in _where(known_N & ~blurred_N & odd_N):
            yield row, "intrinsics", "are no camera matrix [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels"
    if "distortion" in given:
        size_N8 = np.abs(given["distortion"])
        most_8 = np.where(np.isin(np.arange(8), (2, 3)), LARGEST_TANGENTIAL, LARGEST_RADIAL)
        for row in _where((size_N8 > most_8).any(1)):
            yield row, "distortion", f"reaches {size_N8[row].max():.4g}; is it k1 k2 p1 p2 k3 k4 k5 k6?"


def _where(flag_N: ArrayLike) -> list[int]:
    rows: list[int] = np.flatnonzero(flag_N).tolist()
    return rows


def _extents(joints_NJ3: np.ndarray, seen_NJ: np.ndarray) -> np.ndarray:
    """(N,) largest distance between two joints that are seen."""
    extent_N = np.zeros(len(joints_NJ3))
    for j in range(joints_NJ3.shape[1]):
        distance_NJ = np.linalg.norm(joints_NJ3 - joints_NJ3[:, j : j + 1], axis=2)
        np.maximum(extent_N, (distance_NJ * (seen_NJ & seen_NJ[:, j : j + 1])).max(1), out=extent_N)
    return extent_N


def _likely_unit(length: float, usual: float) -> str:
    """The unit in which a length would be nearest to the usual one, if that is near."""
    if length <= 0:
        return ""
    name, off = min(((n, abs(math.log(length * u / usual))) for n, u in UNITS.items()), key=lambda pair: pair[1])
    return f"; they look like {name}" if off < math.log(3) else ""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """What a source yields in place of records that it cannot read, so that they are counted and reported."""

    name: str
    """The record, as in `Record.name`, or the file."""
    problem: str
    """What is wrong with it, in one line."""
    count: int = 1
    """Records that it stands for: a video that cannot be read loses all of its own."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a source yields for records that a rule of the set leaves out. They are counted, and nothing is wrong."""

    reason: str
    """The rule, in a few words that are the same for all that it leaves out."""
    count: int = 1
