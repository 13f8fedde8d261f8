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
from metro.files import nearest


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
    "mpjpe17": Metric("MPJPE, 17 joints", "mm", "the same with pelvis, spine and jaw, of which the mesh has stand-ins"),
    "pck150": Metric("PCK@150", "%", "share of joints nearer than 150 mm", lower_is_better=False),
    "auc150": Metric("AUC 0–150", "%", "mean share of joints nearer than 0, 5, … 150 mm", lower_is_better=False),
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
    """Metrics compared with the baselines, lengths; the first one ranks the samples and the variants of studies."""
    description: str
    listed: tuple[str, ...] = ()
    """Further metrics that ``metrics.json`` and the break-downs have."""
    root: Literal["roots", "pelvis"] = "roots"
    """What joints are centred at: the mean of the figure's roots (hips, wrist), or `pelvis`: the joint that is the
    origin of meshes."""
    genders: Literal["any", "neutral", "own"] = "any"
    """Bodies that true meshes must be of: `neutral` ones alone, or those of people's `own` gender alone."""
    cameras: tuple[str, ...] = ()
    """Cameras that Human3.6M's records may be of; none: all."""
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
            name="h36m-p2",
            title="Human3.6M, protocol 2",
            joint_set="J14",
            truth="labels",
            metrics=("mpjpe", "pa_mpjpe", "pck50", "auc200", "token_mpjpe"),
            headline=("mpjpe", "pa_mpjpe"),
            description=(
                "Subjects 9 and 11, frontal camera; others are refused. 14 joints regressed from the predicted "
                "mesh with the H36M regressor against the motion-capture joints, centred at the middle of the hips "
                "(METRO's rule). No mesh is annotated, so there is no MPVE. METRO (HRNet-W64) reports 54.0 / 36.7 mm. "
                "Results depend on the crop: the box is the annotated joints' times 1.2."
            ),
            cameras=("60457274",),
        ),
        Protocol(
            name="h36m-p1",
            title="Human3.6M, protocol 1",
            joint_set="J14",
            truth="labels",
            metrics=("mpjpe", "pa_mpjpe", "pck50", "auc200", "token_mpjpe"),
            headline=("mpjpe", "pa_mpjpe"),
            description=(
                "Subjects 9 and 11, all four cameras (`protocol: p1` of the dataset), and otherwise as h36m-p2, which "
                "is the share of the frontal camera. The break-down by camera tells which ones the set holds. METRO "
                "reports no numbers for it; works that do average over joints, frames, actions and cameras in "
                "different orders: here every sample counts once."
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
                "the hips. Data with gendered meshes are refused, see 3dpw-gendered. METRO reports MPVE 88.2, MPJPE "
                "77.1, PA-MPJPE 47.9 mm after fine-tuning on 3DPW. The challenge rows follow the 3DPW challenge "
                "scorer, but for the neutral body: 24 SMPL joints centred at the pelvis, PCK and AUC over 12 limb "
                "joints."
            ),
            genders="neutral",
        ),
        Protocol(
            name="3dpw-gendered",
            title="3DPW test set, gendered bodies",
            joint_set="J14",
            truth="mesh",
            metrics=(
                "mpjpe",
                "pa_mpjpe",
                "mpve",
                "pa_mpve",
                "challenge_mpjpe",
                "challenge_pa_mpjpe",
                "challenge_pck50",
                "challenge_auc200",
            ),
            headline=("mpjpe", "pa_mpjpe", "mpve"),
            description=(
                "As SPIN and most later works have it: true meshes are SMPL's of the person's own gender, true joints "
                "are read off them by the H36M regressor as predicted ones are, both centred at the regressed pelvis. "
                "MPVE takes each mesh minus its own regressed pelvis, while some works compare meshes about SMPL's "
                "origin. The challenge rows are those of the 3DPW challenge scorer, whose truth is gendered too; its "
                "angles (MPJAE) need rotations, which METRO does not predict, and its frames are those of all three "
                "splits with detected joints. Needs `gender: own` of the dataset and the licensed bodies of women and "
                "men."
            ),
            root="pelvis",
            genders="own",
        ),
        Protocol(
            name="mpi-inf-3dhp",
            title="MPI-INF-3DHP test set",
            joint_set="J14",
            truth="labels",
            metrics=("mpjpe", "mpjpe17", "pa_mpjpe", "pck150", "auc150"),
            headline=("mpjpe", "pa_mpjpe"),
            listed=("pck150", "auc150"),
            description=(
                "Valid frames of TS1 to TS6. PCK and AUC as the set's scorer has them: 14 joints (without pelvis, "
                "spine and jaw) centred at the pelvis, errors strictly below 150 mm, and the mean of the shares below "
                "0, 5, … 150 mm, which 96.8 % bounds. True joints are `annot3`, metric ones; the scorer offers "
                "`univ_annot3`, a skeleton of one size, as well. MPJPE over 17 joints takes three of the H36M "
                "regressor's for those that a mesh has no others for, as SPIN does. PA-MPJPE aligns the 14. METRO "
                "reports no numbers for this set. The scorer's tables by activity need labels that are not read."
            ),
            root="pelvis",
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
        raise MetroError(f"no protocol {name!r}; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
