"""The rasteriser against a ray caster that tries every triangle, and against the kernel of the renderer."""

import numpy as np
import pytest

from metro.body.load import load_body
from metro.mesh.topology import vertex_normals
from metro.synthetic.raster import draw
from metro.viz import raster as module
from metro.viz.raster import NEAR, Raster, pool, rasterise, render_mesh, sample_intrinsics, smooth_normals

K = np.array([[30.0, 0, 15.3], [0, 33.0, 11.8], [0, 0, 1]])
SIZE = (32, 24)


def octahedra(g, count):
    """Small closed meshes in front of the camera."""
    verts = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    all_verts, all_faces = [], []
    for k in range(count):
        turn, _ = np.linalg.qr(g.normal(size=(3, 3)))
        turn *= np.sign(np.linalg.det(turn))
        centre = np.array([g.uniform(-1, 1), g.uniform(-0.8, 0.8), g.uniform(2, 4)])
        all_verts.append(verts * g.uniform(0.2, 0.7, 3) @ turn.T + centre)
        all_faces.append(faces + 6 * k)
    return np.concatenate(all_verts).astype(np.float32), np.concatenate(all_faces)


def cast(verts, faces, k, size, cull):
    """Nearest hit of the ray through every pixel centre, by Möller and Trumbore's test."""
    u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones(u.shape)], -1)
    best, index = np.full(u.shape, np.inf), np.full(u.shape, -1)
    for f, (a, b, c) in enumerate(verts.astype(float)[faces]):
        p = np.cross(rays, c - a)
        det = p @ (b - a)
        facing = det > 0 if cull else np.abs(det) > 0
        det = np.where(det == 0, 1, det)
        beta = p @ -a / det
        q = np.cross(-a, b - a)
        gamma = rays @ q / det
        depth = (c - a) @ q / det
        hit = facing & (beta >= 0) & (gamma >= 0) & (beta + gamma <= 1) & (depth >= NEAR) & (depth < best)
        best, index = np.where(hit, depth, best), np.where(hit, f, index)
    return index, np.where(np.isinf(best), 0, best)


def interpolate(raster, attributes, faces):
    """Vertex attributes at the samples; 0 outside of the mesh."""
    corners = np.asarray(attributes, float)[faces[raster.face]]
    return (raster.bary[..., None] * corners).sum(2) * (raster.face >= 0)[..., None]


def by_kernel(verts, faces, k, size, ssaa, cull):
    """What numba draws."""
    shape = size[1] * ssaa, size[0] * ssaa
    raster = Raster(np.full(shape, -1, np.int32), np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32))
    intrinsics = sample_intrinsics(k, ssaa)
    draw(verts, faces.astype(np.int32), *intrinsics, 0, cull, raster.face, raster.depth, raster.bary)
    return raster


def meshes():
    """Small triangles and large ones, some through the near plane or behind the camera; a body."""
    for seed in range(4):
        verts, faces = octahedra(np.random.default_rng(seed), 5)
        yield verts, faces, K, SIZE
        yield verts, faces, K * [[6], [6], [1]], (SIZE[0] * 6, SIZE[1] * 6)
        yield verts - np.float32([0, 0, 2.5]), faces, K, SIZE
    body = load_body("open")
    verts = (body.v_template * [1, -1, -1] + [0.1, 0.3, 3]).astype(np.float32)
    yield verts, body.faces, np.array([[150.7, 0, 64.2], [0, 149.1, 80.9], [0, 0, 1]]), (128, 160)


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize("ssaa", [1, 2])
def test_the_same_bits_as_the_kernel_of_synthetic_people(ssaa, cull, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 999)  # more than one piece
    for verts, faces, k, size in meshes():
        ours, theirs = rasterise(verts, faces, k, size, ssaa, cull), by_kernel(verts, faces, k, size, ssaa, cull)
        assert (ours.face >= 0).sum() > 50
        np.testing.assert_array_equal(ours.face, theirs.face)
        np.testing.assert_array_equal(ours.depth, theirs.depth)
        np.testing.assert_array_equal(ours.bary, theirs.bary)
        np.testing.assert_array_equal(smooth_normals(verts, faces), vertex_normals(verts, faces))


def test_a_picture_is_the_same_in_bands(monkeypatch):
    verts, faces, k, size = list(meshes())[-1]
    whole = render_mesh(verts, faces, k, size)
    monkeypatch.setattr(module, "BAND", 7 * 4 * size[0])
    np.testing.assert_array_equal(render_mesh(verts, faces, k, size), whole)


@pytest.mark.parametrize("zoom", [1, 6])  # triangles of a few pixels, and such that rows are narrowed to
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_ray_caster(seed, zoom):
    verts, faces = octahedra(np.random.default_rng(seed), 5)
    k, size = K * [[zoom], [zoom], [1]], (SIZE[0] * zoom, SIZE[1] * zoom)
    raster = rasterise(verts, faces, k, size, ssaa=1)
    index, depth = cast(verts, faces, k, size, cull=True)
    assert (raster.face == index).mean() > 0.995  # rays that graze an edge may go either way
    same = (raster.face == index) & (index >= 0)
    np.testing.assert_allclose(raster.depth[same], depth[same], rtol=1e-5)


def test_triangles_that_cross_the_near_plane_are_drawn_where_they_are_seen():
    verts = np.array([[-2, 0.3, 3], [2, 0.3, 3], [0.3, 0.3, -1]], np.float32)  # a floor that runs under the camera
    faces = np.array([[0, 2, 1]])
    raster = rasterise(verts, faces, K, SIZE, ssaa=1, cull=False)
    index, depth = cast(verts, faces, K, SIZE, cull=False)
    assert (raster.face >= 0).sum() > 50
    np.testing.assert_array_equal(raster.face, index)
    np.testing.assert_allclose(raster.depth, depth, rtol=1e-5)


def test_neighbouring_triangles_leave_no_gap_and_weights_sum_to_one():
    g = np.random.default_rng(0)
    n = 12
    x, y = np.meshgrid(np.linspace(-3, 3, n), np.linspace(-3, 3, n))
    verts = np.stack([x, y, 3 + 0.3 * g.random((n, n))], -1).reshape(-1, 3).astype(np.float32)
    a = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate([np.stack([a, a + n, a + 1], 1), np.stack([a + 1, a + n, a + n + 1], 1)])
    raster = rasterise(verts, faces, K, SIZE, ssaa=2, cull=False)
    assert (raster.face >= 0).all()
    np.testing.assert_allclose(raster.bary.sum(-1), 1, atol=1e-5)


def test_interpolation_is_perspective_correct():
    verts, faces = octahedra(np.random.default_rng(9), 3)
    raster = rasterise(verts, faces, K, SIZE, ssaa=1)
    hit = raster.face >= 0
    places = interpolate(raster, verts, faces)
    np.testing.assert_allclose(places[..., 2][hit], raster.depth[hit], rtol=1e-4)
    seen = places @ K.T
    v, u = np.nonzero(hit)
    np.testing.assert_allclose(seen[hit][:, 0] / seen[hit][:, 2], u, atol=2e-3)
    np.testing.assert_allclose(seen[hit][:, 1] / seen[hit][:, 2], v, atol=2e-3)


def test_supersampling_covers_the_same_area():
    square = np.array([[-0.5, -0.5, 2], [0.5, -0.5, 2], [0.5, 0.5, 2], [-0.5, 0.5, 2]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    raster = rasterise(square, faces, K, SIZE, ssaa=4, cull=False)
    coverage = pool((raster.face >= 0).astype(float), 4)
    assert coverage.sum() == pytest.approx(15 * 16.5, rel=0.03)  # fx / z by fy / z pixels


def test_render_leaves_the_background_where_the_mesh_is_not():
    verts, faces = octahedra(np.random.default_rng(2), 2)
    background = np.random.default_rng(3).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    picture = render_mesh(verts, faces, K, SIZE, background=background)
    empty = pool((rasterise(verts, faces, K, SIZE).face >= 0).astype(float), 2) == 0
    assert empty.any()
    assert not empty.all()
    np.testing.assert_array_equal(picture[empty], background[empty])
    assert (picture[~empty] != background[~empty]).any(-1).mean() > 0.9


def test_light_against_whole_arrays():
    """The same picture from arrays of all samples: three lights, averaged over the samples of a pixel."""
    g = np.random.default_rng(4)
    verts, faces = octahedra(g, 4)
    colours, background = g.random(verts.shape), g.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    light = np.array([0.3, -0.5, -0.8]) / np.linalg.norm([0.3, -0.5, -0.8])
    raster = rasterise(verts, faces, K, SIZE, ssaa=3)
    normals = interpolate(raster, vertex_normals(verts, faces), faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    strength = 0.3 + 0.5 * np.maximum(normals @ light, 0) + 0.2 * np.maximum(-normals[..., 2], 0)
    lit = interpolate(raster, colours, faces) * strength[..., None]
    empty = pool((raster.face < 0).astype(float), 3)[..., None]
    expected = np.clip(np.rint(255 * pool(lit, 3) + background * empty), 0, 255)
    picture = render_mesh(verts, faces, K, SIZE, colours, background, light, ssaa=3)
    assert np.abs(picture - expected).max() <= 1  # rounding
    assert (picture == expected).mean() > 0.99


def test_pool_averages_blocks():
    image = np.arange(32.0).reshape(4, 8)
    np.testing.assert_array_equal(pool(image, 2)[0], [4.5, 6.5, 8.5, 10.5])
