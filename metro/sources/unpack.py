"""Archives as the sites hand them out → the raw tree that an adapter reads.

Only what is needed is extracted, each archive once. Nothing that an archive holds can reach beyond the raw folder, be a
link or a device, or fill the disk: an entry is written by this module, under a name of its own making.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from gzip import GzipFile
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from metro.errors import MetroError
from metro.files import TAR, ZIP, atomic_file, read_json, readable, refuse_others
from metro.sources.source import Archive

RECORD = "metro-unpacked.json"
"""File in the raw folder: which archives, by size and time, were unpacked to the end."""
MAX_ENTRIES = 2_000_000
"""Entries of an archive; the largest set has 600,000 pictures."""
MAX_RATIO = 200
"""Bytes that a byte of an archive may unpack to; JSON comes to 10, masks of people to 100."""
SLACK = 1 << 20
"""Bytes that any archive may unpack to."""

_REMEDY = "download it again"
_PIECE = 1 << 20
_LONGEST_NAME = 1 << 16
_LONGEST_END = 64
"""Pieces after the last entry of a tar, which pads its end."""
_NAMES = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_ENDINGS = (".zip", ".tgz", ".tar.gz", ".tar")
_GZIP = "a gzip archive"

_SUBJECT = r"S(?:1|5|6|7|8|9|11)"
_POSES = "D2_Positions|D3_Positions_mono|D3_Positions"

ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "pw3d": (
        Archive("imageFiles.zip", r"imageFiles\.zip", r"imageFiles/([^/]+/image_\d+\.jpg)", "imageFiles"),
        Archive(
            "sequenceFiles.zip",
            r"sequenceFiles\.zip",
            r"(?:sequenceFiles/)?((?:train|val|validation|test)/[^/.][^/]*\.pkl)",
            "sequenceFiles",
        ),
    ),
    "up3d": (
        Archive(
            "up-3d.zip",
            r"up-3d\.zip",
            r"(\d{5}_(?:image\.png|body\.pkl|joints\.npy|render_light\.png|fit_crop_info\.txt|dataset_info\.txt)"
            r"|(?:train|val|trainval|test)\.txt)",
            ".",
        ),
    ),
    "muco": (  # a Google Drive folder: names of archives are the user's
        Archive("augmented_set.zip", r".+", r"((?:un)?augmented_set/(?:[^/]+/)*[^/.][^/]*\.jpg)", "data"),
        Archive("MuCo-3DHP.zip", r".+", r"(MuCo-3DHP\.json|smpl_param\.json)", "data"),
    ),
    "mpi_inf_3dhp": (
        Archive(
            "S1/Seq1/imageSequence/vnect_cameras.zip",
            r"(S[1-8]/Seq[12])/imageSequence/(?:vnect|other_angled|ceiling)_cameras\.zip",
            r"(video_\d+\.avi)",
            r"\1/imageSequence",
        ),
        Archive(
            "mpi_inf_3dhp_test_set.zip",
            r"mpi_inf_3dhp_test_set\.zip",
            r"(TS[1-6]/(?:annot_data\.mat|imageSequence/img_\d+\.jpg))",
            "mpi_inf_3dhp_test_set",
        ),
    ),
    "h36m": (
        Archive(
            "Poses_D2_Positions_S1.tgz",
            rf"Poses_({_POSES})_({_SUBJECT})\.tgz",
            r"([^/.][^/]*\.cdf)",
            r"\2/MyPoseFeatures/\1",
        ),
        Archive("Videos_S1.tgz", rf"Videos_({_SUBJECT})\.tgz", r"([^/.][^/]*\.mp4)", r"\1/Videos"),
        Archive(
            "Segments_mat_gt_bb_S1.tgz",
            rf"Segments_mat_gt_(bb|bs)_({_SUBJECT})\.tgz",
            r"([^/.][^/]*\.mat)",
            r"\2/MySegmentsMat/ground_truth_\1",
        ),
        # As mmpose's instructions lay them out.
        Archive(
            "s1/D2_Positions.tgz",
            rf"s({_SUBJECT[1:]})/({_POSES})\.tgz",
            r"([^/.][^/]*\.cdf)",
            r"S\1/MyPoseFeatures/\2",
        ),
        Archive("s1/Videos.tgz", rf"s({_SUBJECT[1:]})/Videos\.tgz", r"([^/.][^/]*\.mp4)", r"S\1/Videos"),
    ),
    "mpii": (
        Archive("mpii_human_pose_v1.tar.gz", r"mpii_human_pose_v1\.tar\.gz", r"images/(\d+\.jpg)", "images"),
        Archive(
            "mpii_human_pose_v1_u12_2.zip",
            r"mpii_human_pose_v1_u12_[12]\.zip",
            r"(mpii_human_pose_v1_u12_1\.mat)",
            ".",
        ),
    ),
    "coco": (
        Archive(
            "train2017.zip",
            r"((?:train|val)20(?:14|17))\.zip",
            r"((?:COCO_(?:train|val)2014_)?\d{12}\.jpg)",
            r"\1",
        ),
        Archive(
            "annotations_trainval2017.zip",
            r"annotations_trainval20(?:14|17)\.zip",
            r"(person_keypoints_(?:train|val)20(?:14|17)\.json)",
            "annotations",
        ),
    ),
    "freihand": (
        Archive(
            "FreiHAND_pub_v2.zip",
            r"FreiHAND_pub_v2(?:_eval)?\.zip",
            r"((?:training|evaluation)/rgb/\d{8}\.jpg|(?:training|evaluation)_(?:K|mano|xyz|scale|verts)\.json)",
            ".",
        ),
    ),
}  # fmt: skip
"""Archives of each set. What comes after any folders of an entry's path must match `members`."""


class _Entry(NamedTuple):
    name: str
    size: int
    plain: bool
    """Whether it is a file, and no link, device or other thing."""
    open: Callable[[], IO[bytes] | None]


def unpack(source: str, raw: Path) -> Iterator[str]:
    """Extract the archives of a set that lie in its raw folder; one line for each, when it is done.

    An extraction that was killed goes on with the file that it was at. Archives stay where they are.

    Raises
    ------
    MetroError
        There is no archive of the set, one is damaged or refused, a file differs from one that is there already, or the
        disk is too small.
    """
    if not raw.is_dir():
        raise MetroError(f"{raw}: no such folder; give the one that the archives of {source} are in")
    rows = ARCHIVES.get(source, ())
    if not rows:
        raise MetroError(
            f"{source}: comes in no archives that are known here; put its files where the adapter reads them"
        )
    found = _archives(raw, rows)
    if not found:
        examples = ", ".join(row.example for row in rows)
        raise MetroError(
            f"{raw}: none of the archives of {source} ({examples}); put them there as they were downloaded"
        )
    record = raw / RECORD
    done: dict[str, list[int]] = (
        read_json(record, f"delete {record}", shape=dict[str, list[int]]) if record.is_file() else {}
    )
    for name, targets in found.items():
        facts = (raw / name).stat()
        stamp = [facts.st_size, facts.st_mtime_ns]
        if done.get(name) == stamp:
            yield f"{name}: unpacked before"
            continue
        new, old, size = _extract(raw, name, targets)
        done[name] = stamp
        with atomic_file(record) as temporary:
            temporary.write_text(json.dumps(done, indent=1, sort_keys=True) + "\n")
        there = f", {old} of them there before" if old else ""
        yield (
            f"{name}: {new + old} files, {size / 1e6:.1f} MB{there}"
            if new + old
            else f"{name}: nothing that {source} needs"
        )


def _archives(raw: Path, rows: tuple[Archive, ...]) -> dict[str, list[_Target]]:
    """Archives of the set, relative to the raw folder, in order of their names, with what to take from them."""
    found = {}
    for folder, _, files in os.walk(raw):
        for file in files:
            if file.endswith(_ENDINGS):
                name = (Path(folder) / file).relative_to(raw).as_posix()
                targets = [target for row in rows if (target := _target(row, name))]
                if targets:
                    found[name] = targets
    return dict(sorted(found.items()))


class _Target(NamedTuple):
    wanted: re.Pattern[str]
    folder: str


def _target(row: Archive, name: str) -> _Target | None:
    """What to take from an archive; a row that names folders means where the archive lies, others its name alone."""
    match = re.fullmatch(row.name, name if "/" in row.name else PurePosixPath(name).name)
    return _Target(re.compile(f"(?:.*/)?{row.members}"), match.expand(row.folder)) if match else None


def _extract(raw: Path, name: str, targets: list[_Target]) -> tuple[int, int, int]:
    """Files written, files that were there, and the bytes of both."""
    archive = raw / name
    packed = archive.stat().st_size
    _check_room(raw, archive, targets)
    new = old = size = passed = 0
    for count, entry in enumerate(_entries(archive)):
        passed += max(0, entry.size)
        if count >= MAX_ENTRIES or passed > SLACK + MAX_RATIO * packed:
            limits = f"{MAX_ENTRIES} entries or {MAX_RATIO} times its size"
            raise MetroError(f"{archive}: refused, it unpacks to more than {limits}; {_REMEDY}")
        place = _place(archive, entry, targets)
        if place is None:
            continue
        size += entry.size
        if (raw / place).is_file():
            _compare(raw / place, archive, entry)
            old += 1
        else:
            _write(raw / place, archive, entry)
            new += 1
    return new, old, size


def _place(archive: Path, entry: _Entry, targets: list[_Target]) -> str | None:
    """Where an entry goes, relative to the raw folder; None for what is not needed."""
    parts = entry.name.split("/")
    if entry.name.startswith("/") or ".." in parts or any(c in entry.name for c in "\\\0"):
        raise MetroError(f"{archive}: refused, its entry {entry.name!r} leads out of the folder; {_REMEDY}")
    for target in targets:
        match = target.wanted.fullmatch(entry.name)
        if match and "__MACOSX" not in parts:
            if not entry.plain:
                raise MetroError(f"{archive}: refused, its entry {entry.name!r} is no plain file; {_REMEDY}")
            return f"{target.folder}/{match[1]}"
    return None


def _compare(path: Path, archive: Path, entry: _Entry) -> None:
    """Raise unless the file is the one in the archive."""
    with path.open("rb") as file:
        same = path.stat().st_size == entry.size and all(
            file.read(len(piece)) == piece for piece in _pieces(archive, entry)
        )
    if not same:
        raise MetroError(f"{path}: is not the {entry.name} of {archive}; move away the one that is wrong and run again")


def _write(path: Path, archive: Path, entry: _Entry) -> None:
    """Write the file under another name first, so that it is whole wherever this is killed."""
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            for piece in _pieces(archive, entry):
                file.write(piece)
        unfinished.replace(path)
    except OSError as err:
        unfinished.unlink(missing_ok=True)
        raise MetroError(f"{path}: cannot be written: {err.strerror}; what is unpacked stays, run again") from None


def _pieces(archive: Path, entry: _Entry) -> Iterator[bytes]:
    left = entry.size
    with readable(archive, _REMEDY), entry.open() or BytesIO() as content:
        while left:
            piece = content.read(min(left, _PIECE))
            if not piece:
                raise ValueError(f"{entry.name} ends early")
            left -= len(piece)
            yield piece


def _check_room(raw: Path, archive: Path, targets: list[_Target]) -> None:
    """Raise if the disk is too small: for what a zip declares, for as much as a tar holds packed."""
    needed = archive.stat().st_size
    if _is_zip(archive):
        needed = sum(entry.size for entry in _entries(archive) if _place(archive, entry, targets))
    for folder in {raw / target.folder for target in targets} - {raw}:
        needed -= sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(raw).free
    if needed > free:
        raise MetroError(
            f"{archive}: needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; make room and run again"
        )


def _is_zip(archive: Path) -> bool:
    with readable(archive, _REMEDY):
        refuse_others(archive, _REMEDY, (ZIP, TAR, _GZIP))
        with archive.open("rb") as file:
            return file.read(2) == b"PK"


def _entries(archive: Path) -> Iterator[_Entry]:
    """What an archive holds, folders left out; the content of an entry is read before the next is asked for."""
    with readable(archive, _REMEDY):
        yield from _of_zip(archive) if _is_zip(archive) else _of_tar(archive)


def _of_zip(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if not info.is_dir():
                plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                yield _Entry(info.filename, info.file_size, plain, partial(file.open, info))


def _of_tar(archive: Path) -> Iterator[_Entry]:
    with archive.open("rb") as packed:
        gzip = packed.read(2) == b"\x1f\x8b"
        if not gzip:  # gzip has a checksum; a tar that ends between entries looks whole but for its end
            packed.seek(-min(1024, archive.stat().st_size), os.SEEK_END)
            if any(packed.read()):
                raise ValueError("ends early")
        packed.seek(0)
        stream: IO[bytes] = GzipFile(fileobj=packed) if gzip else packed  # type: ignore[assignment]
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as file:
            while (info := file.next()) is not None:
                if not info.isdir():
                    yield _Entry(info.name, info.size, info.isreg(), partial(file.extractfile, info))
                file.members.clear()  # type: ignore[attr-defined]  # it would keep all
        for _ in range(_LONGEST_END):
            if not stream.read(_PIECE):  # checks that the archive is whole
                return
        raise ValueError("more follows its end")


class _Header(tarfile.TarInfo):
    """A header of a tar, which may not claim a name of gigabytes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """The header in 512 bytes."""
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _NAMES and header.size > _LONGEST_NAME):
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header
