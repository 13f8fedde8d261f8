"""Surroundings: a furnished room, open ground with blocks, or nothing but a photograph behind."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from metro.synthetic import exact
from metro.synthetic import materials as mt
from metro.synthetic.camera import Camera
from metro.synthetic.materials import Material, random_material
from metro.synthetic.people import Figure, Studio
from metro.synthetic.shading import Sky
from metro.synthetic.stage import Stage, box, quad
from metro.synthetic.streams import log_uniform

Array = NDArray[np.float64]

GROUND = 4000.0
"""Half side of the ground, metres: its edge lies a fraction of a pixel below the horizon."""
SKIRTING = 0.09
"""Height of a skirting board, metres."""


class Kind(IntEnum):
    """What is around the person."""

    ROOM = 0
    OUTDOORS = 1
    BACKDROP = 2


@dataclass
class World:
    """The surroundings."""

    kind: Kind
    stage: Stage  # ground, walls and what stands and hangs there; empty before a photograph
    feet: NDArray[np.float32]  # (B, 6) of the things on the floor, as in `Light`
    sky: Sky


@dataclass(frozen=True)
class Room:
    """An upright box of walls. Its own frame is turned about y, with the origin in the middle of the floor."""

    origin: Array  # (3,) in the world
    half: Array  # (3,) half width, whole height, half depth
    cos: float
    sin: float

    def out(self, vector: Array) -> Array:
        """A direction (3,) of the room's frame in the world."""
        x, y, z = vector
        return np.array([self.cos * x + self.sin * z, y, self.cos * z - self.sin * x])

    def hang(
        self, stage: Stage, owner: int, axis: int, side: int, middle: tuple[float, float], half: Array, gap: float
    ) -> None:
        """Put a rectangle on the wall of an axis (0: x, 2: z) and side (-1, 1), or on the floor or ceiling (1).

        `middle` and `half` count along the wall and upwards (over the floor, along x and z); `gap` is how far the
        rectangle stands off.
        """
        along, above = {0: (2, 1), 1: (0, 2), 2: (0, 1)}[axis]
        centre, right, up = np.zeros((3, 3))
        centre[axis] = side * (self.half[axis] - gap) if axis != 1 else (self.half[1] if side > 0 else 0.0)
        centre[along], centre[above] = middle
        right[along], up[above] = half
        place = np.array([[*middle, axis + side], [half[0], 0, 0], [0, half[1], 0]])
        if (axis == 2) == (side > 0):  # x x y points to z, but z x y to -x and x x z to -y: turn to the inside
            right, place[1] = -right, -place[1]
        stage.add(*quad(self.origin + self.out(centre), self.out(right), self.out(up), place), owner)


def build_world(g: np.random.Generator, studio: Studio, person: Figure, camera: Camera) -> World:
    """Choose surroundings in which nothing stands between the camera and the person."""
    kind = Kind(g.choice(list(Kind), p=[0.5, 0.38, 0.12]))
    room = _room_around(g, person, camera)
    stage = Stage()
    if kind == Kind.ROOM:
        _build_room(stage, g, studio, room)
    elif kind == Kind.OUTDOORS:
        x, _, z = camera.eye
        rest = np.array([[x, z, 0], [0, GROUND, 0], [GROUND, 0, 0]])
        middle, right, up = np.array([x, 0, z]), np.array([0, 0, GROUND]), np.array([GROUND, 0, 0])
        stage.add(*quad(middle, right, up, rest), stage.paint(_ground(g, studio)))
    feet = [] if kind == Kind.BACKDROP else _furnish(stage, g, studio, kind, room, person, camera)
    if kind == Kind.ROOM:
        _hang_pictures(stage, g, studio, room)
    grey = g.uniform(0.55, 1.0)
    blue = exact.power(g.random(), 0.6)
    zenith = np.array([0.16, 0.32, 0.75]) * blue + np.array([0.5, 0.53, 0.58]) * (1 - blue)
    horizon = np.array([0.9, 0.92, 0.95]) * grey * [1, 1, g.uniform(0.85, 1.1)]
    cloud, haze, seed = g.uniform(0.05, 0.65), log_uniform(g, 40, 600), g.uniform(0, 32)
    sky = Sky(
        horizon.astype(np.float32),
        (zenith * grey).astype(np.float32),
        cloud,
        haze if kind == Kind.OUTDOORS else np.inf,
        seed,
    )
    return World(kind, stage, np.array(feet, np.float32).reshape(-1, 6), sky)


def _room_around(g: np.random.Generator, person: Figure, camera: Camera) -> Room:
    """A room that holds person and camera."""
    angle = np.pi / 180 * g.uniform(-45, 45)
    ca, sa = float(exact.cos(angle)), float(exact.sin(angle))
    low, high = person.low, person.high
    reach = float(max(-low[0], high[0], -low[2], high[2]))
    ex, ez = ca * camera.eye[0] - sa * camera.eye[2], sa * camera.eye[0] + ca * camera.eye[2]
    x0, x1 = min(-reach, ex) - 0.3 - g.exponential(1.3), max(reach, ex) + 0.3 + g.exponential(1.3)
    z0, z1 = min(-reach, ez) - 0.3 - g.exponential(1.6), max(reach, ez) + 0.3 + g.exponential(1.6)
    height = max(2.3, high[1] + 0.15, camera.eye[1] + 0.3) + g.uniform(0, 0.8)
    mx, mz = (x0 + x1) / 2, (z0 + z1) / 2
    origin = np.array([ca * mx + sa * mz, 0, -sa * mx + ca * mz])
    return Room(origin, np.array([(x1 - x0) / 2, height, (z1 - z0) / 2]), ca, sa)


def _build_room(stage: Stage, g: np.random.Generator, studio: Studio, room: Room) -> None:
    """Floor, ceiling, walls and skirting boards."""
    tiles = len(studio.tiles)
    floor = random_material(g, tiles, [mt.PLANKS, mt.PLANKS, mt.TILES, mt.CLOUDS, mt.FLAT], (1.2, 4))
    wall = random_material(g, tiles, [mt.FLAT, mt.FLAT, mt.FLAT, mt.STRIPES, mt.SURFACE, mt.CLOUDS], (0.7, 4))
    wall["tile"], wall["turned"] = 0, False
    pale = g.uniform(0.35, 0.8) * g.uniform(0.85, 1, 3)
    if g.random() < 0.65:
        wall["colour"], wall["other"] = pale, pale * g.uniform(0.7, 0.95, 3)
    ceiling, board = random_material(g, tiles, [mt.FLAT], (1, 2)), random_material(g, tiles, [mt.FLAT], (1, 2))
    ceiling["colour"] = g.uniform(0.5, 0.8)
    for material, place in ((floor, mt.FLOOR), (wall, mt.WALL), (ceiling, mt.OPEN), (board, mt.WALL)):
        material["place"] = place
    width, height, depth = room.half
    room.hang(stage, stage.paint(floor), 1, -1, (0, 0), np.array([width, depth]), 0)
    room.hang(stage, stage.paint(ceiling), 1, 1, (0, 0), np.array([width, depth]), 0)
    walls, boards = stage.paint(wall), stage.paint(board)
    for axis, half in ((0, depth), (2, width)):
        for side in (-1, 1):
            room.hang(stage, walls, axis, side, (0, height / 2), np.array([half, height / 2]), 0)
            room.hang(stage, boards, axis, side, (0, SKIRTING / 2), np.array([half, SKIRTING / 2]), 0.01)


def _ground(g: np.random.Generator, studio: Studio) -> Material:
    """Grass, earth, sand or paving."""
    ground = random_material(g, len(studio.tiles), [mt.SURFACE, mt.SURFACE, mt.TILES, mt.CLOUDS], (0.35, 1.4))
    ground["tile"], ground["place"] = g.integers(1, 3), mt.FLOOR
    tones = [[0.09, 0.17, 0.035], [0.25, 0.21, 0.16], [0.2, 0.2, 0.2], [0.45, 0.36, 0.22]]
    tone = np.array(tones[g.integers(4)] if ground["tile"] == 2 else tones[0]) * g.uniform(0.6, 1.5)
    ground["colour"], ground["other"] = tone, tone * g.uniform(0.5, 0.9)
    return ground


def _furnish(
    stage: Stage, g: np.random.Generator, studio: Studio, kind: Kind, room: Room, person: Figure, camera: Camera
) -> list[list[float]]:
    """Put boxes on the floor, behind the person: furniture, or blocks like houses; returns their feet."""
    feet = []
    farthest = camera.span(person.verts)[3]
    kinds = [mt.FLAT, mt.FLAT, mt.PLANKS, mt.STRIPES, mt.SURFACE, mt.PICTURE, mt.CLOUDS, mt.TILES]
    for serial in range(int(g.integers(0, 8))):
        if kind == Kind.ROOM:
            half = np.array([g.uniform(0.15, 0.8), g.uniform(0.2, 1.0), g.uniform(0.15, 0.5)])
            inside = np.array([g.uniform(-1, 1) * room.half[0], 0, g.uniform(-1, 1) * room.half[2]])
            where = room.origin + room.out(inside)
            cos, sin = (room.cos, room.sin) if g.random() < 0.8 else _direction(g.uniform(0, np.pi))
        else:
            far = log_uniform(g, 2, 60)
            half = np.array([g.uniform(0.1, 0.35), g.uniform(0.08, 0.5), g.uniform(0.1, 0.35)]) * (0.4 + 0.35 * far)
            where = np.array([g.uniform(-0.7, 0.7) * far, 0, -far])
            cos, sin = _direction(g.uniform(0, np.pi))
        where[1] = half[1]
        mesh = box(half, cos, sin, where, serial)
        if camera.see(mesh.verts)[:, 2].min() < farthest + 0.02:
            continue  # it would stand in front of the person
        scale = (0.8, 8) if kind == Kind.ROOM else (0.2, 2)
        material = random_material(g, len(studio.tiles), kinds, scale)
        material["place"] = mt.WALL if kind == Kind.ROOM else mt.OPEN
        stage.add(*mesh, stage.paint(material))
        feet.append([where[0], where[2], half[0], half[2], cos, sin])
    return feet


def _direction(angle: float) -> tuple[float, float]:
    return float(exact.cos(angle)), float(exact.sin(angle))


def _hang_pictures(stage: Stage, g: np.random.Generator, studio: Studio, room: Room) -> None:
    """Pictures, boards and windows on the walls."""
    for number in range(int(g.integers(0, 5))):
        axis = int(g.choice([0, 2]))
        half = np.array([g.uniform(0.15, 0.7), g.uniform(0.15, 0.6)])
        span = room.half[2] if axis == 0 else room.half[0]
        middle = g.uniform(-span, span), g.uniform(1.0, max(1.1, room.half[1] - 0.4))
        if g.random() < 0.7:
            material = random_material(
                g, len(studio.tiles), [mt.PICTURE], (0.5 / float(half.max()), 0.6 / float(half.max()))
            )
            material["turned"] = False
        else:
            material = random_material(g, len(studio.tiles), [mt.FLAT, mt.CLOUDS], (0.5, 2))
            material["colour"] *= g.choice([1.0, 2.5])  # dull board or bright window
        material["place"] = mt.WALL
        room.hang(stage, stage.paint(material), axis, int(g.choice([-1, 1])), middle, half, 0.01 + 0.002 * number)
