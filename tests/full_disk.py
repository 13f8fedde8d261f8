"""Code run in a process of its own, in which no file can grow beyond a size, as on a full disk.

In the process of the tests, whatever else writes a file meanwhile would fail too: the captured output of a test is one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import metro

RUN = """
import json, resource, sys
size, code, arguments = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
from metro.errors import MetroError
try:
    exec(compile(code, "<code>", "exec"), {"arguments": arguments})
except MetroError as err:
    print(err)
"""


def said_on_a_full_disk(size: int, code: str, *arguments: object) -> str:
    """What `code` prints, its MetroError last. It has the `arguments` as strings, and files end at `size` bytes."""
    command = [sys.executable, "-Bc", RUN, json.dumps([size, code, [str(argument) for argument in arguments]])]
    root = Path(metro.__file__).parents[1]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, cwd=root, check=True)
    return done.stdout.rstrip("\n")
