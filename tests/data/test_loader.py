"""Batches are a function of seed and step; what they hold is consistent."""

from __future__ import annotations

import itertools
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metro import sources
from metro.config import AugmentConfig, BodyConfig, CropConfig, DatasetConfig, MaskConfig, ModelConfig, TrainConfig
from metro.data import loader, shards
from metro.data.loader import EvalPass, TrainStream, shuffled_round
from metro.errors import MetroError
from metro.model.masking import query_mask
from metro.random import Purpose, stream
from metro.sources import prepare as preparing
from tests.data import people

MODEL = ModelConfig(image_size=48)
MASK = partial(query_mask, MaskConfig(), 14, 431)


def batches(folder: Path, count: int, start: int = 0, **settings) -> list[dict[str, torch.Tensor]]:
    options = {name: settings.pop(name) for name in ("rank", "world_size") if name in settings}
    train = TrainConfig(**{"batch_size": 6, "workers": 0, **settings})
    stream = TrainStream([shards.ShardDataset(folder)], MODEL, train, MASK, start_step=start, **options)
    return list(itertools.islice(stream, count))


def assert_equal(first, second) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def reference(made):
    return batches(made, 8)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_a_batch(made, reference, workers):
    assert_equal(batches(made, 8, workers=workers), reference)


def test_a_batch_tells_genders_where_a_mesh_has_one(made):
    dataset = shards.ShardDataset(made)
    (batch,) = EvalPass(dataset, MODEL, len(dataset))
    assert "gender" not in batch
    gender, has_mesh = (dataset.labels[name].copy() for name in ("gender", "has_mesh"))
    gender[:4], has_mesh[:2] = [1, 2, 1, 2], False
    dataset.labels |= {"gender": gender, "has_mesh": has_mesh}
    first, *others = EvalPass(dataset, MODEL, 5)
    assert first["gender"].tolist() == [0, 0, 1, 2, 0]
    assert not any("gender" in batch for batch in others)


def test_processes_share_the_batch(made, reference):
    halves = [batches(made, 8, rank=rank, world_size=2) for rank in range(2)]
    joined = [{name: torch.cat([a[name], b[name]]) for name in a} for a, b in zip(*halves, strict=True)]
    assert_equal(joined, reference)


@pytest.mark.parametrize("workers", [0, 1])
def test_resuming_at_a_step_continues_exactly(made, reference, workers):
    assert_equal(batches(made, 3, start=5, workers=workers), reference[5:])


def test_batch_size_does_not_change_a_sample(made, reference):
    whole = {int(b["index"][i]): b["image"][i] for b in reference[:3] for i in range(6)}
    for batch in batches(made, 9, batch_size=2):
        for index, image in zip(batch["index"].tolist(), batch["image"], strict=True):
            assert torch.equal(image, whole[index])


def test_every_epoch_is_another_permutation(made):
    index = torch.cat([b["index"] for b in batches(made, 10)]).reshape(3, 20)
    assert index.sort(1).values.tolist() == [list(range(20))] * 3
    assert len({tuple(row) for row in index.tolist()}) == 3


def test_a_sample_looks_different_in_every_epoch_and_under_another_seed(made, reference):
    def image_of(index, stream):
        return [b["image"][i] for b in stream for i in torch.where(b["index"] == index)[0].tolist()]

    first, second = image_of(7, reference)[:2]
    assert not torch.equal(first, second)
    assert not torch.equal(first, image_of(7, batches(made, 4, seed=1))[0])


def test_a_view_comes_back_and_its_masks_do_not(made):
    passes = batches(made, 5, batch_size=20, views=2, freeze=["backbone"])
    order = [batch["index"].argsort() for batch in passes]
    image, mask, joints = (
        [b[name][o] for b, o in zip(passes, order, strict=True)] for name in ("image", "mask", "joints_3d")
    )
    fresh = batches(made, 2, batch_size=20)
    for k in range(5):
        assert torch.equal(image[k], fresh[k % 2]["image"][fresh[k % 2]["index"].argsort()])
        assert torch.equal(joints[k], joints[k % 2])
        assert all(not torch.equal(mask[k], mask[other]) for other in range(k))


def test_features_come_in_place_of_pictures(made, reference):
    def features(index_B, view_B):
        return np.stack([index_B, view_B], 1).astype(np.float16)

    train = TrainConfig(batch_size=6, workers=0, views=2, freeze=("backbone",))
    datasets = [shards.ShardDataset(made)]
    first, *_, later = (TrainStream(datasets, MODEL, train, MASK, features).batch(step) for step in (0, 1, 7))
    assert first["features"].tolist() == [[index, 0] for index in first["index"].tolist()]
    assert later["features"][:, 1].tolist() == [0, 0, 0, 0, 0, 0]  # the third pass over 20 records
    kept = first.keys() - {"features", "mask"}
    assert first.keys() - reference[0].keys() == {"features"}
    assert reference[0].keys() - first.keys() == {"image", "colour"}
    assert_equal([{name: first[name] for name in kept}], [{name: reference[0][name] for name in kept}])


def test_masking_leaves_the_rest_of_a_batch_alone(made, reference):
    """Runs that differ in the masking ratio see the same pictures."""
    plain = TrainStream([shards.ShardDataset(made)], MODEL, TrainConfig(batch_size=6, workers=0)).batch(4)
    assert reference[4]["mask"].any()
    assert_equal([plain], [{name: values for name, values in reference[4].items() if name != "mask"}])


def test_shapes_and_types(reference):
    batch = reference[0]
    kinds = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    f32 = torch.float32
    assert kinds == {
        "image": ((6, 48, 48, 3), torch.uint8),
        "colour": ((6, 3), f32),
        "joints_2d": ((6, 24, 3), f32),
        "joints_3d": ((6, 24, 4), f32),
        "pose_aa": ((6, 72), f32),
        "betas": ((6, 10), f32),
        **{name: ((6,), torch.bool) for name in ("has_2d", "has_3d", "has_mesh")},
        "mask": ((6, 445), torch.bool),
        "index": ((6,), torch.int64),
        "affine": ((6, 2, 3), f32),
    }


def test_evaluation_is_one_plain_pass_in_order(made):
    dataset = shards.ShardDataset(made)
    whole = EvalPass(dataset, MODEL, batch_size=8)
    found = list(whole)
    assert len(whole) == 3
    assert [len(b["index"]) for b in found] == [8, 8, 4]
    assert torch.cat([b["index"] for b in found]).tolist() == list(range(20))
    assert not any("mask" in b for b in found)
    assert all((b["colour"] == 1).all() for b in found)
    np.testing.assert_array_equal(torch.cat([b["pose_aa"] for b in found]).numpy(), dataset.labels["pose_aa"])
    np.testing.assert_array_equal(torch.cat([b["joints_3d"] for b in found]).numpy(), dataset.labels["joints_3d"])
    # Box 100 px around (100, 80): x from 50 to 150 becomes -1 to 1.
    expected = (dataset.labels["joints_2d"][..., :2] - [100, 80]) / 50
    np.testing.assert_allclose(torch.cat([b["joints_2d"] for b in found])[..., :2], expected, atol=1e-5)


def test_evaluation_on_three_processes_covers_each_record_once(made):
    dataset = shards.ShardDataset(made)
    parts = [EvalPass(dataset, MODEL, batch_size=8, rank=r, world_size=3) for r in range(3)]
    assert [i for part in parts for b in part for i in b["index"].tolist()] == list(range(20))


def test_discs_follow_the_joints_through_every_augmentation(made):
    """The disc that was drawn last stays under its joint: image, 2D joints and affine move together."""
    dataset = shards.ShardDataset(made)
    train = TrainConfig(batch_size=20, workers=0, augment=AugmentConfig(rotation_off=0.0))
    model = ModelConfig(image_size=224)
    seen = 0
    for batch in itertools.islice(TrainStream([dataset], model, train), 3):
        for i in range(20):
            # Joint 23 is R_Ear; in a mirrored picture its disc is that of L_Ear.
            for j, other in ((23, 22), (22, 23)):
                x, y, _ = batch["joints_2d"][i, j].tolist()
                column, row = round(((x + 1) * 224 - 1) / 2), round(((y + 1) * 224 - 1) / 2)
                flipped = torch.det(batch["affine"][i, :, :2]) < 0
                drawn = other if flipped else j
                if drawn != 23 or not (2 < column < 221 and 2 < row < 221):
                    continue
                pixel = batch["image"][i, row, column].numpy().astype(int)
                assert np.abs(pixel - [230, 25, 128]).max() < 60
                seen += 1
    assert seen > 30


def test_the_affine_leads_from_frame_to_crop(made):
    dataset = shards.ShardDataset(made)
    train = TrainConfig(batch_size=20, workers=0, augment=AugmentConfig(rotation_off=0.0, flip=0.0))
    batch = next(iter(TrainStream([dataset], MODEL, train)))
    frame = torch.from_numpy(dataset.labels["joints_2d"][batch["index"].numpy()])
    affine = batch["affine"]
    pixels = frame[..., :2] @ affine[:, :, :2].mT + affine[:, None, :, 2]
    torch.testing.assert_close((2 * pixels + 1) / 48 - 1, batch["joints_2d"][..., :2], atol=1e-4, rtol=0)


def parallel_people(number: int):
    """People seen by a parallel camera, so that 2D joints are exactly a scaled view of the 3D joints."""
    record = people.person(number)
    joints = record.joints_3d.copy()
    joints[:, :2] = (record.keypoints_2d[:, :2] - 100) / 80
    joints[:5, 3] = 0
    record.joints_3d = joints
    return record


def test_2d_and_3d_joints_stay_one_view(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "adapter", lambda name: people.Made(12, make=parallel_people))
    config = DatasetConfig(crop=CropConfig(box_px=64))
    preparing.prepare("views", config, BodyConfig(), tmp_path, workers=1, progress=False)
    train = TrainConfig(batch_size=12, workers=0, augment=AugmentConfig(rotation_off=0.0))
    for batch in itertools.islice(TrainStream([shards.ShardDataset(tmp_path)], MODEL, train), 3):
        for flat, solid in zip(batch["joints_2d"].double(), batch["joints_3d"].double(), strict=True):
            spread_2d, spread_3d = flat[:, :2] - flat[:, :2].mean(0), solid[:, :2] - solid[:, :2].mean(0)
            scale = (spread_2d * spread_3d).sum() / (spread_3d**2).sum()
            assert scale > 0
            torch.testing.assert_close(spread_2d, scale * spread_3d, atol=2e-4, rtol=0)
        hidden = (batch["joints_3d"][..., 3] == 0).sum(1)
        assert hidden.tolist() == [5] * 12  # confidences travel with their joints


def test_joints_without_confidence_are_zero(tmp_path, monkeypatch):
    def partly(number: int):
        record = people.person(number)
        record.keypoints_2d[3:] = 0
        return record

    monkeypatch.setattr(sources, "adapter", lambda name: people.Made(4, make=partly))
    preparing.prepare("partly", DatasetConfig(), BodyConfig(), tmp_path, workers=1, progress=False)
    train = TrainConfig(batch_size=4, workers=0, augment=AugmentConfig(flip=0.0))
    batch = next(iter(TrainStream([shards.ShardDataset(tmp_path)], MODEL, train)))
    assert not batch["joints_2d"][:, 3:].any()
    assert batch["joints_2d"][:, :3].all()


def test_several_datasets_are_one(made, prepare, tmp_path):
    prepare(tmp_path, count=5, supervision="joints_2d")
    both = [shards.ShardDataset(made), shards.ShardDataset(tmp_path)]
    train = TrainConfig(batch_size=5, workers=0)
    found = list(itertools.islice(TrainStream(both, MODEL, train), 5))
    index = torch.cat([b["index"] for b in found])
    assert sorted(index.tolist()) == list(range(25))
    assert torch.equal(torch.cat([b["has_mesh"] for b in found]), index < 20)


def test_weights_are_shares_of_the_stream(made, prepare, tmp_path):
    prepare(tmp_path, count=5)
    both = [shards.ShardDataset(made), shards.ShardDataset(tmp_path)]
    train = TrainConfig(batch_size=25, workers=0)
    stream = TrainStream(both, MODEL, train, weights=(2, 3))
    index = torch.cat([b["index"] for b in itertools.islice(stream, 4)])
    assert [(index < 20).sum().item(), (index >= 20).sum().item()] == [40, 60]
    counts = torch.bincount(index, minlength=25)
    assert counts[:20].tolist() == [2] * 20  # each set is gone through evenly
    assert counts[20:].tolist() == [12] * 5


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 90)), min_size=1, max_size=3), st.integers(0, 2**64 - 1))
def test_a_dataset_is_gone_through_pass_after_pass(datasets, seed):
    """Rounds take quotas; joined together, every pass has every record once, and the last one is not yet complete."""
    sizes, quotas = zip(*datasets, strict=True)
    rounds = [shuffled_round(seed, number, sizes, quotas) for number in range(4)]
    for index, _ in rounds:
        counts = np.bincount(np.searchsorted(np.cumsum(sizes), index, side="right"), minlength=len(sizes))
        assert counts.tolist() == list(quotas)
    seen = sorted(zip(*(np.concatenate(parts).tolist() for parts in zip(*rounds, strict=True)), strict=True))
    assert len(set(seen)) == len(seen)
    for d, (size, quota) in enumerate(datasets):
        first = sum(sizes[:d])
        epochs = np.bincount([epoch for index, epoch in seen if first <= index < first + size])
        assert epochs.tolist() == [size] * (4 * quota // size) + [4 * quota % size] * bool(4 * quota % size)


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 9), st.integers(0, 2**32))
def test_a_blockwise_pass_has_each_record_once(size, block, window, seed):
    order = loader.blockwise(np.random.default_rng(seed), size, block, window)
    assert sorted(order.tolist()) == list(range(size))


def test_a_blockwise_pass_reads_few_places_at_a_time():
    order = loader.blockwise(np.random.default_rng(0), 10_000, 50, 8)
    for first in range(0, 10_000, 400):
        place = np.sort(order[first : first + 400])
        pieces = 1 + (np.diff(place) > 1).sum()
        assert pieces <= 10  # eight blocks and what was cut off at both ends; of 400 in a full permutation, 384


def test_a_blockwise_pass_mixes_as_much_as_it_says():
    """Pairs of a batch that are neighbours on disk: one of `window`, and by chance; a record comes at any place."""
    size, block, window, passes = 4096, 16, 32, 60

    def near(order: np.ndarray) -> float:
        return np.mean([(np.abs(b[:, None] - b)[np.triu_indices(64, 1)] < block).mean() for b in order.reshape(-1, 64)])

    orders = [loader.blockwise(np.random.default_rng(k), size, block, window) for k in range(passes)]
    by_chance = 2 * block / size  # also two records of adjacent blocks
    assert np.mean([near(order) for order in orders]) == pytest.approx(1 / window + by_chance / 2, rel=0.1)
    assert near(np.random.default_rng(0).permutation(size)) == pytest.approx(by_chance, rel=0.15)
    places = np.argsort(orders, axis=1).mean(0)
    assert np.abs(places - size / 2).max() < 5 * size / np.sqrt(12 * passes)


@pytest.mark.parametrize("weights", [None, (2, 3)])
def test_blockwise_batches_are_a_function_of_the_step(made, prepare, tmp_path, weights):
    prepare(tmp_path, count=9)
    both = [shards.ShardDataset(made), shards.ShardDataset(tmp_path)]

    def first(count: int, **options) -> list[dict[str, torch.Tensor]]:
        train = TrainConfig(batch_size=6, workers=options.pop("workers", 0), shuffle_block=2, shuffle_window=2)
        return list(itertools.islice(TrainStream(both, MODEL, train, MASK, weights=weights, **options), count))

    whole = first(10)
    assert_equal(first(4, start_step=6), whole[6:])
    assert_equal(first(10, workers=2), whole)
    halves = [first(10, rank=rank, world_size=2) for rank in range(2)]
    assert_equal([{k: torch.cat([a[k], b[k]]) for k in a} for a, b in zip(*halves, strict=True)], whole)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 90)), min_size=1, max_size=3), st.integers(0, 2**64 - 1))
def test_datasets_are_merged_blockwise_without_losing_their_order(datasets, seed):
    sizes, quotas = zip(*datasets, strict=True)
    index, epoch = shuffled_round(seed, 0, sizes, quotas, 5, 3)
    for d, (size, quota) in enumerate(datasets):
        first = sum(sizes[:d])
        own = (index >= first) & (index < first + size)
        alone = [loader.blockwise(stream(seed, Purpose.PASS, d, k), size, 5, 3) for k in range(-(-quota // size))]
        assert (index[own] - first).tolist() == np.concatenate(alone)[:quota].tolist()
        assert (np.diff(epoch[own]) >= 0).all()


def test_permutations_look_random():
    orders = np.array([shuffled_round(3, epoch, [97], [97])[0] for epoch in range(400)])
    assert np.abs(orders.mean(0) - 48).max() < 6  # sd of a mean of 400 places is 1.4
    fixed = (orders == np.arange(97)).sum() / 400
    assert fixed == pytest.approx(1, abs=0.25)  # a random permutation has one fixed point on average
    neighbours = np.mean([np.corrcoef(order[:-1], order[1:])[0, 1] for order in orders])
    assert abs(neighbours) < 0.03


# ------------------------------------------------------------------------------------------------ refusals


def test_a_corrupt_image_in_a_worker_is_one_line(prepare, tmp_path):
    import h5py

    prepare(tmp_path, count=4, per_shard=4)
    with h5py.File(tmp_path / "shard-00000.h5", "r+") as file:
        file["images/bytes"][:500] = 0
    with pytest.raises(MetroError, match=r"shard-00000\.h5: image of made:000000\.png#0 is corrupt") as caught:
        batches(tmp_path, 1, workers=1, batch_size=4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "train", "options", "message"),
    [
        (MODEL, TrainConfig(batch_size=6), {"world_size": 4}, "batch_size=6 does not divide over 4 processes"),
        (
            MODEL,
            TrainConfig(batch_size=12, accumulate=4),
            {"world_size": 2},
            "batch_size=12 does not divide over 2 processes of 4 parts each",
        ),
        (ModelConfig(joint_set="HAND21"), TrainConfig(), {}, "needs HAND21 records; not so: {folder}$"),
        (MODEL, TrainConfig(), {"weights": (1, 2)}, "1 datasets need 1 positive weights"),
    ],
)
def test_what_does_not_fit_is_refused(made, model, train, options, message):
    with pytest.raises(MetroError, match=message.format(folder=re.escape(str(made)))):
        TrainStream([shards.ShardDataset(made)], model, train, **options)


def test_no_records_are_refused():
    with pytest.raises(MetroError, match="no records to load"):
        TrainStream([], MODEL, TrainConfig())


def test_too_little_shared_memory_is_told_beforehand(made, monkeypatch):
    class Full:
        f_frsize, f_bavail = 4096, 10

    monkeypatch.setattr(loader.os, "statvfs", lambda path: Full)
    with pytest.raises(MetroError, match=r"train\.workers=2 need .* in /dev/shm, which has 0 MiB"):
        TrainStream([shards.ShardDataset(made)], MODEL, TrainConfig(workers=2))


def test_hands_are_not_mirrored(tmp_path, monkeypatch):
    def hand(number: int):
        points = np.column_stack([np.linspace(80, 120, 21), np.full(21, 80.0), np.ones(21)])
        joints = np.column_stack([np.linspace(0, 0.15, 21), np.zeros(21), np.ones((21, 2))])
        changes = {"keypoints_2d": points, "joints_3d": joints, "pose_aa": np.ones(48)}
        return people.person(number, **changes)

    monkeypatch.setattr(sources, "adapter", lambda name: people.Made(3, make=hand))
    preparing.prepare("hands", DatasetConfig(), BodyConfig(kind="open_hand"), tmp_path, workers=1, progress=False)
    model = ModelConfig(joint_set="HAND21", image_size=48)
    with pytest.raises(MetroError, match=r"train\.augment\.flip: mirrored hands are left hands"):
        TrainStream([shards.ShardDataset(tmp_path)], model, TrainConfig())
    train = TrainConfig(batch_size=3, workers=0, augment=AugmentConfig(flip=0))
    batch = next(iter(TrainStream([shards.ShardDataset(tmp_path)], model, train)))
    assert batch["pose_aa"].shape == (3, 48)
