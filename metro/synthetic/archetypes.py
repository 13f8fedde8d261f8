"""The poses that people take, `data/poses.yaml`, as arrays in the order of SMPL's joints."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from metro.body.joints import JOINT_SETS
from metro.config import Section
from metro.errors import MetroError

Array = NDArray[np.float64]
Triple = tuple[float, float, float]
Range = tuple[float, float]

NAMES = JOINT_SETS["SMPL24"]


class Support(IntEnum):
    """What carries the body: it decides how the pelvis is tilted and what is drawn underneath."""

    FEET = 0
    SEAT = 1
    FLOOR = 2
    KNEES = 3
    FREE = 4


class Part(Section):
    """What holds for a joint of both sides."""

    limits: tuple[Range, Range, Range]
    noise: Triple
    mass: float = Field(0, ge=0)
    flesh: float = Field(0, ge=0)


class Archetype(Section):
    """A pose worth varying."""

    weight: float = Field(gt=0)
    angles: dict[str, Triple]
    support: Literal["feet", "seat", "floor", "knees", "free"] = "feet"
    pelvis: Range = (0, 0)

    def of(self, joint: str) -> Triple:
        """Angles of a joint: its own, those of its part, or 0."""
        return self.angles.get(joint, self.angles.get(part_of(joint), (0, 0, 0)))


class PoseFile(Section):
    """The file as it is written."""

    parts: dict[str, Part]
    archetypes: dict[str, Archetype] = Field(min_length=1)
    pastimes: dict[str, Archetype] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> PoseFile:
        parts = {part_of(name) for name in NAMES}
        if set(self.parts) != parts:
            raise ValueError(f"parts: {', '.join(sorted(set(self.parts) ^ parts))}: unknown, missing or a single side")
        if twice := self.archetypes.keys() & self.pastimes.keys():
            raise ValueError(f"pastimes: {min(twice)}: is among the archetypes too")
        for section, poses in (("archetypes", self.archetypes), ("pastimes", self.pastimes)):
            for title, pose in poses.items():
                for joint, angles in pose.angles.items():
                    if joint not in NAMES and joint not in parts:
                        raise ValueError(f"{section}: {title}: there is no joint {joint!r}")
                    for angle, (low, high) in zip(angles, self.parts[part_of(joint)].limits, strict=True):
                        if not low <= angle <= high:
                            raise ValueError(f"{section}: {title}: {joint}: {angle} is beyond {low} to {high} degrees")
        return self


@dataclass(frozen=True)
class PoseTable:
    """The file as arrays: A poses, first E everyday archetypes, then the pastimes; 24 joints.

    Attributes
    ----------
    names : tuple of A
    angles : (A, 24, 3)
        Degrees, in the left convention on both sides.
    share : (E,)
        How often each archetype or one before it is drawn; the last is 1.
    pastime_share : (A - E,)
        The same of the pastimes.
    support : (A,)
    pelvis : (A, 2)
        Tilt forwards and to the left, degrees.
    limits : (24, 3, 2), noise : (24, 3)
        Degrees.
    mass : (24,)
        Shares of the body's mass, sum 1.
    flesh : (24,)
        Metres.
    """

    names: tuple[str, ...]
    angles: Array
    share: Array
    pastime_share: Array
    support: NDArray[np.int64]
    pelvis: Array
    limits: Array
    noise: Array
    mass: Array
    flesh: Array


def part_of(joint: str) -> str:
    """Name of a joint without its side."""
    return joint.removeprefix("left_").removeprefix("right_")


def read_poses(path: Path) -> PoseTable:
    """Read and check a file of poses.

    Raises
    ------
    MetroError
        A field or joint is unknown, or an angle is beyond its limits.
    """
    try:
        file = PoseFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as err:
        first = err.errors()[0]
        place = ": ".join(map(str, first["loc"]))
        raise MetroError(
            f"{path}: {place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from None
    poses = [*file.archetypes.values(), *file.pastimes.values()]
    parts = [file.parts[part_of(name)] for name in NAMES]
    weights, pastimes = (np.array([pose.weight for pose in kind.values()]) for kind in (file.archetypes, file.pastimes))
    mass = np.array([part.mass for part in parts])
    return PoseTable(
        (*file.archetypes, *file.pastimes),
        np.array([[pose.of(name) for name in NAMES] for pose in poses], float),
        np.cumsum(weights) / weights.sum(),
        np.cumsum(pastimes) / pastimes.sum(),
        np.array([Support[pose.support.upper()] for pose in poses]),
        np.array([pose.pelvis for pose in poses], float),
        np.array([part.limits for part in parts], float),
        np.array([part.noise for part in parts], float),
        mass / mass.sum(),
        np.array([part.flesh for part in parts]),
    )


@cache
def pose_table() -> PoseTable:
    """The poses that ship with the package, read once per process."""
    return read_poses(Path(__file__).parent / "data" / "poses.yaml")
