"""`metro data`: what it says and draws."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from metro.body.load import load_body
from metro.cli import data as commands
from metro.cli.app import main
from metro.config import AugmentConfig, ModelConfig, TrainConfig
from metro.data import shards
from metro.data.show import stored_sheet, training_sheet
from metro.errors import MetroError


def test_verify_says_that_all_is_well(made):
    assert commands.verify(made) == f"{made}: 20 records in 3 shards, all intact"


def test_verify_fails_with_what_is_wrong(made, tmp_path, capsys):
    folder = shutil.copytree(made, tmp_path / "copy")
    (folder / "shard-00002.h5").unlink()
    with pytest.raises(MetroError, match=r"shard-00002\.h5: missing"):
        commands.verify(folder)
    (folder / "shard-00001.h5").unlink()
    with pytest.raises(MetroError, match="2 problems, listed above"):
        commands.verify(folder)
    assert capsys.readouterr().out.count("missing") == 2


def test_stats_counts(made):
    facts = commands.stats(made)
    assert (facts["name"], facts["count"], facts["shards"], facts["has_mesh"]) == ("made", 20, 3, 20)
    assert facts["bytes"] == sum(path.stat().st_size for path in made.glob("*.h5"))


def test_sources_are_listed_with_what_they_are():
    line = next(line for line in commands.sources().splitlines() if line.startswith("synthetic "))
    assert "rendered" in line


def test_sheets_show_every_record_twice(made):
    dataset, body = shards.ShardDataset(made), load_body("open")
    sheet = stored_sheet(dataset, body, count=4, columns=2)
    assert sheet.shape == (2 * 96 + 4, 2 * 192 + 4, 3)
    # Left the image with its joints, right with its mesh: each differs from what is stored.
    stored = dataset.image(0)
    assert 0.05 < (sheet[:96, :96] != stored).any(-1).mean() < 0.9
    assert 0.05 < (sheet[:96, 96:192] != stored).any(-1).mean() < 0.9


def test_records_without_meshes_show_joints_alone(prepare, tmp_path):
    prepare(tmp_path, count=2, supervision="joints_2d")
    dataset = shards.ShardDataset(tmp_path)
    sheet = stored_sheet(dataset, load_body("open"), count=1)
    assert np.array_equal(sheet[:, 96:], dataset.image(0))


def test_the_training_sheet_is_the_first_batch(made):
    train = TrainConfig(batch_size=4, workers=0, augment=AugmentConfig(colour=0))
    sheet = training_sheet(shards.ShardDataset(made), load_body("open"), ModelConfig(image_size=64), train, columns=2)
    assert sheet.shape == (2 * 64 + 4, 2 * 128 + 4, 3)


@pytest.mark.parametrize("augmented", [False, True])
def test_show_writes_a_picture(made, tmp_path, augmented):
    out = tmp_path / "sub" / "sheet.png"
    assert commands.show(made, out=out, count=2, augmented=augmented) == f"{out}: 2 of 20 records"
    assert cv2.imread(str(out)).std() > 10


def test_show_refuses_what_it_cannot_write(made, tmp_path, capsys):
    with pytest.raises(MetroError, match=r"sheet\.txt: pictures are written as \.png or \.jpg"):
        commands.show(made, out=tmp_path / "sheet.txt")
    (tmp_path / "file").write_text("")
    assert main(["data", "show", str(made), "--out", str(tmp_path / "file" / "sheet.png")]) == 2
    assert "--out. Cannot be written: Not a directory" in capsys.readouterr().err
