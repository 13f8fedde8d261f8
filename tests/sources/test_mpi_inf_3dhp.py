"""MPI-INF-3DHP from trees of a few frames that are written here, in every layout that its files come in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Record
from metro.errors import MetroError
from metro.sources import mpi_inf_3dhp
from metro.sources.source import Row
from tests.sources import reading

OPEN = BodyConfig()
SIZE = 64
FRAMES, ANNOTATED = 23, 32
J24 = JOINT_SETS["J24"]
# The published choice of 17 of 28, and what they are called.
CHOICE = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]
CALLED = ["Head", "Neck", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip", "R_Knee",
          "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Spine", "Jaw"]  # fmt: skip


def focal(camera: int) -> float:
    return 40.0 + camera


def people(camera: int, frames: int = ANNOTATED) -> tuple[np.ndarray, np.ndarray]:
    """Millimetres (T, 28, 3) before a camera, and pixels half a pixel beside their projection."""
    g = np.random.default_rng(camera)
    points = g.uniform([-700, -900, 3000], [700, 900, 4000], (frames, 28, 3))
    return points, focal(camera) * points[..., :2] / points[..., 2:] + [32.5, 31.5]


def matlab73(file: h5py.File, name: str, value: np.ndarray | list[np.ndarray]) -> None:
    """A variable as MATLAB stores it: axes reversed, cells by reference."""
    if isinstance(value, list):
        references = []
        for k, cell in enumerate(value):
            stored = file.create_dataset(f"#refs#/{name}{k}", data=cell.T)
            stored.attrs["MATLAB_class"] = np.bytes_("double")
            references.append(stored.ref)
        made = file.create_dataset(name, data=np.array([references], h5py.ref_dtype))
        made.attrs["MATLAB_class"] = np.bytes_("cell")
    else:
        file.create_dataset(name, data=value.T).attrs["MATLAB_class"] = np.bytes_("double")


def write_cameras(folder: Path) -> None:
    lines = ["Skeletool Camera Calibration File V1.0"]
    for k in range(14):
        f = focal(k)
        lines += [f"name          {k}", "  sensor      10 10", f"  size        {SIZE} {SIZE}", "  animated    0",
                  f"  intrinsic   {f} 0 32 0 0 {f} 31 0 0 0 1 0 0 0 0 1 ",
                  "  extrinsic   1 0 0 5 0 1 0 6 0 0 1 7 0 0 0 1 ", "  radial      0"]  # fmt: skip
    (folder / "camera.calibration").write_text("\n".join(lines) + "\n")


def write(root: Path, name: str = "S1/Seq1", new: bool = False, change: Callable[[Any], None] | None = None) -> Path:
    """A sequence of 14 cameras whose annotations go on after the videos."""
    folder = root / name
    folder.mkdir(parents=True)
    write_cameras(folder)
    made = [people(k) for k in range(14)]
    content = {
        "annot2": [pixels.reshape(-1, 56) for _, pixels in made],
        "annot3": [points.reshape(-1, 84) for points, _ in made],
        "univ_annot3": [points.reshape(-1, 84) * 1.3 for points, _ in made],
    }
    if change:
        change(content)
    if new:
        with h5py.File(folder / "annot.mat", "w", userblock_size=512) as file:
            for key, value in content.items():
                matlab73(file, key, value)
    else:
        cells = {}
        for key, value in content.items():
            cells[key] = np.empty((len(value), 1), object)
            cells[key][:, 0] = value
        scipy.io.savemat(folder / "annot.mat", cells)
    return folder


def write_video(folder: Path, camera: int, frames: int = FRAMES) -> None:
    """Frame k has brightness 10 k."""
    path = folder / f"imageSequence/video_{camera}.avi"
    path.parent.mkdir(exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (SIZE, SIZE))
    for k in range(frames):
        writer.write(np.full((SIZE, SIZE, 3), 10 * k, np.uint8))
    writer.release()


def write_pictures(folder: Path, camera: int, numbers: list[int]) -> None:
    for n in numbers:
        path = folder / f"imageFrames/video_{camera}/frame_{n:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIZE, SIZE)).save(path)


def config(root: Path, split: str = "train", **options: Any) -> DatasetConfig:
    values = {"source": "mpi_inf_3dhp", "root": root, "split": split, "supervision": "joints_3d", "options": options}
    return DatasetConfig(**values)  # type: ignore[arg-type]


def everything(settings: DatasetConfig) -> tuple[dict[str, Record], Counter[str], list[BadRecord]]:
    """Records by frame, what was left out, what is bad."""
    records, left, bad = reading.everything(settings)
    return {record.frame: record for record in records}, left, bad


@pytest.mark.parametrize("new", [False, True])
def test_frames_of_videos_meet_their_rows_in_the_frame_of_their_camera(tmp_path: Path, new: bool) -> None:
    """Row k is frame k; metric joints, not the universal ones; 2D as annotated; the camera's own matrix; by name."""
    folder = write(tmp_path, new=new)
    for camera in (2, 5):
        write_video(folder, camera)
    records, left, bad = everything(config(tmp_path, cameras=(5, 2)))
    assert not bad
    assert left == {"frame step": 2 * 20, "annotated after the last picture": 2}  # row 30
    assert [*records] == [f"S1/Seq1/imageSequence/video_{c}.avi@{k}" for c in (2, 5) for k in (0, 10, 20)]
    for frame, record in records.items():
        record.check()
        camera, k = int(frame[-8:].split(".")[0].strip("_deo")), int(frame.split("@")[1])
        points, pixels = people(camera)
        assert abs(float(record.image.mean()) - 10 * k) < 2  # type: ignore[union-attr]
        for joint, name in enumerate(J24):
            if name not in CALLED:
                assert not record.joints_3d[joint].any()
                assert not record.keypoints_2d[joint].any()
                continue
            at = CHOICE[CALLED.index(name)]
            assert record.joints_3d[joint] == pytest.approx([*points[k, at] / 1000, 1])
            assert record.keypoints_2d[joint] == pytest.approx([*pixels[k, at], 1])
        f = focal(camera)
        assert record.intrinsics.tolist() == [[f, 0, 32], [0, f, 31], [0, 0, 1]]
        low, high = pixels[k, CHOICE].min(0), pixels[k, CHOICE].max(0)
        assert record.box == pytest.approx([*((low + high) / 2 - 0.6 * (high - low)), *(1.2 * (high - low))])
        assert (record.lens, record.has_mesh, record.person) == ("none", False, 0)


def test_pictures_count_from_one_and_their_names_tell_the_row(tmp_path: Path) -> None:
    folder = write(tmp_path)
    write_pictures(folder, 0, [1, 6, 16, 21, 22])  # of a step of 5: 11 is missing
    records, left, bad = everything(config(tmp_path, cameras=(0,), step=5))
    assert [frame[-10:-4] for frame in records] == ["000001", "000006", "000016", "000021"]
    points, _ = people(0)
    record = records["S1/Seq1/imageFrames/video_0/frame_000016.jpg"]
    assert record.joints_3d[J24.index("Pelvis"), :3] == pytest.approx(points[15, 4] / 1000)
    assert [(item.name[-12:], item.count) for item in bad] == [("000011.jpg#0", 1)]
    assert left == {"frame step": 1, "annotated after the last picture": 2}  # picture 22; rows 25 and 30
    write_pictures(folder, 0, [0])
    assert "counts from 1" in everything(config(tmp_path, cameras=(0,)))[2][0].problem


def test_what_is_lost_costs_the_records_it_held(tmp_path: Path) -> None:
    """A video that is missing, one that ends before its container says, joints that are none, nobody in the picture."""

    def change(content: Any) -> None:
        content["annot3"][1][10, 3 * 14] = np.nan
        content["annot3"][1][20, 3 * 27] = np.nan  # a toe, which J24 has not
        content["annot2"][1][0] += 500
        content["annot3"][4] = content["annot3"][4][:15]

    folder = write(tmp_path, change=change)
    write_video(folder, 1)
    write_video(folder, 2)
    write_video(folder, 4)
    path = folder / "imageSequence/video_2.avi"
    frame = path.read_bytes().index(b"00dc", path.read_bytes().index(b"movi")) + 4  # its header tells 23 frames still
    path.write_bytes(path.read_bytes()[: frame + 5 * (path.stat().st_size - frame) // 23])
    records, left, bad = everything(config(tmp_path, cameras=(0, 1, 2, 4)))
    assert left["no joint inside of the picture"] == 1
    assert left["not annotated"] == 1  # frame 20 of camera 4
    said = {item.name: item for item in bad}
    assert said["mpi_inf_3dhp:S1/Seq1/imageSequence/video_0.avi"].count == 4
    assert "no finite numbers" in said["mpi_inf_3dhp:S1/Seq1/imageSequence/video_1.avi@10#0"].problem
    assert "S1/Seq1/imageSequence/video_1.avi@20" in records
    assert [frame for frame in records if "video_2" in frame] == ["S1/Seq1/imageSequence/video_2.avi@0"]
    assert said["mpi_inf_3dhp:S1/Seq1/imageSequence/video_2.avi@10#0"].count == 2
    assert [frame for frame in records if "video_4" in frame] == [
        f"S1/Seq1/imageSequence/video_4.avi@{k}" for k in (0, 10)
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.update(annot3=[c[:, :51] for c in content["annot3"]]), "51 columns, not 84"),
        (lambda content: content.pop("annot2"), "annot2"),
        (lambda content: content.update(annot2=content["annot2"][:2]), "no cell 5"),
    ],
)
def test_a_damaged_annotation_is_one_line(tmp_path: Path, change: Any, said: str) -> None:
    folder = write(tmp_path, new=True, change=change)
    write_video(folder, 5)
    records, _, bad = everything(config(tmp_path, cameras=(5,)))
    assert not records
    assert said in bad[0].problem
    assert bad[0].count == 642  # every tenth of the 6,416 that the set's own video has


def write_test(root: Path, name: str = "TS5", **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    points, pixels = (a[:4, CHOICE] for a in people(3))
    content = {
        "annot2": pixels.transpose(2, 1, 0)[:, :, None],
        "annot3": points.transpose(2, 1, 0)[:, :, None],
        "univ_annot3": points.transpose(2, 1, 0)[:, :, None] * 1.3,
        "valid_frame": np.array([[0.0, 1, 0, 1]]),
    } | changes
    folder = root / f"mpi_inf_3dhp_test_set/{name}"
    (folder / "imageSequence").mkdir(parents=True)
    with h5py.File(folder / "annot_data.mat", "w", userblock_size=512) as file:
        for key, value in content.items():
            matlab73(file, key, value)
    for k in range(4):
        Image.new("RGB", (SIZE, 36)).save(folder / f"imageSequence/img_{k + 1:06d}.jpg")
    return points, pixels


def test_the_test_set_by_valid_frames_and_names_from_one(tmp_path: Path) -> None:
    points, pixels = write_test(tmp_path)
    records, left, bad = everything(config(tmp_path, "test"))
    assert (left, bad) == ({"frame marked as not valid": 2}, [])
    assert [*records] == [f"mpi_inf_3dhp_test_set/TS5/imageSequence/img_{n:06d}.jpg" for n in (2, 4)]
    for k, record in zip((1, 3), records.values(), strict=True):
        record.check()
        for joint, name in enumerate(CALLED):
            assert record.joints_3d[J24.index(name)] == pytest.approx([*points[k, joint] / 1000, 1])
            assert record.keypoints_2d[J24.index(name), :2] == pytest.approx(pixels[k, joint])
        assert record.joints_3d[:, 3].sum() == 17
        assert (record.intrinsics, record.lens) == (None, "none")
        # The picture is half as high as the people.
        inside = pixels[k][(pixels[k] < np.array([SIZE, 36]) - 0.5).all(1)]
        assert record.box[3] == pytest.approx(1.2 * np.ptp(inside[:, 1]))
    survey = mpi_inf_3dhp.survey(config(tmp_path, "test"), OPEN)
    assert (survey.expected, survey.checks[0].passed, survey.checks[0].seen) == (2929, False, "2")
    assert survey.checks[1].passed is False
    assert "ts5-6cameras.calib: missing" in survey.checks[1].seen


def test_cameras_of_the_test_set_are_believed_where_people_are_where_they_say(tmp_path: Path) -> None:
    """A focal length of 8 mm on a sensor of 10 × 5.625 mm is 1536 px of 1920, and 0.02 mm are 3.84 px."""
    points = people(3)[0][:4, CHOICE]
    matrix, lens = (
        np.array([[1536, 0, 963.84], [0, 1536, 538.08], [0, 0, 1]]),
        np.array([-0.9, 0.1, 0.001, 0.002, 0.01]),
    )
    still = np.zeros(3)
    pixels = np.stack([cv2.projectPoints(p.copy(), still, still, matrix, lens)[0][:, 0] for p in points])
    write_test(tmp_path, "TS6", annot2=pixels.transpose(2, 1, 0)[:, :, None])
    folder = tmp_path / "mpi_inf_3dhp_test_set/test_util/camera_calibration"
    folder.mkdir(parents=True)
    lines = [
        *("tc camera calibration v0.3", "camera 0 # the only one", "sensorSize 10 5.625", "focalLength 8"),
        *("pixelAspect 1", "centerOffset 0.02 -0.01", "distortionModel OpenCV"),
        "distortion -0.9 0.1 0.001 0.002 0.01",
    ]

    def write_camera(*changed: tuple[str, str]) -> None:
        (folder / "ts5-6cameras.calib").write_text("\n".join(dict(changed).get(line, line) for line in lines))

    def cameras() -> list[tuple[Any, Any, str]]:
        # The pictures are stand-ins of another size: only what the index says of cameras is looked at.
        rows = [row for row in mpi_inf_3dhp.rows(config(tmp_path, "test"), OPEN) if isinstance(row, Row)]
        assert len(rows) == 2
        return [(row.labels[2], row.labels[3], row.frame) for row in rows]

    write_camera()
    for k, d, _ in cameras():
        assert np.array(k) == pytest.approx(matrix)
        assert d == [-0.9, 0.1, 0.001, 0.002, 0.01, 0, 0, 0]
    assert mpi_inf_3dhp.survey(config(tmp_path, "test"), OPEN).checks[1].passed
    write_camera((lines[7], "distortion 0 0 0 0 0"))  # a lens without distortion does not fit these people
    assert [(k, d) for k, d, _ in cameras()] == [(None, None)] * 2
    for line, other in ((lines[4], "pixelAspect 1.1"), (lines[6], "distortionModel Tsai"), (lines[3], "focalLength x")):
        write_camera((line, other))
        assert [(k, d) for k, d, _ in cameras()] == [(None, None)] * 2


def test_a_damaged_test_sequence_costs_its_pictures(tmp_path: Path) -> None:
    write_test(tmp_path, "TS1", annot3=np.zeros((3, 16, 1, 4)))
    write_test(tmp_path, "TS2", valid_frame=np.ones((1, 5)))
    records, _, bad = everything(config(tmp_path, "test"))
    assert not records
    assert [(item.name[-3:], item.count) for item in bad] == [("TS1", 4), ("TS2", 4)]
    assert "annot3 is not 3 × 17" in bad[0].problem
    assert "4 frames, valid_frame of 5" in bad[1].problem


def test_survey_tells_what_is_there_and_whether_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    nothing = mpi_inf_3dhp.survey(config(tmp_path / "empty"), OPEN)
    assert [file.found for file in nothing.files] == [False, False]
    # Two videos of S6/Seq2 are official here, the shorter one too.
    folder = write(tmp_path / "raw", "S6/Seq2")
    assert mpi_inf_3dhp.survey(config(tmp_path / "raw"), OPEN).missing[0].startswith("S6/Seq2/imageSequence (")
    for camera, frames in ((1, 23), (2, 12)):
        write_video(folder, camera, frames)
    monkeypatch.setitem(mpi_inf_3dhp.FRAMES, "S6/Seq2", 23)
    monkeypatch.setitem(mpi_inf_3dhp.SHORT, ("S6/Seq2", 2), 12)
    survey = mpi_inf_3dhp.survey(config(tmp_path / "raw", cameras=(1, 2)), OPEN)
    assert (survey.missing, survey.parameters, survey.posed) == ((), None, False)
    assert [check.passed for check in survey.checks] == [True, True], survey.checks
    assert "up to 0.71 px" in survey.checks[1].seen
    write_video(folder, 2, 23)
    survey = mpi_inf_3dhp.survey(config(tmp_path / "raw", cameras=(1, 2)), OPEN)
    assert survey.checks[0].passed is False
    assert "S6/Seq2 video 2 has 23, not 12" in survey.checks[0].seen
    with pytest.raises(MetroError, match="no validation split"):
        mpi_inf_3dhp.survey(config(tmp_path, "validation"), OPEN)


def test_the_complete_set_is_counted_by_the_lengths_of_its_videos(tmp_path: Path) -> None:
    """Every 10th frame of 8 cameras of 16 sequences, of which one video is short."""
    lengths = [6416, 12430, 6502, 6081, 12488, 12283, 6171, 6675, 12820, 12312, 6188, 6145, 6239, 6320, 6468, 6054]
    every = sum(-(-n // 10) for n in lengths)
    assert mpi_inf_3dhp.survey(config(tmp_path), OPEN).expected == 8 * every - 615 + 392


@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["name 0", "intrinsic", "intrinsic 1 2 x", "intrinsic " + "1 " * 16, "intrinsic " + "nan " * 16]
        )
        | st.text(max_size=9),
        max_size=4,
    )
)
def test_whatever_is_in_the_camera_file_ends_in_cameras_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    root = tmp_path_factory.mktemp("junk")
    folder = root / "S1/Seq1"
    folder.mkdir(parents=True)
    text = "\n".join(["Skeletool Camera Calibration File V1.0", *lines])
    (folder / "camera.calibration").write_text(text, encoding="utf-8", errors="replace")
    (bad,) = mpi_inf_3dhp.rows(config(root, cameras=(0,)), OPEN)
    assert isinstance(bad, BadRecord)
    assert len(bad.problem.splitlines()) == 1
