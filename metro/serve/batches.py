"""Dynamic batching: one thread owns the network, and people of requests that wait at the same time share a pass."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from metro.errors import MetroError
from metro.export.predictor import Box, Photo, Prediction, Predictor


@dataclass(frozen=True, eq=False)
class _Job:
    photo: Photo
    boxes: Sequence[Box] | None
    left_hand: bool
    answer: Future[list[Prediction]] = field(default_factory=Future)

    @property
    def people(self) -> int:
        return 1 if self.boxes is None else len(self.boxes)


class Batches:
    """A predictor that many threads may ask.

    Parameters
    ----------
    predictor
        What answers.
    size
        People per forward pass. A batch is full when it has as many; a picture is never divided among batches.
    wait_s
        Time that the first picture of a batch waits for others, seconds.
    """

    def __init__(self, predictor: Predictor, size: int, wait_s: float) -> None:
        self._predictor, self._size, self._wait_s = predictor, size, wait_s
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed, self._lock = False, threading.Lock()
        self._thread = threading.Thread(target=self._work, name="metro-batches", daemon=True)
        self._thread.start()

    def submit(self, photo: Photo, boxes: Sequence[Box] | None, left_hand: bool = False) -> Future[list[Prediction]]:
        """Ask for the people of one picture; what is wrong with it is raised by the future.

        Raises
        ------
        RuntimeError
            It is closed.
        """
        job = _Job(photo, boxes, left_hand)
        with self._lock:
            if self._closed:
                raise RuntimeError("asked for a prediction after the end")
            self._jobs.put(job)
        return job.answer

    def close(self) -> None:
        """Answer what was asked before, and end the thread."""
        with self._lock:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        last = False
        while not last:
            batch, last = self._collect()
            for left_hand in (False, True):
                if jobs := [job for job in batch if job.left_hand == left_hand]:
                    self._answer(jobs, left_hand)

    def _collect(self) -> tuple[list[_Job], bool]:
        """The jobs of the next batch, and whether it is the last."""
        batch: list[_Job] = []
        deadline = 0.0
        while sum(job.people for job in batch) < self._size:
            try:
                job = self._jobs.get(timeout=max(0.0, deadline - time.monotonic()) if batch else None)
            except queue.Empty:
                break
            if job is None:
                return batch, True
            if not batch:
                deadline = time.monotonic() + self._wait_s
            batch.append(job)
        return batch, False

    def _answer(self, jobs: list[_Job], left_hand: bool) -> None:
        try:
            people = self._predictor(
                [job.photo for job in jobs],
                [job.boxes for job in jobs],
                batch_size=self._size,
                left_hand=left_hand,
            )
        except MetroError as err:
            if len(jobs) == 1:
                jobs[0].answer.set_exception(err)
                return
            for job in jobs:  # each its own answer: the mistake is in one of them
                self._answer([job], left_hand)
        except Exception as err:
            for job in jobs:
                job.answer.set_exception(err)
        else:
            for number, job in enumerate(jobs):
                job.answer.set_result([person for person in people if person.picture == number])
