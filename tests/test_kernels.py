"""The cache of compiled kernels: what it notices, where it lies, and what it leaves behind."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metro import kernels

INNER = """
from metro.kernels import njit
from metro.plain import STEP

@njit
def inner(x):
    return x + STEP
"""
OUTER = """
from metro.kernels import njit
from metro.inner import inner

@njit
def outer(x):
    return 10 * inner(x)
"""
RUN = "from metro.outer import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"


@pytest.fixture
def package(tmp_path):
    """A small package of a kernel, the kernel it calls in another file, and a constant in a third."""
    folder = tmp_path / "metro"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "plain.py").write_text("STEP = 1\n")
    (folder / "inner.py").write_text(INNER)
    (folder / "outer.py").write_text(OUTER)
    (folder / "unrelated.py").touch()
    shutil.copy(kernels.__file__, folder / "kernels.py")
    return folder


def start(package: Path, **environment: str) -> subprocess.Popen:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_"))}
    env = {**kept, "PYTHONPATH": str(package.parent), "XDG_CACHE_HOME": str(package.parent / "cache"), **environment}
    command = [sys.executable, "-c", RUN]
    return subprocess.Popen(
        command, cwd=package.parent, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(package: Path, **environment: str) -> tuple[int, int]:
    """What the caller returns in a fresh process, and how many kernels came out of the cache."""
    out, err = start(package, **environment).communicate()
    assert err == ""
    value, hits = out.split()
    return int(value), int(hits)


def test_a_caller_sees_what_changed_in_another_file(package):
    assert run(package) == (20, 0)
    assert run(package) == (20, 1)
    (package / "unrelated.py").write_text("CHANGED = 1\n")
    assert run(package) == (20, 1)
    (package / "inner.py").write_text(INNER.replace("x + STEP", "x - STEP"))
    assert run(package) == (0, 0)
    (package / "plain.py").write_text("STEP = 5\n")
    assert run(package) == (-40, 0)


def test_nothing_is_written_beside_the_sources_and_unused_digests_go(package):
    parent = package.parent / "cache" / "metro" / "numba"
    old, recent = parent / "0123", parent / "4567"
    for folder, days in ((old, kernels.UNUSED_DAYS + 1), (recent, kernels.UNUSED_DAYS - 1)):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - 86400 * days,) * 2)
    run(package)
    assert not list(package.rglob("*.nb[ic]"))
    assert not old.exists()
    assert recent.exists()
    assert len(list(parent.iterdir())) == 2


def test_the_users_own_cache_folder_is_the_parent(package, tmp_path):
    run(package, NUMBA_CACHE_DIR=str(tmp_path / "mine"))
    assert list((tmp_path / "mine" / "metro").rglob("*.nbi"))


def test_a_home_that_cannot_be_written_is_no_obstacle(package, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "tmp").mkdir()
    closed = {"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "tmp")}
    assert run(package, **closed) == (20, 0)
    assert run(package, **closed) == (20, 1)


def test_processes_that_start_at_once_agree(package):
    for process in [start(package) for _ in range(3)]:
        out, err = process.communicate()
        assert err == ""
        assert out.startswith("20 ")
    assert run(package) == (20, 1)


def test_the_command_line_does_not_load_numba():
    code = (
        "import sys, contextlib, metro.cli.app\nwith contextlib.suppress(SystemExit): metro.cli.app.main(['--help'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit('numba' in sys.modules)"], capture_output=True, text=True
    )
    assert "usage" in done.stdout.lower()
    assert done.returncode == 0, done.stderr
