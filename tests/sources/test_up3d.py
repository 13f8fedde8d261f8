"""UP-3D from folders of a few fits that are written here."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Record
from metro.errors import MetroError
from metro.sources import up3d
from metro.sources.prepare import fingerprint
from metro.sources.source import Row
from tests.sources import reading

OPEN = BodyConfig()
SIZE = (75, 121)  # both odd: half pixels would show
CENTRE = np.array([37, 60])
LSP = ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
       "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head")  # fmt: skip
SLOTS = ("R_Ankle", "R_Knee", "R_Hip", "L_Hip", "L_Knee", "L_Ankle", "R_Wrist", "R_Elbow",
         "R_Shoulder", "L_Shoulder", "L_Elbow", "L_Wrist", "Neck", "Top_of_Head")  # fmt: skip


class Person:
    """A fit, and what its camera sees in the picture that was fitted."""

    def __init__(self) -> None:
        g = np.random.default_rng(5)
        self.pose, self.betas = g.normal(0, 0.2, 72), g.normal(0, 1, 10)
        turn = Rotation.from_euler("xyz", [170, 15, 5], degrees=True).as_rotvec()
        self.pose[:3] = turn * (1 + 8 * np.pi / np.linalg.norm(turn))  # 28 rad, the same rotation
        self.t = np.array([0.05, 0.3, 80.0])
        body = BodyModel(load_body("open"), torch.float64)
        out = body(*(torch.from_numpy(a[None]) for a in (self.pose, self.betas, self.t)))
        self.vertices, smpl24 = out.vertices[0].numpy(), out.joints[0].numpy()
        self.j24 = body.regress("j24", out.vertices)[0].numpy()
        top = self.vertices[self.vertices[:, 1].argmin()]
        self.j2d = self.pixels(np.vstack([smpl24, top]))
        named = dict(zip(JOINT_SETS["SMPL24"], self.j2d, strict=False))
        self.joints = np.vstack([np.array([named[name] for name in LSP]).T, np.ones(14)])

    def pixels(self, points: np.ndarray) -> np.ndarray:
        return points[:, :2] / points[:, 2:] * 5000 + CENTRE

    def fit(self) -> dict[str, Any]:
        """The dict of body.pkl."""
        return {"pose": self.pose, "betas": self.betas, "t": self.t, "rt": np.zeros(3), "trans": np.zeros(3),
                "f": 5000.0, "j2d": self.j2d}  # fmt: skip


@pytest.fixture(scope="module")
def person() -> Person:
    return Person()


def write(
    root: Path,
    person: Person,
    stem: str = "00001",
    fit: Any = None,
    joints: np.ndarray | None = None,
    size: tuple[int, int] = SIZE,
    render: tuple[int, int] = SIZE,
    info: str = "121 75 0 121 0 75",
) -> None:
    Image.new("RGB", size, "gray").save(root / f"{stem}_image.png")
    drawing = np.full((render[1], render[0], 3), 255, np.uint8)
    drawing[20:101, 30:51, 1] = 254  # rows 20 … 100, columns 30 … 50, hardly darker than white
    Image.fromarray(drawing).save(root / f"{stem}_render_light.png")
    (root / f"{stem}_body.pkl").write_bytes(pickle.dumps(person.fit() if fit is None else fit, 0))
    np.save(root / f"{stem}_joints.npy", person.joints if joints is None else joints)
    (root / f"{stem}_fit_crop_info.txt").write_text(info)
    (root / f"{stem}_dataset_info.txt").write_text("lsp 2")
    with (root / "test.txt").open("a") as lines:
        lines.write(f"/{stem}_image.png\n")


def config(root: Path, split: str = "test", supervision: str = "mesh", **options: Any) -> DatasetConfig:
    values = {"source": "up3d", "root": root, "split": split, "supervision": supervision}
    return DatasetConfig(**values, options=options)  # type: ignore[arg-type]


def everything(settings: DatasetConfig) -> tuple[list[Record], list[BadRecord]]:
    """Records, and what is bad."""
    records, left, bad = reading.everything(settings)
    assert not left
    return records, bad


def test_the_body_stands_where_the_camera_of_the_fit_sees_it(tmp_path: Path, person: Person) -> None:
    """t is the translation, the principal point a whole pixel, a root of 28 rad the same rotation by less than π."""
    write(tmp_path, person)
    ((record,), bad) = everything(config(tmp_path))
    assert not bad
    record.check()
    assert (record.frame, record.person, record.gender, record.mesh_origin) == ("00001_image.png", 0, "neutral", "fit")
    assert record.intrinsics.tolist() == [[5000, 0, 37], [0, 5000, 60], [0, 0, 1]]
    assert np.linalg.norm(record.pose_aa.reshape(24, 3), axis=1).max() <= np.pi
    body = BodyModel(load_body("open"), torch.float64)
    parameters = (record.pose_aa, record.betas, record.transl)
    vertices = body(*(torch.from_numpy(np.asarray(a)[None]) for a in parameters)).vertices[0].numpy()
    assert np.abs(vertices - person.vertices).max() < 1e-6
    assert np.abs(record.joints_3d - np.column_stack([person.j24, np.ones(24)])).max() < 1e-5
    assert record.box == pytest.approx([40 - 12, 60 - 48, 24, 96])


def test_annotated_joints_fill_fourteen_places_of_j24(tmp_path: Path, person: Person) -> None:
    joints = person.joints.copy()
    joints[2, 13] = 0  # the head is not annotated
    joints[2, 12] = 0.5
    write(tmp_path, person, joints=joints)
    ((record,), _) = everything(config(tmp_path))
    for name, place in zip(JOINT_SETS["J24"], record.keypoints_2d, strict=True):
        known = name in SLOTS[:13]
        assert place.tolist() == (joints[:, SLOTS.index(name)].tolist() if known else [0, 0, 0])


def test_a_fit_of_a_scaled_part_is_brought_back(tmp_path: Path, person: Person) -> None:
    """The part is rows 40 to 282 and columns 10 to 160 of a larger picture, at half its size."""
    joints = np.vstack([2 * person.joints[:2] + [[10], [40]], np.ones(14)])
    write(tmp_path, person, joints=joints, size=(200, 300), info="121 75 40 282 10 160")
    ((record,), bad) = everything(config(tmp_path))
    assert not bad
    assert record.intrinsics.tolist() == [[10000, 0, 84], [0, 10000, 160], [0, 0, 1]]
    pixels = person.j24 @ record.intrinsics.T
    assert np.allclose(pixels[:, :2] / pixels[:, 2:], 2 * person.pixels(person.j24) + [10, 40])
    assert record.box == pytest.approx([70 + 20 - 24, 80 + 80 - 96, 48, 192])
    # A drawing of the larger picture's size is in its pixels.
    write(tmp_path, person, joints=joints, size=(200, 300), render=(200, 300), info="121 75 40 282 10 160")
    assert everything(config(tmp_path))[0][0].box == pytest.approx([28, 12, 24, 96])


def test_the_joints_tell_whether_the_folder_holds_the_part_itself(tmp_path: Path, person: Person) -> None:
    write(tmp_path, person, info="121 75 0 60 0 37")
    ((record,), _) = everything(config(tmp_path))
    assert record.intrinsics[:2, 2].tolist() == [37, 60]
    joints = np.vstack([person.joints[:2] / 2.0218, np.ones(14)])
    write(tmp_path, person, "00002", joints=joints, info="121 75 0 60 0 37")
    records, _ = everything(config(tmp_path))
    assert records[1].intrinsics[:2, 2] == pytest.approx([37 / 2.0218, 60 / 2.0218], abs=1e-2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"joints": np.vstack([np.arange(28).reshape(2, 14) + 300, np.ones(14)])}, "lie apart"),
        ({"size": (50, 50)}, "neither the one of 75 × 121"),
        ({"render": (50, 121)}, "is neither of the size"),
        ({"joints": np.zeros((2, 14))}, "not 3 × 14 numbers"),
        ({"info": "121 75 0 121 0"}, "damaged"),
        ({"info": "121 75 0 0 0 75"}, "no part of a picture"),
        ({"rt": np.array([0, 0.1, 0])}, "rt and trans are not 0"),
        ({"t": np.array([0, 0, -60.0])}, "not before the camera"),
        ({"pose": np.full(72, 1e5)}, "no rotation vectors"),
        ({"betas": np.full(10, np.nan)}, "betas is not 10 finite numbers"),
        ({"f": [5000]}, "f is not one finite"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(
    tmp_path: Path, person: Person, changes: dict[str, Any], said: str
) -> None:
    fit = {name: changes.get(name, value) for name, value in person.fit().items()}
    write(tmp_path, person, fit=fit, **{name: value for name, value in changes.items() if name not in fit})
    (records, (bad,)) = everything(config(tmp_path))
    assert not records
    assert said in bad.problem
    assert bad.name == "up3d:00001_image.png#0"


class Calls:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


def test_damaged_and_missing_files_cost_their_own_record(tmp_path: Path, person: Person) -> None:
    for n in range(1, 9):
        write(tmp_path, person, f"{n:05d}")
    (tmp_path / "00001_body.pkl").unlink()
    (tmp_path / "00002_body.pkl").write_bytes(pickle.dumps(Calls(), 0))
    (tmp_path / "00003_joints.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "00004_image.png").unlink()
    (tmp_path / "00005_render_light.png").write_bytes(b"x")
    Image.new("RGB", SIZE, "white").save(tmp_path / "00006_render_light.png")
    np.savez(tmp_path / "00007_joints.npz", joints=person.joints)
    (tmp_path / "00007_joints.npz").rename(tmp_path / "00007_joints.npy")
    with (tmp_path / "test.txt").open("a") as lines:
        lines.write("/00008_image.png\n../../x.png\n")
    records, bad = everything(config(tmp_path))
    assert [record.frame for record in records] == ["00008_image.png"]
    said = ["again", "names no", "missing", "posix.system", "damaged", "missing", "readable", "nobody", "3 × 14"]
    assert len(bad) == len(said)
    assert all(word in item.problem for word, item in zip(said, bad, strict=True)), bad
    survey = up3d.survey(config(tmp_path), OPEN)
    assert survey.notes[0] == "1 of the files it lists are missing, the first: 00001_body.pkl"
    assert len(survey.files[1].paths(tmp_path)) == 7


@pytest.mark.parametrize(
    ("split", "options", "name", "expected"),
    [("train", {}, "train", 5703), ("train", {"trainval": True}, "trainval", 7126), ("validation", {}, "val", 1423)],
)
def test_lists_by_split(
    tmp_path: Path, person: Person, split: str, options: dict[str, Any], name: str, expected: int
) -> None:
    write(tmp_path, person)
    lost = up3d.survey(config(tmp_path, split, **options), OPEN)
    assert [(file.path, file.found) for file in lost.files] == [(f"{name}.txt", False)]
    (tmp_path / "test.txt").rename(tmp_path / f"{name}.txt")
    survey = up3d.survey(config(tmp_path, split, **options), OPEN)
    assert (survey.expected, survey.missing, survey.parameters) == (expected, (), "smpl")
    assert len(everything(config(tmp_path, split, **options))[0]) == 1


def test_survey_says_whether_fits_and_joints_are_of_one_picture(tmp_path: Path, person: Person) -> None:
    write(tmp_path, person)
    assert [check.passed for check in up3d.survey(config(tmp_path), OPEN).checks] == [True, True]
    write(tmp_path, person, joints=person.joints * [[2], [2], [7]])
    assert [check.passed for check in up3d.survey(config(tmp_path), OPEN).checks] == [False, False]
    with pytest.raises(MetroError, match="trainval: true goes with split: train"):
        up3d.survey(config(tmp_path, trainval=True), OPEN)
    (tmp_path / "00001_body.pkl").write_bytes(b"")
    assert [check.passed for check in up3d.survey(config(tmp_path), OPEN).checks] == [None]


def test_a_changed_fit_is_other_raw_data(tmp_path: Path, person: Person) -> None:
    """8,515 fits are one line of the manifest."""
    write(tmp_path, person)
    write(tmp_path, person, "00002")
    settings = config(tmp_path)
    before = fingerprint(settings, up3d.survey(settings, OPEN))
    assert [name for name, _, _ in before] == ["test.txt", "*_body.pkl", "*_joints.npy", "*_fit_crop_info.txt"]
    assert before[3][1] == 2 * len("121 75 0 121 0 75")
    (tmp_path / "00002_fit_crop_info.txt").write_text("121 75 0 121 0 76")
    after = fingerprint(settings, up3d.survey(settings, OPEN))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, True, False]


def test_2d_joints_need_no_body(tmp_path: Path, person: Person) -> None:
    write(tmp_path, person)
    settings = config(tmp_path, supervision="joints_2d")
    nobody = BodyConfig(kind="smpl", path=tmp_path)
    (record,) = up3d.read(settings, nobody, [Row("00001_image.png", 0, "00001")])
    assert isinstance(record, Record)
    assert record.has_2d
    assert not up3d.survey(settings, nobody).posed
    assert up3d.survey(config(tmp_path, supervision="joints_3d"), nobody).posed


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.floats(), max_size=3)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_is_in_the_files_ends_in_records_or_lines(
    tmp_path_factory: pytest.TempPathFactory, person: Person, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("junk")
    write(root, person)
    which = data.draw(st.sampled_from(["fit", "00001_fit_crop_info.txt", "00001_joints.npy", "test.txt"]))
    if which == "fit":
        arrays = [np.zeros(0), np.full(3, np.inf), np.array(["a"]), np.full((25, 2), 1e300), np.full(72, -0.0)]
        key = data.draw(st.sampled_from(sorted(person.fit())))
        write(root, person, fit=person.fit() | {key: data.draw(JUNK | st.sampled_from(arrays))})
        (root / "test.txt").write_text("00001_image.png")
    else:
        raw = (root / which).read_bytes()
        at = data.draw(st.integers(0, len(raw)))
        (root / which).write_bytes(
            raw[:at] + data.draw(st.binary(max_size=6)) + raw[at + data.draw(st.integers(0, 6)) :]
        )
    with suppress(MetroError):  # of the list itself
        records, bad = everything(config(root))
        for record in records:
            with suppress(MetroError):
                record.check()
        assert all(item.problem for item in bad)
