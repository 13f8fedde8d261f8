"""Where the stages' outputs lie; ``dvc.yaml`` declares the same paths."""

from __future__ import annotations

from pathlib import Path

BODY = Path("data/body/body.npz")
BODY_INFO = Path("data/body/info.json")
SAMPLING = Path("data/sampling.npz")
SETS = Path("data/sets")
TRAIN_SETS = Path("data/catalogue/train.json")
BENCHMARK_SETS = Path("data/catalogue/benchmarks.json")
MEAN_POSES = Path("data/catalogue/mean_poses.npz")
MODEL = Path("models/train/best")
CURVES = Path("models/train/curves.json")
SWEEP = Path("models/sweep")
EXPORT = Path("models/export")
METRICS = Path("reports/metrics")
EVALUATE = Path("reports/evaluate")
ATTENTION = Path("reports/attention")
OCCLUSION = Path("reports/occlusion")
SWEEP_REPORT = Path("reports/sweep")
REPORT = Path("reports/report")
WORK = Path(".metro/work")
"""Half-done work, kept outside of all outputs: DVC removes a stage's outputs before it runs."""
FEATURES = Path(".metro/features")
"""Features of frozen backbones, which trainings share (`metro.training.features`)."""


def shards(name: str) -> Path:
    """Shards of a dataset."""
    return SETS / name / "shards"


def fits(name: str) -> Path:
    """Pseudo-meshes of a dataset."""
    return SETS / name / "fits"


def sweep(ratio: float | str) -> Path:
    """Model of one masking ratio. DVC names the folder as the ratio is written in params.yaml: 0 and 0.0 differ."""
    written = SWEEP / str(ratio)
    if not written.exists() and (SWEEP / f"{float(ratio):g}").exists():
        return SWEEP / f"{float(ratio):g}"
    return written
