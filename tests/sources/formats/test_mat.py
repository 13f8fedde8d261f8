"""MATLAB files as SciPy and h5py write them."""

import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from metro.errors import MetroError
from metro.sources.formats.mat import cells, count_cells, number, read_mat, structs

NUMBERS = np.arange(6.0).reshape(2, 3) / 4


def same(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(b, list):
        return isinstance(a, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(b, dict):
        return isinstance(a, dict) and list(a) == list(b) and all(map(same, a.values(), b.values()))
    return type(a) is type(b) and a == b


def array_of(*structs_: dict[str, Any]) -> np.ndarray:
    array = np.empty((1, len(structs_)), [(name, object) for name in structs_[0]])
    for k, values in enumerate(structs_):
        array[0, k] = tuple(values.values())
    return array


def people() -> dict[str, Any]:
    """The alternatives of MPII: struct, array or empty; numbers as text or empty."""
    point = {"x": 1.5, "is_visible": "1"}
    other = {"x": np.uint8(7), "is_visible": np.empty((0, 0))}
    several = array_of({"scale": 2.0, "point": array_of(point, other)}, {"scale": 3.25, "point": np.empty((0, 0))})
    return {"one": array_of({"scale": 2.5}), "several": several, "none": np.empty((0, 0))}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["<", ">"])
def test_version_5(tmp_path: Path, compressed: bool, kind: str) -> None:
    path = tmp_path / "a.mat"
    many = np.array([[np.arange(300.0), "x"], [np.int16([[1], [2]]), "ä"]], object)
    content = {
        "ignored": NUMBERS,
        "numbers": NUMBERS.astype(f"{kind}f8"),
        "single": np.float32([[1, 2]]),
        "small": np.uint8([[1], [2]]),
        "one": -7.5,
        "text": "image é.jpg",
        "lines": np.array(["ab", "cd"]),
        "cells": many,
        "people": people(),
        "nothing": np.empty((0, 3)),
        "blank": "",
    }
    scipy.io.savemat(path, content, do_compression=compressed)
    got = read_mat(path, [name for name in content if name != "ignored"])
    point = [{"x": 1.5, "is_visible": "1"}, {"x": 7, "is_visible": np.empty((0, 0))}]
    assert same(
        got,
        {
            "numbers": NUMBERS,
            "single": np.float32([[1, 2]]),
            "small": np.uint8([[1], [2]]),
            "one": -7.5,
            "text": "image é.jpg",
            "lines": ["ab", "cd"],
            "cells": [np.arange(300.0)[None], np.int16([[1], [2]]), "x", "ä"],  # column by column
            "people": [
                {
                    "one": [{"scale": 2.5}],
                    "several": [{"scale": 2.0, "point": point}, {"scale": 3.25, "point": np.empty((0, 0))}],
                    "none": np.empty((0, 0)),
                }
            ],
            "nothing": np.empty((0, 3)),
            "blank": "",
        },
    )


def element(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)


def test_version_5_of_another_byte_order(tmp_path: Path) -> None:
    """By hand from the format's description: SciPy writes its own order alone."""
    parts = [
        element(6, struct.pack(">II", 6, 0)),  # double
        element(5, struct.pack(">ii", 2, 1)),
        struct.pack(">HH", 1, 1) + b"a\0\0\0",  # a small element: the name
        element(3, struct.pack(">hh", -5, 300)),  # stored as int16
    ]
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    (tmp_path / "a.mat").write_bytes(header + element(14, b"".join(parts)))
    assert same(read_mat(tmp_path / "a.mat", ["a"]), {"a": np.array([[-5.0], [300.0]])})


def marked(stored: Any, kind: str) -> Any:
    stored.attrs["MATLAB_class"] = np.bytes_(kind)
    return stored


def write_73(path: Path) -> Path:
    """As MATLAB does: a block of 512 bytes first, axes reversed, cells as references into ``#refs#``."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")

        def hidden(name: str, value: np.ndarray, kind: str) -> h5py.Reference:
            return marked(refs.create_dataset(name, data=value), kind).ref

        def empty(parent: h5py.Group, name: str, kind: str) -> h5py.Dataset:
            stored = marked(parent.create_dataset(name, data=np.uint64([0, 0])), kind)
            stored.attrs["MATLAB_empty"] = np.uint8(1)
            return stored

        marked(file.create_dataset("numbers", data=NUMBERS.T), "double")
        marked(file.create_dataset("one", data=[[2.5]]), "double")
        marked(file.create_dataset("text", data=np.uint16([[ord(c)] for c in "é.avi"])), "char")
        cell = [
            [hidden("a", NUMBERS.T, "double"), hidden("b", np.uint16([[120]]), "char")],
            [empty(refs, "c", "double").ref] * 2,
        ]
        marked(file.create_dataset("cells", data=np.array(cell, h5py.ref_dtype), dtype=h5py.ref_dtype), "cell")
        single = marked(file.create_group("single"), "struct")
        marked(single.create_dataset("scale", data=[[2.5]]), "double")
        empty(single, "name", "char")
        several = marked(file.create_group("several"), "struct")
        for field, values in {"x": (1.5, 2.5), "y": (3.0, 4.0)}.items():
            both = [[hidden(f"{field}{k}", np.array([[v]]), "double")] for k, v in enumerate(values)]
            several.create_dataset(field, data=np.array(both, h5py.ref_dtype), dtype=h5py.ref_dtype)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def test_version_73(tmp_path: Path) -> None:
    path = write_73(tmp_path / "a.mat")
    got = read_mat(path, ["numbers", "one", "text", "cells", "single", "several"])
    assert same(
        got,
        {
            "numbers": NUMBERS,
            "one": 2.5,
            "text": "é.avi",
            "cells": [NUMBERS, "x", np.empty((0, 0)), np.empty((0, 0))],
            "single": [{"name": "", "scale": 2.5}],
            "several": [{"x": 1.5, "y": 3.0}, {"x": 2.5, "y": 4.0}],
        },
    )
    assert same(list(cells(path, "cells", [1, 0])), ["x", NUMBERS])
    assert count_cells(path, "cells") == 4
    for wrong in ([4], [-1]):
        with pytest.raises(MetroError, match=f"no cell {wrong[0]} among the 4"):
            list(cells(path, "cells", wrong))


def test_cells_of_version_5(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"c": np.array([[NUMBERS], ["x"]], object), "n": NUMBERS})
    assert same(list(cells(tmp_path / "a.mat", "c", [1, 0])), ["x", NUMBERS])
    with pytest.raises(MetroError, match="no cell 2 among the 2"):
        list(cells(tmp_path / "a.mat", "c", [2]))
    with pytest.raises(MetroError, match="n is no cell array"):
        count_cells(tmp_path / "a.mat", "n")


def test_nothing_leads_out_of_a_file(tmp_path: Path) -> None:
    path, outside = write_73(tmp_path / "a.mat"), tmp_path / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["secret"] = NUMBERS
    (tmp_path / "raw").write_bytes(NUMBERS.tobytes())
    with h5py.File(path, "r+") as file:
        file["external"] = h5py.ExternalLink("outside.h5", "secret")
        file["soft"] = h5py.SoftLink("/numbers")
        file.create_dataset("bytes", (6,), "f8", external=[(str(tmp_path / "raw"), 0, 48)])
        layout = h5py.VirtualLayout((2, 3), "f8")
        layout[:] = h5py.VirtualSource(outside, "secret", (2, 3))
        file.create_virtual_dataset("virtual", layout)
        marked(file.create_group("struct"), "struct")["field"] = h5py.ExternalLink("outside.h5", "secret")
    for name in ("external", "soft", "struct"):
        with pytest.raises(MetroError, match="is a link to elsewhere"):
            read_mat(path, [name])
    for name in ("bytes", "virtual"):
        with pytest.raises(MetroError, match="lies in another file"):
            read_mat(path, [name])


def test_references_in_circles_and_claims(tmp_path: Path) -> None:
    path = write_73(tmp_path / "a.mat")
    with h5py.File(path, "r+") as file:
        loop = marked(file.create_dataset("loop", (2,), h5py.ref_dtype), "cell")
        loop[:] = [loop.ref, loop.ref]
        below = file["numbers"].ref
        for level in range(30):  # 2^30 values if each reference were followed
            stored = marked(file.create_dataset(f"level{level}", (2,), h5py.ref_dtype), "cell")
            stored[:] = [below, below]
            below = stored.ref
        marked(file.create_dataset("null", (2,), h5py.ref_dtype), "cell")
        file.create_dataset("huge", (1 << 20, 1 << 20), "f8", chunks=(8, 8))
        odd = file.create_dataset("odd", data=NUMBERS)
        odd.attrs["MATLAB_class"] = "double"  # text of free length
        file["group"] = NUMBERS.astype(complex)
    for name, said in {
        "loop": "within itself",
        "null": "reference to nothing",
        "huge": "more than 1 GiB",
        "odd": "class that is none",
        "group": "neither numbers",
    }.items():
        with pytest.raises(MetroError, match=said):
            read_mat(path, [name])
    assert len(read_mat(path, ["level29"])["level29"]) == 2


def test_missing_variables_and_other_files(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"a": 1.0})
    for stored in (path, write_73(tmp_path / "b.mat")):
        with pytest.raises(MetroError, match="holds no variable 'annot2'"):
            read_mat(stored, ["annot2"])
    with pytest.raises(MetroError, match="missing"):
        read_mat(tmp_path / "none.mat", ["a"])
    for content in (b"", b"<html>", b"\x89HDF\r\n\x1a\n", bytes(200)):
        path.write_bytes(content)
        with pytest.raises(MetroError, match=r"a\.mat: "):
            read_mat(path, ["a"])


@pytest.mark.parametrize(
    ("value", "said"), [(1j * NUMBERS, "complex"), (scipy.sparse.csc_matrix(NUMBERS), "a sparse matrix")]
)
def test_what_is_no_plain_value_is_refused(tmp_path: Path, value: Any, said: str) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"a": value})
    with pytest.raises(MetroError, match=said):
        read_mat(tmp_path / "a.mat", ["a"])


def nested(levels: int) -> bytes:
    """Cells within cells."""
    inner = b""
    for _ in range(levels):
        order = "<"
        flags = struct.pack(f"{order}IIII", 6, 8, 1, 0) + struct.pack(f"{order}IIii", 5, 8, 1, 1)
        content = flags + struct.pack(f"{order}II", 1 | 1 << 16, ord("a")) + (inner or struct.pack("<II", 14, 0))
        inner = struct.pack("<II", 14, len(content)) + content
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + inner


def test_deep_cells_and_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(nested(5))
    value = read_mat(path, ["a"])["a"]
    for _ in range(4):
        (value,) = value
    assert value[0].shape == (0, 0)
    path.write_bytes(nested(2000))
    with pytest.raises(MetroError, match="nested too deeply"):
        read_mat(path, ["a"])
    bomb = nested(1)[128:]
    inner = bytearray(bomb)
    struct.pack_into("<ii", inner, 32, 1 << 15, 1 << 15)
    path.write_bytes(nested(1)[:128] + bytes(inner))
    with pytest.raises(MetroError, match="1073741824 cells or fields in 8 bytes"):
        read_mat(path, ["a"])
    packed = zlib.compress(bytes(bomb) + bytes(1 << 22), 9)
    path.write_bytes(nested(1)[:128] + struct.pack("<II", 15, len(packed) // 2) + packed[: len(packed) // 2])
    with pytest.raises(MetroError, match="cut off"):
        read_mat(path, ["a"])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mat") / "small.mat"
    scipy.io.savemat(path, {"people": people(), "c": np.array([[NUMBERS], ["x"]], object)})
    return path


@given(st.data())
@settings(deadline=None, max_examples=80)
def test_damage_is_one_line(stored: Path, data: st.DataObject) -> None:
    raw = bytearray(stored.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(120, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = stored.with_name("damaged.mat")
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    with suppress(MetroError):
        read_mat(path, ["people", "c"])


def test_alternatives_of_structs_and_numbers() -> None:
    one = [{"x": 1.0}]
    assert structs(one) is one
    assert structs(None) == structs(np.empty((0, 0))) == structs([]) == []
    for value in (3.0, "text", NUMBERS, ["a"]):
        with pytest.raises(ValueError, match="where structs are expected"):
            structs(value)
    assert [number(v) for v in (2, 2.5, "1", " 0 ")] == [2.0, 2.5, 1.0, 0.0]
    assert [number(v) for v in (None, "", " ", [], np.empty((0, 0)))] == [None] * 5
    for value in (NUMBERS, [{"x": 1}], "left"):
        with pytest.raises(ValueError, match=r"number|float"):
            number(value)
