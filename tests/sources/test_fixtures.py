"""From a raw tree to the loader, for every set and layout: what adapters make of fixtures is what the fixtures are of.

Fixtures and adapters are written from the same description, neither from the other.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metro import fixtures, sources
from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import AugmentConfig, BodyConfig, CropConfig, DatasetConfig, ModelConfig, TrainConfig
from metro.data import crop, lens
from metro.data.loader import TrainStream
from metro.data.records import Record
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.fixtures.stage import read_stamp
from metro.sources.prepare import prepare
from metro.sources.source import Row
from metro.words import GENDERS

PACKED = {("h36m", "archives"), ("h36m", "mmpose")}
"""Layouts that hold archives, which `metro data unpack` opens."""
LAYOUTS = [
    (name, dialect)
    for name in fixtures.NAMES
    for dialect in importlib.import_module(f"metro.fixtures.{name}").DIALECTS
    if dialect != "full" and (name, dialect) not in PACKED
]
UNTOLD = ("not one of every ", "frame after the end of the poses")
"""Frames that nobody wants, which truth does not count."""
VIDEOS = ("h36m", "mpi_inf_3dhp")
"""Sets with videos, whose records name the frame."""
PIXELS, METRES = 0.01, 1e-4
REPROJECTION_PX = {"h36m": 0.01, "mpi_inf_3dhp": 3.2, "up3d": 1.0, "muco": 0.5}
"""How far the 2D joints may lie from the projected 3D ones; 0.5 elsewhere. Those of MPI-INF-3DHP are off by up to
2.2 px along each axis, and UP-3D's are annotated beside its meshes."""


@pytest.mark.parametrize(("name", "dialect"), LAYOUTS)
def test_a_tree_becomes_what_it_is_of(tmp_path: Path, name: str, dialect: str) -> None:
    raw = tmp_path / "raw"
    fixtures.write(name, raw, dialect=dialect)
    truth = json.loads((raw / "truth.json").read_text())
    body = BodyConfig(kind=truth["parameters"])
    # Layouts differ in where things lie: two splits of each will do beside all of the usual one.
    splits = [*truth["splits"].items()][: None if name_of_usual(name) == dialect else 2]
    for number, (words, split) in enumerate(splits):
        config = DatasetConfig.model_validate(
            {
                "source": name,
                "root": raw,
                "crop": CropConfig(box_px=48),
                "max_bad": 1.0,
                **{key: split[key] for key in ("split", "supervision", "options")},
            }
        )
        out = tmp_path / str(number)
        if not split["records"]:
            (count,) = split["left"].values()
            with pytest.raises(MetroError, match=rf"has no records for split .* \({count} left out: no labels\)$"):
                prepare(name, config, body, out, workers=1, progress=False)
            continue
        manifest = prepare(name, config, body, out, workers=1, progress=False)
        left = {reason: count for reason, count in manifest["left"].items() if not reason.startswith(UNTOLD)}
        assert Counter(left.values()) == Counter(split["left"].values()), (words, left, split["left"])
        assert manifest["skipped"] == split["bad"], (words, manifest["skipped_first"])
        dataset = ShardDataset(out)
        compare(name, dataset, split["records"], body)
        if not number:
            load(dataset)
    stamps(name, raw, truth, body)


def name_of_usual(name: str) -> str:
    return str(importlib.import_module(f"metro.fixtures.{name}").DIALECTS[0])


def compare(name: str, dataset: ShardDataset, records: list[dict[str, Any]], body: BodyConfig) -> None:
    """Every record is in the set, and what the fixture says of it is what the set has."""
    rows = {key.decode(): row for row, key in enumerate(dataset.labels["keys"])}
    wanted = {f"{name}:{record['frame']}#{record['person']}": record for record in records}
    assert sorted(rows) == sorted(wanted)
    joints = JOINT_SETS[dataset.joint_set]
    for key, record in wanted.items():
        labels = {label: values[rows[key]] for label, values in dataset.labels.items()}
        if record.get("box") is not None:
            np.testing.assert_allclose(labels["box"], record["box"], atol=PIXELS, err_msg=key)
        if "center" in record:
            np.testing.assert_allclose(labels["center"], record["center"], atol=PIXELS, err_msg=key)
            np.testing.assert_allclose(labels["scale"], record["scale"], rtol=1e-6, err_msg=key)
        for field, label, tolerance in (("keypoints_2d", "joints_2d", PIXELS), ("joints_3d", "joints_3d", METRES)):
            if field in record:
                annotated = {joint for joint, known in zip(joints, labels[label][:, -1] > 0, strict=True) if known}
                assert annotated == set(record[field]), (key, field)
                for joint, place in record[field].items():
                    found = labels[label][joints.index(joint), : len(place)]
                    np.testing.assert_allclose(found, place, atol=tolerance, err_msg=f"{key} {joint}")
            else:
                assert not labels[f"has_{field[-2:]}"], (key, field)
        assert labels["has_mesh"] == ("pose_aa" in record), key
        if "intrinsics" in record:
            np.testing.assert_allclose(labels["intrinsics"], record["intrinsics"], rtol=1e-6, err_msg=key)
            assert lens.LENSES[labels["lens"]] == record["lens"]
            if "distortion" in record:
                np.testing.assert_allclose(labels["distortion"], record["distortion"], rtol=1e-6, err_msg=key)
            if labels["has_3d"] and labels["has_2d"]:
                reprojects(name, key, labels)
        if "vertices" in record:
            mesh = vertices(body, GENDERS[labels["gender"]], labels)
            for vertex, place in record["vertices"].items():
                np.testing.assert_allclose(mesh[int(vertex)], place, atol=METRES, err_msg=f"{key} vertex {vertex}")


def reprojects(name: str, key: str, labels: dict[str, Any]) -> None:
    known = (labels["joints_2d"][:, 2] > 0) & (labels["joints_3d"][:, 3] > 0)
    points = labels["joints_3d"][known, :3].astype(np.float64)
    if not (points[:, 2] > 0.1).all():
        return  # relative to a root
    camera = labels["intrinsics"].astype(np.float64), labels["distortion"].astype(np.float64)
    seen = lens.project(points, *camera, lens.LENSES[labels["lens"]])
    off = np.linalg.norm(seen - labels["joints_2d"][known, :2], axis=1).max(initial=0)
    assert off < REPROJECTION_PX.get(name, 0.5), (key, off)


def vertices(body: BodyConfig, gender: str, labels: dict[str, Any]) -> np.ndarray:
    """The mesh of a record in the frame of the camera, metres."""
    pose, betas = (torch.from_numpy(labels[label].astype(np.float64))[None] for label in ("pose_aa", "betas"))
    posed = model(body, gender)(pose, betas).vertices[0].numpy()
    return posed + (labels["transl"] if np.isfinite(labels["transl"]).all() else 0)


@cache
def model(body: BodyConfig, gender: str) -> BodyModel:
    return BodyModel(load_body(body, gender)).double()


def load(dataset: ShardDataset) -> None:
    """A training batch of it is of finite numbers."""
    model = ModelConfig(joint_set=dataset.figure.joint_set, image_size=48)
    train = TrainConfig(batch_size=min(4, len(dataset)), workers=0, augment=AugmentConfig(flip=0.0))
    batch = next(iter(TrainStream([dataset], model, train)))
    assert all(torch.isfinite(values.float()).all() for values in batch.values())


def stamps(name: str, raw: Path, truth: dict[str, Any], body: BodyConfig) -> None:
    """Pictures that carry the number of their frame are those of the frame that a record names."""
    split = next(iter(truth["splits"].values()))
    if not split["records"]:
        return
    given = {key: split[key] for key in ("split", "supervision", "options")}
    config = DatasetConfig.model_validate({"source": name, "root": raw, **given})
    told = {(r["frame"], r["person"]): r["stamp"] for r in split["records"] if "stamp" in r}
    adapter, read = sources.adapter(name), 0
    rows = (row for row in adapter.rows(config, body) if isinstance(row, Row))
    for record in adapter.read(config, body, rows):
        if isinstance(record, Record):
            stamp = told.get((record.frame, record.person))
            if stamp is None and name in VIDEOS and "@" in record.frame:
                stamp = int(record.frame.rpartition("@")[2])
            if stamp is not None:
                image = record.image
                picture = image if isinstance(image, np.ndarray) else crop.decode(Path(image).read_bytes())
                assert read_stamp(picture) == stamp, record.frame
                read += 1
    assert read == (len(split["records"]) if "@" in split["records"][0]["frame"] and name in VIDEOS else len(told))
