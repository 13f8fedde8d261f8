"""The stage of the renderer: meshes that face outwards, rooms without holes, filters that do what they say."""

import cv2
import numpy as np
import pytest

from metro.config import BodyConfig, CropConfig, DatasetConfig
from metro.options import SyntheticOptions
from metro.synthetic import filters
from metro.synthetic.camera import aim
from metro.synthetic.light import light_scene
from metro.synthetic.people import make_people, open_studio
from metro.synthetic.shading import empty_layer
from metro.synthetic.stage import Stage, box, quad, tube
from metro.synthetic.streams import Stream, stream
from metro.synthetic.textures import noise_volume
from metro.synthetic.world import Kind, build_world

CONFIG = DatasetConfig(crop=CropConfig(box_px=64), options=SyntheticOptions(seed=5, count=40))
IMAGE = np.random.default_rng(0).random((37, 52, 3), np.float32)


@pytest.fixture(scope="module")
def worlds():
    """Worlds with the person and the camera they were built around."""
    studio = open_studio(BodyConfig(), "train")
    people = make_people(studio, CONFIG.chosen(SyntheticOptions), range(40))
    out = []
    for index, person in enumerate(people):
        camera = aim(stream(5, index, Stream.CAMERA), person, CONFIG)
        out.append((build_world(stream(5, index, Stream.SCENE), studio, person, camera), person, camera))
    return out


@pytest.mark.parametrize(
    "mesh",
    [
        box(np.array([0.2, 1.0, 0.5]), 0.8, 0.6, np.array([1.0, 1.0, -2.0])),
        tube(0.1, np.array([0.0, -0.5, 1.0]), np.array([0.3, 4.0, 1.0])),
        quad(np.array([0.0, 0, 1]), np.array([2.0, 0, 0]), np.array([0, 1.0, 0]), np.eye(3)),
    ],
)
def test_faces_run_anticlockwise_around_their_normals(mesh):
    a, b, c = (mesh.verts[mesh.faces[:, k]] for k in range(3))
    turn = np.cross(b - a, c - a)
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1)
    assert ((turn * mesh.normals[mesh.faces].mean(1)).sum(1) > 0.9).all()


def test_a_box_has_its_corners_and_its_texture_lies_flat():
    half = np.array([0.2, 1.0, 0.5])
    mesh = box(half, 1.0, 0.0, np.zeros(3))
    assert {tuple(v) for v in mesh.verts} == {(x, y, z) for x in (-0.2, 0.2) for y in (-1.0, 1.0) for z in (-0.5, 0.5)}
    for i, j, k in mesh.faces:  # a metre of the surface is a metre of its texture
        for p, q in ((i, j), (j, k)):
            apart = np.linalg.norm(mesh.verts[p] - mesh.verts[q])
            assert np.linalg.norm(mesh.rest[p] - mesh.rest[q]) == pytest.approx(apart)


def test_rooms_are_closed_and_only_they_are(worlds):
    kinds = []
    for world, _, camera in worlds:
        kinds.append(world.kind)
        layer = empty_layer(camera, camera.size)
        layer.draw(camera, world.stage.objects())
        if world.kind == Kind.ROOM:
            assert (layer.face >= 0).all()
        elif world.kind == Kind.BACKDROP:
            assert (layer.face < 0).all()
        else:  # the ground ends at the horizon
            rows = np.arange(camera.size)
            rays = np.stack([camera.ray(col, row) for row in rows for col in (0, camera.size - 1)])
            down = (rays @ camera.turn.T)[:, 1].reshape(-1, 2)
            ends = layer.face[:, [0, -1]]
            assert (ends[down < -0.01] >= 0).all()
            assert set(ends[down > 0.5]) <= {-1}  # no block is so tall and so near
    assert set(kinds) == set(Kind)


def test_nothing_of_the_surroundings_stands_before_the_person(worlds):
    for world, person, camera in worlds:
        objects = world.stage.objects()
        layer = empty_layer(camera, camera.size)
        layer.draw(camera, objects)
        seen = camera.see(person.verts)
        cols, rows = np.rint(seen[:, :2] / seen[:, 2:] * camera.focal + [camera.cx, camera.cy]).astype(int).T
        inside = (cols >= 0) & (cols < camera.size) & (rows >= 0) & (rows < camera.size)
        inside &= person.verts[:, 1] > 0.02  # soles touch the floor
        shown = layer.face[rows[inside], cols[inside]] >= 0
        depth = layer.depth[rows[inside], cols[inside]]
        assert (depth[shown] > seen[inside, 2][shown] - 0.02).all()


def test_the_floor_is_dark_under_the_body_and_at_the_feet_of_things(worlds):
    from metro.synthetic.light import floor_light

    world, person, _ = next(w for w in worlds if len(w[0].feet) and w[1].low[1] < 0.01)
    light = light_scene(np.random.default_rng(0), True, world.feet, Stage().objects(), person)
    lowest = person.verts[person.verts[:, 1].argmin()]
    x, z, half_x, _, cos, sin = (float(v) for v in world.feet[0])
    beside = half_x + 0.02
    assert floor_light(float(lowest[0]), float(lowest[2]), light) < 0.8
    assert floor_light(x + cos * beside, z - sin * beside, light) < 0.6
    assert floor_light(500.0, 500.0, light) == 1


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.2])
def test_blur_is_gaussian(sigma):
    expected = cv2.GaussianBlur(IMAGE, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(filters.blur(IMAGE, sigma), expected, atol=0.004)


def test_resizing_enlarges_linearly_and_averages_when_shrinking():
    expected = cv2.resize(IMAGE, (104, 74), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(filters.resize(IMAGE, 74, 104), expected, atol=1e-5)
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None, :, None] * np.ones((64, 1, 3), np.float32)
    small = filters.resize(ramp, 16, 16)
    np.testing.assert_allclose(small[:, 1:-1], ramp.reshape(16, 4, 16, 4, 3).mean((1, 3))[:, 1:-1], atol=1e-5)
    assert filters.resize(IMAGE, 5, 5).std() < IMAGE.std() / 4


def test_smearing_moves_and_averages():
    point = np.zeros((9, 9, 1), np.float32)
    point[4, 4] = 1
    out = filters.smear(point, np.array([[0, -1], [0, 0], [0, 1], [0, 2]]))
    expected = np.zeros((9, 9))
    expected[4, 2:6] = 0.25
    np.testing.assert_array_equal(out[..., 0], expected)


def test_noise_is_what_fourier_would_filter():
    white = np.random.Generator(np.random.Philox(key=20210624)).standard_normal((32, 32, 32))
    axis = np.fft.fftfreq(32) * 32
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    spectrum = np.where((radius > 1.5) & (radius < 14), np.maximum(radius, 1) ** -1.6, 0.0)
    value = np.fft.ifftn(np.fft.fftn(white) * spectrum).real
    expected = np.clip(0.5 + 0.2 * value / value.std(), 0, 1)
    np.testing.assert_allclose(noise_volume().value, expected, atol=1e-6)
