"""EXIF orientation: obeyed or ignored as the record says, refused where it does not say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from metro.data import crop
from metro.errors import MetroError


def picture(orientation: int, kind: str = "JPEG") -> bytes:
    """A ramp of 64 × 32 pixels; red grows to the right, green downwards."""
    red, green = np.meshgrid(np.linspace(0, 255, 64), np.linspace(0, 255, 32))
    image = Image.fromarray(np.stack([red, green, np.zeros_like(red)], -1).astype(np.uint8))
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    image.save(file, kind, exif=exif, quality=95)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_both_readings_of_a_picture(orientation: int, kind: str) -> None:
    encoded = picture(orientation, kind)
    stored = Image.open(io.BytesIO(encoded)).convert("RGB")
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
    assert crop.orientation(encoded) == orientation
    for upright, expected in ((False, stored), (True, shown)):
        read = crop.decode(encoded, upright=upright)
        assert read is not None
        assert read.shape == (expected.height, expected.width, 3)
        assert np.abs(read.astype(int) - np.asarray(expected)).max() <= 8  # decoders of JPEG differ a little


@pytest.mark.parametrize("reduce", [1, 2])
def test_reduced_pictures_turn_as_well(reduce: int) -> None:
    read = crop.decode(picture(6), reduce, upright=True)
    assert read is not None
    assert read.shape == (64 // reduce, 32 // reduce, 3)


def test_a_turned_picture_needs_a_word_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "turned.jpg").write_bytes(picture(6))
    square = (np.array([16.0, 16.0]), 0.16, 32, 1.0)
    with pytest.raises(MetroError, match=r"turned\.jpg: has EXIF orientation 6; `upright` of the record must tell"):
        crop.cut(tmp_path / "turned.jpg", *square)
    stored, _ = crop.cut(tmp_path / "turned.jpg", *square, upright=False)
    shown, _ = crop.cut(tmp_path / "turned.jpg", *square, upright=True)
    assert np.abs(stored.astype(int) - shown).max() > 50
    plain, _ = crop.cut(picture(1), *square)
    assert np.array_equal(plain, stored)


def test_a_box_beside_the_picture_is_refused() -> None:
    for center in ([-5000, -5000], [100, 16], [32, -20]):
        with pytest.raises(MetroError, match="lies outside of the picture of 64 × 32 pixels"):
            crop.cut(picture(1), np.array(center, float), 0.16, 32, 1.0)
    crop.cut(picture(1), np.array([70.0, 16.0]), 0.16, 32, 1.0)  # a part of the person is seen
