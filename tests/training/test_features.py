"""Kept features stand in for pictures, and their bytes depend on nothing but what they are of."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metro.config import Params, load_params
from metro.errors import MetroError
from metro.files import sha256_of
from metro.model.backbones import Backbone
from metro.model.metro import Metro, build_model
from metro.model.packaged import landmark_weights
from metro.model.tensors import load_tensors
from metro.training import features
from metro.training.engine import train
from metro.training.features import FeatureCache
from tests.training.conftest import Setting, small_params
from tests.training.test_engine import RUN, losses, run_arguments

FROZEN: dict[str, Any] = {"freeze": ["backbone"], "views": 2}


@pytest.fixture(scope="module")
def metro(setting: Setting) -> Metro:
    torch.manual_seed(0)
    metro = build_model(setting.params.model, setting.body, setting.levels)
    metro.backbone.requires_grad_(False)
    return metro


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PART_BYTES", 900)  # two records


def make(setting: Setting, metro: Metro, root: Path, **settings: Any) -> FeatureCache:
    params = small_params(**(FROZEN | settings))
    return FeatureCache(root, params, setting.datasets, metro.backbone, leads=True)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def test_views_need_a_frozen_backbone():
    with pytest.raises(MetroError, match=r"views 2: only features of a frozen .* add `backbone` to freeze"):
        load_params({"train": {"views": 2, "freeze": ["blocks.0"]}})


def test_features_are_not_kept_of_weights_that_learn(setting: Setting, tmp_path: Path):
    params = small_params(views=2, freeze=["backbone.net.layer4"])
    with pytest.raises(
        MetroError, match=r"train.views: backbone.net.conv1.0.weight learns, and features .* add `backbone` to"
    ):
        train(params, setting.datasets, setting.body, setting.levels, tmp_path)


def test_training_without_views_loads_no_onnx_runtime():
    code = "import sys, metro.training.run; print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_the_head_sees_the_same_in_features_as_in_pictures(metro: Metro):
    images = torch.randn(2, 3, 32, 32)
    metro.eval()
    with torch.no_grad():
        assert torch.equal(metro(metro.backbone.features(images)).vertices[-1], metro(images).vertices[-1])


@pytest.mark.usefixtures("small_parts")
def test_a_view_is_what_the_loader_shows_in_that_pass(setting: Setting, metro: Metro, tmp_path: Path):
    from metro.data.augment import normalise
    from metro.data.loader import TrainStream

    stored = make(setting, metro, tmp_path).stored
    plain = TrainStream(setting.datasets, setting.params.model, setting.params.train)
    for step in range(5):  # of four: two passes over ten records
        batch = plain.batch(step)
        with torch.no_grad():
            expected = metro.backbone.eval()(normalise(batch["image"], batch["colour"])).flatten(1)
        view_B = np.array([(4 * step + i) // 10 for i in range(4)])
        found = torch.from_numpy(stored(batch["index"].numpy(), view_B))
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("small_parts")
def test_seeds_share_the_views_of_one_seed_and_nothing_else(setting: Setting, metro: Metro, tmp_path: Path):
    from metro.data.loader import TrainStream

    folders = [make(setting, metro, tmp_path, seed=seed, views_seed=3).stored.folder for seed in (1, 2)]
    assert folders[0] == folders[1]
    assert make(setting, metro, tmp_path, seed=3).stored.folder == folders[0]  # the views of that seed itself
    assert make(setting, metro, tmp_path, seed=1).stored.folder != folders[0]
    streams = [
        TrainStream(
            setting.datasets,
            setting.params.model,
            small_params(**FROZEN, seed=seed, views_seed=3).train,
            lambda rng: rng.random(8) < 0.5,
        )
        for seed in (1, 2)
    ]
    one, other = (stream.batch(0) for stream in streams)
    assert one["index"].tolist() != other["index"].tolist()
    assert not torch.equal(one["mask"], other["mask"])
    views = [stream.pictures(np.arange(10), np.zeros(10, int))["image"] for stream in streams]
    assert torch.equal(*views)


def test_training_on_features_equals_training_on_pictures(setting: Setting, tmp_path: Path):
    still = {"flip": 0.0, "rotation_off": 1.0, "scale_sd": 0.0, "colour": 0.0}
    alike = {"augment": still, "mask": {"joints": 0, "vertices": 0}, "freeze": ["backbone"], "steps": 6}
    runs = []
    for views in (None, 1):
        params = small_params(**alike, views=views)
        model = params.model.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0})
        params = params.model_copy(update={"model": model})
        runs.append(train(params, setting.datasets, setting.body, setting.levels, tmp_path / str(views)))
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=1e-3)
    assert losses(runs[0])[-1] != pytest.approx(losses(runs[0])[0], rel=1e-2)  # it did learn meanwhile


def test_the_end_of_a_trunk_learns_on_features_as_on_pictures(setting: Setting, tmp_path: Path):
    early = ["backbone.net.encoder.stem", *(f"backbone.net.encoder.stages.{number}" for number in range(4))]
    still = {"flip": 0.0, "rotation_off": 1.0, "scale_sd": 0.0, "colour": 0.0}
    alike = {"augment": still, "mask": {"joints": 0, "vertices": 0}, "freeze": early, "steps": 3, "lr": 1e-4}
    runs = []
    for views in (None, 1):
        params = small_params(**alike, views=views)
        hand = {"backbone": "blazehand", "backbone_weights": "shipped", "image_size": 224}
        model = params.model.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0, **hand})
        params = params.model_copy(update={"model": model})
        runs.append(train(params, setting.datasets, setting.body, setting.levels, tmp_path / str(views)))
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=1e-3)
    started, trained = load_tensors(landmark_weights("blazehand")), runs[1].checkpoint.weights()
    trunk = {name.removeprefix("trunk."): weight.float() for name, weight in started.items() if "trunk." in name}
    moved = {
        name.rpartition(".")[0] for name, was in trunk.items() if not torch.equal(was, trained[f"backbone.net.{name}"])
    }
    late = {name.rpartition(".")[0] for name in trunk if name.startswith(("encoder.stages.4.", "encoder.last."))}
    assert moved == late


@pytest.mark.usefixtures("small_parts")
def test_the_number_of_processes_changes_no_byte(
    setting: Setting, metro: Metro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = []
    for cores in ({0}, {0, 1, 2}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        made.append(digests(make(setting, metro, tmp_path / str(len(cores))).stored.folder))
    assert len(made[0]) == 6  # five parts and `done`
    assert made[0] == made[1]


KILLED = """
import os, signal
import metro.training.features as features
features.PART_BYTES, own = 900, features.atomic_file

def deadly(path):
    if path.name == "part-00002.bin":
        path.with_name(f".{path.name}.1.tmp").touch()
        os.kill(os.getppid(), signal.SIGKILL)
    return own(path)

features.atomic_file = deadly
"""


@pytest.mark.usefixtures("small_parts")
def test_kill_9_while_features_are_computed_changes_no_byte(setting: Setting, tmp_path: Path):
    params = small_params(**FROZEN, steps=3)
    arguments = run_arguments(setting, params, tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED + RUN, *arguments], stdout=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "work" / "features").glob("*/")
    written = (folder / "part-00000.bin").stat().st_mtime_ns
    assert not (folder / "done").exists()
    runs = [
        train(params, setting.datasets, setting.body, setting.levels, tmp_path / name).checkpoint
        for name in ("work", "whole")
    ]
    assert (folder / "part-00000.bin").stat().st_mtime_ns == written
    assert digests(folder) == digests(tmp_path / "whole" / "features" / folder.name)
    assert len({run.sha256["model.safetensors"] for run in runs}) == 1


def test_trainings_share_features_and_those_of_others_go_unless_in_use(setting: Setting, metro: Metro, tmp_path: Path):
    (foreign := tmp_path / "mine").mkdir()
    first = make(setting, metro, tmp_path, seed=1)
    again = make(setting, metro, tmp_path, seed=1, steps=1, lr=0.5, mask={"joints": 0.5}, batch_size=2)
    assert again.stored.folder == first.stored.folder
    del again
    others: list[dict[str, Any]] = [{"seed": 2}, {"views": 3}, {"augment": {"colour": 0.1}}]
    for other in others:
        second = make(setting, metro, tmp_path, **({"seed": 1} | other)).stored.folder
        assert {path for path in tmp_path.iterdir() if path.is_dir()} == {foreign, first.stored.folder, second}
    del first
    third = make(setting, metro, tmp_path, seed=3).stored.folder
    assert {path for path in tmp_path.iterdir() if path.is_dir()} == {foreign, third}


def test_a_damaged_view_is_refused(setting: Setting, metro: Metro, tmp_path: Path):
    stored = make(setting, metro, tmp_path).stored
    part = stored.folder / "part-00000.bin"
    data = bytearray(part.read_bytes())
    data[stored.row.itemsize * 3 + 7] ^= 1
    part.write_bytes(data)
    stored(np.array([1]), np.array([0]))
    remedy = f"delete {stored.folder} and run again"
    with pytest.raises(MetroError, match=rf"part-00000.bin: damaged .*checksum.*; {remedy}"):
        stored(np.array([1]), np.array([1]))
    os.truncate(part, 100)
    with pytest.raises(MetroError, match=rf"part-00000.bin: damaged .*; {remedy}"):
        stored(np.array([0]), np.array([1]))


def test_too_little_room_is_told_before_anything_is_computed(
    setting: Setting, metro: Metro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 3_000, 3_000))
    with pytest.raises(MetroError, match=r"features of 20 views need 3.9 kB, but 3.0 kB are free; make room, lower"):
        make(setting, metro, tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


def test_features_beyond_float16_are_refused(setting: Setting, metro: Metro, tmp_path: Path):
    class Loud(Backbone):
        def features(self, images: torch.Tensor) -> torch.Tensor:
            return 1e6 * images.flatten(1)

    params: Params = small_params(**FROZEN)
    with pytest.raises(MetroError, match=r"part-00000.bin: features that float16 cannot hold; set train.views"):
        FeatureCache(tmp_path, params, setting.datasets, Loud(), leads=True)
