"""Attention drawn: colours on the mesh, lines over the picture."""

from __future__ import annotations

import numpy as np
import pytest

from metro.viz import attention as v
from tests.conftest import World


@pytest.fixture
def figure(world: World) -> v.Figure:
    upright = world.data.v_template * np.array([1, -1, -1])
    joints = (world.data.regressors["h36m17"] @ upright)[world.data.figure.token_rows]
    image = np.full((50, 50, 3), 128, np.uint8)
    return v.Figure(image, upright, world.data.faces, joints, np.array([0.9, 0.0, 0.2]), "J14", world.levels)


def test_attention_lands_on_its_vertices(world: World) -> None:
    """All weight on one coarse vertex colours exactly the full vertices that copy it."""
    weights = np.zeros(60)
    weights[17] = 1
    full = v.on_full_mesh(weights, world.levels)
    kept = v.coarse_rows(world.levels, world.data.num_vertices)[17]
    assert full[kept] == 1
    assert full[np.delete(np.arange(len(full)), v.coarse_rows(world.levels, len(full)))].max() <= 1
    assert full[np.delete(v.coarse_rows(world.levels, len(full)), 17)].max() == 0


def test_colours_are_grey_without_structure() -> None:
    even = v.colours(np.ones(50))
    assert np.ptp(even) < 0.04
    peak = v.colours(np.r_[np.ones(49), 10.0])
    assert peak[-1, 0] > 2 * peak[-1, 1]


def test_lines_go_from_the_joint_to_what_it_looks_at(figure: v.Figure) -> None:
    size, query, target = 200, 0, 14 + 30
    even = np.ones(74)
    nothing = figure.lines(query, even, size)
    times = even.copy()
    times[target] = 20.0
    drawn = figure.lines(query, times, size).astype(int)
    changed = np.abs(drawn - nothing).max(2) > 30
    a, b = figure.tokens(size)[[query, target]]
    column, row = ((a + b) / 2).round().astype(int)
    assert changed[row - 1 : row + 2, column - 1 : column + 2].any()
    away = (a + b) / 2 + 30 * np.array([b[1] - a[1], a[0] - b[0]]) / np.linalg.norm(b - a)
    column, row = away.round().astype(int)
    assert not changed[row - 3 : row + 4, column - 3 : column + 4].any()


def test_the_mesh_is_coloured_where_the_joint_looks(figure: v.Figure) -> None:
    times = np.ones(74)
    plain = figure.coloured(3, times, 120).astype(int)
    times[14:24] = 4.0
    coloured = figure.coloured(3, times, 120).astype(int)
    redder = (coloured[..., 0] - coloured[..., 2]) - (plain[..., 0] - plain[..., 2])
    assert redder.max() > 60
    assert redder.min() > -20
