from __future__ import annotations

import numpy as np
import pytest
import trimesh

from metro.mesh.topology import adjacency, boundary_edges, edges, euler, is_manifold, is_watertight, vertex_normals

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
ICOSPHERE = np.array(trimesh.creation.icosphere(1).faces)
BREAKS = {
    "a hole": (ICOSPHERE[1:], False, True, 1),
    "a turned face": (np.r_[ICOSPHERE[:1, ::-1], ICOSPHERE[1:]], False, False, 2),
    "a doubled face": (np.r_[ICOSPHERE, ICOSPHERE[:1]], False, False, 3),
    "a degenerate face": (np.r_[ICOSPHERE, [[0, 0, 1]]], False, False, None),
    # Two tetrahedra that share one vertex: every edge is fine, the vertex is not.
    "a pinched vertex": (np.r_[TETRAHEDRON, np.where(TETRAHEDRON == 0, 0, TETRAHEDRON + 3)], True, False, 3),
    "two parts": (np.r_[TETRAHEDRON, TETRAHEDRON + 4], True, True, 4),
    "nothing": (ICOSPHERE, True, True, 2),
}


@pytest.mark.parametrize("name", BREAKS)
def test_checks_see_what_is_wrong(name):
    faces, watertight, manifold, characteristic = BREAKS[name]
    assert is_watertight(faces) == watertight
    assert is_manifold(faces) == manifold
    if characteristic is not None:
        assert euler(faces) == characteristic


def test_edges_and_adjacency_agree_with_trimesh():
    mesh = trimesh.creation.icosphere(1)
    np.testing.assert_array_equal(edges(mesh.faces), np.unique(np.sort(mesh.edges_unique, axis=1), axis=0))
    linked = adjacency(mesh.faces, len(mesh.vertices))
    assert [sorted(row.indices) for row in linked] == [sorted(n) for n in mesh.vertex_neighbors]


def test_boundary_runs_along_the_removed_face():
    removed = ICOSPHERE[5]
    border = {tuple(edge) for edge in boundary_edges(np.delete(ICOSPHERE, 5, axis=0)).tolist()}
    a, b, c = removed.tolist()
    assert border == {(b, a), (c, b), (a, c)}
    assert not len(boundary_edges(ICOSPHERE))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vertex_normals_are_the_sum_of_the_faces_areas(dtype):
    mesh = trimesh.creation.icosphere(2)
    verts = (mesh.vertices * [1, 2, 0.5] + np.random.default_rng(0).normal(0, 0.02, mesh.vertices.shape)).astype(dtype)
    lonely = np.r_[verts, [[9, 9, 9]]].astype(dtype)
    expected = np.zeros(lonely.shape)
    for a, b, c in mesh.faces:
        expected[[a, b, c]] += np.cross(lonely[b] - lonely[a], lonely[c] - lonely[a])
    expected[:-1] /= np.linalg.norm(expected[:-1], axis=1, keepdims=True)
    normals = vertex_normals(lonely, mesh.faces)
    assert normals.dtype == dtype
    np.testing.assert_allclose(normals, expected, atol=100 * np.finfo(dtype).eps)


def test_vertex_normals_of_a_sphere_point_outwards():
    mesh = trimesh.creation.icosphere(3)
    np.testing.assert_allclose(vertex_normals(np.array(mesh.vertices), mesh.faces), mesh.vertices, atol=0.02)
