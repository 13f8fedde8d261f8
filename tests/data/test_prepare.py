"""From a source to a folder of shards: parallel, resumable, counted."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from metro import sources
from metro.config import BodyConfig, DatasetConfig
from metro.data import parallel, shards
from metro.data.records import BadRecord, Left
from metro.errors import MetroError
from metro.options import OPTIONS
from metro.sources import prepare as preparing
from metro.sources.index import build_index
from metro.sources.source import RawFile, Row
from tests.data import people

PACKAGE = Path(sources.__file__).parent


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_manifest_counts_and_describes(prepare, tmp_path):
    manifest = prepare(tmp_path, count=20, per_shard=8)
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    assert not (tmp_path / "index").exists()
    assert [entry["count"] for entry in manifest["shards"]] == [8, 8, 4]
    assert (manifest["count"], manifest["skipped"]) == (20, 0)
    facts = manifest["statistics"]
    assert facts["box_px"] == {"p0": 100, "p5": 100, "p50": 100, "p95": 100, "p100": 100}
    assert facts["joint_visibility"] == [1.0] * 24
    pixels = np.concatenate([shards.ShardDataset(tmp_path).image(i).reshape(-1, 3) for i in range(20)]) / 255
    np.testing.assert_allclose(facts["colour_mean"], pixels.mean(0), atol=2e-3)  # JPEG changes it a little
    np.testing.assert_allclose(facts["colour_sd"], pixels.std(0), atol=5e-3)


def test_processes_and_folder_do_not_change_a_byte(prepare, tmp_path, monkeypatch):
    prepare(tmp_path / "one", workers=1)
    prepare(tmp_path / "two", workers=2, root=tmp_path)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_existing_cluster_does_the_work(prepare, tmp_path):
    from distributed import LocalCluster

    prepare(tmp_path / "here")
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        prepare(tmp_path / "there", scheduler=cluster.scheduler_address)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def _made(path):
    """Another file of the name may get the number that the system has for a removed one."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_finished_shards_are_kept_and_damaged_ones_made_again(prepare, tmp_path):
    prepare(tmp_path)
    before = contents(tmp_path)
    made = {path.name: _made(path) for path in tmp_path.iterdir()}
    with h5py.File(tmp_path / "shard-00001.h5", "r+") as file:
        file["images/bytes"][500] ^= 1
    (tmp_path / "manifest.json").unlink()  # as if interrupted
    (tmp_path / ".shard-00002.h5.123.tmp").write_bytes(b"half")
    (tmp_path / "shard-00007.h5").write_bytes(b"of a larger run")
    prepare(tmp_path)
    assert contents(tmp_path) == before
    after = {path.name: _made(path) for path in tmp_path.iterdir()}
    assert [name for name in before if after[name] == made[name]] == ["shard-00000.h5", "shard-00002.h5"]


def test_other_parameters_make_other_shards(prepare, tmp_path):
    prepare(tmp_path)
    prepare(tmp_path, supervision="joints_2d")
    assert not shards.ShardDataset(tmp_path).labels["has_mesh"].any()


def test_unreadable_records_are_counted(prepare, tmp_path):
    manifest = prepare(tmp_path, count=120, per_shard=60, bad=(70,))
    assert (manifest["count"], manifest["skipped"]) == (119, 1)
    assert manifest["skipped_first"] == ["made:000070.png#0: unreadable on purpose"]
    prepare(tmp_path, count=120, per_shard=60, bad=(70,))
    assert json.loads((tmp_path / "manifest.json").read_text()) == manifest


def test_too_many_unreadable_records_fail(prepare, tmp_path):
    said = (
        r"^made: 2 of 20 records are bad, the first: made:000001.*; mend them or raise datasets\.made\.max_bad, now 0"
    )
    with pytest.raises(MetroError, match=said):
        prepare(tmp_path, bad=(1, 9))
    with pytest.raises(MetroError, match=r"manifest\.json: missing"):
        shards.ShardDataset(tmp_path)


def test_how_many_may_be_bad_is_a_setting_that_changes_no_shard(prepare, tmp_path):
    with pytest.raises(MetroError, match=r"^made: 1 of 6 records is bad, the first: .*on purpose; mend it or raise "):
        prepare(tmp_path / "a", count=6, bad=(4,))
    assert prepare(tmp_path / "a", count=6, bad=(4,), max_bad=0.2)["skipped"] == 1
    prepare(tmp_path / "b", count=6, bad=(4,), max_bad=1.0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    with pytest.raises(MetroError, match=r"^made: 2 of 2 records are bad, the first: .*on purpose; mend them$"):
        prepare(tmp_path / "c", count=2, bad=(0, 1), max_bad=1.0)


def test_a_source_without_records_fails(prepare, tmp_path):
    with pytest.raises(MetroError, match="source 'synthetic' has no records for split 'train'"):
        prepare(tmp_path, count=0)
    with pytest.raises(MetroError, match=r"no records for split 'train' \(2 left out: odd one out\)$"):
        prepare(tmp_path / "other", count=2, left=(0, 1))


def test_an_unknown_source_is_one_line():
    with pytest.raises(MetroError, match=r"^no source 'cocoa'; did you mean 'coco'\?$"):
        sources.adapter("cocoa")


def test_what_a_rule_leaves_out_is_counted_and_is_not_bad(prepare, tmp_path):
    manifest = prepare(tmp_path, count=20, per_shard=8, left=(1, 2, 3))
    assert (manifest["count"], manifest["skipped"], manifest["left"]) == (17, 0, {"odd one out": 3})
    assert [entry["count"] for entry in manifest["shards"]] == [8, 8, 1]


def test_people_keep_their_gender_unless_the_neutral_body_is_to_stand_in(prepare, tmp_path, monkeypatch):
    made = people.person
    monkeypatch.setattr(people, "person", lambda number: made(number, gender=("neutral", "female", "male")[number % 3]))
    for gender, stored in (("own", [0, 1, 2, 0, 1, 2]), ("neutral", [0] * 6)):
        prepare(tmp_path / gender, count=6, gender=gender)
        assert shards.ShardDataset(tmp_path / gender).labels["gender"].tolist() == stored
    assert shards.ShardDataset(tmp_path / "own").genders == ["female", "male"]
    assert shards.ShardDataset(tmp_path / "neutral").genders == []


def test_other_raw_data_make_other_shards(prepare, tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    (root / "labels.json").write_text("one")
    settings = {"root": root, "raw": (RawFile("labels.json", True, "the site"),)}
    before = prepare(tmp_path / "out", **settings)
    assert before["raw"] == [("labels.json", 3, hashlib.sha256(b"one").hexdigest())]
    kept = contents(tmp_path / "out")
    (root / "labels.json").write_text("two")
    (tmp_path / "out" / "manifest.json").unlink()  # as if it had been interrupted
    prepare(tmp_path / "out", **settings)
    assert not set(kept.values()) & set(contents(tmp_path / "out").values())


def test_missing_raw_data_are_refused_before_any_work(prepare, tmp_path):
    raw = (RawFile("a.json", False, "archive.zip"),)
    said = r"^raw: lacks a\.json \(archive\.zip\); `metro data doctor synthetic` lists what it needs$"
    with pytest.raises(MetroError, match=said):
        prepare(tmp_path / "out", raw=raw, root=Path("raw"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in sources.NAMES if (PACKAGE / f"{name}.py").is_file()])
def test_an_adapter_has_all_parts(name):
    module = sources.adapter(name)
    assert module.LICENCE
    assert module.SITE
    assert all(inspect.isfunction(getattr(module, part)) for part in ("survey", "rows", "read"))
    assert set(OPTIONS) == set(sources.NAMES)


def indexed(folder, groups, size):
    rows = [Row(str(i), 0, group, i) for i, group in enumerate(groups)]
    index = build_index(folder, "key", rows, "x", progress=False)
    assert [row for start, stop in index.ranges(size) for row in index.read(start, stop)] == rows
    return index.ranges(size)


def test_shards_end_where_groups_do(tmp_path):
    assert indexed(tmp_path / "a", "aaabbbbbcc", 5) == [(0, 3), (3, 8), (8, 10)]
    assert indexed(tmp_path / "b", "abbbbbbbbb", 5) == [(0, 5), (5, 10)]  # a shard at least half full
    assert indexed(tmp_path / "c", "", 5) == []
    assert indexed(tmp_path / "d", "abcde", 5) == [(0, 5)]


def test_an_index_is_made_once_for_a_key(tmp_path):
    build_index(tmp_path / "i", "one", [Row("a", 0, "a", 0.1), Left("why"), BadRecord("x", "torn", 3)], "", False)
    again = build_index(tmp_path / "i", "one", iter(()), "", progress=False)
    assert list(again.read(0, 1)) == [Row("a", 0, "a", 0.1)]
    assert (again.left, again.bad) == ({"why": 1}, [("x: torn", 3)])
    assert build_index(tmp_path / "i", "two", iter(()), "", progress=False).records == 0


def test_an_unreachable_folder_is_one_line(prepare, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MetroError, match="cannot be written"):
        prepare(tmp_path / "file" / "set")


def double(number: int) -> int:
    if number == 3:
        raise MetroError("three is refused")
    if number == 5:
        os._exit(1)
    return 2 * number


def test_results_keep_their_order():
    assert parallel.map_shards(double, [1, 2, 4], workers=1, progress=False) == [2, 4, 8]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_keeps_its_line(workers):
    with pytest.raises(MetroError, match=r"^three is refused$"):
        parallel.map_shards(double, [1, 3, 4], workers=workers, progress=False)


def test_a_dying_worker_is_one_line():
    with pytest.raises(MetroError, match="doubles: a worker process died"):
        parallel.map_shards(double, [1, 5], workers=2, progress=False, label="doubles")


def test_hands_have_their_own_shapes(tmp_path, monkeypatch):
    def hand(number: int):
        rng = np.random.default_rng(number)
        joints = np.column_stack([rng.normal(0, 0.04, (21, 3)), np.ones(21)])
        changes = {"keypoints_2d": np.ones((21, 3)), "joints_3d": joints, "pose_aa": rng.normal(size=48)}
        return people.person(number, **changes)

    monkeypatch.setattr(sources, "adapter", lambda name: people.Made(3, make=hand))
    preparing.prepare("hands", DatasetConfig(), BodyConfig(kind="open_hand"), tmp_path, workers=1, progress=False)
    dataset = shards.ShardDataset(tmp_path)
    assert dataset.joint_set == "HAND21"
    assert dataset.labels["pose_aa"].shape == (3, 48)
