"""Who is in the pictures: posed and dressed people, and what all pictures of a dataset share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from metro.body.load import load_body
from metro.config import BodyConfig
from metro.kernels import njit
from metro.options import SyntheticOptions
from metro.synthetic import exact
from metro.synthetic.archetypes import Support
from metro.synthetic.looks import MARKS, Look, Marks, landmarks, sample_look
from metro.synthetic.poses import sample_poses
from metro.synthetic.rotations import axis_rotations
from metro.synthetic.skinning import Skin, prepare_skin, rest_joints, shape_and_pose
from metro.synthetic.streams import Stream, stream
from metro.synthetic.textures import SURFACES, Noise, atlas, noise_volume, photographs

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Studio:
    """What the people of one dataset share."""

    skin: Skin
    joints: Array  # regressor of the labelled joints (24 or 21, U) from the vertices that they use
    joint_verts: NDArray[np.int64]  # (U,)
    mean_pose: Array  # (J - 1, 3) that the body model adds to the labelled pose
    marks: Marks  # landmarks of clothes, a record of `MARKS`; all zero for hands
    noise: Noise
    tiles: NDArray[np.float32]
    photographs: tuple[NDArray[np.float32], ...]


@cache
def open_studio(body: BodyConfig, split: str) -> Studio:
    """Load the body or hand and the textures once per process."""
    data = load_body(body)
    joints = data.regressors["hand21" if data.is_hand else "j24"].toarray().astype(np.float64)
    used = np.flatnonzero(joints.any(0))
    return Studio(
        prepare_skin(data),
        np.ascontiguousarray(joints[:, used]),
        used,
        np.zeros((data.num_joints - 1, 3)) if data.hands_mean is None else data.hands_mean.reshape(-1, 3),
        np.zeros((), MARKS)[()] if data.is_hand else landmarks(data),
        noise_volume(),
        atlas(split),
        photographs(split),
    )


@dataclass(frozen=True)
class Figure:
    """A posed body or hand in the world (y up, floor at 0), before any camera."""

    betas: Array
    rot: Array  # (J, 3, 3) with the heading in the root
    transl: Array
    verts: NDArray[np.float32]
    joints: Array

    @cached_property
    def low(self) -> Array:
        """Lowest coordinates (3,)."""
        return limits(self.verts)[0]

    @cached_property
    def high(self) -> Array:
        """Highest coordinates (3,)."""
        return limits(self.verts)[1]


@dataclass(frozen=True)
class Person(Figure):
    """A dressed person."""

    bones: NDArray[np.float32]  # (24, 3, 4) rest to world, without `transl`
    support: int
    look: Look


@njit
def limits(verts: NDArray[np.float32]) -> tuple[Array, Array]:
    """Lowest and highest coordinates of points (V, 3); NumPy takes ten times as long."""
    low, high = np.full(3, 1e9), np.full(3, -1e9)
    for i in range(verts.shape[0]):
        for c in range(3):
            low[c], high[c] = min(low[c], verts[i, c]), max(high[c], verts[i, c])
    return low, high


def make_people(studio: Studio, config: SyntheticOptions, indices: Sequence[int], extra: bool = False) -> list[Person]:
    """Pose and dress people; `extra` makes the strangers who share their pictures instead."""
    purpose = Stream.STRANGER if extra else Stream.SHAPE
    if not indices:
        return []
    rest_of = [stream(config.seed, i, purpose) for i in indices]
    betas = np.stack([np.clip(g.standard_normal(10), -2.5, 2.5) for g in rest_of])
    # Strangers take poses from a part of the index range that no person of the dataset uses.
    named = [i + (1 << 62) if extra else i for i in indices]
    poses = sample_poses(config.seed, named, rest_joints(studio.skin, betas), config.uniform_pose, config.pastimes)
    people = []
    for k, index in enumerate(named):
        g = stream(config.seed, index, Stream.CAMERA, 1)
        spread = g.standard_normal() * config.heading_sd_deg
        whole = g.uniform(-180, 180)
        heading = whole if g.random() < config.heading_uniform else spread
        rot = poses.rot[k].copy()
        rot[0] = exact.matmul(axis_rotations(np.array([0.0, heading, 0.0]))[1], rot[0])
        verts, joints, bones = shape_and_pose(studio.skin, betas[k], rot, np.zeros(3))
        low, high = limits(verts)
        lift = g.uniform(0, 0.25) if poses.support[k] == Support.FREE and g.random() < 0.5 else 0.0
        transl = np.array([-(low[0] + high[0]) / 2, lift - low[1], -(low[2] + high[2]) / 2])
        verts, joints = (verts + transl).astype(np.float32), joints + transl
        look = sample_look(stream(config.seed, index, Stream.LOOK), studio.marks, len(studio.tiles) - len(SURFACES))
        people.append(Person(betas[k], rot, transl, verts, joints, bones, int(poses.support[k]), look))
    return people
