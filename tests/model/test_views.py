"""Test-time augmentation: the way back from a view is the exact inverse of the view, and merging is what it says."""

from __future__ import annotations

import itertools
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from metro.body.joints import JOINT_SETS
from metro.config import ViewsConfig
from metro.data.loader import EvalPass
from metro.errors import MetroError
from metro.evaluation.measure import draws_of
from metro.export.bundle import bundle_of
from metro.export.networks import TorchNetwork
from metro.export.predictor import Predictor
from metro.model.views import PAPER, Views, mirror_vertices, views_of
from tests.conftest import World

RNG = np.random.default_rng(3)
FULL = ViewsConfig(scales=(0.8, 1.0, 1.25), rotations_deg=(-30.0, 0.0, 70.0), flip=True)


def opposite(name: str) -> str:
    return {"R": "L", "L": "R"}[name[0]] + name[1:] if name[:2] in ("R_", "L_") else name


def views(config: ViewsConfig, world: World) -> Views:
    found = views_of(config, "J14", partial(mirror_vertices, world.data.v_template, world.data.faces))
    assert found
    return found


def as_seen(points: dict[str, np.ndarray], scale: float, turn: float, flip: bool) -> dict[str, np.ndarray]:
    """What a perfect network says of a person whose picture is turned counter-clockwise, then mirrored; y is down."""
    moved = {name: Rotation.from_euler("z", -turn, degrees=True).apply(point) for name, point in points.items()}
    if not flip:
        return moved
    return {opposite(name): point * [-1, 1, 1] for name, point in moved.items()}


def test_predictions_of_a_perfect_network_come_back_exactly(world: World) -> None:
    some, names = views(FULL, world), JOINT_SETS["J14"]
    assert len(some) == 18
    assert (some.scale_K[0], some.rotation_K[0], some.flip_K[0]) == (1, 0, False)
    joints = {name: RNG.normal(size=3) for name in names}
    vertices_V3 = RNG.normal(size=world.data.v_template.shape)
    s, t_2 = 0.9, np.array([0.2, -0.1])
    place_2 = s * (joints["R_Wrist"][:2] + t_2)
    rows = []
    for scale, turn, flip in zip(some.scale_K, some.rotation_K, some.flip_K, strict=True):
        seen = as_seen(joints, scale, turn, flip)
        mesh = Rotation.from_euler("z", -turn, degrees=True).apply(vertices_V3)
        if flip:  # each vertex is where its partner was, in the mirror
            mirrored = np.empty_like(mesh)
            mirrored[some.mirror_V] = mesh * [-1, 1, 1]
            mesh = mirrored
        # The camera puts the wrist where it is in the turned, mirrored picture of a larger box.
        turned = Rotation.from_euler("z", -turn, degrees=True).apply([*place_2, 0])[:2]
        turned = turned * [-1 if flip else 1, 1] / scale
        wrist = seen[opposite("R_Wrist") if flip else "R_Wrist"][:2]
        rows.append((np.r_[s / scale, turned / (s / scale) - wrist], np.stack([seen[name] for name in names]), mesh))
    camera, joints_J3, mesh_V3 = some.merge(*(np.stack(column)[None] for column in zip(*rows, strict=True)))
    assert np.abs(camera[0] - [s, *t_2]).max() < 1e-6
    assert np.abs(joints_J3[0] - np.stack([joints[name] for name in names])).max() < 1e-6
    assert np.abs(mesh_V3[0] - vertices_V3).max() < 1e-6


def test_cameras_are_averaged_where_they_put_the_root(world: World) -> None:
    some = views(ViewsConfig(scales=(1.0, 2.0)), world)
    cameras = np.array([[[0.8, 0.1, 0.0], [0.6, -0.1, 0.2]]])  # in the crop: s 0.8 and 1.2
    camera, *_ = some.merge(cameras, np.zeros((1, 2, 14, 3)), np.zeros((1, 2, 6890, 3)))
    s, tx, ty = camera[0]
    assert s == pytest.approx(1.0)
    assert (s * tx, s * ty) == pytest.approx(((0.08 - 0.12) / 2, (0 + 0.24) / 2))


def test_the_papers_merge_counts_the_crop_as_it_is_twice() -> None:
    """Beside a loop over views with SciPy's own alignment of vectors."""
    some = views_of(PAPER, "HAND21", list)
    assert some
    assert len(some) == 95
    joints, mesh = RNG.normal(size=(1, 95, 21, 3)), RNG.normal(size=(1, 95, 40, 3))
    camera = RNG.normal(size=(1, 95, 3))
    merged = some.merge(camera, joints, mesh)
    assert merged[0] == pytest.approx(camera[:, 0], abs=1e-6)
    for points_KN3, found_N3 in ((joints[0], merged[1][0]), (mesh[0], merged[2][0])):
        reference, total = points_KN3[0], points_KN3[0].copy()
        for points in points_KN3:
            a, b = points - points.mean(0), reference - reference.mean(0)
            rotation, _ = Rotation.align_vectors(b, a)
            turned = rotation.apply(a)
            total += (turned * b).sum() / (a * a).sum() * turned + reference.mean(0)
        assert np.abs(total / 96 - found_N3).max() < 1e-6


def test_the_mirror_of_the_open_body_keeps_shape_and_surface(world: World) -> None:
    order = mirror_vertices(world.data.v_template, world.data.faces)
    assert np.array_equal(order[order], np.arange(6890))
    assert np.abs(world.data.v_template[order] - world.data.v_template * [-1, 1, 1]).max() < 1e-6
    joints = world.data.regressors["h36m17"] @ world.data.v_template[order]
    names = JOINT_SETS["H36M17"]
    for name in names:
        twin = (world.data.regressors["h36m17"] @ world.data.v_template)[names.index(opposite(name))]
        assert np.abs(joints[names.index(name)] - twin).max() < 1e-5


def test_meshes_without_a_mirror_image_and_hands_are_refused(world: World) -> None:
    data = world.data
    with pytest.raises(MetroError, match=r"views.flip: the left and the right of this mesh do not correspond"):
        mirror_vertices(data.v_template, data.faces[:-1])
    with pytest.raises(MetroError, match=r"views.flip: a mirrored right hand is a left one"):
        views_of(ViewsConfig(flip=True), "HAND21", list)
    assert views_of(ViewsConfig(), "J14", list) is None


class Dots:
    """A network that sees: the two dots of a picture are wrists, the one further right the left one, 1 m a crop's half.

    The middle between them is the root, and the camera tells where it is.
    """

    def __init__(self, world: World) -> None:
        self.meta = {"model": {"joint_set": "J14", "image_size": 128}, "joint_names": JOINT_SETS["J14"]}
        self.faces_F3, self.seen = world.data.faces, 0

    def __call__(self, pixels_BSS3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.seen = len(pixels_BSS3)
        joints = np.zeros((len(pixels_BSS3), 14, 3))
        cameras = np.zeros((len(pixels_BSS3), 3))
        for k, picture in enumerate(pixels_BSS3):
            _, parts = cv2.connectedComponents((picture[..., 1] > 60).astype(np.uint8))
            dots = []
            for part in (1, 2):
                weight = np.where(parts == part, picture[..., 1].astype(float), 0)
                ys, xs = np.mgrid[:128, :128]
                dots.append([(xs * weight).sum() / weight.sum(), (ys * weight).sum() / weight.sum()])
            right, left = (np.array(sorted(dots)) + 0.5) / 64 - 1
            middle, size = (left + right) / 2, np.sqrt((picture[..., 1] / 255.0).sum()) / 128 * 4
            joints[k, JOINT_SETS["J14"].index("L_Wrist"), :2] = (left - middle) / size
            joints[k, JOINT_SETS["J14"].index("R_Wrist"), :2] = (right - middle) / size
            cameras[k] = size, *(middle / size)
        return cameras, joints, np.repeat(joints[:, :1], 6890, 1)


def test_pictures_are_cut_as_predictions_are_taken_back(world: World) -> None:
    """A network that measures the picture says the same of all views, up to the pixels."""
    picture = np.zeros((300, 300, 3), np.uint8)
    for place in ((130, 120), (175, 150)):
        cv2.circle(picture, place, 9, (0, 255, 0), -1, cv2.LINE_AA)
    box, plain = [80.0, 70.0, 120.0, 140.0], Dots(world)
    (alone,) = Predictor(plain)(picture, box)  # type: ignore[arg-type]
    turned = Dots(world)
    config = ViewsConfig(scales=(0.9, 1.0, 1.2), rotations_deg=(-25.0, 0.0, 10.0), flip=True)
    (merged,) = Predictor(turned, views=views(config, world))(picture, box)  # type: ignore[arg-type]
    assert (plain.seen, turned.seen) == (1, 18)
    for name, place in (("R_Wrist", (130, 120)), ("L_Wrist", (175, 150))):
        j = JOINT_SETS["J14"].index(name)
        assert np.abs(alone.joints_2d[j] - place).max() < 0.5
        assert np.abs(merged.joints_2d[j] - place).max() < 0.5
        assert np.abs(merged.joints[j] - alone.joints[j]).max() < 0.03


def test_a_left_hand_is_seen_as_a_right_one_in_the_mirror(hands: World) -> None:
    """Turned to one side only, so that a turn to the other would show."""
    network = TorchNetwork(bundle_of(hands.model, hands.data, hands.levels), "cpu")
    picture = cv2.GaussianBlur(RNG.integers(0, 256, (120, 120, 3), dtype=np.uint8), (0, 0), 4)
    some = views_of(ViewsConfig(rotations_deg=(0.0, 40.0, 80.0)), "HAND21", list)
    predictor, plain = Predictor(network, views=some), Predictor(network)
    (right,) = predictor(picture, [30, 20, 70, 64])
    (left,) = predictor(picture[:, ::-1], [119 - 100, 20, 70, 64], left_hand=True)
    (alone,) = plain(picture, [30, 20, 70, 64])
    gain = np.abs(right.vertices - alone.vertices).max()
    assert np.abs(left.vertices * [-1, 1, 1] - right.vertices).max() < 0.02 * gain


def test_views_hold_the_crop_as_it_is() -> None:
    for wrong in ({"scales": (0.9, 1.1)}, {"rotations_deg": (10.0,)}, {"scales": (1.0, 1.0)}):
        with pytest.raises(ValueError, match="the crop as it is, and each value once"):
            ViewsConfig(**wrong)


def test_all_combinations_are_seen_once(world: World) -> None:
    some = views(FULL, world)
    seen = set(zip(some.scale_K, some.rotation_K, some.flip_K, strict=True))
    assert seen == set(itertools.product(FULL.scales, FULL.rotations_deg, (False, True)))


def test_stored_pictures_are_seen_as_draws_say(world: World) -> None:
    some = views(ViewsConfig(flip=True), world)
    batch = next(iter(EvalPass(world.dataset, world.model.config, 5, views=draws_of(some))))
    assert batch["views"].shape == (5, 2, 64, 64, 3)
    assert torch.equal(batch["views"][:, 0], batch["image"])
    mirrored = batch["views"][:, 1].flip(2).int() - batch["image"].int()
    assert mirrored.abs().max() <= 2  # OpenCV weighs pixels in steps of a 32nd
