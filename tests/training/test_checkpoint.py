import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import nn

from metro.config import ModelConfig, Params
from metro.errors import MetroError
from metro.mesh.sampling import build_sampling
from metro.training import checkpoint as module
from metro.training.checkpoint import blend_weights, copy_weights, latest_checkpoint, load_checkpoint, save_checkpoint
from metro.training.restore import load_weights
from tests.full_disk import said_on_a_full_disk

SPHERE = trimesh.creation.icosphere(2)
LEVELS = build_sampling(SPHERE.vertices, SPHERE.faces, (41, 12))


def write(folder: Path, step: int = 3, **extra) -> Path:
    torch.manual_seed(step)
    params, metrics = Params(model=ModelConfig(image_size=96)), {"mpjpe": 1.5}
    told = {"params": params, "step": step, "metrics": metrics, "body_digest": "b" * 64, "levels": LEVELS}
    return save_checkpoint(folder, nn.Linear(3, 2).state_dict(), **(told | extra))


def test_round_trip_keeps_weights_params_and_metrics(tmp_path):
    write(tmp_path / "c", training_state={"average": {"weight": torch.ones(2)}})
    loaded = load_checkpoint(tmp_path / "c")
    torch.manual_seed(3)
    assert torch.equal(loaded.weights()["weight"], nn.Linear(3, 2).weight)
    assert loaded.params == Params(model=ModelConfig(image_size=96))
    assert (loaded.step, loaded.metrics, loaded.body_digest) == (3, {"mpjpe": 1.5}, "b" * 64)
    assert torch.equal(loaded.training_state()["average"]["weight"], torch.ones(2))


def test_a_checkpoint_carries_its_mesh_levels(tmp_path):
    found = load_checkpoint(write(tmp_path / "c"))
    for stored, level in zip(found.levels, LEVELS, strict=True):
        np.testing.assert_array_equal(stored.indices, level.indices)
        np.testing.assert_array_equal(stored.faces, level.faces)
        assert (stored.up != level.up).nnz == 0
    found.check_body("b" * 64)
    found.check_levels(LEVELS)
    copied = load_checkpoint(copy_weights(tmp_path / "c", tmp_path / "copy"))
    copied.check_body("b" * 64)
    copied.check_levels(LEVELS)


def test_other_levels_or_another_body_are_refused_by_name(tmp_path):
    found = load_checkpoint(write(tmp_path / "c"))
    with pytest.raises(MetroError, match=r"another body model \(bbbbbbbbbbbb, here cccccccccccc"):
        found.check_body("c" * 64)
    with pytest.raises(MetroError, match="162 → 41 → 12 vertices against 162 → 41"):
        found.check_levels(LEVELS[:1])
    first, second = LEVELS
    moved = replace(second, indices=np.r_[second.indices[:-1], 40])
    with pytest.raises(MetroError, match=r"levels \(11 of 12 vertices in common, 11 of them in the same place"):
        found.check_levels([first, moved])
    heavier = replace(second, up=second.up * 1.001)
    with pytest.raises(MetroError, match=r"the same vertices, but up-sampling weights that differ by up to 0\.001"):
        found.check_levels([first, heavier])


def test_half_precision_storage_is_read_as_float32(tmp_path):
    full, half = write(tmp_path / "full"), write(tmp_path / "half", dtype=torch.float16)
    weights = load_checkpoint(half).weights()["weight"]
    assert weights.dtype == torch.float32
    assert torch.allclose(weights, load_checkpoint(full).weights()["weight"], atol=1e-3)
    assert (half / module.WEIGHTS).stat().st_size < (full / module.WEIGHTS).stat().st_size


def test_a_blend_lies_between_and_is_otherwise_the_second(tmp_path):
    one, other = write(tmp_path / "one", step=3), write(tmp_path / "other", step=5)
    found = load_checkpoint(blend_weights(one, other, 0.25, tmp_path / "blend"))
    before, after = load_checkpoint(one).weights(), load_checkpoint(other).weights()
    for name, weight in found.weights().items():
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * after[name])
    assert found.step == 5
    for share, end in ((0.0, before), (1.0, after)):
        ends = load_checkpoint(blend_weights(one, other, share, tmp_path / "end")).weights()
        assert all(torch.equal(weight, end[name]) for name, weight in ends.items())


def test_only_weights_of_one_network_are_blended(tmp_path):
    one = write(tmp_path / "one")
    torch.manual_seed(0)
    wider = save_checkpoint(
        tmp_path / "wider", nn.Linear(4, 2).state_dict(), params=Params(), step=1, metrics={}, body_digest="b" * 64,
        levels=LEVELS,
    )  # fmt: skip
    for other, said in (
        (wider, "weights of two networks"),
        (write(tmp_path / "body", body_digest="c" * 64), "trained on another body model"),
        (write(tmp_path / "levels", levels=LEVELS[:1]), "other mesh levels"),
    ):
        with pytest.raises(MetroError, match=said):
            blend_weights(one, other, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_writing_is_byte_identical(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    assert (a / module.WEIGHTS).read_bytes() == (b / module.WEIGHTS).read_bytes()
    assert (a / module.META).read_text() == (b / module.META).read_text()


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:-8]), Path.unlink])
def test_damaged_weights_are_refused(tmp_path, damage):
    folder = write(tmp_path / "c")
    damage(folder / module.WEIGHTS)
    with pytest.raises(MetroError, match=r"damaged|missing"):
        load_checkpoint(folder).weights()


def test_what_is_not_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(MetroError, match=r"checkpoint\.json: missing; give a checkpoint folder"):
        load_checkpoint(tmp_path)
    folder = write(tmp_path / "c")
    meta = json.loads((folder / module.META).read_text())
    (folder / module.META).write_text(json.dumps(meta | {"format": 9}))
    with pytest.raises(MetroError, match="format 9"):
        load_checkpoint(folder)
    (folder / module.META).write_text(json.dumps(meta | {"format": 1}))
    with pytest.raises(MetroError, match=r"format 1, this version of metro reads 2; .* lack the mesh levels"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("size", "said"),
    [(100, "c: File too large; nothing was written"), (20_000, "training.pt could not be completed")],
)
def test_a_full_disk_leaves_the_old_checkpoint_and_no_half_file(tmp_path, size, said):
    """Wherever the disk is full: under the weights (300 bytes), or under the state that a resume needs."""
    folder = write(tmp_path / "c", training_state={"moments": torch.zeros(9)})
    code = """from tests.training.test_checkpoint import *
write(Path(arguments[0]), step=4, training_state={"moments": torch.zeros(99_999)})"""
    assert said in said_on_a_full_disk(size, code, folder)
    assert load_checkpoint(folder).step == 3
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_what_others_put_there_is_not_deleted(tmp_path):
    thesis = tmp_path / "sub" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.touch()
    with pytest.raises(MetroError, match=r"exists and holds no checkpoint\.json"):
        copy_weights("open", tmp_path)
    assert thesis.exists()
    resumable = write(tmp_path / "c", training_state={})
    with pytest.raises(MetroError, match=r"training\.pt would be lost"):
        write(resumable)
    assert load_checkpoint(resumable).training_state() == {}


def test_the_folder_that_one_is_in_is_not_replaced(tmp_path, monkeypatch):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    for folder in (".", "..", tmp_path):
        with pytest.raises(MetroError, match="the folder that you are in would be replaced"):
            copy_weights("open", Path(folder))
    assert Path.cwd() == inside
    assert load_checkpoint(copy_weights("open", Path("c"))).step > 0


def test_parameters_of_another_version_name_the_file_and_the_cure(tmp_path):
    folder = write(tmp_path / "c")
    meta = json.loads((folder / module.META).read_text())
    meta["params"]["train"]["momentum"], meta["metro"] = 0.9, "9.1"
    (folder / module.META).write_text(json.dumps(meta))
    said = r"c/checkpoint\.json: params: unknown key 'train\.momentum'.*metro '9\.1', this is .*: use the version"
    with pytest.raises(MetroError, match=said):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "change", [{"step": "3"}, {"metrics": [1]}, {"sha256": {"x": 1}}, {"params": 0}, {"body": None}]
)
def test_a_record_of_another_shape_is_refused(tmp_path, change):
    folder = write(tmp_path / "c")
    meta = json.loads((folder / module.META).read_text())
    (folder / module.META).write_text(json.dumps(meta | change))
    with pytest.raises(MetroError, match=rf"checkpoint\.json: damaged \(.*{next(iter(change))}"):
        load_checkpoint(folder)


def test_levels_are_read_once(tmp_path, monkeypatch):
    found, reads = load_checkpoint(write(tmp_path / "c")), []
    monkeypatch.setattr(module, "load_sampling", lambda path: reads.append(path) or LEVELS)
    found.check_levels(found.levels)
    found.check_levels(LEVELS)
    assert len(reads) == 1


def test_a_model_card_stays(tmp_path):
    folder = write(tmp_path / "c")
    (folder / module.CARD).write_text("by hand")
    write(folder, step=4)
    assert load_checkpoint(folder).step == 4
    assert (folder / module.CARD).read_text() == "by hand"


def test_weights_of_another_configuration_name_the_first_keys():
    with pytest.raises(MetroError, match=r"bias 4 in the checkpoint, 2 in the model.*weight 4×3.*2×3"):
        load_weights(nn.Linear(3, 2), nn.Linear(3, 4).state_dict(), "x")


def test_latest_checkpoint_ignores_a_partial_one(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    write(tmp_path / "step-00000002", step=2)
    (tmp_path / "step-00000004").mkdir()
    (tmp_path / ".step-00000006.partial").mkdir()
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 2
