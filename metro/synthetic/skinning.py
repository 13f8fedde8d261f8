"""Skinning of many bodies whose last bit depends on nothing but the body.

`metro.body.model.BodyModel` is the layer that training differentiates. Its matrix products may round differently with
the batch size and the number of threads; shards have to come out byte-identical on any schedule, so the people in them
are skinned here, in loops with a fixed order of summation. A test holds the two within a hundredth of a millimetre.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.body.arrays import BodyData
from metro.kernels import njit

Array = NDArray[np.float32]


class Skin(NamedTuple):
    """A body laid out for skinning: pose correctives by joint with their zeros left out, four bones per vertex."""

    template: Array  # (V, 3)
    shapes: Array  # (S, V, 3)
    joints: Array  # (J, 3) rest joints of the template
    joint_shapes: Array  # (S, J, 3)
    parents: NDArray[np.int64]  # (J,)
    bones: NDArray[np.int32]  # (V, k) joints that move a vertex
    bone_weights: Array  # (V, k)
    corrective_start: NDArray[np.int64]  # (J,) first row of a joint's correctives; the root has none
    corrective_vertex: NDArray[np.int32]  # (R,)
    correctives: Array  # (R, 9, 3)
    faces: NDArray[np.int32]  # (F, 3)


def prepare_skin(body: BodyData) -> Skin:
    """Lay a body out for `shape_and_pose`."""
    regressor = body.J_regressor.astype(np.float64)
    shapes = np.ascontiguousarray(body.shapedirs.transpose(2, 0, 1), np.float32)
    k = int((body.weights > 0).sum(1).max())
    bones = np.argsort(-body.weights, axis=1, kind="stable")[:, :k]
    by_joint = body.posedirs.reshape(body.num_vertices, 3, body.num_joints - 1, 9).transpose(2, 0, 3, 1)  # J-1, V, 9, 3
    used = [np.flatnonzero(block.any((1, 2))) for block in by_joint]
    start = np.cumsum([0, 0, *(len(u) for u in used)])
    return Skin(
        np.ascontiguousarray(body.v_template, np.float32),
        shapes,
        regress(regressor, body.v_template).astype(np.float32),
        np.stack([regress(regressor, shape) for shape in shapes]).astype(np.float32),
        np.asarray(body.parents, np.int64),
        bones.astype(np.int32),
        np.take_along_axis(body.weights, bones, 1).astype(np.float32),
        start.astype(np.int64),
        np.concatenate(used).astype(np.int32),
        np.ascontiguousarray(np.concatenate([b[u] for b, u in zip(by_joint, used, strict=True)]), np.float32),
        np.ascontiguousarray(body.faces, np.int32),
    )


@njit
def regress(regressor: NDArray[np.float64], verts: NDArray[np.floating]) -> NDArray[np.float64]:
    """Joints (J, 3) of vertices (V, 3), regressor (J, V); most of its entries are 0, which are left out."""
    out = np.zeros((regressor.shape[0], 3))
    for j in range(regressor.shape[0]):
        for v in range(regressor.shape[1]):
            if regressor[j, v] != 0:
                for c in range(3):
                    out[j, c] += regressor[j, v] * verts[v, c]
    return out


def rest_joints(skin: Skin, betas: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rest joints (B, J, 3) of shapes (B, S)."""
    out = np.repeat(skin.joints[None].astype(np.float64), len(betas), 0)
    for s in range(betas.shape[1]):
        out += betas[:, s, None, None] * skin.joint_shapes[s]
    return out


@njit
def place_joints(
    rot: NDArray[np.float64], rest: NDArray[np.float64], parents: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """World rotations (J, 3, 3) and positions (J, 3) of joints with local rotations; the root stays where it rests."""
    turns, places = rot.copy(), rest.copy()
    for j in range(rest.shape[0]):
        p = parents[j]
        if p < 0:
            continue
        for a in range(3):
            places[j, a] = places[p, a]
            for c in range(3):
                turns[j, a, c] = 0
                for k in range(3):
                    turns[j, a, c] += turns[p, a, k] * rot[j, k, c]
                places[j, a] += turns[p, a, c] * (rest[j, c] - rest[p, c])
    return turns, places


@njit
def shape_and_pose(
    skin: Skin, betas: NDArray[np.float64], rot: NDArray[np.float64], transl: NDArray[np.float64]
) -> tuple[Array, NDArray[np.float64], Array]:
    """Vertices (V, 3), joints (J, 3) and bone transforms (J, 3, 4) of one body.

    `betas` (S,), local joint rotations `rot` (J, 3, 3) and `transl` (3,), all in the frame that `rot[0]` turns into.
    """
    count, bones = skin.template.shape[0], skin.parents.shape[0]
    rest = skin.template.copy()
    joints = skin.joints.astype(np.float64)
    for s in range(betas.shape[0]):
        b = np.float32(betas[s])
        for v in range(count):
            for c in range(3):
                rest[v, c] += b * skin.shapes[s, v, c]
        for j in range(bones):
            for c in range(3):
                joints[j, c] += betas[s] * skin.joint_shapes[s, j, c]
    feature = np.empty(9, np.float32)
    for j in range(1, bones):
        for i in range(9):
            feature[i] = rot[j, i // 3, i % 3] - (1.0 if i % 4 == 0 else 0.0)
        for r in range(skin.corrective_start[j], skin.corrective_start[j + 1]):
            v = skin.corrective_vertex[r]
            for c in range(3):
                total = np.float32(0)
                for i in range(9):
                    total += feature[i] * skin.correctives[r, i, c]
                rest[v, c] += total
    turns, posed = place_joints(rot, joints, skin.parents)
    posed += transl
    bone = np.empty((bones, 3, 4), np.float32)
    for j in range(bones):
        for a in range(3):
            shift = posed[j, a]
            for c in range(3):
                bone[j, a, c] = turns[j, a, c]
                shift -= turns[j, a, c] * joints[j, c]
            bone[j, a, 3] = shift
    out = np.empty((count, 3), np.float32)
    for v in range(count):
        for a in range(3):
            m0, m1, m2, m3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(skin.bones.shape[1]):
                w, j = skin.bone_weights[v, i], skin.bones[v, i]
                m0 += w * bone[j, a, 0]
                m1 += w * bone[j, a, 1]
                m2 += w * bone[j, a, 2]
                m3 += w * bone[j, a, 3]
            out[v, a] = m0 * rest[v, 0] + m1 * rest[v, 1] + m2 * rest[v, 2] + m3
    return out, posed, bone
