"""BlazePose's person detector and the palm detector of the hand pipeline, as PyTorch modules.

Both are single-shot detectors (Bazarevsky et al., "BlazePose", 2020; Zhang et al., "MediaPipe Hands", 2020): every cell
of a few maps has some anchors, and the network says for each how likely a face (or a palm) is there, where its box is
and where a few points of the body (or hand) are. `metro.detect.anchors` turns that into boxes.

The layers are registered in the order that `tools/blazepose` fills them in.

Shapes: B image, 3HW its RGB in [0, 1], C channels, A anchor, N numbers of an anchor (box and points).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metro.detect.anchors import PALM, PERSON
from metro.model.blazepose import Conv, Stage, doubled, inverted, shortcut, stem, widened


class Anchored(NamedTuple):
    """What a detector says about its anchors."""

    scores_BA: Tensor
    """Before the sigmoid."""
    numbers_BAN: Tensor
    """Box and points of each, see `metro.detect.anchors.decode`."""


class Mixed(nn.Module):
    """A filter of each channel, then a mixture of them, with nothing between."""

    def __init__(self, width_in: int, width: int, stride: int = 1, *, relu: bool = False) -> None:
        super().__init__()
        self.filter = Conv(width_in, width_in, 3, stride, depthwise=True, relu=False)
        self.mix = Conv(width_in, width, relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.filter(x))


class Climb(nn.Module):
    """From a coarse map to one of twice its side: joined with the encoder's there, then two residual blocks."""

    def __init__(self, coarse: int, width: int) -> None:
        super().__init__()
        self.narrow = Conv(coarse, width)
        self.blocks = nn.ModuleList(Mixed(width, width) for _ in range(2))

    def forward(self, coarse: Tensor, side: Tensor) -> Tensor:
        x = side + self.narrow(doubled(coarse))
        for block in self.blocks:
            x = F.relu6(x + block(x))
        return x


class PersonDetector(nn.Module):
    """BlazePose's detector: an encoder with EfficientNet-B0's widths, and two steps up again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(16)
        self.to_28 = nn.Sequential(*inverted(16, Stage(24, 3, 2, (4, 6))), *inverted(24, Stage(40, 5, 2, (6, 6))))
        self.side_28 = Mixed(40, 96, relu=True)
        self.to_14 = nn.Sequential(
            *inverted(40, Stage(80, 3, 2, (6, 6, 6))), *inverted(80, Stage(112, 5, 1, (6, 6, 6)))
        )
        self.side_14 = Mixed(112, 192, relu=True)
        self.to_7 = nn.Sequential(*inverted(112, Stage(192, 5, 2, (6, 6, 6, 6))), *widened(192))
        self.climb_14 = Climb(1152, 192)
        self.climb_28 = Climb(192, 96)
        widths = (96 // 4, 192 // 4, 1152 // 4)
        per_cell, numbers = PERSON.per_cell, PERSON.numbers
        self.scores = nn.ModuleList(Mixed(w, n, 2) for w, n in zip(widths, per_cell, strict=True))
        self.boxes = nn.ModuleList(Mixed(w, n * numbers, 2) for w, n in zip(widths, per_cell, strict=True))

    def forward(self, images_B3HW: Tensor) -> Anchored:
        """Anchors in RGB images in [0, 1] of 224 × 224 pixels."""
        fine = self.to_28(self.stem(2 * images_B3HW - 1))
        middle = self.to_14(fine)
        coarse = self.to_7(middle)
        risen_14 = self.climb_14(coarse, self.side_14(middle))
        maps = [spread(m) for m in (self.climb_28(risen_14, self.side_28(fine)), risen_14, coarse)]
        return gathered(
            [head(m) for head, m in zip(self.scores, maps, strict=True)],
            [head(m) for head, m in zip(self.boxes, maps, strict=True)],
            PERSON.numbers,
        )


class SlopedResidual(nn.Module):
    """A filter of each channel and a mixture, added to the shortcut; below 0 each channel has its own slope."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.filter = Conv(width_in, width_in, 5, stride, depthwise=True, relu=False, centred=False)
        self.mix = Conv(width_in, width, relu=False)
        self.slope = nn.PReLU(width)
        self.stride = stride
        self.added = width - width_in

    def forward(self, x: Tensor) -> Tensor:
        return self.slope(shortcut(x, self.stride, self.added) + self.mix(self.filter(x)))


class SlopedClimb(nn.Module):
    """From a coarse map to one of twice its side: added to the encoder's there, then two residual blocks."""

    def __init__(self, coarse: int, width: int) -> None:
        super().__init__()
        self.narrow = Conv(coarse, width, relu=False)
        self.slope = nn.PReLU(width)
        self.blocks = blocks(width, 2)

    def forward(self, coarse: Tensor, side: Tensor) -> Tensor:
        x: Tensor = self.blocks(side + self.slope(self.narrow(doubled(coarse))))
        return x


def blocks(width: int, count: int) -> nn.Sequential:
    """Residual blocks of one resolution."""
    return nn.Sequential(*(SlopedResidual(width, width) for _ in range(count)))


class PalmDetector(nn.Module):
    """The palm detector: an encoder of residual blocks, and two steps up again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv(3, 32, 5, 2, relu=False, centred=False), nn.PReLU(32))
        self.to_24 = nn.Sequential(
            blocks(32, 4), SlopedResidual(32, 64, 2), blocks(64, 4), SlopedResidual(64, 128, 2), blocks(128, 4)
        )
        self.to_12 = nn.Sequential(SlopedResidual(128, 256, 2), blocks(256, 4))
        self.to_6 = nn.Sequential(SlopedResidual(256, 256, 2), blocks(256, 4))
        self.climb_12 = SlopedClimb(256, 256)
        self.climb_24 = SlopedClimb(256, 128)
        widths = (128, 256)
        self.scores = nn.ModuleList(Conv(w, n, relu=False) for w, n in zip(widths, PALM.per_cell, strict=True))
        self.boxes = nn.ModuleList(
            Conv(w, n * PALM.numbers, relu=False) for w, n in zip(widths, PALM.per_cell, strict=True)
        )

    def forward(self, images_B3HW: Tensor) -> Anchored:
        """Anchors in RGB images in [0, 1] of 192 × 192 pixels."""
        fine = self.to_24(self.stem(images_B3HW))
        middle = self.to_12(fine)
        risen_12 = self.climb_12(self.to_6(middle), middle)
        maps = (self.climb_24(risen_12, fine), risen_12)
        return gathered(
            [head(m) for head, m in zip(self.scores, maps, strict=True)],
            [head(m) for head, m in zip(self.boxes, maps, strict=True)],
            PALM.numbers,
        )


def spread(x_BCHW: Tensor) -> Tensor:
    """Four channels become 2 × 2 cells; those of a cell lie together, as in TensorFlow and unlike PyTorch's shuffle."""
    width, height, side = (x_BCHW.shape[axis] for axis in (1, 2, 3))
    cells = x_BCHW.reshape(-1, 2, 2, width // 4, height, side).permute(0, 3, 4, 1, 5, 2)
    return cells.reshape(-1, width // 4, 2 * height, 2 * side)


def gathered(scores: list[Tensor], boxes: list[Tensor], numbers: int) -> Anchored:
    """Maps (B, C, H, W) as anchors: map by map, cell by cell in rows, and a cell's anchors one by one."""
    return Anchored(
        torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in scores], 1),
        torch.cat([x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, numbers)) for x in boxes], 1),
    )
