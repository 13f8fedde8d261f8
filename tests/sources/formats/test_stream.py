"""Streamed JSON against `json.loads`, and files that are none."""

import json
import tracemalloc
from contextlib import suppress
from pathlib import Path

import ijson
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metro.errors import MetroError
from metro.sources.formats import stream

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stream") / "set.json"


def read(path: Path, content: str | bytes, prefix: str = "annotations.item") -> list:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(stream.items(path, prefix))


@given(st.lists(VALUES, max_size=5), st.booleans())
@settings(deadline=None, max_examples=60)
@example(['a \\" NaN, \\\\'], True)
def test_items_are_those_of_json(file: Path, values: list, ascii_only: bool) -> None:
    content = json.dumps({"images": [1], "annotations": values, "more": {"a": []}}, ensure_ascii=ascii_only)
    got = read(file, content)
    assert got == values
    assert [type(x) for x in got] == [type(x) for x in values]


@given(st.dictionaries(NAMES, VALUES, max_size=5))
@settings(deadline=None, max_examples=30)
def test_entries_are_those_of_json(file: Path, values: dict) -> None:
    file.write_text(json.dumps({"info": 1, "fits": values}))
    assert dict(stream.entries(file, "fits")) == values
    file.write_text(json.dumps(values))
    assert dict(stream.entries(file)) == values


def test_a_list_without_a_name(file: Path) -> None:
    assert read(file, "[[1.5, 2], [3, 4]]", "item") == [[1.5, 2], [3, 4]]
    assert read(file, "[]", "item") == []
    assert read(file, '{"annotations": []}') == []


def test_what_json_does_not_know_is_none_wherever_a_piece_ends(file: Path) -> None:
    """Python writes NaN; as a word of a text it stays."""
    texts = ["NaN", 'a "NaN", -Infinity \\', "BaNaNa"]
    values = [*texts, float("nan"), [1.0, float("inf")], -float("inf"), {"NaN": float("nan")}]
    length = len(json.dumps(values))
    for shift in range(length):
        pad = "x" * (stream._PIECE - len('{"annotations": ["", ') - shift)
        got = read(file, json.dumps({"annotations": [pad, *values]}))
        assert got == [pad, *texts, None, [1.0, None], None, {"NaN": None}]
    assert np.isnan(np.array(got[5], np.float64)).tolist() == [False, True]


def test_a_text_of_backslashes_longer_than_a_piece(file: Path) -> None:
    for count in (stream._PIECE - 20, stream._PIECE, stream._PIECE + 1):
        values = ["\\" * count + '"', "NaN", float("nan")]
        assert read(file, json.dumps({"annotations": values})) == [*values[:2], None]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "premature EOF"),
        (b'{"annotations": [{"id": 1}, {"id"', "not valid JSON before byte 33"),
        (b'{"annotations": [1, 2]', "not valid JSON"),
        (b'{"annotations": [1 2]}', "not valid JSON"),
        (b'{"annotations": [nan]}', "not valid JSON"),
        (b'{"annotations": [NaNa]}', "not valid JSON"),
        (b'{"annotations": ["\xff"]}', "not valid JSON"),
        (b'{"annotations": [1]} {}', "not valid JSON"),
        (b'{"annotations": [1e999]}', "not valid JSON"),
        (b'{"annotations": [' + b"9" * 30 + b"]}", "not valid JSON"),
        (b"\x89HDF\r\n", "not valid JSON"),
        (b'{"images": [1]}', "has no list 'annotations'"),
        (b'{"annotations": {"a": 1}}', "has no list 'annotations'"),
        (b"[1]", "has no list 'annotations'"),
        (b'{"annotations": ' + b"[" * 100_000, "nested more than 1000 levels"),
        (b'{"annotations": [' + b'{"a":' * 100_000, "nested more than 1000 levels"),
    ],
)
def test_one_line_says_what_is_wrong(file: Path, content: bytes, said: str) -> None:
    with pytest.raises(MetroError, match=said) as err:
        read(file, content)
    assert "set.json" in str(err.value)


def test_missing_files_and_objects(file: Path, tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=r"none\.json: missing"):
        list(stream.items(tmp_path / "none.json", "item"))
    file.write_text("[1]")
    with pytest.raises(MetroError, match="is no object"):
        list(stream.entries(file))


def test_a_key_that_comes_twice_is_given_twice(file: Path) -> None:
    file.write_text('{"7": 1, "7": 2}')
    assert list(stream.entries(file)) == [("7", 1), ("7", 2)]
    assert read(file, '{"annotations": [1], "annotations": [2]}') == [1, 2]


@given(st.binary(max_size=60), st.integers(0, 200))
@settings(deadline=None, max_examples=80)
def test_damage_is_an_error_or_other_values(file: Path, noise: bytes, at: int) -> None:
    content = json.dumps({"annotations": [{"id": k, "box": [0.5, 2, 3]} for k in range(6)]}).encode()
    with suppress(MetroError):
        read(file, content[:at] + noise + content[at + len(noise) :])


def test_memory_holds_one_item(file: Path) -> None:
    item = json.dumps({"keypoints": list(range(51)), "file": "NaN"})
    file.write_text('{"annotations": [' + ",".join([item] * 5_000) + "]}")
    tracemalloc.start()
    assert sum(1 for _ in stream.items(file, "annotations.item")) == 5_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < file.stat().st_size / 4


def test_the_parser_is_the_fast_one() -> None:
    """ijson falls back, silently, to parsers that need minutes per GB."""
    assert ijson.backend == "yajl2_c"
