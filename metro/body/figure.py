"""Body and hand as data: what METRO's two configurations differ in beside the network's own settings.

All of it is names; positions are computed from the joint registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metro.body.joints import FINGER_GROUPS, JOINT_GROUPS, JOINT_SETS, flip_permutation, index_map
from metro.words import HAND_KINDS


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What is predicted: a body or a hand."""

    joint_set: str
    """Joints predicted, in the order of the joint tokens."""
    labels: str
    """Joints annotated."""
    regressed: str
    """Joints that the model's regressor reads off a mesh; the first one is the origin of meshes."""
    posed: str
    """Joints whose rotations are the pose."""
    pelvis: str
    """The annotated joint that stands for the first regressed one."""
    roots: tuple[str, ...]
    """Predicted joints whose mean is the root in losses and metrics."""
    groups: Mapping[str, tuple[str, ...]]
    """Joints that are reported together."""
    queries: tuple[str, ...]
    """Joints whose attention is drawn."""
    free: str
    """Kind of body that ships with the project."""
    licensed: str
    """Kind of body that the paper uses."""
    preset: str
    """Preset with the recipe of the official checkpoints."""
    stands: tuple[tuple[str, ...], tuple[str, ...]]
    """Predicted joints whose means are below and above one another when it stands upright in a picture."""
    leans_deg: float
    """Who leans more in a picture is turned upright before the network looks."""
    upright: bool
    """Whether it turns about the vertical axis alone, so that it has a heading."""
    may_flip: bool
    """Whether its mirror image is again one: a mirrored right hand is a left one, which MANO does not have."""
    joints_from_mesh: bool
    """Whether the true joints of a sample with a mesh are read off the mesh (official hand) instead of annotated."""

    @property
    def regressor(self) -> str:
        """Name of the regressor that reads the predicted joints (`token_rows` of it) off a mesh."""
        return self.regressed.lower()

    @property
    def label_regressor(self) -> str:
        """Name of the regressor that reads the annotated joints off a mesh."""
        return self.labels.lower()

    @property
    def token_rows(self) -> list[int]:
        """Rows of the regressor in the order of the joint tokens."""
        return index_map(self.regressed, self.joint_set)

    @property
    def label_rows(self) -> list[int]:
        """Annotated joints in the order of the joint tokens."""
        return index_map(self.labels, self.joint_set)

    @property
    def root_rows(self) -> list[int]:
        """Joint tokens whose mean is the root."""
        return index_map(self.joint_set, self.roots)

    @property
    def num_labels(self) -> int:
        """Annotated joints."""
        return len(JOINT_SETS[self.labels])

    @property
    def pose_size(self) -> int:
        """Pose parameters: axis-angle of the posed joints."""
        return 3 * len(JOINT_SETS[self.posed])

    @property
    def flip_labels(self) -> list[int]:
        """Order of the annotated joints after left and right are exchanged."""
        return flip_permutation(self.labels)

    @property
    def flip_pose(self) -> list[int]:
        """Order of the posed joints after left and right are exchanged."""
        return flip_permutation(self.posed)


BODY = Figure(
    joint_set="J14",
    labels="J24",
    regressed="H36M17",
    posed="SMPL24",
    pelvis="Pelvis",
    roots=("R_Hip", "L_Hip"),
    groups=JOINT_GROUPS,
    queries=("R_Wrist", "L_Wrist", "R_Ankle", "L_Knee", "Head"),
    free="open",
    licensed="smpl",
    preset="paper-body",
    stands=(("R_Hip", "L_Hip"), ("R_Shoulder", "L_Shoulder")),
    leans_deg=40.0,
    upright=True,
    may_flip=True,
    joints_from_mesh=False,
)
HAND = Figure(
    joint_set="HAND21",
    labels="HAND21",
    regressed="HAND21",
    posed="MANO16",
    pelvis="Wrist",
    roots=("Wrist",),
    groups=FINGER_GROUPS,
    queries=("Wrist", "Thumb4", "Index4", "Middle4", "Pinky4"),
    free="open_hand",
    licensed="mano",
    preset="paper-hand",
    stands=(("Wrist",), ("Middle1",)),
    leans_deg=10.0,
    upright=False,
    may_flip=False,
    joints_from_mesh=True,
)

FIGURES: dict[str, Figure] = {figure.joint_set: figure for figure in (BODY, HAND)}
"""Both, by `model.joint_set`."""


def figure_of(kind: str) -> Figure:
    """What a kind of body model (`body.kind`) is a model of."""
    return HAND if kind in HAND_KINDS else BODY
