"""What METRO's authors report, for the report to set beside a run's own numbers.

Lin, Wang, Liu: End-to-End Human Pose and Mesh Reconstruction with Transformers, CVPR 2021 (tables 1 and 2), and the
read-me of the code that they published with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Numbers of one network on one test set."""

    protocol: str
    """Protocol of this project that measures the same (`metro.evaluation.protocols`)."""
    source: str
    """Source that the people of the test set come from (`metro.words.Source`)."""
    title: str
    """Test set, as papers call it."""
    origin: str
    """Network, and who says so."""
    values: Mapping[str, float]
    """Metric → value in the unit that it is printed in."""


PUBLISHED = (
    Published(
        "h36m-p2", "h36m", "Human3.6M, protocol 2", "HRNet-W64, in the paper", {"mpjpe": 54.0, "pa_mpjpe": 36.7}
    ),
    Published(
        "3dpw", "pw3d", "3DPW test set", "HRNet-W64 fine-tuned on 3DPW, in the paper",
        {"mpjpe": 77.1, "pa_mpjpe": 47.9, "mpve": 88.2},
    ),
    Published(
        "freihand", "freihand", "FreiHAND evaluation set", "HRNet-W64 with test-time augmentation, in the paper",
        {"joints_aligned": 6.5, "vertices_aligned": 6.3, "f5_aligned": 73.1, "f15_aligned": 98.4},
    ),
    Published(
        "freihand", "freihand", "FreiHAND evaluation set", "HRNet-W64 in one pass, published code",
        {"joints_aligned": 6.6, "joints_aligned_auc": 86.9, "vertices_aligned": 6.7, "vertices_aligned_auc": 86.6,
         "f5_aligned": 72.1, "f15_aligned": 98.1},
    ),
    Published(
        "freihand", "freihand", "FreiHAND evaluation set", "HRNet-W64 with test-time augmentation, published code",
        {"joints_aligned": 6.2, "joints_aligned_auc": 87.6, "vertices_aligned": 6.3, "vertices_aligned_auc": 87.4,
         "f5_aligned": 74.3, "f15_aligned": 98.4},
    ),
)  # fmt: skip
