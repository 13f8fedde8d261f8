from __future__ import annotations

import numpy as np
import pytest

from metro.body.load import load_body
from metro.cli.mesh import info
from metro.errors import MetroError
from metro.mesh.sampling import build_sampling, save_sampling


@pytest.fixture(scope="module")
def hand_file(tmp_path_factory):
    hand = load_body("open_hand")
    path = tmp_path_factory.mktemp("mesh") / "sampling.npz"
    save_sampling(path, build_sampling(hand.v_template, hand.faces, (195, 49)), {"kind": "open_hand"})
    return path


def test_info_states_the_facts_of_each_level(hand_file):
    described = info(hand_file, kind="open_hand")
    assert described["layout"] == "metro"
    assert described["meta"] == {"kind": "open_hand"}
    first, second = described["levels"]
    assert (first["vertices"], second["vertices"]) == (195, 49)
    assert first["manifold"]
    assert not first["watertight"]
    assert first["published"] is None
    assert 0 < first["template_error_mm"]["mean"] < second["template_error_mm"]["mean"] < 10


def test_info_refuses_another_body_and_another_file(hand_file, tmp_path):
    with pytest.raises(MetroError, match="made for 778 vertices, the open body has 6890"):
        info(hand_file)
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(MetroError, match=r"x\.npz: damaged \(KeyError: .header"):
        info(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", D=np.zeros(3))
    with pytest.raises(MetroError, match="has no 'U'"):
        info(tmp_path / "x.npz")
