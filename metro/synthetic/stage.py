"""What is put before the camera: meshes, and what they are painted with, collected for one picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metro.synthetic import exact
from metro.synthetic.looks import LOOK, Look
from metro.synthetic.materials import MATERIAL, Material

Array = NDArray[np.float64]
Floats = NDArray[np.float32]


class Mesh(NamedTuple):
    """A mesh in the world: faces are anticlockwise seen from outside."""

    verts: Array  # (V, 3)
    normals: Array  # (V, 3)
    rest: Array  # (V, 3) place on the surface, metres: what its colour depends on
    faces: NDArray[np.integer]  # (F, 3)


class Objects(NamedTuple):
    """All meshes of a stage as one. A face's owner is a look (0 …) or a material (-1, -2, …)."""

    verts: Floats  # (V, 3) world
    normals: Floats  # (V, 3) world
    rest: Floats  # (V, 3) place on the rest pose of a person, or on the surface of a thing
    faces: NDArray[np.int32]  # (F, 3)
    owner: NDArray[np.int32]  # (F,) index of the look, or -1 - index of the material
    looks: NDArray[np.void]  # (P,) of LOOK
    materials: NDArray[np.void]  # (M,) of MATERIAL


@dataclass
class Stage:
    """Meshes, looks and materials collected for one picture."""

    verts: list[NDArray[np.floating]] = field(default_factory=list)
    normals: list[NDArray[np.floating]] = field(default_factory=list)
    rest: list[NDArray[np.floating]] = field(default_factory=list)
    faces: list[NDArray[np.integer]] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)  # of each mesh
    materials: list[Material] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    count: int = 0

    def dress(self, look: Look) -> int:
        """Add a look; returns its number as an owner."""
        self.looks.append(look)
        return len(self.looks) - 1

    def paint(self, material: Material) -> int:
        """Add a material; returns its number as an owner."""
        self.materials.append(material)
        return -len(self.materials)

    def add(
        self,
        verts: NDArray[np.floating],
        normals: NDArray[np.floating],
        rest: NDArray[np.floating],
        faces: NDArray[np.integer],
        owner: int,
    ) -> None:
        """Add a mesh that belongs to a look or a material."""
        self.verts.append(verts)
        self.normals.append(normals)
        self.rest.append(rest)
        self.faces.append(faces + self.count)
        self.owner.append(owner)
        self.count += len(verts)

    @property
    def num_faces(self) -> int:
        """Faces so far."""
        return sum(map(len, self.faces))

    def objects(self) -> Objects:
        """All meshes as one."""
        none = [np.zeros((0, 3))]
        return Objects(
            np.concatenate(self.verts or none, dtype=np.float32),
            np.concatenate(self.normals or none, dtype=np.float32),
            np.concatenate(self.rest or none, dtype=np.float32),
            np.concatenate(self.faces or none, dtype=np.int32, casting="unsafe"),
            np.repeat(np.array(self.owner, np.int32), [len(faces) for faces in self.faces]),
            np.array(self.looks, LOOK),
            np.array(self.materials, MATERIAL),
        )


# Signs of a quad's corners along its two sides, anticlockwise seen from where their cross product points.
_CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
_QUAD = np.array([[0, 1, 2], [0, 2, 3]])
# A box of half size 1: per corner of its six quads the axis and side that it faces, and its signs.
_AXIS, _SIDE = np.repeat([0, 0, 1, 1, 2, 2], 4), np.tile(np.repeat([-1, 1], 4), 3)
_SIGNS = np.empty((24, 3))
_SIGNS[np.arange(24), _AXIS] = _SIDE
_SIGNS[np.arange(24), (_AXIS + 1) % 3] = _SIDE * np.tile(_CORNERS[:, 0], 6)
_SIGNS[np.arange(24), (_AXIS + 2) % 3] = np.tile(_CORNERS[:, 1], 6)
_FACING = np.eye(3)[_AXIS] * _SIDE[:, None]
_BOX = (4 * np.arange(6)[:, None, None] + _QUAD).reshape(12, 3)


def about_y(cos: float, sin: float) -> Array:
    """The turn (3, 3) about the vertical by an angle with this cosine and sine."""
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def unit(vector: Array) -> Array:
    """A vector (3,) scaled to length 1."""
    x, y, z = vector
    return vector / np.sqrt(x * x + y * y + z * z)


def cross(a: Array, b: Array) -> Array:
    """Cross product of two vectors (3,)."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def quad(centre: Array, right: Array, up: Array, rest: Array) -> Mesh:
    """A rectangle with half sides `right` and `up` (3,), seen from where right x up points.

    `rest` (3, 3): its middle's place on the surface, and how that changes along the half sides.
    """
    s, t = _CORNERS[:, :1], _CORNERS[:, 1:]
    normals = np.repeat(unit(cross(right, up))[None], 4, 0)
    return Mesh(centre + s * right + t * up, normals, rest[0] + s * rest[1] + t * rest[2], _QUAD)


def box(half: Array, cos: float, sin: float, centre: Array, serial: int = 0) -> Mesh:
    """A box turned about the vertical; `serial` tells its surface apart from those of other boxes."""
    turn = about_y(cos, sin).T
    verts = _SIGNS * half
    u = np.where(_AXIS == 0, verts[:, 2], verts[:, 0])
    v = np.where(_AXIS == 1, verts[:, 2], verts[:, 1])
    rest = np.stack([u, v, _AXIS + _SIDE + serial], 1)
    return Mesh(exact.matmul(verts, turn) + centre, exact.matmul(_FACING, turn), rest, _BOX)


def tube(radius: float, low: Array, high: Array, sides: int = 14) -> Mesh:
    """A round bar from `low` to `high`."""
    along = high - low
    length = np.sqrt((along * along).sum())
    along = along / length
    a = unit(cross(along, np.array([0.0, 0.0, 1.0] if abs(along[2]) < 0.9 else [1.0, 0.0, 0.0])))
    b = cross(along, a)
    angle = 2 * np.pi / sides * np.arange(sides)
    ring = exact.cos(angle)[:, None] * a + exact.sin(angle)[:, None] * b
    verts = np.concatenate([low + radius * ring, high + radius * ring])
    rest = np.concatenate(
        [np.stack([angle * radius, np.full(sides, end * length), np.zeros(sides)], 1) for end in (0.0, 1.0)]
    )
    k = np.arange(sides)
    n = (k + 1) % sides
    faces = np.concatenate([np.stack([k, n, n + sides], 1), np.stack([k, n + sides, k + sides], 1)])
    return Mesh(verts, np.concatenate([ring, ring]), rest, faces)
