"""What all stages share: the frame around ``main``, inputs, outputs that appear whole or not at all, half-done work.

DVC runs a stage as ``python -m pipeline.STAGE`` from the project root and names the item in its environment; by hand it
is ``python -m pipeline.STAGE [ITEM]``. A mistake the user can mend ends it with one line and status 2. Run by DVC it
ends with DVC; run by hand it ends as its terminal says (``nohup`` keeps it). One process at a time makes the outputs of
a stage.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import inspect
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import psutil

from metro import files
from metro.config import BACKBONE_WEIGHTS, Params, load_params
from metro.errors import MetroError
from metro.processes import end_with_parent, follow_leader
from metro.shipped import SHIPPED
from pipeline.environment import environment
from pipeline.paths import METRICS, WORK

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDING_SECONDS = 8
"""What a stage that is told to end has for closing its tracked run; then it ends all the same."""


def run(main: Callable[..., None]) -> None:
    """Call ``main(params)``, or ``main(params, item)`` for a stage of items; turn what goes wrong into one line."""
    wanted = len(inspect.signature(main).parameters) - 1
    try:
        chosen = environment()
    except MetroError as err:
        print(err, file=sys.stderr)
        raise SystemExit(2) from None
    if not follow_leader():
        if chosen.stage:
            end_with_parent(by=signal.SIGTERM)
        for which in _ENDINGS:
            if signal.getsignal(which) != signal.SIG_IGN:  # as `nohup` and `&` have it
                signal.signal(which, _stop)
    try:
        items = sys.argv[1:] or name().split("@")[1:]
        if len(items) != wanted:
            raise MetroError(f"takes {wanted} argument{'s' * (wanted != 1)}, got {len(items)}: see dvc.yaml")
        params = load_params()
        params.require_plan()
        _check_files(params)
        if chosen.rank == 0:  # the others help it
            _hold(name())
        main(params, *items)
    except MetroError as err:
        _fail(str(err))
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(f"disk full while writing {err.filename or 'its outputs'}; free some space and run `dvc repro` again")
        if err.filename is None:  # a fault of the program
            raise
        _fail(f"{err.filename}: {err.strerror}")
    except KeyboardInterrupt:
        print(f"{name()}: interrupted", file=sys.stderr)
        _leave(130)
    except SystemExit as told:  # by `_stop`
        _leave(int(str(told.code)))


def name() -> str:
    """Name of the running stage in ``dvc.yaml``, with its item: from DVC, or else from the command line."""
    script = Path(sys.argv[0]).stem.replace("_", "-")
    return environment().stage or "@".join([script, *sys.argv[1:2]])


class Inputs(NamedTuple):
    """What the running stage depends on."""

    files: dict[str, str]
    """Files and folders (code, data, outputs of other stages) to the md5 of their content."""
    params: list[str]
    """Sections and values of the parameters, by dotted name."""


def inputs() -> Inputs:
    """Ask DVC for the inputs of the running stage; it has hashed them already, so this takes a fraction of a second.

    Raises
    ------
    MetroError
        There is no such stage, or an input is missing.
    """
    from dvc.dependency import ParamsDependency

    files: dict[str, str] = {}
    params: list[str] = []
    with _declared(name()) as stage:
        for dep in stage.deps:
            if isinstance(dep, ParamsDependency):
                params += dep.params
            else:
                files[dep.def_path] = dep.get_hash().value
    return Inputs(files, params)


def outputs(of: str) -> dict[str, str]:
    """Outputs that the stage `of` has made, to the md5 of their content as ``dvc.lock`` has or will have it.

    Metrics are left out: git keeps them.

    Raises
    ------
    MetroError
        There is no such stage, or it has not been run.
    """
    with _declared(of) as stage:
        return {out.def_path: out.get_hash().value for out in stage.outs if not out.metric}


def described() -> tuple[str, str]:
    """What ``dvc.yaml`` says of the running stage: its description and its command."""
    with _declared(name()) as stage:
        return stage.desc or name(), stage.cmd


@contextlib.contextmanager
def _declared(stage: str) -> Iterator[Any]:
    """A stage as DVC reads it from ``dvc.yaml``; what goes wrong inside becomes one line."""
    from dvc.dvcfile import load_file
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            file = load_file(repo, "dvc.yaml")
            # Without dvc.lock: a DVC that works on another stage may be writing it.
            yield file.LOADER(file, file.contents)[stage]
    except FileNotFoundError as err:
        raise MetroError(f"{err.filename}: missing; `dvc repro {stage}` makes what is needed") from None
    except DvcException as err:
        raise MetroError(f"dvc.yaml: cannot tell what {stage} reads and writes: {err}") from None


def _check_files(params: Params) -> None:
    """Refuse a file that a parameter names and DVC does not watch: nobody would notice that it changed."""
    weights, init = params.model.backbone_weights, params.train.init
    named = {
        "body": ("body.path", params.body.path),
        "sampling": ("sampling.legacy", params.sampling.legacy),
        "prior": ("fit.prior", params.fit.prior),
        "backbone": ("model.backbone_weights", None if weights in BACKBONE_WEIGHTS else Path(weights)),
        "init": ("train.init", None if init in ("none", *SHIPPED) else Path(init)),
    }
    if params.sampling.checkpoint not in (None, *map(Path, SHIPPED)):
        named["sampling"] = "sampling.checkpoint", params.sampling.checkpoint
    for key, (name, path) in named.items():
        if path is not None and getattr(params.files, key) != path:
            raise MetroError(f"{name} names {path}: set files.{key} to it as well, so that DVC notices when it changes")


def _stop(signum: int, frame: FrameType | None) -> None:
    """Unwind, so that workers are ended and the tracked run is closed, undisturbed but not for long."""
    for which in _ENDINGS:
        signal.signal(which, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise for each worker that ends now
    signal.alarm(ENDING_SECONDS)
    raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signum)


def _leave(status: int) -> None:
    """End without the interpreter's own tidying up, which takes seconds after torch, and leaves nothing tidier."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _hold(stage: str) -> None:
    """Keep other processes from making this stage until this one ends, and remove what dead ones half published."""
    WORK.mkdir(parents=True, exist_ok=True)
    # A record lock: the kernel drops it with this process, and forked workers do not share it. It would also go if any
    # descriptor of the file were closed, so this one stays open.
    lock = os.open(WORK / f"{stage.replace('@', '-')}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.read(lock, 20).decode() or "another"
        os.close(lock)
        raise MetroError(f"process {holder} is at it already; wait for it, or end it with `kill {holder}`") from None
    os.truncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    for partial in WORK.glob("*.partial"):
        if not psutil.pid_exists(int(partial.stem.rpartition("-")[2])):
            shutil.rmtree(partial, ignore_errors=True)


def _fail(message: str, status: int = 2) -> None:
    rank = environment().rank  # several processes that train mostly have the same thing to say
    who = f"{name()} (process {rank})" if rank else name()
    print(f"{who}: {' '.join(message.split())}", file=sys.stderr, flush=True)
    raise SystemExit(status)


@contextlib.contextmanager
def publish(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of the output `folder`, whatever it holds, once the block is through."""
    partial = WORK / f"{folder.name}-{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        files.replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


def conditions(params: Params) -> str:
    """Digest of all that ``dvc.yaml`` declares as the running stage's inputs.

    The values of parameters are the resolved ones: a default that changes counts too.
    """
    found, names = inputs()
    values = params.model_dump(mode="json")
    settings = {dotted: functools.reduce(lambda tree, key: tree[key], dotted.split("."), values) for dotted in names}
    return hashlib.sha256(json.dumps([found, settings], sort_keys=True).encode()).hexdigest()


def work_folder(params: Params) -> Path:
    """Folder for half-done work that a killed stage goes on from; never taken up under other `conditions`."""
    folder = WORK / f"{name().replace('@', '-')}-{conditions(params)[:12]}"
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


def section(params: Params, *names: str) -> dict[str, Any]:
    """Sections of the parameters as plain data."""
    return {name: getattr(params, name).model_dump(mode="json") for name in names}
