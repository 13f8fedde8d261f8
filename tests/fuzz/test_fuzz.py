"""A short campaign: every reader, a few changed files each; `make fuzz` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import RAW_SETS, TARGETS
from tests.fuzz.worker import Feeder

INPUTS = {
    **{"official names and shapes": 10, "command lines": 15, "bundle.json": 30},
    **dict.fromkeys(RAW_SETS, 30),
    **{"MPI-INF-3DHP": 6, "Human3.6M": 12, "MuCo-3DHP's composites": 15, "MPII's MAT-file": 15, "3DPW's pickles": 15},
}
"""Of slow readers; 60 of the others."""


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_changed_files_are_refused_in_one_line_or_read(name: str, tmp_path: Path) -> None:
    feeder = Feeder(TARGETS[name], 1, tmp_path)
    for number in range(INPUTS.get(name, 60)):
        feeder.change(number)
        verdict, said = feeder.judge()
        assert verdict in ("refused", "equal", "other"), f"input {number}: {verdict}: {said}"
