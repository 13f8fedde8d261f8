"""Closed sets of words that parameters and commands share; apart from `config`, so that help texts need no pydantic."""

from typing import Literal

BodyKind = Literal["open", "smpl", "smplx", "mano", "open_hand"]
"""Body and hand models: `open` and `open_hand` ship with the project, the others are licensed files."""
Gender = Literal["neutral", "female", "male"]
"""Variants of a body model."""
ProtocolName = Literal["open", "h36m_p2", "3dpw", "freihand"]
"""Definitions of the metrics (`metro.evaluation.protocols`)."""
Source = Literal["synthetic", "3dpw", "up3d", "muco", "mpi-inf-3dhp", "h36m", "mpii", "coco", "freihand", "metro-tsv"]
"""Raw sources; `metro.sources` knows which of them have an adapter."""
Supervision = Literal["mesh", "joints_3d", "joints_2d"]
"""Labels, strongest first."""
