"""Requests that wait at the same time share a pass, and a mistake costs only who made it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from metro.errors import MetroError
from metro.export.predictor import Photo
from metro.serve.batches import Batches


class Answer:
    def __init__(self, picture: int, source: str) -> None:
        self.picture, self.source = picture, source


class Recorder:
    """Answers with the name of each picture, once per box, and keeps who came together."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, photos: list[Photo], boxes: list[Any], *, batch_size: int, left_hand: bool) -> list[Answer]:
        self.passes.append([f"{photo.source}{' left' * left_hand}" for photo in photos])
        self.started.set()
        assert self.go.wait(10)
        if any(photo.source == "bad" for photo in photos):
            raise MetroError("bad: damaged")
        if any(photo.source == "worse" for photo in photos):
            raise ZeroDivisionError
        return [Answer(k, p.source) for k, (p, b) in enumerate(zip(photos, boxes, strict=True)) for _ in b or [0]]


def photo(name: str) -> Photo:
    return Photo(np.zeros((1, 1, 3), np.uint8), name)


def batches(recorder: Any, size: int = 4) -> Batches:
    return Batches(recorder, size, wait_s=0.2)


def test_those_that_wait_go_together_up_to_the_size_of_a_batch() -> None:
    recorder = Recorder()
    asked = batches(recorder)
    first = asked.submit(photo("first"), [[0, 0, 1, 1]] * 4)
    assert recorder.started.wait(10)
    others = [asked.submit(photo(f"{k}"), [[0, 0, 1, 1]] * k) for k in (1, 2, 3)]
    late = asked.submit(photo("late"), None)
    recorder.go.set()
    assert [one.source for one in first.result(10)] == ["first"] * 4
    assert [[one.source for one in other.result(10)] for other in others] == [["1"], ["2"] * 2, ["3"] * 3]
    assert len(late.result(10)) == 1
    asked.close()
    assert recorder.passes == [["first"], ["1", "2", "3"], ["late"]]


def test_a_mistake_costs_only_who_made_it() -> None:
    recorder = Recorder()
    asked = batches(recorder)
    recorder.go.set()
    futures = [asked.submit(photo(name), None) for name in ("a", "bad", "b")]
    assert futures[0].result(10)[0].source == "a"
    with pytest.raises(MetroError, match="bad: damaged"):
        futures[1].result(10)
    assert futures[2].result(10)[0].source == "b"
    with pytest.raises(ZeroDivisionError):
        asked.submit(photo("worse"), None).result(10)
    assert asked.submit(photo("c"), None).result(10)[0].source == "c"
    asked.close()


def test_left_hands_pass_by_themselves() -> None:
    recorder = Recorder()
    recorder.go.set()
    asked = batches(recorder)
    futures = [asked.submit(photo(f"{k}"), None, left_hand=k % 2 == 1) for k in range(4)]
    assert [future.result(10)[0].source for future in futures] == ["0", "1", "2", "3"]
    asked.close()
    assert recorder.passes == [["0", "2"], ["1 left", "3 left"]]


def test_what_was_asked_before_the_end_is_answered() -> None:
    recorder = Recorder()
    recorder.go.set()
    asked = batches(recorder)
    futures = [asked.submit(photo(f"{k}"), None) for k in range(9)]
    asked.close()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError):
        asked.submit(photo("late"), None)
