"""`metro doctor`: is this machine ready, and for which presets."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from metro.environment import PORTS, port, port_number, store, tracked
from metro.errors import MetroError
from metro.files import read_json, readable, sha256_of
from metro.shipped import SHIPPED, checkpoint_folder
from metro.version import __version__

if TYPE_CHECKING:
    from metro.config import Params

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python", "h5py", "dvc", "prefect", "fastapi", "mlflow")
OPTIONAL = {"smplx": "reference body layer, for tests", "anny": "`python -m tools.open_body`"}
DISK_GB = 6
WIDTH = 20
"""Of the column of topics."""
OK, NOTE, BAD = "ok", "note", "PROBLEM"


_RESTORE = "restore it, e.g. `git checkout metro/assets`"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    state: str
    text: str


def doctor(*, params: Path = Path("params.yaml")) -> str:
    """Check versions, data, stores and ports, and say what each preset still needs.

    The lines come as they are found, so that a package that breaks on import hides none of those above it.

    Parameters
    ----------
    params
        The project's parameters.
    """
    print(f"metro {__version__}", flush=True)
    bad = 0
    for finding in _findings(params):
        print(f"{finding.state:<8}{finding.topic:<{WIDTH}}  {finding.text}", flush=True)
        bad += finding.state == BAD
    if bad:
        raise MetroError(f"doctor: {bad} problem{'s' * (bad > 1)} to mend, see above")
    return "everything needed is here, as far as can be told without running it"


def _findings(params: Path) -> Iterator[Finding]:
    checks = (_versions, _machine, _project, lambda: _parameters(params), _services, _shipped, _presets)
    for check in checks:
        try:
            yield from check()
        except ImportError as err:
            yield Finding("import", BAD, f"{err}: `make env`")
        except MetroError as err:
            yield Finding("project", BAD, str(err))
        except OSError as err:
            yield Finding("system", BAD, f"{err.filename}: {err.strerror}" if err.filename else str(err))


def _versions() -> Iterator[Finding]:
    python = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Finding("python", OK if good else BAD, python if good else f"{python}: 3.11 or newer is needed")
    for name in PACKAGES:
        found = _version(name) or (_version("opencv-python-headless") if name == "opencv-python" else None)
        yield Finding(name, OK if found else BAD, found or "not installed: `make env`")
    fastapi = _version("fastapi")
    if fastapi and tuple(map(int, fastapi.split(".")[:2])) >= (0, 155):
        yield Finding("fastapi", BAD, f"{fastapi} breaks Prefect 3.8: `pip install -c constraints.txt fastapi`")
    for name, use in OPTIONAL.items():
        yield Finding(name, OK if (found := _version(name)) else NOTE, found or f"not installed ({use})")
    try:
        import cv2  # noqa: F401
    except ImportError as err:
        yield Finding("opencv", BAD, f"{err}: install libGL, or opencv-python-headless in place of opencv-python")


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cores", OK, str(cores))
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Finding("disk", OK if free > DISK_GB else BAD, f"{free:.0f} GB free (the open preset takes {DISK_GB})")
    # As the driver lists them: to ask torch takes seconds.
    cards = [path.read_text() for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    names = [line.partition(":")[2].strip() for text in cards for line in text.splitlines() if line.startswith("Model")]
    told = f"{', '.join(names)} (not tried)" if names else "no NVIDIA driver: the open preset is made for this"
    yield Finding("gpu", OK if names else NOTE, told)


def _project() -> Iterator[Finding]:
    commit = _output("git", "rev-parse", "--short", "HEAD")
    if commit is None:
        yield Finding("git", BAD, "not a git repository with a commit; DVC needs one: `git init`, then commit")
    else:
        changed = len((_output("git", "status", "--porcelain") or "").splitlines())
        yield Finding("git", OK, f"{commit}, {changed} files changed" if changed else f"{commit}, clean")
    dvc = Path(".dvc/config").is_file()
    yield Finding("dvc", OK if dvc else BAD, "repository here" if dvc else "no .dvc here: run from the project root")
    on_path = shutil.which("python")
    same = on_path is not None and Path(on_path).resolve() == Path(sys.executable).resolve()
    same = same or (on_path is not None and Path(on_path).parent == Path(sys.executable).parent)
    hint = "stages call `python`: activate the environment, or use `make repro`"
    yield Finding("python on PATH", OK if same else NOTE, "this one" if same else f"another one; {hint}")


def _parameters(path: Path) -> Iterator[Finding]:
    from metro.config import load_params

    try:
        params = load_params(path)
    except MetroError as err:
        yield Finding("params", BAD, str(err))
        return
    yield Finding("params", OK, f"{path}, preset {params.preset!r}")
    missing = list(_missing(params))
    yield Finding("its inputs", BAD if missing else OK, "; ".join(missing) or "all here")


def _presets() -> Iterator[Finding]:
    from metro.config import load_params
    from metro.presets import resolve, summaries

    for name in summaries():
        missing = list(_missing(load_params(resolve(name))))
        yield Finding(f"preset {name}", NOTE if missing else OK, "; ".join(missing) or "can run")


def _missing(params: Params) -> Iterator[str]:
    """What the parameters name and this machine lacks."""
    from metro.config import BACKBONE_WEIGHTS
    from metro.model.packaged import landmark_weights, packaged_weights
    from metro.sources import adapter
    from metro.sources.source import check

    if params.body.kind not in ("open", "open_hand"):
        path = params.body.path
        if path is None or not path.exists():
            yield f"the licensed {params.body.kind} model ({path or 'body.path is not set'})"
        else:
            from metro.body.load import load_body

            try:
                load_body(params.body)
            except MetroError as err:
                yield str(err)
    absent = set()
    for config in params.datasets.values():
        if config.root is None or config.root.is_dir():
            try:
                check(config, params.body, adapter(config.source).survey(config, params.body))
            except MetroError as err:
                yield str(err)
        else:
            absent.add(f"the {config.source} dataset ({config.root})")
    yield from sorted(absent)
    weights = params.model.backbone_weights
    if weights in ("packaged", "shipped"):
        try:
            (packaged_weights if weights == "packaged" else landmark_weights)(params.model.backbone)
        except MetroError as err:
            yield str(err)
    elif weights not in BACKBONE_WEIGHTS and not Path(weights).is_file():
        yield f"backbone weights ({weights})"
    if params.train.init not in ("none", *SHIPPED) and not Path(params.train.init).exists():
        yield f"start weights ({params.train.init})"


def _services() -> Iterator[Finding]:
    if not tracked():
        yield Finding("tracking", NOTE, "switched off by METRO_TRACKING")
    elif uri := store():
        yield Finding("tracking", OK, f"MLFLOW_TRACKING_URI={uri}, not tried")
    else:
        made = Path("mlflow.db").is_file()
        yield Finding("tracking", OK, "mlflow.db" if made else "mlflow.db (made by the first run)")
    for variable in PORTS:
        written = port(variable)
        number = port_number(written)
        if number is None:
            yield Finding("port", BAD, f"{variable}={written!r} is no number from 1 to 65535")
        elif _listening(number):
            yield Finding(f"port {written}", NOTE, f"in use: `make serve` may be running, else set {variable}")
        else:
            yield Finding(f"port {written}", OK, "free")


def _shipped() -> Iterator[Finding]:
    """Whether the checkpoints of this package are whole; their networks are not built, which takes seconds."""
    for shipped in SHIPPED:
        folder = checkpoint_folder(shipped)
        with readable(folder / "checkpoint.json", _RESTORE):
            made = read_json(folder / "checkpoint.json", _RESTORE, keys=("sha256",))["sha256"].items()
        damaged = [name for name, digest in made if _sha256(folder / name) != digest]
        if damaged:
            text = f"{folder}: {', '.join(damaged)} missing or changed; {_RESTORE}"
            yield Finding(f"{shipped} checkpoint", BAD, text)
        else:
            yield Finding(f"{shipped} checkpoint", OK, "every file as it was made")


def _sha256(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(*words: str) -> str | None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
