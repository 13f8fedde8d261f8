"""Which file holds which of our networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from metro.detect.networks import PalmDetector, PersonDetector
from metro.model.blazehand import BlazeHand
from metro.model.blazepose import BlazePose


class Network(NamedTuple):
    """A tflite file and the module that takes its weights."""

    file: str
    """Below `mediapipe/modules` of the wheel."""
    make: Callable[[], nn.Module]
    outputs: tuple[int, ...]
    """Those of the file's outputs that the module has, in its order."""
    unused: int
    """Layers of the file that lead to the other outputs (heat maps, segmentation)."""


SHIPPED = {
    "pose_full": Network("pose_landmark/pose_landmark_full.tflite", BlazePose, (0, 1, 4), 22),
    "hand_full": Network("hand_landmark/hand_landmark_full.tflite", BlazeHand, (0, 1, 2, 3), 0),
    "pose_detector": Network("pose_detection/pose_detection.tflite", PersonDetector, (1, 0), 0),
    "palm_detector": Network("palm_detection/palm_detection_full.tflite", PalmDetector, (1, 0), 0),
}
"""By the names of their files in `metro/assets/blazepose`."""

OTHERS = {
    "pose_lite": Network("pose_landmark_lite.tflite", lambda: BlazePose("lite"), (0, 1, 4), 22),
    "pose_heavy": Network("pose_landmark_heavy.tflite", lambda: BlazePose("heavy"), (0, 1, 4), 14),
}
"""Those in npm's `@mediapipe/pose`; `heavy` is too large to ship, `lite` is not used."""
