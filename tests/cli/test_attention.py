"""`metro attention`: photographs and datasets."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from PIL import Image

from metro.cli.app import main
from metro.cli.attention import attention
from metro.data.hdf5 import SCHEMA
from metro.export.bundle import bundle_of, write_bundle
from metro.files import sha256_of
from tests.conftest import World


@pytest.fixture(scope="module")
def model(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "bundle"
    return str(write_bundle(folder, bundle_of(world.model, world.data, world.levels)))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (140, 100), (80, 120, 90)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_dataset(world: World, model: str, tmp_path: Path) -> None:
    shard = world.dataset.paths[0]
    entry = {"file": shard.name, "count": 12, "bytes": shard.stat().st_size, "sha256": sha256_of(shard)}
    (shard.parent / "manifest.json").write_text(json.dumps({"schema": SCHEMA, "count": 12, "shards": [entry]}))
    told = attention(shard.parent, model=model, out=tmp_path, samples=3, examples=1, device="cpu")
    assert isinstance(told, dict)
    assert told["images"] == 3
    assert "95 % interval" in told["layers"][0]["lower_limbs"]
    assert (tmp_path / "mean.png").exists()


def test_people_of_a_photograph(model: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["attention", str(photo), "--model", model, "--joint", "right_wrist", "--block", "1", "--device", "cpu"]
    assert main([*words, "--box", "20,10,50,80;70,10,50,80", "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "block 1, layer 1 looks × an even spread from R_Wrist at " in lines[1]
    names = {f"a_{k}_attention.{kind}" for k in (0, 1) for kind in ("png", "json")}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    told = json.loads((tmp_path / "out/a_1_attention.json").read_text())
    assert told["box_xywh"] == [70, 10, 50, 80]
    assert [*told["queries"]] == ["R_Wrist"]
    assert len(told["queries"]["R_Wrist"]["joints"]) == 14
    assert told["effective_tokens"] == pytest.approx(74, rel=0.01)
    assert cv2.imread(str(tmp_path / "out/a_0_attention.png")).shape[1] == 3 * 400 + 2 * 4


def test_one_person_and_the_joints_that_figures_show(model: str, photo: Path, tmp_path: Path) -> None:
    told = attention(photo, model=model, out=tmp_path / "out", detector="none", device="cpu")
    assert isinstance(told, str)
    assert told.startswith(f"{tmp_path}/out/a_attention.png: block 2, layer 1 ")
    record = json.loads((tmp_path / "out/a_attention.json").read_text())
    assert [*record["queries"]] == ["R_Wrist", "L_Wrist", "R_Ankle", "L_Knee", "Head"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("a.png", "a.png: blazepose finds nobody in it; give --box x,y,width,height"),
        ("a.png --joint tail", "--joint tail: the model has no such joint, known: R_Ankle"),
        ("a.png --joint R_Writs", "did you mean 'R_Wrist'?"),
        ("a.png --block 3", "--block 3: the model has 2 blocks"),
        ("a.png --block 1 --layer 2", "--layer 2: block 1 of the model has 1"),
        ("a.png --box 1,2,3", "a box is four finite numbers"),
        ("a.png --box x", "--box x: expected x,y,width,height in pixels"),
        ("a.png --box 900,900,5,5", "is empty or outside the image"),
        ("a.png --box 1,2,30,40 --detector blazepose", "--detector is for photographs without --box"),
        ("a.png --detector other", "detector other: there is no such one"),
        ("a.png --samples 9", "--samples is for dataset folders"),
        ("b.png", "b.png: no such image"),
        ("set --joint R_Wrist", "--joint is for photographs, and set is a folder"),
        ("set --block 1", "--block is for photographs, and set is a folder"),
        ("set", "manifest.json: missing"),
    ],
)
def test_mistakes_are_one_line(
    words: str, said: str, model: str, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photo.parent)
    Path("set").mkdir()
    assert main(["attention", *words.split(), "--model", model, "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not Path("attention").exists()
