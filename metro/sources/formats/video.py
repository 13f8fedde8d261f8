"""Frames of a video by their number, from 0.

Seeking lands on other frames than asked for in some containers and codecs, and the error is silent; frames are
therefore counted from the first on. What is not wanted is passed over without being converted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from metro.errors import MetroError
from metro.files import GET_AGAIN, readable, refuse_others


def count(path: Path) -> int:
    """Number of frames as the container tells it, which may be one or two off, and 0 where it does not tell.

    Raises
    ------
    MetroError
        The file is missing, or no video that can be decoded.
    """
    with _opened(path) as video:
        return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))


def rate(path: Path) -> float:
    """Frames a second as the container tells it: 0, or no finite number, where it does not. Raises as `count`."""
    with _opened(path) as video:
        return float(video.get(cv2.CAP_PROP_FPS))


def frames(path: Path, wanted: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Wanted frames, whose numbers ascend, with their numbers: (H, W, 3) uint8, RGB. Ends early if the video does.

    Raises
    ------
    MetroError
        The file is missing, or no video that can be decoded.
    ValueError
        The numbers do not ascend.
    """
    with _opened(path) as video:
        at = -1
        for number in wanted:
            if number <= at:
                raise ValueError(f"frame {number} after frame {at}")
            with readable(path, GET_AGAIN):
                while at < number:
                    if not video.grab():
                        return
                    at += 1
                decoded, image = video.retrieve()
                if not decoded:
                    return
                image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            yield number, image


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    with readable(path, GET_AGAIN):
        refuse_others(path, GET_AGAIN, ())  # text can be a playlist, which leads to other files
    # FFmpeg alone: other backends take a name with a number in it for a series of pictures. One thread: prepare runs
    # a process per core. Nothing on the way: FFmpeg and OpenCV would say what the error below says.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    video = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    cv2.utils.logging.setLogLevel(level)
    try:
        if not video.isOpened():
            raise MetroError(f"{path}: no video that can be decoded; {GET_AGAIN}")
        yield video
    finally:
        video.release()
