"""Child processes: their output is passed on, and none outlives its group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from flows.process import Finished, Group
from tests.test_processes import lives

FAMILY = "sleep 300 & echo $! ; sleep 300 & echo $! ; wait"


def start_family(group: Group, timeout: float | None = None) -> tuple[threading.Thread, list[int], list[Finished]]:
    lines: list[str] = []
    ended: list[Finished] = []
    command = ["sh", "-c", FAMILY]
    thread = threading.Thread(target=lambda: ended.append(group.run(command, say=lines.append, timeout=timeout)))
    thread.start()
    while len(lines) < 2 and not ended:
        time.sleep(0.05)
    return thread, [int(line) for line in lines], ended


def test_lines_progress_and_tail_are_told() -> None:
    code = (
        "import sys\n"
        "sys.stderr.write('a:  10%|#   |\\ra:  50%|##  |\\ra: 100%|####|\\n')\n"
        "print('hello')\n"
        "print('step 3/4  loss 1')\n"
        "sys.exit(3)"
    )
    lines: list[str] = []
    shares: list[float] = []
    done = Group().run([sys.executable, "-c", code], say=lines.append, progress=shares.append)
    assert done.status == 3
    assert done.tail == ("hello", "step 3/4  loss 1")
    assert lines == list(done.tail)
    assert shares == [10, 50, 100, 75]


def test_killing_a_group_ends_grandchildren_and_lets_nothing_start() -> None:
    group = Group()
    thread, children, ended = start_family(group)
    group.kill()
    thread.join(60)
    assert ended[0].status < 0
    assert not any(lives(pid) for pid in children)
    assert group.run(["true"], say=print).status < 0


def test_a_time_limit_ends_the_family_and_says_so() -> None:
    thread, children, ended = start_family(Group(), timeout=1)
    thread.join(60)
    assert "time limit" in ended[0].tail[-1]
    assert not any(lives(pid) for pid in children)


def test_sigterm_to_the_parent_ends_the_family() -> None:
    code = (
        "from flows.process import Group, killed_on_sigterm\n"
        "group = Group()\n"
        "with killed_on_sigterm(group):\n"
        f"    group.run(['sh', '-c', '{FAMILY}'], say=lambda line: print(line, flush=True))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(parent.stdout.readline()) for _ in range(2)]
    os.kill(parent.pid, signal.SIGTERM)
    assert parent.wait(60) == -signal.SIGTERM
    assert not any(lives(pid) for pid in children)


def test_a_killed_parent_takes_its_children_along() -> None:
    code = (
        "from flows.process import Group\n"
        "command = ['sh', '-c', 'echo $$; exec sleep 300']\n"
        "Group().run(command, say=lambda line: print(line, flush=True))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert not lives(child)
