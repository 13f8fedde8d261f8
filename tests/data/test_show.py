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
from tests.square import FACES, balance_point, centre_of_mass, square, square_body

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
    """The corners of the square are where the lens puts them, some pixels from where a pinhole camera does."""
    transl, bent = np.array([-0.1, 0.05, 2.0]), np.array([-2.0, 0, 0.1, 0.4, 0, 0, 0, 0])
    mesh = {"pose_aa": np.zeros(72), "betas": np.zeros(10), "mesh_origin": "mocap", "transl": transl}
    dataset = write(tmp_path, distortion=bent, lens="h36m", keypoints_2d=None, **mesh)
    affine, corners = dataset.labels["affine"][0].astype(float), square(CENTRE) + transl

    def balance(lens: str) -> np.ndarray:
        return balance_point(crop.apply(affine, project(corners, SEEN, bent, lens)))

    assert np.linalg.norm(balance("h36m") - balance("none")) > 0.5
    drawn = stored_sheet(dataset, body, count=1)[:, dataset.image_size :]
    assert centre_of_mass(dataset.image(0), drawn) == pytest.approx(balance("h36m"), abs=0.05)


def test_joints_in_space_alone_are_seen_from_the_front(body: BodyData, tmp_path: Path) -> None:
    """Two joints, one above and to the right of the other, lie so in the tile, four fifths of it apart."""
    joints = np.zeros((24, 4))
    right, left = JOINT_SETS["J24"].index("R_Wrist"), JOINT_SETS["J24"].index("L_Wrist")
    joints[right], joints[left] = [0.5, -1.0, 0.3, 1], [-0.5, 1.0, 0.1, 1]
    dataset = write(tmp_path, joints_3d=joints)
    side = dataset.image_size
    tile = stored_sheet(dataset, body, count=1)[:side, side : 2 * side]
    rows, columns = np.nonzero((tile != tile[0, 0]).any(-1))
    assert (rows.min() + rows.max()) / 2 == pytest.approx(side / 2, abs=1.5)
    assert np.ptp(rows) == pytest.approx(0.8 * side, abs=8)  # and the dots
    assert np.ptp(columns) == pytest.approx(0.4 * side, abs=8)
    assert columns[rows < side / 2].min() > side / 2 > columns[rows > side / 2].max()


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
