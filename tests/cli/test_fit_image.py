"""`metro fit --keypoints`: people of an image from a pose detector's file, and what is said of those it cannot fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metro.body.arrays import save_body
from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.cli.app import main
from metro.export.bundle import bundle_of, write_bundle
from metro.export.predictor import read_image
from metro.viz.overlay import save_image
from tests.conftest import World

FOCAL, WIDTH, HEIGHT = 400.0, 320, 240


@pytest.fixture(scope="module")
def person() -> dict[str, list[float]]:
    """Pixels of the joints of the body at rest, upright before the camera, by name."""
    body = load_body("open")
    joints_J3 = body.regressors["j24"] @ body.v_template * [1, -1, -1] + [0.3, 0, 3.5]
    pixels_J2 = FOCAL * joints_J3[:, :2] / joints_J3[:, 2:] + [(WIDTH - 1) / 2, (HEIGHT - 1) / 2]
    return dict(zip(JOINT_SETS["J24"], pixels_J2.tolist(), strict=True))


@pytest.fixture(scope="module")
def network(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    bundle = bundle_of(world.model, world.data, world.levels)
    return str(write_bundle(tmp_path_factory.mktemp("model") / "bundle", bundle))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, person: dict[str, list[float]]) -> Path:
    """A folder with a picture, and OpenPose's file of two people in it, the second of whom shows three joints."""
    monkeypatch.chdir(tmp_path)
    save_image(np.full((HEIGHT, WIDTH, 3), 120, np.uint8), Path("p.png"))
    names = JOINT_SETS["OPENPOSE25"]
    whole = [x for name in names for x in ([*person[name], 0.9] if name in person else [0.0, 0.0, 0.0])]
    rows = [whole, [*whole[:9], *[0.0] * 66]]
    Path("p_keypoints.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": row} for row in rows]}))
    return tmp_path


WORDS = ["fit", "--keypoints", "p_keypoints.json", "--image", "p.png"]


def test_everything_is_written_for_each_person(
    here: Path, person: dict[str, list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, "--focal", str(FOCAL)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["people"], told["fitted"]) == (2, 1)
    assert told["not_fitted"] == {"person 1": "3 joints, 6 are needed"}
    assert told["error_2d_percent"][0] < 1
    assert {path.name for path in Path("fits").iterdir()} == {
        *("p_0.obj", "p_0.glb", "p_0.json", "p_0.npz", "p_overlay.png")
    }
    record = json.loads(Path("fits/p_0.json").read_text())
    for name, pixel in zip(record["joint_names"], record["joints_2d"], strict=True):
        assert np.allclose(pixel, person[name], atol=3), name
    assert record["perspective"]["translation"][0] == pytest.approx(0.3, abs=0.03)
    with np.load("fits/p_0.npz") as arrays:
        assert arrays["transl"][0, 2] == pytest.approx(3.5, rel=0.15)
    changed = (read_image("fits/p_overlay.png") != 120).any(2)
    columns = np.flatnonzero(changed.any(0))
    assert abs(columns.mean() - person["Pelvis"][0]) < 6


def test_started_from_a_network(here: Path, network: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--focal", str(FOCAL), "--start", network, "--out", "a"]) == 0
    assert json.loads(capsys.readouterr().out)["fitted"] == 1
    assert Path("a/p_0.npz").is_file()


def test_another_body(here: Path, network: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_text("body: {gender: female}")
    assert main([*WORDS, "--params", "params.yaml", "--start", network]) == 2
    assert "was trained on another body (open)" in capsys.readouterr().err
    save_body(load_body("open"), Path("mine.npz"))
    assert main([*WORDS, "--body", "mine.npz"]) == 2
    assert "mine.npz: holds the open body, which ships with metro; leave --body out" in capsys.readouterr().err
    save_body(replace(load_body("open"), kind="smpl"), Path("smpl_neutral.npz"))
    assert main([*WORDS, "--body", "smpl_neutral.npz"]) == 0
    with np.load("fits/p_0.npz") as arrays:
        assert arrays["body"].item() == "smpl"
    assert main([*WORDS, "--body", "missing.npz"]) == 2
    assert "missing.npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit"], "FOLDER of a prepared dataset, or --keypoints"),
        (["fit", "folder", *WORDS[1:]], "give either the FOLDER"),
        (WORDS[:3], "--keypoints FILE.json and --image go together"),
        (["fit", "folder", "--image", "p.png"], "--keypoints FILE.json and --image go together"),
        ([*WORDS, "--workers", "2"], "--scheduler and --workers are for datasets"),
        (["fit", "folder", "--focal", "300"], "--focal is for --image"),
        ([*WORDS, "--focal", "nan"], "focal length nan"),
        ([*WORDS, "--start", "nowhere"], "nowhere: no such folder"),
        ([*WORDS[:4], "missing.png"], "missing.png: no such image"),
        ([*WORDS[:2], "p.png", *WORDS[3:]], "p.png: "),
        ([*WORDS[:2], "empty.json", *WORDS[3:]], "empty.json: has no people in p.png"),
        ([*WORDS[:2], "few.json", *WORDS[3:]], "nobody in p.png can be fitted (person 0: 4 joints, 6 are needed)"),
        ([*WORDS[:2], "p.json", *WORDS[3:], "--out", "."], "p.json: a result would be written over it"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(Path("p_keypoints.json").read_text())["people"]
    Path("empty.json").write_text('{"people": []}')
    Path("few.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": [50, 60, 1] * 4 + [0] * 63}]}))
    Path("p.json").write_text(json.dumps({"people": content[:1]}))
    before = sorted(here.rglob("*"))
    assert main(words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert sorted(here.rglob("*")) == before
