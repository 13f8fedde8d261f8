"""Fits to 2D joints: of people whose truth is known, seen by a camera that is known or not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.data.crop import crop_affine
from metro.errors import MetroError
from metro.export.predictor import Photo, Prediction, save_scene
from metro.export.refine import NO_NEARER, fit_keypoints, refine, with_parameters
from metro.viz.camera import fit as nearest_camera
from metro.viz.raster import render_mesh
from tools.pose_prior import sample

FOCAL, WIDTH, HEIGHT = 900.0, 801, 601
CAMERA = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
BODY = load_body("open")
MODEL = BodyModel(BODY)


class Scene(NamedTuple):
    """People in camera axes, metres, where a camera sees their joints, and what a network thinks of them."""

    vertices: np.ndarray
    joints_2d: np.ndarray
    seen: list[Prediction]
    image: np.ndarray


def mesh(pose: np.ndarray, betas: np.ndarray, transl: np.ndarray) -> np.ndarray:
    return MODEL(*(torch.as_tensor(np.asarray(x), dtype=torch.float32) for x in (pose, betas, transl))).vertices.numpy()


def regressed(name: str, vertices: np.ndarray) -> np.ndarray:
    return MODEL.regress(name, torch.as_tensor(np.asarray(vertices, np.float32))).numpy()


def pixels(points_3: np.ndarray) -> np.ndarray:
    seen = points_3 @ CAMERA.T
    return seen[..., :2] / seen[..., 2:]


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Six people three to four metres away; the predictions are 0.15 rad off in every angle, and of mean shape."""
    torch.set_num_threads(1)
    count, rng = 6, np.random.default_rng(5)
    turned = Rotation.from_euler("xy", np.c_[np.full(count, 180), rng.uniform(-60, 60, count)], degrees=True)
    pose = np.c_[turned.as_rotvec(), sample(count, seed=3)]
    transl = np.c_[rng.uniform(-0.6, 0.6, count), rng.uniform(-0.1, 0.1, count), rng.uniform(3.5, 4.5, count)]
    vertices = mesh(pose, rng.normal(size=(count, 10)).clip(-2, 2), transl)
    joints_2d = np.concatenate((pixels(regressed("j24", vertices)), np.ones((count, 24, 1))), 2)
    wrong = pose + rng.normal(0, 0.15, pose.shape)
    guess = mesh(wrong, np.zeros((count, 10)), np.zeros((count, 3)))
    rows = BODY.figure.token_rows
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    seen = []
    for vertices_V3, joints_J3 in zip(guess, joints_2d, strict=True):
        low, high = joints_J3[:, :2].min(0), joints_J3[:, :2].max(0)
        affine = crop_affine(((low + high) / 2)[None], np.array([1.2 * (high - low).max()]), 224)[0]
        relative = vertices_V3 - regressed("h36m17", vertices_V3)[:1]
        j24 = regressed("j24", relative)
        crop = joints_J3[:, :2] * affine[0, 0] + affine[:, 2]
        seen.append(
            Prediction(
                vertices=relative,
                joints=regressed("h36m17", relative)[rows],
                camera=nearest_camera(j24, (2 * crop + 1) / 224 - 1),
                affine=affine,
                crop_size=224,
                image_size=(WIDTH, HEIGHT),
                box=(*low, *(high - low)),
                faces=BODY.faces,
                joint_set="J14",
                joint_names=JOINT_SETS["J14"],
                picture=0,
            )
        )
    return Scene(vertices, joints_2d, seen, image)


@pytest.fixture(scope="module")
def refined(scene: Scene) -> list[Prediction]:
    return refine(scene.seen, scene.joints_2d, BODY, FOCAL)


def off_px(people: list[Prediction], scene: Scene) -> np.ndarray:
    """Mean distance (N,) of the 14 joints of the meshes from those of the truth, pixels."""
    true = pixels(regressed("h36m17", scene.vertices)[:, BODY.figure.token_rows])
    return np.array([np.linalg.norm(p.joints_2d - t, axis=1).mean() for p, t in zip(people, true, strict=True)])


def off_mm(people: list[Prediction], scene: Scene) -> np.ndarray:
    """Mean distance (N,) of the pelvis-aligned vertices."""
    root = regressed("h36m17", scene.vertices)[:, :1]
    ours = np.stack([p.vertices for p in people])
    return 1000 * np.linalg.norm(ours - (scene.vertices - root), axis=2).mean(1)


def test_overlay_and_mesh_come_nearer_to_the_truth(scene: Scene, refined: list[Prediction]) -> None:
    assert all(p.placement and not p.kept for p in refined)
    assert off_px(scene.seen, scene).min() > 3 * off_px(refined, scene).max()
    assert off_px(refined, scene).max() < 0.01 * max(p.box[3] for p in refined)
    assert off_mm(refined, scene).mean() < 0.6 * off_mm(scene.seen, scene).mean()


def test_the_camera_is_told_consistently(scene: Scene, refined: list[Prediction], tmp_path: Path) -> None:
    """Translation, 2D joints, overlay, JSON and scene say where the person is; the crop's camera comes near."""
    root = regressed("h36m17", scene.vertices)[:, 0]
    for number, (person, true) in enumerate(zip(refined, root, strict=True)):
        placed = person.vertices + person.translation()
        assert np.allclose(pixels(person.joints + person.translation()), person.joints_2d)
        # Size is confounded with distance, but not the direction.
        assert np.allclose(person.translation()[:2] / person.translation()[2], true[:2] / true[2], atol=0.005)
        assert person.translation()[2] == pytest.approx(true[2], rel=0.12)
        assert np.allclose(person.translation(2 * FOCAL), person.translation() * [1, 1, 2])
        record = json.loads(person.to_json())
        assert record["perspective"]["translation"] == np.round(person.translation(), 5).tolist()
        assert record["perspective"]["note"] == "for the given focal length"
        squares = [
            np.square(replace(person, placement=None, camera=person.camera + change).joints_2d - person.joints_2d).sum()
            for change in ([0, 0, 0], *0.01 * np.eye(3), *-0.01 * np.eye(3))
        ]
        assert np.argmin(squares) == 0
        drawn = [
            render_mesh(v, BODY.faces, CAMERA, (WIDTH, HEIGHT), background=scene.image) != scene.image
            for v in (placed, scene.vertices[number])
        ]
        ours, mesh = person.overlay(scene.image) != scene.image, drawn[0]
        assert (ours.any(2) ^ mesh.any(2)).mean() < 1e-4
        both, either = (op(ours.any(2), drawn[1].any(2)).sum() for op in (np.logical_and, np.logical_or))
        assert both > 0.8 * either
    save_scene(tmp_path / "a.glb", refined)
    loaded = trimesh.load(tmp_path / "a.glb").geometry["person_0"].vertices
    assert np.abs(loaded - (refined[0].vertices + refined[0].translation()) * [1, -1, -1]).max() < 1e-5


def test_parameters_make_the_mesh_in_both_frames(refined: list[Prediction], tmp_path: Path) -> None:
    for person in refined[:2]:
        with np.load(person.save_npz(tmp_path / "a.npz"), allow_pickle=False) as file:
            arrays = dict(file)
        pose = np.concatenate((arrays["global_orient"], arrays["body_pose"]), 1)
        placed = mesh(pose, arrays["betas"][None], arrays["transl"])[0]
        assert np.abs(placed - (person.vertices + person.translation())).max() < 1e-4
        upright = mesh(arrays["poses"], arrays["betas"][None], arrays["trans"])[0]
        assert np.abs(upright - placed * [1, -1, -1]).max() < 1e-4
        assert arrays["betas"].shape == (10,)
        assert arrays["poses"].shape == (1, 72)
        assert (arrays["gender"].item(), arrays["body"].item()) == ("neutral", "open")
        assert arrays["focal"] == FOCAL
        assert arrays["image_size"].tolist() == [WIDTH, HEIGHT]


def test_parameters_of_plain_predictions(scene: Scene, refined: list[Prediction], tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=r"a\.npz: this mesh has no parameters yet"):
        scene.seen[0].save_npz(tmp_path / "a.npz")
    found = with_parameters([scene.seen[0], refined[1]], BODY)
    assert found[1] is refined[1]
    assert found[0].vertices is scene.seen[0].vertices
    left = replace(scene.seen[0], faces=BODY.faces[:, ::-1])  # as of a hand that was mirrored
    assert with_parameters([left], BODY) == [left]
    with np.load(found[0].save_npz(tmp_path / "a.npz", focal=700.0)) as file:
        pose = np.concatenate((file["global_orient"], file["body_pose"]), 1)
        placed = mesh(pose, file["betas"][None], file["transl"])[0]
    assert np.abs(placed - (found[0].vertices + found[0].translation(700.0))).max() < 0.01


def test_without_a_focal_length_the_image_s_diagonal_is_taken(scene: Scene) -> None:
    (person,) = refine(scene.seen[:1], scene.joints_2d[:1], BODY)
    assert person.focal == pytest.approx(np.hypot(WIDTH, HEIGHT))
    assert "assumed" in json.loads(person.to_json())["perspective"]["note"]
    assert off_px([person], scene._replace(vertices=scene.vertices[:1])) < 4


def test_who_cannot_be_refined_stays_and_says_why(scene: Scene) -> None:
    joints = scene.joints_2d[:3].copy()
    joints[0, 5:, 2] = 0.1  # a detector's guesses
    joints[1, :, :2] = np.random.default_rng(0).uniform(0, 600, (24, 2))  # of no person
    few, nobody, sound = refine(scene.seen[:3], joints, BODY, FOCAL)
    assert few.kept == "too few joints"
    assert few.vertices is scene.seen[0].vertices
    assert json.loads(few.to_json())["kept"] == few.kept
    assert not sound.kept
    drawn = scene.joints_2d[:1].copy()
    drawn[0, :, :2] = scene.seen[0].to_pixels(regressed("j24", scene.seen[0].vertices))
    (kept,) = refine(scene.seen[:1], drawn, BODY, FOCAL)
    assert kept.kept == NO_NEARER
    assert nobody.placement or nobody.kept


def test_each_person_is_refined_alone(scene: Scene, refined: list[Prediction]) -> None:
    (alone,) = refine(scene.seen[2:3], scene.joints_2d[2:3], BODY, FOCAL)
    assert np.abs(alone.vertices - refined[2].vertices).max() < 0.005
    assert refine([], np.zeros((0, 24, 3)), BODY) == []


def test_keypoints_alone(scene: Scene) -> None:
    photo = Photo(scene.image, "p.png")
    joints = scene.joints_2d.copy()
    joints[5, 4:, 2] = 0
    people = fit_keypoints(photo, joints, BODY, FOCAL)
    assert [p.kept for p in people] == [""] * 5 + ["too few joints"]
    assert off_px(people[:5], scene._replace(vertices=scene.vertices[:5])).max() < 4
    assert people[0].source == "p.png"
    with pytest.raises(MetroError, match=r"p\.png: person 0 has a joint at .* outside of the image of 801×601"):
        fit_keypoints(photo, scene.joints_2d[:1] + np.array([5000, 0, 0]), BODY)


@pytest.mark.parametrize(
    ("joints", "focal", "said"),
    [
        (np.zeros((1, 17, 3)), None, r"2D joints have shape \(1, 17, 3\); 1 people need \(1, 24, 3\)"),
        (np.zeros((2, 24, 3)), None, "2D joints have shape"),
        (np.zeros((1, 24, 3)), -3.0, "focal length -3"),
    ],
)
def test_what_cannot_be_used_is_refused(scene: Scene, joints: np.ndarray, focal: float | None, said: str) -> None:
    with pytest.raises(MetroError, match=said):
        refine(scene.seen[:1], joints, BODY, focal)
