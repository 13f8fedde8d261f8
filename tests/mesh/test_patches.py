"""Patches along the surface of a mesh."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from metro.errors import MetroError
from metro.mesh.patches import NEAREST, make_patches


def sheet(rows: int, columns: int, fold: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A sheet of squares of 1 m, cut into triangles; after column `fold` it comes back 0.1 m above itself."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    z = np.zeros_like(x, float)
    if fold is not None:
        back = x > fold
        x, z = np.where(back, 2 * fold + 1 - x, x), np.where(back, 0.1, 0.0)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    first = np.column_stack([corner, corner + 1, corner + columns])
    second = np.column_stack([corner + 1, corner + columns + 1, corner + columns])
    return np.stack([x, y, z], -1).reshape(-1, 3).astype(float), np.concatenate([first, second])


def test_weights_fall_along_the_surface() -> None:
    vertices, faces = sheet(3, 9)
    middle = np.arange(9) + 9  # the row in the middle; every other vertex is 1 m from it
    members, blend = make_patches(vertices, faces, middle)
    way = abs(np.arange(9)[:, None] - np.arange(9))
    expected = np.where(way < 2, (1 - way / 2) ** 2, 0)  # they reach 2 m
    np.testing.assert_allclose(members, expected / expected.sum(1, keepdims=True), atol=1e-12)
    np.testing.assert_allclose(blend.toarray()[middle], members, atol=1e-12)
    np.testing.assert_allclose(blend.sum(1), 1)


def test_sheets_that_lie_on_one_another_share_no_patch() -> None:
    vertices, faces = sheet(2, 20, fold=9)
    middle = np.arange(0, 20, 2)
    members, blend = make_patches(vertices, faces, middle)
    below, above = (middle < 6), (middle > 13)
    assert members[np.ix_(below, above)].max() == 0
    assert blend.toarray()[:6][:, above].max() == 0


def test_a_vertex_follows_its_nearest_patches_alone() -> None:
    ball = trimesh.creation.icosphere(3)
    middle = np.arange(0, 642, 2)
    vertices = ball.vertices + np.random.default_rng(0).normal(0, 0.01, (642, 3))
    members, blend = make_patches(vertices, ball.faces, middle)
    assert np.diff(blend.indptr).max() == NEAREST
    own = blend[middle].toarray()
    assert (own.argmax(1) == np.arange(len(middle))).all()
    assert (members > 0).sum(1).min() >= 4


def test_a_part_without_coarse_vertices_is_refused() -> None:
    vertices, faces = sheet(2, 4)
    both, twice = np.concatenate([vertices, vertices + 5]), np.concatenate([faces, faces + 8])
    make_patches(both, twice, np.array([0, 9]))
    with pytest.raises(MetroError, match="a part of the mesh has no coarse vertex"):
        make_patches(both, twice, np.array([0, 3]))
