"""Light and surfaces: the ray-cast surroundings and the shading of everything that was rasterised.

The world is y up, metres, with the floor at y = 0. Light is one directional key light with a shadow map, a fill light
from the other side, and an ambient term that differs between above and below. Colours are linear RGB.

Functions called for each sample are inlined by force: passing tuples of arrays costs more than what they compute.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.kernels import njit
from metro.synthetic.albedo import person_albedo
from metro.synthetic.looks import Marks
from metro.synthetic.textures import Noise, noise_at, slope_at, tile_at

Array = NDArray[np.float32]

# Columns of a material.
(MAT_KIND, MAT_R, MAT_G, MAT_B, MAT_R2, MAT_G2, MAT_B2, MAT_SCALE, MAT_TILE, MAT_ROUGH, MAT_TURN, MAT_COUNT) = range(12)
FLAT, TILES, PLANKS, STRIPES, CLOUDS, SURFACE, PICTURE = range(7)

# Columns of a box: centre, half sizes, cosine and sine of its turn about y, material.
BOX_X, BOX_Y, BOX_Z, BOX_HX, BOX_HY, BOX_HZ, BOX_C, BOX_S, BOX_MATERIAL, BOX_COUNT = range(10)
# Columns of a picture on a wall: wall axis (0: x, 2: z) and side (-1, 1), centre and half sizes on the wall, material.
PIC_AXIS, PIC_SIDE, PIC_U, PIC_V, PIC_HU, PIC_HV, PIC_MATERIAL, PIC_COUNT = range(8)

ROOM, OUTDOORS, BACKDROP = range(3)


class Light(NamedTuple):
    """Light and shadow of a scene; directions point towards the light, in the world."""

    key: Array  # (3,)
    key_rgb: Array  # (3,)
    fill: Array  # (3,)
    fill_rgb: Array  # (3,)
    sky_rgb: Array  # (3,) ambient from above
    ground_rgb: Array  # (3,) ambient from below
    shadow: Array  # (S, S) depth seen from the key light, 0 where nothing is
    shadow_rt: Array  # (3, 4) world to light camera
    shadow_f: float  # focal length of the light camera, shadow pixels
    soft: float  # radius of the shadow's edge, shadow pixels
    dark: Array  # (D, D) ambient light that the body takes from the floor, in [0, 1]
    dark_x: float  # world x, z of the corner of `dark`, and cells per metre
    dark_z: float
    dark_scale: float


class World(NamedTuple):
    """The surroundings."""

    kind: int
    origin: Array  # (3,) centre of the room's floor
    half: Array  # (3,) half width, height, half depth of the room
    turn: Array  # (2,) cosine and sine of the room's turn about y
    materials: Array  # (M, MAT_COUNT); rows 0, 1, 2 are floor, wall, ceiling
    boxes: Array  # (B, BOX_COUNT)
    pictures: Array  # (P, PIC_COUNT)
    horizon: Array  # (3,) colour of haze
    zenith: Array  # (3,) colour of the sky
    cloud: float  # share of clouds
    haze: float  # metres after which the haze has taken most of the colour
    seed: float


@njit(forceinline=True)
def surface_colour(
    materials: Array,
    row: int,
    u: float,
    v: float,
    w: float,
    footprint: float,
    noise: Noise,
    tiles: Array,
    seed: float,
    out: Array,
) -> None:
    """Colour of the material in a row at (u, v) metres on its surface; w tells apart faces of one box."""
    if materials[row, MAT_TURN] > 0.5:
        u, v = v, u
    kind = int(materials[row, MAT_KIND])
    scale = materials[row, MAT_SCALE]
    mix = 0.0
    shade = 1.0
    if kind == TILES:
        a, b = u * scale, v * scale
        i, j = np.floor(a), np.floor(b)
        mix = 1.0 if int(i + j) & 1 else 0.0
        a, b = a - i, b - j
        width = 0.02 + footprint * scale
        if (a < width or b < width) and width < 0.5:
            shade = 0.8
        if footprint * scale > 0.5:
            mix = 0.5
    elif kind == PLANKS:
        a = u * scale
        i = np.floor(a)
        b = v * scale * 0.15 + i * 0.37
        j = np.floor(b)
        tone = noise_at(noise, i * 3.7 + seed, j * 5.3, 0.5)
        grain = noise_at(noise, u * 60, v * 4 + i * 7, seed)
        mix = 0.6 * tone + 0.4 * grain
        if a - i < 0.03 + footprint * scale and footprint * scale < 0.3:
            shade = 0.65
    elif kind == STRIPES:
        mix = 1.0 if (u * scale) % 1.0 < 0.5 else 0.0
        if footprint * scale > 0.4:
            mix = 0.5
    elif kind == CLOUDS:
        a = noise_at(noise, u * scale + seed, v * scale, w * 9.1)
        b = noise_at(noise, u * scale * 3.7, v * scale * 3.7 + seed, w * 5.7)
        mix = min(max(1.6 * (0.65 * a + 0.35 * b) - 0.3, 0.0), 1.0)
    for c in range(3):
        out[c] = materials[row, MAT_R + c] + (materials[row, MAT_R2 + c] - materials[row, MAT_R + c]) * mix
    if kind == SURFACE:
        r, g, b = tile_at(tiles, int(materials[row, MAT_TILE]), u * scale, v * scale, footprint * scale)
        out[0] *= r
        out[1] *= g
        out[2] *= b
    elif kind == PICTURE:
        r, g, b = tile_at(tiles, int(materials[row, MAT_TILE]), u * scale, v * scale, footprint * scale)
        out[0], out[1], out[2] = 0.85 * r, 0.85 * g, 0.85 * b
    rough = materials[row, MAT_ROUGH]
    if rough > 0:
        n = noise_at(noise, u * 6 + seed, v * 6, w * 3.3 + seed)
        shade *= 1 + 1.2 * rough * (n - 0.5)
        if footprint < 0.008:
            n = noise_at(noise, u * 37, v * 37 + seed, w * 3.3)
            shade *= 1 + 0.7 * rough * (n - 0.5)
    for c in range(3):
        out[c] *= shade


@njit(forceinline=True)
def key_visible(x: float, y: float, z: float, light: Light) -> float:
    """Share of the key light that reaches a place, from a 3 x 3 look into the shadow map."""
    size = light.shadow.shape[0]
    if size == 0:
        return 1.0
    rt = light.shadow_rt
    lx = rt[0, 0] * x + rt[0, 1] * y + rt[0, 2] * z + rt[0, 3]
    ly = rt[1, 0] * x + rt[1, 1] * y + rt[1, 2] * z + rt[1, 3]
    lz = rt[2, 0] * x + rt[2, 1] * y + rt[2, 2] * z + rt[2, 3]
    u = light.shadow_f * lx / lz + size / 2
    v = light.shadow_f * ly / lz + size / 2
    if u < 2 or v < 2 or u > size - 3 or v > size - 3:
        return 1.0
    seen = 0.0
    for a in range(-1, 2):
        for b in range(-1, 2):
            d = light.shadow[int(v + a * light.soft), int(u + b * light.soft)]
            if d == 0 or d > lz - 0.025:
                seen += 1.0
    return seen / 9


@njit(forceinline=True)
def floor_light(x: float, z: float, light: Light) -> float:
    """Share of the ambient light that reaches the floor beside the body."""
    size = light.dark.shape[0]
    u, v = (x - light.dark_x) * light.dark_scale, (z - light.dark_z) * light.dark_scale
    if size == 0 or u < 0 or v < 0 or u >= size - 1 or v >= size - 1:
        return 1.0
    i, j = int(v), int(u)
    a, b = v - i, u - j
    d = light.dark
    low = d[i, j] * (1 - b) + d[i, j + 1] * b
    high = d[i + 1, j] * (1 - b) + d[i + 1, j + 1] * b
    return 1 - (low * (1 - a) + high * a)


@njit(forceinline=True)
def irradiance(
    x: float, y: float, z: float, nx: float, ny: float, nz: float, open_: float, light: Light, out: Array
) -> float:
    """Light that falls on a place with a normal, to `out` (3,); `open_` scales the ambient. Returns the key's share."""
    key = nx * light.key[0] + ny * light.key[1] + nz * light.key[2]
    seen = 0.0
    if key > 0:
        seen = key_visible(x, y, z, light)
    fill = max(nx * light.fill[0] + ny * light.fill[1] + nz * light.fill[2], 0.0)
    up = 0.5 + 0.5 * ny
    for c in range(3):
        ambient = light.ground_rgb[c] + (light.sky_rgb[c] - light.ground_rgb[c]) * up
        out[c] = open_ * ambient + light.fill_rgb[c] * fill + light.key_rgb[c] * max(key, 0.0) * seen
    return seen


@njit
def _box_span(
    box: Array, fx: float, cx: float, cy: float, turn: Array, eye: Array, width: int, height: int
) -> NDArray[np.int64]:
    """Pixels (left, right, top, bottom) that a box may cover; the whole picture if it reaches behind the camera."""
    out = np.array([width, -1, height, -1])
    for corner in range(8):
        x = box[BOX_HX] * (1 if corner & 1 else -1)
        y = box[BOX_HY] * (1 if corner & 2 else -1) + box[BOX_Y] - eye[1]
        z = box[BOX_HZ] * (1 if corner & 4 else -1)
        wx = box[BOX_C] * x + box[BOX_S] * z + box[BOX_X] - eye[0]
        wz = -box[BOX_S] * x + box[BOX_C] * z + box[BOX_Z] - eye[2]
        depth = turn[0, 2] * wx + turn[1, 2] * y + turn[2, 2] * wz
        if depth < 0.05:
            return np.array([0, width, 0, height])
        u = (turn[0, 0] * wx + turn[1, 0] * y + turn[2, 0] * wz) / depth * fx + cx
        v = (turn[0, 1] * wx + turn[1, 1] * y + turn[2, 1] * wz) / depth * fx + cy
        u, v = min(max(u, -1.0), width + 1.0), min(max(v, -1.0), height + 1.0)
        out[0], out[1] = min(out[0], int(np.floor(u))), max(out[1], int(np.ceil(u)))
        out[2], out[3] = min(out[2], int(np.floor(v))), max(out[3], int(np.ceil(v)))
    return out


@njit
def cast_surroundings(
    fx: float,
    cx: float,
    cy: float,
    turn: Array,
    eye: Array,
    world: World,
    light: Light,
    noise: Noise,
    tiles: Array,
    seen: NDArray[np.bool_],
    image: Array,
) -> None:
    """Fill the `seen` pixels of a picture (H, W, 3) with what their rays meet: room or open ground, boxes, sky.

    `turn` (3, 3) takes camera directions to world directions; `eye` (3,) is the camera's place in the world.
    """
    colour, lit = np.zeros(3, np.float32), np.zeros(3, np.float32)
    ca, sa = world.turn[0], world.turn[1]
    boxes, pictures, materials = world.boxes, world.pictures, world.materials
    count = boxes.shape[0]
    span = np.empty((count, 4), np.int64)  # pixels that a box may cover: left, right, top, bottom
    for b in range(count):
        span[b] = _box_span(boxes[b], fx, cx, cy, turn, eye, image.shape[1], image.shape[0])
    # The eye in the frame of the room.
    ox, oz = eye[0] - world.origin[0], eye[2] - world.origin[2]
    ox, oz = ca * ox - sa * oz, sa * ox + ca * oz
    oy = eye[1]
    for row in range(image.shape[0]):
        for col in range(image.shape[1]):
            if not seen[row, col]:
                continue
            rx, ry = (col - cx) / fx, (row - cy) / fx
            dx = turn[0, 0] * rx + turn[0, 1] * ry + turn[0, 2]
            dy = turn[1, 0] * rx + turn[1, 1] * ry + turn[1, 2]
            dz = turn[2, 0] * rx + turn[2, 1] * ry + turn[2, 2]
            ux, uz = ca * dx - sa * dz, sa * dx + ca * dz
            best, material = 1e9, -1
            nx, ny, nz = 0.0, 1.0, 0.0
            u, v, w = 0.0, 0.0, 0.0
            if dy < -1e-9:
                best, material = -oy / dy, 0
                u, v = ox + best * ux, oz + best * uz
            if world.kind == ROOM:
                if dy > 1e-9:
                    best, material, ny = (world.half[1] - oy) / dy, 2, -1.0
                    u, v = ox + best * ux, oz + best * uz
                for axis in (0, 2):
                    d, o = (ux, ox) if axis == 0 else (uz, oz)
                    if abs(d) < 1e-9:
                        continue
                    side = 1.0 if d > 0 else -1.0
                    t = (side * world.half[axis] - o) / d
                    if t > 0 and t < best:
                        best, material = t, 1
                        wx, wz = (-side, 0.0) if axis == 0 else (0.0, -side)
                        nx, ny, nz = ca * wx + sa * wz, 0.0, -sa * wx + ca * wz
                        u = oz + t * uz if axis == 0 else ox + t * ux
                        v = oy + t * dy
                        w = axis + side
                        for p in range(pictures.shape[0]):
                            if (
                                pictures[p, PIC_AXIS] == axis
                                and pictures[p, PIC_SIDE] == side
                                and abs(u - pictures[p, PIC_U]) < pictures[p, PIC_HU]
                                and abs(v - pictures[p, PIC_V]) < pictures[p, PIC_HV]
                            ):
                                material = int(pictures[p, PIC_MATERIAL])
                if material == 1 and v < 0.09:
                    material = 3  # skirting board
            for b in range(count):
                if col < span[b, 0] or col > span[b, 1] or row < span[b, 2] or row > span[b, 3]:
                    continue
                px, py, pz = eye[0] - boxes[b, BOX_X], eye[1] - boxes[b, BOX_Y], eye[2] - boxes[b, BOX_Z]
                c, s = boxes[b, BOX_C], boxes[b, BOX_S]
                bx, bz = c * px - s * pz, s * px + c * pz
                ex, ez = c * dx - s * dz, s * dx + c * dz
                near, far, face = -1e9, 1e9, -1
                for axis in range(3):
                    d = ex if axis == 0 else (dy if axis == 1 else ez)
                    o = bx if axis == 0 else (py if axis == 1 else bz)
                    h = boxes[b, BOX_HX + axis]
                    if abs(d) < 1e-9:
                        if abs(o) > h:
                            near = 1e9
                        continue
                    t0, t1 = (-h - o) / d, (h - o) / d
                    if t0 > t1:
                        t0, t1 = t1, t0
                    if t0 > near:
                        near, face = t0, axis
                    far = min(far, t1)
                if near > far or near <= 0.05 or near >= best or face < 0:
                    continue
                best, material = near, int(boxes[b, BOX_MATERIAL])
                hx, hy, hz = bx + near * ex, py + near * dy, bz + near * ez
                if face == 0:
                    lx, lz = (-1.0 if ex > 0 else 1.0), 0.0
                    nx, ny, nz = c * lx + s * lz, 0.0, -s * lx + c * lz
                    u, v, w = hz, hy, 1.0
                elif face == 1:
                    nx, ny, nz = 0.0, (-1.0 if dy > 0 else 1.0), 0.0
                    u, v, w = hx, hz, 2.0
                else:
                    lx, lz = 0.0, (-1.0 if ez > 0 else 1.0)
                    nx, ny, nz = c * lx + s * lz, 0.0, -s * lx + c * lz
                    u, v, w = hx, hy, 3.0
                w += b
            if material < 0:  # sky
                n = np.sqrt(dx * dx + dy * dy + dz * dz)
                up = max(dy / n, 0.0) ** 0.6
                flat = 1 / (0.15 + max(dy / n, 0.0))
                a = noise_at(noise, dx / n * flat * 2 + world.seed, dz / n * flat * 2, world.seed)
                b2 = noise_at(noise, dx / n * flat * 7, dz / n * flat * 7 + world.seed, 3.0)
                cloud = min(max((0.7 * a + 0.3 * b2 - 1 + world.cloud) * 3, 0.0), 1.0) * min(up * 2, 1.0)
                for k in range(3):
                    sky = world.horizon[k] + (world.zenith[k] - world.horizon[k]) * up
                    image[row, col, k] = sky + (1.1 * world.horizon[k] - sky) * cloud
                continue
            x, y, z = eye[0] + best * dx, eye[1] + best * dy, eye[2] + best * dz
            slant = abs(nx * dx + ny * dy + nz * dz) / np.sqrt(dx * dx + dy * dy + dz * dz)
            footprint = best / fx / max(slant, 0.05)
            surface_colour(materials, material, u, v, w, footprint, noise, tiles, world.seed, colour)
            open_ = 1.0
            if material == 0:
                open_ = floor_light(x, z, light)
                for b in range(count):  # boxes darken the floor at their feet
                    if boxes[b, BOX_Y] - boxes[b, BOX_HY] < 0.05:
                        px, pz = x - boxes[b, BOX_X], z - boxes[b, BOX_Z]
                        qx = abs(boxes[b, BOX_C] * px - boxes[b, BOX_S] * pz) - boxes[b, BOX_HX]
                        qz = abs(boxes[b, BOX_S] * px + boxes[b, BOX_C] * pz) - boxes[b, BOX_HZ]
                        if qx > 6.7 or qz > 6.7:  # less than a rounding error
                            continue
                        away = np.sqrt(max(qx, 0.0) ** 2 + max(qz, 0.0) ** 2)
                        open_ *= 1 - 0.55 * np.exp(-away / 0.18)
            elif world.kind == ROOM and material != 2:
                open_ = 0.75 + 0.25 * min(y / 0.6, 1.0)
            irradiance(x, y, z, nx, ny, nz, open_, light, lit)
            for k in range(3):
                image[row, col, k] = colour[k] * lit[k]
            if world.kind == OUTDOORS:
                far_share = 1 - np.exp(-best / world.haze)
                for k in range(3):
                    image[row, col, k] += (world.horizon[k] - image[row, col, k]) * far_share


class Objects(NamedTuple):
    """Everything rasterised: one mesh of people and props. A face's object is a look (0 …) or a prop (negative)."""

    verts: Array  # (V, 3) world
    normals: Array  # (V, 3) world
    rest: Array  # (V, 3) place on the rest pose, or in the prop
    faces: NDArray[np.int32]  # (F, 3)
    owner: NDArray[np.int32]  # (F,) index of the look, or -1 - material of the prop


@njit
def shade_objects(
    face: NDArray[np.int32],
    depth: Array,
    bary: Array,
    fx: float,
    cx: float,
    cy: float,
    ssaa: int,
    turn: Array,
    eye: Array,
    objects: Objects,
    marks: Marks,
    looks: NDArray[np.void],
    materials: Array,
    light: Light,
    noise: Noise,
    tiles: Array,
    surfaces: int,
    seed: float,
    image: Array,
) -> None:
    """Blend the rasterised objects over a picture (H, W, 3). `looks` (P,) are records of `LOOK`."""
    albedo, lit, total = np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    for row in range(image.shape[0]):
        for col in range(image.shape[1]):
            hits, shaded = 0, 0
            total[:] = 0
            top, left = row * ssaa, col * ssaa
            first = face[top, left]
            inner = first >= 0  # the pixel shows one thing only: every other sample is enough
            for i in range(top, top + ssaa):
                for j in range(left, left + ssaa):
                    f = face[i, j]
                    if f >= 0:
                        hits += 1
                        inner = inner and objects.owner[f] == objects.owner[first]
                    else:
                        inner = False
            if hits == 0:
                continue
            for i in range(top, top + ssaa):
                for j in range(left, left + ssaa):
                    f = face[i, j]
                    if f < 0 or (inner and (i + j) & 1):
                        continue
                    shaded += 1
                    a, b, c = objects.faces[f, 0], objects.faces[f, 1], objects.faces[f, 2]
                    w0, w1, w2 = bary[i, j, 0], bary[i, j, 1], bary[i, j, 2]
                    px, py = (j - cx) / fx, (i - cy) / fx
                    z = depth[i, j]
                    dx = turn[0, 0] * px + turn[0, 1] * py + turn[0, 2]
                    dy = turn[1, 0] * px + turn[1, 1] * py + turn[1, 2]
                    dz = turn[2, 0] * px + turn[2, 1] * py + turn[2, 2]
                    x, y, zz = eye[0] + z * dx, eye[1] + z * dy, eye[2] + z * dz
                    r, n = objects.rest, objects.normals
                    rx = w0 * r[a, 0] + w1 * r[b, 0] + w2 * r[c, 0]
                    ry = w0 * r[a, 1] + w1 * r[b, 1] + w2 * r[c, 1]
                    rz = w0 * r[a, 2] + w1 * r[b, 2] + w2 * r[c, 2]
                    nx = w0 * n[a, 0] + w1 * n[b, 0] + w2 * n[c, 0]
                    ny = w0 * n[a, 1] + w1 * n[b, 1] + w2 * n[c, 1]
                    nz = w0 * n[a, 2] + w1 * n[b, 2] + w2 * n[c, 2]
                    owner = objects.owner[f]
                    gloss = 0.0
                    if owner >= 0:
                        gloss, fold = person_albedo(
                            rx,
                            ry,
                            rz,
                            z / fx,
                            marks,
                            looks[owner],
                            noise,
                            tiles,
                            surfaces,
                            albedo,
                        )
                        if fold > 0:
                            gx, gy, gz = slope_at(noise, rx * 15 + seed, ry * 15, rz * 15)
                            nx, ny, nz = nx - 2.2 * fold * gx, ny - 2.2 * fold * gy, nz - 2.2 * fold * gz
                    else:
                        surface_colour(materials, -1 - owner, rx, ry, rz, z / fx, noise, tiles, seed, albedo)
                    length = np.sqrt(nx * nx + ny * ny + nz * nz)
                    nx, ny, nz = nx / length, ny / length, nz / length
                    reach = np.sqrt(dx * dx + dy * dy + dz * dz)
                    vx, vy, vz = -dx / reach, -dy / reach, -dz / reach
                    facing = nx * vx + ny * vy + nz * vz
                    if facing < 0.02:  # a bumped normal may turn away: bring it back to the silhouette
                        push = 0.02 - facing
                        nx, ny, nz = nx + push * vx, ny + push * vy, nz + push * vz
                    open_ = 0.55 + 0.45 * min(max(y, 0.0) / 0.7, 1.0)
                    seen = irradiance(x, y, zz, nx, ny, nz, open_, light, lit)
                    hx, hy, hz = vx + light.key[0], vy + light.key[1], vz + light.key[2]
                    h = max((nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz), 0.0)
                    shine = gloss * seen * h**24
                    for k2 in range(3):
                        total[k2] += albedo[k2] * lit[k2] + light.key_rgb[k2] * shine
            share = hits / (ssaa * ssaa)
            for k2 in range(3):
                image[row, col, k2] = image[row, col, k2] * (1 - share) + total[k2] / shaded * share


@njit
def expose(image: Array, gains: Array, gamma: float, contrast: float, noise: float, seed: int) -> NDArray[np.uint8]:
    """Linear light (H, W, 3) to 8 bits: white balance, highlights that roll off, gamma, contrast, sensor noise."""
    steps = 4096
    curve = np.empty(steps + 1, np.float32)
    for i in range(steps + 1):
        x = 4.0 * (i / steps) ** 2  # finer steps in the shadows
        if x > 0.75:
            x = 0.75 + 0.25 * (1 - np.exp(-(x - 0.75) / 0.25))
        curve[i] = 255 * ((x ** (1 / gamma) - 0.45) * contrast + 0.45)
    # A bell shape of mean 0 and deviation 1: two bytes added.
    bell = (np.arange(511) - 255.0) / 104.5
    out = np.empty(image.shape, np.uint8)
    state = np.uint64(seed) * np.uint64(2) + np.uint64(1)
    for row in range(image.shape[0]):
        for col in range(image.shape[1]):
            # xorshift64*: 16 bits each for the grain of the three channels and the part that they share
            state ^= state >> np.uint64(12)
            state ^= state << np.uint64(25)
            state ^= state >> np.uint64(27)
            word = state * np.uint64(2685821657736338717)
            common = bell[_bytes_added(word)]
            for c in range(3):
                x = image[row, col, c] * gains[c]
                place = min(steps * np.sqrt(max(x, 0.0) / 4), steps - 0.001)
                i = int(place)
                y = curve[i] + (curve[i + 1] - curve[i]) * (place - i)
                y += noise * (0.5 * common + 0.6 * bell[_bytes_added(word >> np.uint64(16 * (c + 1)))])
                out[row, col, c] = int(min(max(y + 0.5, 0.0), 255.0))
    return out


@njit(inline="always")
def _bytes_added(word: np.uint64) -> int:
    """Sum of the two lowest bytes of a word."""
    return int(word & np.uint64(255)) + int((word >> np.uint64(8)) & np.uint64(255))


@njit
def to_camera(verts: Array, turn: NDArray[np.float64], eye: NDArray[np.float64]) -> Array:
    """World points (V, 3) in the frame of a camera at `eye`, whose directions `turn` takes to the world."""
    out = np.empty_like(verts)
    for i in range(verts.shape[0]):
        x, y, z = verts[i, 0] - eye[0], verts[i, 1] - eye[1], verts[i, 2] - eye[2]
        for c in range(3):
            out[i, c] = turn[0, c] * x + turn[1, c] * y + turn[2, c] * z
    return out


@njit
def bounds(
    verts: Array, turn: NDArray[np.float64], eye: NDArray[np.float64], focal: float, cx: float, cy: float
) -> NDArray[np.float64]:
    """Pixel bounds of world points and their range of depth: left, top, right, bottom, nearest, farthest."""
    left, top, right, bottom, nearest, farthest = 1e9, 1e9, -1e9, -1e9, 1e9, -1e9
    for i in range(verts.shape[0]):
        x, y, z = verts[i, 0] - eye[0], verts[i, 1] - eye[1], verts[i, 2] - eye[2]
        depth = turn[0, 2] * x + turn[1, 2] * y + turn[2, 2] * z
        u = (turn[0, 0] * x + turn[1, 0] * y + turn[2, 0] * z) / max(depth, 0.05) * focal + cx
        v = (turn[0, 1] * x + turn[1, 1] * y + turn[2, 1] * z) / max(depth, 0.05) * focal + cy
        left, top, right, bottom = min(left, u), min(top, v), max(right, u), max(bottom, v)
        nearest, farthest = min(nearest, depth), max(farthest, depth)
    return np.array([left, top, right, bottom, nearest, farthest])


@njit
def limits(verts: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest coordinates of points (V, 3)."""
    low, high = np.full(3, 1e9), np.full(3, -1e9)
    for i in range(verts.shape[0]):
        for c in range(3):
            low[c], high[c] = min(low[c], verts[i, c]), max(high[c], verts[i, c])
    return low, high
