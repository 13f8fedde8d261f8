"""The campaign: `python -m tests.fuzz --seconds 1200`, or `make fuzz SECONDS=1200`.

Every reader gets an equal share of the time, in worker processes: an input that ends one, or keeps it for more than
20 seconds, is named and kept, and the next process goes on behind it. The same seed gives the same inputs. What found a
fault is kept in `.metro/fuzz`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import LAYOUT, VERDICTS, save

ROOT = Path(__file__).resolve().parents[2]
KEEP = ROOT / ".metro" / "fuzz"
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where inputs are written: memory, if there is such a place."""
HANG = 20.0
START = 120.0
"""Seconds that a worker may take to make its whole inputs."""
COLUMNS = (*VERDICTS, "crashed", "hung")


def fuzz(name: str, seed: int, inputs: int, seconds: float) -> dict[str, int]:
    """Fuzz one reader; how many inputs had which end."""
    total = dict.fromkeys(COLUMNS, 0)
    first, end = 0, time.monotonic() + seconds
    while first < inputs and (left := end - time.monotonic()) > 0:
        with tempfile.TemporaryDirectory(prefix="fuzz", dir=MEMORY) as scratch:
            board, folder = Path(scratch) / "board", Path(scratch) / "f"
            board.write_bytes(LAYOUT.pack(first, 0.0, *[0] * len(VERDICTS)))
            words = [name, seed, first, inputs - first, left, folder, board, KEEP]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
            command = [sys.executable, "-m", "tests.fuzz.worker", *map(str, words)]
            with (Path(scratch) / "said").open("w") as said:
                process = subprocess.Popen(command, cwd=ROOT, stderr=said, env=environment)
            number, began, *counts = _watch(process, board)
            for verdict, count in zip(VERDICTS, counts, strict=True):
                total[verdict] += count
            if began < 0:
                return total
            if began == 0:
                raise RuntimeError(
                    f"{name}: the whole inputs cannot be read: {(Path(scratch) / 'said').read_text()[-2000:]}"
                )
            end_of_it = "hung" if process.returncode == HUNG else "crashed"
            total[end_of_it] += 1
            save(KEEP, name, number, folder / TARGETS[name].file, f"{end_of_it} ({process.returncode}) {number}")
            first = number + 1
    return total


HUNG = -9


def _watch(process: subprocess.Popen[bytes], board: Path) -> tuple[int, float, *tuple[int, ...]]:
    """Wait for a worker, and end it if one input keeps it; what it showed last."""
    started = time.monotonic()
    while True:
        try:
            process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            _, began, *_ = LAYOUT.unpack(board.read_bytes())
            if time.monotonic() - (began or started) > (HANG if began else START):
                process.kill()
                process.wait()
        if process.returncode is not None:
            return LAYOUT.unpack(board.read_bytes())


def table(rows: dict[str, dict[str, int]]) -> list[str]:
    """The results as Markdown."""
    heads = (
        "inputs",
        "refused in one line",
        "read equal",
        "read otherwise",
        "silently different",
        "uncaught",
        "crashes",
        "hangs",
    )
    lines = [f"| reader | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    total = {column: sum(row[column] for row in rows.values()) for column in COLUMNS}
    for name, row in {**rows, "**all**": total}.items():
        numbers = [sum(row.values()), *row.values()]
        lines.append(f"| {name} | {' | '.join(f'{n:,}' for n in numbers)} |")
    return lines


def main() -> None:
    """Run the campaign and print, or write, its table."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=120.0, help="time for all readers together")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="inputs for each reader at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="*", default=list(TARGETS), help="readers, by the start of their names")
    parser.add_argument("--record", type=Path, help="Markdown file to write")
    given = parser.parse_args()
    shutil.rmtree(KEEP, ignore_errors=True)
    names = [name for name in TARGETS if name.startswith(tuple(given.only))]
    share = given.seconds * given.processes / len(names)
    began = time.monotonic()
    with ThreadPoolExecutor(given.processes) as pool:
        results = pool.map(lambda name: fuzz(name, given.seed, given.inputs, share), names)
        rows = {}
        for name, row in zip(names, results, strict=True):
            rows[name] = row
            print(f"{name}: {', '.join(f'{n} {verdict}' for verdict, n in row.items() if n)}", flush=True)
    minutes = (time.monotonic() - began) / 60
    lines = table(rows)
    print("\n".join(["", *lines]))
    if given.record:
        from benchmarks.machine import machine

        command = f"python -m tests.fuzz --seconds {given.seconds:g} --seed {given.seed}"
        about = f"`{command}`, {date.today()}, {minutes:.0f} minutes on {machine()}."
        given.record.write_text("\n".join(["# Every reader, fed with changed files", "", about, "", *lines, ""]))
    bad = sum(row[column] for row in rows.values() for column in ("silent", "uncaught", "crashed", "hung"))
    if bad:
        print(f"\n{bad} faults; the inputs are in {KEEP}:")
        print("".join(sorted(path.read_text() for path in KEEP.glob("*.txt"))))
        sys.exit(1)


if __name__ == "__main__":
    main()
