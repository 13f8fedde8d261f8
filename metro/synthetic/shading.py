"""Shading of everything that was rasterised, people and surroundings alike, and the sky behind.

It goes in passes over all samples of a layer: what they show is gathered once, then coloured, then lit. (One pass that
does everything for a sample takes twice as long: it has to carry all arrays of the scene at once.)

The world is y up, metres, with the floor at y = 0. Colours are linear RGB. Functions called for each sample are inlined
by force: passing tuples of arrays costs more than what they compute.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.kernels import njit
from metro.synthetic import exact
from metro.synthetic.albedo import person_albedo
from metro.synthetic.camera import Camera, Lens, to_camera
from metro.synthetic.light import Light, floor_light, irradiance
from metro.synthetic.looks import Marks
from metro.synthetic.materials import FLOOR, THING, WALL, surface_colour
from metro.synthetic.raster import draw
from metro.synthetic.stage import Objects
from metro.synthetic.textures import Noise, noise_at, slope_at

Floats = NDArray[np.float32]


class Layer(NamedTuple):
    """What the samples of a picture see, as `metro.viz.raster.Raster`, and through which camera."""

    face: NDArray[np.int32]  # (H · s, W · s), -1 where there is none
    depth: Floats  # (H · s, W · s) metres
    bary: Floats  # (H · s, W · s, 3)
    lens: Lens

    def draw(self, camera: Camera, objects: Objects, first: int = 0, stop: int | None = None) -> None:
        """Draw the faces from `first` to `stop`, keeping what is nearer."""
        seen = to_camera(objects.verts, camera.turn, camera.eye)
        fx, cx, cy = self.lens[:3]
        draw(seen, objects.faces[first:stop], fx, fx, cx, cy, first, True, self.face, self.depth, self.bary)

    def sees_through(self, block: int) -> NDArray[np.bool_]:
        """Which blocks of block x block samples hold one that sees nothing."""
        empty = self.face < 0
        return np.logical_or.reduce([empty[i::block, j::block] for i in range(block) for j in range(block)])


def empty_layer(camera: Camera, size: int) -> Layer:
    """A layer of size x size samples of a camera that sees nothing."""
    face = np.full((size, size), -1, np.int32)
    depth, bary = np.empty((size, size), np.float32), np.empty((size, size, 3), np.float32)  # read where face says so
    return Layer(face, depth, bary, camera.lens(size / camera.size))


class Sky(NamedTuple):
    """Sky and haze."""

    horizon: Floats  # (3,) colour of haze
    zenith: Floats  # (3,) colour of the sky
    cloud: float  # share of clouds
    haze: float  # metres of depth after which the haze has taken most of the colour; infinite indoors
    seed: float  # place in the noise, of sky and surfaces


class Paint(NamedTuple):
    """What colours depend on besides the objects."""

    marks: Marks
    noise: Noise
    tiles: Floats
    surfaces: int  # tiles of surfaces, which come first
    light: Light
    sky: Sky


class Samples(NamedTuple):
    """The samples of a layer that are shaded, N of them."""

    at: NDArray[np.int32]  # (N, 2) row and column in the layer
    share: Floats  # (N,) of the pixel's colour
    depth: Floats  # (N,) metres
    owner: NDArray[np.int32]  # (N,) as in `Objects`
    place: Floats  # (N, 3) world
    towards: Floats  # (N, 3) unit, from the place to the camera
    normal: Floats  # (N, 3) unit, world
    rest: Floats  # (N, 3) place on the rest pose or the surface


def shade(layer: Layer, objects: Objects, paint: Paint, wanted: NDArray[np.bool_], image: Floats) -> None:
    """Blend what a layer sees over the wanted pixels of a picture (H, W, 3), which has s x s samples per pixel."""
    ssaa = len(layer.face) // len(image)
    at, share = _gather(layer.face, objects.owner, wanted, image)
    samples = _locate(layer, objects.faces, objects.owner, objects.rest, objects.normals, at, share)
    albedo, gloss = np.zeros((len(at), 3), np.float32), np.zeros(len(at), np.float32)
    if len(objects.looks):
        _colour_people(samples, layer.lens.fx, objects.looks, paint, albedo, gloss)
    if len(objects.materials):
        _colour_things(samples, layer.lens.fx, objects.materials, paint.noise, paint.tiles, paint.sky.seed, albedo)
    _light(samples, albedo, gloss, objects.materials["place"].copy(), paint.light, paint.sky, image, ssaa)


@njit
def _gather(
    face: NDArray[np.int32], owner: NDArray[np.int32], wanted: NDArray[np.bool_], image: Floats
) -> tuple[NDArray[np.int32], Floats]:
    """Choose the samples to shade, and make room for them in the picture: where they lie, and their shares."""
    ssaa = face.shape[0] // image.shape[0]
    most = np.count_nonzero(face >= 0)
    at, share = np.empty((most, 2), np.int32), np.empty(most, np.float32)
    count = 0
    for row in range(image.shape[0]):
        for col in range(image.shape[1]):
            if not wanted[row, col]:
                continue
            top, left = row * ssaa, col * ssaa
            hits = 0
            for i in range(top, top + ssaa):
                for j in range(left, left + ssaa):
                    hits += face[i, j] >= 0
            if hits == 0:
                continue
            inner = ssaa > 1 and hits == ssaa * ssaa  # of a pixel that shows one thing, every other sample is enough
            if inner:
                for i in range(top, top + ssaa):
                    for j in range(left, left + ssaa):
                        inner = inner and owner[face[i, j]] == owner[face[top, left]]
            start = count
            for i in range(top, top + ssaa):
                for j in range(left, left + ssaa):
                    if face[i, j] >= 0 and not (inner and (i + j) & 1):
                        at[count, 0], at[count, 1] = i, j
                        count += 1
            covered = hits / (ssaa * ssaa)
            for n in range(start, count):
                share[n] = covered / (count - start)
            for c in range(3):
                image[row, col, c] *= 1 - covered
    return at[:count], share[:count]


@njit
def _locate(
    layer: Layer,
    faces: NDArray[np.int32],
    owner: NDArray[np.int32],
    rest: Floats,
    normals: Floats,
    at: NDArray[np.int32],
    share: Floats,
) -> Samples:
    """Where the samples lie, and what they show there."""
    count, lens, turn, eye = at.shape[0], layer.lens, layer.lens.turn, layer.lens.eye
    depths, owners = np.empty(count, np.float32), np.empty(count, np.int32)
    place, towards = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
    normal, rests = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
    for n in range(count):
        i, j = at[n, 0], at[n, 1]
        f, depth = layer.face[i, j], layer.depth[i, j]
        depths[n], owners[n] = depth, owner[f]
        px, py = (j - lens.cx) / lens.fx, (i - lens.cy) / lens.fx
        reach = np.sqrt(px * px + py * py + 1)
        for c in range(3):
            ray = turn[c, 0] * px + turn[c, 1] * py + turn[c, 2]
            place[n, c] = eye[c] + depth * ray
            towards[n, c] = -ray / reach
        v0, v1, v2 = faces[f, 0], faces[f, 1], faces[f, 2]
        w0, w1, w2 = layer.bary[i, j, 0], layer.bary[i, j, 1], layer.bary[i, j, 2]
        for c in range(3):
            rests[n, c] = w0 * rest[v0, c] + w1 * rest[v1, c] + w2 * rest[v2, c]
            normal[n, c] = w0 * normals[v0, c] + w1 * normals[v1, c] + w2 * normals[v2, c]
        _normalise(normal, n)
    return Samples(at, share, depths, owners, place, towards, normal, rests)


@njit(inline="always")
def _normalise(vectors: Floats, n: int) -> None:
    """Scale row n of vectors (N, 3) to length 1."""
    length = np.sqrt(vectors[n, 0] ** 2 + vectors[n, 1] ** 2 + vectors[n, 2] ** 2)
    for c in range(3):
        vectors[n, c] /= length


@njit
def _colour_people(
    samples: Samples,
    fx: float,
    looks: NDArray[np.void],
    paint: Paint,
    albedo: Floats,
    gloss: Floats,
) -> None:
    """Colours of people to `albedo` (N, 3) and `gloss` (N,); folds of cloth tilt the normals."""
    noise, tiles, surfaces, seed, marks = paint.noise, paint.tiles, paint.surfaces, paint.sky.seed, paint.marks
    colour = np.empty(3, np.float32)
    for n in range(samples.owner.shape[0]):
        if samples.owner[n] < 0:
            continue
        x, y, z = samples.rest[n, 0], samples.rest[n, 1], samples.rest[n, 2]
        look = looks[samples.owner[n]]
        gloss[n], fold = person_albedo(x, y, z, samples.depth[n] / fx, marks, look, noise, tiles, surfaces, colour)
        for c in range(3):
            albedo[n, c] = colour[c]
        if fold > 0:
            slope = slope_at(noise, x * 15 + seed, y * 15, z * 15)
            for c in range(3):
                samples.normal[n, c] -= 2.2 * fold * slope[c]
            _normalise(samples.normal, n)
        facing = 0.0
        for c in range(3):
            facing += samples.normal[n, c] * samples.towards[n, c]
        if facing < 0.02:  # a bumped normal may turn away: bring it back to the silhouette
            for c in range(3):
                samples.normal[n, c] += (0.02 - facing) * samples.towards[n, c]


@njit
def _colour_things(
    samples: Samples, fx: float, materials: NDArray[np.void], noise: Noise, tiles: Floats, seed: float, albedo: Floats
) -> None:
    """Colours of surroundings and things to `albedo` (N, 3)."""
    colour = np.empty(3, np.float32)
    for n in range(samples.owner.shape[0]):
        if samples.owner[n] >= 0:
            continue
        facing = 0.0
        for c in range(3):
            facing += samples.normal[n, c] * samples.towards[n, c]
        footprint = samples.depth[n] / fx / max(facing, 0.05)
        u, v, w = samples.rest[n, 0], samples.rest[n, 1], samples.rest[n, 2]
        surface_colour(materials[-1 - samples.owner[n]], u, v, w, footprint, noise, tiles, seed, colour)
        for c in range(3):
            albedo[n, c] = colour[c]


@njit
def _light(
    samples: Samples,
    albedo: Floats,
    gloss: Floats,
    places: NDArray[np.int32],
    light: Light,
    sky: Sky,
    image: Floats,
    ssaa: int,
) -> None:
    """Add the light that samples of colour `albedo` send to the camera to a picture; `places` are the materials'."""
    lit = np.empty(3, np.float32)
    for n in range(samples.owner.shape[0]):
        x, y, z = samples.place[n, 0], samples.place[n, 1], samples.place[n, 2]
        nx, ny, nz = samples.normal[n, 0], samples.normal[n, 1], samples.normal[n, 2]
        owner = samples.owner[n]
        open_ = _openness(THING if owner >= 0 else places[-1 - owner], x, y, z, light)
        seen = irradiance(x, y, z, nx, ny, nz, open_, light, lit)
        shine = 0.0
        if gloss[n] > 0 and seen > 0:
            hx, hy, hz = (
                samples.towards[n, 0] + light.key[0],
                samples.towards[n, 1] + light.key[1],
                samples.towards[n, 2] + light.key[2],
            )
            h = max((nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz), 0.0)
            shine = gloss[n] * seen * h**24
        clear = 1.0 if sky.haze == np.inf else exact.exp(-samples.depth[n] / sky.haze)
        row, col = samples.at[n, 0] // ssaa, samples.at[n, 1] // ssaa
        for c in range(3):
            sent = albedo[n, c] * lit[c] + light.key_rgb[c] * shine
            image[row, col, c] += samples.share[n] * (sky.horizon[c] + (sent - sky.horizon[c]) * clear)


@njit
def paint_sky(layer: Layer, paint: Paint, wanted: NDArray[np.bool_], image: Floats) -> None:
    """The sky where a layer with one sample per pixel sees nothing, to the wanted pixels of a picture (H, W, 3)."""
    sky, noise, turn = paint.sky, paint.noise, layer.lens.turn
    for row in range(image.shape[0]):
        for col in range(image.shape[1]):
            if layer.face[row, col] >= 0 or not wanted[row, col]:
                continue
            px, py = (col - layer.lens.cx) / layer.lens.fx, (row - layer.lens.cy) / layer.lens.fx
            dx = turn[0, 0] * px + turn[0, 1] * py + turn[0, 2]
            dy = turn[1, 0] * px + turn[1, 1] * py + turn[1, 2]
            dz = turn[2, 0] * px + turn[2, 1] * py + turn[2, 2]
            n = np.sqrt(dx * dx + dy * dy + dz * dz)
            rise = max(dy / n, 0.0)
            flat = 1 / (0.15 + rise)
            u, v = dx / n * flat, dz / n * flat
            up = np.sqrt(rise) * np.sqrt(np.sqrt(np.sqrt(rise)))
            a = noise_at(noise, u * 2 + sky.seed, v * 2, sky.seed)
            b = noise_at(noise, u * 7, v * 7 + sky.seed, 3.0)
            cloud = min(max((0.7 * a + 0.3 * b - 1 + sky.cloud) * 3, 0.0), 1.0) * min(up * 2, 1.0)
            for c in range(3):
                blue = sky.horizon[c] + (sky.zenith[c] - sky.horizon[c]) * up
                image[row, col, c] = blue + (1.1 * sky.horizon[c] - blue) * cloud


@njit(forceinline=True)
def _openness(place: int, x: float, y: float, z: float, light: Light) -> float:
    """Share of the ambient light that reaches a place on the floor, on a wall, or on people and things."""
    if place == FLOOR:
        return floor_light(x, z, light)
    if place == WALL:
        return 0.75 + 0.25 * min(max(y, 0.0) / 0.6, 1.0)
    if place == THING:
        return 0.55 + 0.45 * min(max(y, 0.0) / 0.7, 1.0)
    return 1.0
