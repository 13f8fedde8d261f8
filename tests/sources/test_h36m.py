"""Human3.6M: trees of a few numbers in the layouts of the set, and the traps in them."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cdflib.cdfwrite
import cv2
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.sources import h36m, h36m_files
from metro.sources.bodies import Bodies
from metro.sources.source import Row

CAMERAS = ("54138969", "55011271", "58860488", "60457274")
PICKED = [11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]
NAMES = (
    *("Pelvis", "L_Hip", "L_Knee", "L_Ankle", "R_Hip", "R_Knee", "R_Ankle", "Spine", "Neck", "Jaw", "Head"),
    *("L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist"),
)
IN_J24 = [JOINT_SETS["J24"].index(name) for name in NAMES]
BODY = BodyConfig()
LENS = np.array([[115.0, 114.0, 51.0, 50.0, -0.2, 0.24, -0.19, -0.9, 0.8]] * 4) + np.arange(4)[:, None] * 0.01


def placed(camera: int, subject: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angles, rotation and position (mm) of a camera that looks at the middle of the room, apart for every subject."""
    heading = 0.4 + 1.5 * camera + 0.02 * subject
    position = np.array([4000 * np.cos(heading), 4000 * np.sin(heading), 1500.0 + 10 * subject])
    forward = np.array([0, 0, 1000.0]) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Rotation.from_matrix(rotation).as_euler("XYZ"), rotation, position


def through_the_lens(points_N3: np.ndarray, camera: int, tangential: float = 1) -> np.ndarray:
    """Pixels by the set's formula; `tangential` 2 is OpenCV's."""
    fx, fy, cx, cy, k1, k2, k3, p1, p2 = LENS[camera]
    x, y = (points_N3[..., :2] / points_N3[..., 2:]).T
    r = x**2 + y**2
    radial = 1 + k1 * r + k2 * r**2 + k3 * r**3
    seen_x = x * (radial + tangential * (p1 * y + p2 * x)) + p2 * r
    seen_y = y * (radial + tangential * (p1 * y + p2 * x)) + p1 * r
    return np.stack([fx * seen_x + cx, fy * seen_y + cy]).T


def write_cdf(path: Path, values: np.ndarray) -> None:
    """A `Pose` of 1 × T × D floats."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = cdflib.cdfwrite.CDF(path, delete=True)
    spec = {"Variable": "Pose", "Data_Type": file.CDF_FLOAT, "Num_Elements": 1, "Rec_Vary": True}
    file.write_var(spec | {"Dim_Sizes": list(values.shape)}, var_data=values[None].astype(np.float32))
    file.close()


def write_video(path: Path, frames: int, size: tuple[int, int]) -> None:
    """Frame k is of one grey, 10 + 16 k, from 13 on again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 50, size)
    for k in range(frames):
        film.write(np.full((size[1], size[0], 3), 10 + 16 * (k % 13), np.uint8))
    film.release()


@dataclass
class Tree:
    """Raw data of some takes: (subject, action, subaction) to name. All is written when `write` is called."""

    root: Path
    takes: dict[tuple[int, int, int], str] = field(default_factory=lambda: {(1, 2, 1): "Directions 1"})
    frames: int = 13
    cameras: Many[int] = range(4)

    def size(self, subject: int, camera: int) -> tuple[int, int]:
        """Width and height."""
        return 100, 102 if subject in (4, 7, 10) or camera in (0, 3) else 100

    def world(self, subject: int, action: int) -> np.ndarray:
        """Joints (T, 32, 3), mm: those that are equal in the set are equal here."""
        rng = np.random.default_rng([subject, action])
        joints = rng.normal([0, 0, 1000], [250, 250, 450], (32, 3)) + np.arange(self.frames)[:, None, None] * [9, 4, 1]
        joints[:, 0], joints[:, [13, 16]] = joints[:, 11], joints[:, [24]]
        return joints

    def seen(self, subject: int, camera: int, world: np.ndarray) -> np.ndarray:
        """Joints in the camera frame, mm."""
        _, rotation, position = placed(camera, subject)
        return (world - position) @ rotation.T

    def write_metadata(self, all_actions: bool = True) -> None:
        """With the actions in the order of the set, the names, the sizes and 300 numbers."""
        subjects = sorted({s for s, _, _ in self.takes})
        rows = [["Action", "subaction", *(f"S{s}" for s in subjects)]]
        if all_actions:
            rows += [["1", "1", *("_ALL 1" for _ in subjects)], ["1", "2", *("_ALL" for _ in subjects)]]
        for place in sorted({(a, b) for _, a, b in self.takes}):
            rows.append([*map(str, place), *(self.takes[s, *place] for s in subjects)])
        rows.append(["Action", "subaction", *("Somebody" for _ in subjects)])
        sizes = [";".join(f"{h} {w}" for w, h in (self.size(s, c) for c in range(4))) for s in subjects]
        rows.append(["", "", *(f"[{text}]" for text in sizes)])
        table = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        outer = [n for c in range(4) for s in range(1, 12) for n in (*placed(c, s)[0], *placed(c, s)[2])]
        numbers = " ".join(map(repr, map(float, [*outer, *LENS.ravel()])))
        self.root.mkdir(parents=True, exist_ok=True)
        text = f"<?xml version='1.0'?><a><mapping>{table}</mapping><w0>[{numbers}]</w0></a>"
        (self.root / "metadata.xml").write_text(text)

    def write(self, poses: str = "S{s}/MyPoseFeatures/{kind}", videos: bool = True, only: Many[str] = ()) -> Tree:
        """Everything of the site but masks; `only` names the films that there are."""
        self.write_metadata()
        for (subject, action, _), name in self.takes.items():
            world = self.world(subject, action)
            for camera in self.cameras:
                seen, stem = self.seen(subject, camera, world), f"{name}.{CAMERAS[camera]}"
                folders = {kind: self.root / poses.format(s=subject, kind=kind) for kind in ("D2_Positions",)}
                mono = self.root / poses.format(s=subject, kind="D3_Positions_mono")
                write_cdf(mono / f"{stem}.cdf", seen.reshape(self.frames, 96))
                pixels = through_the_lens(seen / 1000, camera)
                write_cdf(folders["D2_Positions"] / f"{stem}.cdf", pixels.reshape(self.frames, 64))
                if videos and (not only or stem in only):
                    write_video(self.root / f"S{subject}/Videos/{stem}.mp4", self.frames, self.size(subject, camera))
        return self


def config(root: Path, **more: Any) -> DatasetConfig:
    options = {name: more.pop(name) for name in tuple(more) if name not in DatasetConfig.model_fields}
    split = "train" if options.get("protocol", "train") == "train" else "test"
    return DatasetConfig(**{"source": "h36m", "root": root, "split": split, "options": options} | more)


def rows_of(root: Path, **more: Any) -> tuple[list[Row], dict[str, int], list[BadRecord]]:
    rows, left, bad = [], {}, []
    for row in h36m.rows(config(root, **more), BODY):
        if isinstance(row, Left):
            left[row.reason] = left.get(row.reason, 0) + row.count
        elif isinstance(row, BadRecord):
            bad.append(row)
        else:
            rows.append(Row(*json.loads(json.dumps(row))))
    return rows, left, bad


def records_of(root: Path, **more: Any) -> tuple[list[Record], list[BadRecord]]:
    rows, _, bad = rows_of(root, **more)
    found = list(h36m.read(config(root, **more), BODY, rows))
    records = [record for record in found if isinstance(record, Record)]
    for record in records:
        record.check()
    return records, [*bad, *(record for record in found if isinstance(record, BadRecord))]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """S1, one action, four cameras."""
    return Tree(tmp_path_factory.mktemp("h36m")).write()


def test_a_record_holds_what_the_files_say_of_its_frame(tree: Tree) -> None:
    rows, left, bad = rows_of(tree.root)
    assert ([row.labels[0] for row in rows], bad) == ([0, 5, 10] * 4, [])
    assert left == {"not one of every 5 frames": 40}
    records, _ = records_of(tree.root)
    world = tree.world(1, 2)
    for number, record in enumerate(records):
        camera, k = number // 3, 5 * (number % 3)
        assert record.name == f"h36m:S1/Videos/Directions 1.{CAMERAS[camera]}.mp4@{k}#0"
        assert abs(float(np.mean(record.image)) - (10 + 16 * k)) < 6  # the frame itself, not the one before or after
        assert np.shape(record.image)[:2] == (102 if camera in (0, 3) else 100, 100)
        seen = tree.seen(1, camera, world)[k, PICKED] / 1000
        assert np.abs(record.joints_3d[IN_J24, :3] - seen).max() < 1e-6
        assert np.abs(record.keypoints_2d[IN_J24, :2] - through_the_lens(seen, camera)).max() < 1e-4
        others = np.setdiff1d(np.arange(24), IN_J24)
        for labels in (record.joints_3d, record.keypoints_2d):
            assert not labels[others].any()
            assert (labels[IN_J24, -1] == 1).all()
        fx, fy, cx, cy, k1, k2, k3, p1, p2 = LENS[camera]
        assert np.array_equal(record.intrinsics, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        assert np.array_equal(record.distortion, [k1, k2, p1, p2, k3, 0, 0, 0])
        assert (record.lens, record.gender, record.has_mesh) == ("h36m", "neutral", False)
        low, high = (f(through_the_lens(seen, camera), 0) for f in (np.min, np.max))
        assert np.abs(record.box - [*(low + high) / 2 - 0.6 * (high - low), *1.2 * (high - low)]).max() < 1e-3


def test_cameras_vary_slowly_in_w0_and_turn_by_x_then_y_then_z(tree: Tree) -> None:
    metadata = h36m_files.read_metadata(tree.root)
    subject_major = metadata.placed.reshape(11, 4, 6)
    for camera, subject in [(1, 1), (2, 5), (0, 11)]:
        metadata.sizes[subject] = metadata.sizes[1]
        found = metadata.camera(h36m_files.Sequence(subject, 2, 1, "Directions 1", camera))
        angles, rotation, position = placed(camera, subject)
        assert np.abs(found.rotation_33 - rotation).max() < 1e-12
        assert np.abs(found.translation_3 + rotation @ position / 1000).max() < 1e-12
        assert np.abs(Rotation.from_euler("xyz", angles).as_matrix() - rotation).max() > 0.1
        assert np.abs(subject_major[subject - 1, camera, 3:] - position).max() > 5


def test_joints_through_another_lens_or_skeleton_are_refused(tmp_path: Path) -> None:
    tree = Tree(tmp_path, cameras=[0, 1]).write()
    seen = tree.seen(1, 0, tree.world(1, 2)) / 1000
    path = tmp_path / f"S1/MyPoseFeatures/D2_Positions/Directions 1.{CAMERAS[0]}.cdf"
    wrong = through_the_lens(seen * [3, 3, 1], 0, tangential=2)
    write_cdf(path, wrong.reshape(-1, 64))
    universal = tree.seen(1, 1, tree.world(1, 2) * 1.1)
    folder = tmp_path / "S1/MyPoseFeatures/D3_Positions_mono_universal"
    write_cdf(folder / f"Directions 1.{CAMERAS[1]}.cdf", universal.reshape(-1, 96))
    records, bad = records_of(tmp_path)
    assert len([one for one in bad if "from where the lens shows its 3D joints" in one.problem]) == 3
    assert [record.frame.partition("@")[0] for record in records] == [f"S1/Videos/Directions 1.{CAMERAS[1]}.mp4"] * 3
    (folder / f"Directions 1.{CAMERAS[1]}.cdf").rename(
        tmp_path / f"S1/MyPoseFeatures/D3_Positions_mono/Directions 1.{CAMERAS[1]}.cdf"
    )
    assert not records_of(tmp_path)[0]


def test_sizes_are_those_of_the_subject(tmp_path: Path) -> None:
    takes = {(1, 2, 1): "Directions 1", (7, 2, 1): "Directions 1"}
    tree = Tree(tmp_path, takes, cameras=[1]).write()
    records, bad = records_of(tmp_path)
    assert [np.shape(record.image)[0] for record in records] == [100] * 3 + [102] * 3
    assert not bad
    write_video(tmp_path / f"S7/Videos/Directions 1.{CAMERAS[1]}.mp4", tree.frames, (100, 100))
    records, bad = records_of(tmp_path)
    assert len(records) == 3
    assert "100 × 100 pixels, by metadata.xml 100 × 102" in bad[-1].problem


def test_names_are_those_of_the_mapping(tmp_path: Path) -> None:
    takes = {(1, 12, 1): "TakingPhoto 1", (1, 15, 2): "WalkingDog", (5, 12, 1): "Photo", (5, 15, 2): "WalkDog"}
    Tree(tmp_path, takes, cameras=[0]).write(videos=False)
    for name in ("S1/Videos/WalkingDog", "S1/Videos/_ALL 1", "S5/Videos/Photo", "S5/Videos/WalkingDog"):
        write_video(tmp_path / f"{name}.{CAMERAS[0]}.mp4", 13, (100, 102))
    rows, _, bad = rows_of(tmp_path)
    assert sorted({row.group for row in rows}) == [f"S1/WalkingDog.{CAMERAS[0]}", f"S5/Photo.{CAMERAS[0]}"]
    missing = [one.name for one in bad if "are missing" in one.problem]
    assert missing == [f"h36m:S1/TakingPhoto 1.{CAMERAS[0]}", f"h36m:S5/WalkDog.{CAMERAS[0]}"]


@pytest.mark.parametrize(
    ("shown", "posed", "taken", "reason"),
    [
        (11, 10, [0, 5], "frame after the end of the poses"),
        (10, 11, [0, 5], "frame after the end of the video"),
        (6, 40, [0, 5], None),
    ],
)
def test_frames_are_those_that_video_and_poses_both_have(
    tmp_path: Path, shown: int, posed: int, taken: list[int], reason: str | None
) -> None:
    tree = Tree(tmp_path, frames=posed, cameras=[0]).write(videos=False)
    write_video(tmp_path / f"S1/Videos/Directions 1.{CAMERAS[0]}.mp4", shown, tree.size(1, 0))
    tree.write_metadata()
    rows, left, bad = rows_of(tmp_path)
    assert [row.labels[0] for row in rows] == taken
    if reason:
        assert left[reason] == 1
    else:
        assert (bad[0].count, bad[0].problem) == (6, "its pictures end after 6 of 40 frames")


@pytest.mark.parametrize("fault", ["keep", "drop", "correct"])
def test_the_shifted_actions_of_s9(tmp_path: Path, fault: str) -> None:
    takes = {(9, 5, 1): "Greeting 1", (9, 5, 2): "Greeting", (11, 5, 1): "Greeting 2", (11, 5, 2): "Greeting"}
    tree = Tree(tmp_path, takes, cameras=[3]).write()
    more = {"protocol": "p2_graphcmr", "s9_faults": fault}
    rows, left, _ = rows_of(tmp_path, **more)
    records, bad = records_of(tmp_path, **more)
    assert not bad
    assert left.get("S9 action whose joints are shifted", 0) == (3 if fault == "drop" else 0)
    faulty = [record for record in records if "S9/Videos/Greeting." in record.frame]
    assert (len(rows), len(faulty)) == ((9, 0) if fault == "drop" else (12, 3))
    for record, k in zip(faulty, (0, 5, 10), strict=False):
        world = tree.world(9, 5)[k, PICKED] - [200 if fault == "correct" else 0, 0, 0]
        seen = tree.seen(9, 3, world) / 1000
        assert np.abs(record.joints_3d[IN_J24, :3] - seen).max() < 1e-6
        assert np.abs(record.keypoints_2d[IN_J24, :2] - through_the_lens(seen, 3)).max() < 1e-4
        low, high = (f(through_the_lens(seen, 3), 0) for f in (np.min, np.max))
        assert np.abs(record.box[:2] + record.box[2:] / 2 - (low + high) / 2).max() < 1e-3
    for subject, name in ((9, "Greeting 1"), (11, "Greeting")):
        right = next(record for record in records if f"S{subject}/Videos/{name}." in record.frame)
        seen = tree.seen(subject, 3, tree.world(subject, 5)[0, PICKED]) / 1000
        assert np.abs(right.joints_3d[IN_J24, :3] - seen).max() < 1e-6


def test_a_lost_video_loses_its_camera_alone(tmp_path: Path) -> None:
    takes = {(9, 2, 1): "Directions", (11, 2, 1): "Directions"}
    tree = Tree(tmp_path, takes, cameras=[0, 1]).write()
    lost = tmp_path / f"S11/Videos/Directions.{CAMERAS[0]}.mp4"
    lost.unlink()
    rows, _, bad = rows_of(tmp_path, protocol="p1")
    name = f"h36m:S11/Directions.{CAMERAS[0]}"
    assert [one.count for one in bad if one.name == name] == [3]
    assert len(rows) == 9
    found = h36m.survey(config(tmp_path, protocol="p1"), BODY)
    assert not found.missing
    assert any(note.startswith(name.removeprefix("h36m:")) for note in found.notes)
    lost.write_bytes(b"cut off")
    _, _, bad = rows_of(tmp_path, protocol="p1")
    assert [one.count for one in bad if one.name == name] == [3]
    assert tree.frames == 13


@pytest.mark.parametrize("factor", [0.9, 1.0])
def test_boxes_of_masks(tree: Tree, tmp_path: Path, factor: float) -> None:
    root = Tree(tmp_path, cameras=[0]).write().root
    path = root / f"S1/MySegmentsMat/ground_truth_bb/Directions 1.{CAMERAS[0]}.mat"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        places = file.create_dataset("Masks", (13, 1), h5py.ref_dtype)
        places.attrs["MATLAB_class"] = np.bytes_("cell")
        for k in range(13):
            mask = np.zeros((100, 102), np.uint8)  # width × height
            if k != 10:
                mask[20:40, 50 + k : 90 + k] = 1
            stored = file.create_dataset(f"#refs#/{k}", data=mask)
            stored.attrs["MATLAB_class"] = np.bytes_("uint8")
            places[k, 0] = stored.ref
    records, bad = records_of(root, box=f"mask_{factor}")
    assert len(records) == 2
    for record, k in zip(records, (0, 5), strict=True):
        width, height = 20 * factor, 40 * factor
        assert np.allclose(record.box, [29.5 - width / 2, 69.5 + k - height / 2, width, height])
    assert [one.problem for one in bad if "@10" in one.name] == ["its mask is empty"]
    path.write_bytes(path.read_bytes()[:3000])
    records, bad = records_of(root, box=f"mask_{factor}")
    assert not records
    assert all(one.problem.count("\n") == 0 for one in bad)


def fitted_tree(
    root: Path,
    change: Any = None,
    name: str = "Human36M_subject1_smpl_param.json",
    take: tuple[int, int, int] = (1, 2, 1),
) -> tuple[Tree, Any]:
    """A tree whose joints in the world are those of a body, with that body as the fit of frames 0, 5 and 10."""
    tree = Tree(root, {take: "Greeting" if take[0] == 9 else "Directions 1"}, cameras=[0, 2])
    rng = np.random.default_rng(3)
    pose, betas = rng.normal(0, 0.2, (13, 72)), np.tile(rng.normal(0, 1, 10), (13, 1))
    upright = Rotation.from_euler("x", 90, degrees=True)
    turned = Rotation.from_euler("z", np.linspace(20, 160, 13)[:, None], degrees=True)
    pose[:, :3] = (turned * upright).as_rotvec()
    transl = np.array([0.3, -0.2, 1.1]) + np.arange(13)[:, None] * [0.01, 0, 0]
    bodies = Bodies(config(root), BODY)
    joints = np.zeros((13, 32, 3))
    joints[:, PICKED] = 1000 * bodies.joints("neutral", pose, betas, transl)[:, IN_J24]
    tree.world = lambda subject, action: joints  # type: ignore[method-assign]
    tree.write()
    fits = {
        str(k): {"pose": pose[k].tolist(), "shape": betas[k].tolist(), "trans": (1000 * transl[k]).tolist()}
        for k in (0, 5, 10)
    }
    if change:
        change(fits)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(json.dumps({str(take[1]): {str(take[2]): fits}}))
    vertices = bodies.vertices("neutral", pose, betas, transl)
    return tree, vertices


def camera_vertices(tree: Tree, camera: int, vertices: np.ndarray) -> np.ndarray:
    return tree.seen(1, camera, 1000 * vertices) / 1000


def posed(root: Path, record: Record) -> np.ndarray:
    given = (np.asarray(value)[None] for value in (record.pose_aa, record.betas, record.transl))
    return Bodies(config(root), BODY).vertices("neutral", *given)[0]


@pytest.mark.parametrize(
    "inside", ["Human36M_subject1_smpl_param.json", "annotations/Human36M_subject1_smpl_param.json"]
)
def test_fits_come_into_the_camera_frame_about_their_pelvis(tmp_path: Path, inside: str) -> None:
    tree, vertices = fitted_tree(tmp_path, name=inside)
    records, _ = records_of(tmp_path)
    assert len(records) == 6
    for n, record in enumerate(records):
        wanted = camera_vertices(tree, (0, 2)[n // 3], vertices[5 * (n % 3)])
        assert np.abs(posed(tmp_path, record) - wanted).max() < 1e-5
        assert (record.mesh_origin, record.gender) == ("fit", "neutral")
        assert record.fit_error < 1e-5
        assert np.linalg.norm(record.pose_aa.reshape(-1, 3), axis=1).max() <= np.pi + 1e-9
    assert not any(record.has_mesh for record in records_of(tmp_path, supervision="joints_3d")[0])


def test_fits_to_shifted_joints_move_with_them(tmp_path: Path) -> None:
    tree, vertices = fitted_tree(tmp_path, name="Human36M_subject9_smpl_param.json", take=(9, 5, 2))
    for fault, shift in (("keep", 0), ("correct", 200)):
        records, _ = records_of(tmp_path, protocol="p1", s9_faults=fault)
        wanted = tree.seen(9, 0, 1000 * vertices[5] - [shift, 0, 0]) / 1000
        assert np.abs(posed(tmp_path, records[1]) - wanted).max() < 1e-5


def test_fits_in_metres_are_recognised_and_named(tmp_path: Path) -> None:
    def in_metres(fits: dict[str, Any]) -> None:
        for fit in fits.values():
            fit["trans"] = [n / 1000 for n in fit["trans"]]

    tree, vertices = fitted_tree(tmp_path, in_metres)
    records, _ = records_of(tmp_path)
    assert np.abs(posed(tmp_path, records[0]) - camera_vertices(tree, 0, vertices[0])).max() < 1e-5
    unit = h36m.survey(config(tmp_path), BODY).checks[-1]
    assert (unit.passed, unit.what) == (False, "translations of fits are in millimetres")


def test_fits_that_are_missing_broken_or_far_off_leave_the_joints(tmp_path: Path) -> None:
    def change(fits: dict[str, Any]) -> None:
        del fits["0"]
        fits["5"]["shape"][3] = float("nan")
        fits["10"]["pose"][50] += 2.5  # an arm

    fitted_tree(tmp_path, change)
    records, bad = records_of(tmp_path)
    assert [record.has_mesh for record in records] == [False] * 6
    assert not [one for one in bad if "55011271" not in one.name and "60457274" not in one.name]
    assert all((record.joints_3d[IN_J24, 3] == 1).all() for record in records)
    loose, _ = records_of(tmp_path, max_fit_error=1.0)
    assert [record.has_mesh for record in loose] == [False, False, True] * 2


def test_a_shape_too_far_from_the_mean_becomes_the_mean(tmp_path: Path) -> None:
    tree, _ = fitted_tree(tmp_path, lambda fits: fits["5"]["shape"].__setitem__(8, 3.2))
    usual, _ = records_of(tmp_path, max_fit_error=1.0)
    kept, _ = records_of(tmp_path, max_fit_error=1.0, max_beta=4.0)
    assert not usual[1].betas.any()
    assert kept[1].betas[8] == 3.2
    assert usual[0].betas.any()
    fit = json.loads((tmp_path / "Human36M_subject1_smpl_param.json").read_text())["2"]["1"]["5"]
    pose, transl = np.array([fit["pose"]]), np.array([fit["trans"]]) / 1000
    vertices = Bodies(config(tmp_path), BODY).vertices("neutral", pose, np.zeros((1, 10)), transl)[0]
    assert np.abs(posed(tmp_path, usual[1]) - camera_vertices(tree, 0, vertices)).max() < 1e-5


def test_fits_are_of_the_subject_in_the_name_of_their_file(tmp_path: Path) -> None:
    fitted_tree(tmp_path, name="Human36M_subject11_smpl_param.json")
    assert not any(record.has_mesh for record in records_of(tmp_path)[0])
    path = tmp_path / "Human36M_subject11_smpl_param.json"
    fits = json.loads(path.read_text())
    path.rename(tmp_path / "Human36M_subject1_smpl_param.json").write_text(json.dumps({"1": fits}))
    assert all(record.has_mesh for record in records_of(tmp_path)[0])
    (tmp_path / "Human36M_subject1_smpl_param.json").write_text(json.dumps({"11": fits}))
    with pytest.raises(MetroError, match="fits of subject 11"):
        rows_of(tmp_path)


def test_bodies_of_mosh_are_turned_and_have_no_translation(tmp_path: Path) -> None:
    tree, vertices = fitted_tree(tmp_path)
    fits = json.loads((tmp_path / "Human36M_subject1_smpl_param.json").read_text())["2"]["1"]
    (tmp_path / "Human36M_subject1_smpl_param.json").unlink()
    _, rotation, _ = placed(2, 1)
    poses = np.array([fits[k]["pose"] for k in ("0", "5", "10")])
    root = Rotation.from_matrix(rotation) * Rotation.from_rotvec(poses[:, :3]) * Rotation.from_euler("x", np.pi)
    poses[:, :3] = root.as_rotvec()
    stored = {"new_poses": poses, "betas": np.array(fits["0"]["shape"])}
    (tmp_path / "S1/Directions 1_cam2_aligned.pkl").write_bytes(pickle.dumps(stored, protocol=2))
    records, _ = records_of(tmp_path)
    assert [record.mesh_origin for record in records] == ["none"] * 3 + ["mocap"] * 3
    assert all(record.transl is None for record in records)
    for k, record in zip((0, 5, 10), records[3:], strict=True):
        record.transl = np.zeros(3)
        found, wanted = posed(tmp_path, record), camera_vertices(tree, 2, vertices[k])
        assert np.abs((found - found.mean(0)) - (wanted - wanted.mean(0))).max() < 1e-5
    (tmp_path / "S1/Directions 1_cam2_aligned.pkl").write_bytes(pickle.dumps(print))
    assert any("refused" in one.problem and one.count == 3 for one in records_of(tmp_path)[1])


POSES = ("S{s}/MyPoseFeatures/{kind}", "S{s}/Poses_{kind}", "s{s}/{kind}")
PICTURES = {
    "S1/S1_Directions_1.54138969/S1_Directions_1.54138969_{:06d}.jpg": 1,
    "images/S1/S1_Directions_1.54138969/S1_Directions_1.54138969_{:06d}.jpg": 1,
    "images/S1_Directions_1.54138969_{:06d}.jpg": 1,
    "S1/Images/Directions 1.54138969/frame_{:06d}.jpg": 0,
    "s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_{:06d}.jpg": 1,
}


@pytest.mark.parametrize("number", range(len(PICTURES)))
def test_extracted_trees_and_frames(tmp_path: Path, number: int) -> None:
    pattern, first = [*PICTURES.items()][number]
    Tree(tmp_path, frames=11, cameras=[0]).write(POSES[number % 3], videos=False)
    for k in (0, 10):
        path = tmp_path / pattern.format(k + first)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((102, 100, 3), 10 + k, np.uint8))
    rows, _, _ = rows_of(tmp_path)
    assert [row.frame for row in rows] == [pattern.format(k + first) for k in (0, 5, 10)]
    records, bad = records_of(tmp_path)
    assert [record.image for record in records] == [tmp_path / pattern.format(k + first) for k in (0, 10)]
    assert len([one for one in bad if "missing" in one.problem and one.name.startswith("h36m:" + rows[1].frame)]) == 1
    (tmp_path / pattern.format(10 + first)).unlink()
    rows, left, _ = rows_of(tmp_path)
    assert left["frame after the end of the video"] == 2


@pytest.mark.parametrize(
    ("options", "subjects", "cameras", "frames"),
    [
        ({}, {1}, 4, [0, 5, 65, 125]),
        ({"step": 25}, {1}, 4, [0, 25, 125]),
        ({"protocol": "p1"}, {9, 11}, 4, [0, 5, 125]),
        ({"protocol": "p2_graphcmr"}, {9, 11}, 1, [0, 5, 125]),
        ({"protocol": "p2_i2l"}, {9, 11}, 1, [0, 64, 128]),
        ({"protocol": "p2_every64"}, {9, 11}, 4, [0, 64, 128]),
    ],
)
def test_protocols(
    tmp_path: Path, options: dict[str, Any], subjects: set[int], cameras: int, frames: list[int]
) -> None:
    takes = dict.fromkeys([(s, 2, 1) for s in (1, 9, 11)], "Directions")
    Tree(tmp_path, takes, frames=130).write(videos=False)
    for s in (1, 9, 11):
        for camera in CAMERAS:
            write_video(tmp_path / f"S{s}/Videos/Directions.{camera}.mp4", 130, (16, 16))
    rows, _, bad = rows_of(tmp_path, **options)
    assert not bad
    assert {int(row.group[1:].partition("/")[0]) for row in rows} == subjects
    used = {row.group.rpartition(".")[2] for row in rows}
    assert used == (set(CAMERAS) if cameras == 4 else {"60457274"})
    assert set(frames) <= {row.labels[0] for row in rows} <= set(range(0, 130, frames[1]))


def test_survey_tells_what_is_there_from_names(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    read_pose = h36m_files.read_pose
    monkeypatch.setattr(h36m_files, "read_pose", lambda path: opened.append(path) or read_pose(path))
    found = h36m.survey(config(tree.root), BODY)
    assert len(opened) <= 3
    assert (found.dialect, found.expected, found.missing, found.parameters) == ("videos", 312_188, (), None)
    assert sum(file.found for file in found.files) == len(found.files) == 1 + 2 * 4
    assert [check.passed for check in found.checks] == [True, True]
    assert h36m.survey(config(tree.root, s9_faults="drop"), BODY).expected is None
    missing = h36m.survey(config(tree.root, box="mask_0.9"), BODY).files[-1]
    assert (missing.origin, missing.found) == ("Segments_mat_gt_bb_S1.tgz", False)
    assert not h36m.survey(config(tmp_path), BODY).files[0].found
    bare = Tree(tmp_path)
    bare.write_metadata()
    found = h36m.survey(config(tmp_path), BODY)
    lacking = {file.path: file.origin for file in found.files if not file.found}
    assert lacking["S1/MyPoseFeatures/D3_Positions_mono"] == "Poses_D3_Positions_mono_S1.tgz"
    assert "Videos_S1.tgz" in found.missing[0]
    (tmp_path / "S1/Videos").mkdir(parents=True)
    (tmp_path / f"S1/Videos/Directions 1.{CAMERAS[1]}.mp4").touch()
    found = h36m.survey(config(tmp_path), BODY)
    assert not found.missing
    assert "S1/MyPoseFeatures/D2_Positions" in {file.path for file in found.files if not file.found}
    assert "S1: 3 sequences of the protocol are not here, and are not made" in found.notes
    with pytest.raises(MetroError, match="different subjects"):
        h36m.survey(config(tmp_path, protocol="p1", split="train"), BODY)


def test_world_joints_are_compared_where_there_are_any(tmp_path: Path) -> None:
    tree = Tree(tmp_path, cameras=[0]).write()
    path = tmp_path / "S1/MyPoseFeatures/D3_Positions/Directions 1.cdf"
    for shift, passed in ((0, True), (30, False)):
        write_cdf(path, (tree.world(1, 2) + shift).reshape(-1, 96))
        assert h36m.survey(config(tmp_path), BODY).checks[1].passed is passed


def test_damaged_pose_files_cost_their_camera(tmp_path: Path) -> None:
    tree = Tree(tmp_path, cameras=[0, 1, 2]).write()
    folder = tmp_path / "S1/MyPoseFeatures"
    for kind, camera in (("D3_Positions_mono", 0), ("D2_Positions", 1)):
        path = folder / kind / f"Directions 1.{CAMERAS[camera]}.cdf"
        path.write_bytes(path.read_bytes()[:-200])
    seen = tree.seen(1, 2, tree.world(1, 2))
    seen[5, 25], seen[10] = np.nan, np.nan
    write_cdf(folder / f"D3_Positions_mono/Directions 1.{CAMERAS[2]}.cdf", seen.reshape(-1, 96))
    pixels = through_the_lens(seen / 1000, 2)
    write_cdf(folder / f"D2_Positions/Directions 1.{CAMERAS[2]}.cdf", pixels.reshape(-1, 64))
    records, bad = records_of(tmp_path)
    counts = {one.name.rpartition("/")[2]: one.count for one in bad}
    assert counts[f"Directions 1.{CAMERAS[0]}"] == counts[f"Directions 1.{CAMERAS[1]}"] == 3
    assert [record.frame.rpartition("@")[2] for record in records] == ["0", "5"]
    shoulder = JOINT_SETS["J24"].index("R_Shoulder")
    assert not records[1].joints_3d[shoulder].any()
    assert not records[1].keypoints_2d[shoulder].any()
    assert records[0].joints_3d[shoulder].all()
    assert any("missing, or not numbers" in one.problem for one in bad)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_metadata_and_fits_are_one_line(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    Tree(root).write_metadata()
    numbers = {"pose": [0.1] * 72, "shape": [0.5] * 10, "trans": [1.0, 2.0, 1000.0]}
    fits = root / "fits.json"
    fits.write_text(json.dumps({"2": {"1": {"0": numbers, "5": numbers}}}))
    path = data.draw(st.sampled_from([root / "metadata.xml", fits]))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw)))
        stop = data.draw(st.integers(start, min(len(raw), start + 40)))
        raw[start:stop] = data.draw(
            st.one_of(st.binary(max_size=6), st.sampled_from([b"[", b"{}", b"NaN", b"-1", b"null"]))
        )
    path.write_bytes(raw)
    with contextlib.suppress(MetroError):
        if path == fits:
            found, _ = h36m_files.read_fits(path, 1)
            assert all(fit.shape == (85,) for fit in found.values())
        else:
            metadata = h36m_files.read_metadata(root)
            assert all(metadata.camera(s).rotation_33.shape == (3, 3) for s in metadata.sequences([1], range(4)))
