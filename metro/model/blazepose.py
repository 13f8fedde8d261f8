"""BlazePose's landmark network: 39 body landmarks of one person, and the trunk that finds them.

Bazarevsky et al., "BlazePose: On-device Real-time Body Pose tracking", 2020; this is the later network of MediaPipe
(Apache-2.0), whose landmarks are regressed from the trunk instead of read off heat maps. An encoder of inverted
residuals (as an EfficientNet's, without squeeze and excitation) goes from 256 to 8 cells a side, blocks of separable
convolutions go on to 4 and 2 cells, and all landmarks are one linear layer on the last four cells. `heavy` climbs from
8 cells back to 64 and down again in between. Heat maps and segmentation, which landmarks do not need, are left out.

The layers are registered in the order that `tools/blazepose` fills them in.

Shapes: B image, 3HW its RGB in [0, 1], C channels, K landmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

LANDMARKS = 39  # 33 of the body, and 6 that say where to look in the next frame of a video
IMAGE_PX = 256
"""Side of the input."""


class Conv(nn.Conv2d):
    """Convolution with its BatchNorm folded in, and ReLU6 after it.

    The output has ceil(side / stride) cells a side. Where a stride leaves an odd number of pixels to add, the last one
    comes after the image (TensorFlow's "same"), or as many come before as after (`centred`, PyTorch's way).
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        relu: bool = True,
        centred: bool = True,
    ) -> None:
        same = stride > 1 and not centred
        super().__init__(
            width_in, width, kernel, stride, 0 if same else kernel // 2, groups=width_in if depthwise else 1
        )
        before = (kernel - stride) // 2
        self.edges = (before, kernel - stride - before) * 2 if same else None
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x if self.edges is None else F.pad(x, self.edges))
        return F.relu6(x) if self.relu else x


class Separable(nn.Sequential):
    """A filter for each channel, then a mixture of the channels."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(Conv(width_in, width_in, 3, depthwise=True), Conv(width_in, width))


def shortcut(x: Tensor, stride: int, added: int) -> Tensor:
    """What a residual block adds to: its input, maxima of it with stride 2, and so many new channels of 0."""
    if stride > 1:
        x = F.max_pool2d(x, stride)
    return F.pad(x, (0, 0, 0, 0, 0, added)) if added else x


class SeparableResidual(nn.Module):
    """Separable convolution added to its shortcut."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.filter = Conv(width_in, width_in, 3, stride, depthwise=True, centred=False)
        self.mix = Conv(width_in, width, relu=False)
        self.stride = stride
        self.added = width - width_in

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(shortcut(x, self.stride, self.added) + self.mix(self.filter(x)))


def halving(width_in: int, width: int, blocks: int) -> nn.Sequential:
    """So many residual blocks, the first of stride 2."""
    return nn.Sequential(
        SeparableResidual(width_in, width, 2), *(SeparableResidual(width, width) for _ in range(blocks - 1))
    )


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow again (MobileNetV2); added to the input where shapes allow."""

    def __init__(self, width_in: int, width: int, expand: int, kernel: int, stride: int, centred: bool) -> None:
        super().__init__()
        wide = expand * width_in
        self.widen = Conv(width_in, wide)
        self.filter = Conv(wide, wide, kernel, stride, depthwise=True, centred=centred)
        self.narrow = Conv(wide, width, relu=False)
        self.residual = stride == 1 and width == width_in

    def forward(self, x: Tensor) -> Tensor:
        out = self.narrow(self.filter(self.widen(x)))
        return x + out if self.residual else out


class Stage(NamedTuple):
    """Inverted residuals of one width; the first has the stride."""

    width: int
    kernel: int
    stride: int
    expand: tuple[int, ...]
    """How much wider each block is inside."""


def stem(width: int, centred: bool = True) -> nn.Sequential:
    """From the image to half of its side."""
    return nn.Sequential(
        Conv(3, 24, 3, 2, centred=centred), Conv(24, 24, 3, depthwise=True), Conv(24, width, relu=False)
    )


def inverted(width_in: int, stage: Stage, centred: bool = True) -> nn.Sequential:
    """The blocks of a stage."""
    blocks = []
    for number, expand in enumerate(stage.expand):
        width, stride = (stage.width, 1) if number else (width_in, stage.stride)
        blocks.append(InvertedResidual(width, stage.width, expand, stage.kernel, stride, centred))
    return nn.Sequential(*blocks)


def widened(width: int) -> nn.Sequential:
    """What comes after the last stage: six times its channels, each filtered."""
    return nn.Sequential(Conv(width, 6 * width), Conv(6 * width, 6 * width, 3, depthwise=True))


class Encoder(nn.Module):
    """From the image to 1/32 of its side, as EfficientNets do.

    Parameters
    ----------
    width
        Channels after the stem, at half of the image's side.
    stages
        The rest.
    centred
        How convolutions with a stride pad (see `Conv`).
    """

    def __init__(self, width: int, stages: Sequence[Stage], centred: bool = True) -> None:
        super().__init__()
        self.stem = stem(width, centred)
        self.stages = nn.ModuleList()
        for stage in stages:
            self.stages.append(inverted(width, stage, centred))
            width = stage.width
        self.last = widened(width)

    def forward(self, images_B3HW: Tensor) -> tuple[list[Tensor], Tensor]:
        """The map that each stage ends with, and the last of these widened six times."""
        x, maps = self.stem(images_B3HW), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps, self.last(x)

    def early(self, images_B3HW: Tensor) -> Tensor:
        """The map before the last stage, of 1/16 of the image's side."""
        x = self.stem(images_B3HW)
        for stage in self.stages[:-1]:
            x = stage(x)
        return x

    def late(self, early_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """The last stage's map and the same widened six times, from the map before it."""
        x = self.stages[-1](early_BChw)
        return x, self.last(x)


class UpAndDown(nn.Module):
    """From 8 cells a side to 64 and back to 8, joined with the encoder's maps on both ways (`heavy`)."""

    def __init__(self, width_64: int, width_32: int, width_16: int, width_8: int) -> None:
        super().__init__()
        self.up_8 = Separable(width_8, 48)
        self.up_16 = Separable(width_16, 48)
        self.up_32 = Separable(width_32, 48)
        self.up_64 = Separable(width_64, 48)
        self.down_32 = halving(48, 96, 7)
        self.join_32 = Separable(width_32, 96)
        self.down_16 = halving(96, 192, 8)
        self.join_16 = Separable(width_16, 192)
        self.down_8 = halving(192, 288, 8)

    def forward(self, map_64: Tensor, map_32: Tensor, map_16: Tensor, map_8: Tensor) -> Tensor:
        x = self.up_8(map_8)
        x = doubled(x) + self.up_16(map_16)
        x = doubled(x) + self.up_32(map_32)
        x = doubled(x) + self.up_64(map_64)
        x = self.down_32(x) + self.join_32(map_32)
        x = self.down_16(x) + self.join_16(map_16)
        return self.down_8(x)


def doubled(x: Tensor) -> Tensor:
    """The map at twice its side, bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Variant(NamedTuple):
    """What the variants differ in."""

    stem: int
    stages: tuple[Stage, Stage, Stage, Stage, Stage]
    up_and_down: bool
    width: int
    """Channels of the maps of 8, 4 and 2 cells a side."""
    blocks: tuple[int, int]
    """How many make the last two of them."""


VARIANTS = {
    "full": Variant(
        16,
        (
            Stage(24, 3, 2, (4, 6)),
            Stage(32, 5, 2, (6, 6)),
            Stage(64, 3, 2, (6, 6, 6)),
            Stage(88, 5, 1, (6, 6, 6)),
            Stage(144, 5, 2, (6, 6, 6, 6)),
        ),
        False,
        288,
        (5, 6),
    ),
    "heavy": Variant(
        24,
        (
            Stage(32, 3, 2, (4, 4, 6, 6)),
            Stage(56, 5, 2, (6, 6, 6, 6)),
            Stage(112, 3, 2, (6, 6, 6, 6, 6, 6)),
            Stage(160, 5, 1, (6, 6, 6, 6, 6, 6)),
            Stage(272, 5, 2, (6, 6, 6, 6, 6, 6, 6, 6)),
        ),
        True,
        288,
        (8, 8),
    ),
}


class PoseMaps(NamedTuple):
    """What the trunk gives, each (B, C, n, n) for n cells a side."""

    map_8: Tensor
    map_4: Tensor
    map_2: Tensor


class PoseLandmarks(NamedTuple):
    """What the network says about the person in the image."""

    points_BK5: Tensor
    """x, y, z in pixels of the input (depth on their scale, 0 between the hips), then how sure it is that the landmark
    can be seen and that it lies in the image, before the sigmoid."""
    presence_B: Tensor
    """Probability that there is a person."""
    world_BK3: Tensor
    """x, y, z in metres from the middle of the hips, in the directions of `points_BK5`."""


class PoseTrunk(nn.Module):
    """The network without its heads."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        stem, stages, up_and_down, width, (blocks_4, blocks_2) = VARIANTS[variant]
        width_64, width_32, _, width_16, width_8 = (stage.width for stage in stages)
        self.encoder = Encoder(stem, stages)
        self.up_and_down = UpAndDown(width_64, width_32, width_16, 6 * width_8) if up_and_down else None
        self.bridge = Separable(6 * width_8, width)
        self.to_4 = halving(width, width, blocks_4)
        self.to_2 = halving(width, width, blocks_2)

    def forward(self, images_B3HW: Tensor) -> PoseMaps:
        """Maps of RGB images in [0, 1] of 256 × 256 pixels."""
        (map_64, map_32, _, map_16, _), deep_8 = self.encoder(images_B3HW)
        map_8 = self.bridge(deep_8)
        if self.up_and_down is not None:
            map_8 = map_8 + self.up_and_down(map_64, map_32, map_16, deep_8)
        return self._down(map_8)

    def late(self, early_BChw: Tensor) -> PoseMaps:
        """The maps from what `encoder.early` gives; not of `heavy`, which goes back to earlier ones."""
        return self._down(self.bridge(self.encoder.late(early_BChw)[1]))

    def _down(self, map_8: Tensor) -> PoseMaps:
        map_4 = self.to_4(map_8)
        return PoseMaps(map_8, map_4, self.to_2(map_4))


class BlazePose(nn.Module):
    """The landmark network.

    Parameters
    ----------
    variant
        `full` or `heavy`.
    """

    def __init__(self, variant: str = "full") -> None:
        super().__init__()
        self.trunk = PoseTrunk(variant)
        width = VARIANTS[variant].width
        self.points = nn.Conv2d(width, 5 * LANDMARKS, 2)
        self.presence = nn.Conv2d(width, 1, 2)
        self.world = nn.Conv2d(width, 3 * LANDMARKS, 2)

    def landmarks(self, maps: PoseMaps) -> PoseLandmarks:
        """Read the landmarks off the trunk's maps."""
        points, presence, world = (head(maps.map_2).flatten(1) for head in (self.points, self.presence, self.world))
        return PoseLandmarks(
            points.unflatten(1, (LANDMARKS, 5)), presence.sigmoid().squeeze(1), world.unflatten(1, (LANDMARKS, 3))
        )

    def forward(self, images_B3HW: Tensor) -> PoseLandmarks:
        """Landmarks in RGB images in [0, 1] of 256 × 256 pixels."""
        return self.landmarks(self.trunk(images_B3HW))
