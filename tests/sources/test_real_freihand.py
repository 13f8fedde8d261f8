"""A real hand of FreiHAND through the adapter (research licence: it stays outside of the project)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from metro.body.figure import HAND as FIGURE
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import Record
from metro.sources import freihand
from metro.sources.source import Row
from tests.reference import reference


def test_joints_and_vertices_of_the_set_go_together(tmp_path: Path) -> None:
    """Tips are the vertices that the registry names, `scale` is the bone behind the root. Its pose is not had: only the
    place of the root, which follows from xyz, is in `mano`."""
    hand = json.loads(reference("real/true_values.json").read_text())["freihand"]
    K, xyz = np.array(hand["K"]), np.array(hand["xyz_m"])
    assert K[0, 0] != K[1, 1]
    scale = (K[0, 0] + K[1, 1]) / 2 / xyz[9, 2]
    mano = [*[0] * 58, xyz[9, 0] * scale + 112, xyz[9, 1] * scale + 112, scale]
    length = next(hand[key] for key in ("scale", "scale_m") if key in hand)
    entries = {"K": hand["K"], "xyz": hand["xyz_m"], "verts": hand["verts_m"], "scale": length, "mano": [mano]}
    for name, entry in entries.items():
        (tmp_path / f"training_{name}.json").write_text(json.dumps([entry]))
    (tmp_path / "training/rgb").mkdir(parents=True)
    Image.new("RGB", (224, 224)).save(tmp_path / "training/rgb/00000000.jpg")
    options = {"backgrounds": 1, "verts": True}
    config = DatasetConfig(source="freihand", root=tmp_path, options=options, supervision="joints_3d")  # type: ignore[arg-type]
    body = BodyConfig(kind="open_hand")
    checks = {check.what: check.passed for check in freihand.survey(config, body).checks}
    assert [*checks.values()] == [True, True, True, None]
    assert "the tips of xyz are vertices of verts" in checks
    config = config.model_copy(update={"options": type(config.options)(backgrounds=1)})
    rows = [row for row in freihand.rows(config, body) if isinstance(row, Row)]
    (record,) = freihand.read(config, body, rows)
    assert isinstance(record, Record)
    record.check(FIGURE)
    assert np.array_equal(record.joints_3d[:, :3], xyz)
    pixels = xyz @ K.T
    assert np.allclose(record.keypoints_2d[:, :2], pixels[:, :2] / pixels[:, 2:])
    assert ((record.keypoints_2d[:, :2] > 0) & (record.keypoints_2d[:, :2] < 224)).all()
