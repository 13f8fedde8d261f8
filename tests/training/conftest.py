"""A data set of a few noise images with true labels, a small network, and what training needs beside them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from metro.body.arrays import BodyData
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import BlockConfig, CropConfig, LossConfig, ModelConfig, Params, TrainConfig
from metro.data.records import Record
from metro.data.shards import ShardDataset, ShardWriter
from metro.mesh.sampling import Level, build_sampling


class Setting(NamedTuple):
    params: Params
    datasets: list[ShardDataset]
    body: BodyData
    levels: list[Level]


def small_params(**train) -> Params:
    block = {"layers": 1, "heads": 2, "ffn": 32}
    model = ModelConfig(
        image_size=32,
        backbone="timm/test_resnet",  # small weights: checkpoints are written and read often
        blocks=(BlockConfig(width=16, out=8, **block), BlockConfig(width=8, out=3, **block)),
        upsampling="fixed",
        init="template",
        camera_width=8,
    )
    settings = {
        "steps": 6, "batch_size": 4, "lr": 1e-3, "log_every": 1, "validate_every": 2, "save_every": 2, "workers": 0,
        "ema": 0.9, "loss": LossConfig(level_weights=(1.0, 0.0, 0.0)),
    }  # fmt: skip
    return Params(model=model, train=TrainConfig(**(settings | train)))


@pytest.fixture(scope="session")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    torch.set_num_threads(1)
    body = load_body("open")
    levels = build_sampling(body.v_template, body.faces)
    folder = tmp_path_factory.mktemp("shards")
    write_people(folder / "people.h5", body)
    return Setting(small_params(), [ShardDataset([folder / "people.h5"])], body, levels)


def write_people(path: Path, body: BodyData, count: int = 10, meshes: int = 10) -> None:
    """Noise images of posed bodies; only the first `meshes` keep their mesh."""
    rng = np.random.default_rng(0)
    pose_aa = rng.normal(0, 0.2, (count, 72))
    pose_aa[:, 0] += np.pi
    betas, transl = rng.normal(0, 1, (count, 10)), np.tile([0.0, 0.0, 4.0], (count, 1))
    model = BodyModel(body)
    arrays = [torch.from_numpy(a).float() for a in (pose_aa, betas, transl)]
    joints_N24_3 = model.regress("j24", model(*arrays).vertices).numpy()
    camera = np.array([[200.0, 0, 50], [0, 200, 50], [0, 0, 1]])
    with ShardWriter(path, CropConfig(box_px=32)) as writer:
        for i, joints in enumerate(joints_N24_3):
            pixels = joints @ camera.T
            record = Record(
                source="noise", frame=str(i), image=rng.integers(0, 256, (100, 100, 3), dtype=np.uint8),
                box=np.array([0, 0, 100, 100]), intrinsics=camera, transl=transl[i],
                **({"pose_aa": pose_aa[i], "betas": betas[i], "mesh_origin": "synthetic"} if i < meshes else {}),
                keypoints_2d=np.c_[pixels[:, :2] / pixels[:, 2:], np.ones(24)],
                joints_3d=np.c_[joints, np.ones(24)],
            )  # fmt: skip
            writer.add(record)
