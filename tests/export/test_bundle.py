"""Bundles: the same network comes back, and damaged or foreign folders are refused in one line."""

from __future__ import annotations

import json
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

import metro
from metro.body.arrays import digest
from metro.errors import MetroError
from metro.export import bundle as b
from metro.export.load import RESOLVERS, open_bundle
from metro.model.metro import build_model
from metro.training.checkpoint import save_checkpoint
from pipeline import models
from tests.conftest import World, nearest_levels


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    about = {"checkpoint": "best", "step": 7}
    return b.write_bundle(
        tmp_path_factory.mktemp("bundles") / "bundle", b.bundle_of(world.model, world.data, world.levels, about)
    )


def images(world: World) -> torch.Tensor:
    return torch.rand(2, 3, world.model.config.image_size, world.model.config.image_size)


def test_the_same_network_comes_back(world: World, folder: Path) -> None:
    loaded = b.load_bundle(folder)
    x = images(world)
    with torch.inference_mode():
        ours, theirs = world.model(x), loaded.model(x)
    assert torch.equal(ours.vertices[-1], theirs.vertices[-1])
    assert torch.equal(ours.mesh_joints, theirs.mesh_joints)
    assert np.array_equal(loaded.faces_F3, world.data.faces)
    assert loaded.meta["body"] == {"kind": "open", "gender": "neutral", "digest": digest(world.data)}
    assert loaded.meta["mesh_levels"] == [6890, 300, 60]
    assert loaded.meta["origin"] == {"checkpoint": "best", "step": 7}
    assert loaded.meta["licence"]


def test_loading_leaves_the_random_stream_alone(folder: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    b.load_bundle(folder)
    assert torch.equal(torch.rand(1), expected)


def test_hands(hands: World, tmp_path: Path) -> None:
    b.write_bundle(tmp_path / "hand", b.bundle_of(hands.model, hands.data, hands.levels))
    loaded = b.load_bundle(tmp_path / "hand")
    assert loaded.joint_names[0] == "Wrist"
    assert len(loaded.joint_names) == 21
    x = images(hands)
    with torch.inference_mode():
        assert torch.equal(loaded.model(x).vertices[-1], hands.model(x).vertices[-1])


def test_a_bundle_is_replaced_but_other_folders_are_not(world: World, folder: Path, tmp_path: Path) -> None:
    bundle = b.load_bundle(folder)
    b.write_bundle(tmp_path / "x", bundle)
    (tmp_path / "x" / b.ONNX).touch()
    b.write_bundle(tmp_path / "x", bundle)
    assert not (tmp_path / "x" / b.ONNX).exists()  # of the old network
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(MetroError, match=r"exists and holds no bundle\.json"):
        b.write_bundle(tmp_path / "thesis", bundle)
    assert (tmp_path / "thesis" / "chapter.tex").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / b.WEIGHTS).write_bytes(b"x"), "checksum differs"),
        (lambda f: (f / b.GEOMETRY).unlink(), "missing, the bundle is incomplete"),
        (lambda f: (f / b.META).write_text("{"), "not valid JSON"),
        (lambda f: (f / b.META).unlink(), r"bundle\.json: missing; make a bundle"),
        (lambda f: change(f, format=9), "format 9, this version of metro reads 1"),
        (lambda f: change(f, model={"backbone": 3}), "cannot be read"),
    ],
)
def test_damage(world: World, tmp_path: Path, break_it, message: str) -> None:
    folder = b.write_bundle(tmp_path / "bundle", b.bundle_of(world.model, world.data, world.levels))
    break_it(folder)
    with pytest.raises(MetroError, match=message) as caught:
        b.load_bundle(folder)
    assert "\n" not in str(caught.value)


def change(folder: Path, **values: object) -> None:
    meta = json.loads((folder / b.META).read_text())
    (folder / b.META).write_text(json.dumps(meta | values))


def test_weights_of_another_configuration(world: World, hands: World, tmp_path: Path) -> None:
    folder = b.write_bundle(tmp_path / "bundle", b.bundle_of(world.model, world.data, world.levels))
    other = hands.model.config.model_dump(mode="json") | {"joint_set": "J14", "camera_width": 9}
    change(folder, model=other)
    with pytest.raises(MetroError, match=r"checkpoint of another configuration: camera\.hidden"):
        b.load_bundle(folder)


def test_load_dispatches(world: World, folder: Path, tmp_path: Path) -> None:
    assert metro.load(folder, device="cpu").bundle.meta["origin"]["step"] == 7
    with pytest.raises(MetroError, match="no such folder; give a checkpoint or bundle folder"):
        metro.load(tmp_path / "nowhere")
    with pytest.raises(MetroError, match="neither a bundle"):
        metro.load(tmp_path)
    with pytest.raises(MetroError, match="device 'warp9' cannot be used"):
        metro.load(folder, device="warp9")


def test_addresses_are_opened_by_whoever_registered_their_scheme(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(address: str) -> Path:
        asked.append(address)
        return folder.parent  # the bundle is among its files

    monkeypatch.setattr(models, "download", download)
    registered = metadata.EntryPoint("models", "pipeline.models:download", RESOLVERS)
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: metadata.EntryPoints([registered]).select(**wanted))
    assert metro.load("models:/metro/1", device="cpu").bundle.meta["origin"]["step"] == 7
    assert asked == ["models:/metro/1"]
    with pytest.raises(MetroError, match="runs:/7/model: nothing installed opens runs:/ addresses; give a folder"):
        metro.load("runs:/7/model")


def test_the_pipeline_opens_what_mlflow_keeps() -> None:
    """The entry points that pyproject.toml declares lead to functions that are there."""
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["entry-points"]
    assert set(declared[RESOLVERS]) == {"models", "runs"}
    for scheme, target in declared[RESOLVERS].items():
        assert metadata.EntryPoint(scheme, target, RESOLVERS).load() is models.download


def test_checkpoints(world: World, tmp_path: Path) -> None:
    """A checkpoint brings its mesh levels, whatever its parameters would build; the body is that of its parameters."""
    levels = nearest_levels(world.data.v_template, (80, 50))
    model = build_model(world.params.model, world.data, levels).eval()
    told = {"params": world.params, "step": 3, "metrics": {"mpjpe": 0.1}, "body_digest": digest(world.data)}
    folder = save_checkpoint(tmp_path / "best", model.state_dict(), levels=levels, **told)
    bundle = open_bundle(folder)
    x = images(world)
    with torch.inference_mode():
        assert torch.equal(bundle.model(x).vertices[-1], model(x).vertices[-1])
    assert bundle.meta["origin"] == {"checkpoint": "best", "step": 3, "metrics": {"mpjpe": 0.1}}

    meta = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps(meta | {"body": "f" * 64}))
    with pytest.raises(MetroError, match="trained on another body model"):
        open_bundle(folder)
