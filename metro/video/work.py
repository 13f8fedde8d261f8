"""The unfinished results of a clip, in a folder beside them: parts of the sequence, each with what the next one needs.

==================== ===================================================================================
``key``              what the parts depend on; parts of anything else are thrown away
``part-00000.webm``  overlay of its frames
``part-00000.npz``   rows (one per person and frame) and the state of what follows people; written last
==================== ===================================================================================
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from metro.errors import MetroError
from metro.files import atomic_file, read_arrays
from metro.video.film import ENDING, Film

KEY = "key"
ROW = "row_"
"""Arrays of a part that begin so hold a row per person and frame."""
REMEDY = "delete the folder and run again"


class Work:
    """The folder.

    Parameters
    ----------
    folder
        Its path; made if it is missing.
    key
        What the parts depend on.

    Raises
    ------
    MetroError
        It cannot be written, or holds something else.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        told = folder / KEY
        if folder.exists() and not told.is_file() and any(folder.iterdir()):
            raise MetroError(f"{folder}: exists and holds no {KEY}; move it away")
        if not self.begun(folder, key):
            self.remove()
            with atomic_file(told) as temporary:
                temporary.write_text(key)

    @staticmethod
    def begun(folder: Path, key: str) -> bool:
        """Whether the folder holds work on just that."""
        return (folder / KEY).is_file() and (folder / KEY).read_text() == key

    @property
    def parts(self) -> list[Path]:
        """The parts that are done, in their order."""
        paths = (self._path(number) for number in itertools.count())
        return [*itertools.takewhile(Path.exists, paths)]

    @property
    def films(self) -> list[Path]:
        """Their overlays."""
        return [part.with_suffix(ENDING) for part in self.parts]

    def film(self, fps: float, size: tuple[int, int]) -> Film:
        """The overlay of the next part."""
        return Film(self.folder / f"next{ENDING}", fps, size)

    def add(self, film: Film, rows: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray]) -> None:
        """Keep a part whose film is closed."""
        path = self._path(len(self.parts))
        os.replace(film.path, path.with_suffix(ENDING))
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **{ROW + name: array for name, array in rows.items()}, **state)

    def read(self, part: Path, only: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays of a part.

        Raises
        ------
        MetroError
            It is damaged.
        """
        return read_arrays(part, REMEDY, only)

    def remove(self) -> None:
        """Delete the folder, which holds nothing but what this class wrote."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.npz"
