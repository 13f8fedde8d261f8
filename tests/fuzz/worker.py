"""Feeds changed inputs to one reader. A campaign runs it in a process of its own, which an input may end or hang."""

from __future__ import annotations

import os
import re
import resource
import struct
import sys
import time
import traceback
import warnings
import zlib
from mmap import mmap
from pathlib import Path
from random import Random

from metro.errors import MetroError
from tests.fuzz.targets import TARGETS, Target, fingerprint

VERDICTS = ("refused", "equal", "other", "silent", "uncaught")
"""Refused in one line; read as the unchanged file; read as something else, which is `silent` where there is a digest;
ended by anything but one line."""
LAYOUT = struct.Struct(f"<qd{len(VERDICTS)}q")
"""What a worker shows meanwhile: number of the input, when it began, how many of each verdict."""
MEMORY = 4 << 30


class Feeder:
    """A reader, its whole inputs, and what those give."""

    def __init__(self, target: Target, seed: int, folder: Path) -> None:
        self.target, self.seed, self.path = target, seed, folder / target.file
        folder.mkdir(parents=True, exist_ok=True)
        self.originals = target.prepare(folder)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.expected = []
        for content in self.originals:
            self._place(content)
            self.expected.append(fingerprint(target.read(self.path)))

    def change(self, number: int) -> None:
        """Put the input `number` in its place."""
        rng = Random(f"{self.seed}/{self.target.name}/{number}")
        self.which = rng.randrange(len(self.originals))
        self._place(self.target.change(rng, self.originals[self.which]))

    def judge(self) -> tuple[str, str]:
        """Verdict on the input that is in place, and what was said."""
        try:
            found = self.target.read(self.path)
        except MetroError as err:
            said = str(err)
            return (
                "refused" if said and len(said.splitlines()) == 1 and said.isprintable() else "uncaught"
            ), f"MetroError: {said!r}"
        except KeyboardInterrupt:
            raise
        except BaseException as err:  # Rust's panics are no Exception
            where = traceback.extract_tb(err.__traceback__)[-1]
            return "uncaught", f"{type(err).__name__} at {Path(where.filename).name}:{where.lineno}: {err}"
        if fingerprint(found) == self.expected[self.which]:
            return "equal", ""
        return ("silent" if self.target.digested else "other"), "read with other content"

    def _place(self, content: bytes) -> None:
        if self.path.is_dir():
            self.path.rmdir()
        self.path.write_bytes(content)
        if self.target.finish:
            self.target.finish(self.path)


def quiet() -> None:
    """Numbers that overflow are what is looked for; their warnings tell nothing new."""
    warnings.simplefilter("ignore")


def main(name: str, seed: int, first: int, count: int, seconds: float, folder: Path, board: Path, keep: Path) -> None:
    """Feed inputs from number `first` on, until there are `count` or the time is over."""
    quiet()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    feeder = Feeder(TARGETS[name], seed, folder)
    counts = dict.fromkeys(VERDICTS, 0)
    end = time.monotonic() + seconds
    with board.open("r+b") as file, mmap(file.fileno(), LAYOUT.size) as shown:
        for number in range(first, first + count):
            now = time.monotonic()
            if now > end:
                break
            feeder.change(number)
            LAYOUT.pack_into(shown, 0, number, now, *counts.values())
            verdict, said = feeder.judge()
            counts[verdict] += 1
            if verdict in ("silent", "uncaught"):
                save(keep, name, number, feeder.path, said)
        else:
            number += 1
        LAYOUT.pack_into(shown, 0, number, -1.0, *counts.values())


def save(keep: Path, name: str, number: int, path: Path, said: str) -> None:
    """Keep an input that found a fault, one of each kind."""
    stem = re.sub(r"\W+", "-", name)
    kind = zlib.crc32(re.sub(r"\d+", "0", said.partition(":")[0] + said.partition(":")[2][:20]).encode())
    place = keep / f"{stem}-{kind:08x}"
    if not place.with_suffix(".txt").exists():
        keep.mkdir(parents=True, exist_ok=True)
        place.with_suffix(path.suffix or ".bin").write_bytes(path.read_bytes())
        place.with_suffix(".txt").write_text(f"{name}, input {number}: {said}\n", errors="replace")


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    main(words[0], int(words[1]), int(words[2]), int(words[3]), float(words[4]), *map(Path, words[5:]))
