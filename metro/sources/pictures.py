"""Pictures of raw data, as far as labels need them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from metro.files import readable

REMEDY = "get the picture again from where it came"


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a picture as it is stored, from its header alone.

    Raises
    ------
    MetroError
        The file is missing, or is no picture.
    """
    with readable(path, REMEDY), Image.open(path) as picture:
        width, height = picture.size
    return width, height
