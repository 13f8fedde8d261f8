"""The one joint registry: joint sets as tuples of names, and every map between them computed from names.

Spelling follows METRO's 24 annotation joints (`R_Ankle`, …); the kinematic sets of SMPL and SMPL-X keep their own
names (`right_ankle`, …), because a kinematic joint and an annotated one of the same place are different points.

Equal names mean "the same target for training", so some sets are renamed from how their dataset spells them:

- `H36M_MOCAP17`: the joints as Human3.6M stores them after the usual choice of 17 of 32 (pelvis, left leg, right leg,
  …); its spine and nose markers are the J24 joints `Spine` and `Jaw`. `H36M17` in contrast is the row order of METRO's
  Human3.6M regressor, right leg first, where they are called `Torso` and `Nose`.
- `H36M32`: all that Human3.6M stores. Some are at one place (`Root` and `Pelvis`; `Neck` with the two where the left
  arm and the head begin), and are named so that the usual 17 are those that every converter takes.
- `MUCO21` and `MPIINF28`: "head top" sits where Human3.6M has `Head`, and "head" where it has `Jaw`.
- `OPENPOSE18` and `OPENPOSE25`: "neck" is the middle of the shoulders, which is `Thorax` in J24.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from metro.errors import MetroError

_FINGERS = ("index", "middle", "pinky", "ring", "thumb")  # the order of MANO and SMPL-X

_SMPL22 = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)
_RIGHT_LEG = ("R_Hip", "R_Knee", "R_Ankle")
_LEFT_LEG = ("L_Hip", "L_Knee", "L_Ankle")
_RIGHT_ARM = ("R_Shoulder", "R_Elbow", "R_Wrist")
_LEFT_ARM = ("L_Shoulder", "L_Elbow", "L_Wrist")
_LSP12 = (*_RIGHT_LEG[::-1], *_LEFT_LEG, *_RIGHT_ARM[::-1], *_LEFT_ARM)
_OPENPOSE_ARMS = ("Nose", "Thorax", *_RIGHT_ARM, *_LEFT_ARM)
_OPENPOSE_FACE = ("R_Eye", "L_Eye", "R_Ear", "L_Ear")

JOINT_SETS: dict[str, tuple[str, ...]] = {
    "SMPL24": (*_SMPL22, "left_hand", "right_hand"),
    "SMPLX55": (
        *_SMPL22,
        *("jaw", "left_eye", "right_eye"),
        *(f"{side}_{finger}{k}" for side in ("left", "right") for finger in _FINGERS for k in (1, 2, 3)),
    ),
    "J24": (
        *_LSP12,
        *("Neck", "Top_of_Head", "Pelvis", "Thorax", "Spine", "Jaw", "Head"),
        *("Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear"),
    ),
    "J14": (*_LSP12, "Neck", "Head"),
    "LSP14": (*_LSP12, "Neck", "Top_of_Head"),
    "H36M17": (
        *("Pelvis", *_RIGHT_LEG, *_LEFT_LEG),
        *("Torso", "Neck", "Nose", "Head"),
        *(*_LEFT_ARM, *_RIGHT_ARM),
    ),
    "H36M_MOCAP17": (
        *("Pelvis", *_LEFT_LEG, *_RIGHT_LEG),
        *("Spine", "Neck", "Jaw", "Head"),
        *(*_LEFT_ARM, *_RIGHT_ARM),
    ),
    "H36M32": (
        *("Root", *_RIGHT_LEG, "R_Ball", "R_Toe_End", *_LEFT_LEG, "L_Ball", "L_Toe_End"),
        *("Pelvis", "Spine", "Neck_Of_Head", "Jaw", "Head"),
        *("Neck_Of_Arm", *_LEFT_ARM, "L_Thumb", "L_Thumb_End", "L_Wrist_End", "L_Hand_End"),
        *("Neck", *_RIGHT_ARM, "R_Thumb", "R_Thumb_End", "R_Wrist_End", "R_Hand_End"),
    ),
    # Rows of METRO's second body regressor, appended to the 24 SMPL joints.
    "EXTRA14": (
        *("Nose", "R_Eye", "L_Eye", "R_Ear", "L_Ear", "R_Hip", "L_Hip"),
        *("Neck", "Top_of_Head", "Pelvis", "Thorax", "Spine", "Jaw", "Head"),
    ),
    "COCO17": (
        *("Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow"),
        *("L_Wrist", "R_Wrist", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle"),
    ),
    "MPII16": (
        *(*_RIGHT_LEG[::-1], *_LEFT_LEG),
        *("Pelvis", "Thorax", "Neck", "Top_of_Head"),
        *(*_RIGHT_ARM[::-1], *_LEFT_ARM),
    ),
    "MUCO21": (
        *("Head", "Neck", *_RIGHT_ARM, *_LEFT_ARM, *_RIGHT_LEG, *_LEFT_LEG),
        *("Pelvis", "Spine", "Jaw", "R_Hand", "L_Hand", "R_Toe", "L_Toe"),
    ),
    "MPIINF28": (
        *("Spine3", "Spine4", "Spine2", "Spine", "Pelvis", "Neck", "Jaw", "Head"),
        *("L_Clavicle", *_LEFT_ARM, "L_Hand", "R_Clavicle", *_RIGHT_ARM, "R_Hand"),
        *(*_LEFT_LEG, "L_Foot", "L_Toe", *_RIGHT_LEG, "R_Foot", "R_Toe"),
    ),
    "OPENPOSE18": (*_OPENPOSE_ARMS, *_RIGHT_LEG, *_LEFT_LEG, *_OPENPOSE_FACE),
    "OPENPOSE25": (
        *(*_OPENPOSE_ARMS, "Pelvis", *_RIGHT_LEG, *_LEFT_LEG, *_OPENPOSE_FACE),
        *("L_Big_Toe", "L_Small_Toe", "L_Heel", "R_Big_Toe", "R_Small_Toe", "R_Heel"),
    ),
    "MANO16": ("Wrist", *(f"{finger.capitalize()}{k}" for finger in _FINGERS for k in (1, 2, 3))),
    "HAND21": (
        "Wrist",
        *(f"{finger}{k}" for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky") for k in (1, 2, 3, 4)),
    ),
}
"""Joint names of each set, in order."""

FINGERTIPS = ("Thumb4", "Index4", "Middle4", "Ring4", "Pinky4")
"""Names of the tips in the order in which tip vertices are always listed."""

TIP_VERTICES: dict[str, tuple[int, ...]] = {
    "layer": (745, 317, 444, 556, 673),  # the MANO layer METRO trains with: template and ground-truth joints
    "regressor": (745, 317, 445, 556, 673),  # METRO's joint regressor: joints of a predicted mesh
    "freihand": (744, 333, 444, 555, 672),  # the tips that FreiHAND annotates
}
"""Fingertip vertices (thumb, index, middle, ring, pinky) on the MANO mesh: three conventions that coexist.

FreiHAND's own toolkit lists 744, 320, 443, 555, 672, which are not its annotations: index and middle are 2 to 4 mm off.
"""


def _chain(*names: str) -> list[tuple[str, str]]:
    return list(itertools.pairwise(names))


_LIMBS = [
    *_chain(*_RIGHT_LEG),
    *_chain(*_LEFT_LEG),
    *_chain(*_RIGHT_ARM),
    *_chain(*_LEFT_ARM),
]
_SMPL_BONES = [
    *[("pelvis", "left_hip"), ("pelvis", "right_hip")],
    *_chain("pelvis", "spine1", "spine2", "spine3", "neck", "head"),
    *[
        pair
        for side in ("left", "right")
        for pair in (
            *_chain(f"{side}_hip", f"{side}_knee", f"{side}_ankle", f"{side}_foot"),
            *_chain("spine3", f"{side}_collar", f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist"),
        )
    ],
]
_FACE = [("Nose", "L_Eye"), ("L_Eye", "L_Ear"), ("Nose", "R_Eye"), ("R_Eye", "R_Ear")]
_GIRDLE = [("L_Shoulder", "R_Shoulder"), ("L_Hip", "R_Hip"), ("L_Shoulder", "L_Hip"), ("R_Shoulder", "R_Hip")]


def _trunk(*spine: str, hips: str = "Pelvis", shoulders: str = "Neck") -> list[tuple[str, str]]:
    return [
        *_LIMBS,
        *[(hips, "R_Hip"), (hips, "L_Hip"), (shoulders, "R_Shoulder"), (shoulders, "L_Shoulder")],
        *_chain(*spine),
    ]


_SKELETONS: dict[str, list[tuple[str, str]]] = {
    "SMPL24": [*_SMPL_BONES, ("left_wrist", "left_hand"), ("right_wrist", "right_hand")],
    "SMPLX55": [
        *_SMPL_BONES,
        *[("head", "jaw"), ("head", "left_eye"), ("head", "right_eye")],
        *[
            pair
            for side in ("left", "right")
            for finger in _FINGERS
            for pair in _chain(f"{side}_wrist", *(f"{side}_{finger}{k}" for k in (1, 2, 3)))
        ],
    ],
    "J24": [*_trunk("Pelvis", "Spine", "Thorax", "Neck", "Jaw", "Head", "Top_of_Head"), ("Jaw", "Nose"), *_FACE],
    "J14": [
        *_LIMBS,
        *[("R_Hip", "L_Hip"), ("Neck", "R_Hip"), ("Neck", "L_Hip")],
        *[("Neck", "R_Shoulder"), ("Neck", "L_Shoulder"), ("Neck", "Head")],
    ],
    "LSP14": [
        *_LIMBS,
        *[("R_Hip", "L_Hip"), ("Neck", "R_Hip"), ("Neck", "L_Hip")],
        *[("Neck", "R_Shoulder"), ("Neck", "L_Shoulder"), ("Neck", "Top_of_Head")],
    ],
    "H36M17": _trunk("Pelvis", "Torso", "Neck", "Nose", "Head"),
    "H36M_MOCAP17": _trunk("Pelvis", "Spine", "Neck", "Jaw", "Head"),
    "H36M32": [
        *_trunk("Root", "Pelvis", "Spine", "Neck", "Neck_Of_Arm", "Neck_Of_Head", "Jaw", "Head", hips="Root"),
        *[pair for s in "RL" for pair in _chain(f"{s}_Ankle", f"{s}_Ball", f"{s}_Toe_End")],
        *[pair for s in "RL" for pair in _chain(f"{s}_Wrist", f"{s}_Thumb", f"{s}_Thumb_End")],
        *[pair for s in "RL" for pair in _chain(f"{s}_Wrist", f"{s}_Wrist_End", f"{s}_Hand_End")],
    ],
    "EXTRA14": [
        *_chain("Pelvis", "Spine", "Thorax", "Neck", "Jaw", "Head", "Top_of_Head"),
        *[("Pelvis", "R_Hip"), ("Pelvis", "L_Hip"), ("Jaw", "Nose"), *_FACE],
    ],
    "COCO17": [*_LIMBS, *_GIRDLE, *_FACE, ("L_Ear", "L_Shoulder"), ("R_Ear", "R_Shoulder")],
    "MPII16": _trunk("Pelvis", "Thorax", "Neck", "Top_of_Head", shoulders="Thorax"),
    "MUCO21": [
        *_trunk("Pelvis", "Spine", "Neck", "Jaw", "Head"),
        *[(f"{s}_Wrist", f"{s}_Hand") for s in "RL"],
        *[(f"{s}_Ankle", f"{s}_Toe") for s in "RL"],
    ],
    "MPIINF28": [
        *_LIMBS,
        *_chain("Pelvis", "Spine", "Spine2", "Spine3", "Spine4", "Neck", "Jaw", "Head"),
        *[("Pelvis", f"{s}_Hip") for s in "RL"],
        *[pair for s in "RL" for pair in _chain("Spine4", f"{s}_Clavicle", f"{s}_Shoulder")],
        *[(f"{s}_Wrist", f"{s}_Hand") for s in "RL"],
        *[pair for s in "RL" for pair in _chain(f"{s}_Ankle", f"{s}_Foot", f"{s}_Toe")],
    ],
    "OPENPOSE18": [*_trunk("Thorax", "Nose", hips="Thorax", shoulders="Thorax"), *_FACE],
    "OPENPOSE25": [
        *_trunk("Pelvis", "Thorax", "Nose", shoulders="Thorax"),
        *_FACE,
        *[(f"{s}_Ankle", f"{s}_{end}") for s in "RL" for end in ("Big_Toe", "Small_Toe", "Heel")],
    ],
    "MANO16": [pair for f in _FINGERS for pair in _chain("Wrist", *(f"{f.capitalize()}{k}" for k in (1, 2, 3)))],
    "HAND21": [
        pair
        for f in ("Thumb", "Index", "Middle", "Ring", "Pinky")
        for pair in _chain("Wrist", *(f"{f}{k}" for k in (1, 2, 3, 4)))
    ],
}

EDGES: dict[str, tuple[tuple[int, int], ...]] = {
    name: tuple((JOINT_SETS[name].index(a), JOINT_SETS[name].index(b)) for a, b in bones)
    for name, bones in _SKELETONS.items()
}
"""Bones to draw for each set, as pairs of joint positions; the first of a kinematic pair is the parent."""


def _parents(name: str) -> tuple[int, ...]:
    above = {child: parent for parent, child in EDGES[name]}
    return tuple(above.get(j, -1) for j in range(len(JOINT_SETS[name])))


PARENTS: dict[str, tuple[int, ...]] = {name: _parents(name) for name in ("SMPL24", "SMPLX55", "MANO16", "HAND21")}
"""Kinematic parents (-1 at the root) of the sets that are trees."""

JOINT_GROUPS: dict[str, tuple[str, ...]] = {
    "head": ("Neck", "Top_of_Head", "Jaw", "Head", "Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear"),
    "torso": ("Pelvis", "Thorax", "Spine", "Torso"),
    **{
        group: (f"R_{joint}", f"L_{joint}")
        for group, joint in {
            "shoulders": "Shoulder",
            "elbows": "Elbow",
            "wrists": "Wrist",
            "hips": "Hip",
            "knees": "Knee",
            "ankles": "Ankle",
        }.items()
    },
}
"""Names of the body joints that are reported together."""

FINGER_GROUPS: dict[str, tuple[str, ...]] = {
    finger: tuple(f"{finger.capitalize()}{k}" for k in (1, 2, 3, 4))
    for finger in ("thumb", "index", "middle", "ring", "pinky")
}
"""Names of the hand joints that are reported together."""


def names_of(joints: str | Sequence[str]) -> tuple[str, ...]:
    """Names of a joint set given by key, or the given names themselves.

    Raises
    ------
    MetroError
        No set has that key.
    """
    if not isinstance(joints, str):
        return tuple(joints)
    if joints not in JOINT_SETS:
        raise MetroError(f"no joint set {joints!r}; known: {', '.join(JOINT_SETS)}")
    return JOINT_SETS[joints]


def index_map(src: str | Sequence[str], dst: str | Sequence[str]) -> list[int]:
    """Position in `src` of each joint of `dst`, so that `points[:, index_map(src, dst)]` is in the order of `dst`.

    Parameters
    ----------
    src, dst
        Keys of `JOINT_SETS`, or joint names.

    Raises
    ------
    MetroError
        A joint of `dst` is not in `src`.
    """
    have, want = names_of(src), names_of(dst)
    missing = [name for name in want if name not in have]
    if missing:
        raise MetroError(f"joint set {_label(src)} has no {', '.join(missing)}, which {_label(dst)} needs")
    return [have.index(name) for name in want]


def shared(src: str | Sequence[str], dst: str | Sequence[str]) -> tuple[list[int], list[int]]:
    """Positions in `src` and in `dst` of the joints that both have, for `out[:, to] = points[:, at]`."""
    have, want = names_of(src), names_of(dst)
    both = [name for name in want if name in have]
    return [have.index(name) for name in both], [want.index(name) for name in both]


def flip_permutation(joints: str | Sequence[str]) -> list[int]:
    """Order of the joints after left and right are exchanged (joints on the mid-line, and hands, stay)."""
    names = names_of(joints)
    return [names.index(_mirrored(name)) for name in names]


def group_indices(joints: str | Sequence[str]) -> dict[str, list[int]]:
    """Positions in a joint set of each of the `JOINT_GROUPS` that it has joints of."""
    names = names_of(joints)
    found = {group: [i for i, name in enumerate(names) if name in members] for group, members in JOINT_GROUPS.items()}
    return {group: positions for group, positions in found.items() if positions}


def _mirrored(name: str) -> str:
    for left, right in (("L_", "R_"), ("left_", "right_")):
        if name.startswith(left):
            return right + name.removeprefix(left)
        if name.startswith(right):
            return left + name.removeprefix(right)
    return name


def _label(joints: str | Sequence[str]) -> str:
    return joints if isinstance(joints, str) else "(" + ", ".join(joints) + ")"
