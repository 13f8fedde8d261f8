"""Losses of METRO (section 3.4 of the paper, as the official code computes them) and the targets they compare with.

Every mean is a weighted sum over a fixed-size array divided by a count, so that no shape depends on the data: samples
without a label get weight 0, and a term that nothing is selected for is a zero that can still be differentiated.

Shape suffixes: B sample, J joint, V vertex of the level at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from metro.body.figure import FIGURES
from metro.body.joints import index_map
from metro.body.model import BodyModel
from metro.config import LossConfig, ModelConfig
from metro.errors import MetroError
from metro.mesh.sampling import Level, compose_indices
from metro.model.metro import MetroOutput


@dataclass(frozen=True)
class Target:
    """Ground truth of a batch: camera axes, metres; joints in the order of the joint tokens."""

    joints_3d: Tensor
    """(B, J, 3), any origin."""
    pelvis_3d: Tensor
    """(B, 1, 3): pelvis (wrist) that belongs to `joints_3d`."""
    has_pelvis: Tensor
    """(B,) bool: whether `pelvis_3d` is known."""
    confidence_3d: Tensor
    """(B, J)."""
    has_3d: Tensor
    """(B,) bool."""
    joints_2d: Tensor
    """(B, J, 2) in the crop, whose sides are -1 and 1."""
    confidence_2d: Tensor
    """(B, J); what has no 2D label has confidence 0."""
    vertices: tuple[Tensor, ...]
    """Mesh levels, coarse to full, each (B, V, 3), relative to the mesh's own pelvis (wrist)."""
    mesh_root: Tensor
    """(B, 1, 3): root of these meshes, as `root` says."""
    has_mesh: Tensor
    """(B,) bool."""
    edges: Tensor
    """(E, 2) edges of the coarsest mesh, vertex numbers."""
    root: Tensor
    """(R,) joints whose mean is the root: both hips, or the wrist."""


class Targets(nn.Module):
    """Makes the ground truth of loader batches; `.to(device)` moves what it needs for that.

    Body joints come from the annotation. For hands the official code takes them from the mesh, which is done here for
    samples that have one.

    Parameters
    ----------
    body
        Body model of the annotations, with its `variants` if there are people who are not neutral.
    levels
        Mesh levels, fine to coarse.
    config
        Names the joint set.
    """

    edges_E2: Tensor
    order_J: Tensor
    pelvis_1: Tensor
    root_R: Tensor
    mesh_root_R: Tensor

    def __init__(self, body: BodyModel, levels: Sequence[Level], config: ModelConfig) -> None:
        super().__init__()
        self.body, figure = body, FIGURES[config.joint_set]
        self.joints_from_mesh = figure.joints_from_mesh

        def keep(name: str, indices: ArrayLike) -> None:
            self.register_buffer(name, torch.as_tensor(indices), persistent=False)

        keep("edges_E2", levels[-1].edges)
        keep("order_J", figure.label_rows)
        keep("pelvis_1", index_map(figure.labels, (figure.pelvis,)))
        keep("root_R", figure.root_rows)
        keep("mesh_root_R", index_map(figure.regressed, figure.roots))
        self.coarser = [f"level_{number}" for number in range(len(levels))]  # fine to coarse
        for name, indices in zip(self.coarser, compose_indices(levels), strict=True):
            keep(name, indices)

    def forward(self, batch: Mapping[str, Tensor]) -> Target:
        """Ground truth of a batch.

        Parameters
        ----------
        batch
            `joints_2d` (B, J', 3), `joints_3d` (B, J', 4), `pose_aa`, `betas`, `has_3d`, `has_mesh` of the loader, and
            `gender` unless all meshes are neutral; J' is J24 for bodies and HAND21 for hands. Values without confidence
            or flag may be anything, NaN included.
        """
        has_mesh, has_3d = batch["has_mesh"], batch["has_3d"]
        # A sample without a mesh may hold NaN, and 0 · NaN is NaN: give it the zero pose before anything is computed.
        pose_aa = torch.where(has_mesh[:, None], batch["pose_aa"], 0.0)
        betas = torch.where(has_mesh[:, None], batch["betas"], 0.0)
        with torch.no_grad():
            posed = self.body.of_people(pose_aa, betas, batch.get("gender"))
            mesh_joints_BK3 = self.body.true_joints(posed)
            mesh_pelvis_B13 = mesh_joints_BK3[:, :1]
            full_BV3 = posed.vertices - mesh_pelvis_B13
        coarser = [full_BV3[:, self.get_buffer(name)] for name in self.coarser]

        joints_3d, confidence_3d = _known(batch["joints_3d"][:, self.order_J])
        joints_2d, confidence_2d = _known(batch["joints_2d"][:, self.order_J])
        pelvis_3d, pelvis_confidence = _known(batch["joints_3d"][:, self.pelvis_1])
        has_pelvis = pelvis_confidence[:, 0] > 0
        if self.joints_from_mesh:
            joints_3d = torch.where(has_mesh[:, None, None], mesh_joints_BK3, joints_3d)
            confidence_3d = torch.where(has_mesh[:, None], 1.0, confidence_3d)
            pelvis_3d = torch.where(has_mesh[:, None, None], mesh_pelvis_B13, pelvis_3d)
            has_3d, has_pelvis = has_3d | has_mesh, has_pelvis | has_mesh
        return Target(
            joints_3d=joints_3d,
            pelvis_3d=pelvis_3d,
            has_pelvis=has_pelvis,
            confidence_3d=confidence_3d,
            has_3d=has_3d,
            joints_2d=joints_2d,
            confidence_2d=confidence_2d,
            vertices=(*reversed(coarser), full_BV3),
            mesh_root=mesh_joints_BK3[:, self.mesh_root_R].mean(1, keepdim=True) - mesh_pelvis_B13,
            has_mesh=has_mesh,
            edges=self.edges_E2,
            root=self.root_R,
        )


def _known(labels_BJC: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and confidence; positions without confidence, which may be NaN, become zero."""
    confidence_BJ = labels_BJC[..., -1].nan_to_num()
    return torch.where(confidence_BJ[..., None] > 0, labels_BJC[..., :-1], 0.0), confidence_BJ


def project(points_BN3: Tensor, camera_B3: Tensor) -> Tensor:
    """Weak-perspective projection s (xy + t) into the crop, (B, N, 2)."""
    return camera_B3[:, None, :1] * (points_BN3[..., :2] + camera_B3[:, None, 1:])


@dataclass(frozen=True)
class Comparison:
    """What a loss term looks at: prediction and truth of a batch, and how to compare them."""

    output: MetroOutput
    target: Target
    config: LossConfig
    over_processes: Callable[[Tensor], Tensor]
    """Averages a count over data-parallel processes."""

    @cached_property
    def counted_3d(self) -> Tensor:
        """(B,) bool: samples whose 3D joints count."""
        own = self.config.joint_root == "own"
        return self.target.has_3d if own else self.target.has_3d & self.target.has_pelvis

    @cached_property
    def with_3d(self) -> Tensor:
        """How many they are."""
        return self.over_processes(self.counted_3d.sum().float())

    @cached_property
    def with_mesh(self) -> Tensor:
        """How many samples have a mesh."""
        return self.over_processes(self.target.has_mesh.sum().float())

    @property
    def token_joints(self) -> Tensor:
        """(B, J, 3): joint tokens."""
        assert self.output.joints is not None
        return self.output.joints

    @property
    def mesh_joints(self) -> Tensor:
        """(B, J, 3): joints regressed from the predicted mesh."""
        assert self.output.mesh_joints is not None
        return self.output.mesh_joints


def joints_3d(seen: Comparison, joints_BJ3: Tensor) -> Tensor:
    """Distance per coordinate, each side relative to what `joint_root` says, times confidence.

    Mean over the samples that have 3D joints, where joints without confidence count.
    """
    target = seen.target
    if seen.config.joint_root == "own":
        residual_BJ3 = joints_BJ3 - _root(joints_BJ3, target) - (target.joints_3d - _root(target.joints_3d, target))
    else:
        residual_BJ3 = joints_BJ3 - (target.joints_3d - target.pelvis_3d)
    weight_BJ = target.confidence_3d * seen.counted_3d[:, None]
    return _mean(_distance(residual_BJ3, seen.config), weight_BJ, seen.with_3d)


def joints_2d(seen: Comparison, joints_BJ3: Tensor) -> Tensor:
    """Distance per coordinate in the crop times confidence, mean over the whole batch."""
    residual_BJ2 = project(joints_BJ3, seen.output.camera) - seen.target.joints_2d
    everyone = residual_BJ2.new_full((), len(residual_BJ2))
    return _mean(_distance(residual_BJ2, seen.config), seen.target.confidence_2d, everyone)


def vertices(seen: Comparison) -> Tensor:
    """L1 over the samples that have a mesh, each side relative to what `vertex_root` says.

    Summed over levels with `level_weights`; a level without weight need not be predicted.
    """
    output, target = seen.output, seen.target
    shift_B13 = _root(seen.mesh_joints, target) - target.mesh_root if seen.config.vertex_root == "own" else 0.0
    total = output.vertices[0].new_zeros(())
    for level, weight in enumerate(seen.config.level_weights):
        if weight:
            distance_BV3 = (output.vertices[level] - target.vertices[level] - shift_B13).abs()
            everywhere_BV = target.has_mesh[:, None].expand(distance_BV3.shape[:2])
            total = total + weight * _mean(distance_BV3, everywhere_BV, seen.with_mesh)
    return total


def edges(seen: Comparison) -> Tensor:
    """Difference of edge lengths of the coarsest mesh, mean over the samples that have a mesh."""
    if not len(seen.target.edges):
        raise MetroError("loss.edges: the mesh levels come without faces; set it to 0")
    predicted_BE, true_BE = (_edge_lengths(side.vertices[0], seen.target.edges) for side in (seen.output, seen.target))
    everywhere_BE = seen.target.has_mesh[:, None].expand(true_BE.shape)
    return _mean((predicted_BE - true_BE).abs()[..., None], everywhere_BE, seen.with_mesh)


class Term(NamedTuple):
    """A row of the table of terms."""

    weight: str
    """Field of `LossConfig`."""
    value: Callable[[Comparison], Tensor]
    always: bool = True
    """Taken even where its weight is 0, so that it is seen in the log and every parameter has a gradient."""
    of_tokens: bool = False
    """About joint tokens; left out where there are none."""


TERMS = {
    "joints_3d": Term("joints_3d", lambda seen: joints_3d(seen, seen.token_joints), of_tokens=True),
    "joints_2d": Term("joints_2d", lambda seen: joints_2d(seen, seen.token_joints), of_tokens=True),
    "mesh_joints_3d": Term("joints_3d", lambda seen: joints_3d(seen, seen.mesh_joints)),
    "mesh_joints_2d": Term("joints_2d", lambda seen: joints_2d(seen, seen.mesh_joints)),
    "vertices": Term("vertices", vertices),
    "edges": Term("edges", edges, always=False),
}
"""Everything that the loss is made of. A new term is a weight in `LossConfig`, a function and a row."""


def metro_loss(
    output: MetroOutput, target: Target, config: LossConfig, over_processes: Callable[[Tensor], Tensor] = lambda n: n
) -> dict[str, Tensor]:
    """Loss terms (`TERMS`), unweighted, and their weighted sum `total`.

    `over_processes` averages a count over data-parallel processes, so that the mean of their gradients is the gradient
    of the whole batch, however its labels are spread.

    Raises
    ------
    MetroError
        A level has a weight but was not predicted, or the model has no mesh regressor.
    """
    if output.mesh_joints is None:
        raise MetroError("loss: this model predicts no mesh joints; build it with a joint regressor (`build_model`)")
    last = max((level for level, weight in enumerate(config.level_weights) if weight), default=0)
    if last >= min(len(output.vertices), len(target.vertices)):
        raise MetroError(
            f"loss.level_weights: level {last} (coarse is 0) has a weight, but {len(output.vertices)} of "
            f"{len(target.vertices)} levels were predicted"
        )
    seen = Comparison(output, target, config, over_processes)
    weights = {name: float(getattr(config, term.weight)) for name, term in TERMS.items()}
    told = {name: term for name, term in TERMS.items() if output.joints is not None or not term.of_tokens}
    terms = {name: term.value(seen) for name, term in told.items() if term.always or weights[name]}
    terms["total"] = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
    return terms


def _root(joints_BJ3: Tensor, target: Target) -> Tensor:
    return joints_BJ3[:, target.root].mean(1, keepdim=True)


def _edge_lengths(vertices_BV3: Tensor, edges_E2: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vertices_BV3[:, edges_E2[:, 0]] - vertices_BV3[:, edges_E2[:, 1]], dim=-1)


def _distance(residual: Tensor, config: LossConfig) -> Tensor:
    return residual.abs() if config.joint_loss == "l1" else residual.square()


def _mean(distance_BNC: Tensor, weight_BN: Tensor, samples: Tensor) -> Tensor:
    """Weighted sum over the number of entries of so many samples, or zero when there are none."""
    entries = torch.where(samples > 0, samples, 1.0) * distance_BNC[0].numel()
    return (distance_BNC.sum(-1) * weight_BN).sum() / entries
