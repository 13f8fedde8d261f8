"""What clips are read from: videos as phones and broken downloads give them, and folders of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metro.errors import MetroError
from metro.video.clip import open_clip
from metro.viz.overlay import save_image
from tests.video.moving import turn, write_video


def test_a_video(tmp_path: Path) -> None:
    clip = open_clip(write_video(tmp_path / "a.mp4", 12, fps=30))
    assert (clip.name, clip.fps, clip.count) == ("a", 30, 12)
    frames = dict(clip.frames())
    assert [*frames] == [*range(12)]
    assert frames[0].shape == (48, 64, 3)
    assert frames[0][5, 5, 0] > 150 > 50 > frames[0][5, 5, 2]  # RGB
    later = dict(clip.frames(7))
    assert [*later] == [*range(7, 12)]
    assert all((later[k] == frames[k]).all() for k in later)


def test_a_phone_was_held_upright(tmp_path: Path) -> None:
    clip = open_clip(turn(write_video(tmp_path / "a.mp4")))
    image = next(clip.frames())[1]
    assert image.shape == (64, 48, 3)
    assert image[5, 20, 0] > 150  # what was left is on top
    assert image[60, 20, 0] < 50


def test_one_frame(tmp_path: Path) -> None:
    assert len([*open_clip(write_video(tmp_path / "a.mp4", 1)).frames()]) == 1


def test_frames_of_a_folder_go_by_their_numbers(tmp_path: Path) -> None:
    files = [tmp_path / f"f{number}.png" for number in (10, 9, 100, 1)]
    for grey, path in enumerate(files):
        save_image(np.full((18, 20, 3), 10 * grey, np.uint8), path)
    clip = open_clip(tmp_path, files)
    assert (clip.name, clip.fps, clip.count) == (tmp_path.name, 25, 4)
    assert [image[0, 0, 0] for _, image in clip.frames()] == [30, 10, 0, 20]
    before = clip.digest()
    save_image(np.full((18, 20, 3), 1, np.uint8), files[0])
    assert clip.digest() != before
    save_image(np.zeros((18, 22, 3), np.uint8), files[0])
    with pytest.raises(MetroError, match=r"f10.png: 22×18 pixels, those before 20×18"):
        list(clip.frames())
    save_image(np.zeros((18, 1, 3), np.uint8), files[3])
    with pytest.raises(MetroError, match=r"f1.png: 1×18 pixels; clips have 16 along a side"):
        list(clip.frames())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"hello", "is text"),
        (b"\x00" * 5000, "no video that can be decoded"),
        (
            b"RIFF\x24\x01\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\1\0\0" + bytes(256),
            "no video",
        ),
        (None, "missing"),
    ],
    ids=["empty", "text", "zeros", "sound alone", "missing"],
)
def test_what_is_no_video(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MetroError, match=said):
        open_clip(path)


def test_a_video_that_was_cut(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 12)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # its index comes last
    with pytest.raises(MetroError, match="no video that can be decoded"):
        open_clip(path)
    path = write_video(tmp_path / "b.avi", 60, codec="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = open_clip(path)
    assert clip.count == 60
    assert 5 < len([*clip.frames()]) < 40


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 5000])
def test_rates(fps: float, tmp_path: Path) -> None:
    with pytest.raises(MetroError, match="expected frames a second"):
        open_clip(write_video(tmp_path / "a.mp4", 2), fps=fps)
