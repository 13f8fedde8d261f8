"""Workers of this machine: what is said when they end or never start, and that none is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import cv2
import psutil
import pytest

from metro.data.parallel import map_shards

UNGUARDED = """
from metro.data.parallel import map_shards
map_shards(abs, [1, 2, 3], workers=2)
"""
GUARDED = """
import os, sys, time
from metro.data.parallel import map_shards

def work(job):
    if job == "die":
        os.kill(os.getpid(), 9)
    os.write(1, b"begun\\n")
    time.sleep(600)

if __name__ == "__main__":
    map_shards(work, sys.argv[1:], workers=2)
"""


def opencv_threads(_: int) -> int:
    return cv2.getNumThreads()


def test_workers_share_the_cores_and_leave_the_caller_alone() -> None:
    before = cv2.getNumThreads()
    assert map_shards(opencv_threads, [0, 0], workers=2, progress=False) == [1, 1]
    assert cv2.getNumThreads() == before


def begin(folder: Path, code: str, *jobs: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(code)
    command = [sys.executable, str(script), *jobs]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("code", "jobs", "said"),
    [
        (UNGUARDED, [], 'worker processes cannot start; a script that comes here needs `if __name__ == "__main__":`'),
        (GUARDED, ["die", "die"], "a worker process died, usually for lack of memory; try fewer workers or smaller"),
    ],
)
def test_the_reason_is_told_once_and_right(tmp_path: Path, code: str, jobs: list[str], said: str) -> None:
    process = begin(tmp_path, code, *jobs)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert errors.count("Traceback") == 1  # of the script itself, which lets the error go through
    assert f"MetroError: shards: {said}" in errors.splitlines()[-1]


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_in_the_middle_of_their_work(tmp_path: Path, way: signal.Signals) -> None:
    process = begin(tmp_path, GUARDED, "1", "2")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    workers = psutil.Process(process.pid).children()
    for one in [process, *workers] if way == signal.SIGINT else [process]:  # as a terminal does
        one.send_signal(way)
    errors = process.communicate(timeout=60)[1]
    assert errors.count("Traceback") == (way == signal.SIGINT)
    assert psutil.wait_procs(workers, timeout=60)[1] == []
