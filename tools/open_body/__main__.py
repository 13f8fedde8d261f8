"""Builds the open body (neutral, female, male) and hand anew: ``python -m tools.open_body FOLDER``.

Needs the [build] extra, four minutes and 4 GB of memory. `body.path` pointing to the folder makes everything use them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from metro.body.arrays import digest
from metro.body.load import load_body
from tools.open_body.make import build

if len(sys.argv) != 2:
    sys.exit("usage: python -m tools.open_body FOLDER")
out = Path(sys.argv[1])
build(out, progress=lambda step: print(f"building {step}", file=sys.stderr, flush=True))
for kind, gender in (("open", "neutral"), ("open", "female"), ("open", "male"), ("open_hand", "neutral")):
    print(f"{kind} {gender}: {digest(load_body(kind, gender, out))}")
