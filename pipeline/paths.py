"""Where the stages' outputs lie; ``dvc.yaml`` declares the same paths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metro.config import StudyRun

BODY = Path("data/body/body.npz")
BODY_INFO = Path("data/body/info.json")
SAMPLING = Path("data/sampling.npz")
SETS = Path("data/sets")
TRAIN_SETS = Path("data/catalogue/train.json")
BENCHMARK_SETS = Path("data/catalogue/benchmarks.json")
STUDY_SETS = Path("data/catalogue/studies")
MEAN_POSES = Path("data/catalogue/mean_poses.npz")
MODEL = Path("models/train/best")
CURVES = Path("models/train/curves.json")
STUDY_MODELS = Path("models/studies")
EXPORT = Path("models/export")
METRICS = Path("reports/metrics")
EVALUATE = Path("reports/evaluate")
ATTENTION = Path("reports/attention")
OCCLUSION = Path("reports/occlusion")
STUDIES = Path("reports/studies")
STUDY_REPORTS = Path("reports/study-report")
REPORT = Path("reports/report")
WORK = Path(".metro/work")
"""Half-done work, kept outside of all outputs: DVC removes a stage's outputs before it runs."""
FEATURES = Path(".metro/features")
"""Features of frozen backbones, which trainings share (`metro.training.features`)."""
COSTS = Path(".metro/costs")
"""What the runs of studies took on this machine: never the same, so no output."""


def shards(name: str) -> Path:
    """Shards of a dataset."""
    return SETS / name / "shards"


def fits(name: str) -> Path:
    """Pseudo-meshes of a dataset."""
    return SETS / name / "fits"


def study_run(run: StudyRun) -> Path:
    """Place of a run below `STUDY_MODELS`, `STUDIES` and others."""
    return Path(run.study, f"{run.variant}-{run.seed}")
