"""A small deterministic rasteriser: triangles to depth, face index and barycentric weights, in NumPy.

The camera frame is OpenCV's (x right, y down, z forward, metres) and so are pixel coordinates: whole numbers are pixel
*centres*, and a point projects to ``u = fx x / z + cx``.

Edge functions are taken in homogeneous coordinates (Olano and Greer, 1997): for a ray ``d`` through a sample and the
triangle ``a, b, c`` the weight of ``a`` is ``d · (b × c)``. Nothing is divided before the visibility test, so triangles
that cross the near plane need no clipping, and two triangles that share an edge leave no gap between them.

Every sum is of few terms in a fixed order: the same input gives the same bytes on every run and processor, and the
same ones as the kernel that draws synthetic people (`metro.synthetic.raster`).

Shape suffixes: F triangle, R row of samples within a triangle, S sample within a row, P pixel, 3 xyz or corners.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEAR = 0.05
"""Distance of the near plane, metres."""
BLOCK = 1 << 15
"""Rows, samples or pixels that are worked on at a time, so that intermediate arrays stay in the processor's cache."""
BAND = 1 << 20
"""Samples of a picture that are rasterised at a time, which bounds the memory."""

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
    rows: tuple[int, int] | None = None,
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
    rows : (first, one past the last), optional
        Rows of the picture that are wanted; none: all.
    """
    verts, tris = np.asarray(verts_cam, np.float32), np.asarray(faces, np.int32)
    fx, fy, cx, cy = sample_intrinsics(K, ssaa)
    width = size[0] * ssaa
    top, bottom = (row * ssaa for row in rows or (0, size[1]))
    shape = (bottom - top, width)
    raster = Raster(np.full(shape, -1, np.int32), np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32))

    a_3F, b_3F, c_3F = verts.astype(np.float64)[tris].transpose(1, 2, 0)
    edges_33F = np.stack([_cross(b_3F, c_3F), _cross(c_3F, a_3F), _cross(a_3F, b_3F)])  # corner, xyz
    det_F = a_3F[0] * edges_33F[0, 0] + a_3F[1] * edges_33F[0, 1] + a_3F[2] * edges_33F[0, 2]
    edges_33F = np.where(det_F < 0, -1.0, 1.0) * edges_33F
    near_F3 = verts[tris, 2] < NEAR
    z_V = np.maximum(verts[:, 2].astype(np.float64), NEAR)
    left_F, right_F = _between((fx * verts[:, 0] / z_V + cx)[tris], near_F3, 0, width)
    first_F, last_F = _between((fy * verts[:, 1] / z_V + cy)[tris], near_F3, top, bottom)
    # Anticlockwise seen from outside is negative here: the ray runs against the normal.
    drawn = (det_F < 0 if cull else det_F != 0) & ~near_F3.all(1) & (left_F <= right_F) & (first_F <= last_F)

    ray_x, ray_y = (np.arange(width) - cx) / fx, (np.arange(bottom) - cy) / fy
    kept = np.flatnonzero(drawn)
    det_F = np.abs(det_F)
    first_P = np.empty(raster.face.size, np.int32)
    height_F = (last_F - first_F + 1)[kept]
    for piece in _pieces(height_F):
        face_R = np.repeat(kept[piece], height_F[piece])
        y_R = _runs(first_F[kept[piece]], height_F[piece])
        # A corner's weight along a row is slope · x + offset, x being the ray's.
        slope_3R = edges_33F[:, 0, face_R]
        offset_3R = edges_33F[:, 1, face_R] * ray_y[y_R] + edges_33F[:, 2, face_R]
        x_R, count_R = _spans(slope_3R, offset_3R, left_F[face_R], right_F[face_R], cx, fx)
        for some in _pieces(count_R):
            count = count_R[some]
            x_S = _runs(x_R[some], count)
            weight_3S = [
                np.repeat(slope, count) * ray_x[x_S] + np.repeat(offset, count)
                for slope, offset in zip(slope_3R[:, some], offset_3R[:, some], strict=True)
            ]
            total_S = weight_3S[0] + weight_3S[1] + weight_3S[2]
            hit_S = (weight_3S[0] >= 0) & (weight_3S[1] >= 0) & (weight_3S[2] >= 0) & (total_S > 0)
            face_S = np.repeat(face_R[some], count)[hit_S]
            pixel_S = (np.repeat((y_R[some] - top) * width, count) + x_S)[hit_S]
            weight_S3 = np.stack([weight[hit_S] for weight in weight_3S], 1)
            _keep_nearest(raster, first_P, pixel_S, face_S, det_F[face_S], weight_S3, total_S[hit_S])
    return raster


def _keep_nearest(
    raster: Raster,
    first_P: NDArray[np.int32],
    pixel_S: NDArray[np.int64],
    face_S: NDArray[np.int64],
    det_S: NDArray[np.float64],
    weight_S3: NDArray[np.float64],
    total_S: NDArray[np.float64],
) -> None:
    """Put samples that triangles cover into the buffers, one after the other, where they are nearer than what is there.

    Samples of different pixels do not meet, so that the first ones of all pixels go at once, then the second ones, …
    `first_P` is room for the first waiting sample of each pixel.
    """
    face, depth, bary = raster.face.reshape(-1), raster.depth.reshape(-1), raster.bary.reshape(-1, 3)
    z_S = det_S / total_S
    waiting = np.flatnonzero(z_S >= NEAR)
    while len(waiting):
        pixel = pixel_S[waiting]
        first_P[pixel[::-1]] = waiting[::-1]
        turn = first_P[pixel] == waiting
        now, pixel, waiting = waiting[turn], pixel[turn], waiting[~turn]
        nearer = (face[pixel] < 0) | (z_S[now] < depth[pixel])
        now, pixel = now[nearer], pixel[nearer]
        face[pixel], depth[pixel] = face_S[now], z_S[now]
        bary[pixel] = weight_S3[now] / total_S[now, None]


def _cross(a_3F: NDArray, b_3F: NDArray) -> NDArray:
    """Cross products of columns, in the dtype of the arrays."""
    (ax, ay, az), (bx, by, bz) = a_3F, b_3F
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def _between(place_F3: NDArray, near_F3: NDArray, low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last of the samples low … high - 1 that triangles can reach, whose corners fall on the given places.

    Triangles that cross the near plane can reach any.
    """
    crosses_F = near_F3.any(1)
    first = np.clip(np.ceil(place_F3.min(1) - 1e-6), low, high)
    last = np.clip(np.floor(place_F3.max(1) + 1e-6), low - 1, high - 1)
    return np.where(crosses_F, low, first).astype(np.int64), np.where(crosses_F, high - 1, last).astype(np.int64)


def _spans(
    slope_3R: NDArray, offset_3R: NDArray, left_R: NDArray, right_R: NDArray, cx: float, fx: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First sample and number of samples of rows where no weight may be negative, and one beside."""
    first, last = left_R.astype(np.float64), right_R.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        edge_3R = np.clip(cx - offset_3R * fx / slope_3R, left_R - 2, right_R + 2)
    for slope, offset, edge in zip(slope_3R, offset_3R, edge_3R, strict=True):
        first = np.where(slope > 0, np.maximum(first, np.floor(edge) - 1), first)
        last = np.where(slope < 0, np.minimum(last, np.ceil(edge) + 1), last)
        last[(slope == 0) & (offset < 0)] = -1
    return first.astype(np.int64), np.maximum(last - first + 1, 0).astype(np.int64)


def _runs(first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """first[0], first[0] + 1, … (count[0] of them), first[1], …"""
    return np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)


def _pieces(counts: NDArray[np.int64]) -> list[slice]:
    """Slices of `counts` that sum to `BLOCK` or little more each."""
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(BLOCK, ends[-1] if len(ends) else 0, BLOCK)).tolist()
    return [slice(a, b) for a, b in itertools.pairwise([0, *cuts, len(counts)])]


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
    verts, tris = np.asarray(verts_cam, np.float32), np.asarray(faces, np.int32)
    normals_33F = np.ascontiguousarray(smooth_normals(verts, tris)[tris].transpose(1, 2, 0))
    colours_V3 = np.broadcast_to(np.asarray(colour, np.float32), (len(verts), 3))
    colours_33F = np.ascontiguousarray(colours_V3[tris].transpose(1, 2, 0))
    towards = np.asarray(light, np.float64) / np.linalg.norm(np.asarray(light, np.float64))
    picture = np.full((size[1], size[0], 3), 255, np.uint8) if background is None else background.copy()
    step = max(1, BAND // (size[0] * ssaa**2))
    for top in range(0, size[1], step):
        band = picture[top : top + step]
        raster = rasterise(verts, tris, K, size, ssaa, rows=(top, top + len(band)))
        _shade(raster, ssaa, normals_33F, colours_33F, towards, band)
    return picture


def smooth_normals(verts: Array, faces: NDArray[np.integer]) -> Array:
    """`metro.mesh.topology.vertex_normals` without numba: area-weighted unit normals (V, 3) of a mesh (V, 3).

    Zero for a vertex without faces.
    """
    a_3F, b_3F, c_3F = verts[faces].transpose(1, 2, 0)
    normals_3V = np.zeros((3, len(verts)), verts.dtype)
    for total_V, part_F in zip(normals_3V, _cross(b_3F - a_3F, c_3F - a_3F), strict=True):
        np.add.at(total_V, faces.reshape(-1), np.repeat(part_F, 3))  # in the order of the faces
    length_V = np.sqrt(normals_3V[0] ** 2 + normals_3V[1] ** 2 + normals_3V[2] ** 2)
    normals_3V /= np.where(length_V > 0, length_V, 1)
    return normals_3V.T


def _shade(
    raster: Raster,
    ssaa: int,
    normals_33F: Array,
    colours_33F: Array,
    towards: NDArray[np.float64],
    picture: NDArray[np.uint8],
) -> None:
    """Lay the lit surface over a picture: each pixel is the mean of its samples, of which empty ones let it through.

    Normals and colours are those of the triangles' corners, by corner and component.
    """
    covered = raster.face >= 0
    some = pool(covered, ssaa) > 0
    if not some.any():
        return
    (top, bottom), (left, right) = (np.flatnonzero(some.any(axis))[[0, -1]] for axis in (1, 0))
    height, width = bottom + 1 - top, right + 1 - left
    rgb_3P = np.zeros((3, height * width))
    through_P = np.full(height * width, float(ssaa**2))
    for row, column in np.ndindex(ssaa, ssaa):
        samples = np.s_[row::ssaa, column::ssaa]
        seen = covered[samples][top : bottom + 1, left : right + 1].ravel()
        places = np.flatnonzero(seen)
        through_P -= seen
        face_P = raster.face[samples][top : bottom + 1, left : right + 1].ravel()[places]
        bary_P3 = raster.bary[samples][top : bottom + 1, left : right + 1].reshape(-1, 3)[places]
        for start in range(0, len(places), BLOCK // 4):
            block = slice(start, start + BLOCK // 4)
            face, bary_3P = face_P[block], np.ascontiguousarray(bary_P3[block].T)
            n_3P = [
                (bary_3P[0] * normals_33F[0, i, face]).astype(np.float64)
                + bary_3P[1] * normals_33F[1, i, face]
                + bary_3P[2] * normals_33F[2, i, face]
                for i in range(3)
            ]
            nx, ny, nz = n_3P
            length_P = np.maximum(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
            diffuse_P = np.maximum(nx * towards[0] + ny * towards[1] + nz * towards[2], 0.0) / length_P
            fill_P = np.maximum(-nz, 0.0) / length_P  # a weak light at the camera keeps shadowed sides readable
            light_P = 0.3 + 0.5 * diffuse_P + 0.2 * fill_P
            lit_3P = [light_P * bary_P for bary_P in bary_3P]
            for channel in range(3):
                total_P = rgb_3P[channel, places[block]]
                for corner in range(3):
                    total_P += lit_3P[corner] * colours_33F[corner, channel, face]
                rgb_3P[channel, places[block]] = total_P
    under = picture[top : bottom + 1, left : right + 1]
    inside = np.flatnonzero(through_P < ssaa**2)
    mixed_P3 = (255 * rgb_3P[:, inside].T + under.reshape(-1, 3)[inside] * through_P[inside, None]) / ssaa**2
    rows, columns = np.divmod(inside, width)
    under[rows, columns] = np.clip(np.rint(mixed_P3), 0, 255).astype(np.uint8)
