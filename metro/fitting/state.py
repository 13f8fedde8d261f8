"""The unknowns of a fit, for a batch of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from metro.body.rotation import aa_from_rot, rot_from_aa


@dataclass(frozen=True)
class FitState:
    """Pose, shape and position in the camera frame (OpenCV: y down, z forward; metres).

    The root is a rotation matrix, updated on its right, because it may point anywhere; the other joints stay well
    inside half a turn and are axis-angle vectors, updated by addition.
    """

    root_rot: Tensor
    """(B, 3, 3)."""
    joints_aa: Tensor
    """(B, 3 (J - 1)) radians."""
    betas: Tensor
    """(B, S)."""
    transl: Tensor
    """(B, 3) as `BodyModel` takes it."""

    def __len__(self) -> int:
        return len(self.betas)

    def select(self, index: Tensor) -> FitState:
        """The people at `index`."""
        return FitState(*(getattr(self, f.name)[index] for f in fields(self)))

    def moved(self, step_BU: Tensor) -> FitState:
        """The state after a step: 3 of the root's right tangent, then joints, betas, translation."""
        pose, shape = self.joints_aa.shape[1], self.betas.shape[1]
        root, joints, betas, transl = step_BU.split((3, pose, shape, 3), 1)
        return FitState(
            self.root_rot @ rot_from_aa(root), self.joints_aa + joints, self.betas + betas, self.transl + transl
        )

    def where(self, mask_B: Tensor, other: FitState) -> FitState:
        """`self` where the mask holds, `other` elsewhere."""
        chosen = []
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            chosen.append(torch.where(mask_B.reshape(-1, *[1] * (mine.dim() - 1)), mine, theirs))
        return FitState(*chosen)

    def replaced(self, index: Tensor, by: FitState) -> FitState:
        """A copy with the people at `index` exchanged."""
        return FitState(*(getattr(self, f.name).index_copy(0, index, getattr(by, f.name)) for f in fields(self)))

    def pose_aa(self) -> Tensor:
        """(B, 3 J) axis-angle of all joints, the root first."""
        return torch.cat((aa_from_rot(self.root_rot), self.joints_aa), 1)


def concatenate(states: Sequence[FitState]) -> FitState:
    """States one after the other."""
    return FitState(*(torch.cat([getattr(s, f.name) for s in states]) for f in fields(FitState)))
