"""A container of Microsoft's with real pictures through the adapter, with made-up labels beside it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Record
from metro.sources import metro_tsv
from metro.sources.source import Row
from tests.reference import reference

SIZES = {"000000522418": (640, 480), "000000184613": (500, 336), "000000391895": (640, 360)}
"""As its hw file tells."""
BODY = BodyConfig()


def _records(config: DatasetConfig) -> list[Record]:
    rows = [*metro_tsv.rows(config, BODY)]
    return [*metro_tsv.read(config, BODY, [row for row in rows if isinstance(row, Row)])]  # type: ignore[list-item]


def test_pictures_are_found_by_the_offsets_that_came_with_them(tmp_path: Path) -> None:
    for name in ("train.tsv", "train.lineidx", "train.linelist.tsv", "train.label.tsv", "train.label.lineidx"):
        (tmp_path / name).write_bytes(reference(f"real/metro_tsv/{name}").read_bytes())
    (tmp_path / "train.yaml").write_text("img: train.tsv\nlabel: train.label.tsv\nlinelist: train.linelist.tsv\n")
    config = DatasetConfig(source="metro_tsv", root=tmp_path, options={"yaml": "train.yaml"})  # type: ignore[arg-type]
    bad = _records(config)  # its labels are of another task
    assert len(bad) == 3
    assert all(isinstance(item, BadRecord) and "list of one object" in item.problem for item in bad)
    joints = np.column_stack([np.arange(24), np.arange(24), np.ones(24)]).tolist()
    label = [{"center": [9, 9], "scale": 1, "2d_joints": joints, "has_2d_joints": 1, "has_3d_joints": 0, "has_smpl": 0}]
    lines = [f"{key}\t{json.dumps(label)}\n" for key in SIZES]
    (tmp_path / "train.label.tsv").write_text("".join(lines))
    (tmp_path / "train.label.lineidx").write_text("".join(f"{n * len(lines[0])}\n" for n in range(3)))
    records = _records(config)
    assert [record.frame for record in records] == ["train.tsv@0", "train.tsv@1", "train.tsv@2"]
    for record, size in zip(records, SIZES.values(), strict=True):
        record.check()
        assert Image.open(io.BytesIO(record.image)).size == size  # type: ignore[arg-type]
