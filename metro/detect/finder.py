"""A single-shot detector over a whole picture: it looks at the picture and at squares of it, of several sizes.

Shape suffixes: A anchor, N numbers of an anchor, D detection, K point.
"""

from __future__ import annotations

import numpy as np

from metro.detect.anchors import Layout, centres, decode, merge
from metro.detect.programs import Program
from metro.detect.regions import look, squares


class Finder:
    """Applies a detector to pictures.

    The networks find what fills a good part of their input, so they look at the whole picture and then at ever smaller
    squares of it.

    Parameters
    ----------
    program
        Name of the network.
    layout
        Its anchors.
    levels
        How often the squares are halved: 0 looks at the whole picture alone.
    least
        Least score.
    merged
        Overlap from which on boxes in squares of one size mean the same.
    """

    def __init__(self, program: str, layout: Layout, levels: int, least: float, merged: float) -> None:
        self.program, self.layout, self.levels = Program(program), layout, levels
        self.least, self.merged = least, merged
        self.centres_A2 = centres(layout)

    def __call__(self, image: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """What squares of each size show, the largest first.

        Scores (D,), best first, and points (D, K, 2) in pixels: two opposite corners of the box, then the others.
        """
        height, width = image.shape[:2]
        return [self.find(image, max(width, height) / 2**level) for level in range(self.levels + 1)]

    def find(self, image: np.ndarray, square: float) -> tuple[np.ndarray, np.ndarray]:
        """Scores and points, as of `__call__`, in squares of so many pixels along a side."""
        side = self.layout.side
        found = []
        for place in squares(image.shape[1], image.shape[0], square):
            logits_1A, numbers_1AN = self.program(look(image, place, side)[None])
            scores_D, points_DK2 = decode(logits_1A[0], numbers_1AN[0], self.centres_A2, side, self.least)
            found.append((scores_D, place.to_picture(points_DK2)))
        scores_D, points_DK2 = (np.concatenate(parts) for parts in zip(*found, strict=True))
        # A square's edge cuts what lies on it; the corners stay in order, for squares are not turned.
        return merge(scores_D, points_DK2, self.merged)
