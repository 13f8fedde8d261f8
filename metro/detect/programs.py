"""The networks of `metro/assets/blazepose` in ONNX Runtime, which starts in a fraction of PyTorch's time.

The ONNX files hold graphs alone; their weights are read from the safetensors files beside them.

Shape suffixes: B image, S side.
"""

from __future__ import annotations

from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metro.files import readable
from metro.model.runtime import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FOLDER = Path(str(resources.files("metro") / "assets" / "blazepose"))
INPUT_PX = {"pose_detector": 224, "palm_detector": 192, "pose_full": 256, "hand_full": 224}
"""The networks, and the pixels along a side of their input."""
BATCH = 16
"""Images at once: bounds the memory, and more are not faster."""


class Program:
    """A network on the CPU, opened when it is first used.

    Parameters
    ----------
    name
        One of `INPUT_PX`.
    """

    def __init__(self, name: str) -> None:
        self.path, self.size = FOLDER / f"{name}.onnx", INPUT_PX[name]

    @cached_property
    def session(self) -> InferenceSession:
        """The network.

        Raises
        ------
        MetroError
            Its files are missing or damaged.
        """
        with readable(self.path, "install metro again"):
            return open_session(self.path)

    def __call__(self, pixels_BSS3: np.ndarray) -> list[np.ndarray]:
        """The network's outputs for uint8 RGB images of its size. Raises as `session`."""
        parts = []
        for start in range(0, len(pixels_BSS3), BATCH):
            images = pixels_BSS3[start : start + BATCH].transpose(0, 3, 1, 2)
            parts.append(self.session.run(None, {"image": np.ascontiguousarray(images, np.float32) / 255}))
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
