"""One person in one scene: camera, surroundings, light, occluders, photograph, and the exact annotation.

A `Studio` holds what all people of a dataset share; `shoot` makes the picture of one and `annotate` its record. The
frame is just large enough that the stored crop (`CropConfig`) is cut from it without enlarging.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from metro.body.load import load_body
from metro.config import BodyConfig, DatasetConfig, SyntheticConfig
from metro.data.records import Record
from metro.synthetic import shading as sh
from metro.synthetic.archetypes import Support
from metro.synthetic.garments import ease, long_hair, skirt
from metro.synthetic.looks import LONG, LOOK, MARKS, Look, Marks, landmarks, sample_look
from metro.synthetic.poses import sample_poses
from metro.synthetic.rotations import axis_rotations, rotation_vector
from metro.synthetic.skinning import Skin, prepare_skin, rest_joints, shape_and_pose
from metro.synthetic.streams import Stream, stream
from metro.synthetic.textures import SURFACES, Noise, atlas, noise_volume, photographs
from metro.viz.raster import draw, pool, sample_intrinsics, vertex_normals

Array = NDArray[np.float64]
Picture = NDArray[Any]
"""Linear light as float32, or 8 bits; OpenCV's stubs do not tell."""

SSAA = 2
BOX_SCALE = 1.2
"""Side of the annotated box over that of the tight box (METRO and the line of work before it)."""
ZOOM = 1.12
"""Largest size of a person in the frame over the size in the stored crop."""
LEAST_VISIBLE = 0.3
"""Share of the person that occluders leave to be seen; a picture that would show less loses its occluders."""
SHADOW_SIZE = 160
SHADOW_DISTANCE = 40.0


@dataclass(frozen=True)
class Studio:
    """What the people of one dataset share."""

    skin: Skin
    joints: NDArray[np.float64]  # regressor of the labelled joints (24 or 21, V)
    mean_pose: Array  # (J - 1, 3) that the body model adds to the labelled pose
    marks: Marks  # landmarks of clothes, a record of `MARKS`; all zero for hands
    noise: Noise
    tiles: NDArray[np.float32]
    photographs: tuple[NDArray[np.uint8], ...]


@cache
def open_studio(body: BodyConfig, split: str) -> Studio:
    """Load the body or hand and the textures once per process."""
    data = load_body(body)
    return Studio(
        prepare_skin(data),
        data.regressors["hand21" if data.is_hand else "j24"].toarray().astype(np.float64),
        np.zeros((data.num_joints - 1, 3)) if data.hands_mean is None else data.hands_mean.reshape(-1, 3),
        np.zeros((), MARKS)[()] if data.is_hand else landmarks(data),
        noise_volume(),
        atlas(split),
        photographs(split),
    )


@dataclass(frozen=True)
class Figure:
    """A posed body or hand in the world (y up, floor at 0), before any camera."""

    betas: Array
    rot: Array  # (J, 3, 3) with the heading in the root
    transl: Array
    verts: NDArray[np.float32]
    joints: Array

    @cached_property
    def low(self) -> Array:
        """Lowest coordinates (3,)."""
        return sh.limits(self.verts)[0]

    @cached_property
    def high(self) -> Array:
        """Highest coordinates (3,)."""
        return sh.limits(self.verts)[1]


@dataclass(frozen=True)
class Person(Figure):
    """A dressed person."""

    bones: NDArray[np.float32]  # (24, 3, 4) rest to world, without `transl`
    support: int
    look: Look


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in the world."""

    focal: float
    cx: float
    cy: float
    turn: Array  # (3, 3) camera to world directions
    eye: Array  # (3,)
    size: int

    @property
    def K(self) -> Array:
        """Intrinsics (3, 3), pixels."""
        return np.array([[self.focal, 0, self.cx], [0, self.focal, self.cy], [0, 0, 1.0]])

    def see(self, points: NDArray[np.floating]) -> Array:
        """World points (N, 3) in the camera frame."""
        return (points - self.eye) @ self.turn

    def span(self, points: NDArray[np.float32]) -> tuple[Array, Array, float, float]:
        """Pixel bounds of world points, left top and right bottom, and their nearest and farthest depth."""
        b = sh.bounds(points, self.turn, self.eye, self.focal, self.cx, self.cy)
        return b[:2], b[2:4], float(b[4]), float(b[5])

    def place(self, u: float, v: float, depth: float) -> Array:
        """The world point (3,) that pixel (u, v) shows at a depth."""
        return self.eye + self.turn @ (depth * np.array([(u - self.cx) / self.focal, (v - self.cy) / self.focal, 1.0]))


@dataclass
class Stage:
    """Meshes and materials collected for one picture."""

    verts: list[NDArray[np.float32]] = field(default_factory=list)
    normals: list[NDArray[np.float32]] = field(default_factory=list)
    rest: list[NDArray[np.float32]] = field(default_factory=list)
    faces: list[NDArray[np.int32]] = field(default_factory=list)
    owner: list[NDArray[np.int32]] = field(default_factory=list)
    materials: list[Array] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    count: int = 0

    def add(
        self,
        verts: NDArray[np.floating],
        normals: NDArray[np.floating],
        rest: NDArray[np.floating],
        faces: NDArray[np.integer],
        owner: int,
    ) -> None:
        """Add a mesh; `owner` is a look's index, or -1 minus a material's."""
        self.verts.append(verts.astype(np.float32))
        self.normals.append(normals.astype(np.float32))
        self.rest.append(rest.astype(np.float32))
        self.faces.append((faces + self.count).astype(np.int32))
        self.owner.append(np.full(len(faces), owner, np.int32))
        self.count += len(verts)

    def objects(self) -> sh.Objects:
        """All meshes as one."""
        return sh.Objects(
            np.concatenate(self.verts),
            np.concatenate(self.normals),
            np.concatenate(self.rest),
            np.concatenate(self.faces),
            np.concatenate(self.owner),
        )


def make_people(studio: Studio, config: SyntheticConfig, indices: Sequence[int], extra: bool = False) -> list[Person]:
    """Pose and dress people; `extra` makes the strangers who share their pictures instead."""
    purpose = Stream.STRANGER if extra else Stream.SHAPE
    if not indices:
        return []
    rest_of = [stream(config.seed, i, purpose) for i in indices]
    betas = np.stack([np.clip(g.standard_normal(10), -2.5, 2.5) for g in rest_of])
    # Strangers take poses from a part of the index range that no person of the dataset uses.
    named = [i + (1 << 62) if extra else i for i in indices]
    poses = sample_poses(config.seed, named, rest_joints(studio.skin, betas), config.uniform_pose)
    people = []
    for k, index in enumerate(named):
        g = stream(config.seed, index, Stream.CAMERA, 1)
        spread = g.standard_normal() * config.heading_sd_deg
        whole = g.uniform(-180, 180)
        heading = whole if g.random() < config.heading_uniform else spread
        rot = poses.rot[k].copy()
        rot[0] = _about_y(heading) @ rot[0]
        verts, joints, bones = shape_and_pose(studio.skin, betas[k], rot, np.zeros(3))
        low, high = sh.limits(verts)
        lift = g.uniform(0, 0.25) if poses.support[k] == Support.FREE and g.random() < 0.5 else 0.0
        transl = np.array([-(low[0] + high[0]) / 2, lift - low[1], -(low[2] + high[2]) / 2])
        verts, joints = (verts + transl).astype(np.float32), joints + transl
        look = sample_look(stream(config.seed, index, Stream.LOOK), studio.marks, len(studio.tiles) - len(SURFACES))
        people.append(Person(betas[k], rot, transl, verts, joints, bones, int(poses.support[k]), look))
    return people


def _about_y(degrees: float) -> Array:
    return axis_rotations(np.array([0.0, degrees, 0.0]))[1]


def aim(g: np.random.Generator, person: Figure, config: DatasetConfig, closest: float = 0.9) -> Camera:
    """Choose a camera that sees the person at the stored size, cut by the frame's edge now and then.

    It comes no nearer than `closest` metres.
    """
    size = 8 * int(np.ceil(config.crop.box_px * config.crop.margin * 1.04 * ZOOM / 8))
    focal = size * np.exp(g.uniform(np.log(1.0), np.log(3.0)))
    off_axis = np.clip(g.standard_normal(2), -2, 2) * 0.22 * size
    cx, cy = (size - 1) / 2 + off_axis
    pitch = np.clip(7 + 11 * g.standard_normal(), -18, 40)
    roll = np.clip(3 * g.standard_normal(), -9, 9)
    target = config.crop.box_px / BOX_SCALE * g.uniform(1.01, ZOOM)
    shift = g.uniform(-0.04, 0.04, 2) * size
    cut = g.random() < config.synthetic.truncation
    edge = int(g.choice(4, p=[0.14, 0.14, 0.12, 0.6]))  # left, right, top, bottom
    share = g.uniform(0.12, 0.45)
    centre = (person.low + person.high) / 2
    depth = float((person.high - person.low).max()) * focal / target
    aimed = np.array([(size - 1) / 2, (size - 1) / 2]) + shift
    camera = Camera(focal, cx, cy, np.eye(3), np.zeros(3), size)
    for _ in range(40):
        rx = axis_rotations(np.array([-pitch, 0.0, 0.0]))[0]
        rz = axis_rotations(np.array([0.0, 0.0, roll]))[2]
        turn = rx @ np.diag([1.0, -1.0, -1.0]) @ rz
        for _ in range(8 if cut else 4):
            ray = np.array([(aimed[0] - cx) / focal, (aimed[1] - cy) / focal, 1.0])
            camera = Camera(focal, cx, cy, turn, centre - turn @ (depth * ray), size)
            low, high, _, _ = camera.span(person.verts)
            extent = high - low
            visible = extent * (1 - share * np.array([edge < 2, edge >= 2])) if cut else extent
            depth = max(depth * visible.max() / target, closest)
            # Put the middle of the box, not the projected centre of the body, where it was aimed.
            wanted = np.array([(size - 1) / 2, (size - 1) / 2]) + shift
            if cut:
                axis, far = edge // 2, edge % 2
                wanted[axis] = (size - 1) - (0.5 - share) * extent[axis] if far else (0.5 - share) * extent[axis]
            aimed = aimed + wanted - (low + high) / 2
        if camera.eye[1] > 0.2:
            break
        pitch += 4
    return camera


def random_material(g: np.random.Generator, studio: Studio, kinds: Sequence[int], scale: tuple[float, float]) -> Array:
    """A random surface of one of the kinds, with `scale` repeats per metre."""
    m = np.zeros(sh.MAT_COUNT)
    kind = int(g.choice(kinds))
    base = g.uniform(0.03, 0.75) * (1 - g.uniform(0, 0.85) * g.random(3))
    other = np.clip(base * g.uniform(0.45, 1.7) * g.uniform(0.85, 1.15, 3), 0.01, 0.9)
    m[sh.MAT_KIND] = kind
    m[sh.MAT_R : sh.MAT_R + 3], m[sh.MAT_R2 : sh.MAT_R2 + 3] = base, other
    m[sh.MAT_SCALE] = np.exp(g.uniform(*np.log(scale)))
    m[sh.MAT_TILE] = g.integers(len(SURFACES))
    m[sh.MAT_ROUGH] = g.uniform(0, 0.7)
    m[sh.MAT_TURN] = g.random() < 0.5
    if kind == sh.PICTURE:
        m[sh.MAT_TILE] = g.integers(len(SURFACES), len(studio.tiles))
    if kind == sh.PLANKS:
        wood = np.array([0.32, 0.18, 0.085]) * g.uniform(0.3, 1.9)
        m[sh.MAT_R : sh.MAT_R + 3], m[sh.MAT_R2 : sh.MAT_R2 + 3] = wood, wood * g.uniform(0.45, 0.8)
        m[sh.MAT_SCALE] = g.uniform(5, 12)
    return m


def build_world(g: np.random.Generator, studio: Studio, person: Figure, camera: Camera) -> sh.World:
    """Surroundings: a furnished room, open ground with blocks, or nothing but a photograph behind."""
    kind = int(g.choice([sh.ROOM, sh.OUTDOORS, sh.BACKDROP], p=[0.5, 0.38, 0.12]))
    high = person.high
    angle = np.deg2rad(g.uniform(-45, 45))
    ca, sa = np.cos(angle), np.sin(angle)
    reach = float(max(-person.low[0], high[0], -person.low[2], high[2]))
    ex, ez = ca * camera.eye[0] - sa * camera.eye[2], sa * camera.eye[0] + ca * camera.eye[2]
    x0, x1 = min(-reach, ex) - 0.3 - g.exponential(1.3), max(reach, ex) + 0.3 + g.exponential(1.3)
    z0, z1 = min(-reach, ez) - 0.3 - g.exponential(1.6), max(reach, ez) + 0.3 + g.exponential(1.6)
    height = max(2.3, high[1] + 0.15, camera.eye[1] + 0.3) + g.uniform(0, 0.8)
    mx, mz = (x0 + x1) / 2, (z0 + z1) / 2
    origin = np.array([ca * mx + sa * mz, 0, -sa * mx + ca * mz])
    half = np.array([(x1 - x0) / 2, height, (z1 - z0) / 2])

    materials = []
    if kind == sh.ROOM:
        floor = random_material(g, studio, [sh.PLANKS, sh.PLANKS, sh.TILES, sh.CLOUDS, sh.FLAT], (1.2, 4))
        wall = random_material(g, studio, [sh.FLAT, sh.FLAT, sh.FLAT, sh.STRIPES, sh.SURFACE, sh.CLOUDS], (0.7, 4))
        wall[sh.MAT_TILE] = 0
        pale = g.uniform(0.35, 0.8) * g.uniform(0.85, 1, 3)
        if g.random() < 0.65:
            wall[sh.MAT_R : sh.MAT_R + 3], wall[sh.MAT_R2 : sh.MAT_R2 + 3] = pale, pale * g.uniform(0.7, 0.95, 3)
        wall[sh.MAT_TURN] = 0
        ceiling, skirting = random_material(g, studio, [sh.FLAT], (1, 2)), random_material(g, studio, [sh.FLAT], (1, 2))
        ceiling[sh.MAT_R : sh.MAT_R + 3] = g.uniform(0.5, 0.8)
        materials = [floor, wall, ceiling, skirting]
    else:
        floor = random_material(g, studio, [sh.SURFACE, sh.SURFACE, sh.TILES, sh.CLOUDS], (0.35, 1.4))
        floor[sh.MAT_TILE] = g.integers(1, 3)
        ground = [[0.09, 0.17, 0.035], [0.25, 0.21, 0.16], [0.2, 0.2, 0.2], [0.45, 0.36, 0.22]]
        tone = np.array(ground[g.integers(4)] if floor[sh.MAT_TILE] == 2 else ground[0]) * g.uniform(0.6, 1.5)
        floor[sh.MAT_R : sh.MAT_R + 3], floor[sh.MAT_R2 : sh.MAT_R2 + 3] = tone, tone * g.uniform(0.5, 0.9)
        materials = [floor, *(random_material(g, studio, [sh.FLAT], (1, 2)) for _ in range(3))]

    boxes, pictures = [], []
    farthest = camera.span(person.verts)[3]
    for _ in range(int(g.integers(0, 8)) if kind != sh.BACKDROP else 0):
        if kind == sh.ROOM:
            size = np.array([g.uniform(0.15, 0.8), g.uniform(0.2, 1.0), g.uniform(0.15, 0.5)])
            where = np.array([g.uniform(x0, x1), 0, g.uniform(z0, z1)])
            spin = angle if g.random() < 0.8 else g.uniform(0, np.pi)
        else:
            far = np.exp(g.uniform(np.log(2), np.log(60)))
            size = np.array([g.uniform(0.1, 0.35), g.uniform(0.08, 0.5), g.uniform(0.1, 0.35)]) * (0.4 + 0.35 * far)
            side = g.uniform(-0.7, 0.7) * far
            where = np.array([side, 0, -far])
            spin = g.uniform(0, np.pi)
        if kind == sh.ROOM:
            where = np.array([ca * where[0] + sa * where[2], 0, -sa * where[0] + ca * where[2]])
        where[1] = size[1]
        cb, sb = np.cos(spin), np.sin(spin)
        corners = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) * size
        corners = np.stack(
            [cb * corners[:, 0] + sb * corners[:, 2], corners[:, 1], -sb * corners[:, 0] + cb * corners[:, 2]], 1
        )
        if camera.see(corners + where)[:, 2].min() < farthest + 0.02:
            continue  # it would stand in front of the person
        kinds = [sh.FLAT, sh.FLAT, sh.PLANKS, sh.STRIPES, sh.SURFACE, sh.PICTURE, sh.CLOUDS, sh.TILES]
        materials.append(random_material(g, studio, kinds, (0.8, 8) if kind == sh.ROOM else (0.2, 2)))
        boxes.append([*where, *size, cb, sb, len(materials) - 1])
    if kind == sh.ROOM:
        for _ in range(int(g.integers(0, 5))):
            axis = int(g.choice([0, 2]))
            hu, hv = g.uniform(0.15, 0.7), g.uniform(0.15, 0.6)
            span = half[2] if axis == 0 else half[0]
            u, v = g.uniform(-span, span), g.uniform(1.0, max(1.1, height - 0.4))
            if g.random() < 0.7:
                m = random_material(g, studio, [sh.PICTURE], (0.5 / max(hu, hv), 0.6 / max(hu, hv)))
                m[sh.MAT_TURN] = 0
            else:
                m = random_material(g, studio, [sh.FLAT, sh.CLOUDS], (0.5, 2))
                m[sh.MAT_R : sh.MAT_R + 3] *= g.choice([1.0, 2.5])  # dull board or bright window
            materials.append(m)
            pictures.append([axis, g.choice([-1, 1]), u, v, hu, hv, len(materials) - 1])
    grey = g.uniform(0.55, 1.0)
    blue = g.random() ** 0.6
    zenith = np.array([0.16, 0.32, 0.75]) * blue + np.array([0.5, 0.53, 0.58]) * (1 - blue)
    return sh.World(
        kind,
        origin.astype(np.float32),
        half.astype(np.float32),
        np.array([ca, sa], np.float32),
        np.array(materials, np.float32),
        np.array(boxes, np.float32).reshape(-1, sh.BOX_COUNT),
        np.array(pictures, np.float32).reshape(-1, sh.PIC_COUNT),
        (np.array([0.9, 0.92, 0.95]) * grey * [1, 1, g.uniform(0.85, 1.1)]).astype(np.float32),
        (zenith * grey).astype(np.float32),
        g.uniform(0.05, 0.65),
        float(np.exp(g.uniform(np.log(40), np.log(600)))),
        g.uniform(0, 32),
    )


def _box_mesh(half: Array, cos: float, sin: float, centre: Array) -> tuple[Array, Array, Array, NDArray[np.int32]]:
    """Vertices, normals, surface coordinates (24, 3) and faces (12, 3) of a box."""
    verts: list[Array] = []
    normals: list[Array] = []
    rest: list[list[float]] = []
    faces: list[list[int]] = []
    for axis in range(3):
        for side in (-1.0, 1.0):
            a, b = (axis + 1) % 3, (axis + 2) % 3
            first = len(verts)
            for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                p = np.zeros(3)
                p[axis], p[a], p[b] = side * half[axis], s * half[a], t * half[b]
                n = np.zeros(3)
                n[axis] = side
                verts.append(p)
                normals.append(n)
                rest.append([p[0] if axis != 0 else p[2], p[1] if axis != 1 else p[2], axis + side])
            quad = [[0, 1, 2], [0, 2, 3]] if side > 0 else [[0, 2, 1], [0, 3, 2]]
            faces += [[first + i for i in tri] for tri in quad]
    turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    return np.array(verts) @ turn.T + centre, np.array(normals) @ turn.T, np.array(rest), np.array(faces, np.int32)


def _tube_mesh(
    radius: float, low: Array, high: Array, sides: int = 14
) -> tuple[Array, Array, Array, NDArray[np.int32]]:
    """A round bar from `low` to `high`."""
    along = high - low
    length = np.linalg.norm(along)
    along = along / length
    a = np.cross(along, [0.0, 0.0, 1.0] if abs(along[2]) < 0.9 else [1.0, 0.0, 0.0])
    a /= np.linalg.norm(a)
    b = np.cross(along, a)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.cos(angle)[:, None] * a + np.sin(angle)[:, None] * b
    verts = np.concatenate([low + radius * ring, high + radius * ring])
    rest = np.concatenate(
        [np.stack([angle * radius, np.full(sides, end * length), np.zeros(sides)], 1) for end in (0.0, 1.0)]
    )
    k = np.arange(sides)
    n = (k + 1) % sides
    faces = np.concatenate([np.stack([k, n, n + sides], 1), np.stack([k, n + sides, k + sides], 1)])
    return verts, np.concatenate([ring, ring]), rest, faces.astype(np.int32)


def add_person(stage: Stage, studio: Studio, person: Person, shift: Array | None = None) -> None:
    """Put a dressed person on the stage: cloth and hair stand off the skin along the normals."""
    verts = person.verts if shift is None else (person.verts + shift).astype(np.float32)
    normals = vertex_normals(verts, studio.skin.faces)
    loose = ease(studio.skin.template, studio.marks, person.look)
    stage.looks.append(person.look)
    own = len(stage.looks) - 1
    stage.add(verts + loose[:, None] * normals, normals, studio.skin.template, studio.skin.faces, own)
    look, moved = person.look, person.transl + (0 if shift is None else shift)
    if look["skirt"] > 0:
        stage.add(*skirt(studio.skin, studio.marks, look, person.betas, person.bones, moved), own)
    if look["hair_style"] == LONG:
        stage.add(*long_hair(studio.marks, look, person.bones, moved), own)


def add_seat(stage: Stage, g: np.random.Generator, studio: Studio, person: Person) -> None:
    """Something to sit on: a block from the floor to the seat."""
    pelvis = person.joints[0]
    around = np.linalg.norm(person.verts[:, [0, 2]] - pelvis[[0, 2]], axis=1) < 0.13
    top = float(person.verts[around, 1].min()) + 0.015
    forwards = person.rot[0] @ np.array([0.0, 0.0, 1.0])
    length = np.hypot(forwards[0], forwards[2])
    sin, cos = forwards[0] / length, forwards[2] / length
    half = np.array([g.uniform(0.2, 0.75), top / 2, g.uniform(0.18, 0.24)])
    back = g.uniform(-0.02, 0.06)
    centre = np.array([pelvis[0] - back * sin, top / 2, pelvis[2] - back * cos])
    material = len(stage.materials)
    stage.materials.append(random_material(g, studio, [sh.FLAT, sh.PLANKS, sh.CLOUDS, sh.STRIPES], (2, 8)))
    stage.add(*_box_mesh(half, cos, sin, centre), -1 - material)
    if g.random() < 0.3:  # a back rest
        rest_half = np.array([half[0], g.uniform(0.15, 0.3), 0.03])
        behind = back + half[2] + 0.05
        centre = np.array([pelvis[0] - behind * sin, top + rest_half[1], pelvis[2] - behind * cos])
        stage.add(*_box_mesh(rest_half, cos, sin, centre), -1 - material)


def add_occluder(
    stage: Stage,
    g: np.random.Generator,
    kind: str,
    studio: Studio,
    person: Figure,
    camera: Camera,
    other: Person | None,
) -> None:
    """Put one of `OCCLUDERS` between the camera and the person."""
    low, high, nearest, _ = camera.span(person.verts)
    depth = nearest * g.uniform(0.55, 0.93)
    metres = depth / camera.focal  # of a pixel at that depth
    extent = high - low
    material = -1 - len(stage.materials)
    kinds = [sh.FLAT, sh.FLAT, sh.PLANKS, sh.CLOUDS, sh.STRIPES, sh.SURFACE, sh.PICTURE, sh.TILES]
    stage.materials.append(random_material(g, studio, kinds, (1, 10)))
    angle = g.uniform(-0.5, 0.5)
    cos, sin = np.cos(angle), np.sin(angle)
    if kind == "block":  # a counter, a table, a car: hides the lower part
        top = camera.place(g.uniform(low[0], high[0]), low[1] + g.uniform(0.45, 0.85) * extent[1], depth)
        height = max(float(top[1]), 0.15)
        half = np.array([g.uniform(0.3, 1.3), height / 2, 0.08 + 0.2 * g.random()])
        stage.add(*_box_mesh(half, cos, sin, np.array([top[0], height / 2, top[2]])), material)
    elif kind == "bar":  # a post, a tree, the edge of a door
        width = extent[0] * g.uniform(0.1, 0.3) * metres
        foot = camera.place(g.uniform(low[0], high[0]), (low[1] + high[1]) / 2, depth)
        lean = np.array([g.normal(0, 0.15), 0, 0])
        ends = np.array([foot[0], -0.5, foot[2]]) - lean, np.array([foot[0], 4.0, foot[2]]) + lean
        stage.add(*_tube_mesh(width / 2, *ends), material)
    elif kind == "crate":  # something held, hung or flying
        u, v = low + extent * g.uniform(0.15, 0.85, 2)
        centre = camera.place(u, v, depth)
        half = extent.max() * g.uniform(0.06, 0.17, 3) * metres
        stage.add(*_box_mesh(half, cos, sin, centre), material)
    elif kind == "rail":
        v = low[1] + extent[1] * g.uniform(0.3, 0.85)
        a = camera.place(low[0] - extent.max(), v + g.normal(0, 0.1) * extent[1], depth)
        b = camera.place(high[0] + extent.max(), v + g.normal(0, 0.1) * extent[1], depth)
        for step in range(int(g.integers(1, 4))):
            down = np.array([0, -0.22 * step, 0])
            stage.add(*_tube_mesh(extent.max() * g.uniform(0.015, 0.05) * metres, a + down, b + down), material)
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


def light_scene(g: np.random.Generator, world: sh.World, objects: sh.Objects, person: Figure) -> sh.Light:
    """Key, fill and ambient light, with the shadows that the objects cast."""
    azimuth = g.uniform(0, 2 * np.pi)
    height = g.uniform(0.35, 2.2)
    key = np.array([np.cos(azimuth), height, np.sin(azimuth)])
    key /= np.linalg.norm(key)
    hard = g.uniform(0.15, 0.8) if world.kind == sh.ROOM else 1.15 * g.random() ** 0.6
    warmth = g.uniform(-0.25, 0.35)
    sun = np.array([1 + warmth * 0.35, 1.0, 1 - warmth]) * 1.15 * hard
    sky = np.array([0.46, 0.5, 0.56]) * (1.1 - 0.6 * hard) * (1 - 0.3 * np.array([-1, 0, 1]) * warmth * g.random())
    bounce = sky * g.uniform(0.4, 0.9) * np.array([1.05, 1.0, 0.88])
    fill = np.array([-key[0] + 0.3 * g.normal(), 0.25, -key[2] + 0.3 * g.normal()])
    fill /= np.linalg.norm(fill)
    f32 = np.float32
    centre = (person.low + person.high) / 2
    radius = 0.55 * float(np.linalg.norm(person.high - person.low))
    side = np.cross([0.0, 1.0, 0.0], key)
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(-key, side), -key])  # x, y, z of the light's camera
    at = centre + SHADOW_DISTANCE * key
    rt = np.concatenate([axes, -(axes @ at)[:, None]], 1)
    focal = (SHADOW_SIZE / 2 - 3) * SHADOW_DISTANCE / radius
    shadow = np.zeros((SHADOW_SIZE, SHADOW_SIZE), f32)
    scratch = np.full(shadow.shape, -1, np.int32), np.zeros((*shadow.shape, 3), f32)
    seen = (objects.verts @ axes.T + rt[:, 3]).astype(f32)
    middle = SHADOW_SIZE / 2
    draw(seen, objects.faces, focal, focal, middle, middle, 0, True, scratch[0], shadow, scratch[1])
    # Ambient light lost under and beside the body: low parts spread over the floor.
    cell, pad = 0.04, 0.5
    low, high = person.low - pad, person.high + pad
    cells = int(np.ceil(max(high[0] - low[0], high[2] - low[2]) / cell))
    weight = np.exp(-person.verts[:, 1] / 0.12)
    u, v = ((person.verts[:, 0] - low[0]) / cell).astype(int), ((person.verts[:, 2] - low[2]) / cell).astype(int)
    dark = np.bincount(v * cells + u, weight, minlength=cells * cells).reshape(cells, cells).astype(f32)
    dark = 0.75 * (1 - np.exp(-cv2.GaussianBlur(dark, (0, 0), 2.2) / 1.1))
    return sh.Light(
        key.astype(f32),
        sun.astype(f32),
        fill.astype(f32),
        (np.array([0.14, 0.15, 0.17]) * g.uniform(0.2, 1.2)).astype(f32),
        sky.astype(f32),
        bounce.astype(f32),
        shadow,
        rt.astype(f32),
        float(focal),
        float(g.uniform(0.8, 3.0)),
        dark.astype(f32),
        float(low[0]),
        float(low[2]),
        1 / cell,
    )


def _background(
    g: np.random.Generator,
    studio: Studio,
    camera: Camera,
    world: sh.World,
    light: sh.Light,
    defocus: float,
    covered: NDArray[np.bool_],
) -> Picture:
    """What lies behind everything, out of focus by a blur of `defocus` pixels, linear light (H, W, 3).

    What no visible pixel takes its colour from, given the pixels (H, W) that objects cover whole, is left black.
    """
    if world.kind == sh.BACKDROP:
        image = _photo_background(g, studio, camera.size)
    else:
        # A blurred background holds no more than half of the detail: cast half of the rays along each axis.
        step = 2 if defocus > 1.1 else 1
        fx, _, cx, cy = sample_intrinsics(camera.K, 1 / step)
        reach = round(4 * defocus) + step  # of the blur's kernel, and of the interpolation
        near = cv2.dilate(1 - covered.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
        rays = np.zeros((camera.size // step, camera.size // step, 3), np.float32)
        turn, eye = camera.turn.astype(np.float32), camera.eye.astype(np.float32)
        seen = near[::step, ::step] > 0
        sh.cast_surroundings(fx, cx, cy, turn, eye, world, light, studio.noise, studio.tiles, seen, rays)
        image = rays
        if step > 1:
            image = cv2.resize(rays, (camera.size, camera.size), interpolation=cv2.INTER_LINEAR)
            defocus = np.sqrt(defocus**2 - 0.7)  # the interpolation has blurred a little already
    return cv2.GaussianBlur(image, (0, 0), defocus) if defocus else image


def _photo_background(g: np.random.Generator, studio: Studio, size: int) -> Picture:
    """A random cut of a photograph, or soft colour noise, linear light."""
    if g.random() < 0.25:
        image: Picture = np.zeros((size, size, 3), np.float32)
        for octave in (2, 4, 8, 16, 48):
            layer = cv2.resize(g.random((octave, octave, 3), np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
            image += layer / (1 + octave**0.5)
        image = (image - image.min()) / (np.ptp(image) + 1e-6)
        image = image + g.uniform(0.5, 1.0) * (image.mean(-1, keepdims=True) - image)  # mostly muted
        return (np.clip(image, 0, 1) ** 2.2).astype(np.float32)
    photo = studio.photographs[g.integers(len(studio.photographs))]
    side = int(min(photo.shape[:2]) * g.uniform(0.35, 1.0))
    y, x = g.integers(photo.shape[0] - side + 1), g.integers(photo.shape[1] - side + 1)
    cut: Picture = cv2.resize(photo[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA)
    if g.random() < 0.5:
        cut = cut[:, ::-1]
    gains = g.uniform(0.75, 1.25, 3) * g.uniform(0.6, 1.3)
    return ((cut / np.float32(255)) ** 2.2 * gains).astype(np.float32)


def develop(g: np.random.Generator, image: Picture) -> Picture:
    """Turn linear light into a photograph: blur, exposure, white balance, curve, noise and JPEG traces."""
    if g.random() < 0.55:
        image = cv2.GaussianBlur(image, (0, 0), float(g.uniform(0.3, 1.0)))
    if g.random() < 0.08:
        length = int(g.integers(3, 8))
        kernel = np.zeros((length, length), np.float32)
        angle = g.uniform(0, np.pi)
        for t in np.linspace(-0.5, 0.5, 4 * length):
            row, col = (length - 1) * (0.5 + t * np.sin(angle)), (length - 1) * (0.5 + t * np.cos(angle))
            kernel[round(row), round(col)] += 1
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    quarter = image.shape[0] // 4
    metered = 0.4 * float(image.mean()) + 0.6 * float(image[quarter:-quarter, quarter:-quarter].mean())
    exposure = 0.2 * np.exp(0.3 * g.standard_normal()) / max(metered, 0.02)
    gains = float(np.clip(exposure, 0.35, 3.5)) * (1 + 0.07 * np.clip(g.standard_normal(3), -2, 2))
    gamma, contrast, grain = g.uniform(2.0, 2.4), g.uniform(0.9, 1.12), min(g.exponential(3.0), 14.0)
    out: Picture = sh.expose(image, gains.astype(np.float32), gamma, contrast, grain, int(g.integers(1 << 62)))
    if g.random() < 0.25:
        quality = int(g.integers(35, 90))
        coded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        out = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return out


@dataclass(frozen=True)
class Shot:
    """A picture and what is true in it."""

    image: Picture  # (H, W, 3) uint8 RGB
    camera: Camera
    person: Figure
    own: NDArray[np.bool_]  # (H · s, W · s) samples that show the person, dressed
    unhidden: int  # samples that would, if nothing stood in front

    @property
    def visible(self) -> NDArray[np.float32]:
        """Share of each pixel that shows the person, (H, W)."""
        return pool(self.own.astype(np.float32), SSAA)

    @property
    def hidden(self) -> float:
        """Share of the person inside of the frame that something else hides."""
        return 1 - np.count_nonzero(self.own) / max(self.unhidden, 1)


@dataclass(frozen=True)
class Company:
    """Who and what else is in a picture, decided before anything is made."""

    bystander: bool
    occluders: tuple[str, ...]

    @property
    def stranger(self) -> bool:
        """Whether another person has to be made."""
        return self.bystander or "stranger" in self.occluders


OCCLUDERS = {"block": 0.27, "bar": 0.2, "crate": 0.23, "rail": 0.1, "stranger": 0.2}


def company(config: SyntheticConfig, index: int) -> Company:
    """Draw the company of one person."""
    g = stream(config.seed, index, Stream.COMPANY)
    bystander = bool(g.random() < 0.1)
    if g.random() >= config.occlusion:
        return Company(bystander, ())
    kinds = g.choice(list(OCCLUDERS), size=1 + int(g.random() < 0.4), p=list(OCCLUDERS.values()))
    return Company(bystander, tuple(dict.fromkeys(str(kind) for kind in kinds)))


def shoot(studio: Studio, config: DatasetConfig, index: int, person: Person, other: Person | None) -> Shot:
    """Photograph a person; `other` is the stranger of its `company`, if there is one."""
    synthetic = config.synthetic
    camera = aim(stream(synthetic.seed, index, Stream.CAMERA), person, config)
    g = stream(synthetic.seed, index, Stream.SCENE)
    world = build_world(g, studio, person, camera)
    stage = Stage()
    add_person(stage, studio, person)
    own = sum(map(len, stage.faces))
    if person.support == Support.SEAT:
        add_seat(stage, g, studio, person)
    around = company(synthetic, index)
    if around.bystander and other is not None:
        add_bystander(stage, g, studio, person, camera, other)
    unoccluded = sum(map(len, stage.faces))
    for kind in around.occluders:
        add_occluder(stage, g, kind, studio, person, camera, other)
    return photograph(g, studio, stage, world, person, camera, own, unoccluded)


def photograph(
    g: np.random.Generator,
    studio: Studio,
    stage: Stage,
    world: sh.World,
    person: Figure,
    camera: Camera,
    own: int,
    unoccluded: int,
) -> Shot:
    """Take the picture of a stage whose first `own` faces are the person, and whose occluders follow `unoccluded`."""
    size = camera.size
    objects = stage.objects()
    samples = size * SSAA
    face = np.full((samples, samples), -1, np.int32)
    depth, bary = np.zeros(face.shape, np.float32), np.zeros((*face.shape, 3), np.float32)
    seen = sh.to_camera(objects.verts, camera.turn, camera.eye)
    intrinsics = sample_intrinsics(camera.K, SSAA)
    draw(seen, objects.faces[:own], *intrinsics, 0, True, face, depth, bary)
    unhidden = int(np.count_nonzero(face >= 0))
    draw(seen, objects.faces[own:], *intrinsics, own, True, face, depth, bary)
    mine = (face >= 0) & (face < own)
    if np.count_nonzero(mine) < LEAST_VISIBLE * unhidden:  # too little is left to see: take the occluders away
        objects = objects._replace(faces=objects.faces[:unoccluded], owner=objects.owner[:unoccluded])
        face[:], depth[:] = -1, 0
        draw(seen, objects.faces, *intrinsics, 0, True, face, depth, bary)
        mine = (face >= 0) & (face < own)
    light = light_scene(g, world, objects, person)
    turn, eye = camera.turn.astype(np.float32), camera.eye.astype(np.float32)
    defocus = float(g.uniform(0.4, 2.2)) if g.random() < 0.7 else 0.0
    shown = face >= 0
    covered = np.logical_and.reduce([shown[i::SSAA, j::SSAA] for i in range(SSAA) for j in range(SSAA)])
    image = _background(g, studio, camera, world, light, defocus, covered)
    materials = np.array(stage.materials or [np.zeros(sh.MAT_COUNT)], np.float32)
    sh.shade_objects(
        face,
        depth,
        bary,
        intrinsics[0],
        intrinsics[2],
        intrinsics[3],
        SSAA,
        turn,
        eye,
        objects,
        studio.marks,
        np.array(stage.looks, LOOK),
        materials,
        light,
        studio.noise,
        studio.tiles,
        len(SURFACES),
        world.seed,
        image,
    )
    photo = develop(g, image)
    return Shot(photo, camera, person, mine, unhidden)


def annotate(studio: Studio, shot: Shot, seed: int, index: int) -> Record:
    """The exact labels of a shot."""
    person, camera = shot.person, shot.camera
    size = camera.size
    joints = camera.see(studio.joints @ person.verts)
    pixels = joints[:, :2] / joints[:, 2:] * camera.focal + [camera.cx, camera.cy]
    inside = (joints[:, 2] > 0) & (pixels > -0.5).all(1) & (pixels < size - 0.5).all(1)
    low, high = (np.clip(corner, 0, size - 1) for corner in camera.span(person.verts)[:2])
    centre, half = (low + high) / 2, (high - low) / 2 * BOX_SCALE
    to_camera = camera.turn.T
    rot = person.rot.copy()
    rot[0] = to_camera @ rot[0]
    pose_aa = rotation_vector(rot)
    pose_aa[1:] -= studio.mean_pose
    rest_root = rest_joints(studio.skin, person.betas[None])[0, 0]
    transl = to_camera @ (rest_root + person.transl - camera.eye) - rest_root
    f32 = np.float32
    return Record(
        source="synthetic",
        frame=f"{seed}/{index:07d}",
        image=shot.image,
        box=np.concatenate([centre - half, 2 * half]).astype(f32),
        keypoints_2d=(np.concatenate([pixels, np.ones((len(pixels), 1))], 1) * inside[:, None]).astype(f32),
        joints_3d=np.concatenate([joints, np.ones((len(joints), 1))], 1).astype(f32),
        pose_aa=pose_aa.ravel().astype(f32),
        betas=person.betas.astype(f32),
        transl=transl.astype(f32),
        gender="neutral",
        intrinsics=camera.K.astype(f32),
        mesh_origin="synthetic",
    )


def photograph_people(config: DatasetConfig, body: BodyConfig, indices: Sequence[int]) -> Iterator[Shot]:
    """Shots of the people with these indices."""
    studio = open_studio(body, config.split)
    people = make_people(studio, config.synthetic, indices)
    strangers = [index for index in indices if company(config.synthetic, index).stranger]
    others = dict(zip(strangers, make_people(studio, config.synthetic, strangers, extra=True), strict=True))
    for index, person in zip(indices, people, strict=True):
        yield shoot(studio, config, index, person, others.get(index))
