"""Options of the raw sources: what `options` of a dataset may hold, which its `source` decides.

They stand apart from the adapters (`metro.sources`), which parameters may not import. Only the options of a dataset's
own source enter its parameters, its shards' recipe and DVC: one more for a source changes no set of another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from metro.section import Section, Seed, Share
from metro.words import Source


class SyntheticOptions(Section):
    """Rendered people. Annotations are exact; `supervision` of the dataset decides what is kept."""

    count: int = Field(1000, ge=1, le=10**8)
    """People to render."""
    seed: Seed = 0
    """Names the people: equal seeds give equal bytes, different seeds share no body, pose, look or background."""
    heading_sd_deg: float = Field(60.0, ge=0, le=360)
    """Spread of the heading around facing the camera."""
    heading_uniform: Share = 0.25
    """Share of people whose heading is uniform over 360°."""
    uniform_pose: Share = 0.12
    """Share of poses drawn uniformly within joint limits instead of around archetypes."""
    pastimes: Share = 0.0
    """Share of the other poses of people that are sport, riding and meals instead of everyday ones."""
    occlusion: Share = 0.2
    """Probability that objects hide part of the person."""
    truncation: Share = 0.05
    """Probability that the frame cuts the person."""


class Pw3dOptions(Section):
    """3DPW."""

    joints: Literal["get_joints", "none"] = "get_joints"
    """`get_joints`: the annotated joints are read off the mesh (METRO's convention); `none`: the mesh alone. SMPL's own
    24 joints, which the set lists, are no annotated ones and are never taken for them."""
    camera: Literal["valid", "all"] = "valid"
    """`valid` leaves out people of frames whose camera is marked as not aligned (35,515 of the test set stay)."""
    box: Literal["joints", "poses2d", "json"] = "joints"
    """Where the person box comes from, × 1.2: SMPL's projected joints inside of the picture, the detected 2D joints
    (SPIN), or the COCO-style file."""


class Up3dOptions(Section):
    """UP-3D."""

    trainval: bool = False
    """With split `train`: the list `trainval.txt`, as METRO has it (7,126 pictures), instead of `train.txt`."""


class MucoOptions(Section):
    """MuCo-3DHP."""

    people: Literal["nearest", "spaced", "all"] = "nearest"
    """Who of a picture is taken: the nearest to the camera (METRO), also everyone whose pelvis is at least `spacing`
    from those taken before (3DMPPE), or all."""
    spacing: float = Field(0.5, ge=0, le=10)
    """Metres, of `people: spaced`."""
    max_fit_error: float = Field(0.025, ge=0, le=10)
    """Meshes whose joints are further from the annotated ones, metres in the mean, are left out."""


class MpiInf3dhpOptions(Section):
    """MPI-INF-3DHP."""

    cameras: tuple[Annotated[int, Field(ge=0, le=13)], ...] = Field(
        (0, 1, 2, 4, 5, 6, 7, 8), min_length=1, max_length=14
    )
    """Cameras of the training set, at chest height by default."""
    step: int = Field(10, ge=1, le=10_000)
    """Every which frame of the training set."""


class H36mOptions(Section):
    """Human3.6M."""

    protocol: Literal["train", "p1", "p2_graphcmr", "p2_i2l", "p2_every64"] = "train"
    """Subjects, cameras and frames. `train`: S1, 5, 6, 7, 8; the others S9 and S11. `p1`: all cameras; `p2_graphcmr`
    (METRO): camera 60457274, every `step`-th frame; `p2_i2l`: that camera, every 64th; `p2_every64`: all cameras, every
    64th."""
    step: int = Field(5, ge=1, le=10_000)
    """Every which frame of `train`, `p1` and `p2_graphcmr`."""
    s9_faults: Literal["keep", "drop", "correct"] = "keep"
    """The three actions of S9 whose joints are shifted in the world."""
    box: Literal["joints", "mask_0.9", "mask_1.0"] = "joints"
    """The person box: the joints × 1.2, or the box of the silhouette × 0.9 (SPIN) or × 1.0 (GraphCMR, METRO)."""
    max_fit_error: float = Field(0.05, ge=0, le=10)
    """Meshes whose joints are further from the annotated ones, metres in the mean, are left out (METRO: 50 mm)."""
    max_beta: float = Field(3.0, ge=0, le=100)
    """Shapes with a larger |beta| are set to zero."""


class MpiiOptions(Section):
    """MPII."""

    min_joints: int = Field(16, ge=1, le=16)
    """People with fewer of the 16 joints annotated are left out (METRO: all 16)."""


class CocoOptions(Section):
    """COCO."""

    year: Literal[2014, 2017] = 2017
    """Release."""
    keep: Literal["limbs", "visible", "40k"] = "limbs"
    """`limbs`: people with all 12 limb joints (HMR, METRO); `visible`: with at least `min_joints` of the 17; `40k`: the
    rule that METRO's authors state for their 40,000 people, at least 12 joints marked visible."""
    min_joints: int = Field(12, ge=1, le=17)
    """Of `keep: visible`."""
    fits: Path | None = None
    """SMPLify fits by annotation id (`coco_smplify_train.json`), relative to `root`; none: no meshes."""
    max_beta: float = Field(3.0, ge=0, le=100)
    """Shapes of fits with a larger |beta| are set to zero."""


class FreihandOptions(Section):
    """FreiHAND."""

    backgrounds: int = Field(4, ge=1, le=4)
    """Versions of each training pose: the picture as taken, and up to three with other backgrounds."""
    validation: Share = 0.0
    """Share of the training poses held back for split `validation`; by pose, so that no pose is in both."""
    verts: bool = False
    """Also compare the meshes with `training_verts.json` (1.7 GB), which is not needed otherwise."""


class MetroTsvOptions(Section):
    """A dataset in METRO's TSV files."""

    yaml: str = "train.yaml"
    """The file that names the others, relative to `root`."""


class OwnOptions(Section):
    """One's own data: a COCO-style JSON file, or CSV."""

    file: str = "people.json"
    """The annotations, relative to `root`."""


OPTIONS: dict[Source, type[Section]] = {
    "synthetic": SyntheticOptions,
    "pw3d": Pw3dOptions,
    "up3d": Up3dOptions,
    "muco": MucoOptions,
    "mpi_inf_3dhp": MpiInf3dhpOptions,
    "h36m": H36mOptions,
    "mpii": MpiiOptions,
    "coco": CocoOptions,
    "freihand": FreihandOptions,
    "metro_tsv": MetroTsvOptions,
    "own": OwnOptions,
}
"""Options by source."""
