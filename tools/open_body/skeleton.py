"""Anny's 104 bones on SMPL's 24 joints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metro.body.joints import JOINT_SETS, PARENTS, flip_permutation

SMPL24 = JOINT_SETS["SMPL24"]
PARENTS24 = PARENTS["SMPL24"]
MIRROR24 = flip_permutation("SMPL24")

MIRROR_X = np.array([-1.0, 1.0, 1.0])

# Bone (without its side) → the joint whose rotation it follows (without its side).
_FOLLOWS = {
    **dict.fromkeys(("root", "pelvis", "spine05"), "pelvis"),
    **{"spine04": "spine1", "spine03": "spine1", "spine02": "spine2", "spine01": "spine3"},
    **dict.fromkeys(("neck01", "neck02", "neck03"), "neck"),
    **{"head": "head", "eye": "head"},
    **{"upperleg01": "hip", "upperleg02": "hip", "lowerleg01": "knee", "lowerleg02": "knee", "foot": "ankle"},
    **{"clavicle": "collar", "shoulder01": "collar", "upperarm01": "shoulder", "upperarm02": "shoulder"},
    **{"lowerarm01": "elbow", "lowerarm02": "elbow", "wrist": "wrist"},
}
_PREFIXES = {"toe": "foot", "finger": "hand", "metacarpal": "wrist"}

# Joint → bone whose head is the joint.
_HEADS = {
    **{"pelvis": "root", "spine1": "spine04", "spine2": "spine02", "spine3": "spine01"},
    **{"neck": "neck01", "head": "head"},
}
_SIDE_HEADS = {
    **{"hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot"},
    **{"collar": "clavicle", "shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist"},
}


def split_side(bone: str) -> tuple[str, str]:
    """Bone name without its side, and the side's prefix in SMPL's joint names."""
    for suffix, side in ((".L", "left_"), (".R", "right_")):
        if bone.endswith(suffix):
            return bone.removesuffix(suffix), side
    return bone, ""


def joint_of(bone: str) -> int:
    """SMPL joint that an Anny bone follows."""
    name, side = split_side(bone)
    joint = next((joint for prefix, joint in _PREFIXES.items() if name.startswith(prefix)), None) or _FOLLOWS[name]
    return SMPL24.index(joint if joint in SMPL24 else side + joint)


def joints_of(placed_NB3: np.ndarray, bones: Sequence[str]) -> np.ndarray:
    """SMPL's joints (N, 24, 3) from bone heads (N, B, 3)."""

    def head(bone: str) -> np.ndarray:
        return placed_NB3[:, bones.index(bone)]

    joints = np.zeros((len(placed_NB3), 24, 3))
    for joint, bone in _HEADS.items():
        joints[:, SMPL24.index(joint)] = head(bone)
    for side, suffix in (("left", "L"), ("right", "R")):
        for joint, bone in _SIDE_HEADS.items():
            joints[:, SMPL24.index(f"{side}_{joint}")] = head(f"{bone}.{suffix}")
        toes = [head(f"toe{k}-1.{suffix}") for k in range(1, 6)]
        knuckles = [head(f"finger{k}-1.{suffix}") for k in range(2, 6)]
        joints[:, SMPL24.index(f"{side}_foot")] = np.mean(toes, 0)
        joints[:, SMPL24.index(f"{side}_hand")] = np.mean(knuckles, 0)
    return joints


def merged_weights(bone_weights_VB: np.ndarray, bones: Sequence[str], mirror: np.ndarray) -> np.ndarray:
    """Skinning weights (V, 24): bones summed onto joints, symmetric, at most four per vertex as in SMPL."""
    weights = np.zeros((len(bone_weights_VB), 24))
    for column, bone in enumerate(bones):
        weights[:, joint_of(bone)] += bone_weights_VB[:, column]
    weights = (weights + weights[mirror][:, MIRROR24]) / 2
    largest = np.argsort(-weights, axis=1)[:, :4]
    kept = np.zeros_like(weights)
    np.put_along_axis(kept, largest, 1, axis=1)
    weights *= kept
    return weights / weights.sum(1, keepdims=True)
