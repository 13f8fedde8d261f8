"""`metro predict` of videos and folders of frames: results, interruptions, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trimesh

import metro
from metro.cli.app import main
from metro.export.bundle import bundle_of, write_bundle
from metro.export.predictor import Predictor
from metro.video import result, run
from metro.viz.overlay import save_image
from tests.conftest import World
from tests.video.moving import turn, write_video

COUNT = 15
GONE = {5, 6, 7}
"""Frames without the first person."""


@pytest.fixture(scope="module")
def model(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    bundle = bundle_of(world.model, world.data, world.levels)
    return str(write_bundle(tmp_path_factory.mktemp("model") / "bundle", bundle, []))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a video of two people, in parts of six frames."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "PART", 6)
    write_video(Path("clip.mp4"), COUNT, (96, 64))
    Path("boxes.json").write_text(json.dumps({f"{frame:06d}.png": boxes(frame) for frame in range(COUNT)}))
    return tmp_path


def boxes(frame: int) -> list[list[float]]:
    first = [] if frame in GONE else [[2.0 * frame, 10, 20, 40]]
    return [*first, [60, 5.0 + frame / 2, 25, 45]]


def predict(model: str, *words: str, clip: str = "clip.mp4", table: str = "boxes.json", out: str = "out") -> int:
    return main(["predict", clip, "--model", model, "--boxes", table, "--out", out, *words])


def arrays(path: str = "out/clip.npz") -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return dict(stored)


def read_glb(path: str) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The JSON chunk and the accessors of a GLB, by the specification alone."""
    content = Path(path).read_bytes()
    magic, version, size, length, kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, size, kind) == (b"glTF", 2, len(content), b"JSON")
    told = json.loads(content[20 : 20 + length])
    binary = content[28 + length :]
    found = []
    for accessor in told["accessors"]:
        view = told["bufferViews"][accessor["bufferView"]]
        part = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        numbers = np.frombuffer(part, {5126: "<f4", 5125: "<u4"}[accessor["componentType"]])
        found.append(numbers.reshape(accessor["count"], {"SCALAR": 1, "VEC3": 3}[accessor["type"]]))
    return told, found


def test_results_of_a_video(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(model) == 0
    assert capsys.readouterr() == ("clip.mp4: 2 predicted in 15 frames → out/clip*\n", "")
    assert {path.name for path in Path("out").iterdir()} == {"clip.npz", "clip.glb", "clip_overlay.webm"}
    data = arrays()
    assert data["frame"].tolist() == sorted(data["frame"].tolist())
    assert data["frame"][data["person"] == 0].tolist() == [k for k in range(COUNT) if k not in GONE]
    assert data["frame"][data["person"] == 1].tolist() == [*range(COUNT)]
    assert (data["fps"], data["frames"], data["image_size"].tolist()) == (25, COUNT, [96, 64])

    reader, predictor = cv2.VideoCapture("clip.mp4"), metro.load(model)
    predictor.passes = 1
    for frame in range(COUNT):
        image = cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2RGB)
        if frame not in (0, 9):
            continue
        people = predictor(image, boxes(frame))
        for row, alone in zip(np.flatnonzero(data["frame"] == frame), people, strict=True):
            assert data["box"][row, :4] == pytest.approx(alone.box)
            assert data["vertices"][row] == pytest.approx(alone.vertices, abs=6e-4)
            assert data["joints"][row] == pytest.approx(alone.joints, abs=1e-5)
            assert data["joints_2d"][row] == pytest.approx(alone.joints_2d, abs=1e-3)
            assert data["translation"][row] == pytest.approx(alone.translation(), rel=1e-4)
            scale, *root = data["camera"][row]
            assert scale * data["joints"][row, :, :2] + root == pytest.approx(alone.joints_2d, abs=1e-3)
    assert np.isnan(data["box"][:, 4]).all()
    reader = cv2.VideoCapture("out/clip_overlay.webm")
    shown = []
    while (found := reader.read())[0]:
        shown.append(found[1])
    assert len(shown) == COUNT
    assert shown[0].shape == (64, 96, 3)


def test_the_animation(here: Path, model: str) -> None:
    assert predict(model) == 0
    data, (told, accessors) = arrays(), read_glb("out/clip.glb")
    assert [node["name"] for node in told["nodes"]] == ["person_0", "person_1"]
    for person, node in enumerate(told["nodes"]):
        rows = np.flatnonzero(data["person"] == person)
        primitive = told["meshes"][node["mesh"]]["primitives"][0]
        base = accessors[primitive["attributes"]["POSITION"]]
        channels = {
            channel["target"]["path"]: told["animations"][0]["samplers"][channel["sampler"]]
            for channel in told["animations"][0]["channels"]
            if channel["target"]["node"] == person
        }
        weights = accessors[channels["weights"]["output"]].reshape(len(rows), -1)
        moved = np.stack([accessors[target["POSITION"]] for target in primitive["targets"]])
        for k, row in enumerate(rows):
            mesh = base + (weights[k, :, None, None] * moved).sum(0)
            assert mesh == pytest.approx(data["vertices"][row] * [1, -1, -1], abs=1e-3)
        places = accessors[channels["translation"]["output"]]
        assert places == pytest.approx(data["translation"][rows] * [1, -1, -1], rel=1e-5)
        assert accessors[channels["weights"]["input"]][:, 0] == pytest.approx(data["frame"][rows] / 25)
        assert accessors[primitive["indices"]].reshape(-1, 3).tolist() == data["faces"].tolist()
        switches = channels["scale"]
        assert switches["interpolation"] == "STEP"
        seconds, shown = accessors[switches["input"]][:, 0], accessors[switches["output"]][:, 0]
        expected = ([0, 0.2, 0.32], [1, 0, 1]) if person == 0 else ([0], [1])
        assert seconds == pytest.approx(expected[0])
        assert shown.tolist() == expected[1]
    for accessor, values in zip(told["accessors"], accessors, strict=True):
        if "min" in accessor:
            assert np.allclose([accessor["min"], accessor["max"]], [values.min(0), values.max(0)])
    assert len(trimesh.load("out/clip.glb").geometry) == 2


def test_an_animation_of_a_long_clip_is_thinned_out(here: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "MESHES", 8)
    assert predict(model) == 0
    told, accessors = read_glb("out/clip.glb")
    shown = [sampler["input"] for sampler in told["animations"][0]["samplers"] if sampler["interpolation"] == "LINEAR"]
    frames = {tuple(np.rint(25 * accessors[number][:, 0]).astype(int).tolist()) for number in shown}
    assert frames == {(0, 4, 8, 12)}  # 27 meshes are every fourth frame of both, at most


def test_an_interrupted_run_goes_on(
    here: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--smooth", "--every", "2", "--batch-size", "3")
    assert predict(model, *words, out="whole") == 0
    calls, predicted = Predictor.__call__, []

    def stopping(self: Predictor, photos: Any, *rest: Any, **options: Any) -> Any:
        predicted.extend(photo.source for photo in photos)
        if len(predicted) in range(8, 12) or len(predicted) > 100:
            predicted.extend([""] * 100)
            raise KeyboardInterrupt
        return calls(self, photos, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "__call__", stopping)
        assert predict(model, *words) == 130
        assert Path("out/.clip.work/part-00000.npz").exists()
        assert not Path("out/clip.npz").exists()
        predicted.clear()
        patched.setattr(
            Predictor,
            "__call__",
            lambda self, photos, *a, **o: (
                predicted.extend(photo.source for photo in photos),
                calls(self, photos, *a, **o),
            )[1],
        )
        assert predict(model, *words) == 0
    assert predicted == [f"clip.mp4, frame {frame}" for frame in range(6, COUNT)]
    for name in ("clip.npz", "clip.glb"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()
    assert {path.name for path in Path("out").iterdir()} == {"clip.npz", "clip.glb", "clip_overlay.webm"}
    capsys.readouterr()
    before = Path("out/clip.npz").stat().st_mtime_ns
    assert predict(model, *words) == 0
    assert capsys.readouterr().out == "clip.mp4: was predicted already → out/clip*\n"
    assert predict(model) == 2
    assert "out/clip.npz: exists already; give --overwrite" in capsys.readouterr().err
    assert Path("out/clip.npz").stat().st_mtime_ns == before
    assert predict(model, "--overwrite") == 0
    assert not np.array_equal(arrays()["vertices"], arrays("whole/clip.npz")["vertices"])


def test_parts_of_something_else_are_thrown_away(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out/.clip.work").mkdir(parents=True)
    Path("out/.clip.work/thesis.tex").write_text("mine")
    assert predict(model) == 2
    assert "holds no key; move it away" in capsys.readouterr().err
    assert Path("out/.clip.work/thesis.tex").read_text() == "mine"
    Path("out/.clip.work/thesis.tex").rename("thesis.tex")
    Path("out/.clip.work/key").write_text("another")
    Path("out/.clip.work/part-00000.npz").write_text("of another")
    assert predict(model) == 0
    assert len(arrays()["frame"]) == 2 * COUNT - len(GONE)


def test_frames_between_those_that_are_looked_at(here: Path, model: str) -> None:
    assert predict(model, "--every", "4") == 0
    data = arrays()
    first = data["person"] == 0
    assert data["frame"][first].tolist() == [*range(6), *range(6, COUNT)]  # not missed in the frames 0, 4, 8, 12
    assert data["box"][first, 0] == pytest.approx([*range(0, 25, 2), 24, 24])  # the last ones stay


def test_a_folder_is_a_clip(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    reader = cv2.VideoCapture("clip.mp4")
    Path("frames").mkdir()
    for frame in range(COUNT):
        save_image(cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2RGB), Path(f"frames/{frame}.png"))
    Path("by_name.json").write_text(
        json.dumps({f"{frame}.png": [[*box, 0.7] for box in boxes(frame)] for frame in range(COUNT)})
    )
    assert predict(model) == 0
    assert predict(model, "--sequence", "--fps", "25", clip="frames", table="by_name.json") == 0
    assert "frames: 2 predicted in 15 frames → out/frames*" in capsys.readouterr().out
    of_folder, of_video = arrays("out/frames.npz"), arrays()
    for name in ("vertices", "joints", "camera", "frame", "person"):
        assert np.array_equal(of_folder[name], of_video[name])
    assert of_folder["box"][:, 4] == pytest.approx(0.7)


def test_sizes_and_turned_videos(here: Path, model: str) -> None:
    write_video(Path("odd.avi"), 3, (95, 61), codec="MJPG")
    turn(write_video(Path("phone.mp4"), 3, (96, 64)))
    write_video(Path("single.mp4"), 1, (96, 64))
    for clip, size in (("odd.avi", [94, 60]), ("phone.mp4", [64, 96]), ("single.mp4", [96, 64])):
        assert predict(model, clip=clip) == 0
        assert arrays(f"out/{Path(clip).stem}.npz")["image_size"].tolist() == size  # the writer cuts odd ones
    assert "targets" not in read_glb("out/single.glb")[0]["meshes"][0]["primitives"][0]
    Path("odd").mkdir()
    save_image(np.zeros((61, 95, 3), np.uint8), Path("odd/0.png"))
    Path("odd.json").write_text('{"0.png": [[0, 0, 50, 50]]}')
    assert predict(model, "--sequence", clip="odd", table="odd.json", out="odd_out") == 0
    assert arrays("odd_out/odd.npz")["image_size"].tolist() == [95, 61]
    assert cv2.VideoCapture("odd_out/odd_overlay.webm").read()[1].shape == (60, 94, 3)
    reader = cv2.VideoCapture("out/phone_overlay.webm")
    assert reader.read()[1].shape == (96, 64, 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clip.mp4", "--every", "30"], "clip.mp4: nobody was found in its 15 frames; give --boxes"),
        (["clip.mp4", "--detector", "none"], "--detector none: in a clip people have to be found"),
        (["clip.mp4", "--hands"], "--hands: model"),
        (["clip.mp4", "--box", "1,2,3,4"], "--box is for pictures, and clip.mp4 is a clip"),
        (["clip.mp4", "one.png", "--boxes", "boxes.json"], "clip.mp4: is a clip; predict pictures"),
        (["clip.mp4", "x/clip.mp4", "--boxes", "boxes.json"], "results of one name"),
        (["clip.mp4", "b.mp4", "--boxes", "boxes.json"], "--boxes are of one clip, here are 2"),
        (["clip.mp4", "--boxes", "nobody.json"], "clip.mp4: nobody was found in its 15 frames"),
        (["clip.mp4", "--boxes", "names.json"], "names.json: 'ann' is no frame of clip.mp4"),
        (["clip.mp4", "--boxes", "long.json"], "long.json: '9999"),
        (["clip.mp4", "--boxes", "wrong.json"], "wrong.json, frame 3: a box is four finite numbers"),
        (["clip.mp4", "--boxes", "outside.json"], "clip.mp4, frame 2: box 900,0,9,9 is empty or outside"),
        (["clip.mp4", "--boxes", "absent.json"], "absent.json: missing"),
        (["empty.mp4", "--boxes", "boxes.json"], "empty.mp4: is empty"),
        (["absent.mp4", "--boxes", "boxes.json"], "absent.mp4: missing"),
        (["noise.mov", "--boxes", "boxes.json"], "noise.mov: no video that can be decoded"),
        (["clip.mp4", "--boxes", "boxes.json", "--fps", "-3"], "fps -3: expected frames a second"),
        (["clip.mp4", "--boxes", "boxes.json", "--every", "0"], "--every. Must be from 1 to 30"),
        (["clip.mp4", "--boxes", "boxes.json", "--left-hand"], "left_hand is for hand models"),
        (["folder", "--sequence", "--boxes", "boxes.json"], "folder: holds no images"),
    ],
)
def test_refused(words: list[str], said: str, here: Path, model: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("folder").mkdir()
    Path("x").mkdir()
    for name in ("x/clip.mp4", "b.mp4"):
        Path(name).write_bytes(Path("clip.mp4").read_bytes())
    Path("empty.mp4").touch()
    Path("noise.mov").write_bytes(np.random.default_rng(0).bytes(4000))
    tables = {
        "nobody": {"3": []},
        "names": {"ann": []},
        "long": {"9" * 5000: []},
        "wrong": {"3": [[1, 2, 3]]},
        "outside": {"2": [[900, 0, 9, 9]]},
    }
    for name, table in tables.items():
        Path(f"{name}.json").write_text(json.dumps(table))
    capfd.readouterr()
    assert main(["predict", *words, "--model", model, "--out", "out"]) == 2
    told = capfd.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1, told.err
    assert told.out == ""
    assert not [path for path in Path("out").glob("*") if path.name[0] != "."]


def test_a_video_that_was_cut_says_so(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_video(Path("long.avi"), 60, (96, 64), codec="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert predict(model, clip="long.avi") == 0
    assert "(its header tells of 60 frames; is the file complete?)" in capsys.readouterr().out
