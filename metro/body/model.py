"""Linear blend skinning of SMPL-like models: batched, differentiable, on any device.

Shape suffixes: B batch, J joint, V vertex, S shape direction, P pose direction, K regressed joint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from metro.body.arrays import BodyData, no_regressor
from metro.body.joints import FINGERTIPS, JOINT_SETS, TIP_VERTICES, index_map
from metro.body.rotation import rot_from_aa
from metro.errors import MetroError
from metro.words import GENDERS

Variants = Callable[[str], BodyData]
"""Gives the body of a gender: `metro.body.load.load_variant` of some settings."""


class BodyOutput(NamedTuple):
    """Result of `BodyModel.forward`, metres, model frame (y up, +z front, left = +x)."""

    vertices: torch.Tensor
    """(B, V, 3)."""
    joints: torch.Tensor
    """(B, J, 3): the kinematic joints."""


class BodyModel(nn.Module):
    """SMPL's function of pose and shape (Loper et al. 2015, §3), equal to the reference layer of `smplx`.

    Nothing is trained and nothing goes into a state dict: the arrays are non-persistent buffers.

    Parameters
    ----------
    data
        Model arrays, see `metro.body.load.load_body`.
    dtype
        Precision of the buffers and of the result.
    flat_hand_mean
        For hands: whether the zero pose is the flat hand. By default it is the mean pose of the model, as in MANO,
        FreiHAND and METRO: `hands_mean` is added to the pose.
    variants
        Gives the bodies of people who are not neutral (`of_people`); each is loaded when it is first needed.
    """

    directions_DC: torch.Tensor  # (S + P, 3 V), coordinate-major: all x, then y, then z
    template_C: torch.Tensor
    weights_JV: torch.Tensor
    joint_template_J3: torch.Tensor
    joint_directions_SC: torch.Tensor
    faces: torch.Tensor
    mean_pose_J3: torch.Tensor
    by_depth: torch.Tensor
    by_index: torch.Tensor
    parent_by_depth: torch.Tensor

    def __init__(
        self,
        data: BodyData,
        dtype: torch.dtype = torch.float32,
        flat_hand_mean: bool = False,
        variants: Variants | None = None,
    ) -> None:
        super().__init__()
        self._variants = variants
        self._loaded: dict[str, BodyModel] = {}  # not a part of this module: it has the regressors for all
        self.kind = data.kind
        self.figure = data.figure
        self.parents = data.parents
        self.num_vertices = data.num_vertices
        self.num_joints = data.num_joints
        self.num_betas = data.num_betas

        def keep(name: str, array: np.ndarray, kind: torch.dtype = dtype) -> None:
            self.register_buffer(name, torch.as_tensor(np.ascontiguousarray(array)).to(kind), persistent=False)

        directions_V3D = np.concatenate([data.shapedirs, data.posedirs], axis=2)
        keep("directions_DC", directions_V3D.transpose(2, 1, 0).reshape(directions_V3D.shape[2], -1))
        keep("template_C", data.v_template.T.reshape(-1))
        keep("weights_JV", data.weights.T)
        # Rest joints are linear in the betas: regress template and directions once, in double precision.
        regressor = data.J_regressor.astype(np.float64)
        keep("joint_template_J3", regressor @ data.v_template)
        keep("joint_directions_SC", np.einsum("jv,vcs->sjc", regressor, data.shapedirs).reshape(data.num_betas, -1))
        keep("faces", data.faces, torch.int64)
        mean_pose = np.zeros((data.num_joints, 3))
        if data.hands_mean is not None and not flat_hand_mean:
            mean_pose[1:] = data.hands_mean.reshape(-1, 3)
        keep("mean_pose_J3", mean_pose)
        # The kinematic chain runs over joints sorted by depth: that order, its inverse, and the parents in it.
        depth = _depths(data.parents)
        by_depth = np.argsort(depth, kind="stable")
        by_index = np.argsort(by_depth)
        keep("by_depth", by_depth, torch.int64)
        keep("by_index", by_index, torch.int64)
        keep("parent_by_depth", by_index[np.maximum(data.parents, 0)][by_depth], torch.int64)
        self._starts = [int(n) for n in np.searchsorted(depth[by_depth], np.arange(depth.max() + 2))]
        self._regressors = [*sorted(data.regressors), "kinematic"]
        for name, rows in data.regressors.items():
            keep(f"regressor_{name}", rows.toarray())
        keep("regressor_kinematic", data.J_regressor)

    def forward(
        self,
        pose_aa: torch.Tensor | None = None,
        betas: torch.Tensor | None = None,
        transl: torch.Tensor | None = None,
        pose_rot: torch.Tensor | None = None,
    ) -> BodyOutput:
        """Vertices and joints.

        Parameters
        ----------
        pose_aa
            (B, 3 J) or (B, J, 3) axis-angle per joint relative to its parent, the root first.
        betas
            (B, S') shape coefficients, S' <= S (missing ones are zero); B may be 1. The mean shape if left out.
        transl
            (B, 3) added to everything, metres.
        pose_rot
            (B, J, 3, 3) rotation matrices instead of `pose_aa`; nothing is added to them.

        Raises
        ------
        ValueError
            Not exactly one of `pose_aa` and `pose_rot` is given, or more betas than the model has.
        """
        if (pose_aa is None) == (pose_rot is None):
            raise ValueError("give exactly one of pose_aa and pose_rot")
        if pose_rot is None:
            assert pose_aa is not None
            pose_rot = rot_from_aa(pose_aa.reshape(len(pose_aa), self.num_joints, 3) + self.mean_pose_J3)
        batch = len(pose_rot)
        if betas is None:
            betas = pose_rot.new_zeros(1, 0)
        if betas.shape[1] > self.num_betas:
            raise ValueError(f"{betas.shape[1]} betas given, the {self.kind} model has {self.num_betas}")
        betas = nn.functional.pad(betas, (0, self.num_betas - betas.shape[1])).expand(batch, -1)

        eye = torch.eye(3, dtype=pose_rot.dtype, device=pose_rot.device)
        coefficients_BD = torch.cat((betas, (pose_rot[:, 1:] - eye).reshape(batch, -1)), 1)
        rest_B3V = torch.addmm(self.template_C, coefficients_BD, self.directions_DC).reshape(batch, 3, -1)
        rest_joints_BJ3 = self.joint_template_J3 + (betas @ self.joint_directions_SC).reshape(batch, -1, 3)

        global_rot, joints = self._chain(pose_rot, rest_joints_BJ3)
        # Each bone moves rest points by G x + (p - G j): rotation and offset as one (B, 3, 4, J).
        offset = joints - (global_rot @ rest_joints_BJ3.unsqueeze(-1)).squeeze(-1)
        bones_B34J = torch.cat((global_rot, offset.unsqueeze(-1)), -1).permute(0, 2, 3, 1)
        blended_B34V = (bones_B34J.reshape(batch * 12, -1) @ self.weights_JV).reshape(batch, 3, 4, -1)
        # unbind, because its gradient is one stack where that of slices is a zero-fill each
        along_x, along_y, along_z, shift = blended_B34V.unbind(2)
        x, y, z = rest_B3V.unsqueeze(1).unbind(2)
        verts_B3V = shift.addcmul(along_x, x).addcmul(along_y, y).addcmul(along_z, z)
        vertices = verts_B3V.transpose(1, 2).contiguous()
        if transl is not None:
            vertices, joints = vertices + transl.unsqueeze(1), joints + transl.unsqueeze(1)
        return BodyOutput(vertices, joints)

    def of_people(self, pose_aa: torch.Tensor, betas: torch.Tensor, gender_B: torch.Tensor | None = None) -> BodyOutput:
        """Vertices and joints of people, each on the body of their gender.

        Parameters
        ----------
        pose_aa, betas
            As in `forward`, (B, …) both.
        gender_B
            (B,) positions in `metro.words.GENDERS`; neutral people, and without it all, are posed on this very body.

        Raises
        ------
        MetroError
            There is no body for a gender.
        """
        if gender_B is None:
            return self(pose_aa, betas)
        vertices = pose_aa.new_empty(len(pose_aa), self.num_vertices, 3)
        joints = pose_aa.new_empty(len(pose_aa), self.num_joints, 3)
        for number in gender_B.unique().tolist():
            rows = (gender_B == number).nonzero()[:, 0]
            vertices[rows], joints[rows] = self.variant(GENDERS[number])(pose_aa[rows], betas[rows])
        return BodyOutput(vertices, joints)

    def require(self, genders: Iterable[str]) -> None:
        """Load the bodies of these genders now, so that one that is missing is told before any work.

        Raises
        ------
        MetroError
            There is none.
        """
        for gender in genders:
            self.variant(gender)

    def variant(self, gender: str) -> BodyModel:
        """The body of a gender, where this one is; `neutral` is this one.

        Raises
        ------
        MetroError
            There is none.
        """
        if gender == "neutral":
            return self
        if gender not in self._loaded:
            if self._variants is None:
                raise MetroError(f"{gender} people need a body of their own: give BodyModel its `variants`")
            self._loaded[gender] = BodyModel(self._variants(gender))
        return self._loaded[gender].to(self.template_C)

    def _chain(self, rot_BJ33: torch.Tensor, rest_BJ3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward kinematics, all joints of one depth at a time: global rotations and joint positions."""
        rot_BJ33, rest_BJ3 = rot_BJ33.index_select(1, self.by_depth), rest_BJ3.index_select(1, self.by_depth)
        bone_BJ3 = rest_BJ3 - rest_BJ3.index_select(1, self.parent_by_depth)
        rots, joints = [rot_BJ33[:, :1]], [rest_BJ3[:, :1]]
        for begin, end, parents in self._levels():
            parent_rot = rots[-1].index_select(1, parents)
            moved = (parent_rot @ bone_BJ3[:, begin:end].unsqueeze(-1)).squeeze(-1)
            joints.append(joints[-1].index_select(1, parents) + moved)
            rots.append(parent_rot @ rot_BJ33[:, begin:end])
        return torch.cat(rots, 1).index_select(1, self.by_index), torch.cat(joints, 1).index_select(1, self.by_index)

    def _levels(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Per depth below the root: range of its joints in depth order, their parents within the depth above."""
        for level in range(1, len(self._starts) - 1):
            above, begin, end = self._starts[level - 1 : level + 2]
            yield begin, end, self.parent_by_depth[begin:end] - above

    def true_joints(self, output: BodyOutput) -> torch.Tensor:
        """Joints (B, K, 3) of a posed model that METRO trains towards, in the order of the figure's regressor.

        MANO: kinematic joints and fingertip vertices, as METRO's MANO layer reports them; joints of a predicted mesh
        come from `regress("hand21", …)` instead, which differs by the tip of the middle finger and under bending. Tips
        are METRO's, not those that FreiHAND annotates, a few mm off: numbers of the paper are reached with METRO's.
        All others have one definition, the regressor, for both.
        """
        if self.kind != "mano":
            return self.regress(self.figure.regressor, output.vertices)
        stacked = torch.cat((output.joints, output.vertices[:, list(TIP_VERTICES["layer"])]), 1)
        return stacked[:, index_map(JOINT_SETS["MANO16"] + FINGERTIPS, "HAND21")]

    def regress(self, name: str, vertices: torch.Tensor) -> torch.Tensor:
        """Joints (B, K, 3) of vertices (B, V, 3) by the regressor `name`.

        Bodies have `h36m17`, `j24` and `coco17`, hands `hand21`; `kinematic` reads the model's own joints off any mesh.

        Raises
        ------
        MetroError
            The model has no such regressor.
        """
        if name not in self._regressors:
            raise no_regressor(self.kind, name, self._regressors)
        return getattr(self, f"regressor_{name}") @ vertices


def _depths(parents: tuple[int, ...]) -> np.ndarray:
    """Distance of each joint from the root."""
    depth = np.zeros(len(parents), int)
    for joint, parent in enumerate(parents[1:], 1):
        depth[joint] = depth[parent] + 1
    return depth
