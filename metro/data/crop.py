"""Square crops: affine maps between frame, stored crop and network input, and the one resampling at preparation time.

Pixel coordinates are OpenCV's (integers are pixel centres), so a crop of S pixels has its centre at (S - 1) / 2. An
affine is (2, 3) and maps (x, y, 1). B batch.
"""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image

from metro.errors import MetroError

_JPEG_MAGIC = b"\xff\xd8"
_ROWS = 64
FARTHEST_PX = 2.0**24
"""Boxes lie within so many pixels: beyond, single precision leaves out whole ones."""
LARGEST_BOX = 8
"""Side of the largest box that is cut, over the longer side of its picture."""

# OpenCV has no name for a reduced size in RGB: the reduced grey is the reduced size alone.
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def crop_affine(
    center_B2: np.ndarray,
    side_B: np.ndarray,
    size: int,
    rotation_deg_B: np.ndarray | float = 0.0,
    flip_B: np.ndarray | bool = False,
) -> np.ndarray:
    """Affines from frame pixels to the pixels of a square crop.

    Parameters
    ----------
    center_B2
        Centres of the squares, frame pixels.
    side_B
        Their sides, frame pixels (200 × the scale of HMR and METRO).
    size
        Side of the crop, crop pixels.
    rotation_deg_B
        Counter-clockwise turn of the picture about the crop's centre, as `cv2.getRotationMatrix2D`.
    flip_B
        Whether the crop is mirrored left-right after everything else.

    Returns
    -------
    np.ndarray
        (B, 2, 3) float64.
    """
    zoom_B11 = size / np.asarray(side_B, np.float64)[:, None, None]
    linear_B22 = zoom_B11 * turning(rotation_deg_B, flip_B)[..., :2, :2]
    shift_B2 = (size - 1) / 2 - np.einsum("bij,bj->bi", linear_B22, np.asarray(center_B2, np.float64))
    return np.concatenate((linear_B22, shift_B2[..., None]), -1)


def turning(rotation_deg_B: np.ndarray | float, flip_B: np.ndarray | bool = False) -> np.ndarray:
    """Matrices (B, 3, 3), or one (3, 3), by which camera axes turn and mirror as `crop_affine` does the picture.

    Points being rows, multiplying by one undoes it.
    """
    angle_B, flip_B = np.broadcast_arrays(np.deg2rad(rotation_deg_B), flip_B)
    turn_B33 = np.zeros((*angle_B.shape, 3, 3))
    turn_B33[..., 0, 0] = turn_B33[..., 1, 1] = np.cos(angle_B)
    turn_B33[..., 0, 1] = np.sin(angle_B)
    turn_B33[..., 1, 0] = -np.sin(angle_B)
    turn_B33[..., 2, 2] = 1
    turn_B33[..., 0, :] *= np.where(flip_B, -1, 1)[..., None]
    return turn_B33


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The affine (..., 2, 3) that applies `first`, then `second`."""
    linear = second[..., :2] @ first[..., :2]
    shift = second[..., :2] @ first[..., 2:] + second[..., 2:]
    return np.concatenate((linear, shift), -1)


def invert(affine: np.ndarray) -> np.ndarray:
    """Inverse of affines (..., 2, 3)."""
    linear = np.linalg.inv(affine[..., :2])
    return np.concatenate((linear, -linear @ affine[..., 2:]), -1)


def apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., N, 2) by affines (..., 2, 3)."""
    return points @ np.swapaxes(affine[..., :2], -1, -2) + affine[..., None, :, 2]


class Picture:
    """A frame to cut people from: read once, and decoded once at each of the sizes that they need.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB, or an encoded image (bytes, or the file to read them from).
    upright
        Whether squares refer to the picture as its EXIF orientation turns it; `None`: it must have none.
    """

    def __init__(self, image: np.ndarray | bytes | Path, upright: bool | None = None) -> None:
        self._image = image
        self._upright = upright
        self._encoded = b""
        self._decoded: dict[int, np.ndarray] = {}

    def shows(self, image: np.ndarray | bytes | Path, upright: bool | None) -> bool:
        """Whether this is that very object, or that file, with its orientation taken alike."""
        same_file = isinstance(image, Path) and isinstance(self._image, Path) and image == self._image
        return (same_file or image is self._image) and upright == self._upright

    def frame(self, shrink: float) -> tuple[np.ndarray, int]:
        """The frame (H, W, 3) uint8 RGB, and by how much it was reduced while decoding: by no more than `shrink`.

        Raises
        ------
        MetroError
            The image cannot be read, or is turned by EXIF where `upright` does not tell.
        """
        if isinstance(self._image, np.ndarray):  # as it is now: its owner may paint the next frame into it
            return self._image, 1
        self._encoded = self._encoded or self._read(self._image)
        jpeg = self._encoded.startswith(_JPEG_MAGIC)
        reduce = max(r for r in _REDUCED if r <= max(shrink, 1)) if jpeg else 1
        if reduce not in self._decoded:
            frame = decode(self._encoded, reduce, upright=bool(self._upright)) if self._encoded else None
            if frame is None:
                raise MetroError(f"{self._name}: not a readable image")
            self._decoded[reduce] = frame
        return self._decoded[reduce], reduce

    @property
    def _name(self) -> str:
        return str(self._image) if isinstance(self._image, Path) else "encoded image"

    def _read(self, image: bytes | Path) -> bytes:
        try:
            encoded = image.read_bytes() if isinstance(image, Path) else image
        except OSError as err:
            raise MetroError(f"{self._name}: {err.strerror}") from None
        if self._upright is None and (turned := orientation(encoded)) != 1:
            raise MetroError(
                f"{self._name}: has EXIF orientation {turned}; `upright` of the record must tell what its pixels are"
            )
        return encoded


def cut(
    image: Picture | np.ndarray | bytes | Path,
    center: np.ndarray,
    scale: float,
    box_px: int,
    margin: float,
    upright: bool | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the square that a shard stores: the person's square enlarged by `margin`, black outside the frame.

    Strong shrinking averages pixels first (JPEG files are decoded at a reduced size, then whole blocks are averaged),
    so that the crop has no aliasing; the rest is one bilinear resampling.

    Parameters
    ----------
    image
        The frame: (H, W, 3) uint8 RGB, or an encoded image; a `Picture` where several people are cut from it.
    center, scale
        The person's square: centre in frame pixels, side / 200 px.
    box_px
        Pixels that the person's square spans in the crop.
    margin
        Side of the crop over side of the person's square.
    upright
        As of `Picture`, if `image` is none.

    Returns
    -------
    tuple
        The crop, (S, S, 3) uint8 RGB with S = round(box_px · margin), and the affine (2, 3) from frame to crop pixels.

    Raises
    ------
    MetroError
        The image cannot be read, is turned by EXIF where `upright` does not tell, or the square lies beside it.
    """
    size = round(box_px * margin)
    if not ((np.abs(center) < FARTHEST_PX).all() and 1 / FARTHEST_PX < 200 * scale < FARTHEST_PX):
        raise MetroError(f"a box of {200 * scale:.4g} pixels around ({center[0]:.4g}, {center[1]:.4g}) cannot be cut")
    side = 200 * scale * size / box_px
    affine_23 = crop_affine(np.asarray(center)[None], np.array([side]), size)[0]
    picture = image if isinstance(image, Picture) else Picture(image, upright)
    frame, reduced = picture.frame(side / size)
    extent = reduced * np.array(frame.shape[1::-1])
    if (np.asarray(center) + 100 * scale < 0).any() or (np.asarray(center) - 100 * scale > extent).any():
        raise MetroError(
            f"the box around ({center[0]:.4g}, {center[1]:.4g}) lies outside of the picture of "
            f"{extent[0]} × {extent[1]} pixels"
        )
    if 200 * scale > LARGEST_BOX * extent.max():
        raise MetroError(
            f"a box of {200 * scale:.4g} pixels is more than {LARGEST_BOX} times as large as the picture of "
            f"{extent[0]} × {extent[1]} pixels"
        )
    # Coordinates of a reduced picture: pixel edges scale, centres sit half a pixel inside.
    frame_23 = compose(affine_23, enlarging(reduced))
    block = max(1, round(side / size / reduced))
    if block > 1:
        frame, origin = _block_means(frame, frame_23, size, block)
        frame_23 = compose(frame_23, compose(np.array([[1, 0, origin[0]], [0, 1, origin[1]]]), enlarging(block)))
    return _resample(frame, *_taps(frame, frame_23, 1, size), *_taps(frame, frame_23, 0, size)), affine_23


def _taps(frame: np.ndarray, affine_23: np.ndarray, axis: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Along an axis (0: x, 1: y), the two frame pixels beside each crop pixel (2, S), and their weights; 0 outside."""
    count = frame.shape[1 - axis]
    place = (np.arange(size) - affine_23[axis, 2]) / affine_23[axis, axis]
    first = np.floor(place)
    pixels = np.stack([first, first + 1])
    weights = np.stack([1 - (place - first), place - first]) * ((pixels >= 0) & (pixels < count))
    return np.clip(pixels, 0, count - 1).astype(np.int64), weights.astype(np.float32)


def _resample(
    frame: np.ndarray, rows_2S: np.ndarray, down_2S: np.ndarray, cols_2S: np.ndarray, across_2S: np.ndarray
) -> np.ndarray:
    """Cut (S, S, 3) out of a frame, bilinear, black outside.

    As `warp` without rotation, but with the same bytes on every processor, which OpenCV does not promise: every number
    is the same few products and sums. Done by `_ROWS` rows, which stay in the processor's cache, and turned for the
    second direction, so that both have long rows, each with one weight.
    """
    left, size = cols_2S.min(), rows_2S.shape[1]
    part, cols_2S = frame[:, left : cols_2S.max() + 1], cols_2S - left
    width = part.shape[1]
    down_2S, across_2S = down_2S[..., None], across_2S[..., None]
    out = np.empty((size, size, 3), np.uint8)
    for start in range(0, size, _ROWS):
        block = slice(start, start + _ROWS)
        lines = down_2S[0, block] * part[rows_2S[0, block]].reshape(-1, 3 * width)
        lines += down_2S[1, block] * part[rows_2S[1, block]].reshape(-1, 3 * width)
        count = len(lines)
        lines = cv2.transpose(lines.reshape(count, width, 3)).reshape(width, 3 * count)
        cells = across_2S[0] * lines[cols_2S[0]]
        cells += across_2S[1] * lines[cols_2S[1]]
        cells += np.float32(0.5)
        out[block] = cv2.transpose(cells.astype(np.uint8).reshape(size, count, 3))
    return out


def orientation(encoded: bytes) -> int:
    """EXIF orientation of an encoded image: 1 if there is none, else how a viewer mirrors and turns it (2 to 8)."""
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            found = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever damage PIL meets: `decode` tells
        return 1
    return found if found in range(2, 9) else 1


def decode(encoded: np.ndarray | bytes, reduce: int = 1, *, upright: bool = False) -> np.ndarray | None:
    """Decode an image to (H, W, 3) uint8 RGB at 1 / `reduce` (1, 2, 4, 8) of its size; `None` if it is corrupt.

    Its EXIF orientation counts only with `upright`; without it pixels are as the file stores them.
    """
    try:
        stored = 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), _REDUCED[reduce] | stored)
    except cv2.error:
        return None


def warp(image: np.ndarray, affine: np.ndarray, out: np.ndarray) -> None:
    """Resample an image (H, W, 3) uint8 bilinearly into `out` (S, S, 3) by the affine between them; black outside.

    OpenCV warps four channels in less than half the time of three, conversions included, with the same result.
    """
    padded = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    cv2.cvtColor(cv2.warpAffine(padded, affine, out.shape[1::-1], flags=cv2.INTER_LINEAR), cv2.COLOR_RGBA2RGB, dst=out)


def enlarging(factor: np.ndarray | float) -> np.ndarray:
    """Affines (..., 2, 3) from pixels of a picture reduced by factors (...) to those of the full one."""
    factor = np.asarray(factor, np.float64)[..., None, None]
    return np.concatenate((factor * np.eye(2), np.broadcast_to((factor - 1) / 2, (*factor.shape[:-2], 2, 1))), -1)


def _block_means(frame: np.ndarray, affine_23: np.ndarray, size: int, block: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Means over block × block pixels of the part of the frame that the crop sees, and where that part starts."""
    corners = apply(invert(affine_23), np.array([[-0.5, -0.5], [size - 0.5, size - 0.5]]))
    height, width = frame.shape[:2]
    x0, y0 = np.clip(np.floor(corners[0]).astype(int) - block, 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(corners[1]).astype(int) + block, [x0 + 1, y0 + 1], [width, height])
    part = frame[y0:y1, x0:x1]
    right, bottom = -part.shape[1] % block, -part.shape[0] % block
    part = cv2.copyMakeBorder(np.ascontiguousarray(part), 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    means = cv2.resize(part, (part.shape[1] // block, part.shape[0] // block), interpolation=cv2.INTER_AREA)
    return means, (int(x0), int(y0))
