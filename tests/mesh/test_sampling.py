from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from metro.body.load import load_body
from metro.errors import MetroError
from metro.mesh.sampling import build_sampling, compose_indices, load_meta, load_sampling, save_sampling
from metro.mesh.topology import euler, is_manifold, is_watertight


@pytest.fixture(scope="module")
def body():
    return load_body("open")


@pytest.fixture(scope="module")
def levels(body):
    return build_sampling(body.v_template, body.faces)


@pytest.fixture(scope="module")
def small():
    mesh = trimesh.creation.icosphere(2)
    return build_sampling(mesh.vertices, mesh.faces, (41, 12))


def test_body_levels_have_the_published_sizes_and_topology(levels):
    assert [len(level.indices) for level in levels] == [1723, 431]
    assert [len(level.faces) for level in levels] == [3442, 858]
    assert [level.up.shape for level in levels] == [(6890, 1723), (1723, 431)]
    for level in levels:
        assert is_watertight(level.faces)
        assert is_manifold(level.faces)
        assert euler(level.faces) == 2


def test_hand_level_stays_a_disc():
    hand = load_body("open_hand")
    (level,) = build_sampling(hand.v_template, hand.faces, (195,))
    assert len(level.indices) == 195
    assert is_manifold(level.faces)
    assert euler(level.faces) == 1


def test_levels_cover_every_part_of_the_body(body, levels):
    part = body.weights.argmax(axis=1)
    for indices in compose_indices(levels):
        assert set(part[indices]) == set(range(24))


def test_coarse_surface_stays_near_the_template(body, levels):
    fine = body.v_template.astype(float)
    for level, tolerance in zip(levels, (0.005, 0.02), strict=True):
        lifted = level.up @ fine[level.indices]
        assert np.linalg.norm(lifted - fine, axis=1).max() < tolerance  # metres
        fine = fine[level.indices]


@given(st.integers(0, 2**32 - 1), st.floats(-5, 5))
@settings(max_examples=20, deadline=None)
def test_up_sampling_follows_affine_maps(small, seed, shift):
    generator = np.random.default_rng(seed)
    linear = generator.normal(size=(3, 3))
    for level in small:
        coarse = generator.normal(size=(len(level.indices), 3))
        moved = level.up @ (coarse @ linear + shift)
        np.testing.assert_allclose(moved, level.up @ coarse @ linear + shift, atol=1e-12)


def test_up_sampling_copies_kept_vertices(small, levels):
    for level in (*small, *levels):
        coarse = np.random.default_rng(0).normal(size=(len(level.indices), 3))
        np.testing.assert_array_equal((level.up @ coarse)[level.indices], coarse)


def test_up_sampling_puts_every_vertex_on_a_face(small):
    for level in small:
        faces = [set(face) for face in level.faces.tolist()]
        assert level.up.data.min() > 0
        for row in level.up:
            assert any(set(row.indices.tolist()) <= face for face in faces)


def test_composed_indices_select_the_coarse_vertices(body, levels):
    first, second = compose_indices(levels)
    step = body.v_template[levels[0].indices]
    np.testing.assert_array_equal(body.v_template[first], step)
    np.testing.assert_array_equal(body.v_template[second], step[levels[1].indices])


def test_file_returns_what_was_saved_and_is_the_same_each_time(tmp_path, small):
    save_sampling(tmp_path / "a.npz", small, {"kind": "sphere"})
    save_sampling(tmp_path / "deep" / "b.npz", small, {"kind": "sphere"})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "deep" / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "deep"]
    assert load_meta(tmp_path / "a.npz") == {"kind": "sphere"}
    for saved, loaded in zip(small, load_sampling(tmp_path / "a.npz"), strict=True):
        np.testing.assert_array_equal(loaded.indices, saved.indices)
        np.testing.assert_array_equal(loaded.faces, saved.faces)
        assert (loaded.up != saved.up).nnz == 0


def test_unreadable_files_say_so(tmp_path, small):
    path = tmp_path / "sampling.npz"
    with pytest.raises(MetroError, match="missing; the `sampling` stage makes it"):
        load_sampling(path)
    save_sampling(path, small)
    whole = path.read_bytes()
    damaged = {"damaged": whole[: len(whole) // 2], "is empty": b"", "is text": b"not a zip"}
    for said, content in damaged.items():
        path.write_bytes(content)
        with pytest.raises(MetroError, match=rf"sampling\.npz: {said}.*; the `sampling` stage makes it"):
            load_sampling(path)
    np.savez(path, v_template=np.zeros(3))
    with pytest.raises(MetroError, match=r"damaged \(KeyError: 'header'\)"):
        load_sampling(path)
    save_sampling(path, [small[0], small[0]])
    with pytest.raises(MetroError, match="do not fit together"):
        load_sampling(path)


@pytest.mark.parametrize("sizes", [(200,), (100, 100), (50, 60)])
def test_sizes_must_descend(sizes):
    mesh = trimesh.creation.icosphere(2)
    with pytest.raises(MetroError, match="descend"):
        build_sampling(mesh.vertices, mesh.faces, sizes)
