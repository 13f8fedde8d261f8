"""Pictures of predictions: skeletons and meshes over the crop or the original image, side views, contact sheets.

Pixel and crop coordinates are those of `metro.viz.camera`. Meshes are in camera axes (x right, y down, z forward),
metres. Images are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from metro.body.joints import EDGES, names_of
from metro.files import atomic_file
from metro.viz.camera import pinhole
from metro.viz.raster import NEAR, render_mesh

Image = NDArray[np.uint8]

LEFT, RIGHT, MIDDLE = (38, 110, 214), (232, 119, 34), (72, 160, 112)
"""Colours of the person's left side, right side and middle."""
FINGERS = ((200, 60, 70), (222, 142, 40), (72, 160, 112), (38, 110, 214), (140, 84, 190))
"""Colours of thumb to little finger."""
PREDICTED, TRUE = (0.42, 0.62, 0.88), (0.95, 0.72, 0.45)
"""Mesh colours of predictions and ground truth."""
GOOD, BAD = (44, 140, 74), (204, 46, 46)
"""Colours of frames around what was accepted and what was refused."""
INK, PAPER = (31, 41, 51), (255, 255, 255)


def mesh_overlay(
    image: Image,
    vertices_V3: ArrayLike,
    faces_F3: NDArray[np.integer],
    camera: ArrayLike,
    *,
    affine: ArrayLike | None = None,
    size: int | None = None,
    colour: ArrayLike = PREDICTED,
    alpha: float = 0.9,
) -> Image:
    """Draw a mesh over the crop it was predicted from, or over the original image.

    Parameters
    ----------
    image
        The crop, or the original image if `affine` is given.
    camera
        (s, tx, ty) of the crop.
    affine
        (2, 3) from image pixels to crop pixels.
    size
        Side of the crop in pixels; none: the width of `image`.
    colour
        RGB in [0, 1], one for all or (V, 3).
    alpha
        Opacity of the mesh.
    """
    intrinsics, translation = pinhole(camera, size or image.shape[1], affine)
    placed = np.asarray(vertices_V3, np.float64) + translation
    return draw_mesh(image, placed, faces_F3, intrinsics, colour=colour, alpha=alpha)


def draw_mesh(
    image: Image,
    vertices_V3: ArrayLike,
    faces_F3: NDArray[np.integer],
    intrinsics: NDArray[np.floating],
    *,
    colour: ArrayLike = PREDICTED,
    alpha: float = 0.9,
) -> Image:
    """Draw a mesh that stands before a pinhole camera (intrinsics (3, 3)) over its picture.

    Only the box that the mesh covers is drawn, which on a large picture is most of the time saved.
    """
    vertices, canvas = np.asarray(vertices_V3, np.float64), image.copy()
    left, top, right, bottom = _covered(vertices, intrinsics, image.shape[1], image.shape[0])
    if left < right and top < bottom:
        below = image[top:bottom, left:right]
        shifted = intrinsics - [[0, 0, left], [0, 0, top], [0, 0, 0]]
        drawn = render_mesh(vertices, faces_F3, shifted, (right - left, bottom - top), colour, below)
        canvas[top:bottom, left:right] = blend(below, drawn, alpha)
    return canvas


def _covered(
    vertices: np.ndarray, intrinsics: NDArray[np.floating], width: int, height: int
) -> tuple[int, int, int, int]:
    """First and one past the last column and row (left, top, right, bottom) of the pixels that a mesh can reach."""
    if vertices[:, 2].min() < NEAR:  # what passes beside the camera can reach any pixel
        return 0, 0, width, height
    pixels = (vertices @ intrinsics.T)[:, :2] / vertices[:, 2:]
    left, top = np.clip(np.floor(pixels.min(0)) - 1, 0, [width, height]).astype(int).tolist()
    right, bottom = np.clip(np.ceil(pixels.max(0)) + 2, 0, [width, height]).astype(int).tolist()
    return left, top, right, bottom


def view(
    vertices_V3: ArrayLike,
    faces_F3: NDArray[np.integer],
    size: int,
    *,
    yaw_deg: float = 0.0,
    colour: ArrayLike = PREDICTED,
    background: Sequence[int] = PAPER,
    radius: float | None = None,
) -> Image:
    """Picture (size, size, 3) of a mesh alone, turned about the vertical and seen from afar.

    `radius` is half the side of the picture in metres; none: the mesh fills it.
    """
    vertices = np.asarray(vertices_V3, np.float64)
    centre = (vertices.min(0) + vertices.max(0)) / 2
    radius = radius or 1.05 * float(np.abs(vertices - centre).max())
    turn = np.deg2rad(yaw_deg)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    distance = 20 * radius
    focal = size / 2 / radius * distance
    middle = (size - 1) / 2
    intrinsics = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    placed = (vertices - centre) @ rotation.T + [0, 0, distance]
    canvas = np.full((size, size, 3), background, np.uint8)
    return render_mesh(placed, faces_F3, intrinsics, (size, size), colour, canvas)


def skeleton(
    image: Image,
    points_N2: ArrayLike,
    joint_set: str,
    *,
    confidence: ArrayLike | None = None,
    width: float | None = None,
) -> Image:
    """Draw a skeleton: the person's left blue, right orange, middle green; hands by finger.

    Parameters
    ----------
    points_N2
        Pixels of the joints of `joint_set`.
    confidence
        (N,); joints of confidence 0 and their bones are left out.
    width
        Width of a bone in pixels; none: it follows the image's size.
    """
    points = np.asarray(points_N2, np.float64)
    shown = np.asarray(np.isfinite(points).all(1))
    if confidence is not None:
        shown &= np.asarray(confidence) > 0
    names, canvas = names_of(joint_set), image.copy()
    width = width or max(1.2, min(image.shape[:2]) / 90)
    for outline in (True, False):  # a pale rim keeps bones readable on any background
        for a, b in EDGES[joint_set]:
            if shown[a] and shown[b]:
                _line(canvas, points[a], points[b], PAPER if outline else _side_colour(names[b]), width, outline)
        for j in np.flatnonzero(shown):
            _dot(canvas, points[j], PAPER if outline else _side_colour(names[j]), width, outline)
    return canvas


def blend(below: Image, above: Image, alpha: float) -> Image:
    """`above` over `below` with opacity `alpha`."""
    return np.rint(below + alpha * (above.astype(np.float64) - below)).astype(np.uint8)


def framed(image: Image, colour: Sequence[int], width: int = 3) -> Image:
    """The image with a frame around it."""
    canvas = np.full((image.shape[0] + 2 * width, image.shape[1] + 2 * width, 3), colour, np.uint8)
    canvas[width:-width, width:-width] = image
    return canvas


def label(image: Image, text: str, *, size: int | None = None) -> Image:
    """The image under a strip with a line of text."""
    from PIL import Image as Pil
    from PIL import ImageDraw, ImageFont

    size = size or max(11, round(image.shape[1] / 16))
    font = ImageFont.load_default(size)
    while size > 7 and font.getlength(text) > image.shape[1] - 6:
        size -= 1
        font = ImageFont.load_default(size)
    strip = Pil.new("RGB", (image.shape[1], round(1.6 * size)), PAPER)
    ImageDraw.Draw(strip).text((3, 0.2 * size), text, fill=INK, font=font)
    return np.concatenate((np.asarray(strip), image))


def grid(
    images: Sequence[Image],
    columns: int,
    *,
    labels: Sequence[str] | None = None,
    gap: int = 4,
    background: Sequence[int] = PAPER,
) -> Image:
    """Contact sheet of images of any sizes; each sits in a cell of the largest one, labelled if labels are given."""
    if not images:
        raise ValueError("a contact sheet needs an image")
    tiles = list(images) if labels is None else [label(i, t) for i, t in zip(images, labels, strict=True)]
    height, width = max(t.shape[0] for t in tiles), max(t.shape[1] for t in tiles)
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), background, np.uint8)
    for k, tile in enumerate(tiles):
        y, x = (k // columns) * (height + gap), (k % columns) * (width + gap)
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet


def resize(image: Image, width: int) -> Image:
    """The image at another width, same shape."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    shrinks = width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC).astype(
        np.uint8
    )


def save_image(image: Image, path: Path) -> Path:
    """Write a PNG or JPEG, by the file's ending."""
    done, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"{path}: cannot write the image")
    with atomic_file(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
    return path


def _side_colour(joint: str) -> tuple[int, int, int]:
    for side, colour in ((("L_", "left_"), LEFT), (("R_", "right_"), RIGHT)):
        if joint.startswith(side):
            return colour
    for finger, colour in zip(("Thumb", "Index", "Middle", "Ring", "Pinky"), FINGERS, strict=True):
        if joint.startswith(finger):
            return colour
    return MIDDLE


_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.clip(point, -1e5, 1e5) * (1 << _SHIFT)
    return round(x), round(y)


def _line(
    canvas: Image, a: np.ndarray, b: np.ndarray, colour: tuple[int, int, int], width: float, outline: bool
) -> None:
    thick = max(1, round(width)) + (2 if outline else 0)
    cv2.line(canvas, _fixed(a), _fixed(b), colour, thick, cv2.LINE_AA, _SHIFT)


def _dot(canvas: Image, point: np.ndarray, colour: tuple[int, int, int], width: float, outline: bool) -> None:
    radius = round((0.9 * width + (1 if outline else 0)) * (1 << _SHIFT))
    cv2.circle(canvas, _fixed(point), radius, colour, -1, cv2.LINE_AA, _SHIFT)
