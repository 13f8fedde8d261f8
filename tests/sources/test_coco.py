"""COCO from annotations of a few people that are written here."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, DatasetConfig
from metro.errors import MetroError
from metro.sources import coco
from tests.sources.reading import everything

OPEN = BodyConfig()
NAMES = ("Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist",
         "R_Wrist", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle")  # fmt: skip
LEFT_EAR, LEFT_ELBOW, RIGHT_ANKLE = 3, 7, 16
POSE = [0.01 * k for k in range(72)]
SHAPE = [0.1 * k for k in range(10)]


def joints(**changes: tuple[float, float, int]) -> list[float]:
    """17 visible joints, the k-th at (10 k, 5 k + 1)."""
    return [v for k, name in enumerate(NAMES) for v in changes.get(name, (10 * k, 5 * k + 1, 2))]


def person(number: int, picture: int, **changes: Any) -> dict[str, Any]:
    polygon = [[10.5, 20.25, 30.0, 20.25, 30.0, 80.5]]
    return {"segmentation": polygon, "num_keypoints": 17, "area": 1.5, "iscrowd": 0, "keypoints": joints(),
            "image_id": picture, "bbox": [10.0, 20.0, 100.0, 60.0], "category_id": 1, "id": number,
            **changes}  # fmt: skip


def fit(**camera: Any) -> dict[str, Any]:
    """As Pose2Mesh's file has it."""
    camera = {"s": 120.0, "t": [61.0, 52.0]} | camera
    return {"smpl_param": {"pose": POSE, "shape": SHAPE}, "cam_param": camera}


def write(root: Path, people: list[Any], name: str = "train2017", fits: Any = None, turned: bool = False) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    shown = sorted({p["image_id"] for p in people if isinstance(p, dict) and isinstance(p.get("image_id"), int)})
    pattern = "COCO_train2014_%012d.jpg" if "2014" in name else "%012d.jpg"
    images = [{"license": 4, "file_name": pattern % k, "height": 100, "width": 200, "id": k} for k in shown]
    content = {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": people, "categories": []}
    if turned:
        content = dict(reversed(content.items()))
    (root / f"annotations/person_keypoints_{name}.json").write_text(json.dumps(content))
    if fits is not None:
        (root / "fits.json").write_text(json.dumps(fits))


def config(root: Path, split: str = "train", supervision: str = "mesh", **options: Any) -> DatasetConfig:
    values = {"source": "coco", "root": root, "split": split, "supervision": supervision}
    return DatasetConfig(**values, options=options)  # type: ignore[arg-type]


def test_what_is_no_annotation_is_named_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, [person(7, 9), "a\nb", {"id": "c\nd"}])
    _, _, bad = everything(config(tmp_path))
    assert [item.name for item in bad] == [r"coco:annotation 'a\nb'", r"coco:annotation 'c\nd'"]


def test_boxes_are_edges_and_joints_are_centres_of_pixels(tmp_path: Path) -> None:
    hidden = joints(L_Elbow=(70.5, 36.25, 1), L_Ear=(0, 0, 0), Nose=(0, 33, 2))
    write(tmp_path, [person(7, 9, keypoints=hidden)])
    ((record,), left, bad) = everything(config(tmp_path))
    assert not left
    assert not bad
    record.check()
    assert (record.frame, record.person, record.mesh_origin) == ("train2017/000000000009.jpg", 7, "none")
    assert record.image == tmp_path / record.frame
    # The middle of the box's edges is (60, 50), half a pixel left and above of that in centres; 1.2 × 100 wide.
    center, scale = record.crop_square()
    assert center.tolist() == pytest.approx([59.5, 49.5])
    assert scale == pytest.approx(0.6)
    named = dict(zip(JOINT_SETS["J24"], record.keypoints_2d.tolist(), strict=True))
    assert named.pop("Nose") == [0, 33, 1]
    assert named.pop("L_Elbow") == [70.5, 36.25, 1]
    assert named.pop("L_Ear") == [0, 0, 0]
    for k, name in enumerate(NAMES):
        assert named.pop(name, None) == ([10 * k, 5 * k + 1, 1] if name not in ("Nose", "L_Elbow", "L_Ear") else None)
    assert set(named) == {"Neck", "Top_of_Head", "Pelvis", "Thorax", "Spine", "Jaw", "Head"}
    assert not np.any([*named.values()])


@pytest.mark.parametrize(
    ("name", "split", "year", "frame"),
    [
        ("train2014", "train", 2014, "train2014/COCO_train2014_000000000009.jpg"),
        ("val2017", "validation", 2017, "val2017/000000000009.jpg"),
    ],
)
def test_releases_and_splits(tmp_path: Path, name: str, split: str, year: int, frame: str) -> None:
    write(tmp_path, [person(7, 9)], name)
    survey = coco.survey(config(tmp_path, split, year=year), OPEN)
    assert [(file.path, file.found) for file in survey.files] == [(f"annotations/person_keypoints_{name}.json", True)]
    assert not survey.missing
    assert everything(config(tmp_path, split, year=year))[0][0].frame == frame
    (tmp_path / name).rename(tmp_path / "elsewhere")
    assert survey.dialect == f"release of {year}"
    assert name in coco.survey(config(tmp_path, split, year=year), OPEN).missing[0]
    (tmp_path / "images").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "images" / name)
    assert not coco.survey(config(tmp_path, split, year=year), OPEN).missing
    assert everything(config(tmp_path, split, year=year))[0][0].frame == f"images/{frame}"
    with pytest.raises(MetroError, match="set split: train or validation"):
        coco.survey(config(tmp_path, "test"), OPEN)


def test_what_rules_leave_out_is_counted_by_reason(tmp_path: Path) -> None:
    runs = {"counts": [272, 2, 4, 4], "size": [240, 320]}
    nobody = {"keypoints": [0] * 51, "num_keypoints": 0}
    people = [
        person(1, 9, iscrowd=1, segmentation=runs, **nobody),
        person(2, 8, **nobody),
        person(3, 8, **nobody),
        person(4, 9, bbox=[5, 5, 0, 10]),
        person(5, 9, keypoints=joints(R_Ankle=(0, 0, 0))),
        person(6, 9, keypoints=joints(R_Ankle=(160, 81, 1), Nose=(0, 0, 0))),
    ]
    write(tmp_path, people)
    records, left, bad = everything(config(tmp_path))
    assert [record.person for record in records] == [6]
    assert not bad
    assert left == {"a crowd": 1, "no joints annotated": 2, "a box without extent": 1,
                    "not all 12 limb joints annotated": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [1, 2]),
        ({"keep": "visible"}, [1, 2, 3]),
        ({"keep": "visible", "min_joints": 17}, [1, 2]),
        ({"keep": "visible", "min_joints": 1}, [1, 2, 3, 4]),
        ({"keep": "40k"}, [1, 3]),
    ],
)
def test_who_is_kept(tmp_path: Path, options: dict[str, Any], kept: list[int]) -> None:
    """People with all joints; with six of them hidden; without the legs' five last ones; and with one eye."""
    hidden = {name: (10, 10, 1) for name in NAMES[-6:]}
    absent = {name: (0, 0, 0) for name in NAMES[-5:]}
    blank = {name: (0, 0, 0) for name in NAMES if name != "L_Eye"}
    changes = [{}, hidden, absent, blank]
    write(tmp_path, [person(k, 9, keypoints=joints(**change)) for k, change in enumerate(changes, 1)])
    records, left, _ = everything(config(tmp_path, **options))
    assert [record.person for record in records] == kept
    assert sum(left.values()) == 4 - len(kept)


@pytest.mark.parametrize("turned", [False, True])
def test_people_of_a_picture_come_together_whatever_the_order_of_the_file(tmp_path: Path, turned: bool) -> None:
    many = [person(k, 5 + 7919 * k % 40, segmentation=[[0.5] * 200]) for k in range(1, 400)]
    write(tmp_path, many, turned=turned)
    records, left, bad = everything(config(tmp_path))
    assert not left
    assert not bad
    order = [(int(record.frame[-16:-4]), record.person) for record in records]
    assert order == sorted((p["image_id"], p["id"]) for p in many)
    assert len({id(record.image) for record in records}) == 40


@pytest.mark.parametrize("flat", [False, True])
def test_fits_are_joined_by_annotation_id(tmp_path: Path, flat: bool) -> None:
    nan = [float("nan"), *POSE[1:]]
    fits: dict[str, Any] = {
        "2": fit(),
        "1": {"smpl_param": {"pose": nan, "shape": SHAPE}, "cam_param": {}},
        "4": {"smpl_param": {"pose": [POSE], "shape": SHAPE[:9]}, "cam_param": {}},
        "99": "of somebody else",
    }
    if flat:
        fits = {key: value["smpl_param"] | {"cam": value["cam_param"]} for key, value in list(fits.items())[:3]}
    write(tmp_path, [person(k, 9) for k in range(1, 5)], fits=fits)
    records, left, (bad,) = everything(config(tmp_path, fits="fits.json"))
    assert not left
    assert [(record.person, record.has_mesh, record.mesh_origin) for record in records] == [
        (1, False, "none"),  # its fit is NaN
        (2, True, "fit"),
        (3, False, "none"),  # it has none
    ]
    assert (bad.name, bad.problem) == (
        "coco:annotation 4",
        "its fit in fits.json: has 72 and 9 numbers as pose and shape, not 72 and 10",
    )
    records[1].check()
    assert records[1].pose_aa.tolist() == pytest.approx(POSE)
    assert records[1].betas.tolist() == SHAPE
    assert (records[1].transl, records[1].intrinsics, records[1].joints_3d) == (None, None, None)
    assert coco.survey(config(tmp_path, fits="fits.json"), OPEN).parameters == "smpl"
    without = config(tmp_path, supervision="joints_2d", fits="fits.json")
    assert [record.has_mesh for record in everything(without)[0]] == [False] * 4
    assert coco.survey(without, OPEN).parameters is None


def test_shapes_beyond_the_limit_are_the_mean_one(tmp_path: Path) -> None:
    strange = fit()
    strange["smpl_param"] = strange["smpl_param"] | {"shape": [*SHAPE[:9], -3.1]}
    write(tmp_path, [person(1, 9), person(2, 9)], fits={"1": strange, "2": fit()})
    first, second = everything(config(tmp_path, fits="fits.json"))[0]
    assert first.betas.tolist() == [0.0] * 10
    assert first.pose_aa.tolist() == pytest.approx(POSE)
    assert second.betas.tolist() == SHAPE
    kept = everything(config(tmp_path, fits="fits.json", max_beta=3.2))[0][0]
    assert kept.betas.tolist() == [*SHAPE[:9], -3.1]


def test_fits_of_others_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [person(1, 9)], fits={"2": fit()})
    with pytest.raises(MetroError, match="fits nobody of these annotations"):
        everything(config(tmp_path, fits="fits.json"))
    write(tmp_path, [person(1, 9, iscrowd=1)], fits={"2": fit()})
    assert everything(config(tmp_path, fits="fits.json"))[1] == {"a crowd": 1}
    (tmp_path / "fits.json").unlink()
    found = coco.survey(config(tmp_path, fits="fits.json"), OPEN).files
    assert [(file.path, file.found) for file in found][1:] == [("fits.json", False)]


@pytest.mark.parametrize(
    ("fits", "passed"),
    [
        ({"1": fit()}, True),
        ({"1": {"pose": POSE, "shape": SHAPE, "cam": {"s": 1, "t": [60, 50]}}}, True),
        ({"1": fit(t=[250, 112])}, False),
        ({"1": fit(t=None)}, None),
        ({"2": fit()}, None),
    ],
)
def test_survey_says_whether_fits_lie_in_the_whole_picture(tmp_path: Path, fits: Any, passed: bool | None) -> None:
    write(tmp_path, [person(1, 9), "nobody", person(3, 9, bbox=[None] * 4)], fits=fits)
    (check,) = coco.survey(config(tmp_path, fits="fits.json"), OPEN).checks
    assert check.passed is passed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keypoints": joints()[:-1]}, "keypoints is not 51 finite numbers"),
        ({"keypoints": [*joints()[:-1], 3]}, "v that is not 0, 1 or 2"),
        ({"keypoints": [float("nan"), *joints()[1:]]}, "keypoints is not 51 finite numbers"),
        ({"keypoints": ["1", *joints()[1:]]}, "keypoints is not 51 finite numbers"),
        ({"keypoints": [1e308, 1e308, *joints()[2:]]}, "keypoints is not 51 finite numbers"),
        ({"keypoints": None}, "keypoints is not 51"),
        ({"bbox": [1, 2, 3]}, "bbox is not 4 finite numbers"),
        ({"id": "7"}, "id is no number of a person"),
        ({"id": True}, "id is no number of a person"),
        ({"image_id": 9.0}, "image_id is no number of a picture"),
        ({"image_id": 77}, "image_id 77 names no picture of the list"),
        ({"iscrowd": "0"}, "iscrowd is neither 0 nor 1"),
        ({"id": 1}, "its id is that of another before"),
    ],
)
def test_what_cannot_be_is_one_line_and_costs_one_record(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write(tmp_path, [person(1, 9), person(2, 9) | changes])
    path = tmp_path / "annotations/person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    content["images"] = [image for image in content["images"] if image["id"] == 9]
    path.write_text(json.dumps(content))
    records, left, (bad,) = everything(config(tmp_path))
    assert [record.person for record in records] == [1]
    assert not left
    assert said in bad.problem
    assert bad.name.startswith("coco:annotation ")


@pytest.mark.parametrize("name", ["../000000000009.jpg", "a\nb.jpg", 9, None])
def test_names_of_pictures_stay_in_their_folder(tmp_path: Path, name: Any) -> None:
    write(tmp_path, [person(1, 9)])
    path = tmp_path / "annotations/person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))
    records, _, (bad,) = everything(config(tmp_path))
    assert not records
    assert "names no picture" in bad.problem


def test_files_that_are_cut_off_or_others_are_one_line(tmp_path: Path) -> None:
    write(tmp_path, [person(1, 9)])
    path = tmp_path / "annotations/person_keypoints_train2017.json"
    whole = path.read_text()
    for text, said in [
        (whole[:-40], "not valid JSON"),
        ("[]", "has no list 'annotations'"),
        (whole.replace('"images"', '"pictures"'), "has no list 'images'"),
        (whole.replace("10.0", "1" * 400), "not valid JSON"),
        (whole.replace('"annotations"', '"answers"'), "has no list 'annotations'"),
    ]:
        path.write_text(text)
        with pytest.raises(MetroError, match=said):
            everything(config(tmp_path))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "pose", "t"]), inner),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_in_the_files_ends_in_records_or_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("junk")
    people: list[Any] = [person(1, 9), person(2, 9)]
    fits: dict[str, Any] = {"1": fit(), "2": fit()}
    which = data.draw(st.sampled_from(["person", "fit", "fits.json", "annotations/person_keypoints_train2017.json"]))
    if which == "person":
        people[1] = data.draw(
            st.sampled_from([*person(1, 9)]).flatmap(lambda k: JUNK.map(lambda v: people[1] | {k: v})) | JUNK
        )
    elif which == "fit":
        fits["2"] = data.draw(
            JUNK | JUNK.map(lambda v: {"smpl_param": v}) | JUNK.map(lambda v: {"pose": v, "shape": v})
        )
    write(root, people, fits=fits)
    if which.endswith(".json"):
        raw = (root / which).read_bytes()
        at = data.draw(st.integers(0, len(raw)))
        cut = raw[:at] + data.draw(st.binary(max_size=6)) + raw[at + data.draw(st.integers(0, 6)) :]
        (root / which).write_bytes(cut)
    with suppress(MetroError):  # of a file
        coco.survey(config(root, fits="fits.json"), OPEN)
        records, _, bad = everything(config(root, fits="fits.json"))
        for record in records:
            with suppress(MetroError):
                record.check()
        assert all(item.problem and "\n" not in item.problem for item in bad)
