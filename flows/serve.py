"""``make serve``: Prefect server, work pool, worker and deployment, and the MLflow UI, until Ctrl-C.

Everything listens on localhost only; `pipeline.environment` names the variables that choose other ports. Ctrl-C, a
closed terminal or SIGTERM ends everything that was started, runs in progress included; nothing is left behind, even if
this process is killed. ``prefect.toml`` has the settings that Prefect's own commands need as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

from flows.process import Group
from metro.environment import port_number
from metro.errors import MetroError
from pipeline.environment import environment
from pipeline.tracking.store import setup, store_uri

HOST = "127.0.0.1"
POOL = "metro-process"
PREFECT_PORT = 4200
"""The one that ``prefect.toml`` names."""
PATIENCE_SECONDS = 180.0
"""A first start makes databases, which takes its time on a busy machine."""


class Service:
    """A long-running program of `make serve`, in a thread that reads its output into a log file."""

    def __init__(self, name: str, command: Sequence[str], group: Group, env: Mapping[str, str], log: Path) -> None:
        self.name, self.log = name, log
        self.ended = threading.Event()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._file = log.open("w", buffering=1)
        self._thread = threading.Thread(target=self._serve, args=(command, group, env), daemon=True)
        self._thread.start()

    def _serve(self, command: Sequence[str], group: Group, env: Mapping[str, str]) -> None:
        try:
            group.run(command, say=lambda line: print(line, file=self._file), env=env)
        finally:
            self.ended.set()

    def tail(self) -> str:
        """The end of its log."""
        return " | ".join(self.log.read_text().splitlines()[-3:])


def main() -> int:
    """Start everything, say where it is, wait, stop everything."""
    try:
        ports = _ports()
    except MetroError as err:
        print(err, file=sys.stderr)
        return 2
    group, asked = Group(), threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        asked.set()

    for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(which, stop)
    try:
        services = _start(group, asked, *ports)
        while not asked.wait(0.5):
            gone = [service for service in services if service.ended.is_set()]
            if gone:
                raise MetroError(f"serve: {gone[0].name} ended by itself, see {gone[0].log}: {gone[0].tail()}")
        return 0
    except MetroError as err:
        print(err, file=sys.stderr)
        return 2
    finally:
        with contextlib.suppress(OSError):  # of a terminal that is closed
            print("serve: stopping", flush=True)
        group.kill()


def _start(group: Group, asked: threading.Event, prefect_port: int, mlflow_port: int) -> list[Service]:
    root = Path.cwd()
    setup()
    logs = root / ".metro" / "logs"
    mlflow_url = f"http://{HOST}:{mlflow_port}"
    env = {
        "PWD": str(root),  # the deployment's working directory
        "PREFECT_API_URL": f"http://{HOST}:{prefect_port}/api",
        # Not `--port`: the page would go on asking port 4200.
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(prefect_port),
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for what nobody asks of it here
        "MLFLOW_UI": mlflow_url,
    }
    os.environ.update(env)
    python = [sys.executable, "-m"]

    server = Service("Prefect server", [*python, "prefect", "server", "start"], group, env, logs / "prefect-server.log")
    mlflow = [*python, "mlflow", "server", "--host", HOST, "--port", str(mlflow_port), "--workers", "1"]
    mlflow += ["--backend-store-uri", store_uri()]
    ui = Service("MLflow UI", mlflow, group, env, logs / "mlflow.log")
    _await(f"http://{HOST}:{prefect_port}/api/health", server, asked)
    _once([*python, "prefect", "work-pool", "create", POOL, "--type", "process", "--overwrite"], env)
    _once([*python, "prefect", "--no-prompt", "deploy", "--all"], env)
    start_worker = [*python, "prefect", "worker", "start", "--pool", POOL]
    worker = Service("Prefect worker", start_worker, group, env, logs / "prefect-worker.log")
    _await(f"{mlflow_url}/health", ui, asked)
    if not asked.is_set():
        elsewhere = "" if prefect_port == PREFECT_PORT else f"  export PREFECT_API_URL={env['PREFECT_API_URL']}\n"
        print(
            f"Prefect  http://{HOST}:{prefect_port}\n"
            f"MLflow   {mlflow_url}/#/experiments/{setup()}/runs\n"
            "\n"
            "In another shell, with .venv active:\n"
            f"{elsewhere}"
            "  prefect deployment run metro/train-eval --watch\n"
            "\n"
            "Ctrl-C stops everything.",
            flush=True,
        )
    return [server, ui, worker]


def _ports() -> tuple[int, int]:
    """Free ports for Prefect and MLflow.

    Raises
    ------
    MetroError
        One is taken, or no number, or this is not the project's root.
    """
    if not Path("prefect.yaml").is_file():
        raise MetroError(f"serve: no prefect.yaml in {Path.cwd()}; run from the project root")
    chosen = environment()
    return _port(chosen.prefect_port, "PREFECT_PORT"), _port(chosen.mlflow_port, "MLFLOW_PORT")


def _port(written: str, variable: str) -> int:
    number = port_number(written)
    if number is None:
        raise MetroError(f"serve: {variable}={written} is not a port number")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError:
            raise MetroError(
                f"serve: port {written} is in use{_user_of(number)}; end that, or choose another with {variable}=PORT"
            ) from None
    return number


def _user_of(port: int) -> str:
    """Whose port it is, as far as the system tells."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            with contextlib.suppress(psutil.Error):
                return f" by process {connection.pid} ({' '.join(psutil.Process(connection.pid).cmdline())[:100]})"
    return ""


def _await(url: str, service: Service, asked: threading.Event) -> None:
    """Wait until a service answers."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not asked.is_set():
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if service.ended.is_set() or time.monotonic() > deadline:
                raise MetroError(
                    f"serve: {service.name} does not answer at {url}, see {service.log}: {service.tail()}"
                ) from None
        asked.wait(0.5)


def _once(command: Sequence[str], env: Mapping[str, str]) -> None:
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise MetroError(f"serve: `{' '.join(command[2:])}` failed: {' '.join(last)}")


if __name__ == "__main__":
    sys.exit(main())
