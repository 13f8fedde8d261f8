"""One's own data: the examples of the documentation, and what is wrong with files, said by place."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from metro.body.figure import HAND as HAND_FIGURE
from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Record
from metro.errors import MetroError
from metro.sources import own
from tests.sources import reading

OPEN, HAND, SMPL = BodyConfig(), BodyConfig(kind="open_hand"), BodyConfig(kind="smpl")
PAGE = Path("docs/own-data.md").read_text("utf-8")
MESH = {"pose_aa": [0.1] * 72, "betas": [0.5] * 10}


def write(root: Path, content: Any, name: str = "people.json", size: tuple[int, int] = (640, 480)) -> None:
    (root / "garden").mkdir(exist_ok=True)
    Image.new("L", size).save(root / "garden/0001.jpg")
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def config(root: Path, file: str = "people.json", split: str = "train", supervision: str = "mesh") -> DatasetConfig:
    values = {"source": "own", "root": root, "split": split, "supervision": supervision, "options": {"file": file}}
    return DatasetConfig(**values)  # type: ignore[arg-type]


def everything(settings: DatasetConfig, body: BodyConfig = OPEN) -> tuple[list[Record], list[BadRecord]]:
    """Records, and what is bad."""
    records, left, bad = reading.everything(settings, body)
    assert not left
    return records, bad


def example(kind: str) -> str:
    return re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1]  # type: ignore[index]


def with_person(**changes: Any) -> dict[str, Any]:
    """The example with another person and its image changed, or without what is None."""
    content = json.loads(example("json"))
    content["people"][0] = {key: value for key, value in (content["people"][0] | changes).items() if value is not None}
    return content


def with_image(**changes: Any) -> dict[str, Any]:
    content = json.loads(example("json"))
    content["images"][0] = {key: value for key, value in (content["images"][0] | changes).items() if value is not None}
    return content


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_the_examples_of_the_page_are_one_person(tmp_path: Path, kind: str) -> None:
    write(tmp_path, example(kind), f"people.{kind}")
    (record,), bad = everything(config(tmp_path, f"people.{kind}"))
    assert not bad
    record.check()
    assert record.name == "own:garden/0001.jpg#17"
    assert record.image == tmp_path / "garden/0001.jpg"
    flat = {"R_Wrist": [301.5, 210, 0.9], "L_Wrist": [262, 224.5, 1], "Nose": [284, 131, 1]}
    space = {"R_Wrist": [-0.09, -0.15, 3.1, 1], "L_Wrist": [-0.29, -0.08, 3.2, 1]}
    for name, point, place in zip(JOINT_SETS["J24"], record.keypoints_2d, record.joints_3d, strict=True):
        assert point.tolist() == flat.get(name, [0, 0, 0])
        assert place.tolist() == space.get(name, [0, 0, 0, 0])
    # x from 262 to 301.5, y from 131 to 224.5, a fifth larger.
    assert record.box == pytest.approx([262 - 3.95, 131 - 9.35, 47.4, 112.2])
    if kind == "json":
        assert record.intrinsics.tolist() == [[610.5, 0, 319.5], [0, 611, 239.5], [0, 0, 1]]
        assert record.distortion.tolist() == [-0.21, 0.07, 0.001, -0.0008, 0, 0, 0, 0]
        assert record.lens == "opencv"


def test_the_page_names_every_joint_and_shows_real_errors(tmp_path: Path) -> None:
    assert " ".join(JOINT_SETS["J24"]) in " ".join(PAGE.split())
    said = []
    points = [{"R_Wrist": [1.0, 2.0]}] * 3 + [{"R_Wrsit": [1.0, 2.0]}]
    people = [{"id": n, "image_id": 1, "keypoints_2d": point} for n, point in enumerate(points)]
    write(tmp_path, with_person() | {"people": people})
    said += [item for item in own.rows(config(tmp_path), OPEN) if isinstance(item, BadRecord)]
    lines = [f"garden/0001.jpg,1,{joint},{x},2\n" for joint, x in zip(JOINT_SETS["J24"], "0123456789", strict=False)]
    write(tmp_path, f"image,person,joint,x,y\n{''.join(lines)}garden/0001.jpg,2,Nose,abc,2\n", "people.csv")
    said += [item for item in own.rows(config(tmp_path, "people.csv"), OPEN) if isinstance(item, BadRecord)]
    assert "".join(f"{item.name}: {item.problem}\n" for item in said) == example("text")


def test_a_box_is_used_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, with_person(box=[10, 20.5, 300, 400], keypoints_2d=None))
    (record,), _ = everything(config(tmp_path))
    assert record.box.tolist() == [10, 20.5, 300, 400]
    assert not record.has_2d


def test_a_dataset_takes_its_split(tmp_path: Path) -> None:
    content = with_person(split=None)
    content["people"] += [
        content["people"][0] | {"id": n, "split": split} for n, split in ((18, "test"), (19, "train"))
    ]
    write(tmp_path, content)
    table = example("csv")
    write(tmp_path, table + re.sub("17(.*)train", r"18\1test", table).partition("\n")[2], "people.csv")
    for file, ids in (("people.json", [17, 19]), ("people.csv", [17])):
        assert [record.person for record in everything(config(tmp_path, file))[0]] == ids
        assert [record.person for record in everything(config(tmp_path, file, "test"))[0]] == [18]


def test_a_mesh_says_whose_it_is(tmp_path: Path) -> None:
    write(tmp_path, with_person(mesh=MESH))
    assert own.survey(config(tmp_path), SMPL).parameters == "smpl"  # unless told
    (record,), _ = everything(config(tmp_path), SMPL)
    assert (record.gender, record.mesh_origin, record.transl) == ("neutral", "fit", None)
    with pytest.raises(
        MetroError, match=r"people\[0\]\.mesh: is one of smpl \(it tells no `model`\), body.kind is open"
    ):
        everything(config(tmp_path))
    everything(config(tmp_path, supervision="joints_3d"))
    mesh = MESH | {"model": "open", "gender": "female", "transl": [0, 0.5, 3]}
    write(tmp_path, with_person(mesh=mesh))
    assert own.survey(config(tmp_path), OPEN).parameters is None
    (record,), _ = everything(config(tmp_path))
    assert (record.gender, record.transl.tolist(), record.betas.tolist()) == ("female", [0, 0.5, 3], [0.5] * 10)
    with pytest.raises(MetroError, match=r"is one of open, body.kind is smpl"):
        everything(config(tmp_path), SMPL)


def test_hands_have_joints_of_hands(tmp_path: Path) -> None:
    write(tmp_path, with_person(keypoints_2d={"Wrist": [300, 200], "Index4": [340, 180]}, keypoints_3d=None))
    (record,), _ = everything(config(tmp_path), HAND)
    record.check(HAND_FIGURE)
    assert np.flatnonzero(record.keypoints_2d[:, 2]).tolist() == [0, 8]
    assert "is no joint of J24" in everything(config(tmp_path))[1][0].problem


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "17"}, "people[0].id: input should be a valid integer"),
        ({"id": None}, "people[0].id: is missing"),
        ({"image_id": 2}, "people[0].image_id: there is no image 2"),
        ({"keypoint_2d": {}}, "people[0].keypoint_2d: is no field of it; did you mean 'keypoints_2d'?"),
        ({"camera": {"fx": 1}}, "people[0].camera: is no field of it"),
        ({"box": [1, 2, 3]}, "people[0].box: list should have at least 4 items"),
        ({"box": [1, 2, 0, 3]}, "people[0].box: is 0 × 3 pixels large"),
        ({"box": "Auto"}, "people[0].box: input should be a valid list"),
        ({"keypoints_2d": {"R_Wrist": [1, "2"]}}, "people[0].keypoints_2d.R_Wrist[1]: input should be a valid number"),
        ({"keypoints_2d": {"R_Wrist": [1, NAN]}}, "people[0].keypoints_2d.R_Wrist[1]: input should be a valid number"),
        ({"keypoints_2d": {"R_Wrist": [1, 2, 1.5]}}, "people[0].keypoints_2d.R_Wrist[2]: the confidence is 1.5"),
        ({"keypoints_2d": {"right_wrist": [1, 2]}}, "people[0].keypoints_2d.right_wrist: is no joint of J24"),
        ({"keypoints_3d": {"R_Wrist": [1, 2]}}, "people[0].keypoints_3d.R_Wrist: list should have at least 3"),
        ({"keypoints_2d": {"R_Wrist": [1, 2]}}, "people.json: people[0]: needs a box"),
        ({"mesh": {"pose_aa": [0] * 48, "betas": [0] * 10}}, "people[0].mesh.pose_aa: has 48 numbers, not 72"),
        ({"mesh": MESH | {"sex": "male"}}, "people[0].mesh.sex: is no field of it; known: pose_aa"),
        ({"mesh": MESH | {"gender": "f"}}, "people[0].mesh.gender: input should be 'neutral'"),
        ({"keypoints_2d": None, "keypoints_3d": None}, "people[0]: has neither"),
        ({"split": "val"}, "people[0].split: input should be"),
    ],
)
def test_what_is_wrong_with_a_person_is_said_by_place(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write(tmp_path, with_person(**changes))
    records, (bad,) = everything(config(tmp_path))
    assert not records
    assert bad.problem.startswith(said)
    assert "\n" not in bad.problem


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"file_name": "../0001.jpg"}, "images[0].file_name: must be a path below"),
        ({"file_name": "/etc/passwd"}, "images[0].file_name: must be a path below"),
        ({"width": 320}, "has 640 × 480 pixels, people.json: people[0] says 320 × 480"),
        ({"camera": {"fx": 500, "fy": 500, "cx": 1}}, "images[0].camera.cy: is missing"),
        ({"camera": {"fx": 1, "fy": 1, "cx": 1, "cy": 1, "distortion": [0] * 4}}, "distortion and lens"),
        ({"camera": {"fx": 1, "fy": 1, "cx": 1, "cy": 1, "lens": "opencv"}}, "distortion and lens"),
        (
            {"camera": {"fx": 1, "fy": 1, "cx": 1, "cy": 1, "distortion": [0] * 6, "lens": "opencv"}},
            "images[0].camera.distortion: has 6 numbers",
        ),
        ({"file_name": "garden/0002.jpg"}, "0002.jpg: missing"),
    ],
)
def test_what_is_wrong_with_an_image_costs_its_people(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write(tmp_path, with_image(**changes))
    records, (bad,) = everything(config(tmp_path))
    assert not records
    assert said in bad.problem


def test_ids_are_there_once(tmp_path: Path) -> None:
    content = with_person()
    content["people"] *= 2
    write(tmp_path, content)
    assert everything(config(tmp_path))[1] == [
        BadRecord("own:people.json", "people[1].id: 17 is the id of a person before it")
    ]
    content["images"] *= 2
    write(tmp_path, content)
    records, bad = everything(config(tmp_path))
    assert not records
    assert bad[0].problem == "images[1].id: 1 is the id of an image before it"


HEAD = "image,person,joint,x,y,confidence,X,Y,Z\n"
LINE = "garden/0001.jpg,1,Nose,30,40,0.5,0,0,3\ngarden/0001.jpg,1,Jaw,50,60,,,,\n"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("garden/0001.jpg,2,Nsoe,3,4,,,,", "line 4: joint 'Nsoe' is none of J24; did you mean 'Nose'?"),
        ("garden/0001.jpg,1,Nose,3,4,,,,", "line 4: person '1' of 'garden/0001.jpg' comes again after others"),
        ("garden/0001.jpg,x,Nose,3,4,,,,", "line 4: image or person: invalid literal"),
        ("../0001.jpg,2,Nose,3,4,,,,", "line 4: image or person: must be a path below"),
        ("garden/0001.jpg,2,Nose,3,inf,,,,", "line 4: y is 'inf', which is no number"),
        ("garden/0001.jpg,2,Nose,3,,,,,", "line 4: y is '', which is no number"),
        ("garden/0001.jpg,2,Nose,3,4,2,,,", "line 4: confidence is 2, not within 0 and 1"),
        ("garden/0001.jpg,2,Nose,3,4,,1,,", "line 4: Y is '', which is no number"),
        ("garden/0001.jpg,2,Nose,,,,,,", "line 4: person 2 has no joint with coordinates"),
        ("garden/0001.jpg,2,Nose,3,4,,,,\ngarden/0001.jpg,2,Nose,3,4,,,,", "line 5: joint Nose comes twice"),
        ("garden/0001.jpg,2,Nose,3,4,,,,", "people.csv: line 4: needs a box"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_by_number(tmp_path: Path, table: str, said: str) -> None:
    between = "garden/0001.jpg,9,Nose,1,2,,,,\n" if "comes again" in said else ""
    write(tmp_path, HEAD + LINE + between + table + "\n", "people.csv")
    records, bad = everything(config(tmp_path, "people.csv"))
    assert [record.person for record in records] == [1]
    assert bad[0].name.startswith("own:")
    assert bad[0].problem.startswith(said.replace("line 4", "line 5") if between else said)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("people.csv", "image;person;joint;x;y\n", "line 1: column 'image;person;joint;x;y'.*set apart by commas"),
        ("people.csv", "image,person,joint,x\n", "line 1: has no column y"),
        ("people.csv", "image,person,joint,x,y,x\n", "line 1: column 'x': twice"),
        ("people.csv", "", "line 1: has no column image"),
        ("people.csv", "image,person,joint,x,y\na,1\n", "line 2: has 2 cells, the first line has 5"),
        ("people.csv", 'image,person,joint,x,y\n"a"b,1,Nose,1,2\n', "line 2: ',' expected after"),
        ("people.json", '{"images": [], "people": [{"id"', "not valid JSON"),
        ("people.json", '{"images": []}', "has no list 'people'"),
        ("people.json", "[]", "has no list 'images'"),
    ],
)
def test_a_file_that_is_something_else_is_one_line(tmp_path: Path, file: str, content: str, said: str) -> None:
    write(tmp_path, content, file)
    with pytest.raises(MetroError, match=said):
        everything(config(tmp_path, file))


def test_survey(tmp_path: Path) -> None:
    (file,) = own.survey(config(tmp_path), OPEN).files
    assert (file.path, file.found) == ("people.json", False)
    assert "docs/own-data.md" in file.origin
    with pytest.raises(MetroError, match=r"'people.xlsx', not a .json or .csv file"):
        own.survey(config(tmp_path, "people.xlsx"), OPEN)
    write(tmp_path, example("csv"), "people.csv")
    assert own.survey(config(tmp_path, "people.csv"), HAND).dialect == "CSV"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_in_the_file_ends_in_records_or_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("junk")
    kind = data.draw(st.sampled_from(["json", "csv"]))
    write(root, example(kind), f"people.{kind}")
    raw = (root / f"people.{kind}").read_bytes()
    at = data.draw(st.integers(0, len(raw)))
    put = data.draw(st.binary(max_size=6) | st.sampled_from([b"null", b"{}", b"[]", b"1e999", b"-1", b'"', b"9" * 30]))
    (root / f"people.{kind}").write_bytes(raw[:at] + put + raw[at + data.draw(st.integers(0, 12)) :])
    with suppress(MetroError):
        own.survey(config(root, f"people.{kind}"), OPEN)
        records, bad = everything(config(root, f"people.{kind}"))
        for record in records:
            with suppress(MetroError):
                record.check()
        assert all(item.problem.count("\n") == 0 for item in bad)
