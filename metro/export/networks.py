"""What a `Predictor` applies: a network in torch, or its ONNX file in ONNX Runtime, which starts in a fraction of the
time. Both take pixels and give arrays.

Shape suffixes: B image, S side, J joint, V vertex, F face.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from metro.export.folder import META, ONNX, REMEDY, BundleFolder
from metro.files import readable
from metro.model.runtime import open_session

if TYPE_CHECKING:
    import torch

    from metro.export.bundle import Bundle

OUTPUTS = ("camera", "joints", "vertices")


class Network(Protocol):
    """A network with what is needed to use it."""

    faces_F3: np.ndarray
    """Faces of the full mesh."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """The content of ``bundle.json``."""
        ...

    def __call__(self, pixels_BSS3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Camera (B, 3), joints (B, J, 3) and vertices (B, V, 3) of uint8 RGB crops, as in `metro.model.metro`."""
        ...


class OnnxNetwork:
    """The ONNX file of a bundle, on the CPU.

    Raises
    ------
    MetroError
        The bundle is damaged.
    """

    def __init__(self, bundle: BundleFolder) -> None:
        self.meta = bundle.meta
        self.faces_F3 = bundle.geometry()["faces_0"]
        path, side = bundle.verified(ONNX), self.meta["model"]["image_size"]
        expected = {
            "image": [3, side, side],
            "camera": [3],
            "joints": [len(self.meta["joint_names"]), 3],
            "vertices": [self.meta["mesh_levels"][0], 3],
        }
        with readable(path, REMEDY):
            self.session = open_session(path)
            found = {port.name: port.shape[1:] for port in (*self.session.get_inputs(), *self.session.get_outputs())}
            if found != expected:
                raise ValueError(f"it takes and gives {found}, {META} says {expected}")

    def __call__(self, pixels_BSS3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = np.ascontiguousarray(pixels_BSS3.transpose(0, 3, 1, 2), np.float32) / 255
        camera, joints, vertices = self.session.run(OUTPUTS, {"image": image})
        return camera, joints, vertices


class TorchNetwork:
    """The network of a bundle in torch.

    Parameters
    ----------
    bundle
        The network.
    device
        Where to run; none: a GPU if there is one.

    Raises
    ------
    MetroError
        There is no such device.
    """

    def __init__(self, bundle: Bundle, device: torch.device | str | None = None) -> None:
        from metro.model.device import device_of

        self.meta, self.faces_F3 = bundle.meta, bundle.faces_F3
        self.device = device_of(device)
        self.model = bundle.model.to(self.device).eval()

    def __call__(self, pixels_BSS3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import torch

        from metro.data.augment import normalise

        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(pixels_BSS3)).to(self.device)
            output = self.model(normalise(images, torch.ones(len(images), 3, device=self.device)))
            assert output.mesh_joints is not None
            camera, joints, vertices = (
                t.float().cpu().numpy() for t in (output.camera, output.mesh_joints, output.vertices[-1])
            )
        return camera, joints, vertices
