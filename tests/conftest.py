"""A small world shared by the tests of evaluation, export and pictures: people on shards, and a network for them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.spatial import cKDTree

from metro.body.arrays import BodyData
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.body.rotation import aa_from_rot, rot_from_aa
from metro.config import BlockConfig, BodyConfig, CropConfig, ModelConfig, Params
from metro.data.records import Record
from metro.data.shards import ShardDataset, ShardWriter
from metro.export.bundle import bundle_of, write_bundle
from metro.export.folder import ONNX
from metro.mesh.sampling import Level
from metro.model.metro import Metro, build_model
from metro.viz.raster import render_mesh


class World(NamedTuple):
    """What most tests need."""

    data: BodyData
    body: BodyModel
    levels: list[Level]
    dataset: ShardDataset
    model: Metro
    params: Params


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Twelve people who turn on the spot, a third of them without meshes or with hidden joints."""
    return build_world(tmp_path_factory.mktemp("people"), "open", sizes=(300, 60))


@pytest.fixture(scope="session")
def hands(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Six right hands."""
    return build_world(tmp_path_factory.mktemp("hands"), "open_hand", sizes=(50,))


@pytest.fixture(scope="session")
def exported(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The people's network as a bundle with an ONNX file; copy it to change it."""
    bundle = bundle_of(world.model, world.data, world.levels)
    return write_bundle(tmp_path_factory.mktemp("exported") / "bundle", bundle, [ONNX])


def build_world(folder: Path, kind: str, sizes: tuple[int, ...]) -> World:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = load_body(kind)
    body = BodyModel(data)
    levels = nearest_levels(data.v_template, sizes)
    config = small_model(hand=data.is_hand)
    model = build_model(config, data, levels)
    write_people(folder / "shard-00000.h5", data, body, 6 if data.is_hand else 12)
    params = Params(model=config, body=BodyConfig(kind=kind))
    return World(data, body, levels, ShardDataset([folder / "shard-00000.h5"]), model.eval(), params)


def small_model(*, hand: bool = False) -> ModelConfig:
    """The smallest network of the real kind."""
    block = {"layers": 1, "heads": 2, "ffn": 32}
    return ModelConfig(
        joint_set="HAND21" if hand else "J14",
        image_size=64,
        backbone="timm/test_resnet",
        blocks=(BlockConfig(width=16, out=8, **block), BlockConfig(width=8, out=3, **block)),
        upsampling="fixed",
        init="template",
        camera_width=8,
    )


def nearest_levels(vertices_V3: np.ndarray, sizes: tuple[int, ...]) -> list[Level]:
    """Mesh levels of evenly spaced vertex numbers; up-sampling copies the nearest kept vertex."""
    levels = []
    for size in sizes:
        kept = np.unique(np.linspace(0, len(vertices_V3) - 1, size).round().astype(np.int64))
        nearest = cKDTree(vertices_V3[kept]).query(vertices_V3)[1]
        ones = np.ones(len(vertices_V3))
        up = sp.csr_matrix((ones, (np.arange(len(vertices_V3)), nearest)), shape=(len(vertices_V3), size))
        levels.append(Level(kept, up, np.zeros((0, 3), np.int32)))
        vertices_V3 = vertices_V3[kept]
    return levels


def write_people(path: Path, data: BodyData, body: BodyModel, count: int) -> None:
    """Rendered people (or hands) on noise; every third has no mesh, every fourth hides its first joints."""
    rng = np.random.default_rng(7)
    pose = torch.from_numpy(rng.normal(0, 0.15, (count, 3 * data.num_joints))).float()
    turns = torch.zeros(count, 3)
    turns[:, 1] = torch.linspace(-3, 3, count)
    upright = torch.tensor([[np.pi, 0.0, 0.0]]).expand(count, 3)
    pose[:, :3] = aa_from_rot(rot_from_aa(turns) @ rot_from_aa(upright.float()))
    betas = torch.from_numpy(rng.normal(0, 1, (count, 10))).float()
    distance = 0.6 if data.is_hand else 4.0
    transl = torch.zeros(count, 3)
    transl[:, 2] = distance + torch.linspace(0, 0.2 * distance, count)
    vertices = body(pose, betas, transl).vertices
    joints = body.regress("hand21" if data.is_hand else "j24", vertices).numpy()
    focal = 400.0
    camera = np.array([[focal, 0, 80], [0, focal, 80], [0, 0, 1]])
    records = []
    for i in range(count):
        pixels = joints[i] @ camera.T
        points = pixels[:, :2] / pixels[:, 2:]
        confidence = np.ones(len(points))
        confidence[: 4 if i % 4 == 3 else 0] = 0
        image = rng.integers(90, 160, (160, 160, 3), dtype=np.uint8)
        image = render_mesh(vertices[i].numpy(), data.faces, camera, (160, 160), background=image)
        low, high = points.min(0), points.max(0)
        side = 1.2 * (high - low).max()
        records.append(
            Record(
                source="made",
                frame=f"{i:02d}",
                image=image,
                box=np.array([*((low + high - side) / 2), side, side]),
                keypoints_2d=np.c_[points, confidence],
                joints_3d=np.c_[joints[i], np.ones(len(points))],
                intrinsics=camera,
                **({} if i % 3 == 2 else {"pose_aa": pose[i].numpy(), "betas": betas[i].numpy()}),
                **({} if i % 3 == 2 else {"transl": transl[i].numpy(), "mesh_origin": "synthetic"}),
            )
        )
    with ShardWriter(path, CropConfig(box_px=64), figure=data.figure) as writer:
        for record in records:
            writer.add(record)
