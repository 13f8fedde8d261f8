"""Overlay videos: VP8 in WebM, in pieces that are joined without encoding anything again.

Of what OpenCV's wheels can write, this is what browsers play: they have no H.264 encoder, Chromium refuses MPEG-4
(`mp4v`), which is ten times as fast, and VP9 takes twice the time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from metro.errors import MetroError
from metro.files import atomic_file
from metro.viz.overlay import Image

ENDING = ".webm"
LONGEST = 1280
"""Pixels along the longer side: to draw and to encode is most of the work, and goes with the area."""
AHEAD = 8
"""Frames that may wait for the encoder, which works in a thread of its own: it takes a quarter of the time."""
_CODEC = cv2.VideoWriter.fourcc(*"VP80")


def film_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the overlay video of such frames; both are even, as the codec wants."""
    ratio = min(1.0, LONGEST / max(width, height))
    return max(2, round(ratio * width) // 2 * 2), max(2, round(ratio * height) // 2 * 2)


class Film:
    """A video that is being written."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int], *, encoded: bool = False) -> None:
        self.path, self.size, self.count = path, size, 0
        # Of a full disk OpenCV warns frame by frame; `close` says it once.
        self._level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        with _quiet():
            extra = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1] if encoded else []
            self._writer = cv2.VideoWriter(str(path.absolute()), cv2.CAP_FFMPEG, _CODEC, fps, size, extra)
        if not self._writer.isOpened():
            raise MetroError(f"{path}: this OpenCV cannot write VP8 in WebM; install opencv-python from PyPI")
        self._thread = ThreadPoolExecutor(1)  # OpenCV lets others run meanwhile
        self._waiting: deque[Future[None]] = deque()

    def add(self, image: Image) -> None:
        """Append a frame (H, W, 3) uint8 RGB of the film's size."""
        if len(self._waiting) == AHEAD:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._write, cv2.cvtColor(image, cv2.COLOR_RGB2BGR)))
        self.count += 1

    def _write(self, frame: np.ndarray) -> None:
        self._writer.write(frame)

    def add_encoded(self, packet: np.ndarray, is_key: bool) -> None:
        """Append a frame as the codec has encoded it."""
        self._writer.set(cv2.VIDEOWRITER_PROP_KEY_FLAG, float(is_key))
        self._writer.write(packet)
        self.count += 1

    def close(self) -> None:
        """Finish the file.

        Raises
        ------
        MetroError
            It has not all the frames: OpenCV does not tell when the disk is full.
        """
        self._thread.shutdown()
        self._writer.release()
        found = sum(1 for _ in packets(self.path))
        cv2.utils.logging.setLogLevel(self._level)
        if found != self.count:
            raise MetroError(f"{self.path}: {found} of {self.count} frames were written; is the disk full?")


def packets(path: Path) -> Iterator[tuple[np.ndarray, bool]]:
    """The frames of a video as they are encoded, and whether each can be decoded without others."""
    reader = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    try:
        while True:
            found, packet = reader.read()
            if not found:
                return
            yield packet, bool(reader.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME))
    finally:
        reader.release()


def join(parts: Iterable[Path], path: Path, fps: float, size: tuple[int, int]) -> None:
    """Write films of one size as one."""
    with atomic_file(path) as temporary:
        film = Film(temporary.with_name(temporary.name + ENDING), fps, size, encoded=True)
        try:
            for part in parts:
                for packet, is_key in packets(part):
                    film.add_encoded(packet, is_key)
            film.close()
            os.replace(film.path, temporary)
        finally:
            film.path.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV prints to the process's standard error, past any setting, that WebM knows codecs by other names."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # this is for what FFmpeg says
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
