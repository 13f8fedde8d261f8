"""Processes that end with the one that started them. Linux: elsewhere they end as the system has it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

LEADER = "METRO_LEADER"
"""Environment variable of a process that shares a training: process id of the one that started it."""

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent(by: signal.Signals = signal.SIGKILL, parent: int | None = None) -> None:
    """Have the kernel send `by` to this process when its parent ends, however that comes about.

    `parent` is the process id that is expected as parent: if it ended before the kernel was told, `by` is sent here.
    The kernel looks at the *thread* that started this process, which has to live as long.
    """
    parent = parent or os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:
            os.kill(os.getpid(), by)


def serve_parent() -> None:
    """For a `multiprocessing` worker that holds nothing of worth: its parent alone ends it, speaks, and takes it along.

    A terminal sends Ctrl-C to all processes, each of which would have something to say about it; and threads that hand
    tensors over would tell that the other side is gone. What a job raises goes to the parent as a value.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = lambda *_: None
    parent = multiprocessing.parent_process()
    end_with_parent(parent=parent.pid if parent else None)


def follow_leader() -> bool:
    """Whether another process started this one to share its training; then it leaves signals to that one too."""
    leader = os.environ.get(LEADER)
    if leader:
        for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(which, signal.SIG_IGN)
        end_with_parent(parent=int(leader))
    return bool(leader)
