"""Files that may not be part of this repository, in the folder that `METRO_REFERENCE` names.

==================================  =====================================================================
official/NAME.npz, NAME.keys.json   outputs recorded from the official modules with made-up weights
real/000000000785.jpg               a photograph of COCO, with its annotation person_keypoints_785.json
real/true_values.json               single samples of FreiHAND, Human3.6M, MPII and MPI-INF-3DHP
==================================  =====================================================================
"""

import os
from pathlib import Path

import pytest


def reference(path: str) -> Path:
    """A file of the folder; skips the test where there is no folder."""
    folder = os.environ.get("METRO_REFERENCE")
    if not folder:
        pytest.skip("METRO_REFERENCE does not name the folder of reference files")
    found = Path(folder, path)
    assert found.is_file(), f"{found}: METRO_REFERENCE names a folder without it"
    return found
