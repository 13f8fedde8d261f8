"""Contact sheets: meshes and joints are drawn where the record says they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metro.body.arrays import BodyData
from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.config import AugmentConfig, CropConfig, ModelConfig, TrainConfig
from metro.data import crop
from metro.data.lens import project
from metro.data.records import Record
from metro.data.shards import ShardDataset, ShardWriter
from metro.data.show import stored_sheet, training_sheet
from metro.viz.raster import render_mesh
from tests.square import FACES, centre_of_mass, square, square_body

CENTRE = (0.15, -0.2)  # of the square, metres
SEEN = np.array([[110.0, 0, 70.2], [0, 110, 84.7], [0, 0, 1]])  # camera of the frame
BOX = np.array([11.3, 17.1, 120.0, 140.0])


@pytest.fixture(scope="module")
def body() -> BodyData:
    return square_body(load_body("open"), CENTRE)


def write(path: Path, **fields: object) -> ShardDataset:
    """A dataset of one black frame."""
    known: dict[str, object] = {"image": np.zeros((180, 150, 3), np.uint8), "intrinsics": SEEN, "box": BOX}
    record = Record(source="made", frame="0", **(known | fields))  # type: ignore[arg-type]
    with ShardWriter(path / "shard-00000.h5", CropConfig(box_px=64)) as writer:
        writer.add(record)
    return ShardDataset([path / "shard-00000.h5"])


@pytest.mark.parametrize("camera_known", [True, False])
def test_meshes_lie_where_they_were_photographed(body: BodyData, tmp_path: Path, camera_known: bool) -> None:
    """By the record's own camera, or by the weak-perspective one that 2D joints tell."""
    transl = np.array([-0.1, 0.05, 2.0])
    joints = body.regressors["j24"] @ body.v_template
    joints[:, 2] = 0  # as a weak-perspective camera sees them
    pixels = (joints + transl) @ SEEN.T
    mesh = {"pose_aa": np.zeros(72), "betas": np.zeros(10), "mesh_origin": "mocap"}
    points = np.c_[pixels[:, :2] / pixels[:, 2:], np.ones(24)]
    dataset = write(tmp_path, keypoints_2d=points, **mesh, **({"transl": transl} if camera_known else {}))
    sheet = stored_sheet(dataset, body, count=1)
    placed = SEEN @ (np.array([*CENTRE, 0]) + transl)
    expected = crop.apply(dataset.labels["affine"][0].astype(float), placed[None, :2] / placed[2])[0]
    assert centre_of_mass(dataset.image(0), sheet[:, dataset.image_size :]) == pytest.approx(expected, abs=0.05)


def test_augmented_pictures_and_joints_move_together(body: BodyData, tmp_path: Path) -> None:
    """A joint in the middle of a photographed square stays there, whatever is turned, scaled and mirrored."""
    intrinsics, transl = SEEN * [[4], [4], [1]], [*(-np.array(CENTRE)), 2.0]
    middle = intrinsics[:2, 2]
    frame = np.zeros((660, 560, 3), np.uint8)
    frame = render_mesh(square(CENTRE) + transl, FACES, intrinsics, (560, 660), (1.0, 1.0, 1.0), frame)
    points = np.zeros((24, 3))
    points[JOINT_SETS["J24"].index("Pelvis")] = [*middle, 1]
    dataset = write(tmp_path, image=frame, box=[*(middle - [140, 150]), 260, 270], keypoints_2d=points)
    augment = AugmentConfig(colour=0, rotation_off=0, flip=0.5)
    train = TrainConfig(batch_size=16, workers=0, augment=augment)
    sheet = training_sheet(dataset, body, ModelConfig(image_size=224), train, columns=1)
    off = []
    for row in range(16):
        with_joint, picture = np.split(sheet[228 * row : 228 * row + 224], 2, axis=1)
        off.append(centre_of_mass(picture, with_joint) - centre_of_mass(np.zeros_like(picture), picture))
    assert np.abs(off).max() < 0.25  # OpenCV draws a dot with a rim to a fifth of a pixel
    assert np.abs(np.mean(off, 0)).max() < 0.05


def test_meshes_are_bent_as_the_lens_bends_them(body: BodyData, tmp_path: Path) -> None:
    """A lens that shows the square, which a pinhole camera sees right of the middle, some pixels further left."""
    transl, bent = np.array([0.2, 0.25, 2.0]), np.array([-0.9, 0, 0, 0.02, 0, 0, 0, 0])
    mesh = {"pose_aa": np.zeros(72), "betas": np.zeros(10), "mesh_origin": "mocap", "transl": transl}
    dataset = write(tmp_path, keypoints_2d=None, distortion=bent, lens="h36m", **mesh)
    shown = centre_of_mass(dataset.image(0), stored_sheet(dataset, body, count=1)[:, dataset.image_size :])
    affine, centre = dataset.labels["affine"][0].astype(float), np.array([[*CENTRE, 0]]) + transl
    straight, expected = (crop.apply(affine, project(centre, SEEN, bent, lens))[0] for lens in ("none", "h36m"))
    assert np.linalg.norm(expected - straight) > 1
    assert shown == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("sheet", ["stored", "training"])
def test_a_mesh_is_that_of_its_gender(body: BodyData, tmp_path: Path, sheet: str) -> None:
    """The female body is a square somewhere else."""
    elsewhere = square_body(body, (-0.1, 0.1))
    points = np.zeros((24, 3))
    mesh = {"pose_aa": np.zeros(72), "betas": np.zeros(10), "mesh_origin": "mocap", "transl": np.array([0, 0, 2.0])}
    dataset = write(tmp_path, keypoints_2d=points, gender="female", **mesh)
    asked: list[str] = []

    def variants(gender: str) -> BodyData:
        asked.append(gender)
        return elsewhere

    if sheet == "training":
        train = TrainConfig(batch_size=1, workers=0)
        training_sheet(dataset, body, ModelConfig(image_size=224), train, columns=1, variants=variants)
    else:
        drawn = stored_sheet(dataset, body, count=1, variants=variants)[:, dataset.image_size :]
        expected = crop.apply(dataset.labels["affine"][0].astype(float), project([[-0.1, 0.1, 2]], SEEN, None, "none"))[
            0
        ]
        assert centre_of_mass(dataset.image(0), drawn) == pytest.approx(expected, abs=0.05)
    assert asked == ["female"]
