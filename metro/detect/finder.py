"""A single-shot detector over a whole picture: it looks at squares of it, and what it finds several times is merged.

Shape suffixes: A anchor, N numbers of an anchor, D detection, K point.
"""

from __future__ import annotations

import numpy as np

from metro.detect.anchors import Layout, centres, decode, merge
from metro.detect.programs import Program
from metro.detect.regions import look, squares

STRICTER = 0.2
"""Squares hold limbs and things without the rest, and many of them are looked at: their least score is so much more."""


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
        Least score in the whole picture.
    """

    def __init__(self, program: str, layout: Layout, levels: int, least: float) -> None:
        self.program, self.layout, self.levels, self.least = Program(program), layout, levels, least
        self.centres_A2 = centres(layout)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (D,), best first, and points (D, K, 2) in pixels: two opposite corners of the box, then the others."""
        side, found = self.layout.side, []
        for place in squares(image.shape[1], image.shape[0], self.levels):
            logits_1A, numbers_1AN = self.program(look(image, place, side)[None])
            least = self.least + (STRICTER if found else 0)  # the first square is the whole picture
            scores_D, points_DK2 = decode(logits_1A[0], numbers_1AN[0], self.centres_A2, side, least)
            found.append((scores_D, place.to_picture(points_DK2)))
        scores_D, points_DK2 = (np.concatenate(parts) for parts in zip(*found, strict=True))
        # A square's edge cuts what lies on it; the corners stay in order, for squares are not turned.
        return merge(scores_D, points_DK2)
