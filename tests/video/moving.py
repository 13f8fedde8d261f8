"""Small videos for tests."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np


def write_video(
    path: Path, count: int = 12, size: tuple[int, int] = (64, 48), fps: float = 25, codec: str = "mp4v"
) -> Path:
    """A red left half, and a white square that wanders to the right by two pixels a frame."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # OpenCV reads it but once
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
    for frame in range(count):
        image = np.zeros((size[1], size[0], 3), np.uint8)
        image[:, : size[0] // 2, 2] = 200
        image[20:30, 2 * frame : 2 * frame + 10] = 255
        writer.write(image)
    writer.release()
    return path


def turn(path: Path) -> Path:
    """Tag an mp4 as phones do, to be shown turned clockwise by 90 degrees: the matrix of its track header."""
    content = bytearray(path.read_bytes())
    matrix = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    start = content.index(b"tkhd") + 44
    content[start : start + 36] = matrix
    path.write_bytes(content)
    return path
