"""Bodies that raw data pose: their joints and meshes, and how they come from a world into a camera's frame.

Everything here rounds alike on every processor, and in double precision but for the vertices. The last axis of a pose
is axis-angle, joint after joint. Shapes: N people, P pose parameters, J kinematic and K annotated joints, V vertices.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metro.body.load import load_variant
from metro.config import BodyConfig, DatasetConfig
from metro.synthetic import exact
from metro.synthetic.rotations import rotation_vector
from metro.synthetic.skinning import Skin, place_joints, prepare_skin, regress, rest_joints, shape_and_pose

Array = NDArray[np.float64]


class _Body(NamedTuple):
    """A body of one gender, and the part of it that annotated joints are read off."""

    whole: Skin
    part: Skin
    regressor: Array  # (K, vertices of the part)
    mean_pose: Array  # (P,) that is added to poses


class Bodies:
    """The bodies of a set, by gender. Each is loaded when it is first asked for, once per process.

    Parameters
    ----------
    config
        `gender: neutral` stands the neutral body in for all others.
    body
        Kind of the body, and where licensed ones lie.

    Raises
    ------
    MetroError
        Its methods: there is no body of a gender.
    """

    def __init__(self, config: DatasetConfig, body: BodyConfig) -> None:
        self._neutral, self._body = config.gender == "neutral", body

    def variant(self, gender: str) -> str:
        """The body that a person of a gender is posed on, which is what `Record.gender` says."""
        return "neutral" if self._neutral else gender

    def require(self, *genders: str) -> None:
        """Load bodies before any person is looked at: that one is missing is no fault of people."""
        for gender in genders:
            self._load(gender)

    def pelvis(self, gender: str, betas_NS: ArrayLike) -> Array:
        """Root joints (N, 3) of shapes at rest, metres: what poses turn the body about."""
        return rest_joints(self._load(gender).whole, np.asarray(betas_NS, np.float64))[:, 0]

    def kinematic(self, gender: str, pose_NP: ArrayLike, betas_NS: ArrayLike, transl_N3: ArrayLike) -> Array:
        """Kinematic joints (N, J, 3), metres."""
        body = self._load(gender)
        rest_NJ3 = rest_joints(body.whole, np.asarray(betas_NS, np.float64))
        turns_NJ33 = _local(body, pose_NP)
        placed = [
            place_joints(turns, rest, body.whole.parents)[1] for turns, rest in zip(turns_NJ33, rest_NJ3, strict=True)
        ]
        return np.reshape(placed, rest_NJ3.shape) + np.asarray(transl_N3, np.float64)[:, None]

    def vertices(self, gender: str, pose_NP: ArrayLike, betas_NS: ArrayLike, transl_N3: ArrayLike) -> Array:
        """Vertices (N, V, 3), metres, to single precision."""
        body = self._load(gender)
        return _skinned(body, body.whole, pose_NP, betas_NS, transl_N3)

    def joints(self, gender: str, pose_NP: ArrayLike, betas_NS: ArrayLike, transl_N3: ArrayLike) -> Array:
        """Annotated joints (N, K, 3), metres: J24 or HAND21, as the model's regressor reads them off the mesh."""
        body = self._load(gender)
        points_NV3 = _skinned(body, body.part, pose_NP, betas_NS, transl_N3)
        return np.reshape([regress(body.regressor, points) for points in points_NV3], (-1, len(body.regressor), 3))

    def _load(self, gender: str) -> _Body:
        return _load(self._body, self.variant(gender))


@cache
def _load(config: BodyConfig, gender: str) -> _Body:
    data = load_variant(config, gender)
    whole = prepare_skin(data)
    regressor = data.regressor(data.figure.label_regressor).toarray().astype(np.float64)
    used = np.flatnonzero(regressor.any(0))
    mean_pose = np.zeros(3 * data.num_joints)
    if data.hands_mean is not None:
        mean_pose[3:] = data.hands_mean
    return _Body(whole, _part(whole, used), np.ascontiguousarray(regressor[:, used]), mean_pose)


def _part(whole: Skin, used: NDArray[np.intp]) -> Skin:
    """Some vertices of a body: they move as they do on the whole one."""
    place = np.full(len(whole.template), -1, np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    kept = place[whole.corrective_vertex] >= 0
    return whole._replace(
        template=whole.template[used],
        shapes=np.ascontiguousarray(whole.shapes[:, used]),
        bones=whole.bones[used],
        bone_weights=whole.bone_weights[used],
        corrective_start=np.concatenate([[0], np.cumsum(kept)])[whole.corrective_start],
        corrective_vertex=place[whole.corrective_vertex[kept]],
        correctives=whole.correctives[kept],
    )


def _skinned(body: _Body, skin: Skin, pose_NP: ArrayLike, betas_NS: ArrayLike, transl_N3: ArrayLike) -> Array:
    betas_NS, transl_N3 = np.asarray(betas_NS, np.float64), np.asarray(transl_N3, np.float64)
    if betas_NS.shape[1] > len(skin.shapes):  # compiled loops do not look
        raise ValueError(f"{betas_NS.shape[1]} betas given, the body has {len(skin.shapes)}")
    out_NV3 = np.empty((len(transl_N3), len(skin.template), 3))
    for n, turns in enumerate(_local(body, pose_NP)):
        # At the origin, where single precision is finest.
        out_NV3[n] = shape_and_pose(skin, betas_NS[n], turns, np.zeros(3))[0]
    return out_NV3 + transl_N3[:, None]


def _local(body: _Body, pose_NP: ArrayLike) -> Array:
    """Rotations (N, J, 3, 3) of joints about their parents."""
    pose_NP = np.asarray(pose_NP, np.float64) + body.mean_pose
    return rotations(pose_NP.reshape(len(pose_NP), len(body.whole.parents), 3))


def rotations(aa: ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) of axis-angle vectors (..., 3), below a million radians."""
    aa = np.asarray(aa, np.float64)
    angle = np.sqrt((aa * aa).sum(-1))[..., None]
    x, y, z = np.moveaxis(aa / np.maximum(angle, 1e-300), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*aa.shape, 3)
    # 1 - cos with the half angle, which does not cancel.
    sine, versine = exact.sin(angle)[..., None], 2 * exact.sin(angle / 2)[..., None] ** 2
    out: Array = np.eye(3) + sine * cross + versine * exact.matmul(cross, cross)
    return out


def wrapped(aa: ArrayLike) -> Array:
    """The same rotations by the shorter way: axis-angle (..., 3 k) with every angle at most π; others stay as they are.

    Not for fingers of MANO, which are added to a mean pose.
    """
    aa = np.asarray(aa, np.float64)
    parts = aa.reshape(*aa.shape[:-1], -1, 3)
    angle = np.sqrt((parts * parts).sum(-1, keepdims=True))
    turns = np.floor(angle / (2 * np.pi) + 0.5) * (angle > np.pi)
    return (parts * (1 - 2 * np.pi * turns / np.maximum(angle, 1))).reshape(aa.shape)


def to_camera(
    rotation: ArrayLike, translation: ArrayLike, pose_NP: ArrayLike, transl_N3: ArrayLike, pelvis_N3: ArrayLike
) -> tuple[Array, Array]:
    """Pose and translation of bodies in the camera's frame.

    Poses turn a body about its pelvis, not about the origin: x ↦ R x + t makes of the root rotation R · root, and of
    the translation R (pelvis + transl) + t - pelvis (not R transl + t, which is off by up to twice |pelvis|).

    Parameters
    ----------
    rotation, translation
        World → camera, R (3, 3) or (N, 3, 3) and t (3,) or (N, 3), metres.
    pose_NP, transl_N3
        In the world, SMPL's or MANO's.
    pelvis_N3
        `Bodies.pelvis` of the bodies' shapes and genders.
    """
    rotation, pose = np.asarray(rotation, np.float64), np.array(pose_NP, np.float64)
    transl_N3, pelvis_N3 = np.asarray(transl_N3, np.float64), np.asarray(pelvis_N3, np.float64)
    pose[:, :3] = rotation_vector(exact.matmul(rotation, rotations(pose[:, :3])))
    place_N3 = exact.matmul(rotation, (pelvis_N3 + transl_N3)[..., None])[..., 0]
    return pose, place_N3 + np.asarray(translation, np.float64) - pelvis_N3
