"""BlazePose's person detector and the palm detector of the hand pipeline, as PyTorch modules.

Both are single-shot detectors (Bazarevsky et al., "BlazePose", 2020; Zhang et al., "MediaPipe Hands", 2020): every cell
of a few maps has some anchors, and the network says for each how likely a face (or a palm) is there, where its box is
and where a few points of the body (or hand) are. `metro.detect.anchors` turns that into boxes. Batch normalisation is
folded into the convolutions. Modules are declared in the order in which they are called.

Shape suffixes: B image, C channel, H and W pixels, A anchor, N numbers of an anchor (box and points).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, each: bool = False, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the size but for its stride; `each`: every channel by itself (depthwise)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=inputs if each else 1, bias=bias)


class Inverted(nn.Module):
    """Inverted residual block of MobileNetV2: widen, filter each channel, narrow; added to its input where it fits."""

    def __init__(self, inputs: int, wide: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.widen = conv(inputs, wide)
        self.filter = conv(wide, wide, kernel, stride, each=True)
        self.narrow = conv(wide, outputs)
        self.added = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.narrow(F.relu6(self.filter(F.relu6(self.widen(x_BCHW)))))
        return x_BCHW + y if self.added else y


class Separable(nn.Module):
    """A filter of each channel, then a mixture of them, with nothing between."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, bias: bool = True) -> None:
        super().__init__()
        self.filter = conv(inputs, inputs, kernel, stride, each=True, bias=bias)
        self.mix = conv(inputs, outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.mix(self.filter(x_BCHW))


class Merge(nn.Module):
    """Going up again: the coarse map doubled and added to the fine one, then two residual blocks."""

    def __init__(self, coarse: int, width: int) -> None:
        super().__init__()
        self.narrow = conv(coarse, width)
        self.blocks = nn.ModuleList(Separable(width, width) for _ in range(2))

    def forward(self, coarse_BCHW: Tensor, fine_BCHW: Tensor) -> Tensor:
        x = fine_BCHW + F.relu6(self.narrow(doubled(coarse_BCHW)))
        for block in self.blocks:
            x = F.relu6(x + block(x))
        return x


class PersonDetector(nn.Module):
    """BlazePose's detector: faces, each with four points that tell where the person's body is.

    The points: middle of the hips, one on the circle around the whole body, middle of the shoulders, one on the circle
    around the upper body. A relative of MobileNetV3's trunk with maps of stride 8, 16 and 32.
    """

    side = 224
    """Pixels along a side of the input."""
    points = 4
    strides = (8, 16, 32)
    """Of the maps with anchors."""
    per_cell = (2, 2, 6)
    """Anchors of each of their cells."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 24, 3, 2)
        self.first = Separable(24, 16)  # with an activation between, see `forward`
        self.stride_8 = nn.Sequential(
            Inverted(16, 64, 24, 3, 2),
            Inverted(24, 144, 24, 3),
            Inverted(24, 144, 40, 5, 2),
            Inverted(40, 240, 40, 5),
        )
        self.side_8 = Separable(40, 96)
        self.stride_16 = nn.Sequential(
            Inverted(40, 240, 80, 3, 2),
            Inverted(80, 480, 80, 3),
            Inverted(80, 480, 80, 3),
            Inverted(80, 480, 112, 5),
            Inverted(112, 672, 112, 5),
            Inverted(112, 672, 112, 5),
        )
        self.side_16 = Separable(112, 192)
        self.stride_32 = nn.Sequential(
            Inverted(112, 672, 192, 5, 2),
            *(Inverted(192, 1152, 192, 5) for _ in range(3)),
            conv(192, 1152),
            nn.ReLU6(),
            conv(1152, 1152, 3, each=True),
            nn.ReLU6(),
        )
        self.merge_16 = Merge(1152, 192)
        self.merge_8 = Merge(192, 96)
        widths, numbers = (96 // 4, 192 // 4, 1152 // 4), 4 + 2 * self.points
        self.scores = nn.ModuleList(Separable(w, n, 3, 2) for w, n in zip(widths, self.per_cell, strict=True))
        self.boxes = nn.ModuleList(
            Separable(w, n * numbers, 3, 2) for w, n in zip(widths, self.per_cell, strict=True)
        )

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, A) before the sigmoid, and boxes (B, A, N), of images in [0, 1]."""
        x = F.relu6(self.stem(2 * image_B3HW - 1))
        x = self.first.mix(F.relu6(self.first.filter(x)))
        fine = self.stride_8(x)
        middle = self.stride_16(fine)
        coarse = self.stride_32(middle)
        merged_16 = self.merge_16(coarse, F.relu6(self.side_16(middle)))
        merged_8 = self.merge_8(merged_16, F.relu6(self.side_8(fine)))
        maps = [from_depth(m) for m in (merged_8, merged_16, coarse)]
        scores = [per_anchor(head(m), 1) for head, m in zip(self.scores, maps, strict=True)]
        boxes = [per_anchor(head(m), 4 + 2 * self.points) for head, m in zip(self.boxes, maps, strict=True)]
        return torch.cat(scores, 1)[..., 0], torch.cat(boxes, 1)


class Residual(nn.Module):
    """Block of BlazeFace: filter and mixture, added to the input, and a leaky unit with a learned slope behind.

    With stride 2 the input is pooled, and given empty channels where the output has more.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.filter = nn.Conv2d(inputs, inputs, 5, stride, 0, groups=inputs, bias=False)
        self.mix = conv(inputs, outputs)
        self.slope = nn.PReLU(outputs)
        self.stride, self.empty = stride, outputs - inputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.mix(self.filter(same(x_BCHW, self.stride)))
        if self.stride == 2:
            x_BCHW = F.max_pool2d(x_BCHW, 2)
        if self.empty:
            x_BCHW = F.pad(x_BCHW, (0, 0, 0, 0, 0, self.empty))
        return self.slope(x_BCHW + y)


class Rise(nn.Module):
    """Going up again in the palm detector: the coarse map doubled, narrowed and added to the fine one; two blocks."""

    def __init__(self, coarse: int, width: int) -> None:
        super().__init__()
        self.narrow = conv(coarse, width)
        self.slope = nn.PReLU(width)
        self.blocks = nn.Sequential(Residual(width, width), Residual(width, width))

    def forward(self, coarse_BCHW: Tensor, fine_BCHW: Tensor) -> Tensor:
        return self.blocks(fine_BCHW + self.slope(self.narrow(doubled(coarse_BCHW))))


class PalmDetector(nn.Module):
    """Palms, each with seven points: wrist, the first joints of index, middle, ring and little finger, two of the thumb."""

    side = 192
    points = 7
    strides = (8, 16)
    per_cell = (2, 6)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 5, 2, 0)
        self.slope = nn.PReLU(32)
        self.stride_8 = nn.Sequential(*stage(32), Residual(32, 64, 2), *stage(64), Residual(64, 128, 2), *stage(128))
        self.stride_16 = nn.Sequential(Residual(128, 256, 2), *stage(256))
        self.stride_32 = nn.Sequential(Residual(256, 256, 2), *stage(256))
        self.rise_16 = Rise(256, 256)
        self.scores_16 = conv(256, 6)
        self.boxes_16 = conv(256, 6 * (4 + 2 * self.points))
        self.rise_8 = Rise(256, 128)
        self.scores_8 = conv(128, 2)
        self.boxes_8 = conv(128, 2 * (4 + 2 * self.points))

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, A) before the sigmoid, and boxes (B, A, N), of images in [0, 1]."""
        fine = self.stride_8(self.slope(self.stem(same(image_B3HW, 2))))
        middle = self.stride_16(fine)
        risen_16 = self.rise_16(self.stride_32(middle), middle)
        risen_8 = self.rise_8(risen_16, fine)
        scores = [per_anchor(self.scores_8(risen_8), 1), per_anchor(self.scores_16(risen_16), 1)]
        numbers = 4 + 2 * self.points
        boxes = [per_anchor(self.boxes_8(risen_8), numbers), per_anchor(self.boxes_16(risen_16), numbers)]
        return torch.cat(scores, 1)[..., 0], torch.cat(boxes, 1)


def stage(width: int) -> list[Residual]:
    """The four blocks of one resolution of the palm detector."""
    return [Residual(width, width) for _ in range(4)]


def doubled(x_BCHW: Tensor) -> Tensor:
    """The map at twice its resolution, bilinear."""
    return F.interpolate(x_BCHW, scale_factor=2, mode="bilinear", align_corners=False)


def same(x_BCHW: Tensor, stride: int) -> Tensor:
    """Room for a 5 × 5 filter as TensorFlow makes it: a stride of 2 on even sizes takes one pixel before, two behind."""
    return F.pad(x_BCHW, (1, 2, 1, 2) if stride == 2 else (2, 2, 2, 2))


def from_depth(x_BCHW: Tensor) -> Tensor:
    """Four channels to 2 × 2 pixels, the channels of a pixel together (TensorFlow's order, not PyTorch's)."""
    batch, channels, height, width = x_BCHW.shape
    x = x_BCHW.reshape(batch, 2, 2, channels // 4, height, width)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, 2 * height, 2 * width)


def per_anchor(map_BCHW: Tensor, numbers: int) -> Tensor:
    """A map's numbers (B, anchors, numbers), cell by cell in rows and within a cell anchor by anchor."""
    return map_BCHW.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, numbers))
