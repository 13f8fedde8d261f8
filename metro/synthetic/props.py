"""People and things on the stage: the person, seats, bystanders, and what stands in front."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metro.mesh.topology import vertex_normals
from metro.synthetic import exact
from metro.synthetic import materials as mt
from metro.synthetic.camera import Camera
from metro.synthetic.garments import ease, long_hair, skirt
from metro.synthetic.looks import LONG
from metro.synthetic.materials import random_material
from metro.synthetic.people import Figure, Person, Studio
from metro.synthetic.stage import Stage, box, tube

Array = NDArray[np.float64]


def add_person(stage: Stage, studio: Studio, person: Person, shift: Array | None = None) -> None:
    """Put a dressed person on the stage: cloth and hair stand off the skin along the normals."""
    verts = person.verts if shift is None else (person.verts + shift).astype(np.float32)
    look, moved = person.look, person.transl + (0 if shift is None else shift)
    normals = vertex_normals(verts, studio.skin.faces)
    loose = ease(studio.skin.template, studio.marks, look)
    own = stage.dress(look)
    stage.add(verts + loose[:, None] * normals, normals, studio.skin.template, studio.skin.faces, own)
    if look["skirt"] > 0:
        stage.add(*skirt(studio.skin, studio.marks, look, person.betas, person.bones, moved), own)
    if look["hair_style"] == LONG:
        stage.add(*long_hair(studio.marks, look, person.bones, moved), own)


def add_seat(stage: Stage, g: np.random.Generator, studio: Studio, person: Person) -> None:
    """Something to sit on: a block from the floor to the seat."""
    pelvis = person.joints[0]
    x, z = person.verts[:, 0] - pelvis[0], person.verts[:, 2] - pelvis[2]
    around = x * x + z * z < 0.13**2
    top = float(person.verts[around, 1].min()) + 0.015
    forwards = person.rot[0][:, 2]
    length = np.sqrt(forwards[0] ** 2 + forwards[2] ** 2)
    sin, cos = forwards[0] / length, forwards[2] / length
    half = np.array([g.uniform(0.2, 0.75), top / 2, g.uniform(0.18, 0.24)])
    back = g.uniform(-0.02, 0.06)
    centre = np.array([pelvis[0] - back * sin, top / 2, pelvis[2] - back * cos])
    kinds = [mt.FLAT, mt.PLANKS, mt.CLOUDS, mt.STRIPES]
    material = stage.paint(random_material(g, len(studio.tiles), kinds, (2, 8)))
    stage.add(*box(half, cos, sin, centre), material)
    if g.random() < 0.3:  # a back rest
        rest_half = np.array([half[0], g.uniform(0.15, 0.3), 0.03])
        behind = back + half[2] + 0.05
        centre = np.array([pelvis[0] - behind * sin, top + rest_half[1], pelvis[2] - behind * cos])
        stage.add(*box(rest_half, cos, sin, centre), material)


def add_occluder(
    stage: Stage,
    g: np.random.Generator,
    kind: str,
    studio: Studio,
    person: Figure,
    camera: Camera,
    other: Person | None,
) -> None:
    """Put something of a kind between the camera and the person."""
    low, high, nearest, _ = camera.span(person.verts)
    depth = nearest * g.uniform(0.55, 0.93)
    metres = depth / camera.focal  # of a pixel at that depth
    extent = high - low
    kinds = [mt.FLAT, mt.FLAT, mt.PLANKS, mt.CLOUDS, mt.STRIPES, mt.SURFACE, mt.PICTURE, mt.TILES]
    material = stage.paint(random_material(g, len(studio.tiles), kinds, (1, 10)))
    angle = g.uniform(-0.5, 0.5)
    cos, sin = float(exact.cos(angle)), float(exact.sin(angle))
    if kind == "block":  # a counter, a table, a car: hides the lower part
        top = camera.place(g.uniform(low[0], high[0]), low[1] + g.uniform(0.45, 0.85) * extent[1], depth)
        height = max(float(top[1]), 0.15)
        half = np.array([g.uniform(0.3, 1.3), height / 2, 0.08 + 0.2 * g.random()])
        stage.add(*box(half, cos, sin, np.array([top[0], height / 2, top[2]])), material)
    elif kind == "bar":  # a post, a tree, the edge of a door
        width = extent[0] * g.uniform(0.1, 0.3) * metres
        foot = camera.place(g.uniform(low[0], high[0]), (low[1] + high[1]) / 2, depth)
        lean = np.array([g.normal(0, 0.15), 0, 0])
        ends = np.array([foot[0], -0.5, foot[2]]) - lean, np.array([foot[0], 4.0, foot[2]]) + lean
        stage.add(*tube(width / 2, *ends), material)
    elif kind == "crate":  # something held, hung or flying
        u, v = low + extent * g.uniform(0.15, 0.85, 2)
        half = extent.max() * g.uniform(0.06, 0.17, 3) * metres
        stage.add(*box(half, cos, sin, camera.place(u, v, depth)), material)
    elif kind == "rail":
        v = low[1] + extent[1] * g.uniform(0.3, 0.85)
        a = camera.place(low[0] - extent.max(), v + g.normal(0, 0.1) * extent[1], depth)
        b = camera.place(high[0] + extent.max(), v + g.normal(0, 0.1) * extent[1], depth)
        for step in range(int(g.integers(1, 4))):
            down = np.array([0, -0.22 * step, 0])
            stage.add(*tube(extent.max() * g.uniform(0.015, 0.05) * metres, a + down, b + down), material)
    elif other is not None:
        side = g.choice([-1, 1])
        u = (low[0] if side < 0 else high[0]) - side * extent[0] * g.uniform(-0.1, 0.25)
        centre = camera.place(u, (low[1] + high[1]) / 2, nearest * g.uniform(0.72, 0.9))
        add_person(stage, studio, other, np.array([centre[0], 0, centre[2]]))


def add_bystander(
    stage: Stage, g: np.random.Generator, studio: Studio, person: Person, camera: Camera, other: Person
) -> None:
    """Put another person behind."""
    low, high, _, farthest = camera.span(person.verts)
    u = (low[0] + high[0]) / 2 + g.choice([-1, 1]) * (high[0] - low[0]) * g.uniform(0.4, 1.1)
    radius = float(max(np.abs(other.low).max(), np.abs(other.high).max()))
    where = camera.place(u, camera.cy, farthest + radius + g.uniform(0.1, 3))
    add_person(stage, studio, other, np.array([where[0], 0, where[2]]))
