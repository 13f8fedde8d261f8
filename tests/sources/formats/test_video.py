"""Frames by number: each picture says in blocks which it is."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from metro.errors import MetroError
from metro.sources.formats import video

BITS, FRAMES = 8, 70


def drawn(number: int) -> np.ndarray:
    """A picture, BGR, with a bit of the number in each of 8 blocks of 32 px, over red."""
    image = np.zeros((96, 32 * BITS, 3), np.uint8)
    image[64:, :, 2] = 200
    for bit in range(BITS):
        image[:64, 32 * bit : 32 * (bit + 1)] = 255 * (number >> bit & 1)
    return image


def number_in(image: np.ndarray) -> int:
    return sum(int(image[16:48, 32 * bit + 8 : 32 * bit + 24].mean() > 127) << bit for bit in range(BITS))


@pytest.fixture(scope="module", params=[("mp4v", "a 01.mp4"), ("MJPG", "video_%d.avi"), ("H.264", "bframes.mp4")])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Human3.6M's videos are H.264 with frames predicted from later ones, which OpenCV reads but cannot write.

    Such a clip of the same pictures is committed: libx264 by PyAV, 3 B-frames in a row, a pyramid of them, key frames
    every 24.
    """
    codec, name = request.param
    if codec == "H.264":
        return Path(__file__).with_name(name)
    folder = tmp_path_factory.mktemp("video")
    written = folder / f"plain{Path(name).suffix}"
    size = (32 * BITS, 96)
    writer = cv2.VideoWriter(str(written), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 50, size)
    for number in range(FRAMES):
        writer.write(drawn(number))
    writer.release()
    return written.rename(folder / name)


@pytest.mark.parametrize("wanted", [range(FRAMES), range(0, FRAMES, 5), [0], [69], [1, 2, 63, 64], []])
def test_frames_are_those_asked_for(clip: Path, wanted: list[int]) -> None:
    got = list(video.frames(clip, wanted))
    assert [number for number, _ in got] == list(wanted)
    assert [number_in(image) for _, image in got] == list(wanted)
    assert video.count(clip) == FRAMES


def test_pictures_are_rgb(clip: Path) -> None:
    ((_, image),) = video.frames(clip, [3])
    assert image.shape == (96, 256, 3)
    assert image.dtype == np.uint8
    red, green, blue = image[72:88].mean(axis=(0, 1))
    assert red > 150 > 60 > max(green, blue)


def test_a_video_that_ends_early_ends_the_frames(clip: Path) -> None:
    assert [number for number, _ in video.frames(clip, [68, 69, 70, 90])] == [68, 69]


def test_a_frame_is_asked_for_once(clip: Path) -> None:
    for wanted in ([3, 3], [3, 2], [-1]):
        with pytest.raises(ValueError, match="after frame"):
            list(video.frames(clip, wanted))


def test_what_is_no_video(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n"
    raw = clip.read_bytes()
    for content, said in {
        b"": "is empty",
        playlist.encode(): "is text",
        b"<html>": "is a web page",
        raw[:40]: "no video that can be decoded",
        bytes(range(256)) * 20: "no video that can be decoded",
    }.items():
        path.write_bytes(content)
        for reads in (lambda: video.count(path), lambda: list(video.frames(path, [0]))):
            with pytest.raises(MetroError, match=said):
                reads()
    with pytest.raises(MetroError, match="missing"):
        video.count(tmp_path / "none.mp4")


def test_libraries_say_nothing_beside_the_line(tmp_path: Path) -> None:
    """In a process of its own: FFmpeg asks once how much it may say."""
    (tmp_path / "a.mp4").write_bytes(bytes(range(256)) * 20)
    code = "import sys, pathlib; from metro.sources.formats import video; video.count(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "a.mp4")]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert said.splitlines()[0].startswith("Traceback")
    assert said.splitlines()[-1].endswith("a.mp4: no video that can be decoded; get it again from where it came")
    assert "ffmpeg" not in said.lower()
    assert "moov" not in said


def test_a_damaged_video_gives_frames_or_one_line(clip: Path, tmp_path: Path) -> None:
    raw = bytearray(clip.read_bytes())
    raw[len(raw) // 3 : len(raw) // 3 + 2000] = bytes(2000)
    (tmp_path / clip.name).write_bytes(raw[: 3 * len(raw) // 4])
    with suppress(MetroError):
        got = [number for number, _ in video.frames(tmp_path / clip.name, range(FRAMES))]
        assert got == list(range(len(got)))
