"""`metro predict` and `metro export`: whose results are written where, and what happens to the rest if one fails."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import metro.detect
from metro.body.joints import JOINT_SETS
from metro.cli.app import main
from metro.detect import Detection
from metro.detect.detection import POSE_LANDMARKS
from metro.export.predictor import read_image
from metro.viz.overlay import save_image
from tests.conftest import World


@pytest.fixture(scope="module")
def model(exported: Path) -> str:
    return str(exported)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path: str, seed: int = 0) -> str:
    noise = np.random.default_rng(seed).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    save_image(cv2.GaussianBlur(noise, (0, 0), 3), Path(path))
    return path


def written(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def boxes_in(folder: str) -> dict[str, list[float]]:
    return {path.stem: json.loads(path.read_text())["box_xywh"] for path in Path(folder).glob("*.json")}


def test_results_of_one_image(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", picture("one.png"), "--model", model, "--out", "a", "--scene", "--focal", "300"]
    assert main([*words, "--box", "-10,10,50,60;70,5,40,80"]) == 0
    assert written("a") == {
        *("one_overlay.png", "one_scene.glb", *(f"one_{k}.{e}" for k in (0, 1) for e in ("obj", "glb", "json")))
    }
    assert capsys.readouterr() == ("one.png: 2 predicted → a/one*\n", "")
    record = json.loads(Path("a/one_0.json").read_text())
    assert record["image"] == "one.png"
    assert record["box_xywh"] == [-10, 10, 50, 60]
    assert record["perspective"]["focal"] == 300
    assert main(["predict", "one.png", "--model", model, "--out", "b", "--detector", "none"]) == 0
    assert written("b") == {"one_overlay.png", "one.obj", "one.glb", "one.json"}
    assert "took the middle square" in capsys.readouterr().out


class Known:
    """A detector that finds somebody wherever the picture's first pixel says, as often as it says."""

    name = "known"

    def __call__(self, image: np.ndarray) -> list[Detection]:
        return [Detection((10.0 * k, 5.0, 40.0, 60.0), 0.9 - k / 10) for k in range(image[0, 0, 0])]


def people(path: str, count: int) -> str:
    image = read_image(picture(path)).copy()
    image[0, 0] = count
    save_image(image, Path(path))
    return path


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Puts `Known` in the place of every detector; returns what each was asked for."""
    asked: list[dict[str, object]] = []

    def opened(name: str, **wishes: object) -> Known | None:
        if name == "none":
            return None
        asked.append(wishes)
        return Known()

    monkeypatch.setattr(metro.detect, "detector", opened)
    return asked


def test_people_are_found(here: Path, model: str, known: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", model, "--out", "a", "--max-people", "7", "--min-score", "0.25"]
    assert main(["predict", people("two.png", 2), people("one.png", 1), *words]) == 0
    assert capsys.readouterr().out == "two.png: 2 predicted → a/two*\none.png: 1 predicted → a/one*\n"
    assert boxes_in("a") == {"two_0": [0, 5, 40, 60], "two_1": [10, 5, 40, 60], "one": [0, 5, 40, 60]}
    record = json.loads(Path("a/two_1.json").read_text())
    assert (record["box"], record["score"]) == ("found by known", 0.8)
    assert known == [{"hands": False, "least": 0.25, "most": 7}]


def test_boxes_win_over_the_detector(here: Path, model: str, known: list[object]) -> None:
    assert main(["predict", people("two.png", 2), "--box", "1,2,30,40", "--model", model, "--out", "a"]) == 0
    assert boxes_in("a") == {"two": [1, 2, 30, 40]}
    assert known == []


def test_where_nobody_is_found_nobody_is_made_up(
    here: Path, model: str, known: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", people("no.png", 0), people("one.png", 1), "--model", model, "--out", "a"]) == 2
    told = capsys.readouterr()
    assert told.out == "one.png: 1 predicted → a/one*\n"
    assert "1 of 2 images failed: no.png: known finds nobody in it; give --box x,y,width,height" in told.err
    assert written("a") == {"one_overlay.png", "one.obj", "one.glb", "one.json"}


def test_results_of_people_not_counted_yet_never_meet(here: Path, model: str, known: list[object]) -> None:
    images = [people("a.png", 2), people("A_1.png", 1), people("b_01.png", 1)]
    assert main(["predict", *images, "--model", model, "--out", "out"]) == 0
    assert boxes_in("out").keys() == {"0-a_0", "0-a_1", "1-A_1", "2-b_01"}


def test_of_an_animation_the_first_frame_is_taken_and_that_is_said(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Image.fromarray(read_image(picture(f"{k}.png", k))) for k in range(3)]
    frames[0].save("wave.gif", save_all=True, append_images=frames[1:])
    assert main(["predict", "wave.gif", "--model", model, "--box", "9,9,50,60"]) == 0
    assert capsys.readouterr().out == "wave.gif: 1 predicted → predictions/wave* (an animation: its first frame)\n"


def test_parameters_of_the_body_are_written_if_asked(
    here: Path, model: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", picture("one.png"), "--model", model, "--box", "10,10,50,60", "--focal", "300"]
    assert main([*words, "--npz"]) == 0
    assert written("predictions") == {"one_overlay.png", "one.obj", "one.glb", "one.json", "one.npz"}
    with np.load("predictions/one.npz") as arrays:
        pose = np.concatenate((arrays["global_orient"], arrays["body_pose"]), 1)
        made = world.body(*map(torch.from_numpy, (pose, arrays["betas"][None], arrays["transl"]))).vertices[0].numpy()
    (found,) = metro.load(model)("one.png", [10, 10, 50, 60])
    assert np.linalg.norm(made - (found.vertices + found.translation(300)), axis=1).mean() < 0.1  # it is untrained
    assert main([*words, "--body", "smpl.npz"]) == 2
    assert "--body is for --npz, --refine and --tta" in capsys.readouterr().err
    assert main([*words, "--npz", "--left-hand"]) == 2
    assert "--npz: a left hand is the mirror image" in capsys.readouterr().err


class Seeing:
    """A detector that sees one person at rest, upright, somewhat left of the middle, in COCO's joints."""

    name = "seeing"

    def __init__(self, world: World) -> None:
        names = JOINT_SETS["J24"]
        self.pixels_J2 = (world.data.regressors["j24"] @ world.data.v_template)[:, :2] * [30, -30] + [60, 40]
        known = [(name in JOINT_SETS["COCO17"]) * 0.9 for name in names]
        seen = dict(zip(names, np.c_[self.pixels_J2, known], strict=True))
        self.landmarks = np.array([seen.get(name, np.zeros(3)) for name in POSE_LANDMARKS])

    def __call__(self, image: np.ndarray) -> list[Detection]:
        return [Detection((35.0, 10.0, 50.0, 60.0), 0.9, self.landmarks)]


def test_refined_people_sit_where_the_detector_saw_them(
    here: Path, model: str, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeing = Seeing(world)
    monkeypatch.setattr(metro.detect, "detector", lambda name, **_: None if name == "none" else seeing)
    words = ["predict", picture("p.png"), "--model", model, "--out"]
    assert main([*words, "plain"]) == main([*words, "fitted", "--refine"]) == 0
    assert written("fitted") == written("plain") | {"p.npz"}
    off = {}
    for folder in ("plain", "fitted"):
        record = json.loads(Path(folder, "p.json").read_text())
        rows = [JOINT_SETS["J24"].index(name) for name in record["joint_names"]]
        off[folder] = np.linalg.norm(np.array(record["joints_2d"]) - seeing.pixels_J2[rows], axis=1).mean()
    assert off["fitted"] < 1 < off["plain"]
    capsys.readouterr()
    assert main([*words, "given", "--refine", "--box", "35,10,50,60"]) == 2
    assert "--refine needs the 2D joints of a detector: leave boxes" in capsys.readouterr().err


def test_an_image_is_read_once(here: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, path = [], picture("p.png")
    open_image = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or open_image(file))
    assert main(["predict", path, "--model", model, "--box", "0,0,50,50;60,0,40,40"]) == 0
    assert opened == [Path(path)]


def test_people_are_drawn_on_one_picture_far_ones_first(here: Path, model: str) -> None:
    boxes = [[0, 0, 60, 80], [30, 10, 30, 40]]  # the small one stands further away
    assert main(["predict", picture("p.png"), "--model", model, "--box", "0,0,60,80;30,10,30,40"]) == 0
    large, small = metro.load(model)("p.png", boxes)
    assert small.translation()[2] > large.translation()[2]
    expected = large.overlay(small.overlay("p.png"))
    assert np.array_equal(read_image("predictions/p_overlay.png"), expected)
    assert not np.array_equal(small.overlay(large.overlay("p.png")), expected)


def test_folders_and_images_without_people(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("f/b.png", "f/a.PNG", "f/.hidden.png", "g.png"):
        picture(name.lower())
    Path("f/a.png").rename("f/a.PNG")
    Path("f/notes.txt").touch()
    Path("boxes.json").write_text(json.dumps({"f/a.PNG": [[0, 0, 50, 50, 0.5]], "b.png": [], "g.png": [[0, 0, 9, 9]]}))
    assert main(["predict", "g.png", "f", "--boxes", "boxes.json", "--model", model, "--out", "out"]) == 0
    told = [line.split(" → ")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["g.png: 1 predicted", "f/a.PNG: 1 predicted", "f/b.png: 0 predicted"]
    assert boxes_in("out") == {"a": [0, 0, 50, 50], "g": [0, 0, 9, 9]}
    assert json.loads(Path("out/a.json").read_text())["score"] == 0.5


def test_an_image_that_fails_does_not_take_others_with_it(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.jpg", "c.png", "d.png", "e.png"):
        picture(name)
    Path("b.jpg").write_bytes(Path("b.jpg").read_bytes()[:1500])
    table = {
        "a.png": [],
        "b.jpg": [[0, 0, 9, 9]],
        "c.png": [[200, 0, 9, 9]],
        "d.png": [[1, 2, 3]],
        "nowhere.png": [[0, 0, 9, 9]],
        "e.png": [[0, 0, 9, 9]],
    }
    Path("boxes.json").write_text(json.dumps(table))
    assert main(["predict", *table, "--boxes", "boxes.json", "--model", model, "--out", "out"]) == 2
    told = capsys.readouterr()
    assert told.out.splitlines() == ["a.png: 0 predicted → out/a*", "e.png: 1 predicted → out/e*"]
    assert told.err.startswith("metro: 4 of 6 images failed: b.jpg: unreadable image")
    for reason in ("c.png: box 200,0,9,9 is empty or outside", "d.png: a box is four", "nowhere.png: no such image"):
        assert reason in told.err
    assert told.err.count("\n") == 1
    assert written("out") == {"e_overlay.png", "e.obj", "e.glb", "e.json"}


def test_a_disk_that_fills_up_leaves_whole_files(
    here: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "b.obj" in path.name:
            write_bytes(path, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, content)

    images = [picture(name) for name in ("a.png", "b.png", "c.png")]
    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["predict", *images, "--model", model, "--out", "out", "--detector", "none"]) == 2
    told = capsys.readouterr()
    assert "1 of 3 images failed: out/b.obj: No space left on device" in told.err
    assert written("out") == {
        *("b_overlay.png", *(f"{name}{end}" for name in "ac" for end in ("_overlay.png", ".obj", ".glb", ".json")))
    }


@pytest.mark.parametrize(
    ("people", "names"),
    [
        ({"x/a.png": 2, "y/a.png": 1, "a_1.png": 1}, {"0-a_0", "0-a_1", "1-a", "2-a_1"}),
        ({"x/a.png": 2, "a_1.png": 1}, {"0-a_0", "0-a_1", "1-a_1"}),
        ({"x/a.png": 1, "a_1.png": 1}, {"a", "a_1"}),
        ({"x/a.png": 1, "A.jpg": 1}, {"0-a", "1-A"}),
        ({"x/a.png": 1, "y/a.png": 1, "0-a.png": 1}, {"0-a", "1-a", "2-0-a"}),
        ({"x/a.png": 0, "y/a.png": 1}, {"1-a"}),
    ],
)
def test_results_never_meet(here: Path, model: str, people: dict[str, int], names: set[str]) -> None:
    table = {picture(path): [[len(path), k, 50, 50] for k in range(count)] for path, count in people.items()}
    Path("boxes.json").write_text(json.dumps(table))
    assert main(["predict", *table, "--boxes", "boxes.json", "--model", model, "--out", "out"]) == 0
    found = boxes_in("out")
    assert found.keys() == names
    assert sorted(found.values()) == sorted(box for rows in table.values() for box in rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one.png", "two.png", "--box", "1,2,3,4"], "--box is for a single image, here are 2"),
        (["one.png", "--box", "1,2,three,4"], "expected x,y,width,height"),
        (["one.png", "--box", ""], "expected x,y,width,height"),
        (["one.png", "--box", "1,2,3"], "a box is four finite numbers"),
        (["one.png", "--box", "1,2,3,1e999"], "a box is four finite numbers"),
        (["one.png", "--box", "1,2,3,4", "--boxes", "boxes.json"], "not both"),
        (["one.png", "two.png", "--boxes", "boxes.json"], "has no boxes for two.png"),
        (["one.png", "--boxes", "absent.json"], "absent.json: missing"),
        (["one.png", "--boxes", "list.json"], "list.json: damaged"),
        (["one.png", "--focal", "0"], "focal length 0: expected a positive number"),
        (["one.png", "--focal", "nan"], "focal length nan"),
        (["one.png", "--left-hand"], "left_hand is for hand models"),
        (["one.png", "--hands"], "predicts bodies; give --model a hand model"),
        (["one.png", "--detector", "blazepoze"], "detector blazepoze: there is no such one, did you mean 'blazepose'?"),
        (["one.png", "--min-score", "1.5"], "--min-score. Must be from 0 to 1"),
        (["one.png", "--max-people", "0"], "--max-people. Must be from 1"),
        (["empty"], "empty: holds no images"),
        (["one.png", "one_overlay.png", "--out", "."], "one_overlay.png: a result would be written over it"),
        (["one.png", "--out", "/proc/x"], "--out. Cannot be written"),
        (["one.png", "--out", "/proc"], "--out. Cannot be written"),
        (["one.png", "--out", "one.png/x"], "--out. Cannot be written"),
        (["one.png", "--out", "one.png"], "--out. Is a file"),
        (["one.png", "--out", "--scene"], "--out. Requires an argument"),
        (["one.png", "--batch-size", "0"], "--batch-size. Must be from 1"),
    ],
)
def test_refused_before_anything_is_predicted(
    words: list[str], said: str, here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one.png", "two.png", "one_overlay.png"):
        picture(name)
    Path("empty").mkdir()
    Path("boxes.json").write_text(json.dumps({"one.png": [[0, 0, 50, 50]]}))
    Path("list.json").write_text('["one.png"]')
    before = {path: path.read_bytes() for path in here.glob("*.*")}
    assert main(["predict", *words, "--model", model]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert {path: path.read_bytes() for path in here.rglob("*.*")} == before


def test_asking_for_a_model_of_mlflow_makes_no_store(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["predict", picture("p.png"), "--model", "models:/x/1", "--out", "out"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {path.name for path in here.iterdir()} == {"p.png", "out"}


def test_values_may_begin_with_a_hyphen(here: Path, model: str) -> None:
    Path(model).rename("-model")
    try:
        Path("-b.json").write_text(json.dumps({"p.png": [[-10, 0, 50, 50]]}))
        words = ["--boxes", "-b.json", "--model", "-model", "--out", "-out"]
        assert main(["predict", picture("p.png"), *words]) == 0
        assert main(["predict", "p.png", *(f"{a}={b}" for a, b in zip(words[::2], words[1::2], strict=True))]) == 0
        assert boxes_in("-out") == {"p": [-10, 0, 50, 50]}
    finally:
        Path("-model").rename(model)


def test_export(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--model", model, "--out", "plain", "--no-onnx", "--no-torch-export"]) == 0
    assert written("plain") == {"bundle.json", "model.safetensors", "geometry.safetensors"}
    capsys.readouterr()
    assert main(["export", "--model", "plain", "--out", "plain", "--no-torch-export"]) == 0  # over an old one
    report = json.loads(capsys.readouterr().out)
    assert set(report["bytes"]) == {"bundle.json", "model.safetensors", "geometry.safetensors", "model.onnx"}
    assert set(report["largest_difference_m"]) == {"model.onnx"}
    assert report["largest_difference_m"]["model.onnx"] < 1e-5
    assert main(["predict", picture("p.png"), "--model", "plain", "--out", "out", "--detector", "none"]) == 0
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("years of work")
    for words in (["--no-weights", "--no-onnx"], ["--out", "thesis"], ["--out", "p.png/x"]):
        assert main(["export", "--model", model, *words]) == 2
    assert written("thesis") == {"chapter.tex"}
