"""MediaPipe's hand landmark network: 21 landmarks of one hand, and the trunk that finds them.

Zhang et al., "MediaPipe Hands: On-device Real-time Hand Tracking", 2020 (weights: Apache-2.0). It is the encoder of
`metro.model.blazepose` with EfficientNet-B0's widths; landmarks are one linear layer on the mean of its last map.

Shapes: B image, 3HW its RGB in [0, 1], C channels, K landmark.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from metro.model.blazepose import Encoder, Stage

LANDMARKS = 21  # in the order of `metro.body.joints`' HAND21
IMAGE_PX = 224
"""Side of the input."""

WIDTH = 192
STAGES = (
    Stage(24, 3, 2, (4, 6)),
    Stage(40, 5, 2, (6, 6)),
    Stage(80, 3, 2, (6, 6, 6)),
    Stage(112, 5, 1, (6, 6, 6)),
    Stage(WIDTH, 5, 2, (6, 6, 6, 6)),
)


class HandMaps(NamedTuple):
    """What the trunk gives."""

    map_7: Tensor
    """(B, 192, 7, 7): the last map of the encoder."""
    mean_BC: Tensor
    """(B, 1152): mean over the cells of that map, widened; all that the landmarks are made of."""


class HandLandmarks(NamedTuple):
    """What the network says about the hand in the image."""

    points_BK3: Tensor
    """x, y, z in pixels of the input; depth on their scale, 0 at the wrist."""
    presence_B: Tensor
    """Probability that there is a hand."""
    right_B: Tensor
    """Probability that it is a right hand; MediaPipe, which expects mirrored images, calls it left."""
    world_BK3: Tensor
    """x, y, z in metres from the middle of the hand, in the directions of `points_BK3`."""


class HandTrunk(nn.Module):
    """The network without its heads."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(16, STAGES, centred=False)

    def forward(self, images_B3HW: Tensor) -> HandMaps:
        """Maps of RGB images in [0, 1] of 224 × 224 pixels."""
        return self.late(self.encoder.early(images_B3HW))

    def late(self, early_BChw: Tensor) -> HandMaps:
        """The maps from what `encoder.early` gives."""
        map_7, deep = self.encoder.late(early_BChw)
        return HandMaps(map_7, deep.mean((2, 3)))


class BlazeHand(nn.Module):
    """The landmark network."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = HandTrunk()
        self.points = nn.Linear(6 * WIDTH, 3 * LANDMARKS)
        self.presence = nn.Linear(6 * WIDTH, 1)
        self.right = nn.Linear(6 * WIDTH, 1)
        self.world = nn.Linear(6 * WIDTH, 3 * LANDMARKS)

    def landmarks(self, maps: HandMaps) -> HandLandmarks:
        """Read the landmarks off the trunk's maps."""
        mean_BC = maps.mean_BC
        return HandLandmarks(
            self.points(mean_BC).unflatten(1, (LANDMARKS, 3)),
            self.presence(mean_BC).sigmoid().squeeze(1),
            self.right(mean_BC).sigmoid().squeeze(1),
            self.world(mean_BC).unflatten(1, (LANDMARKS, 3)),
        )

    def forward(self, images_B3HW: Tensor) -> HandLandmarks:
        """Landmarks in RGB images in [0, 1] of 224 × 224 pixels."""
        return self.landmarks(self.trunk(images_B3HW))
