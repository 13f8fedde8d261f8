"""Benchmark protocols as data: which joints, which root, which ground truth, which metrics.

Numbers of two papers are comparable only if these agree; a protocol's `description` answers the questions that
readers of published tables keep asking, and travels with every result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from metro.body.figure import FIGURES, Figure
from metro.errors import MetroError


@dataclass(frozen=True)
class Metric:
    """How a metric is named and printed."""

    label: str
    """Name in tables."""
    unit: str
    """`mm` (values are kept in metres), `%` (kept as shares) or `px224` (pixels of a 224 px crop)."""
    meaning: str
    """One line for the reader."""
    lower_is_better: bool = True


METRICS: dict[str, Metric] = {
    "mpjpe": Metric("MPJPE", "mm", "mean joint error, both sides centred at the root"),
    "pa_mpjpe": Metric("PA-MPJPE", "mm", "mean joint error after the best rotation, scale and translation per person"),
    "mpve": Metric("MPVE", "mm", "mean error of all vertices, each mesh minus its own regressed root"),
    "pa_mpve": Metric("PA-MPVE", "mm", "mean vertex error after the best rotation, scale and translation per person"),
    "token_mpjpe": Metric("MPJPE of joint tokens", "mm", "as MPJPE, for the joint tokens instead of the mesh's joints"),
    "pck50": Metric("PCK@50", "%", "share of root-centred joints within 50 mm", lower_is_better=False),
    "auc200": Metric("AUC 0–200", "%", "area under the PCK curve from 0 to 199 mm", lower_is_better=False),
    "error_2d": Metric("2D error", "px224", "mean distance of projected joints, in pixels of a 224 px crop"),
    "challenge_mpjpe": Metric("challenge MPJPE", "mm", "24 SMPL joints centred at the SMPL pelvis"),
    "challenge_pa_mpjpe": Metric("challenge PA-MPJPE", "mm", "24 SMPL joints after similarity alignment"),
    "challenge_pck50": Metric("challenge PCK@50", "%", "12 limb joints within 50 mm", lower_is_better=False),
    "challenge_auc200": Metric("challenge AUC", "%", "12 limb joints, area from 0 to 199 mm", lower_is_better=False),
    "joints_aligned": Metric("PA-MPJPE", "mm", "mean error of 21 joints after alignment (reflections allowed)"),
    "joints_aligned_auc": Metric("joint AUC", "%", "aligned joints, area from 0 to 50 mm", lower_is_better=False),
    "vertices_aligned": Metric("PA-MPVE", "mm", "mean error of 778 vertices after alignment (reflections allowed)"),
    "vertices_aligned_auc": Metric("mesh AUC", "%", "aligned vertices, area from 0 to 50 mm", lower_is_better=False),
    "f5_aligned": Metric("F@5", "%", "F-score of the aligned mesh at 5 mm", lower_is_better=False),
    "f15_aligned": Metric("F@15", "%", "F-score of the aligned mesh at 15 mm", lower_is_better=False),
    "joints": Metric("joint error, as given", "mm", "21 joints, wrists together, not aligned"),
    "vertices": Metric("vertex error, as given", "mm", "778 vertices, wrists together, not aligned"),
}
"""Every metric by its key."""

SCALE = {"mm": 1000.0, "%": 100.0, "px224": 1.0}
"""Factor from the stored value to the printed unit."""


@dataclass(frozen=True)
class Protocol:
    """Definition of a benchmark's numbers."""

    name: str
    title: str
    joint_set: str
    """Joints scored: J14 (regressed from the predicted mesh by the H36M regressor) or HAND21."""
    truth: str
    """Where true joints come from: `labels` (annotated 3D joints) or `mesh` (regressed from the true mesh)."""
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    """Metrics compared with the baselines; the first one ranks the samples."""
    description: str
    scorer: Literal["centred", "aligned"] = "centred"
    """`centred`: both sides relative to their roots. `aligned`: joints and mesh each aligned, as FreiHAND's scorer."""
    reflection: bool = False
    """Whether the alignment of joints may reflect."""
    joint_error: Literal["mpjpe", "pa_mpjpe"] = "mpjpe"
    """Error that joints and body parts are compared by."""
    curve_limit: float = 0.3
    """End of the PCK curve, metres."""
    watched: Mapping[str, str] = field(default_factory=dict)
    """What training logs when it validates, and the metric behind it (`mpjpe` ranks the checkpoints); empty: the
    headline under its own names."""

    @property
    def figure(self) -> Figure:
        """What is scored: a body or a hand."""
        return FIGURES[self.joint_set]


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            name="open",
            title="Open benchmark",
            joint_set="J14",
            truth="labels",
            metrics=("mpjpe", "pa_mpjpe", "mpve", "pa_mpve", "token_mpjpe", "pck50", "auc200", "error_2d"),
            headline=("mpjpe", "pa_mpjpe", "mpve"),
            description=(
                "14 joints regressed from the predicted full mesh with the body's H36M regressor against the annotated "
                "3D joints of the same definition, centred at the middle of the hips. PA-MPJPE aligns by rotation "
                "(no reflection), scale and translation. MPVE compares all vertices, each mesh minus its own regressed "
                "pelvis. The crop is the annotated box. Every sample counts once, in one pass."
            ),
        ),
        Protocol(
            name="h36m_p2",
            title="Human3.6M, protocol 2",
            joint_set="J14",
            truth="labels",
            metrics=("mpjpe", "pa_mpjpe", "pck50", "auc200", "token_mpjpe"),
            headline=("mpjpe", "pa_mpjpe"),
            description=(
                "Subjects 9 and 11, frontal camera, as listed by the dataset. 14 joints regressed from the predicted "
                "mesh with the H36M regressor against the motion-capture joints, centred at the middle of the hips "
                "(METRO's rule). No mesh is annotated, so there is no MPVE. METRO (HRNet-W64) reports 54.0 / 36.7 mm. "
                "Results depend on the crop: the box is the annotated joints' times 1.2."
            ),
        ),
        Protocol(
            name="3dpw",
            title="3DPW test set",
            joint_set="J14",
            truth="labels",
            metrics=(
                "mpjpe",
                "pa_mpjpe",
                "mpve",
                "pa_mpve",
                "challenge_mpjpe",
                "challenge_pa_mpjpe",
                "challenge_pck50",
                "challenge_auc200",
                "token_mpjpe",
            ),
            headline=("mpjpe", "pa_mpjpe", "mpve"),
            description=(
                "As METRO, Mesh Graphormer and FastMETRO report it: the true mesh is the neutral SMPL model with the "
                "dataset's (gendered) parameters, the true joints are the annotated ones, made from that mesh by the "
                "SMPL joint definition, while predicted joints come from the H36M regressor; centred at the middle of "
                "the hips. Not the definition of works that use gendered meshes. METRO reports MPVE 88.2, MPJPE 77.1, "
                "PA-MPJPE 47.9 mm after fine-tuning on 3DPW. The challenge rows follow the 3DPW challenge scorer: 24 "
                "SMPL joints centred at the pelvis, PCK and AUC over 12 limb joints."
            ),
        ),
        Protocol(
            name="freihand",
            title="FreiHAND evaluation set",
            joint_set="HAND21",
            truth="labels",
            metrics=(
                "joints_aligned",
                "joints_aligned_auc",
                "vertices_aligned",
                "vertices_aligned_auc",
                "f5_aligned",
                "f15_aligned",
                "joints",
                "vertices",
            ),
            headline=("joints_aligned", "vertices_aligned"),
            description=(
                "As the official scorer: joints and vertices aligned separately by an orthogonal transform (which may "
                "reflect), scale and translation; AUC over 0–50 mm in 100 thresholds; F-score of the aligned mesh. "
                "Rows `as given` only bring the wrists together. METRO reports 6.5 / 6.3 mm, F@5 .731, F@15 .984 "
                "with test-time augmentation, which `--tta paper` does; without it this is a single pass."
            ),
            scorer="aligned",
            reflection=True,
            joint_error="pa_mpjpe",
            curve_limit=0.06,
            watched={"mpjpe": "joints", "mpve": "vertices"},
        ),
    )
}
"""Every protocol by its name."""


def validation_protocol(joint_set: str) -> Protocol:
    """The protocol that training validates by: the first of the joint set."""
    return next(p for p in PROTOCOLS.values() if p.joint_set == joint_set)


def protocol_of(name: str | Protocol) -> Protocol:
    """The protocol of a name.

    Raises
    ------
    MetroError
        There is none of that name.
    """
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        raise MetroError(f"no protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
