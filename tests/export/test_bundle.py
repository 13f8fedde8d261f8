"""Bundles: the same network comes back, and damaged or foreign folders are refused in one line."""

from __future__ import annotations

import json
import shutil
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import metro
from metro.body.arrays import digest
from metro.errors import MetroError
from metro.export import bundle as b
from metro.export.folder import GEOMETRY, META, ONNX, WEIGHTS, read_folder
from metro.export.load import RESOLVERS, open_bundle
from metro.export.networks import OnnxNetwork, TorchNetwork
from metro.files import sha256_of
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
    (tmp_path / "x" / ONNX).touch()
    b.write_bundle(tmp_path / "x", bundle)
    assert not (tmp_path / "x" / ONNX).exists()  # of the old network
    with pytest.raises(MetroError, match=r"model\.safetensors would be lost"):
        b.write_bundle(tmp_path / "x", bundle, weights=False)
    assert open_bundle(tmp_path / "x").meta["origin"]["step"] == 7
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(MetroError, match=r"exists and holds no bundle\.json"):
        b.write_bundle(tmp_path / "thesis", bundle)
    assert (tmp_path / "thesis" / "chapter.tex").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / WEIGHTS).write_bytes(b"x"), "checksum differs"),
        (lambda f: (f / GEOMETRY).unlink(), "missing, the bundle is incomplete"),
        (lambda f: (f / META).write_text("{"), "not valid JSON"),
        (lambda f: (f / META).unlink(), r"bundle\.json: missing; make a bundle"),
        (lambda f: change(f, format=9), "format 9, this version of metro reads 1"),
        (lambda f: change(f, model={"backbone": 3}), "damaged"),
        (lambda f: change(f, model={"joint_set": "J14", "image_size": 64, "backbone": 3}), "damaged"),
        (lambda f: change(f, model=[]), "damaged"),
        (lambda f: change(f, joint_names=["Nose"]), "joint_names are not those of J14"),
        (lambda f: change(f, mesh_levels=[6890, 60, 300]), "mesh_levels do not descend"),
        (lambda f: change(f, mesh_levels=["6890", 300, 60]), "not positive whole numbers"),
        (lambda f: change(f, mesh_levels=6890), "damaged"),
        (lambda f: change(f, mesh_levels=[7000, 300, 60]), "the mesh levels need"),
        (lambda f: change(f, sha256=[]), "damaged"),
        (lambda f: change(f, sha256={GEOMETRY: 1, WEIGHTS: 2}), "sha256 are not strings"),
        (lambda f: change(f, sha256={}), "not part of this bundle"),
    ],
)
def test_damage(folder: Path, tmp_path: Path, break_it, message: str) -> None:
    damaged = shutil.copytree(folder, tmp_path / "bundle")
    break_it(damaged)
    with pytest.raises(MetroError, match=message) as caught:
        b.load_bundle(damaged)
    assert "\n" not in str(caught.value)


def change(folder: Path, **values: object) -> None:
    meta = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps(meta | values))


def geometry(folder: Path, **arrays: np.ndarray | None) -> None:
    """Put other arrays, under the names that they have with `__` for a dot, into a bundle and mend its checksum."""
    old = load_file(folder / GEOMETRY)
    new = old | {name.replace("__", "."): array for name, array in arrays.items()}
    save_file({k: np.ascontiguousarray(v) for k, v in new.items() if v is not None}, folder / GEOMETRY)
    change(folder, sha256=json.loads((folder / META).read_text())["sha256"] | {GEOMETRY: sha256_of(folder / GEOMETRY)})


HOSTILE = np.full(6891, 2**40)
HOSTILE[[0, -1]] = 0  # what SciPy's own full check lets pass


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"up_1__indptr": HOSTILE}, "rows do not follow one another"),
        ({"up_1__indices": np.full(6890, 300)}, "outside of its columns"),
        ({"up_1__indices": np.full(6890, -1)}, "outside of its columns"),
        ({"up_1__data": np.full(6890, np.nan)}, "not finite"),
        ({"up_1__data": np.ones(3)}, "6890 columns and 3 values"),
        ({"up_1__shape": np.array([6890, 2**40])}, "the mesh levels need"),
        ({"up_2__shape": np.array(7)}, "damaged"),
        ({"regressor__indptr": np.zeros((3, 3), np.int64)}, "no vectors"),
        ({"regressor__data": None}, "damaged"),
        ({"indices_1": np.arange(300) + 6800}, "indices_1 are not"),
        ({"indices_1": np.arange(300)[::-1]}, "indices_1 are not"),
        ({"indices_1": np.arange(300.0)}, "indices_1 are not"),
        ({"indices_2": np.arange(59)}, "indices_2 are not"),
        ({"faces_0": np.array([[0, 1, 6890]], np.int32)}, "vertices that a mesh of 6890 has not"),
        ({"faces_0": np.array([[0, 1, -1]], np.int32)}, "vertices that a mesh of 6890 has not"),
        ({"faces_0": np.zeros((4, 4), np.int32)}, "faces of shape"),
        ({"faces_0": np.zeros((4, 3))}, "faces of shape"),
        ({"faces_1": np.array([[0, 1, 300]], np.int32)}, "vertices that a mesh of 300 has not"),
        ({"template_T3": np.zeros((74, 2), np.float32)}, "the template has shape"),
        ({"template_T3": np.full((74, 3), np.inf, np.float32)}, "template is not of finite"),
        ({"template_T3": np.zeros((74, 3), np.int64)}, "template is not of finite"),
    ],
)
def test_wrong_geometry_with_a_right_checksum(folder: Path, tmp_path: Path, arrays, message: str) -> None:
    shutil.copytree(folder, tmp_path / "bundle")
    geometry(tmp_path / "bundle", **arrays)
    with pytest.raises(MetroError, match=message) as caught:
        b.load_bundle(tmp_path / "bundle")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def lean(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an ONNX file and without weights."""
    bundle = b.bundle_of(world.model, world.data, world.levels, {"step": 7})
    return b.write_bundle(tmp_path_factory.mktemp("bundles") / "lean", bundle, [ONNX], weights=False)


def test_a_bundle_with_an_onnx_file_runs_in_onnx_runtime_unless_a_device_is_named(
    exported: Path, tmp_path: Path
) -> None:
    both = shutil.copytree(exported, tmp_path / "both")
    assert read_folder(both).meta["largest_difference_m"][ONNX] < 1e-5
    by_onnx, by_torch = metro.load(both), metro.load(both, "cpu")
    assert isinstance(by_onnx.network, OnnxNetwork)
    assert isinstance(by_torch.network, TorchNetwork)
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 90, 140, 3), dtype=np.uint8))
    for ours, theirs in zip(by_onnx(pictures, batch_size=2), by_torch(pictures), strict=True):
        assert np.array_equal(ours.faces, theirs.faces)
        for name in ("vertices", "joints", "camera"):
            assert np.abs(getattr(ours, name) - getattr(theirs, name)).max() < 1e-4

    (both / ONNX).write_bytes((both / ONNX).read_bytes()[:-100])
    with pytest.raises(MetroError, match=r"model\.onnx: checksum differs"):
        metro.load(both)
    assert isinstance(metro.load(both, "cpu").network, TorchNetwork)


def test_without_weights(lean: Path) -> None:
    assert {path.name for path in lean.iterdir()} == {META, GEOMETRY, ONNX}
    assert isinstance(metro.load(lean).network, OnnxNetwork)
    with pytest.raises(MetroError, match=r"model\.safetensors: not part of this bundle; export it again, with it"):
        open_bundle(lean)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / ONNX).unlink(), "missing, the bundle is incomplete"),
        (lambda f: onnx_file(f, b"not a program"), r"model\.onnx: damaged"),
        (lambda f: onnx_file(f, (f / ONNX).read_bytes()[:5000]), r"model\.onnx: damaged"),
        (lambda f: change(f, model={"joint_set": "J14", "image_size": 65}), r"bundle\.json says"),
        (lambda f: change(f, mesh_levels=[6891]), r"bundle\.json says"),
        (lambda f: geometry(f, faces_0=np.array([[0, 1, 6890]], np.int32)), "vertices that a mesh of 6890 has not"),
        (lambda f: geometry(f, faces_0=None), "damaged"),
    ],
)
def test_damage_that_onnx_runtime_meets(
    lean: Path, tmp_path: Path, break_it, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(lean, folder)
    break_it(folder)
    with pytest.raises(MetroError, match=message) as caught:
        metro.load(folder)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def onnx_file(folder: Path, content: bytes) -> None:
    """Put another ONNX file into a bundle and mend its checksum."""
    (folder / ONNX).write_bytes(content)
    change(folder, sha256=json.loads((folder / META).read_text())["sha256"] | {ONNX: sha256_of(folder / ONNX)})


def test_weights_of_another_configuration(world: World, hands: World, tmp_path: Path) -> None:
    folder = b.write_bundle(tmp_path / "bundle", b.bundle_of(world.model, world.data, world.levels))
    other = hands.model.config.model_dump(mode="json") | {"joint_set": "J14", "camera_width": 9}
    change(folder, model=other)
    with pytest.raises(MetroError, match=r"checkpoint of another configuration: camera\.hidden"):
        b.load_bundle(folder)


def test_load_dispatches(world: World, folder: Path, tmp_path: Path) -> None:
    assert metro.load(folder, device="cpu").network.meta["origin"]["step"] == 7
    with pytest.raises(MetroError, match="no such folder; give a checkpoint or bundle folder"):
        metro.load(tmp_path / "nowhere")
    with pytest.raises(MetroError, match="neither a bundle"):
        metro.load(tmp_path)
    with pytest.raises(MetroError, match="device 'warp9': not on this machine"):
        metro.load(folder, device="warp9")


def test_addresses_are_opened_by_whoever_registered_their_scheme(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(address: str) -> Path:
        asked.append(address)
        return folder.parent  # the bundle is among its files

    monkeypatch.setattr(models, "download", download)
    registered = metadata.EntryPoint("models", "pipeline.models:download", RESOLVERS)
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: metadata.EntryPoints([registered]).select(**wanted))
    assert metro.load("models:/metro/1", device="cpu").network.meta["origin"]["step"] == 7
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
    sums = {name: sha256_of(folder / name) for name in ("model.safetensors", "levels.npz")}
    assert bundle.meta["origin"] == {"checkpoint": "best", "step": 3, "metrics": {"mpjpe": 0.1}, "sha256": sums}

    meta = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps(meta | {"body": "f" * 64}))
    with pytest.raises(MetroError, match="trained on another body model"):
        open_bundle(folder)
