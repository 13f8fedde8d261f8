"""A small DVC project with the shape of the real one: one root, a matrix, a stage that gathers, one on its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DVC_YAML = """\
stages:
  root:
    cmd: python work.py root out/root
    deps: [work.py]
    params: [train.seed]
    outs: [out/root]
  item:
    matrix:
      ratio: ${fit.yaws_deg}
    cmd: python work.py item@${item.ratio} out/item/${item.ratio} out/root
    deps: [work.py, out/root]
    outs: ["out/item/${item.ratio}"]
  gather:
    cmd: python work.py gather out/gather out/item
    deps: [work.py, out/item]
    params: [fit.yaws_deg]
    outs: [out/gather]
  alone:
    cmd: python work.py alone out/alone
    deps: [work.py]
    outs: [out/alone]
"""

WORK = """\
import os, signal, sys, time
from pathlib import Path
name, out, *inputs = sys.argv[1:]
print(f"{name} begins", flush=True)
trouble = Path("trouble") / name
if trouble.exists():
    what = trouble.read_text()
    if what == "die":
        trouble.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        Path("child").write_text(str(os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "300")))
        time.sleep(300)
    sys.exit(f"{name}: something is wrong here")
for k in range(3):
    print(f"step {k + 1}/3", flush=True)
Path(out).parent.mkdir(parents=True, exist_ok=True)
text = "".join(p.read_text() for i in inputs for p in ([Path(i)] if Path(i).is_file() else sorted(Path(i).iterdir())))
Path(out).write_text(f"{name}({text})")
"""

PARAMS = "preset: toy\ntrain: {seed: 1}\nfit: {yaws_deg: [0.1, 0.2]}\n"


def make(folder: Path) -> Path:
    """Write the project into `folder`, with a git commit."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (folder / ".dvc" / ".gitignore").write_text("/tmp\n/cache\n")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "work.py").write_text(WORK)
    (folder / "params.yaml").write_text(PARAMS)
    (folder / ".gitignore").write_text("/out\n/trouble\n/child\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "toy"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=folder, check=True)
    return folder


def trouble(folder: Path, stage: str, what: str) -> Path:
    """Let a stage fail (`fail`), be killed once (`die`) or never end (`hang`)."""
    path = folder / "trouble" / stage
    path.parent.mkdir(exist_ok=True)
    path.write_text(what)
    return path


def dvc(folder: Path, *words: str) -> str:
    """Output of a DVC command."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    return done.stdout
