"""Child processes of a flow: each in a group of its own, output streamed, none left behind.

They are told to end when this process ends without having done so: killed, or left by a terminal.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

GRACE_SECONDS = 10.0
"""Time between asking a group to end and ending it: more than `pipeline.stage` takes at most."""
TAIL_LINES = 15

_PERCENT = re.compile(r"(?<![\d.])(\d{1,3})%\|")
_OF = re.compile(r"^step (\d+)/(\d+)")


@dataclass(frozen=True)
class Finished:
    """How a process ended."""

    status: int
    seconds: float
    tail: tuple[str, ...]
    """Its last lines."""


class Group:
    """The processes of one flow run; `kill` ends them with everything they started."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def run(
        self,
        command: Sequence[str],
        *,
        say: Callable[[str], None],
        progress: Callable[[float], None] = lambda share: None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float | None = None,
    ) -> Finished:
        """Run a command to its end.

        Parameters
        ----------
        command
            Program and arguments.
        say
            Called with each line of output; redrawn progress bars are not lines.
        progress
            Called with the share done, in percent, where the output tells it: a progress bar or ``step K/N``.
        env
            Variables added to the environment.
        cwd
            Working directory.
        timeout
            Seconds after which it is ended.
        """
        began = time.monotonic()
        with self._lock:
            if self.stopped:
                return Finished(-signal.SIGTERM, 0.0, ("the flow is being stopped",))
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.child", str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
            self._running.add(process)
        watchdog = threading.Timer(timeout, _end, [process]) if timeout else None
        if watchdog:
            watchdog.daemon = True
            watchdog.start()
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            assert process.stdout is not None
            for line, whole in _lines(process.stdout):
                share = _share(line)
                if share is not None:
                    progress(share)
                if whole and line.strip():
                    tail.append(line)
                    say(line)
            status = process.wait()
        finally:
            if watchdog:
                watchdog.cancel()
            with self._lock:
                self._running.discard(process)
        seconds = time.monotonic() - began
        if timeout and seconds >= timeout and status != 0:
            tail.append(f"ended after its time limit of {timeout:.0f} s")
        return Finished(status, seconds, tuple(tail))

    def kill(self) -> None:
        """End all processes, politely first, and let none start any more."""
        with self._lock:
            self.stopped = True
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(_alive(process) for process in running):
            time.sleep(0.1)
        for process in running:
            _signal(process, signal.SIGKILL)


@contextmanager
def killed_on_sigterm(group: Group) -> Iterator[None]:
    """End the group when this process is asked to end, then end this process.

    Prefect ends the process of a cancelled run but not what that process started. Its own handler is left out: it would
    call the run crashed before the worker, which knows better, can call it cancelled. Outside the main thread, where
    signals cannot be caught, it does nothing.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        group.kill()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _lines(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Pieces of the output as they come, and whether each is a whole line (or a progress bar being redrawn)."""
    pending = b""
    while chunk := os.read(stream.fileno(), 65536):
        pending += chunk
        while match := re.search(rb"[\r\n]", pending):
            piece, end, pending = pending[: match.start()], pending[match.start() : match.end()], pending[match.end() :]
            text = piece.decode("utf-8", "replace").rstrip()
            yield text, end == b"\n" and _PERCENT.search(text) is None
    if pending:
        yield pending.decode("utf-8", "replace").rstrip(), True


def _share(line: str) -> float | None:
    if found := _PERCENT.search(line):
        return float(found[1])
    if found := _OF.match(line):
        return 100 * int(found[1]) / max(int(found[2]), 1)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and _alive(process):
        time.sleep(0.1)
    _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], which: signal.Signals) -> None:
    try:
        os.killpg(process.pid, which)
    except (ProcessLookupError, PermissionError):
        return


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything of the process's group is left; its leader is reaped on the way."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
