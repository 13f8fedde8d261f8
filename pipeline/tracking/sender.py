"""Metrics on their way to the store, sent in batches by a thread of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

FLUSH_SECONDS = 5.0
FLUSH_VALUES = 500
BATCH_VALUES = 1000  # the most that MLflow takes in one request
RETRY_SECONDS = 60.0


class Sender:
    """A buffer that is sent every few seconds, and kept where the store does not take it.

    MLflow's own asynchronous logging (``synchronous=False``) has a thread and a queue as well, but it drops a batch
    that the store refused: a server that restarts in the middle of a training would leave a hole in every curve.

    Parameters
    ----------
    send
        Sends a batch of at most `BATCH_VALUES` and tells whether it arrived.
    """

    def __init__(self, send: Callable[[Sequence[Any]], bool]) -> None:
        self._send = send
        self._buffer: list[Any] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._sending: Future[None] | None = None
        self._due = time.monotonic() + FLUSH_SECONDS

    def put(self, values: Sequence[Any]) -> None:
        """Take values along."""
        self._buffer += values
        if len(self._buffer) >= FLUSH_VALUES or time.monotonic() >= self._due:
            self._flush()

    def close(self) -> list[Any]:
        """Send what is left; returns the values that could not be sent."""
        if self._sending is not None:
            self._sending.result()
        self._flush()
        self._thread.shutdown(wait=True)
        return self._buffer

    def _flush(self) -> None:
        if self._sending is not None and not self._sending.done():
            return
        waiting, self._buffer = self._buffer, []
        self._due = time.monotonic() + FLUSH_SECONDS
        if waiting:
            self._sending = self._thread.submit(self._work_off, waiting)

    def _work_off(self, waiting: list[Any]) -> None:
        for start in range(0, len(waiting), BATCH_VALUES):
            if not self._send(waiting[start : start + BATCH_VALUES]):
                self._buffer[:0] = waiting[start:]  # in place: `put` may be adding to it
                self._due = time.monotonic() + RETRY_SECONDS
                return
