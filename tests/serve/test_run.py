"""`metro serve` and `metro demo` as processes: what is in their way is one line, and they end when told, in order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import numpy as np
import pytest

from metro.cli.app import main
from metro.errors import MetroError
from metro.serve.run import listen
from tests.serve.conftest import encoded

SERVE = [sys.executable, "-m", "metro.cli.app", "serve"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Address and process of a server that answers."""
    port = free_port()
    with subprocess.Popen(
        [*command, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        assert process.stdout
        try:
            told = process.stdout.readline()
            assert told.startswith(f"page http://127.0.0.1:{port}/ · how to call it http://127.0.0.1:{port}/docs")
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


@pytest.mark.parametrize("words", [["serve"], ["demo", "--no-browser"]])
def test_a_taken_port_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([*words, "--port", str(port)]) == 2
    told, said = capsys.readouterr()
    assert told == ""
    assert said == f"metro: port {port} of 127.0.0.1 is in use; choose another with --port PORT\n"


@pytest.mark.parametrize("host", ["192.0.2.1", "300.1.1.1.1", "a" * 70, "", "a b"])
def test_an_address_that_is_not_this_machine_s(host: str) -> None:
    with pytest.raises(MetroError, match=r"--host|choose another") as raised:
        listen(host, free_port()).close()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_model_that_is_missing_is_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--model", "missing"]) == 2
    assert capsys.readouterr().err.startswith("metro: missing: no such folder; give a checkpoint or bundle folder")


@pytest.mark.server
def test_a_burst_is_refused_and_what_is_in_hand_at_the_end_is_answered(somebody: np.ndarray) -> None:
    png = encoded(somebody)
    with running([*SERVE, "--waiting", "2"]) as (address, server):
        statuses: list[int] = []

        def burst() -> None:
            answer = httpx2.post(f"{address}/predict?overlay=true", files={"image": ("p.png", png * 40)}, timeout=60)
            statuses.append(answer.status_code)

        clients = [threading.Thread(target=burst) for _ in range(24)]
        for one in clients:
            one.start()
        for one in clients:
            one.join(60)
        assert {*statuses} == {200, 429}
        assert len(statuses) == 24

        answers: list[httpx2.Response] = []
        form = httpx2.Request("POST", f"{address}/predict", files={"image": ("p.png", png)})
        body, sending, go = form.read(), threading.Event(), threading.Event()

        def parts() -> Iterator[bytes]:
            yield body[:1000]
            sending.set()
            assert go.wait(60)
            yield body[1000:]

        def ask() -> None:
            headers = {"content-type": form.headers["content-type"]}
            answers.append(httpx2.post(f"{address}/predict", content=parts(), headers=headers, timeout=60))

        client = threading.Thread(target=ask)
        client.start()
        assert sending.wait(60)
        while httpx2.get(f"{address}/health").json()["waiting"] == 0:
            pass
        server.send_signal(signal.SIGTERM)
        go.set()
        client.join(60)
        assert answers[0].status_code == 200
        assert len(answers[0].json()["images"][0]["people"]) == 1
        told, said = server.communicate(timeout=60)
        assert (server.returncode, told, said) == (0, "", "")


@pytest.mark.server
def test_without_a_browser_the_demo_says_where_its_page_is_and_ends_by_ctrl_c() -> None:
    demo = [sys.executable, "-m", "metro.cli.app", "demo"]
    with running(demo, BROWSER="", PATH="/nowhere", DISPLAY="") as (address, server):
        assert server.stdout
        assert server.stdout.readline() == f"no browser was found; open {address}/ in one\n"
        assert httpx2.get(f"{address}/health").json()["status"] == "ok"
        server.send_signal(signal.SIGINT)
        assert (*server.communicate(timeout=60), server.returncode) == ("", "", 0)
