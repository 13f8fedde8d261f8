"""Figures of a result: what is drawn and what the files hold."""

from __future__ import annotations

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from metro.body.model import BodyModel
from metro.config import CropConfig, EvaluateConfig
from metro.data import crop
from metro.data import lens as lenses
from metro.data.records import Record
from metro.data.shards import ShardDataset, ShardWriter
from metro.evaluation.evaluate import evaluate
from metro.evaluation.figures import TILE, write_figures
from metro.model.metro import MetroOutput
from metro.viz.camera import project
from tests.conftest import World
from tests.square import balance_point, centre_of_mass, square, square_body


def test_figures(world: World, tmp_path: Path) -> None:
    result = evaluate(world.model, world.dataset, world.body, "open", EvaluateConfig(bootstrap=20, overlays=1))
    write_figures(result, world.model, world.dataset, world.body, tmp_path)
    names = {p.name for p in tmp_path.glob("*.png")}
    assert {"best.png", "median.png", "worst.png", "joints.png", "pck.png", "groups_heading.png"} <= names
    assert all(cv2.imread(str(tmp_path / n)).std() > 5 for n in names)
    with np.load(tmp_path / "cases.npz", allow_pickle=False) as arrays:
        assert arrays["kind"].tolist() == ["best", "median", "worst"]
        assert arrays["index"].tolist() == [result.cases[k][0] for k in ("best", "median", "worst")]
        assert arrays["predicted"].shape == arrays["true"].shape == (3, 6890, 3)
        missing = ~world.dataset.labels["has_mesh"][arrays["index"]]
        assert np.isnan(arrays["true"]).all(axis=(1, 2)).tolist() == missing.tolist()


class Constant(torch.nn.Module):
    """A network that sees the same square everywhere."""

    def __init__(self, world: World, camera: tuple[float, float, float], centre: tuple[float, float]) -> None:
        super().__init__()
        self.config, self.num_vertices = world.model.config, world.data.num_vertices
        self.camera, self.mesh = torch.tensor([camera]), torch.from_numpy(square_body(world.data, centre).v_template)

    def forward(self, images: torch.Tensor) -> MetroOutput:
        n = len(images)
        return MetroOutput(
            self.camera.expand(n, 3), torch.zeros(n, 14, 3), (self.mesh.float().expand(n, -1, -1),), None, None
        )


@pytest.mark.parametrize(("camera_known", "lens"), [(True, "none"), (False, "none"), (True, "h36m")])
def test_meshes_are_drawn_where_they_are_seen(world: World, tmp_path: Path, camera_known: bool, lens: str) -> None:
    """The predicted mesh by the network's camera; the true one by the record's, or by what its 2D joints tell."""
    data = square_body(world.data, (0.15, -0.2))
    seen, transl = np.array([[150.0, 0, 70.2], [0, 150, 84.7], [0, 0, 1]]), np.array([-0.1, 0.05, 2.0])
    joints = data.regressors["j24"] @ data.v_template
    bent = np.array([0, 0, 0.1, 0.2, 0, 0, 0, 0])
    points = (joints * [1, 1, 0] + transl) @ seen.T  # as a weak-perspective camera sees them
    record = Record(
        source="made",
        frame="0",
        image=np.zeros((180, 150, 3), np.uint8),
        box=np.array([11.3, 17.1, 120.0, 140.0]),
        keypoints_2d=np.c_[points[:, :2] / points[:, 2:], np.ones(24)],
        joints_3d=np.c_[joints, np.ones(24)],
        pose_aa=np.zeros(72),
        betas=np.zeros(10),
        transl=transl if camera_known else None,
        intrinsics=seen,
        distortion=None if lens == "none" else bent,
        lens=lens,
        mesh_origin="mocap",
    )
    with ShardWriter(tmp_path / "shard-00000.h5", CropConfig(box_px=64)) as writer:
        writer.add(record)
    dataset, body = ShardDataset([tmp_path / "shard-00000.h5"]), BodyModel(data)
    network = Constant(world, (0.7, 0.2, -0.1), (-0.3, 0.25))
    result = evaluate(network, dataset, body, "open", EvaluateConfig(bootstrap=5, overlays=1))  # type: ignore[arg-type]
    write_figures(result, network, dataset, body, tmp_path)  # type: ignore[arg-type]

    sheet = cv2.imread(str(tmp_path / "best.png"))
    picture, true, predicted = (sheet[tile] for tile in tiles(sheet, 3))
    assert not picture.any()
    assert centre_of_mass(picture, predicted) == pytest.approx(
        project([[-0.3, 0.25, 0]], (0.7, 0.2, -0.1), TILE)[0], abs=0.05
    )
    to_crop = crop.crop_affine(dataset.labels["center"], 200 * dataset.labels["scale"], TILE)[0]
    corners = lenses.project(square((0.15, -0.2)) + transl, seen, bent, lens)
    expected = balance_point(crop.apply(to_crop, corners))
    assert centre_of_mass(picture, true) == pytest.approx(expected, abs=0.05)


def tiles(sheet: np.ndarray, count: int) -> list[tuple[slice, slice]]:
    """The first pictures of a sheet of black ones: below their labels, which are white at the left edge."""
    columns = [k * (TILE + 4) for k in range(count)]
    tops = [int((sheet[:, x] == 0).all(-1).argmax()) for x in columns]
    return [(slice(y, y + TILE), slice(x, x + TILE)) for x, y in zip(columns, tops, strict=True)]


def test_a_true_mesh_without_joints_in_the_picture_is_shown_from_the_side_alone(world: World, tmp_path: Path) -> None:
    labels = world.dataset.labels
    hidden = copy.copy(world.dataset)
    hidden.labels = {
        **labels,
        "joints_2d": labels["joints_2d"] * [1, 1, 0],
        "transl": np.full_like(labels["transl"], np.nan),
        "has_mesh": np.ones_like(labels["has_mesh"]),
    }
    result = evaluate(world.model, hidden, world.body, "open", EvaluateConfig(bootstrap=5, overlays=1))
    write_figures(result, world.model, hidden, world.body, tmp_path)
    sheet = cv2.imread(str(tmp_path / "best.png"))
    over, side = (sheet[-TILE // 2, k * (TILE + 4) : k * (TILE + 4) + TILE] for k in (1, 3))
    assert (over == 244).all()
    assert (side != 255).any()


def test_no_cases(world: World, tmp_path: Path) -> None:
    result = evaluate(world.model, world.dataset, world.body, "open", EvaluateConfig(bootstrap=5, overlays=0))
    write_figures(result, world.model, world.dataset, world.body, tmp_path)
    assert not (tmp_path / "best.png").exists()
    assert (tmp_path / "pck.png").exists()
