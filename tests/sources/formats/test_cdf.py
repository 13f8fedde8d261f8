"""CDF files against the library that writes them."""

import itertools
import struct
from contextlib import suppress
from pathlib import Path

import cdflib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metro.errors import MetroError
from metro.sources.formats.cdf import read_pose

POSE = np.random.default_rng(0).normal(0, 1000, (1, 12, 96)).astype(np.float32)


def write(path: Path, spec: dict | None = None, **of_variable: object) -> Path:
    variable = {"Variable": "Pose", "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True, "Var_Type": "zVariable",
                "Dim_Sizes": [12, 96], "Compress": 0, **of_variable}  # fmt: skip
    file = cdflib.cdfwrite.CDF(path, {"Majority": "row_major", **(spec or {})}, delete=True)
    pose = POSE.astype(np.float64) if variable["Data_Type"] == 45 else POSE
    file.write_var(variable, var_data=pose.reshape(-1, *variable["Dim_Sizes"]))
    file.close()
    return path


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("cdf") / "pose.cdf").read_bytes()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cdf") / "damaged.cdf"


@pytest.mark.parametrize("packed", [0, 6])
@pytest.mark.parametrize("big_endian", [True, False])
def test_numbers_are_those_written(tmp_path: Path, packed: int, big_endian: bool) -> None:
    """Row by row, with and without checksum, file and variable compressed or not, in both byte orders."""
    for whole, checksum, doubles in itertools.product((0, 6), (False, True), (44, 45)):
        spec = {"Compressed": whole, "Encoding": 1 if big_endian else 6, "Checksum": checksum}
        got = read_pose(write(tmp_path / "pose.cdf", spec, Compress=packed, Data_Type=doubles))
        assert got.dtype == np.float64
        assert np.array_equal(got, POSE[0])


def test_a_frame_per_record_is_the_same(tmp_path: Path) -> None:
    assert np.array_equal(read_pose(write(tmp_path / "pose.cdf", Dim_Sizes=[96])), POSE[0])
    older = write(tmp_path / "older.cdf", {"rDim_sizes": [12, 96]}, Var_Type="rVariable", Dim_Vary=[True, True])
    assert np.array_equal(read_pose(older), POSE[0])


def test_numbers_column_by_column(tmp_path: Path) -> None:
    path = write(tmp_path / "pose.cdf", {"Majority": "column_major"})
    assert np.array_equal(read_pose(path), cdflib.CDF(path).varget("Pose")[0])
    assert not np.array_equal(read_pose(path), read_pose(write(tmp_path / "rows.cdf")))


def test_another_variable(tmp_path: Path) -> None:
    with pytest.raises(MetroError, match="no variable Pose"):
        read_pose(write(tmp_path / "pose.cdf", Variable="Mask"))
    with pytest.raises(MetroError, match="type 4 where floats"):
        read_pose(write(tmp_path / "pose.cdf", Data_Type=4))


def test_a_file_cut_anywhere_gives_no_frames(raw: bytes, file: Path) -> None:
    for size in (*range(0, len(raw), 97), len(raw) - 1):
        file.write_bytes(raw[:size])
        with pytest.raises(MetroError, match=r"damaged\.cdf: "):
            read_pose(file)


def test_frames_that_are_not_there_are_not_zeros(raw: bytes, file: Path) -> None:
    at = raw.index(b"Pose") - 84
    damaged = bytearray(raw)
    struct.pack_into(">i", damaged, at + 344, 13)
    file.write_bytes(damaged)
    assert not cdflib.CDF(file).varget("Pose")[0, 12].any(), "the library gives a frame of zeros"
    with pytest.raises(MetroError, match="record 0 of 1 is not there"):
        read_pose(file)


def test_counts_that_lie_are_no_work(raw: bytes, file: Path) -> None:
    """Every 4 bytes in turn claim billions."""
    values = raw.index(POSE.astype("<f4").tobytes()[:64])
    for at in range(8, len(raw) - 4, 4):
        if values <= at < values + POSE.nbytes:
            continue
        file.write_bytes(raw[:at] + b"\x7f\xff\xff\xf0" + raw[at + 4 :])
        with suppress(MetroError):
            assert np.array_equal(read_pose(file), POSE[0])


@given(st.data())
@settings(deadline=None, max_examples=80)
def test_damage_is_one_line(raw: bytes, file: Path, data: st.DataObject) -> None:
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 800))] = data.draw(st.integers(0, 255))
    file.write_bytes(damaged)
    with suppress(MetroError):
        assert read_pose(file).ndim == 2


def test_other_files(tmp_path: Path) -> None:
    for content in (b"", b"\x89HDF\r\n\x1a\n", b"<html>", b"\xcd\xf3\x00\x01\xcc\xcc\x00\x01" + bytes(100)):
        (tmp_path / "a.cdf").write_bytes(content)
        with pytest.raises(MetroError, match=r"a\.cdf: "):
            read_pose(tmp_path / "a.cdf")
    with pytest.raises(MetroError, match="missing"):
        read_pose(tmp_path / "none.cdf")


@pytest.mark.parametrize("start", [b"\xcd\xf2\x60\x02", b"\x00\x00\xff\xff"])
def test_a_damaged_file_of_an_older_version_is_one_line(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "old.cdf"
    path.write_bytes(start + bytes(range(256)) * 8)
    with pytest.raises(MetroError, match=r"old\.cdf: .*; get it again from where it came$"):
        read_pose(path)
