"""The processes that train together: started, ended, and heard as one.

Process 0 is the one that the user started; it starts the others, which run the same command, unless torchrun has
done so. It alone speaks: the others are ended with it, and when one of them ends early, it says why, in one line.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, NamedTuple

import torch
from lightning_fabric import Fabric

from metro.config import TrainConfig
from metro.errors import MetroError
from metro.logs import quiet
from metro.processes import LEADER, follow_leader

_PATIENCE_SECONDS = 5.0
"""Between the end of a helper and that of process 0, if it waits for the helper where nothing can wake it."""


class _Helper(NamedTuple):
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    """Its standard error: shown if it is the one to blame."""


@contextlib.contextmanager
def launched(config: TrainConfig) -> Iterator[Fabric]:
    """Lightning Fabric on the processes that torchrun started, else on all GPUs, else on `cpu_processes`.

    Without torchrun this process starts the others itself (Fabric would as well, but let each have its own say about
    the end): each runs the same command from its beginning. However the block is left, none is left behind.

    Raises
    ------
    MetroError
        Another process, or one of the workers that load batches, ended.
    """
    follow_leader()
    devices, nodes = torch.cuda.device_count() or config.cpu_processes, 1
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    team = _Team(0 if "LOCAL_RANK" in os.environ else devices - 1)
    try:
        fabric = Fabric(devices=devices, num_nodes=nodes, precision=config.precision)
        with quiet("lightning_fabric", level=logging.WARNING):
            fabric.launch()
        yield fabric
    except BaseException as err:
        team.leaving.set()
        # A connection that breaks may be noticed before the process at its other end is gone.
        blame = None if isinstance(err, MetroError) else team.failure(_PATIENCE_SECONDS * isinstance(err, RuntimeError))
        team.kill()
        if blame:
            raise MetroError(blame) from None
        if isinstance(err, RuntimeError) and str(err).startswith("DataLoader worker"):
            raise MetroError(
                f"a process that loads batches was ended ({_reason(err)}), usually for lack of memory; lower "
                "train.workers, and run again to go on from the last checkpoint"
            ) from None
        raise
    finally:
        team.leaving.set()


class _Team:
    """The other processes, as process 0 sees them."""

    def __init__(self, helpers: int) -> None:
        self.leaving = threading.Event()  # process 0 is on its way out of the training, well or not
        self._helpers: list[_Helper] = []
        if helpers <= 0:
            return
        # What Fabric looks for in processes that it has not started itself.
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": "0"}
        if "OMP_NUM_THREADS" not in os.environ:
            threads = max(1, len(os.sched_getaffinity(0)) // (helpers + 1))
            torch.set_num_threads(threads)
            os.environ["OMP_NUM_THREADS"] = str(threads)
        for rank in range(1, helpers + 1):
            env = {**os.environ, "LOCAL_RANK": str(rank), LEADER: str(os.getpid())}
            said = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process has ended
            command = [sys.executable, *sys.orig_argv[1:]]
            self._helpers.append(_Helper(subprocess.Popen(command, env=env, stderr=said), said))
        threading.Thread(target=self._watch, daemon=True).start()

    def failure(self, patience: float) -> str | None:
        """What became of the helper that ended without success, waiting for that up to `patience` seconds."""
        deadline = time.monotonic() + patience
        while self._helpers:
            for rank, helper in enumerate(self._helpers, 1):
                if helper.process.poll():
                    return _last_words(rank, helper)
            if time.monotonic() >= deadline:
                break
            time.sleep(0.05)
        return None

    def kill(self) -> None:
        """End the helpers, which hold nothing of worth."""
        for helper in self._helpers:
            helper.process.kill()

    def _watch(self) -> None:
        """Wake this process when a helper has failed: it may wait for it, or be busy with something else for long."""
        while not self.leaving.wait(0.2):
            if any(helper.process.poll() for helper in self._helpers):
                if not self.leaving.wait(1):
                    _thread.interrupt_main()
                if not self.leaving.wait(_PATIENCE_SECONDS):
                    print(f"train: {self.failure(0)}", file=sys.stderr, flush=True)
                    self.kill()
                    os._exit(2)
                return


def _last_words(rank: int, helper: _Helper) -> str:
    status = helper.process.returncode
    if status < 0:
        return (
            f"process {rank} was ended by {signal.Signals(-status).name}, usually for lack of memory; run again to go "
            "on from the last checkpoint"
        )
    helper.said.seek(0)
    text = helper.said.read().decode("utf-8", "replace").strip()
    if status != 2:  # not a problem that the user can mend: all of it counts
        print(text, file=sys.stderr)
    last = text.rpartition("\n")[2]
    return f"process {rank}: {re.sub(r'^[^ ]+ [(]process [0-9]+[)]: ', '', last) or f'ended with status {status}'}"


def _reason(err: RuntimeError) -> str:
    """Torch's sentence, without its advice."""
    return str(err).partition(". ")[0].rstrip(".")
