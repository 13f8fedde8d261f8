"""What reads MediaPipe's files; `tests/model/test_blazepose.py` tells whether the right numbers come out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from metro.errors import MetroError
from tools.blazepose import convert
from tools.blazepose.tflite import Graph, Operator, dense, leading_to, read_graph


def operator(kind: str, inputs: tuple[int, ...], output: int, *constants: np.ndarray) -> Operator:
    return Operator(kind, inputs, constants, output, (1,), {})


def axis(size: int = 0, segments: list[int] | None = None, indices: list[int] | None = None) -> SimpleNamespace:
    """An axis of a sparse tensor: dense of a size, or with the places that are filled."""
    held = (SimpleNamespace(values=values) for values in (segments, indices))
    return SimpleNamespace(
        format=int(segments is not None), denseSize=size, arraySegments=next(held), arrayIndices=next(held)
    )


def test_sparse_rows_are_filled_in() -> None:
    rows = SimpleNamespace(traversalOrder=[0, 1], dimMetadata=[axis(3), axis(0, [0, 2, 2, 3], [0, 3, 1])])
    filled = dense(np.array([1, 2, 3]), SimpleNamespace(sparsity=rows, shape=[3, 4]))
    assert filled.tolist() == [[1, 0, 0, 2], [0, 0, 0, 0], [0, 3, 0, 0]]


def test_sparse_columns_are_filled_in() -> None:
    columns = SimpleNamespace(traversalOrder=[1, 0], dimMetadata=[axis(4), axis(0, [0, 1, 1, 1, 3], [2, 0, 1])])
    filled = dense(np.array([1, 2, 3]), SimpleNamespace(sparsity=columns, shape=[3, 4]))
    assert filled.tolist() == [[0, 0, 0, 2], [0, 0, 0, 3], [1, 0, 0, 0]]


def test_operators_come_branch_by_branch_and_without_those_that_nothing_needs() -> None:
    stem, left, right = operator("A", (0,), 1), operator("B", (1,), 2), operator("C", (1,), 3)
    more, join, other = operator("D", (2,), 4), operator("E", (4, 3), 5), operator("F", (3,), 6)
    graph = Graph((0,), (5, 6), (stem, right, left, other, more, join))
    assert [step.kind for step in leading_to(graph, [5])] == ["A", "B", "D", "C", "E"]
    assert [step.kind for step in leading_to(graph, [6])] == ["A", "C", "F"]


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A file with a depthwise convolution, a linear layer and one layer that is not needed; the first's weights."""
    filters = np.arange(18, dtype=np.float16).reshape(1, 3, 3, 2)
    steps = (
        operator("DEPTHWISE_CONV_2D", (0,), 1, filters, np.zeros(2, np.float16)),
        operator("MEAN", (1,), 2, np.array([1, 2])),
        operator("FULLY_CONNECTED", (2,), 3, np.ones((4, 2), np.float16), np.arange(4, dtype=np.float16)),
        operator("FULLY_CONNECTED", (2,), 4, np.ones((1, 2), np.float16), np.zeros(1, np.float16)),
    )
    monkeypatch.setattr(convert, "read_graph", lambda path: Graph((0,), (3, 4), steps))
    return filters


def test_layers_take_their_constants(file: np.ndarray) -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Linear(2, 4))
    state = convert.tensors(Path("a.tflite"), network, (0,), unused=1)
    assert list(state) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert all(value.dtype == torch.float16 for value in state.values())
    assert np.array_equal(state["0.weight"][1, 0], file[0, :, :, 1])
    assert state["1.bias"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("network", "unused", "said"),
    [
        (
            nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Linear(2, 4)),
            0,
            "2 layers and 1 that are not needed, not 2 and 0",
        ),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), 1, "2 layers and 1 that are not needed, not 1 and 1"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Linear(2, 5)), 1, "tensor 3 is no 1"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 4, 1)), 1, "tensor 3 is no 1"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Linear(2, 4), nn.BatchNorm1d(4)), 1, "has nothing for"),
    ],
)
def test_another_network_is_refused(file: np.ndarray, network: nn.Module, unused: int, said: str) -> None:
    with pytest.raises(MetroError, match=said):
        convert.tensors(Path("a.tflite"), network, (0,), unused)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=r"none\.tflite: No such file"):
        read_graph(tmp_path / "none.tflite")
    (tmp_path / "a.tflite").write_bytes(b"no flatbuffer")
    with pytest.raises(MetroError, match=r"a\.tflite: no tflite file"):
        read_graph(tmp_path / "a.tflite")
