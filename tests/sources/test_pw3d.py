"""3DPW from trees of a few people that are written here, and whose bodies are posed by the layer of training."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
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
from metro.sources import pw3d
from metro.sources.source import Row
from tests.sources import reading

OPEN = BodyConfig()
SIZE = (108, 192)  # portrait
K = np.array([[196.0, 0, 55], [0, 197, 94], [0, 0, 1]])
FRAMES = 3
GENDERS = ("male", "female")


class World:
    """Two actors in three frames, before a camera that turns."""

    def __init__(self) -> None:
        g = np.random.default_rng(3)
        self.R = Rotation.from_euler("xyz", [[170, 20 * k, 10 * k] for k in range(FRAMES)], degrees=True).as_matrix()
        self.pose = g.normal(0, 0.2, (2, FRAMES, 72))
        self.pose[1, 0, :3] = self.pose[0, 1, 69:] = [0, 3.5, 0]  # more than half a turn
        self.betas = g.normal(0, 1.5, (2, 10))
        self.trans = g.normal([[[0.4, 0.2, 0]], [[-0.4, 0.2, 0.3]]], 0.1, (2, FRAMES, 3))
        self.t = np.array([[0.1 * k, 0.2, 4 + 0.1 * k] for k in range(FRAMES)])
        self.vertices, self.smpl24, self.j24 = [], [], []
        for actor, gender in enumerate(GENDERS):
            body = BodyModel(load_body("open", gender), torch.float64)
            inputs = (self.pose[actor], np.tile(self.betas[actor], (FRAMES, 1)), self.trans[actor])
            out = body(*(torch.from_numpy(a) for a in inputs))
            self.vertices.append(out.vertices.numpy())
            self.smpl24.append(out.joints.numpy())
            self.j24.append(body.regress("j24", out.vertices).numpy())

    def seen(self, points: list[np.ndarray], actor: int, k: int) -> np.ndarray:
        return points[actor][k] @ self.R[k].T + self.t[k]

    def content(self) -> dict[str, Any]:
        """The dict of a sequence pickle."""
        cam_poses = np.tile(np.eye(4), (FRAMES, 1, 1))
        cam_poses[:, :3, :3], cam_poses[:, :3, 3] = self.R, self.t
        return {
            "sequence": "street_00",
            "betas": [self.betas[0], np.concatenate([self.betas[1], np.full(290, 9.0)])],
            "poses": [*self.pose.copy()],
            "trans": [*self.trans.copy()],
            "poses_60Hz": [np.repeat(p, 2, 0) for p in self.pose],
            "genders": ["m", "f"],
            "jointPositions": [j.reshape(FRAMES, 72) for j in self.smpl24],
            "poses2d": [np.tile([[30.0, 70] * 9, [40.0, 140] * 9, [0.9] * 18], (FRAMES, 1, 1)) for _ in GENDERS],
            "img_frame_ids": np.array([4, 2, 0]),
            "cam_poses": cam_poses,
            "cam_intrinsics": K.copy(),
            "campose_valid": [np.array([1, 1, 0]), np.array([0, 1, 1])],
        }


@pytest.fixture(scope="module")
def people() -> World:
    return World()


def write(root: Path, content: Any, folder: str = "test", frames: int = FRAMES) -> Path:
    pictures = root / "imageFiles" / "street_00"
    pictures.mkdir(parents=True, exist_ok=True)
    for k in range(frames):
        Image.new("RGB", SIZE).save(pictures / f"image_{k:05d}.jpg")
    path = root / "sequenceFiles" / folder / "street_00.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 2))
    return path


def config(
    root: Path, split: str = "test", gender: str = "own", supervision: str = "mesh", **options: Any
) -> DatasetConfig:
    values = {"source": "pw3d", "root": root, "split": split, "gender": gender, "supervision": supervision}
    return DatasetConfig(**values, options=options)  # type: ignore[arg-type]


def everything(settings: DatasetConfig) -> tuple[dict[tuple[str, int], Record], Counter[str], list[BadRecord]]:
    """Records by number of the picture and person, what was left out, what is bad."""
    records, left, bad = reading.everything(settings)
    return {(record.frame[-9:-4], record.person): record for record in records}, left, bad


def test_people_stand_before_the_camera_as_in_the_world(tmp_path: Path, people: World) -> None:
    """The pivot rule with the actor's own pelvis; row k is picture k; validity is each actor's own; 300 betas."""
    write(tmp_path, people.content())
    records, left, bad = everything(config(tmp_path))
    assert [*records] == [("00000", 0), ("00001", 0), ("00001", 1), ("00002", 1)]
    assert (left, bad) == (Counter({"camera not aligned": 2}), [])
    for (frame, actor), record in records.items():
        k = int(frame)
        record.check()
        assert record.frame == f"imageFiles/street_00/image_{k:05d}.jpg"
        assert (record.gender, record.mesh_origin) == (GENDERS[actor], "mocap")
        body = BodyModel(load_body("open", record.gender), torch.float64)
        parameters = (record.pose_aa, record.betas, record.transl)
        vertices = body(*(torch.from_numpy(np.asarray(a)[None]) for a in parameters)).vertices[0].numpy()
        assert np.abs(vertices - people.seen(people.vertices, actor, k)).max() < 1e-6
        joints = people.seen(people.j24, actor, k)
        assert np.abs(record.joints_3d - np.column_stack([joints, np.ones(24)])).max() < 1e-5
        pixels = joints @ K.T
        assert np.abs(record.keypoints_2d[:, :2] - pixels[:, :2] / pixels[:, 2:]).max() < 2e-3
        assert (record.keypoints_2d[:, 2] == 1).all()
        assert np.linalg.norm(record.pose_aa.reshape(24, 3), axis=1).max() <= np.pi
        assert np.array_equal(record.intrinsics, K)
        # SMPL's own joint of the same place is another point.
        knee = people.seen(people.smpl24, actor, k)[JOINT_SETS["SMPL24"].index("left_knee")]
        assert np.linalg.norm(knee - record.joints_3d[JOINT_SETS["J24"].index("L_Knee"), :3]) > 1e-3


def test_options_take_everybody_or_the_mesh_alone_or_the_neutral_body(tmp_path: Path, people: World) -> None:
    write(tmp_path, people.content())
    records, left, _ = everything(config(tmp_path, camera="all", joints="none", gender="neutral"))
    assert len(records) == 6
    assert not left
    body = BodyModel(load_body("open"), torch.float64)
    record = records["00001", 1]
    assert (record.gender, record.has_2d, record.has_3d) == ("neutral", False, False)
    world = body(*(torch.from_numpy(a) for a in (people.pose[1, 1:2], people.betas[1:], people.trans[1, 1:2])))
    here = body(*(torch.from_numpy(np.asarray(a)[None]) for a in (record.pose_aa, record.betas, record.transl)))
    moved = world.vertices[0].numpy() @ people.R[1].T + people.t[1]
    assert np.abs(here.vertices[0].numpy() - moved).max() < 1e-6


def test_a_body_that_is_missing_is_no_fault_of_the_records(tmp_path: Path, people: World) -> None:
    write(tmp_path, people.content())
    (tmp_path / "open.npz").symlink_to(Path(__file__).parents[2] / "metro/body/data/open.npz")
    alone = BodyConfig(path=tmp_path)
    indexed = [row for row in pw3d.rows(config(tmp_path), alone) if isinstance(row, Row)]
    with pytest.raises(MetroError, match="gender: neutral"):
        list(pw3d.read(config(tmp_path), alone, indexed))
    found = [*pw3d.read(config(tmp_path, gender="neutral"), alone, indexed)]
    assert [type(item) for item in found] == [Record] * 4


@pytest.mark.parametrize("folder", ["validation", "val"])
def test_spellings_of_folders_and_keys(tmp_path: Path, people: World, folder: str) -> None:
    content = people.content()
    for old, new in (("genders", "gender"), ("poses2d", "poses2D")):
        content[new] = content.pop(old)
    write(tmp_path, content, folder)
    assert len(everything(config(tmp_path, "validation"))[0]) == 4
    assert pw3d.survey(config(tmp_path, "validation"), OPEN).files[0].found


def test_boxes_are_around_what_the_picture_shows(tmp_path: Path, people: World) -> None:
    """The picture is portrait. Actor 0 is half beside it, actor 1 wholly; one detection is absurd."""
    content = people.content()
    content["campose_valid"] = [np.ones(FRAMES)] * 2
    content["cam_intrinsics"][0, 2] -= 60
    content["jointPositions"][1] = content["jointPositions"][1] + np.tile([9.0, 0, 0], 24)
    content["trans"][1] = content["trans"][1] + [9.0, 0, 0]
    content["poses2d"][0][0, :, 3] = [4e7, 5, 0.9]
    content["poses2d"][0][1] = 0
    write(tmp_path, content)
    records, left, _ = everything(config(tmp_path))
    pixels = people.seen(people.smpl24, 0, 0) @ content["cam_intrinsics"].T
    pixels = pixels[:, :2] / pixels[:, 2:]
    inside = pixels[(pixels > -0.5).all(1) & (pixels < np.array(SIZE) - 0.5).all(1)]
    assert 3 < len(inside) < 22
    low, high = inside.min(0), inside.max(0)
    assert records["00000", 0].box == pytest.approx([*((low + high) / 2 - 0.6 * (high - low)), *(1.2 * (high - low))])
    assert left == {"no joint inside of the picture": FRAMES}
    records, left, _ = everything(config(tmp_path, box="poses2d"))
    assert records["00000", 0].box == pytest.approx([26, 30, 48, 120])
    assert ("00001", 0) not in records
    assert left == {"no joint inside of the picture": 1}


def test_what_is_wrong_costs_the_records_that_it_is_wrong_with(tmp_path: Path, people: World) -> None:
    content = people.content()
    content["campose_valid"] = [np.ones(FRAMES)] * 2
    content["poses"][0][0, 5] = np.nan
    content["trans"][0][1] += [0, 0.2, 0]  # no longer where its joints are
    content["cam_poses"][2, 0, 0] += 0.1
    content["poses"][1] = np.concatenate([content["poses"][1], np.zeros((2, 72))])
    write(tmp_path, content, frames=1)
    records, _, bad = everything(config(tmp_path))
    assert [*records] == [("00000", 1)]
    said = [f"{item.name} {item.problem} {item.count}" for item in bad]
    for n, word in enumerate(
        ["differ in frames 4", "rotation vectors", "otherwise", "camera is no", "camera is no", "missing"]
    ):
        assert word in said[n], said
    assert all(len(line.splitlines()) == 1 for line in said)


class Calls:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: Calls(), "asks for posix.system"),
        (lambda content: [1, 2], "has no"),
        (lambda content: {**content, "genders": ["m", "?"]}, "genders are other"),
        (lambda content: {**content, "genders": 3}, "damaged"),
        (lambda content: {**content, "poses": content["poses"][:1]}, "poses of 1 actors, genders of 2"),
        (lambda content: {**content, "trans": [[0, 1, 2]] * 2}, "trans is a list"),
        (lambda content: {**content, "betas": [np.zeros(9)] * 2}, "betas are fewer"),
        (lambda content: {**content, "cam_poses": np.zeros((3, 3, 4))}, "shape (3, 3, 4), not N × 4 × 4"),
        (lambda content: {k: v for k, v in content.items() if k != "cam_intrinsics"}, "has no cam_intrinsics"),
    ],
)  # fmt: skip
def test_a_damaged_sequence_is_one_line_and_as_many_records_as_it_has_pictures(
    tmp_path: Path, people: World, damage: Any, said: str
) -> None:
    write(tmp_path, damage(people.content()))
    records, _, bad = everything(config(tmp_path))
    assert not records
    assert [item.count for item in bad] == [FRAMES]
    assert said in bad[0].problem
    assert bad[0].name == "pw3d:sequenceFiles/test/street_00.pkl"


def test_a_cut_pickle_is_one_line(tmp_path: Path, people: World) -> None:
    path = write(tmp_path, people.content())
    path.write_bytes(path.read_bytes()[:-100])
    (_, _, (bad,)) = everything(config(tmp_path))
    assert "damaged" in bad.problem


def test_survey_tells_what_is_there_and_whether_translations_are_as_believed(tmp_path: Path, people: World) -> None:
    (tmp_path / "empty").mkdir()
    nothing = pw3d.survey(config(tmp_path / "empty"), OPEN)
    assert [file.found for file in nothing.files] == [False]
    assert nothing.missing
    content = people.content()
    write(tmp_path, content)
    survey = pw3d.survey(config(tmp_path), OPEN)
    assert (survey.expected, survey.posed, survey.parameters, survey.missing) == (35_515, True, "smpl", ())
    assert [(file.path, file.found) for file in survey.files] == [("sequenceFiles/test/street_00.pkl", True)]
    assert survey.checks[0].passed
    content["trans"][0] = content["trans"][0] * 1.5
    write(tmp_path, content)
    assert not pw3d.survey(config(tmp_path), OPEN).checks[0].passed
    with pytest.raises(MetroError, match="leaves the mesh alone"):
        pw3d.survey(config(tmp_path, supervision="joints_3d", joints="none"), OPEN)


def write_json(root: Path, people: World, name: str = "3DPW_test.json", **changes: Any) -> dict[str, Any]:
    """The COCO-style file of frame 1, whose translation is that of the neutral pelvis, as the real one's is."""
    (root / "imageFiles/street_00").mkdir(parents=True, exist_ok=True)
    annotations = []
    pelves = [load_body("open", g) for g in GENDERS]
    for actor, own in enumerate(pelves):
        j0 = own.J_regressor[0].astype(float) @ (own.v_template + own.shapedirs[..., :10] @ people.betas[actor])
        turn = people.R[1] @ Rotation.from_rotvec(people.pose[actor, 1, :3]).as_matrix()
        annotations.append({
            "id": 70 + actor,
            "image_id": 5,
            "bbox": [10, 20, 30, 100],
            "smpl_param": {
                "shape": people.betas[actor].tolist(),
                "pose": [*Rotation.from_matrix(turn).as_rotvec(), *people.pose[actor, 1, 3:]],
                "trans": (people.R[1] @ (j0 + people.trans[actor, 1]) + people.t[1] - j0).tolist(),
                "gender": GENDERS[actor],
            },
        })  # fmt: skip
    content = {
        "images": [{"id": 5, "sequence": "street_00", "file_name": "image_00001.jpg", "width": 108, "height": 192,
                    "cam_param": {"focal": [196, 197], "princpt": [55, 94]}}],
        "annotations": annotations,
    } | changes  # fmt: skip
    (root / name).write_text(json.dumps(content))
    return content


def test_the_json_file_gives_the_same_people(tmp_path: Path, people: World) -> None:
    content = write_json(tmp_path, people)
    records, _, bad = everything(config(tmp_path))
    assert not bad
    for actor in range(2):
        record = records["00001", 70 + actor]
        record.check()
        assert np.abs(record.joints_3d[:, :3] - people.seen(people.j24, actor, 1)).max() < 1e-5
        pixels = people.seen(people.smpl24, actor, 1) @ K.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        inside = pixels[(pixels > -0.5).all(1) & (pixels < np.array(SIZE) - 0.5).all(1)]
        assert record.box[2:] == pytest.approx(1.2 * np.ptp(inside, axis=0))
    records, _, _ = everything(config(tmp_path, box="json"))
    assert records["00001", 70].box == pytest.approx([7, 10, 36, 120])
    # The pelvis itself where the file tells it: a translation made with another pelvis is mended.
    content["annotations"][1]["smpl_param"]["trans"][0] += 0.03
    content["annotations"][1] |= {"joint_cam": people.seen(people.smpl24, 1, 1).tolist(), "person_id": 1}
    content["annotations"][0]["joint_cam"] = (people.seen(people.smpl24, 0, 1) + 0.3).tolist()
    (tmp_path / "3DPW_test.json").write_text(json.dumps(content))
    records, _, (apart,) = everything(config(tmp_path))
    assert np.abs(records["00001", 1].joints_3d[:, :3] - people.seen(people.j24, 1, 1)).max() < 1e-5
    assert "apart" in apart.problem


def test_the_json_file_is_read_where_it_is_asked_for_or_alone(tmp_path: Path, people: World) -> None:
    write_json(tmp_path, people)
    assert pw3d.survey(config(tmp_path), OPEN).files[0].path == "3DPW_test.json"
    with pytest.raises(MetroError, match="neither detected joints nor"):
        pw3d.survey(config(tmp_path, camera="all"), OPEN)
    write(tmp_path, people.content())
    assert pw3d.survey(config(tmp_path), OPEN).dialect == "sequence pickles"
    assert pw3d.survey(config(tmp_path, box="json"), OPEN).dialect == "COCO-style JSON"
    (tmp_path / "3DPW_test.json").unlink()
    assert not pw3d.survey(config(tmp_path, box="json"), OPEN).files[0].found


def test_entries_of_the_json_file_that_are_none(tmp_path: Path, people: World) -> None:
    content = write_json(tmp_path, people)
    first, second = content["annotations"]
    broken = [
        first,
        first,
        {**second, "image_id": 6},
        {**second, "bbox": [1, 2, 3]},
        {**second, "smpl_param": {**second["smpl_param"], "pose": [float("nan")] * 72}},
        {**second, "smpl_param": {**second["smpl_param"], "gender": "x"}},
        {"id": 3},
        [4],
        {**second, "image_id": 7},
    ]
    outside = {**content["images"][0], "id": 7, "sequence": "../../etc"}
    write_json(tmp_path, people, annotations=broken, images=[*content["images"], outside, {"id": 8}])
    records, _, bad = everything(config(tmp_path))
    assert len(records) == 1
    assert [item.name for item in bad] == [f"pw3d:3DPW_test.json, annotation {n}" for n in range(1, 9)]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["focal", "pose", "a"]), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_whatever_is_in_the_files_ends_in_records_or_lines(
    tmp_path_factory: pytest.TempPathFactory, people: World, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("junk")
    content = people.content() if data.draw(st.booleans()) else None
    if content:
        junk = JUNK | st.sampled_from(
            [np.zeros(0), np.full((3, 72), np.inf), np.array(["a"]), np.full((3, 4, 4), 1e200)]
        )
        key = data.draw(st.sampled_from(sorted(content)))
        value = data.draw(junk)
        content[key] = (
            [value, content[key][1]] if isinstance(content[key], list) and data.draw(st.booleans()) else value
        )
        write(root, content)
    else:
        made = write_json(root, people)
        entry = made[data.draw(st.sampled_from(["images", "annotations"]))][0]
        entry = data.draw(st.sampled_from([entry, *(v for v in entry.values() if isinstance(v, dict))]))
        entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(JUNK)
        (root / "3DPW_test.json").write_text(json.dumps(made))
    records, _, bad = everything(config(root))
    for record in records.values():
        with suppress(MetroError):
            record.check()
    assert all(item.problem and item.count > 0 for item in bad)
