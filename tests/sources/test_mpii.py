"""MPII from annotations of a few people that are written here, in the three forms that they come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, DatasetConfig
from metro.errors import MetroError
from metro.sources import mpii
from tests.sources.reading import everything

OPEN = BodyConfig()
PICTURE = "015601864.jpg"
NAMES = ("R_Ankle", "R_Knee", "R_Hip", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Thorax", "Neck", "Top_of_Head",
         "R_Wrist", "R_Elbow", "R_Shoulder", "L_Shoulder", "L_Elbow", "L_Wrist")  # fmt: skip
POINTS = [(100.25 + 7 * k, 300.75 - 11 * k) for k in range(16)]
"""Joints as the official file has them: the first pixel is 1."""
EMPTY = np.empty((0, 0))


def structs(values: list[dict[str, Any]]) -> np.ndarray:
    """A struct array as MATLAB has it; a field that a struct lacks is empty."""
    fields = sorted({key for value in values for key in value})
    array = np.empty((1, len(values)), [(field, object) for field in fields])
    for k, value in enumerate(values):
        array[0, k] = tuple(value.get(field, EMPTY) for field in fields)
    return array


def point(joint: int, x: Any, y: Any, **visible: Any) -> dict[str, Any]:
    return {"id": joint, "x": x, "y": y} | visible


def person(points: Any = None, **changes: Any) -> dict[str, Any]:
    """A struct of `annorect`."""
    points = (
        structs([point(k, x, y, is_visible=k % 2) for k, (x, y) in enumerate(POINTS)]) if points is None else points
    )
    values = {"x1": 1, "y1": 1, "x2": 9, "y2": 9, "scale": 2.5, "objpos": {"x": 200, "y": 160},
              "annopoints": {"point": points}}  # fmt: skip
    return {key: value for key, value in (values | changes).items() if value is not None}


def write_mat(root: Path, *people: Any, train: Any = (1, 0, 1), name: str = PICTURE) -> None:
    """Two training pictures, one with the people and one without, and a test picture between them."""
    (root / "images").mkdir(exist_ok=True)
    shown = [structs([p]) if isinstance(p, dict) else p for p in people]
    rects = shown[0] if len(shown) == 1 else structs(list(people))
    lists = structs([
        {"image": {"name": name}, "annorect": rects},
        {"image": {"name": "000000001.jpg"}, "annorect": {"scale": 2, "objpos": {"x": 1, "y": 1}}},
        {"image": {"name": "000000002.jpg"}, "annorect": EMPTY},
    ])  # fmt: skip
    savemat(root / mpii.OFFICIAL, {"RELEASE": {"annolist": lists, "img_train": np.array([train], np.uint8)}})


def write_h5(root: Path, **changes: Any) -> None:
    """Of the people of `POINTS` and the same 3 pixels further right: floored, with the crop of the hourglass."""
    (root / "images").mkdir(exist_ok=True)
    (root / "annot").mkdir(exist_ok=True)
    joints = np.floor(np.array([POINTS, [(x + 3, y) for x, y in POINTS]]))
    columns = {"imgname": np.array([PICTURE] * 2, "S13"), "person": [0, 1], "index": [0, 0], "part": joints,
               "center": [[200.0, 160 + 15 * 2.5], [203, 197.5]], "scale": [3.125, 3.125],
               "visible": np.zeros((2, 16)), "normalize": [60, 60], "torsoangle": [0, 0]} | changes  # fmt: skip
    with h5py.File(root / "annot/train.h5", "w") as file:
        for key, column in columns.items():
            if column is not None:
                file[key] = column


def entry(shift: float = 0, **changes: Any) -> dict[str, Any]:
    """A person of HRNet's file."""
    return {"joints_vis": [1] * 16, "joints": [[x + shift, y] for x, y in POINTS], "image": PICTURE, "scale": 2.5,
            "center": [200 + shift, 160.0]} | changes  # fmt: skip


def write_json(root: Path, *entries: Any) -> None:
    (root / "images").mkdir(exist_ok=True)
    (root / "annot").mkdir(exist_ok=True)
    (root / "annot/train.json").write_text(json.dumps([*entries]))


def config(root: Path, split: str = "train", **options: Any) -> DatasetConfig:
    values = {"source": "mpii", "root": root, "split": split, "supervision": "joints_2d"}
    return DatasetConfig(**values, options=options)  # type: ignore[arg-type]


def two(root: Path, form: str) -> None:
    """The same two people."""
    further = structs([point(k, x + 3, y) for k, (x, y) in enumerate(POINTS)])
    if form == "mat":
        write_mat(root, person(), person(further, objpos={"x": 203, "y": 160}))
    elif form == "h5":
        write_h5(root)
    else:
        write_json(root, entry(), entry(3))


@pytest.mark.parametrize("form", ["mat", "h5", "json"])
def test_the_three_forms_give_the_same_people(tmp_path: Path, form: str) -> None:
    """Pixels from 0; the crop is 15 · scale below the person and 1.25 · scale · 200 px wide, and no more."""
    two(tmp_path, form)
    records, left, bad = everything(config(tmp_path))
    assert not left
    assert not bad
    assert [record.name for record in records] == [f"mpii:images/{PICTURE}#{k}" for k in range(2)]
    assert records[0].image is records[1].image
    for shift, record in zip((0, 3), records, strict=True):
        record.check()
        center, scale = record.crop_square()
        assert center.tolist() == [199 + shift, 159 + 37.5]
        assert 200 * scale == 625
        named = dict(zip(JOINT_SETS["J24"], record.keypoints_2d.tolist(), strict=True))
        for name, (x, y) in zip(NAMES, POINTS, strict=True):
            cut = np.floor if form == "h5" else float
            assert named.pop(name) == [cut(x + shift) - 1, cut(y) - 1, 1]
        assert set(named) == {"Spine", "Jaw", "Head", "Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear"}
        assert not np.any([*named.values()])


def absent(form: str, joint: int, place: tuple[float, float]) -> Callable[[Path], None]:
    """What writes a person with a joint at some place."""
    points = [*POINTS]
    points[joint] = place
    if form == "mat":
        listed = structs([point(k, x, y) for k, (x, y) in enumerate(points)])
        return lambda root: write_mat(root, person(listed))
    if form == "h5":
        return lambda root: write_h5(root, part=np.array([points, points]), person=[0, 1])
    vis = [int(k != joint or place != (-1, -1)) for k in range(16)]
    return lambda root: write_json(root, entry(joints=points, joints_vis=vis))


@pytest.mark.parametrize(
    ("form", "place"),
    [
        ("h5", (0, 0)),
        ("h5", (-1, -1)),
        ("h5", (0, 57)),
        ("h5", (57, -3)),
        ("json", (-1, -1)),
        ("json", (0.5, 57)),
        ("mat", (57, 0.75)),
        ("mat", (-3, 57)),
        ("mat", (57, EMPTY)),
        ("mat", ("", 57)),
    ],
)
def test_marks_of_missing_joints_and_places_off_the_picture(tmp_path: Path, form: str, place: Any) -> None:
    absent(form, 9, place)(tmp_path)
    records, left, bad = everything(config(tmp_path))
    assert not records
    assert not bad
    assert set(left) == {"fewer than 16 joints annotated"}
    records, left, _ = everything(config(tmp_path, min_joints=15))
    assert not left
    for record in records:
        named = dict(zip(JOINT_SETS["J24"], record.keypoints_2d.tolist(), strict=True))
        assert named["Top_of_Head"] == [0, 0, 0]
        assert sum(known for _, _, known in named.values()) == 15


def test_the_first_pixel_is_in_the_picture(tmp_path: Path) -> None:
    absent("mat", 9, (1, 1))(tmp_path)
    assert everything(config(tmp_path))[0][0].keypoints_2d[13].tolist() == [0, 0, 1]


def test_joints_that_are_not_listed_are_missing(tmp_path: Path) -> None:
    """Points in any order, `is_visible` as a number, text, empty or not there, numbers as text."""
    kinds: list[dict[str, Any]] = [{"is_visible": "0"}, {"is_visible": 1}, {"is_visible": EMPTY}, {}]
    listed = [
        point(k, f"{x}" if k == 3 else x, y, **kinds[k % 4]) for k, (x, y) in enumerate(POINTS) if k not in (0, 5)
    ]
    write_mat(tmp_path, person(structs(listed[::-1])))
    ((record,), left, bad) = everything(config(tmp_path, min_joints=14))
    assert not left
    assert not bad
    named = dict(zip(JOINT_SETS["J24"], record.keypoints_2d.tolist(), strict=True))
    assert (named["R_Ankle"], named["L_Ankle"]) == ([0, 0, 0], [0, 0, 0])
    for k in {*range(16)} - {0, 5}:
        assert named[NAMES[k]] == [POINTS[k][0] - 1, POINTS[k][1] - 1, 1]
    write_json(tmp_path, entry(joints_vis=[0, *[1] * 15]))
    assert everything(config(tmp_path, min_joints=15))[0][0].keypoints_2d[0].tolist() == [0, 0, 0]


def test_people_that_the_official_file_says_little_of(tmp_path: Path) -> None:
    """A number of the person is its place among all, whoever is left out."""
    write_mat(
        tmp_path,
        person(annopoints=EMPTY),
        person(annopoints=None, scale=None),
        person(objpos=EMPTY),
        person(scale=""),
        person(scale=-1),
        person(structs([point(6, 50, 60)])),
        person(),
    )  # fmt: skip
    (records, left, bad) = everything(config(tmp_path))
    assert [record.person for record in records] == [6]
    assert left == {"fewer than 16 joints annotated": 2, "no position or scale": 4}
    assert not bad


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda r: write_mat(r, person(structs([point(16, 5, 5)]))), "id 16"),
        (lambda r: write_mat(r, person(structs([point(3, 5, 5), point(3, 6, 6)]))), "has it twice"),
        (lambda r: write_mat(r, person(structs([point(EMPTY, 5, 5)]))), "id None"),
        (lambda r: write_mat(r, person(structs([point(0, "a", 5)]))), "could not convert"),
        (lambda r: write_mat(r, person(structs([point(0, np.nan, 5)]))), "joints is not 2 finite"),
        (lambda r: write_mat(r, person(scale=np.inf)), "objpos with scale is not 3 finite"),
        (lambda r: write_mat(r, person(annopoints=np.ones((2, 2)))), "where structs are expected"),
        (lambda r: write_mat(r, np.ones((2, 2))), "is no person"),
        (lambda r: write_mat(r, person(), name="../a.jpg"), "names no picture"),
        (lambda r: write_mat(r, person(), name=EMPTY), "names no picture"),
        (lambda r: write_json(r, entry(joints=POINTS[1:])), "joints is not 16 × 2"),
        (lambda r: write_json(r, entry(joints_vis=None)), "joints_vis is not 16"),
        (lambda r: write_json(r, entry(center=[1, None])), "center is not 2"),
        (lambda r: write_json(r, entry(scale="big")), "could not convert"),
        (lambda r: write_json(r, entry(image=7)), "names no picture"),
        (lambda r: write_json(r, 7), "names no picture"),
    ],
)
def test_what_cannot_be_is_one_line_and_costs_one_record(
    tmp_path: Path, write: Callable[[Path], None], said: str
) -> None:
    write(tmp_path)
    (records, left, (bad,)) = everything(config(tmp_path))
    assert not records
    assert not left
    assert said in bad.problem
    assert "annorect(1)" in bad.name or "entry 0" in bad.name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"person": [1, 1]}, "is person 1 of"),
        ({"person": [0.5, 1]}, "person is 0.5"),
        ({"person": [-1, 1]}, "person is -1"),
        ({"scale": [np.nan, 3]}, "not finite"),
        ({"imgname": np.array([b"\xff.jpg", PICTURE.encode()], "S13")}, "ascii"),
    ],
)
def test_rows_of_an_h5_that_cannot_be(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write_h5(tmp_path, **changes)
    (records, _, (bad,)) = everything(config(tmp_path))
    assert len(records) == 1
    assert said in bad.problem
    assert ", row " in bad.name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"part": None}, "has no column 'part'"),
        ({"part": np.zeros((2, 15, 2))}, "part has shape"),
        ({"center": np.zeros(2)}, "has no column 'center'"),
        ({"scale": ["a", "b"]}, "has no column 'scale'"),
        ({"person": [0]}, "differ in length"),
    ],
)
def test_files_that_are_others_are_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write_h5(tmp_path, **changes)
    with pytest.raises(MetroError, match=said):
        everything(config(tmp_path))
    with pytest.raises(MetroError, match=said):
        mpii.survey(config(tmp_path), OPEN)
    (tmp_path / "annot/train.h5").unlink()
    write_mat(tmp_path, person(), train=(1, 0))
    with pytest.raises(MetroError, match="img_train tells of 2 pictures, annolist of 3"):
        everything(config(tmp_path))


def test_which_annotations_are_read(tmp_path: Path) -> None:
    lacking = mpii.survey(config(tmp_path), OPEN)
    assert [(file.path, file.found) for file in lacking.files] == [(mpii.OFFICIAL, False)]
    write_mat(tmp_path, person())
    (tmp_path / "images").rmdir()
    survey = mpii.survey(config(tmp_path), OPEN)
    assert [file.path for file in survey.files] == [mpii.OFFICIAL]
    assert "mpii_human_pose_v1.tar.gz" in survey.missing[0]
    assert survey.expected is None
    held = mpii.survey(config(tmp_path, "validation"), OPEN)
    assert [(file.path, file.found) for file in held.files] == [("annot/valid.h5", False)]
    write_h5(tmp_path)
    survey = mpii.survey(config(tmp_path), OPEN)
    assert [file.path for file in survey.files] == ["annot/train.h5"]
    assert (survey.missing, survey.expected, [check.passed for check in survey.checks]) == ((), 14_810, [True])
    assert mpii.survey(config(tmp_path, min_joints=15), OPEN).expected is None
    write_h5(tmp_path, scale=[2.5, 2.5], part=np.array([POINTS] * 2))
    assert [check.passed for check in mpii.survey(config(tmp_path), OPEN).checks] == [False]
    write_json(tmp_path, entry())
    assert [file.path for file in mpii.survey(config(tmp_path), OPEN).files] == ["annot/train.json"]
    (tmp_path / "annot/train.json").rename(tmp_path / "valid.json")
    assert [file.path for file in mpii.survey(config(tmp_path, "validation"), OPEN).files] == ["valid.json"]
    with pytest.raises(MetroError, match="set split: train or validation"):
        mpii.survey(config(tmp_path, "test"), OPEN)


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.floats(), max_size=3)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_in_the_files_ends_in_records_or_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("junk")
    form = data.draw(st.sampled_from(["mat", "h5", "json", "entry", "rect"]))
    if form == "entry":
        write_json(root, entry() | {data.draw(st.sampled_from([*entry()])): data.draw(JUNK)}, data.draw(JUNK))
    elif form == "rect":
        values = st.sampled_from([EMPTY, np.ones((2, 3)), "", "x", np.nan, {"x": "a", "y": EMPTY}, {"point": 3}])
        write_mat(root, person(**{data.draw(st.sampled_from([*person()])): data.draw(values)}), person())
    else:
        two(root, form)
        (path,) = [p for p in root.rglob("*") if p.is_file()]
        raw = path.read_bytes()
        at = data.draw(st.integers(0, len(raw)))
        path.write_bytes(raw[:at] + data.draw(st.binary(max_size=6)) + raw[at + data.draw(st.integers(0, 6)) :])
    with suppress(MetroError):  # of the file
        mpii.survey(config(root), OPEN)
        records, _, bad = everything(config(root, min_joints=1))
        for record in records:
            with suppress(MetroError):
                record.check()
        assert all(item.problem and "\n" not in item.problem for item in bad)
