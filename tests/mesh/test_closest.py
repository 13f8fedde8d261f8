from __future__ import annotations

import numpy as np
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from metro.mesh.closest import closest_points


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 0.05, 0.3]))
@settings(max_examples=15, deadline=None)
def test_equals_the_minimum_over_all_faces(seed, noise):
    generator = np.random.default_rng(seed)
    mesh = trimesh.creation.icosphere(2)
    vertices = mesh.vertices * generator.uniform(0.1, 2, 3) + generator.normal(size=mesh.vertices.shape) * noise
    points = np.concatenate([generator.normal(size=(20, 3)), vertices[:5], vertices[mesh.faces[:5]].mean(axis=1)])
    found = closest_points(points, vertices, mesh.faces)
    for k, point in enumerate(points):
        everywhere = trimesh.triangles.closest_point(vertices[mesh.faces], np.tile(point, (len(mesh.faces), 1)))
        expected = np.linalg.norm(everywhere - point, axis=1).min()
        np.testing.assert_allclose(found.distance[k], expected, atol=1e-12)
    where = np.einsum("nk,nkc->nc", found.barycentric, vertices[mesh.faces[found.face]])
    np.testing.assert_allclose(np.linalg.norm(where - points, axis=1), found.distance, atol=1e-12)
    assert found.barycentric.min() >= 0
    np.testing.assert_allclose(found.barycentric.sum(axis=1), 1, atol=1e-15)


def test_faces_without_area_are_segments_and_points():
    vertices = np.array([[0, 0, 0], [2, 0, 0], [1, 0, 0], [5, 5, 5.0]])
    faces = np.array([[0, 1, 2], [3, 3, 3]])
    found = closest_points(np.array([[1.5, 1, 0], [5, 5, 7], [-3, 0, 4]]), vertices, faces)
    np.testing.assert_allclose(found.distance, [1, 2, 5])
    np.testing.assert_array_equal(found.face, [0, 1, 0])


def test_a_normal_selects_the_side_that_looks_its_way():
    # Two parallel squares back to back, 0.1 apart, the query nearer to the wrong one.
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    vertices = np.concatenate([square, square + np.array([0, 0, 0.1])])
    faces = np.array([[0, 2, 1], [0, 3, 2], [4, 5, 6], [4, 6, 7]])  # the lower one looks down, the upper one up
    query = np.array([[0.5, 0.4, 0.02]])
    assert closest_points(query, vertices, faces).face[0] < 2
    assert closest_points(query, vertices, faces, np.array([[0, 0, 1.0]])).face[0] >= 2
    sideways = closest_points(query, vertices, faces, np.array([[1.0, 0, 0]]))
    np.testing.assert_allclose(sideways.distance, 0.02)
