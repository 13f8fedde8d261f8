from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from metro.errors import MetroError
from metro.mesh.decimate import BITS, Collapse, decimate, face_plane, fixed_point, quadric_at, vertex_quadrics
from metro.mesh.topology import euler, is_manifold, is_watertight
from tests.mesh.coma_procedure import coma_procedure, plane_quadrics


def torus(around=16, across=9):
    i, j = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    u, v = 2 * np.pi * i.ravel() / around, 2 * np.pi * j.ravel() / across
    vertices = np.c_[(2 + np.cos(v)) * np.cos(u), (2 + np.cos(v)) * np.sin(u), np.sin(v)]
    index = np.arange(around * across).reshape(around, across)
    right, up = np.roll(index, -1, 0), np.roll(index, -1, 1)
    quads = np.stack([index, right, np.roll(right, -1, 1), up], axis=-1).reshape(-1, 4)
    return vertices, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def sphere(subdivisions=2):
    mesh = trimesh.creation.icosphere(subdivisions)
    return np.array(mesh.vertices), np.array(mesh.faces)


def cap():
    """A disc: the part of a sphere above a plane."""
    vertices, faces = sphere()
    faces = faces[(vertices[faces][:, :, 2] > -0.3).all(axis=1)]
    used, faces = np.unique(faces, return_inverse=True)
    return vertices[used], faces.reshape(-1, 3)


def grid_box(subdivisions=3):
    """A cube whose vertices lie on a dyadic grid."""
    box = trimesh.creation.box()
    for _ in range(subdivisions):
        box = box.subdivide()
    return np.array(box.vertices), np.array(box.faces)


SHAPES = {"sphere": sphere, "torus": torus, "cap": cap, "box": grid_box}


@st.composite
def meshes(draw):
    """A stretched, shaken and relabelled mesh of one of the kinds, and a number of vertices to keep."""
    vertices, faces = SHAPES[draw(st.sampled_from(sorted(SHAPES)))]()
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    edge = np.linalg.norm(vertices[faces[:, 0]] - vertices[faces[:, 1]], axis=1).min()
    shaken = vertices + generator.normal(size=vertices.shape) * draw(st.sampled_from([0.02, 0.1, 0.3])) * edge
    label = generator.permutation(len(vertices))
    relabelled = np.empty_like(shaken)
    relabelled[label] = shaken * generator.uniform(0.3, 2, 3)
    return relabelled, generator.permutation(label[faces]), int(len(vertices) * draw(st.floats(0.2, 0.9)))


@given(meshes())
@settings(max_examples=15, deadline=None)
def test_collapses_are_those_of_the_published_procedure(mesh):
    vertices, faces, count = mesh
    np.testing.assert_array_equal(Collapse(vertices, faces, guarded=False).run(count), coma_procedure(*mesh))


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("guarded", [False, True])
def test_on_symmetric_meshes_vertex_numbers_decide(shape, guarded):
    # Other orders of the faces, another size and the mirror image change what floating point rounds, and nothing else.
    vertices, faces = SHAPES[shape]()
    generator = np.random.default_rng(0)
    shuffled = np.array([np.roll(face, generator.integers(3)) for face in generator.permutation(faces)])
    twins = [(vertices, shuffled), (vertices * 2.0**-7, faces), (vertices * [-1, 1, 1], faces[:, ::-1])]
    expected = np.unique(Collapse(vertices, faces, guarded).run(len(vertices) // 3))
    for twin in twins:
        np.testing.assert_array_equal(np.unique(Collapse(*twin, guarded).run(len(vertices) // 3)), expected)


def test_exact_ties_follow_the_heap():
    # With planes of small integers every cost is exact in the twin's floating point too, and the flat sides of the cube
    # all cost nothing: the order of collapses is then decided by the heap alone, whose order the renaming disturbs.
    vertices, faces = grid_box()
    vertices = vertices * 16
    integer = np.round(plane_quadrics(vertices, faces))
    for count in (300, 150, 60):
        expected = coma_procedure(vertices, faces, count, quadrics=integer)
        np.testing.assert_array_equal(Collapse(vertices, faces, guarded=False).run(count), expected)


def test_planes_of_mirrored_faces_are_mirrored():
    a, b, c = fixed_point(np.random.default_rng(1).normal(size=(3, 3)))
    x, y, z, offset = face_plane(a, b, c)
    assert face_plane(b, c, a) == (x, y, z, offset)
    mirrored = [(-p[0], p[1], p[2]) for p in (a, c, b)]
    assert face_plane(*mirrored) == (-x, y, z, offset)
    assert face_plane(a, b, b) == (0, 0, 0, 0)


@given(meshes())
@settings(max_examples=40, deadline=None)
def test_result_is_a_sound_mesh_over_a_subset(mesh):
    vertices, faces, count = mesh
    indices, coarse = decimate(vertices, faces, count)
    assert len(indices) == count
    assert (np.diff(indices) > 0).all()
    assert indices[0] >= 0
    assert indices[-1] < len(vertices)
    np.testing.assert_array_equal(np.unique(coarse), np.arange(count))
    assert is_manifold(coarse)
    assert is_watertight(coarse) == is_watertight(faces)
    assert euler(coarse) == euler(faces)


@given(meshes())
@settings(max_examples=15, deadline=None)
def test_guard_leaves_sound_results_alone(mesh):
    vertices, faces, count = mesh
    free = Collapse(vertices, faces, guarded=False).run(count)
    indices, coarse = decimate(vertices, faces, count)
    sound = len(np.unique(free)) == count and is_manifold(free) and euler(free) == euler(faces)
    if sound and is_watertight(free) == is_watertight(faces):
        np.testing.assert_array_equal(indices[coarse], free)


def test_guard_is_needed_and_suffices():
    # On thin sheets with noise the free procedure folds faces onto each other, as it does on the open body's ears.
    generator = np.random.default_rng(3)
    torn = 0
    for _ in range(40):
        vertices, faces = torus()
        vertices = vertices * (1, 1, 0.05) + generator.normal(size=vertices.shape) * 0.05
        free = Collapse(vertices, faces, guarded=False).run(20)
        torn += not (is_manifold(free) and euler(free) == 0)
        assert euler(decimate(vertices, faces, 20)[1]) == 0
    assert torn


def test_quadrics_measure_squared_distances_to_planes():
    vertices, faces = torus()
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    point = np.array([0.3, -1.2, 0.7])
    offset = ((point - mesh.triangles[:, 0]) * mesh.face_normals).sum(axis=1)
    expected = np.zeros(len(vertices))
    for face, distance in zip(faces, offset, strict=True):
        expected[face] += distance**2
    *points, fixed = fixed_point(np.r_[vertices, [point]])
    unit = np.abs(vertices).max() / max(abs(x) for p in points for x in p)
    measured = [quadric_at(q, fixed) * 2.0 ** (-2 * BITS) * unit**2 for q in vertex_quadrics(points, faces)]
    np.testing.assert_allclose(measured, expected, rtol=1e-9)


@pytest.mark.parametrize("count", [2, 163])
def test_impossible_counts_are_refused(count):
    with pytest.raises(MetroError, match=f"cannot keep {count} of 162"):
        decimate(*sphere(), count)


def test_topology_sets_the_limit():
    # No triangulated torus has fewer than seven vertices.
    with pytest.raises(MetroError, match="without changing its topology"):
        decimate(*torus(), 6)


def test_stray_and_invalid_vertices_are_refused():
    vertices, faces = sphere()
    with pytest.raises(MetroError, match="stray"):
        decimate(np.r_[vertices, [[0, 0, 9]]], faces, 50)
    vertices[3, 1] = np.nan
    with pytest.raises(MetroError, match="not finite"):
        decimate(vertices, faces, 50)
