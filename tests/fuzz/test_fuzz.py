"""A short campaign: every reader, a few changed files each; `make fuzz` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import RAW_SETS, TARGETS
from tests.fuzz.worker import Feeder

INPUTS = {
    **{"official names and shapes": 10, "command lines": 15, "bundle.json": 30},
    **dict.fromkeys(RAW_SETS, 30),
    **dict.fromkeys(("3DPW's pickles", "UP-3D", "MuCo-3DHP's composites", "Human3.6M", "MPII's MAT-file"), 15),
}
"""Of slow readers; 60 of the others."""
LONG = "MPI-INF-3DHP"
"""Has a fixture that takes longer to write than others to be read: for `make fuzz` alone."""


@pytest.mark.parametrize("name", [name for name in TARGETS if name != LONG])
@pytest.mark.filterwarnings("ignore")
def test_changed_files_are_refused_in_one_line_or_read(name: str, tmp_path: Path) -> None:
    feeder = Feeder(TARGETS[name], 1, tmp_path)
    for number in range(INPUTS.get(name, 60)):
        feeder.change(number)
        verdict, said = feeder.judge()
        assert verdict in ("refused", "equal", "other"), f"input {number}: {verdict}: {said}"
