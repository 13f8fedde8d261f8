"""What a sequence of pictures is read from: a video, or a folder of its frames."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from metro.errors import MetroError
from metro.export.predictor import read_image
from metro.files import sha256_of
from metro.sources.formats import video
from metro.viz.overlay import Image

FOLDER_FPS = 25.0
"""Frames a second of a folder, if nobody tells."""
FASTEST_FPS = 1000.0
"""Beyond, a rate is taken for a damaged header."""

SMALLEST = 16
"""Pixels along a side of a frame, at least; video codecs want some."""


@dataclass(frozen=True)
class Clip:
    """A video, or the frames of a folder."""

    path: Path
    files: tuple[Path, ...]
    """The frames of a folder; none of a video."""
    fps: float
    count: int
    """Frames; of a video what its header tells, which may be wrong, or 0."""

    @property
    def name(self) -> str:
        """What results are called."""
        return self.path.resolve().name if self.files else self.path.stem

    def frames(self, start: int = 0) -> Iterator[tuple[int, Image]]:
        """Frames with their numbers, from one on: (H, W, 3) uint8 RGB, upright, all of one size.

        Raises
        ------
        MetroError
            One cannot be read, is tiny, or of another size.
        """
        pictures = self._pictures(start) if self.files else video.frames(self.path, itertools.count(start))
        size = None
        for number, image in pictures:
            size = size or image.shape
            where = self.files[number] if self.files else f"{self.path}, frame {number}"
            if min(image.shape[:2]) < SMALLEST:
                raise MetroError(
                    f"{where}: {image.shape[1]}×{image.shape[0]} pixels; clips have {SMALLEST} along a side"
                )
            if image.shape != size:
                raise MetroError(
                    f"{where}: {image.shape[1]}×{image.shape[0]} pixels, those before {size[1]}×{size[0]}; "
                    "a sequence has frames of one size"
                )
            yield number, image

    def digest(self) -> str:
        """Hex sha256 of the video, or of its frames with their names."""
        if not self.files:
            return sha256_of(self.path)
        return hashlib.sha256("".join(f"{path.name}\0{sha256_of(path)}\n" for path in self.files).encode()).hexdigest()

    def _pictures(self, start: int) -> Iterator[tuple[int, Image]]:
        for number in range(start, len(self.files)):
            yield number, read_image(self.files[number])


def open_clip(path: Path, files: Sequence[Path] = (), fps: float | None = None) -> Clip:
    """A video, or the `files` of a folder in the order of their names, in which 2 comes before 10.

    `fps` are the frames a second, in place of what the video's header tells.

    Raises
    ------
    MetroError
        The file is missing or no video, or its header has no rate that can be.
    """
    if fps is not None and not 0 < fps <= FASTEST_FPS:
        raise MetroError(f"fps {fps:g}: expected frames a second, up to {FASTEST_FPS:g}")
    if files:
        return Clip(path, tuple(sorted(files, key=_natural)), fps or FOLDER_FPS, len(files))
    told = video.rate(path)
    if fps is None and not (math.isfinite(told) and 0 < told <= FASTEST_FPS):
        raise MetroError(f"{path}: its header tells no frame rate; give it with --fps")
    return Clip(path, (), fps or told, video.count(path))


def _natural(path: Path) -> tuple[list[int | str], str]:
    """Names by their numbers' values: text and numbers take turns, so that like meets like."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], path.name
