"""numba for the whole project: `njit` and `vectorize` with its options, and a cache that never serves old code.

numba stores compiled kernels and asks only whether a kernel's *own* file has changed, so that a cached caller keeps the
old code of a kernel it calls in another file. Here the cache's folder is named by a digest of the sources: of every
file that imports this module, and of every file of the package that those import, because whatever a kernel calls and
every constant that it freezes comes from there. (All of `metro` would be as safe, but then each edit of a help text
costs a minute of compiling.) numba itself keeps versions of numba and kinds of processors apart.

The folder is ``$NUMBA_CACHE_DIR/metro/DIGEST``, else ``$XDG_CACHE_HOME/metro/numba/DIGEST``, else
``~/.cache/metro/numba/DIGEST``, and one for temporary files where that cannot be written. Folders that nobody has used
for a month go.

Kernels are compiled without fast-math: their arithmetic is IEEE's, in the order written, on every processor.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config

PACKAGE = Path(__file__).parent
UNUSED_DAYS = 30

_IMPORT = re.compile(rb"^\s*(?:from\s+([\w.]+)\s+import\s+(\([^)]*\)|[^\n]*)|import\s+([\w.]+))", re.MULTILINE)


def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`numba.njit`, cached, dividing as IEEE does; used bare or with options."""
    if function is None:
        return lambda function: njit(function, **options)
    return _cached(numba.njit(cache=True, error_model="numpy", **options), function)


def vectorize(function: Callable[..., Any]) -> Any:
    """`numba.vectorize`, cached: a scalar function for kernels that is a NumPy ufunc outside of them."""
    return _cached(numba.vectorize(cache=True), function)


def _cached(decorate: Callable[..., Any], function: Callable[..., Any]) -> Any:
    # numba reads its setting when it decorates; set for that moment only, it does not move other packages' caches.
    settings: Any = config
    theirs = settings.CACHE_DIR
    settings.CACHE_DIR = str(cache_folder())
    try:
        return decorate(function)
    finally:
        settings.CACHE_DIR = theirs


@cache
def cache_folder() -> Path:
    """The folder of compiled kernels, made if need be."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parent = Path(given, "metro").resolve() if given else Path(usual, "metro", "numba")
    folder = _own_folder(parent) if parent.is_absolute() else None  # users without a home keep their ~
    if folder is None:
        folder = _own_folder(Path(tempfile.gettempdir()) / f"metro-numba-{os.getuid()}")
    return folder or Path(tempfile.mkdtemp(prefix="metro-numba-"))


def _own_folder(parent: Path) -> Path | None:
    """The digest's folder in `parent`; none if it cannot be written, or is another user's (a cache is code)."""
    folder = parent / sources_digest()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK) or parent.stat().st_uid != os.getuid():
            return None
        os.utime(folder)
    except OSError:
        return None
    for other in parent.iterdir():
        with suppress(OSError):  # another process may have been faster
            if other.stat().st_mtime < time.time() - UNUSED_DAYS * 86400:
                shutil.rmtree(other, ignore_errors=True)
    return folder


def sources_digest() -> str:
    """Digest of every file that holds kernels, and of all files of the package that it imports."""
    texts = {path: path.read_bytes() for path in sorted(PACKAGE.rglob("*.py"))}
    pending = [path for path, text in texts.items() if b"metro.kernels" in text]
    reached = set(pending)
    while pending:
        new = {path for path in _imports(texts[pending.pop()]) if path in texts} - reached
        reached |= new
        pending += new
    digest = hashlib.sha256()
    for path in sorted(reached):
        digest.update(f"{path.relative_to(PACKAGE)} {len(texts[path])}\n".encode() + texts[path])
    return digest.hexdigest()[:16]


def _imports(text: bytes) -> set[Path]:
    """Files of the package that a source may import: modules, packages, and modules among imported names."""
    paths = set()
    for parent, names, module in _IMPORT.findall(text):
        base = PACKAGE.parent.joinpath(*(parent or module).decode().split("."))
        paths |= {base.with_suffix(".py"), base / "__init__.py"}
        paths |= {base / f"{name.decode()}.py" for name in re.findall(rb"\w+", names)}
    return paths
