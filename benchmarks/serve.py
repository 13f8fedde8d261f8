"""`metro serve` under load: `python benchmarks/serve.py` writes the table `benchmarks/serve.md`.

Eight clients on this machine ask for one picture after the other, each with the person's box; plain loops of the
predictor over the same files, in this process, take turns with them. Every answer is held to the right status, and the
first of each kind to what the predictor says. Then come sixty-four at once to a server that lets eight wait.
"""

from __future__ import annotations

import collections
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import psutil
from machine import machine

import metro
from metro.export.predictor import Predictor

CLIENTS, ROUNDS = 8, 5
SECONDS = {"client": 10.0, "loop": 5.0}
EXAMPLES = Path(metro.__file__).parent / "serve" / "page" / "examples"
SIZES = {"640 × 480": (640, 480), "1920 × 1080": (1920, 1080), "4000 × 3000": (4000, 3000)}
BOX = (0.2, 0.05, 0.6, 0.85)
"""x, y, width, height of the person over the side of the example."""
BURST, WAITING, PORT = 64, 8, 8713


def pictures(folder: Path) -> dict[str, tuple[Path, list[float]]]:
    """An example on a canvas of each size, as a JPEG file, and the box of its person."""
    example, made = cv2.imread(str(EXAMPLES / "1.jpg")), {}
    for name, (width, height) in SIZES.items():
        canvas = np.full((height, width, 3), 128, np.uint8)
        left = (width - height) // 2
        canvas[:, left : left + height] = cv2.resize(example, (height, height), interpolation=cv2.INTER_CUBIC)
        file = folder / f"{width}.jpg"
        cv2.imwrite(str(file), canvas)
        made[name] = file, [left + BOX[0] * height, *(part * height for part in BOX[1:])]
    return made


def form(file: Path, box: list[float]) -> bytes:
    """The body of a request, with boundary `b`."""
    head = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{file.name}"\r\n\r\n'.encode()
    boxes = f'\r\n--b\r\nContent-Disposition: form-data; name="boxes"\r\n\r\n{json.dumps([box])}\r\n--b--\r\n'
    return head + file.read_bytes() + boxes.encode()


def post(connection: http.client.HTTPConnection, body: bytes, query: str = "") -> tuple[int, bytes]:
    """Status and content of an answer."""
    connection.request("POST", f"/predict{query}", body, {"Content-Type": "multipart/form-data; boundary=b"})
    response = connection.getresponse()
    return response.status, response.read()


@contextmanager
def server(*options: str) -> Iterator[psutil.Process]:
    """A server that answers at `PORT`."""
    command = [sys.executable, "-m", "metro.cli.app", "serve", "--port", str(PORT), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("page http://")
        yield psutil.Process(process.pid)
        process.terminate()
        assert process.wait(60) == 0


def load(bodies: list[bytes], query: str, seconds: float) -> tuple[list[float], float]:
    """Latencies of the requests of all clients, and the seconds that they took together."""
    latencies: list[float] = []
    statuses: collections.Counter[int] = collections.Counter()
    start = time.perf_counter()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", PORT)
        turn = number
        while time.perf_counter() - start < seconds:
            began = time.perf_counter()
            status, _ = post(connection, bodies[turn % len(bodies)], query)
            latencies.append(time.perf_counter() - began)
            statuses[status] += 1
            turn += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}, statuses
    return latencies, time.perf_counter() - start


def loop(predictor: Predictor, files: list[tuple[Path, list[float]]], seconds: float) -> tuple[int, float, float]:
    """Pictures, wall and processor seconds of predicting files one by one, to JSON."""
    count, start, began = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        file, box = files[count % len(files)]
        predictor(file, box)[0].to_json()
        count += 1
    return count, time.perf_counter() - start, time.process_time() - began


def measured(predictor: Predictor, files: list[tuple[Path, list[float]]], query: str) -> dict[str, float]:
    """One row of the table: clients and plain loops in turns."""
    bodies = [form(*file) for file in files]
    latencies, clients, loops = [], [], []
    with server() as process:
        status, content = post(http.client.HTTPConnection("127.0.0.1", PORT), bodies[0])
        assert status == 200
        expected = predictor(*files[0])[0].joints
        got = json.loads(content)["images"][0]["people"][0]["joints"]
        assert np.abs(np.array(got) - expected).max() < 1e-4
        first = None
        for _ in range(ROUNDS):
            before = process.cpu_times()
            found, seconds = load(bodies, query, SECONDS["client"])
            after = process.cpu_times()
            cpu = after.user + after.system - before.user - before.system
            clients.append((len(found) / seconds, cpu / len(found)))
            latencies += found
            first = first or process.memory_info().rss
            count, wall, cpu = loop(predictor, files, SECONDS["loop"])
            loops.append((count / wall, cpu / count))
        last, peak = process.memory_info().rss, _peak(process)
    rate, cpu = (statistics.median(column) for column in zip(*clients, strict=True))
    plain_rate, plain_cpu = (statistics.median(column) for column in zip(*loops, strict=True))
    return {
        "count": len(latencies),
        "rate": rate,
        "p50": 1000 * float(np.percentile(latencies, 50)),
        "p95": 1000 * float(np.percentile(latencies, 95)),
        "ratio": rate / plain_rate,
        "cpu": 1000 * cpu,
        "plain_cpu": 1000 * plain_cpu,
        "first": first / 2**20 if first else 0,
        "last": last / 2**20,
        "peak": peak,
    }


def burst(file: tuple[Path, list[float]]) -> str:
    """What sixty-four at once get from a server that lets eight wait."""
    body, statuses = form(*file), collections.Counter[int]()
    with server("--waiting", str(WAITING)) as process:

        def client() -> None:
            statuses[post(http.client.HTTPConnection("127.0.0.1", PORT), body, "?overlay=true")[0]] += 1

        threads = [threading.Thread(target=client) for _ in range(BURST)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = post(http.client.HTTPConnection("127.0.0.1", PORT), body)[0]
        assert set(statuses) == {200, 429}
        assert statuses.total() == BURST
        assert after == 200
        return (
            f"{BURST} requests of 12 megapixels with overlay at once, `--waiting {WAITING}`: {statuses[200]} answered, "
            f"{statuses[429]} sent away with 429, none lost; the next one is answered; peak {_peak(process):.0f} MiB."
        )


def _peak(process: psutil.Process) -> float:
    """MiB of resident memory at most so far."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """Measure and write the table."""
    predictor = metro.load("open")
    with tempfile.TemporaryDirectory() as temporary:
        made = pictures(Path(temporary))
        rows = {f"{name}, JSON": ([file], "") for name, file in made.items()}
        rows["all three in turn, JSON, overlay, OBJ, GLB"] = (
            list(made.values()),
            "?overlay=true&overlay_side=1600&obj=true&glb=true",
        )
        table = {name: measured(predictor, files, query) for name, (files, query) in rows.items()}
        told = burst(made["4000 × 3000"])
    lines = [
        "# The server under load",
        "",
        f"Written by `python benchmarks/serve.py`: shipped checkpoint, {CLIENTS} clients on the same machine, JPEG",
        f"pictures with one box each; {ROUNDS} rounds of {SECONDS['client']:.0f} s in turns with a plain loop of the",
        "predictor over the same files (decoding and JSON included; no overlays or meshes in any row).",
        f"{machine()}, load {os.getloadavg()[0]:.1f} at the end, clients included.",
        "",
        "| pictures | answered, failed | a second, ÷ plain loop | p50, p95 ms | CPU ms, plain | MiB first, last, top |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in table.items():
        lines.append(
            f"| {name} | {row['count']:.0f}, 0 | {row['rate']:.1f}, {row['ratio']:.2f} "
            f"| {row['p50']:.0f}, {row['p95']:.0f} | {row['cpu']:.0f}, {row['plain_cpu']:.0f} "
            f"| {row['first']:.0f}, {row['last']:.0f}, {row['peak']:.0f} |"
        )
    lines += [
        "",
        "CPU is processor time a picture; memory the server's resident set after the first round, after the last, and",
        "at its peak.",
        "",
        told,
    ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
