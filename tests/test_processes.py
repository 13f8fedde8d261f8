"""No process outlives the one that it belongs to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux is asked")

CHILD = "import time; from metro.processes import {way}; {way}({arguments}); print('ready', flush=True); time.sleep(99)"
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
child.wait()
"""


def lives(pid: int, patience: float = 60) -> bool:
    """Whether a process is still there after a while; what nobody has reaped yet is not."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("arguments", ["", "by=15"])
def test_a_child_ends_with_its_killed_parent(arguments: str) -> None:
    command = [sys.executable, "-c", PARENT, CHILD.format(way="end_with_parent", arguments=arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
    assert not lives(child)


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    code = CHILD.format(way="end_with_parent", arguments=f"parent={os.getpid() + 1}")
    done = subprocess.run([sys.executable, "-c", code], timeout=60, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize("leader", [True, False])
def test_a_helper_leaves_signals_to_its_leader(leader: bool) -> None:
    """And a process that nobody started to help does not."""
    env = {**os.environ, "METRO_LEADER": str(os.getpid()) if leader else ""}
    code = CHILD.format(way="follow_leader", arguments="")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for which in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            child.send_signal(which)
        if leader:
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.5)
            child.kill()
        else:
            assert child.wait(60) == -signal.SIGHUP
