"""Who is in a picture, where the request does not say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from metro.export.predictor import Box, Photo

Finder = Callable[[Photo], Sequence[Box] | None]
"""Boxes x, y, width, height (and score) of the people of a picture; None: the predictor's middle square."""


def middle_square(photo: Photo) -> None:
    """Nobody looks for people: the middle square of the picture is taken, and the answer says so."""
    return None
