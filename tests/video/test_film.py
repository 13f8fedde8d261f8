"""Overlay videos in pieces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from metro.errors import MetroError
from metro.video.film import Film, film_size, join, packets


def decoded(path: Path) -> list[np.ndarray]:
    reader = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while (found := reader.read())[0]:
        frames.append(found[1])
    return frames


def test_pieces_are_joined_as_they_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), 3)
    pieces = [tmp_path / f"{k}.webm" for k in range(3)]
    for k, path in enumerate(pieces):
        film = Film(path, 25, (64, 48))
        for frame in range(10 if k < 2 else 1):
            film.add(np.roll(image, 2 * frame + 20 * k, 1))
        film.close()
    join(pieces, tmp_path / "whole.webm", 25, (64, 48))
    whole = decoded(tmp_path / "whole.webm")
    assert len(whole) == 21
    assert all((a == b).all() for a, b in zip(whole, [f for p in pieces for f in decoded(p)], strict=True))
    assert np.abs(whole[13][..., ::-1].astype(int) - np.roll(image, 26, 1)).mean() < 12
    keys = [is_key for _, is_key in packets(tmp_path / "whole.webm")]
    assert [k for k, is_key in enumerate(keys) if is_key] == [0, 10, 20]
    reader = cv2.VideoCapture(str(tmp_path / "whole.webm"))
    assert (reader.get(cv2.CAP_PROP_FPS), reader.get(cv2.CAP_PROP_FRAME_COUNT)) == (25, 21)
    assert {path.name for path in tmp_path.iterdir()} == {"0.webm", "1.webm", "2.webm", "whole.webm"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("frame", "film"),
    [((640, 480), (640, 480)), ((641, 479), (640, 478)), ((1920, 1080), (1280, 720)), ((1080, 1920), (720, 1280))],
)
def test_sizes(frame: tuple[int, int], film: tuple[int, int]) -> None:
    assert film_size(*frame) == film
    assert film_size(1, 5000) == (2, 1280)


def test_a_film_that_lost_frames(tmp_path: Path) -> None:
    film = Film(tmp_path / "a.webm", 25, (64, 48))
    film.add(np.zeros((48, 64, 3), np.uint8))
    film.count += 1  # as if the disk had been full
    with pytest.raises(MetroError, match=r"1 of 2 frames were written"):
        film.close()
