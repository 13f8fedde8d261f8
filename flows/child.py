"""Run a program that ends when this process's parent does: ``python -m flows.child PARENT PROGRAM ARGUMENTS``.

A program of its own, since what runs between fork and exec in a process with threads may hang.
"""

from __future__ import annotations

import os
import signal
import sys

from metro.processes import end_with_parent

if __name__ == "__main__":
    parent, *command = sys.argv[1:]
    end_with_parent(by=signal.SIGTERM, parent=int(parent))
    os.execvp(command[0], command)
