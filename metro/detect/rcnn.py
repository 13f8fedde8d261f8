"""People in a picture, by torchvision's Keypoint R-CNN (He et al., "Mask R-CNN", 2017): slower than BlazePose, and at
home in crowds. Its weights (COCO) are downloaded once, into PyTorch's cache.

Shape suffixes: D detection, K landmark.
"""

from __future__ import annotations

import numpy as np

from metro.body.joints import JOINT_SETS
from metro.detect.detection import POSE_LANDMARKS, Detection
from metro.errors import MetroError

_COLUMNS = [POSE_LANDMARKS.index(name) for name in JOINT_SETS["COCO17"]]


class RcnnDetector:
    """Finds people.

    Parameters
    ----------
    least
        Least score.
    most
        Keep so many, the surest; None: all.

    Raises
    ------
    MetroError
        The weights cannot be had.
    """

    name = "torchvision"

    def __init__(self, least: float = 0.7, most: int | None = None) -> None:
        from torchvision.models import detection

        self.least, self.most = least, most
        weights = detection.KeypointRCNN_ResNet50_FPN_Weights.DEFAULT
        try:
            self.network = detection.keypointrcnn_resnet50_fpn(weights=weights).eval()
        except (OSError, RuntimeError) as err:  # no network, no room, a broken download
            raise MetroError(
                f"detector torchvision: its weights could not be downloaded ({' '.join(str(err).split())[:200]}); take "
                f"blazepose, or put {weights.url} into PyTorch's cache, ~/.cache/torch/hub/checkpoints"
            ) from None

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """People in an image (H, W, 3) uint8 RGB, those that are surest first."""
        import torch

        with torch.inference_mode():
            (found,) = self.network([torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) / 255])
        people = []
        for corners, score, points_K3 in zip(found["boxes"], found["scores"], found["keypoints"], strict=True):
            x0, y0, x1, y1 = (float(number) for number in corners)
            if score >= self.least:
                landmarks_K3 = np.zeros((len(POSE_LANDMARKS), 3))
                landmarks_K3[_COLUMNS] = points_K3.numpy()  # the third says 1 of all
                landmarks_K3[:, :2] -= 0.5  # its pixels begin at 0
                people.append(Detection((x0 - 0.5, y0 - 0.5, x1 - x0, y1 - y0), float(score), landmarks_K3))
        return people[: self.most]
