"""`make serve`: what is in its way is named, and nothing outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows import serve

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((serve.HOST, 0))
        return int(probe.getsockname()[1])


def test_a_taken_port_is_told_with_its_owner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    with socket.create_server((serve.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("PREFECT_PORT", str(port))
        assert serve.main() == 2
    told, said = capsys.readouterr()
    assert told == ""
    assert said.startswith(f"serve: port {port} is in use by process {os.getpid()} (")
    assert said.endswith("); end that, or choose another with PREFECT_PORT=PORT\n")


@pytest.mark.parametrize("written", ["0", "65536", "x", "-1", "4²"])
def test_a_port_is_a_number(written: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PREFECT_PORT", "4999")
    monkeypatch.setenv("MLFLOW_PORT", written)
    assert serve.main() == 2
    assert capsys.readouterr().err == f"serve: MLFLOW_PORT={written} is not a port number\n"


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_nothing_outlives_it(way: signal.Signals, tmp_path: Path) -> None:
    project = tmp_path / "metro"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(project)], check=True)
    ports = {"PREFECT_PORT": str(free_port()), "MLFLOW_PORT": str(free_port())}
    env = {**os.environ, **ports, "PREFECT_HOME": str(tmp_path / "prefect")}
    command = [sys.executable, "-m", "flows.serve"]
    with subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        while "Ctrl-C" not in (line := server.stdout.readline()):
            assert line
        family = psutil.Process(server.pid).children(recursive=True)
        assert len(family) >= 4  # Prefect's server and worker, MLflow and its worker
        server.send_signal(way)
    assert psutil.wait_procs(family, timeout=60)[1] == []
