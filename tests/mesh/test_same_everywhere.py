"""Mesh levels are the same file on every processor: which vertices they keep is part of what a network learns."""

from __future__ import annotations

import json

import pytest

from tests.processors import PROCESSORS, run_on

RECORDED = {
    "open": "7e4787325a6827f7",
    "open_hand": "dd94b0d118644779",
}

BUILD = """
import hashlib, json
from metro.body.load import load_body
from metro.mesh.sampling import build_sampling

found = {}
for kind, sizes in (("open", (1723, 431)), ("open_hand", (195,))):
    body, digest = load_body(kind), hashlib.sha256()
    for level in build_sampling(body.v_template, body.faces, sizes):
        for array in (level.indices, level.faces, level.up.data, level.up.indices, level.up.indptr):
            digest.update(array.tobytes())
    found[kind] = digest.hexdigest()[:16]
print(json.dumps(found))
"""


@pytest.mark.parametrize("processor", PROCESSORS)
def test_levels_have_the_same_bytes(processor):
    assert json.loads(run_on(processor, BUILD)) == RECORDED
