"""A small deterministic rasteriser: triangles to depth, face index and barycentric weights, in numba.

The camera frame is OpenCV's (x right, y down, z forward, metres) and so are pixel coordinates: whole numbers are pixel
*centres*, and a point projects to ``u = fx x / z + cx``.

Edge functions are taken in homogeneous coordinates (Olano and Greer, 1997): for a ray ``d`` through a sample and the
triangle ``a, b, c`` the weight of ``a`` is ``d · (b × c)``. Nothing is divided before the visibility test, so triangles
that cross the near plane need no clipping, and two triangles that share an edge leave no gap between them.

No fast-math and no parallel loops: the same input gives the same bytes on every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metro.kernels import njit
from metro.mesh.topology import vertex_normals

NEAR = 0.05
"""Distance of the near plane, metres."""
WIDE = 16
"""Samples of a row from which on it pays to find where the triangle begins and ends."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Raster:
    """What the samples of a picture see.

    Attributes
    ----------
    face : (H·s, W·s) int32
        Index of the visible triangle, -1 where there is none; s is the supersampling factor.
    depth : (H·s, W·s) float32
        z of the visible surface in metres, 0 where there is none.
    bary : (H·s, W·s, 3) float32
        Perspective-correct weights of the triangle's corners.
    """

    face: NDArray[np.int32]
    depth: Array
    bary: Array


def pool(image: NDArray, factor: int) -> NDArray:
    """Mean over blocks of factor × factor: (h, w[, C]) to (h / factor, w / factor[, C])."""
    parts = [image[row::factor, col::factor] for row in range(factor) for col in range(factor)]
    total = parts[0].astype(np.result_type(image, np.float32))
    for part in parts[1:]:
        total += part
    return total / factor**2


@njit
def draw(
    verts: Array,
    faces: NDArray[np.int32],
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    offset: int,
    cull: bool,
    face: NDArray[np.int32],
    depth: Array,
    bary: Array,
) -> None:
    """Draw a mesh into the buffers of a `Raster`, keeping what is nearer; face indices are raised by `offset`.

    `fx, fy, cx, cy` count samples (see `sample_intrinsics`). Empty samples hold face -1 and depth 0.
    """
    height, width = face.shape
    ray_x = (np.arange(width) - cx) / fx
    px = np.empty(verts.shape[0], np.float64)
    py = np.empty(verts.shape[0], np.float64)
    for v in range(verts.shape[0]):
        z = max(np.float64(verts[v, 2]), NEAR)
        px[v] = fx * verts[v, 0] / z + cx
        py[v] = fy * verts[v, 1] / z + cy
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, z0 = np.float64(verts[i, 0]), np.float64(verts[i, 1]), np.float64(verts[i, 2])
        x1, y1, z1 = np.float64(verts[j, 0]), np.float64(verts[j, 1]), np.float64(verts[j, 2])
        x2, y2, z2 = np.float64(verts[k, 0]), np.float64(verts[k, 1]), np.float64(verts[k, 2])
        if z0 < NEAR and z1 < NEAR and z2 < NEAR:
            continue
        e0x, e0y, e0z = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
        det = x0 * e0x + y0 * e0y + z0 * e0z
        # Anticlockwise seen from outside is negative here: the ray runs against the normal.
        if det == 0 or (cull and det > 0):
            continue
        if z0 < NEAR or z1 < NEAR or z2 < NEAR:
            left, right, top, bottom = 0, width - 1, 0, height - 1
        else:
            left = max(0, int(np.ceil(min(px[i], px[j], px[k]) - 1e-6)))
            right = min(width - 1, int(np.floor(max(px[i], px[j], px[k]) + 1e-6)))
            top = max(0, int(np.ceil(min(py[i], py[j], py[k]) - 1e-6)))
            bottom = min(height - 1, int(np.floor(max(py[i], py[j], py[k]) + 1e-6)))
        if left > right or top > bottom:
            continue
        e1x, e1y, e1z = y2 * z0 - z2 * y0, z2 * x0 - x2 * z0, x2 * y0 - y2 * x0
        e2x, e2y, e2z = y0 * z1 - z0 * y1, z0 * x1 - x0 * z1, x0 * y1 - y0 * x1
        sign = -1.0 if det < 0 else 1.0
        for y in range(top, bottom + 1):
            dy = (y - cy) / fy
            r0, r1, r2 = e0y * dy + e0z, e1y * dy + e1z, e2y * dy + e2z
            first, last = left, right
            if last - first > WIDE:
                first, last = _span(first, last, sign * e0x, sign * r0, cx, fx)
                first, last = _span(first, last, sign * e1x, sign * r1, cx, fx)
                first, last = _span(first, last, sign * e2x, sign * r2, cx, fx)
            for x in range(first, last + 1):
                dx = ray_x[x]
                w0, w1, w2 = sign * (e0x * dx + r0), sign * (e1x * dx + r1), sign * (e2x * dx + r2)
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                total = w0 + w1 + w2
                if total <= 0:
                    continue
                z = sign * det / total
                if z < NEAR or (face[y, x] >= 0 and z >= depth[y, x]):
                    continue
                face[y, x] = f + offset
                depth[y, x] = z
                bary[y, x, 0], bary[y, x, 1], bary[y, x, 2] = w0 / total, w1 / total, w2 / total


@njit(inline="always")
def _span(first: int, last: int, slope: float, offset: float, cx: float, fx: float) -> tuple[int, int]:
    """Narrow a row's samples to those where slope (x - cx) / fx + offset may not be negative, and one beside."""
    if slope == 0:
        return first, (last if offset >= 0 else first - 1)
    edge = min(max(cx - offset * fx / slope, first - 2.0), last + 2.0)
    if slope > 0:
        return max(first, int(np.floor(edge)) - 1), last
    return first, min(last, int(np.ceil(edge)) + 1)


def sample_intrinsics(K: ArrayLike, ssaa: float) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy on a grid `ssaa` times as dense as the pixels of intrinsics (3, 3)."""
    k = np.asarray(K, np.float64)
    return k[0, 0] * ssaa, k[1, 1] * ssaa, (k[0, 2] + 0.5) * ssaa - 0.5, (k[1, 2] + 0.5) * ssaa - 0.5


def rasterise(
    verts_cam: ArrayLike,
    faces: NDArray[np.integer],
    K: ArrayLike,
    size: tuple[int, int],
    ssaa: int = 2,
    cull: bool = True,
) -> Raster:
    """Rasterise a mesh.

    Parameters
    ----------
    verts_cam : (V, 3)
        Vertices in the camera frame (OpenCV: x right, y down, z forward), metres.
    faces : (F, 3)
        Triangles, anticlockwise seen from outside.
    K : (3, 3)
        Pinhole intrinsics in pixels (no skew).
    size : (width, height)
        Of the picture, pixels.
    ssaa : int
        Samples per pixel along each axis.
    cull : bool
        Leave out triangles that show their back.
    """
    verts = np.ascontiguousarray(verts_cam, np.float32)
    tris = np.ascontiguousarray(faces, np.int32)
    w, h = size[0] * ssaa, size[1] * ssaa
    raster = Raster(np.full((h, w), -1, np.int32), np.zeros((h, w), np.float32), np.zeros((h, w, 3), np.float32))
    draw(verts, tris, *sample_intrinsics(K, ssaa), 0, cull, raster.face, raster.depth, raster.bary)
    return raster


def render_mesh(
    verts_cam: ArrayLike,
    faces: NDArray[np.integer],
    K: ArrayLike,
    size: tuple[int, int],
    colour: ArrayLike = (0.65, 0.74, 0.86),
    background: NDArray[np.uint8] | None = None,
    light: ArrayLike = (-0.4, -0.7, -0.8),
    ssaa: int = 2,
) -> NDArray[np.uint8]:
    """Draw a lit, antialiased mesh, over a picture if one is given: (H, W, 3) uint8 RGB.

    Parameters
    ----------
    verts_cam, faces, K, size, ssaa
        As in `rasterise`.
    colour : (3,) or (V, 3)
        RGB in [0, 1].
    background : (H, W, 3) uint8, optional
        Picture underneath; white if none.
    light : (3,)
        Direction towards the light, camera frame.
    """
    verts = np.ascontiguousarray(verts_cam, np.float32)
    tris = np.ascontiguousarray(faces, np.int32)
    raster = rasterise(verts, tris, K, size, ssaa)
    colours = np.ascontiguousarray(np.broadcast_to(np.asarray(colour, np.float32), (len(verts), 3)))
    towards = np.asarray(light, np.float64) / np.linalg.norm(np.asarray(light, np.float64))
    picture = np.full((size[1], size[0], 3), 255, np.uint8) if background is None else background.copy()
    _shade(raster.face, raster.bary, ssaa, tris, vertex_normals(verts, tris), colours, towards, picture)
    return picture


@njit
def _shade(
    face: NDArray[np.int32],
    bary: Array,
    ssaa: int,
    faces: NDArray[np.int32],
    normals: Array,
    colours: Array,
    towards: NDArray[np.float64],
    picture: NDArray[np.uint8],
) -> None:
    """Lay the lit surface over a picture: each pixel is the mean of its samples, of which empty ones let it through."""
    n, rgb = np.zeros(3), np.zeros(3)
    for y in range(picture.shape[0]):
        for x in range(picture.shape[1]):
            rgb[:] = 0.0
            covered = 0
            for row in range(y * ssaa, (y + 1) * ssaa):
                for col in range(x * ssaa, (x + 1) * ssaa):
                    f = face[row, col]
                    if f < 0:
                        continue
                    covered += 1
                    for c in range(3):
                        n[c] = 0.0
                        for k in range(3):
                            n[c] += bary[row, col, k] * normals[faces[f, k], c]
                    length = max(np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2), 1e-9)
                    diffuse = max(n[0] * towards[0] + n[1] * towards[1] + n[2] * towards[2], 0.0) / length
                    fill = max(-n[2], 0.0) / length  # a weak light at the camera keeps shadowed sides readable
                    for c in range(3):
                        for k in range(3):
                            rgb[c] += (0.3 + 0.5 * diffuse + 0.2 * fill) * bary[row, col, k] * colours[faces[f, k], c]
            if covered:
                for c in range(3):
                    mixed = (255 * rgb[c] + picture[y, x, c] * (ssaa**2 - covered)) / ssaa**2
                    picture[y, x, c] = np.uint8(min(max(np.rint(mixed), 0.0), 255.0))
