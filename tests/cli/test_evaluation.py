"""The commands of this package, end to end on the small world."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from metro.cli import evaluation as commands
from metro.cli.app import main
from metro.cli.attention import attention
from metro.cli.occlude import occlusion
from metro.data.hdf5 import SCHEMA
from metro.errors import MetroError
from metro.evaluation.protocols import PROTOCOLS
from metro.export.bundle import META, bundle_of, write_bundle
from metro.files import sha256_of
from metro.model.metro import build_model
from tests.conftest import World


@pytest.fixture(scope="module")
def model(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("model") / "bundle", bundle_of(world.model, world.data, world.levels))


@pytest.fixture(scope="module")
def people(world: World) -> Path:
    """The world's shard as a finished dataset folder."""
    shard = world.dataset.paths[0]
    entry = {"file": shard.name, "count": 12, "bytes": shard.stat().st_size, "sha256": sha256_of(shard)}
    manifest = {"schema": SCHEMA, "count": 12, "shards": [entry]}
    (shard.parent / "manifest.json").write_text(json.dumps(manifest))
    return shard.parent


def test_evaluate(model: Path, people: Path, tmp_path: Path) -> None:
    text = commands.evaluate(
        people, model=str(model), out=tmp_path, train=[people], bootstrap=20, cases=1, device="cpu"
    )
    assert "mean poses of training labels" in text
    written = {p.name for p in tmp_path.iterdir()}
    assert {"metrics.json", "result.json", "samples.npz", "cases.npz", "worst.png", "pck.png"} <= written


def test_evaluate_says_whose_labels_made_the_baselines(
    model: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metro.evaluation.figures.write_figures", lambda *args: None)  # drawn in the test above
    text = commands.evaluate(people, model=str(model), out=tmp_path, bootstrap=5, cases=1, limit=5, device="cpu")
    assert "mean poses of the benchmark's own labels" in text
    assert json.loads((tmp_path / "result.json").read_text())["samples"] == 5


def test_compare(world: World, model: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[tuple[str, list[str]]] = []

    def log(title: str, tags: dict[str, str], numbers: dict[str, float], files: list[Path]) -> str:
        noted.append((title, [path.name for path in files]))
        return "r1"

    project = {"log": log, "find": lambda word, folder: None, "benchmark": lambda name: None}
    monkeypatch.setattr("metro.evaluation.runs.project", project.get)
    torch.manual_seed(1)
    untrained = build_model(world.params.model, world.data, world.levels).eval()
    other = str(write_bundle(tmp_path / "other", bundle_of(untrained, world.data, world.levels)))
    text = commands.compare(str(model), other, data=people, out=tmp_path / "new", bootstrap=100, cases=1, device="cpu")
    assert text.endswith("compare.html\nlogged as run r1")
    assert noted == [(f"{model} against {other}", ["compare.json", "compare.html"])]
    told = json.loads((tmp_path / "new/compare.json").read_text())
    assert (told["people"], told["identical"], told["metrics"]["mpve"]["n"]) == (12, False, 8)
    assert told["cases"]["worsened"] + told["cases"]["improved"]
    assert "No pictures" not in (tmp_path / "new/compare.html").read_text()

    # Against the scores that are kept of one of them, which is the same as its network.
    monkeypatch.setattr("metro.evaluation.figures.write_figures", lambda *args: None)
    commands.evaluate(people, model=other, out=tmp_path / "kept", bootstrap=5, cases=1, device="cpu")
    text = commands.compare(str(tmp_path / "kept"), other, data=people, out=tmp_path / "same", device="cpu")
    assert "score the same in every number of every person" in text
    assert json.loads((tmp_path / "same/compare.json").read_text())["identical"]
    commands.evaluate(people, model=other, out=tmp_path / "fewer", bootstrap=5, cases=1, limit=5, device="cpu")
    with pytest.raises(MetroError, match=r"fewer and .*other cannot be compared: their people differ"):
        commands.compare(str(tmp_path / "fewer"), other, data=people, out=tmp_path / "none", device="cpu")
    with pytest.raises(MetroError, match=r"bundle: no scores are kept of it; name a dataset .* --data"):
        commands.compare(str(model), other, out=tmp_path / "none", device="cpu")
    assert not (tmp_path / "none").exists()


def test_occlusion_of_two_networks(model: Path, people: Path, tmp_path: Path) -> None:
    options = dict(data=people, people=3, patch_people=1, steps=2, bootstrap=5, device="cpu")
    with pytest.raises(MetroError, match="is the first network too"):
        occlusion(str(model), str(model), **options)
    other = shutil.copytree(model, tmp_path / "other")
    text = occlusion(str(model), str(other), out=tmp_path / "out", **options)
    assert "masked: vertices" in text
    told = json.loads((tmp_path / "out/occlusion.json").read_text())
    assert [entry["name"] for entry in told["networks"]] == [str(model), str(other)]
    assert {point["mpjpe_mm"] for point in told["differences"][0]["both"]} == {0}
    figures = {"curves.png", "patch.png", "patch_2.png", "examples.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"occlusion.json", *figures}


def test_views_are_told_in_the_result(
    model: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metro.evaluation.figures.write_figures", lambda *args: None)  # drawn in the test above
    told = []
    for batch_size in (1, 64):
        commands.evaluate(
            people, model=str(model), out=tmp_path, tta="few", bootstrap=5, cases=1, limit=3, batch_size=batch_size,
            device="cpu",
        )  # fmt: skip
        told.append(json.loads((tmp_path / "result.json").read_text()))
    assert told[0]["model"]["views"] == "6 views merged by mean: scales 1; turns -10 0 10, each mirrored too"
    assert told[0]["metrics"]["mpve"]["value"] == pytest.approx(told[1]["metrics"]["mpve"]["value"], abs=0.01)


def test_photographs(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    person = [number for k in range(17) for number in (50 + k, 30 + 3 * k, 2)]
    people = [{"id": 4, "image_id": 9, "bbox": [40, 20, 40, 70], "keypoints": person}]
    labels = tmp_path / "people.json"
    labels.write_text(json.dumps({"images": [{"id": 9, "file_name": "in/a.png"}], "annotations": people}))
    words = ["evaluate-photos", str(labels), "--model", str(model), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"metro: {tmp_path}/in/a.png: no such image (1 of 1 labelled ones are missing)")
    assert told.count("\n") == 1
    (tmp_path / "in").mkdir()
    Image.new("RGB", (140, 100), (80, 120, 90)).save(tmp_path / "in/a.png")
    assert main([*words, "--passes", "2", "--bootstrap", "5", "--cases", "1", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "PCK@0.1 whole" in shown
    assert "shoulders" in shown
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"metrics.json", "result.json", "samples.npz", "best.png", "median.png", "worst.png"}
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["benchmark"] == "people"
    assert (result["model"]["passes"], result["model"]["boxes"]) == (2, "annotated")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate people.json --protocol photos", "`metro evaluate-photos LABELS.json` judges photographs"),
        ("evaluate people.json --protocol photo", '"photos"'),
        ("evaluate people.json --passes 2", "--passes"),
        ("evaluate-photos people.json --passes 11", "Must be from 1 to 10"),
        ("evaluate-photos people.json", "people.json: not valid JSON"),
        ("evaluate-photos people.json --train set", "--train"),
        ("evaluate-photos nobody.json", "nobody.json: has nobody to be judged (no annotations)"),
        ("evaluate-photos some.json --detector none", "--detector none: leave it out"),
        ("evaluate-photos some.json --detector other", "detector other: there is no such one"),
    ],
)
def test_mistakes_about_photographs_are_one_line(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("people.json").write_text('{"images": [')
    Path("nobody.json").write_text('{"images": [], "annotations": []}')
    person = {"id": 4, "image_id": 9, "bbox": [40, 20, 40, 70], "keypoints": 17 * [50, 30, 2]}
    Path("some.json").write_text(json.dumps({"images": [{"id": 9, "file_name": "a.png"}], "annotations": [person]}))
    assert main(words.split()) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not Path("evaluation").exists()


def test_protocols() -> None:
    assert all(f"{name}: " in commands.protocols() for name in (*PROTOCOLS, "photos"))


def test_a_licensed_body_must_be_given(model: Path, people: Path, tmp_path: Path) -> None:
    meta = json.loads((model / META).read_text())
    try:
        (model / META).write_text(json.dumps(meta | {"body": {**meta["body"], "kind": "smpl"}}))
        with pytest.raises(MetroError, match="trained on the licensed smpl body; give its file with --body"):
            commands.evaluate(people, model=str(model), out=tmp_path)
        (model / META).write_text(json.dumps(meta | {"body": {**meta["body"], "digest": "0" * 64}}))
        with pytest.raises(MetroError, match="not the version of the body model that the model was trained on"):
            attention(people, model=str(model), out=tmp_path)
    finally:
        (model / META).write_text(json.dumps(meta))
    assert not list(tmp_path.iterdir())


def test_missing_data_and_model(model: Path, tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=r"manifest\.json: missing"):
        commands.evaluate(tmp_path / "none", model=str(model))
    with pytest.raises(MetroError, match=r"manifest\.json: missing"):
        attention(tmp_path, model=str(tmp_path / "model"))
