"""What all stages share: the frame around ``main``, outputs that appear whole or not at all, and half-done work.

A stage is run as ``python -m pipeline.STAGE [ITEM]`` from the project root. A mistake the user can mend ends it with
one line and status 2.
"""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

from metro import files
from metro.config import Params, load_params
from metro.errors import MetroError
from pipeline.paths import METRICS, WORK


def run(main: Callable[..., None]) -> None:
    """Call ``main(params, *items)`` with the items of the command line, and turn what goes wrong into one line."""
    name = os.environ.get("DVC_STAGE") or Path(sys.argv[0]).stem
    wanted = len(inspect.signature(main).parameters) - 1
    signal.signal(signal.SIGTERM, _stop)
    try:
        if len(sys.argv) - 1 != wanted:
            raise MetroError(f"takes {wanted} argument{'s' * (wanted != 1)}, got {len(sys.argv) - 1}: see dvc.yaml")
        main(load_params(), *sys.argv[1:])
    except MetroError as err:
        _fail(name, str(err))
    except OSError as err:
        if err.errno != errno.ENOSPC:
            raise
        _fail(
            name, f"disk full while writing {err.filename or 'its outputs'}; free some space and run `dvc repro` again"
        )
    except KeyboardInterrupt:
        _fail(name, "interrupted", 130)


def _stop(signum: int, frame: FrameType | None) -> None:
    """Unwind on SIGTERM, so that workers are ended and the tracked run is closed."""
    raise SystemExit(128 + signum)


def _fail(name: str, message: str, status: int = 2) -> None:
    if rank := int(os.environ.get("LOCAL_RANK", 0)):  # several processes that train mostly have the same thing to say
        name = f"{name} (process {rank})"
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr, flush=True)
    raise SystemExit(status)


def publish(folder: Path) -> AbstractContextManager[Path]:
    """A temporary folder that takes the place of the output `folder`, whatever it holds, once the block is through."""
    return files.atomic_folder(folder, marker=None)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    with files.atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: Path, maker: str) -> Any:
    """Read an output of the stage `maker`.

    Raises
    ------
    MetroError
        It is missing or damaged.
    """
    return files.read_json(path, f"`dvc repro {maker}` makes it")


def work_folder(name: str, settings: Mapping[str, Any], inputs: Iterable[Path] = ()) -> Path:
    """Folder for half-done work that a killed stage goes on from.

    Its name carries a digest of all that the result depends on, so that work is never taken up under other conditions.

    Parameters
    ----------
    name
        Stage, with its item.
    settings
        Parameters of the stage, JSON-like.
    inputs
        Files and folders whose content counts, the code among them.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in inputs:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file}\n{files.sha256_of(file)}".encode())
    folder = WORK / f"{name}-{digest.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def publish_work(work: Path, folder: Path) -> None:
    """Make finished work the output `folder`."""
    files.replace_folder(work, folder)
    forget_work(work)


def forget_work(work: Path) -> None:
    """Remove the work of a stage that is done, and what other conditions left of the same stage."""
    stem = work.name.rpartition("-")[0]
    for sibling in WORK.glob(f"{stem}-*"):
        if sibling.name.rpartition("-")[0] == stem:
            shutil.rmtree(sibling, ignore_errors=True)


def write_metrics(name: str, numbers: Mapping[str, float]) -> None:
    """Metrics that DVC compares between commits (`dvc metrics diff`)."""
    write_json(METRICS / f"{name}.json", dict(numbers))


def flat_numbers(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested data, by path."""
    flat: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flat_numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[f"{prefix}{key}"] = value
    return flat


def section(params: Params, *names: str) -> dict[str, Any]:
    """Sections of the parameters as plain data."""
    return {name: getattr(params, name).model_dump(mode="json") for name in names}
