"""Archives as sites hand them out, and as nobody should."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metro.errors import MetroError
from metro.sources import unpack as module
from metro.sources.unpack import ARCHIVES, RECORD, unpack
from metro.words import Source


def tar(path: Path, *entries: tuple[str | tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:
        for name, content in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """Files that are no archives and not the module's own record."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found if not p.name.endswith(module._ENDINGS)}


def test_human36m_as_downloaded(tmp_path: Path) -> None:
    """Whatever folders an archive has inside, files end up where the site's tree has them."""
    tar(
        tmp_path / "Poses_D2_Positions_S1.tgz",
        ("S1/MyPoseFeatures/D2_Positions/Directions 1.54138969.cdf", b"d2"),
        ("S1/MyPoseFeatures/D2_Positions/._Directions 1.54138969.cdf", b"a Mac was here"),
        ("S1/readme.txt", b"unwanted"),
    )
    tar(tmp_path / "archives/Poses_D3_Positions_mono_S11.tgz", ("Directions.54138969.cdf", b"d3"))
    tar(tmp_path / "Poses_D3_Positions_mono_universal_S1.tgz", ("Directions.54138969.cdf", b"rescaled"))
    tar(tmp_path / "Poses_D3_Positions_S1.tgz", ("S1/MyPoseFeatures/D3_Positions/Directions.cdf", b"world"))
    tar(tmp_path / "Videos_S1.tgz", ("S1/Videos/Directions 1.54138969.mp4", b"mp4"), ("S1/Videos/_ALL.avi", b"x"))
    tar(tmp_path / "Segments_mat_gt_bb_S1.tgz", ("S1/MySegmentsMat/ground_truth_bb/Directions.mat", b"mat"))
    tar(tmp_path / "s5/D3_Positions_mono.tgz", ("S5/MyPoseFeatures/D3_Positions_mono/Waiting.cdf", b"s5"))
    lines = list(unpack("h36m", tmp_path))
    assert lines[0] == "Poses_D2_Positions_S1.tgz: 1 files, 0.0 MB"
    assert len(lines) == 6
    assert files(tmp_path) == {
        "S1/MyPoseFeatures/D2_Positions/Directions 1.54138969.cdf": b"d2",
        "S11/MyPoseFeatures/D3_Positions_mono/Directions.54138969.cdf": b"d3",
        "S1/MyPoseFeatures/D3_Positions/Directions.cdf": b"world",
        "S1/Videos/Directions 1.54138969.mp4": b"mp4",
        "S1/MySegmentsMat/ground_truth_bb/Directions.mat": b"mat",
        "S5/MyPoseFeatures/D3_Positions_mono/Waiting.cdf": b"s5",
    }


@pytest.mark.parametrize(
    ("source", "archive", "inside", "outside"),
    [
        ("pw3d", "imageFiles.zip", "imageFiles/a_00/image_00001.jpg", "imageFiles/a_00/image_00001.jpg"),
        ("pw3d", "imageFiles.zip", "__MACOSX/imageFiles/a_00/image_00001.jpg", None),
        ("pw3d", "sequenceFiles.zip", "sequenceFiles/test/a_00.pkl", "sequenceFiles/test/a_00.pkl"),
        ("pw3d", "sequenceFiles.zip", "validation/a_00.pkl", "sequenceFiles/validation/a_00.pkl"),
        ("up3d", "up-3d.zip", "up-3d/00001_body.pkl", "00001_body.pkl"),
        ("up3d", "up-3d.zip", "up-3d/trainval.txt", "trainval.txt"),
        ("up3d", "up-3d.zip", "up-3d/00001_quality_info.txt", None),
        ("muco", "mine.zip", "MuCo/data/unaugmented_set/000/1.jpg", "data/unaugmented_set/000/1.jpg"),
        ("muco", "other.tar", "MuCo-3DHP.json", "data/MuCo-3DHP.json"),
        (
            *("mpi_inf_3dhp", "S3/Seq2/imageSequence/vnect_cameras.zip"),
            *("video_0.avi", "S3/Seq2/imageSequence/video_0.avi"),
        ),
        (
            *("mpi_inf_3dhp", "mpi_inf_3dhp_test_set.zip"),
            *("mpi_inf_3dhp_test_set/TS1/annot_data.mat", "mpi_inf_3dhp_test_set/TS1/annot_data.mat"),
        ),
        ("mpii", "mpii_human_pose_v1.tar.gz", "images/000001163.jpg", "images/000001163.jpg"),
        (
            *("mpii", "mpii_human_pose_v1_u12_2.zip"),
            *("mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat", "mpii_human_pose_v1_u12_1.mat"),
        ),
        ("coco", "train2017.zip", "train2017/000000000009.jpg", "train2017/000000000009.jpg"),
        (
            *("coco", "val2014.zip"),
            *("val2014/COCO_val2014_000000000042.jpg", "val2014/COCO_val2014_000000000042.jpg"),
        ),
        (
            *("coco", "annotations_trainval2017.zip"),
            *("annotations/person_keypoints_val2017.json", "annotations/person_keypoints_val2017.json"),
        ),
        ("coco", "annotations_trainval2017.zip", "annotations/instances_val2017.json", None),
        ("freihand", "FreiHAND_pub_v2.zip", "training/rgb/00000000.jpg", "training/rgb/00000000.jpg"),
        ("freihand", "FreiHAND_pub_v2.zip", "training/mask/00000000.jpg", None),
        ("freihand", "FreiHAND_pub_v2_eval.zip", "FreiHAND_pub_v2_eval/evaluation_xyz.json", "evaluation_xyz.json"),
    ],
)
def test_each_archive_gives_what_its_adapter_reads(
    tmp_path: Path, source: str, archive: str, inside: str, outside: str | None
) -> None:
    write = zipped if archive.endswith(".zip") else tar
    write(tmp_path / archive, (inside, b"content"))
    (line,) = unpack(source, tmp_path)
    assert line == f"{archive}: " + ("1 files, 0.0 MB" if outside else f"nothing that {source} needs")
    assert files(tmp_path) == ({outside: b"content"} if outside else {})


def test_names_of_the_table_match_its_expressions() -> None:
    assert set(ARCHIVES) <= set(Source.__args__)  # type: ignore[attr-defined]
    for rows in ARCHIVES.values():
        for row in rows:
            assert module._target(row, row.example)


def test_an_archive_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "train2017.zip", ("train2017/000000000009.jpg", b"a"))
    list(unpack("coco", tmp_path))
    (tmp_path / "train2017/000000000009.jpg").unlink()
    assert list(unpack("coco", tmp_path)) == ["train2017.zip: unpacked before"]
    assert json.loads((tmp_path / RECORD).read_text()) == {
        "train2017.zip": [path.stat().st_size, path.stat().st_mtime_ns]
    }
    os.utime(path, ns=(1, 1))
    assert list(unpack("coco", tmp_path)) == ["train2017.zip: 1 files, 0.0 MB"]


@pytest.mark.parametrize("ending", ["zip", "tgz"])
def test_what_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Killed in the middle of a file: those before are kept, those after are as if nothing had been."""
    entries = [(f"S1/Videos/a.{k}.mp4", bytes([k]) * 5000) for k in range(5)]
    monkeypatch.setattr(module, "_PIECE", 1000)
    if ending == "zip":
        monkeypatch.setitem(
            ARCHIVES, "h36m", tuple(r._replace(name=r.name.replace("tgz", "zip")) for r in ARCHIVES["h36m"])
        )
        zipped(tmp_path / "Videos_S1.zip", *entries)
    else:
        tar(tmp_path / "Videos_S1.tgz", *entries)
    pieces, calls = module._pieces, iter(range(100))

    def killed(archive: Path, entry: object) -> object:
        for piece in pieces(archive, entry):  # type: ignore[arg-type]
            if next(calls) == 12:
                raise KeyboardInterrupt
            yield piece

    with monkeypatch.context() as patch:
        patch.setattr(module, "_pieces", killed)
        with pytest.raises(KeyboardInterrupt):
            list(unpack("h36m", tmp_path))
    assert sorted(p.name for p in (tmp_path / "S1/Videos").iterdir()) == [".a.2.mp4.partial", "a.0.mp4", "a.1.mp4"]
    assert list(unpack("h36m", tmp_path)) == [f"Videos_S1.{ending}: 5 files, 0.0 MB, 2 of them there before"]
    assert files(tmp_path) == dict(entries)


@pytest.mark.parametrize("there", [b"other content", b"other", b""])
def test_a_file_that_differs_is_never_overwritten(tmp_path: Path, there: bytes) -> None:
    tar(tmp_path / "Videos_S1.tgz", ("S1/Videos/a.1.mp4", b"these"))
    place = tmp_path / "S1/Videos/a.1.mp4"
    place.parent.mkdir(parents=True)
    place.write_bytes(there)
    with pytest.raises(MetroError, match=r"a\.1\.mp4: is not the S1/Videos/a\.1\.mp4 of .*Videos_S1\.tgz; move away"):
        list(unpack("h36m", tmp_path))
    assert place.read_bytes() == there


def link(name: str, kind: bytes, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("/etc/a.mp4", "leads out"),
        ("../a.mp4", "leads out"),
        ("S1/Videos/../../../a.mp4", "leads out"),
        ("..\\a.mp4", "leads out"),
        ("../readme.txt", "leads out"),
        (link("S1/Videos/a.mp4", tarfile.SYMTYPE, "/etc/passwd"), "no plain file"),
        (link("S1/Videos/a.mp4", tarfile.LNKTYPE, "S1/b"), "no plain file"),
        (link("S1/Videos/a.mp4", tarfile.CHRTYPE), "no plain file"),
        (link("S1/Videos/a.mp4", tarfile.BLKTYPE), "no plain file"),
        (link("S1/Videos/a.mp4", tarfile.FIFOTYPE), "no plain file"),
    ],
)
def test_hostile_entries_of_tars(tmp_path: Path, entry: str | tarfile.TarInfo, said: str) -> None:
    raw = tmp_path / "raw"
    tar(raw / "Videos_S1.tgz", (entry, b""))
    with pytest.raises(MetroError, match=rf"Videos_S1\.tgz: refused, its entry .* {said}"):
        list(unpack("h36m", raw))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["Videos_S1.tgz", "raw"]


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    """An entry that makes a folder a link, and one that would go through it."""
    raw = tmp_path / "raw"
    tar(raw / "Videos_S1.tgz", (link("S1/Videos", tarfile.SYMTYPE, str(tmp_path)), b""), ("S1/Videos/a.1.mp4", b"a"))
    list(unpack("h36m", raw))
    assert files(raw) == {"S1/Videos/a.1.mp4": b"a"}
    assert not (raw / "S1/Videos").is_symlink()
    assert not (tmp_path / "a.1.mp4").exists()


def test_hostile_entries_of_zips(tmp_path: Path) -> None:
    symlink = zipfile.ZipInfo("train2017/000000000009.jpg")
    symlink.external_attr = 0o120777 << 16
    for name, said in {
        "../000000000009.jpg": "leads out",
        "/000000000009.jpg": "leads out",
        symlink: "no plain",
    }.items():
        zipped(tmp_path / "raw/train2017.zip", (name, b"/etc/passwd"))
        with pytest.raises(MetroError, match=said):
            list(unpack("coco", tmp_path / "raw"))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["raw", "train2017.zip"]


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(1 << 23)
    tar(tmp_path / "Videos_S1.tgz", *((f"a.{k}.mp4", zeros) for k in range(4)))
    zipped(tmp_path / "train2017.zip", *((f"{k:012d}.jpg", zeros) for k in range(4)))
    for source in ("h36m", "coco"):
        with pytest.raises(MetroError, match="unpacks to more than 2000000 entries or 200 times its size"):
            list(unpack(source, tmp_path))
    assert sum(map(len, files(tmp_path).values())) < module.SLACK + 200 * (1 << 16)
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    tar(tmp_path / "Videos_S1.tgz", *((f"{k}.txt", b"") for k in range(4)))
    with pytest.raises(MetroError, match="3 entries"):
        list(unpack("h36m", tmp_path))


def test_a_name_of_gigabytes(tmp_path: Path) -> None:
    long = tarfile.TarInfo("x")
    long.type, long.size = tarfile.XHDTYPE, 1 << 33
    (tmp_path / "Videos_S1.tgz").write_bytes(long.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(MetroError, match="a header of 8589934592 bytes"):
        list(unpack("h36m", tmp_path))


def test_a_full_disk_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(tmp_path / "train2017.zip", ("train2017/000000000009.jpg", bytes(3000)), ("readme", bytes(9000)))
    usage = type(module.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**6, 10**6, 2999))
    with pytest.raises(MetroError, match=r"train2017\.zip: needs 0\.0 GB more"):
        list(unpack("coco", tmp_path))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**6, 10**6, 3000))
    assert len(list(unpack("coco", tmp_path))) == 1


def test_damaged_archives_are_one_line(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    whole = tar(tmp_path / "Videos_S1.tgz", *((f"a.{k}.mp4", noise.bytes(3000)) for k in range(4))).read_bytes()
    for content, said in {
        b"": "is empty",
        b"<html>Please log in</html>": "is a web page",
        whole[: len(whole) // 2]: "damaged",
        whole[:-4]: "damaged",
        whole[:-8] + bytes(4) + whole[-4:]: "damaged",
        whole[:40]: "damaged",
        b"PK" + bytes(100): "damaged",
        **{bytes([first]) + noise.bytes(600): "damaged" for first in range(256)},  # in whatever way it begins
    }.items():
        (tmp_path / "Videos_S1.tgz").write_bytes(content)
        with pytest.raises(MetroError, match=rf"Videos_S1\.tgz: {said}.*; download it again"):
            list(unpack("h36m", tmp_path))
        assert not (tmp_path / RECORD).exists()


@given(st.data())
@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_damage_is_one_line_and_stays_inside(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    entries = [(f"data/unaugmented_set/{k}.jpg", b"content" * 9) for k in range(3)]
    path = (
        zipped(folder / "raw/a.zip", *entries)
        if kind == "zip"
        else tar(folder / f"raw/a.{kind}", *entries, mode="w:gz" if kind == "tgz" else "w")
    )
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw), 2000) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        list(unpack("muco", folder / "raw"))
    except MetroError as err:
        assert "\n" not in str(err)  # noqa: PT017
    assert [p.name for p in folder.iterdir()] == ["raw"]


def test_a_tar_cut_between_entries(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", *((f"unaugmented_set/{k}.jpg", bytes([1]) * 512) for k in range(3)), mode="w")
    path.write_bytes(path.read_bytes()[: 2 * 1024])
    with pytest.raises(MetroError, match="ends early"):
        list(unpack("muco", tmp_path))


def test_what_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=r"none of the archives of coco \(train2017\.zip, annotations_"):
        list(unpack("coco", tmp_path))
    with pytest.raises(MetroError, match="metro_tsv: comes in no archives"):
        list(unpack("metro_tsv", tmp_path))
    with pytest.raises(MetroError, match="none: no such folder"):
        list(unpack("coco", tmp_path / "none"))
    zipped(tmp_path / "train2017.zip", ("train2017/000000000009.jpg", b"a"))
    (tmp_path / RECORD).write_text('{"train2017.zip": "yes"}')
    with pytest.raises(MetroError, match=rf"{RECORD}: damaged.*; delete"):
        list(unpack("coco", tmp_path))
