"""Words and constants that parameters share with others; apart from `config`, so that those need no pydantic."""

from typing import Literal, get_args

BodyKind = Literal["open", "smpl", "smplx", "mano", "open_hand"]
"""Body and hand models: `open` and `open_hand` ship with the project, the others are licensed files."""
Gender = Literal["neutral", "female", "male"]
"""Variants of a body model."""
GENDERS: tuple[str, ...] = get_args(Gender)
"""All of them; shards and batches hold the position in this tuple, 0 for neutral."""
ProtocolName = Literal["open", "h36m-p2", "h36m-p1", "3dpw", "3dpw-gendered", "mpi-inf-3dhp", "freihand"]
"""Definitions of the metrics (`metro.evaluation.protocols`)."""
Supervision = Literal["mesh", "joints_3d", "joints_2d"]
"""Labels, strongest first."""
Bending = Literal["hinge", "exponential", "none"]
"""What keeps the knees and elbows of a fit from bending the wrong way (`metro.fitting.objective`)."""
Tta = Literal["none", "flip", "few", "paper"]
"""Views of test-time augmentation, by name (`metro.model.views.TTA`)."""
Source = Literal[
    "synthetic", "pw3d", "up3d", "muco", "mpi_inf_3dhp", "h36m", "mpii", "coco", "freihand", "metro_tsv", "own"
]
"""Raw sources, each read by the module `metro.sources.NAME`."""
SETS = {
    "3dpw": "pw3d",
    "muco3dhp": "muco",
    "mpiinf3dhp": "mpi_inf_3dhp",
    "human36m": "h36m",
    "coco2017": "coco",
    "coco2014": "coco",
    "tsv": "metro_tsv",
}
"""Sources by what the sets are called elsewhere, in small letters and digits alone: for hints."""

MARKER = "metro-fixture.json"
"""File in a raw tree that `metro data fixture` wrote: whose parameters its poses and shapes are."""
HAND_KINDS = ("mano", "open_hand")
"""Body kinds that are hands."""
CROP_PX = 224
"""Side of METRO's crop in pixels, in which focal lengths and 2D errors are stated whatever a network's own crop is."""
