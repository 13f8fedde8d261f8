"""Batches: an endless training stream indexed by step, and one ordered pass for evaluation.

The training batch of step k is a pure function of (datasets, params, seed, k). Workers are handed step numbers and make
whole batches, so neither their number nor that of the processes changes a batch, and resuming is starting at another
step.

Shapes: B batch (of this process), J joint, T query, S image side, N records of a round.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import DataLoader, Dataset

from metro.body.figure import FIGURES
from metro.config import ModelConfig, TrainConfig
from metro.data import augment, crop, framing
from metro.data.photo import EFFECTS, photograph
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.processes import serve_parent
from metro.random import Purpose, stream

Batch = dict[str, torch.Tensor]
Made = TypeVar("Made")
DrawMask = Callable[[Generator], np.ndarray]
"""Mask (T,) of a sample from its random numbers: `metro.model.masking.query_mask` for some network."""
ReadFeatures = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Features (B, F) of views: of the records (B,), by position in the concatenated datasets, which view (B,) of each."""
DrawBoxes = Callable[[np.ndarray, np.ndarray, np.ndarray], framing.Squares]
"""Boxes of a batch from its 2D joints, centres and sides: `metro.data.framing.draw` for some random numbers."""

_PREFETCH = 2  # batches that each worker prepares ahead
_LABELS = (
    *("joints_2d", "joints_3d", "pose_aa", "betas", "gender", "has_2d", "has_3d", "has_mesh"),
    *("center", "scale", "affine"),
)


class EvalPass:
    """One pass over a dataset in order: nothing augmented, nothing masked, the last batch may be smaller.

    Iterating gives dicts of CPU tensors: `image` (B, S, S, 3) uint8 RGB; `colour` (B, 3) gains for
    `metro.data.augment.normalise`, all 1; `joints_2d` (B, J, 3) in [-1, 1] of the crop + confidence; `joints_3d`
    (B, J, 4) metres, camera frame + confidence; `pose_aa` (B, P); `betas` (B, 10); `has_2d`, `has_3d`, `has_mesh` (B,)
    bool; `index` (B,) position in the dataset; `affine` (B, 2, 3) frame pixels → crop pixels. Batches with a mesh that
    is not neutral have `gender` (B,) too, positions in `metro.words.GENDERS`.

    Parameters
    ----------
    dataset
        Bodies or hands.
    model
        Gives image size and joint set.
    batch_size
        Records of a batch.
    rank, world_size
        This process and how many there are; each gets its slice of the batches, which are those of a single process.
    views
        Flips, turns and scales (K,) that each picture is seen under as well; none: it is seen as it is.

    Raises
    ------
    MetroError
        The dataset is empty or does not fit the joint set.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        model: ModelConfig,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        views: augment.Draws | None = None,
    ) -> None:
        self._people, self._views = _People([dataset], model), views
        self._batch_size, batches = batch_size, -(-len(dataset) // batch_size)
        first, last = (batches * part // world_size for part in (rank, rank + 1))
        self._slice = range(first * batch_size, min(last * batch_size, len(dataset)))

    def __len__(self) -> int:
        return -(-len(self._slice) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(len(self)))

    @property
    def records(self) -> int:
        """Records of all batches."""
        return len(self._slice)

    def batch(self, number: int) -> Batch:
        """One of the batches, counted from 0."""
        index_B = np.array(self._slice[number * self._batch_size : (number + 1) * self._batch_size])
        batch = self._people.batch(index_B, augment.no_draws(len(index_B)))
        if self._views is not None:
            batch["views"] = self._people.views(index_B, self._views)
        return _tensors(batch)


class TrainStream:
    """Endless stream of augmented batches; iterating again starts again at `start_step`.

    A round of the stream takes some records of each dataset, in random order (see `shuffled_round`); the last batch of
    a round runs on into the next. Without `weights` a round is one epoch of the concatenated datasets. Batches are
    those of `EvalPass` with boxes, geometry and `colour` augmented (the gains are not yet applied), seen by worse
    cameras (`metro.data.photo`), and with `mask` (B, T) bool, true where masked; `index` is the position in the
    concatenated datasets. With `train.views` V, pass k over a dataset augments as pass k mod V did, and masks anew
    (`train.views_seed` names other random numbers for the augmentation than for order and masks).

    Parameters
    ----------
    datasets
        Concatenated. All bodies or all hands.
    model
        Gives image size and joint set.
    train
        Gives batch size (over all processes), augmentation, seed and workers.
    draw_mask
        Draws the masks; none: batches without `mask`.
    read_features
        Gives `features` (B, F), which batches then have in place of `image` and `colour`; none: they have pictures.
    rank, world_size
        This process and how many there are; each gets its slice of every batch.
    start_step
        First batch.
    weights
        Share of each dataset, relative to the others; none: by size.

    Raises
    ------
    MetroError
        The datasets do not fit one another or the joint set, the batch does not divide over the processes, hands would
        be flipped, or there is too little shared memory for the workers.
    """

    def __init__(
        self,
        datasets: Sequence[ShardDataset],
        model: ModelConfig,
        train: TrainConfig,
        draw_mask: DrawMask | None = None,
        read_features: ReadFeatures | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        self._people = _People(datasets, model)
        if train.batch_size % (world_size * train.accumulate):
            parts = f" of {train.accumulate} parts each" if train.accumulate > 1 else ""
            raise MetroError(f"train.batch_size={train.batch_size} does not divide over {world_size} processes{parts}")
        if train.augment.flip and not self._people.figure.may_flip:
            raise MetroError("train.augment.flip: mirrored hands are left hands, which MANO does not have; set it to 0")
        if train.workers:
            first = np.zeros(1, np.int64)
            sample = model.image_size**2 * 3 if read_features is None else read_features(first, first).nbytes
            _check_shared_memory(train, sample)
        self._train, self._draw_mask, self._read_features = train, draw_mask, read_features
        self._start_step = start_step
        self._batch_size = train.batch_size // world_size
        self._offset = rank * self._batch_size
        self._sizes = [len(dataset) for dataset in datasets]
        self._quotas = _quotas(self._sizes, weights)
        self._round: tuple[int, np.ndarray, np.ndarray] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return made_by_workers(self.batch, itertools.count(self._start_step), self._train.workers)

    def batch(self, step: int) -> Batch:
        """This process's part of the batch of a step."""
        first = step * self._train.batch_size + self._offset
        index_B, epoch_B = self._records(np.arange(first, first + self._batch_size))
        views = self._train.views
        view_B = epoch_B if views is None else epoch_B % views
        rngs = self._rngs(Purpose.SAMPLE, view_B, index_B)
        arrays = self._seen(index_B, view_B, rngs, self._read_features)
        if self._draw_mask:
            if views is not None:  # a view comes back, its masks do not
                rngs = _streams(self._train.seed, Purpose.SAMPLE, epoch_B, index_B, 1)
            arrays["mask"] = np.array([self._draw_mask(rng) for rng in rngs])
        return _tensors(arrays)

    def pictures(self, index_B: np.ndarray, view_B: np.ndarray) -> Batch:
        """Views (B,) of the records (B,), which is which pass over them, with their pictures; nothing masked."""
        return _tensors(self._seen(index_B, view_B, self._rngs(Purpose.SAMPLE, view_B, index_B), None))

    def _rngs(self, purpose: Purpose, epoch_B: np.ndarray, index_B: np.ndarray) -> Sequence[Generator]:
        """The random numbers that samples are seen by."""
        return _streams(self._train.seen_by, purpose, epoch_B, index_B)

    def _seen(
        self, index_B: np.ndarray, view_B: np.ndarray, rngs: Sequence[Generator], read_features: ReadFeatures | None
    ) -> dict[str, np.ndarray]:
        """Augmented views and their labels; `rngs` are the samples' own random numbers."""
        config = self._train.augment
        draws, boxes = augment.draw(config, rngs), None
        if config.boxes.part or config.boxes.shift:
            boxes = partial(framing.draw, config.boxes, self._rngs(Purpose.BOX, view_B, index_B))
        features_BF = None if read_features is None else read_features(index_B, view_B)
        arrays = self._people.batch(index_B, draws, boxes, features_BF, config.integer_2d)
        if features_BF is None and any(getattr(config.photo, name) for name in EFFECTS):
            for image, rng in zip(arrays["image"], self._rngs(Purpose.PHOTO, view_B, index_B), strict=True):
                image[:] = photograph(config.photo, rng, image)
        return arrays

    def _shuffled(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        train = self._train
        return shuffled_round(train.seed, number, self._sizes, self._quotas, train.shuffle_block, train.shuffle_window)

    def _records(self, position_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position in the concatenated datasets, and pass over its dataset, of each place of the stream."""
        round_B, place_B = np.divmod(position_B, sum(self._quotas))
        index_B, epoch_B = np.empty_like(place_B), np.empty_like(place_B)
        for number in range(round_B[0], round_B[-1] + 1):
            if self._round is None or self._round[0] != number:
                self._round = number, *self._shuffled(number)
            here = round_B == number
            index_B[here], epoch_B[here] = (values_N[place_B[here]] for values_N in self._round[1:])
        return index_B, epoch_B


def shuffled_round(
    seed: int,
    number: int,
    sizes: Sequence[int],
    quotas: Sequence[int],
    block: int | None = None,
    window: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Round `number` of a training stream, in order: which record each is, and in which pass over its dataset.

    A round takes `quotas[d]` records of dataset d, which is gone through permutation after permutation. With `block`
    a permutation is that of `blockwise`, and the datasets are interleaved at random without losing their order. Each
    loader process keeps the round it is in, 8 bytes a record; for 10 million records that is 80 MB, and a second and a
    half of work a round.

    Returns
    -------
    index_N, epoch_N
        int32: position in the concatenated datasets, number of the pass.
    """
    indices, epochs = [], []
    for d, (size, quota, first) in enumerate(zip(sizes, quotas, np.cumsum([0, *sizes[:-1]]), strict=True)):
        begun, offset = divmod(number * quota, size)
        passes = range(begun, begun + -(-(offset + quota) // size))
        rngs = [stream(seed, Purpose.PASS, d, epoch) for epoch in passes]
        orders = [blockwise(rng, size, block, window) if block else rng.permutation(size) for rng in rngs]
        order = np.concatenate(orders)
        indices.append((first + order[offset : offset + quota]).astype(np.int32))
        epochs.append(np.repeat(np.array(passes, np.int32), size)[offset : offset + quota])
    rng = stream(seed, Purpose.ORDER, number)
    order_N = _interleaved(rng, quotas) if block else rng.permutation(sum(quotas))
    return np.concatenate(indices)[order_N], np.concatenate(epochs)[order_N]


def blockwise(rng: np.random.Generator, size: int, block: int, window: int) -> np.ndarray:
    """A permutation of `size` records that stays near one place of the disk after the other, `window` of them at once.

    Blocks of `block` neighbours (cut elsewhere each time) are put into random order, and the records of each `window`
    successive blocks are mixed. Two records of a batch then come from one block, and are neighbours on disk, in one of
    `window` cases; in a full permutation in `block` of `size`. A record may come at any place of the pass.
    """
    cuts = np.unique([0, *range(rng.integers(1, block + 1), size, block), size])
    blocks = [np.arange(*ends) for ends in itertools.pairwise(cuts)]
    order = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
    for first in range(0, size, block * window):
        rng.shuffle(order[first : first + block * window])
    return order


def _interleaved(rng: np.random.Generator, quotas: Sequence[int]) -> np.ndarray:
    """A random merge of runs of these lengths that keeps the order of each: place in the joined runs."""
    run_N = rng.permutation(np.repeat(np.arange(len(quotas)), quotas))
    order_N = np.empty_like(run_N)
    order_N[np.argsort(run_N, kind="stable")] = np.arange(len(run_N))
    return order_N


class _People:
    """Records of one or more datasets, cut out as the network is shown them."""

    def __init__(self, datasets: Sequence[ShardDataset], model: ModelConfig) -> None:
        if not datasets or not all(len(dataset) for dataset in datasets):
            raise MetroError("no records to load: every dataset needs at least one")
        self.figure = FIGURES[model.joint_set]
        wrong = [dataset.name for dataset in datasets if dataset.figure != self.figure]
        if wrong:
            needed = f"model.joint_set={model.joint_set} needs {self.figure.labels} records"
            raise MetroError(f"{needed}; not so: {', '.join(wrong)}")
        self._datasets, self._size = list(datasets), model.image_size
        self._firsts = np.cumsum([0] + [len(dataset) for dataset in datasets])
        self._flip_joints, self._flip_pose = self.figure.flip_labels, self.figure.flip_pose

    def batch(
        self,
        index_B: np.ndarray,
        draws: augment.Draws,
        boxes: DrawBoxes | None = None,
        features_BF: np.ndarray | None = None,
        integer_2d: bool = False,
    ) -> dict[str, np.ndarray]:
        """Images and labels of these records under these draws, in their own boxes or in those that `boxes` draws.

        Features stand in for the images that they were computed from.
        """
        if features_BF is None:
            self._expect(index_B)
        labels = self._labels(index_B)
        squares = framing.Squares(labels["center"], 200.0 * labels["scale"])
        if boxes:
            squares = boxes(labels["joints_2d"], squares.center_B2, squares.side_B)
        side_B = squares.side_B * draws.scale_B
        affine_B23 = crop.crop_affine(squares.center_B2, side_B, self._size, draws.rotation_B, draws.flip_B)
        if features_BF is None:
            warp_B23 = crop.compose(affine_B23, crop.invert(labels["affine"].astype(np.float64)))
            seen = {"image": self._images(index_B, warp_B23), "colour": draws.colour_B3.astype(np.float32)}
            for image, past, affine_23 in zip(seen["image"], squares.past, affine_B23, strict=False):
                if past:
                    framing.hide(image, past, affine_23)
        else:
            seen = {"features": features_BF}
        joints_2d, joints_3d, pose_aa = self._pose_labels(labels, affine_B23, draws, integer_2d)
        gender_B = np.where(labels["has_mesh"], labels["gender"], 0)
        return {
            **seen,
            "joints_2d": joints_2d,
            "joints_3d": joints_3d,
            "pose_aa": pose_aa,
            **{name: labels[name] for name in ("betas", "has_2d", "has_3d", "has_mesh")},
            # Left out of most batches: to ask a device whether there is anybody would be to wait for it.
            **({"gender": gender_B} if gender_B.any() else {}),
            "index": index_B,
            "affine": affine_B23.astype(np.float32),
        }

    def views(self, index_B: np.ndarray, views: augment.Draws) -> np.ndarray:
        """Images (B, K, S, S, 3) of these records under each of K draws, without their colours."""
        labels, people, count = self._labels(index_B), len(index_B), len(views.scale_B)
        side_N = np.outer(200.0 * labels["scale"], views.scale_B).ravel()  # N = B · K
        turn_N, flip_N = np.tile(views.rotation_B, people), np.tile(views.flip_B, people)
        center_N2, stored_N23 = (np.repeat(labels[name].astype(np.float64), count, 0) for name in ("center", "affine"))
        affine_N23 = crop.crop_affine(center_N2, side_N, self._size, turn_N, flip_N)
        seen = self._images(np.repeat(index_B, count), crop.compose(affine_N23, crop.invert(stored_N23)))
        return seen.reshape(people, count, *seen.shape[1:])

    def _rows(self, index_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dataset_B = np.searchsorted(self._firsts, index_B, side="right") - 1
        return dataset_B, index_B - self._firsts[dataset_B]

    def _expect(self, index_B: np.ndarray) -> None:
        dataset_B, row_B = self._rows(index_B)
        for d in np.unique(dataset_B):
            self._datasets[d].expect(row_B[dataset_B == d])

    def _labels(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        dataset_B, row_B = self._rows(index_B)
        alike = {name: self._datasets[0].labels[name] for name in _LABELS}
        labels = {name: np.empty((len(index_B), *a.shape[1:]), a.dtype) for name, a in alike.items()}
        for d in np.unique(dataset_B):
            here = dataset_B == d
            rows = row_B[here]
            for name in _LABELS:
                labels[name][here] = self._datasets[d].labels[name][rows]
        return labels

    def _images(self, index_B: np.ndarray, warp_B23: np.ndarray) -> np.ndarray:
        """Decode and warp; a picture more than twice too large is decoded at half its size, which also averages."""
        shrink_B = np.abs(np.linalg.det(warp_B23[:, :, :2])) ** -0.5  # stored pixels per crop pixel
        reduce_B = 2 ** np.clip(np.floor(np.log2(shrink_B)), 0, 3).astype(int)
        warp_B23 = crop.compose(warp_B23, crop.enlarging(reduce_B))
        image_BSS3 = np.empty((len(index_B), self._size, self._size, 3), np.uint8)
        for i, (d, row) in enumerate(zip(*self._rows(index_B), strict=True)):
            crop.warp(self._datasets[d].image(int(row), int(reduce_B[i])), warp_B23[i], image_BSS3[i])
        return image_BSS3

    def _pose_labels(
        self, labels: dict[str, np.ndarray], affine_B23: np.ndarray, draws: augment.Draws, integer_2d: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        joints_2d = labels["joints_2d"].copy()
        # Mirroring is part of the affine; truncation must see the picture before it, as in the official code.
        crop_BJ2 = crop.apply(affine_B23, joints_2d[..., :2])
        crop_BJ2[..., 0] = np.where(draws.flip_B[:, None], self._size - 1 - crop_BJ2[..., 0], crop_BJ2[..., 0])
        known_BJ1 = joints_2d[..., 2:] > 0
        joints_2d[..., :2] = np.where(known_BJ1, augment.normalise_2d(crop_BJ2, self._size, integer_2d), 0)
        joints_3d = labels["joints_3d"].copy()
        joints_3d[..., :3] = augment.turn_3d(joints_3d[..., :3], draws.rotation_B)
        pose_aa = augment.turn_pose(labels["pose_aa"], draws.rotation_B)
        joints_2d = augment.flip_joints(joints_2d, self._flip_joints, draws.flip_B)
        joints_3d = augment.flip_joints(joints_3d, self._flip_joints, draws.flip_B)
        pose_aa = augment.flip_pose(pose_aa, self._flip_pose, draws.flip_B)
        return joints_2d, joints_3d, pose_aa


def made_by_workers(make: Callable[[Any], Made], items: Iterable[Any], workers: int) -> Iterator[Made]:
    """What `make` gives for each item, in their order, made by processes that share this one's memory (0: made here).

    Each has one thread, and a few results are made ahead.

    Raises
    ------
    MetroError
        That of `make`, where its item's turn comes.
    """
    loader: DataLoader[Made | MetroError] = DataLoader(
        _ErrorsAsItems(make),
        batch_size=None,  # a worker makes whole batches
        sampler=items,
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_begin_worker,
        pin_memory=torch.cuda.is_available(),
    )
    for made in loader:
        if isinstance(made, MetroError):
            raise made
        yield made


class _ErrorsAsItems(Dataset[Made | MetroError]):
    """What `make` gives for each item; a user-facing error is given too, since `DataLoader` would garble it."""

    def __init__(self, make: Callable[[Any], Made]) -> None:
        self._make = make

    def __getitem__(self, item: Any) -> Made | MetroError:
        try:
            return self._make(item)
        except MetroError as err:
            return err


def _tensors(arrays: dict[str, np.ndarray]) -> Batch:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def _streams(seed: int, purpose: Purpose, epoch_B: np.ndarray, index_B: np.ndarray, *which: int) -> Sequence[Generator]:
    """Random numbers of each record (B,) in one pass over them (B,)."""
    keys = zip(epoch_B.tolist(), index_B.tolist(), strict=True)
    return [stream(seed, purpose, epoch, index, *which) for epoch, index in keys]


def _begin_worker(worker: int) -> None:
    serve_parent()
    cv2.setNumThreads(0)  # workers share the cores; OpenCV's own threads would fight over them


def _quotas(sizes: Sequence[int], weights: Sequence[float] | None) -> list[int]:
    """Records of each dataset in one round of the stream."""
    if weights is None:
        return list(sizes)
    if len(weights) != len(sizes) or min(weights) <= 0:
        raise MetroError(f"{len(sizes)} datasets need {len(sizes)} positive weights, got {list(weights)}")
    return [max(1, round(weight / sum(weights) * sum(sizes))) for weight in weights]


def _check_shared_memory(train: TrainConfig, sample: int) -> None:
    """Workers hand batches, of so many bytes a sample, over in shared memory; where it is too small they would die of a
    bus error."""
    need = train.workers * (_PREFETCH + 1) * train.batch_size * sample * 1.1
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return  # a system that keeps shared memory elsewhere
    if stat.f_frsize * stat.f_bavail < need:
        raise MetroError(
            f"train.workers={train.workers} need {need / 2**20:.0f} MiB of shared memory in /dev/shm, which has "
            f"{stat.f_frsize * stat.f_bavail / 2**20:.0f} MiB; use fewer workers, smaller batches, or enlarge it"
        )
