"""MuCo-3DHP from a few pictures that are written here; bodies are posed by the layer of training."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Record
from metro.errors import MetroError
from metro.sources import muco
from tests.sources import reading

OPEN = BodyConfig()
J24 = JOINT_SETS["J24"]
SIZE = 200
# The joints of the set, as its papers call them, and what J24 calls those that it has.
JOINTS = ["Head_top", "Thorax", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip",
          "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Spine", "Head", "R_Hand", "L_Hand", "R_Toe",
          "L_Toe"]  # fmt: skip
CALLED = {"Head_top": "Head", "Thorax": "Neck", "Head": "Jaw"}


class People:
    """Three people in picture 7, listed from the farthest on, one in picture 5."""

    def __init__(self) -> None:
        g = np.random.default_rng(5)
        self.pose = g.normal(0, 0.2, (4, 72))
        self.pose[0, :3] = [0, 3.8, 0]  # more than half a turn
        self.betas = g.uniform(-1, 1, (4, 10))
        self.transl = np.array([[0.2, 0, 5.0], [0.1, 0.1, 4.7], [-0.6, 0, 4.0], [0.3, 0, 3.0]])
        body = BodyModel(load_body("open"), torch.float64)
        out = body(*(torch.from_numpy(a) for a in (self.pose, self.betas, self.transl)))
        self.j24 = body.regress("j24", out.vertices).numpy()
        places = [J24.index(name) if (name := CALLED.get(joint, joint)) in J24 else 0 for joint in JOINTS]
        self.points = 1000 * self.j24[:, places]  # hands and toes: wherever

    def content(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The release, annotations of the pictures mixed, and the fits."""
        images = [
            {
                "id": 7,
                "file_name": "augmented_set/7.jpg",
                "width": SIZE,
                "height": SIZE,
                "f": [250, 260],
                "c": [99, 98],
            },
            {
                "id": 5,
                "file_name": "unaugmented_set/5.jpg",
                "width": SIZE,
                "height": SIZE,
                "f": [240, 240],
                "c": [90, 95],
            },
        ]
        annotations, fits = [], {}
        for n, image in zip((0, 3, 1, 2), (7, 5, 7, 7), strict=True):
            (camera,) = (i for i in images if i["id"] == image)
            seen = self.points[n, :, :2] / self.points[n, :, 2:] * camera["f"] + camera["c"]
            annotations.append({
                "id": 100 + n, "image_id": image, "bbox": [10 * n, 20, 30, 60], "keypoints_img": seen.tolist(),
                "keypoints_cam": self.points[n].tolist(), "keypoints_vis": [0] * 21,
            })  # fmt: skip
            fits[str(100 + n)] = {
                "pose": self.pose[n].tolist(), "shape": self.betas[n].tolist(), "trans": self.transl[n].tolist(),
            }  # fmt: skip
        return {"annotations": annotations, "images": images}, fits


@pytest.fixture(scope="module")
def people() -> People:
    return People()


def write(root: Path, content: Any, fits: Any) -> None:
    for folder in ("unaugmented_set", "augmented_set"):
        (root / "data" / folder).mkdir(parents=True, exist_ok=True)
    (root / "data/MuCo-3DHP.json").write_text(json.dumps(content))
    (root / "data/smpl_param.json").write_text(json.dumps(fits))


def config(root: Path, supervision: str = "mesh", split: str = "train", **options: Any) -> DatasetConfig:
    values = {"source": "muco", "root": root, "split": split, "supervision": supervision, "options": options}
    return DatasetConfig(**values)  # type: ignore[arg-type]


def everything(settings: DatasetConfig) -> tuple[dict[tuple[str, int], Record], Counter[str], list[BadRecord]]:
    """Records by frame and person, what was left out, what is bad."""
    records, left, bad = reading.everything(settings)
    return {(record.frame, record.person): record for record in records}, left, bad


def test_people_of_the_release_in_metres_with_their_fits(tmp_path: Path, people: People) -> None:
    content, fits = people.content()
    write(tmp_path, content, fits)
    records, left, bad = everything(config(tmp_path, people="all"))
    assert (left, bad) == ({}, [])
    # Pictures by their number, people from the nearest on, in whatever order they are listed.
    assert [*records] == [
        ("data/unaugmented_set/5.jpg", 103),
        *(("data/augmented_set/7.jpg", n) for n in (102, 101, 100)),
    ]
    assert records["data/augmented_set/7.jpg", 100].intrinsics.tolist() == [[250, 0, 99], [0, 260, 98], [0, 0, 1]]
    body = BodyModel(load_body("open"), torch.float64)
    for (_, number), record in records.items():
        record.check()
        n = number - 100
        named = dict(zip(J24, zip(record.joints_3d, record.keypoints_2d, strict=True), strict=True))
        annotated = next(a for a in content["annotations"] if a["id"] == number)
        for joint, (point, pixel) in zip(
            JOINTS, zip(people.points[n] / 1000, annotated["keypoints_img"], strict=True), strict=True
        ):
            if joint.split("_")[-1] not in ("Hand", "Toe"):
                assert named[CALLED.get(joint, joint)][0] == pytest.approx([*point, 1])
                assert named[CALLED.get(joint, joint)][1] == pytest.approx([*pixel, 1])
        assert record.joints_3d[:, 3].sum() == 17
        assert record.box == pytest.approx([10 * n - 3, 14, 36, 72])
        assert (record.gender, record.mesh_origin) == ("neutral", "fit")
        assert record.fit_error < 1e-5
        assert np.linalg.norm(np.reshape(record.pose_aa, (24, 3)), axis=1).max() <= np.pi
        out = body(*(torch.from_numpy(np.asarray(a)[None]) for a in (record.pose_aa, record.betas, record.transl)))
        assert np.abs(body.regress("j24", out.vertices)[0].numpy() - people.j24[n]).max() < 1e-6


def test_who_of_a_picture_is_taken(tmp_path: Path, people: People) -> None:
    """102 is 4.0 m away; 101 (4.7 m) and 100 (5.0 m) are 0.33 m from one another and further from 102."""
    write(tmp_path, *people.content())
    records, left, _ = everything(config(tmp_path))
    assert [person for _, person in records] == [103, 102]
    assert left == {"further from the camera than another": 2}
    records, left, _ = everything(config(tmp_path, people="spaced"))
    assert [person for _, person in records] == [103, 102, 101]
    assert left == {"too near to another": 1}
    assert len(everything(config(tmp_path, people="spaced", spacing=0.2))[0]) == 4


def test_fits_that_are_bad_or_missing_leave_the_joints(tmp_path: Path, people: People) -> None:
    content, fits = people.content()
    del fits["100"]
    fits["101"]["pose"][5] = float("nan")
    fits["102"]["trans"][0] += 0.026
    fits["103"]["shape"][9] = 30
    fits["7000"] = fits["103"]  # of nobody
    write(tmp_path, content, fits)
    records, left, bad = everything(config(tmp_path, people="all"))
    assert (left, bad, len(records)) == ({}, [], 4)
    assert [(person, record.has_mesh, record.has_3d) for (_, person), record in records.items()] == [
        (103, False, True), (102, False, True), (101, False, True), (100, False, True)
    ]  # fmt: skip
    records, _, _ = everything(config(tmp_path, people="all", max_fit_error=0.027))
    assert {person: record.has_mesh for (_, person), record in records.items()}[102]


def test_shapes_out_of_bounds_become_the_mean_after_the_fit_was_judged(tmp_path: Path, people: People) -> None:
    content, fits = people.content()
    fits["103"]["shape"][0] = 3.01
    fits["102"]["shape"][0] = people.betas[2][0] + 0.01
    write(tmp_path, content, fits)
    records, _, _ = everything(config(tmp_path, max_fit_error=10))
    far, near = records["data/unaugmented_set/5.jpg", 103], records["data/augmented_set/7.jpg", 102]
    assert not far.betas.any()
    assert far.fit_error > 0.005  # of the shape as it was fitted
    assert near.betas[0] == people.betas[2][0] + 0.01


def test_without_meshes_fits_are_not_read(tmp_path: Path, people: People) -> None:
    content, _ = people.content()
    write(tmp_path, content, {})
    (tmp_path / "data/smpl_param.json").unlink()
    survey = muco.survey(config(tmp_path), OPEN)
    assert [(file.path, file.found) for file in survey.files] == [
        ("data/MuCo-3DHP.json", True), ("smpl_param.json", False)
    ]  # fmt: skip
    assert len(everything(config(tmp_path, "joints_3d"))[0]) == 2
    assert len(muco.survey(config(tmp_path, "joints_3d"), OPEN).files) == 1


def test_who_cannot_be_read_does_not_make_another_the_nearest(tmp_path: Path, people: People) -> None:
    content, fits = people.content()
    first, other, _, third = content["annotations"]
    third["bbox"] = [1, 2, 0, 4]
    content["annotations"] += [
        dict(other),
        {"id": 9, "image_id": 77},
        {"id": "x", "image_id": 7},
        [3],
        {**first, "id": 104, "image_id": 8},
    ]
    other["keypoints_cam"][3][1] = float("nan")
    content["images"] += [{"id": 8, "file_name": "../../etc/passwd", "f": [1, 1], "c": [0, 0]}]
    fits["5x"] = fits["100"]
    fits["105"] = {"pose": [0], "shape": [], "trans": []}
    write(tmp_path, content, fits)
    records, left, bad = everything(config(tmp_path))
    assert not records
    assert left == {"further from the camera than another": 2}
    said = {item.name: item.problem for item in bad}
    assert "id comes twice" in said["muco:MuCo-3DHP.json, annotation 4"]
    assert "no whole number" in said["muco:MuCo-3DHP.json, annotation 6"]
    assert "muco:MuCo-3DHP.json, annotation 7" in said
    assert "no extent" in said["muco:data/augmented_set/7.jpg#102"]
    assert "joints are no finite numbers" in said["muco:data/unaugmented_set/5.jpg#103"]
    assert "not listed" in said["muco:picture 8#104"]
    assert "has no keypoints_cam" in said["muco:picture 77#9"]
    assert {"muco:smpl_param.json, entry '5x'", "muco:smpl_param.json, entry '105'"} <= {*said}
    assert len(said) == len(bad) == 9


def test_a_truncated_file_is_one_line(tmp_path: Path, people: People) -> None:
    write(tmp_path, *people.content())
    for name in ("MuCo-3DHP.json", "smpl_param.json"):
        path = tmp_path / "data" / name
        whole = path.read_text()
        path.write_text(whole[:-30])
        with pytest.raises(MetroError, match="not valid JSON") as caught:
            everything(config(tmp_path))
        assert len(str(caught.value).splitlines()) == 1
        path.write_text(whole)


def test_a_full_disk_is_one_line(tmp_path: Path, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, *people.content())
    monkeypatch.setattr(muco, "_TABLES", muco._TABLES + "PRAGMA max_page_count = 5;")
    with pytest.raises(MetroError, match="full; set TMPDIR"):
        everything(config(tmp_path))


def test_survey_checks_units_and_frames_on_a_sample(tmp_path: Path, people: People) -> None:
    (tmp_path / "empty").mkdir()
    nothing = muco.survey(config(tmp_path / "empty"), OPEN)
    assert not any(file.found for file in nothing.files)
    assert "unaugmented_set" in nothing.missing[0]
    content, fits = people.content()
    write(tmp_path, content, fits)
    survey = muco.survey(config(tmp_path), OPEN)
    assert (survey.missing, survey.parameters, survey.posed) == ((), "smpl", False)
    assert [check.passed for check in survey.checks] == [True, True], survey.checks
    content["images"][0]["f"] = [220, 260]
    fits["100"]["trans"] = [1000 * x for x in fits["100"]["trans"]]
    write(tmp_path, content, fits)
    assert [check.passed for check in muco.survey(config(tmp_path), OPEN).checks] == [False, False]
    with pytest.raises(MetroError, match="no test split"):
        muco.survey(config(tmp_path, split="test"), OPEN)


def cell(file: h5py.File, name: str, value: Any) -> h5py.Reference:
    """A value, or a row of cells, as MATLAB stores it: axes reversed."""
    content = (
        np.array([[cell(file, f"{name}_{k}", part)] for k, part in enumerate(value)], h5py.ref_dtype)
        if isinstance(value, list)
        else np.transpose(value)
    )
    stored = file.create_dataset(f"#refs#/{name}", data=content)
    stored.attrs["MATLAB_class"] = np.bytes_("cell" if isinstance(value, list) else "double")
    return stored.ref


def pixels_of(n: int, person: int) -> np.ndarray:
    """Joints (21, 2) of a person of composite n."""
    return np.random.default_rng([n, person]).uniform(20, 180, (21, 2))


def write_composites(root: Path, origins: list[list[tuple[float, ...]]], generated: list[int]) -> np.ndarray:
    """Composites of one sequence whose frame t of camera c has its pelvis 3 m + t m away, shifted by c m."""
    (root / "unaugmented_set_001").mkdir(parents=True)
    for n in generated:
        Image.new("RGB", (SIZE, SIZE)).save(root / f"unaugmented_set_001/{n:06d}.jpg")
    folder = root / "S3/Seq2"
    folder.mkdir(parents=True)
    g = np.random.default_rng(0)
    points = g.uniform(-500, 500, (14, 5, 28, 3))
    points[..., 2] += 3000 + 1000 * np.arange(5)[:, None]
    points[:, :, 4] = [0, 0, 3000] + np.arange(5)[:, None] * np.array([0, 0, 1000]) + np.zeros((14, 5, 3))
    points[..., 0] += 100 * np.arange(14)[:, None, None]
    cells = {"annot2": np.empty((14, 1), object), "annot3": np.empty((14, 1), object)}
    cells["annot3"][:, 0] = [*points.reshape(14, 5, 84)]
    cells["annot2"][:, 0] = [*(100 * points[..., :2] / points[..., 2:] + 100).reshape(14, 5, 56)]
    scipy.io.savemat(folder / "annot.mat", cells)
    lines = [f"name {k}\n intrinsic {100 + k} 0 100 0 0 100 100 0 0 0 1 0 0 0 0 1" for k in range(14)]
    (folder / "camera.calibration").write_text("\n".join(["Skeletool Camera Calibration File V1.0", *lines]))
    with h5py.File(root / "sampled_dataset_info.mat", "w", userblock_size=512) as file:
        references = np.empty((4, len(origins)), h5py.ref_dtype)
        for n, picture in enumerate(origins):
            for person, numbers in enumerate(picture):
                rescaled = np.full((3, 21), 100.0 * person)
                rescaled[2, 14] = (7 * person + n) % 4 * 1000 + 2000
                parts = [np.array([numbers]), np.ones((1, 4)), pixels_of(n, person).T, *[rescaled] * 3]
                references[person, n] = cell(file, f"c{n}_{person}", parts)
        made = file.create_dataset("composite_info", data=references)
        made.attrs["MATLAB_class"] = np.bytes_("cell")
    return points


def test_composites_take_people_from_their_sequences(tmp_path: Path) -> None:
    """By picture and person, each with the camera and the row that its cell names; nearest first."""
    points = write_composites(
        tmp_path,
        [[(3, 2, 6, 4), (3, 2, 6, 1), (3, 2, 2, 3), (3, 2, 6, 2)],
         [(3, 2, 0, 0), (3, 2, 0, 1), (3, 2, 0, 9), (1, 1, 0, 0)],
         [(3, 2, 0, 0), (3, 2, 0, 1), (3, 2, 0, 2), (3, 2, 14, 3)],
         [(3, 2, 0, 0)] * 4],
        [1, 2, 3],
    )  # fmt: skip
    records, left, bad = everything(config(tmp_path, people="all"))
    first = [(frame, person) for frame, person in records if "000001" in frame]
    assert first == [("unaugmented_set_001/000001.jpg", person) for person in (1, 3, 2, 0)]
    for person, (camera, frame) in enumerate([(6, 4), (6, 1), (2, 3), (6, 2)]):
        record = records["unaugmented_set_001/000001.jpg", person]
        record.check()
        assert record.joints_3d[J24.index("L_Ankle"), :3] == pytest.approx(points[camera, frame, 20] / 1000)
        assert record.joints_3d[J24.index("Pelvis"), :3] == pytest.approx(points[camera, frame, 4] / 1000)
        assert record.intrinsics.tolist() == [[100 + camera, 0, 100], [0, 100, 100], [0, 0, 1]]
        assert (record.has_mesh, record.joints_3d[:, 3].sum()) == (False, 17)
        seen = pixels_of(0, person)
        assert record.keypoints_2d[J24.index("L_Ankle"), :2] == pytest.approx(seen[13])
        low, high = seen.min(0), seen.max(0)  # hands and toes, too
        assert record.box == pytest.approx([*((low + high) / 2 - 0.6 * (high - low)), *(1.2 * (high - low))])
    assert left == {"composite that was not generated": 4}
    said = {item.name: item.problem for item in bad}
    assert "frame 9 of camera 0 of S3/Seq2 is not annotated" in said["muco:unaugmented_set_001/000002.jpg#2"]
    assert "missing" in said["muco:unaugmented_set_001/000002.jpg#3"]
    assert "no person of MPI-INF-3DHP" in said["muco:unaugmented_set_001/000003.jpg#3"]
    assert len(records) == 4 + 2 + 3
    assert [person for _, person in everything(config(tmp_path))[0]] == [1]
    survey = muco.survey(config(tmp_path), OPEN)
    assert (survey.dialect, survey.parameters, survey.missing) == ("generated composites", None, ())
    assert [check.passed for check in survey.checks] == [False, None]  # camera 14


def test_composites_alone_give_joints_in_the_picture(tmp_path: Path) -> None:
    """Who is nearest is told by the rescaled skeletons: 2, 5, 4 and 3 m away, and 3, 2, 5 and 4."""
    write_composites(tmp_path, [[(3, 2, 6, 4)] * 4, [(8, 1, 6, 4)] * 4], [1, 2])
    shutil.rmtree(tmp_path / "S3")
    records, left, bad = everything(config(tmp_path, people="all"))
    assert (left, bad) == ({}, [])
    assert [person for _, person in records] == [0, 3, 2, 1, 1, 0, 3, 2]
    record = records["unaugmented_set_001/000002.jpg", 3]
    record.check()
    assert (record.has_3d, record.intrinsics) == (False, None)
    assert record.keypoints_2d[J24.index("Head"), :2] == pytest.approx(pixels_of(1, 3)[0])
    survey = muco.survey(config(tmp_path), OPEN)
    assert [file.path for file in survey.files] == ["sampled_dataset_info.mat"]
    assert "2D joints alone" in survey.notes[0]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_is_in_the_files_ends_in_records_or_lines(
    tmp_path_factory: pytest.TempPathFactory, people: People, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("junk")
    content, fits = people.content()
    entry = data.draw(st.sampled_from([content["images"][0], content["annotations"][0], fits["102"], content, fits]))
    key = data.draw(st.sampled_from(sorted(entry)))
    value = data.draw(JUNK)
    if isinstance(entry[key], list) and entry is not content and data.draw(st.booleans()):
        entry[key][0] = value
    else:
        entry[key] = value
    write(root, content, fits)
    try:
        records, _, bad = everything(config(root, people="spaced"))
        said = [f"{item.name} {item.problem}" for item in bad]
        assert records or bad or not content["annotations"]
    except MetroError as err:
        said = [str(err)]
    assert all(len(line.splitlines()) == 1 for line in said)
    muco.survey(config(root), OPEN)
