"""Batches: an endless training stream indexed by step, and one ordered pass for evaluation.

The batch of step k is a pure function of (datasets, params, seed, k). Workers are handed step numbers and make whole
batches, so neither their number nor that of the processes changes a batch, and resuming is starting at another step.

Shapes: B batch (of this process), J joint, T query, S image side.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from metro.body.figure import FIGURES
from metro.body.joints import JOINT_SETS
from metro.config import MaskConfig, ModelConfig, TrainConfig
from metro.data import augment, crop
from metro.data.shards import ShardDataset
from metro.errors import MetroError

Batch = dict[str, torch.Tensor]

_PREFETCH = 2  # batches that each worker prepares ahead
_FEISTEL_ROUNDS = 8
_LABELS = ("joints_2d", "joints_3d", "pose_aa", "betas", "has_2d", "has_3d", "has_mesh", "center", "scale", "affine")


def make_loader(
    datasets: Sequence[ShardDataset],
    model: ModelConfig,
    train: TrainConfig,
    *,
    training: bool,
    rank: int = 0,
    world_size: int = 1,
    start_step: int = 0,
    weights: Sequence[float] | None = None,
    vertex_tokens: int | None = None,
) -> Loader:
    """Batches of one or more datasets.

    Parameters
    ----------
    datasets
        Concatenated. All bodies or all hands.
    model
        Gives image size and joint set.
    train
        Gives batch size (over all processes), augmentation, masking, seed and workers.
    training
        True: an endless stream of augmented batches; an epoch is a seeded permutation, and the last batch of an epoch
        runs on into the next. False: one pass in order, nothing augmented or masked, the last batch may be smaller.
    rank, world_size
        This process and how many there are. In training each gets its slice of every batch, in evaluation its slice of
        the records.
    start_step
        First batch of the training stream.
    weights
        Share of each dataset in the training stream, relative to the others; none: by size.
    vertex_tokens
        Vertex queries of the network, for the masks; none: 431 for bodies, 195 for hands.

    Returns
    -------
    Loader
        Iterable of dicts of CPU tensors: `image` (B, S, S, 3) uint8 RGB, geometry augmented, colour not;
        `colour` (B, 3) gains for `metro.data.augment.normalise`; `joints_2d` (B, J, 3) in [-1, 1] of the crop +
        confidence; `joints_3d` (B, J, 4) metres, camera frame + confidence; `pose_aa` (B, P); `betas` (B, 10);
        `has_2d`, `has_3d`, `has_mesh` (B,) bool; `mask` (B, T) bool, true where masked; `index` (B,) position in the
        concatenated datasets; `affine` (B, 2, 3) frame pixels → crop pixels.

    Raises
    ------
    MetroError
        The datasets do not fit one another or the joint set, the batch does not divide over the processes, hands would
        be flipped, or there is too little shared memory for the workers.
    """
    batches = _Batches(datasets, model, train, training, rank, world_size, weights, vertex_tokens)
    if training and train.workers:
        _check_shared_memory(train, model.image_size)
    return Loader(batches, train.workers, start_step)


class Loader:
    """Iterable of batches; see `make_loader`. Iterating again starts again."""

    def __init__(self, batches: _Batches, workers: int, start_step: int) -> None:
        self._batches = batches
        self._workers = workers
        self._start_step = start_step

    def __len__(self) -> int:
        """Batches of an evaluation pass (the training stream has no end)."""
        if self._batches.steps is None:
            raise TypeError("the training stream is endless")
        return self._batches.steps

    def __iter__(self) -> Iterator[Batch]:
        steps = itertools.count(self._start_step) if self._batches.steps is None else range(self._batches.steps)
        loader: DataLoader[Batch | MetroError] = DataLoader(
            self._batches,
            batch_size=None,  # a worker makes whole batches
            sampler=_Steps(steps),
            num_workers=self._workers,
            prefetch_factor=_PREFETCH if self._workers else None,
            worker_init_fn=_one_thread,
            pin_memory=torch.cuda.is_available(),
        )
        for batch in loader:
            if isinstance(batch, MetroError):
                raise batch
            yield batch


class _Steps(Sampler[int]):
    def __init__(self, steps: Any) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[int]:
        return iter(self._steps)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)  # workers share the cores; OpenCV's own threads would fight over them


class _Batches(Dataset[Batch | MetroError]):
    """Batch k as item k."""

    def __init__(
        self,
        datasets: Sequence[ShardDataset],
        model: ModelConfig,
        train: TrainConfig,
        training: bool,
        rank: int,
        world_size: int,
        weights: Sequence[float] | None,
        vertex_tokens: int | None,
    ) -> None:
        if not datasets or not all(len(dataset) for dataset in datasets):
            raise MetroError("no records to load: every dataset needs at least one")
        figure = FIGURES[model.joint_set]
        wrong = [dataset.name for dataset in datasets if dataset.figure != figure]
        if wrong:
            needed = f"model.joint_set={model.joint_set} needs {figure.labels} records"
            raise MetroError(f"{needed}; not so: {', '.join(wrong)}")
        if training and train.batch_size % world_size:
            raise MetroError(f"train.batch_size={train.batch_size} does not divide over {world_size} processes")
        if training and train.augment.flip and not figure.may_flip:
            raise MetroError("train.augment.flip: mirrored hands are left hands, which MANO does not have; set it to 0")
        self._datasets = list(datasets)
        self._firsts = np.cumsum([0] + [len(dataset) for dataset in datasets])
        self._size = model.image_size
        self._augment = train.augment if training else None
        self._integer_2d = train.augment.integer_2d and training
        self._mask = train.mask if training else MaskConfig(joints=0, vertices=0)
        self._seed = train.seed
        self._joints = len(JOINT_SETS[model.joint_set])
        self._vertices = vertex_tokens or figure.vertex_tokens
        self._flip_joints, self._flip_pose = figure.flip_labels, figure.flip_pose
        self._quotas = _quotas(self._firsts, weights)
        if training:
            self._batch = train.batch_size // world_size
            self._stride, self._offset = train.batch_size, rank * self._batch
            self.steps: int | None = None
        else:
            total = int(self._firsts[-1])
            self._offset, self._end = total * rank // world_size, total * (rank + 1) // world_size
            self._batch = self._stride = train.batch_size
            self.steps = -(-(self._end - self._offset) // self._batch)

    def __getitem__(self, step: int) -> Batch | MetroError:
        """The batch of a step; a user-facing error is handed over as a value, since `DataLoader` would garble it."""
        try:
            return self._make(step)
        except MetroError as err:
            return err

    def _make(self, step: int) -> Batch:
        first = step * self._stride + self._offset
        if self._augment is None:
            index_B = np.arange(first, min(first + self._batch, self._end))
            draws = augment.no_draws(len(index_B))
            mask_BT = np.zeros((len(index_B), self._joints + self._vertices), bool)
        else:
            index_B, epoch_B = self._stream(np.arange(first, first + self._batch))
            key_B = augment.sample_keys(self._seed, epoch_B, index_B)
            draws = augment.draw(self._augment, key_B)
            mask_BT = augment.query_masks(self._mask, self._joints, self._vertices, key_B)

        labels = self._labels(index_B)
        side_B = 200.0 * labels["scale"] * draws.scale_B
        affine_B23 = crop.crop_affine(labels["center"], side_B, self._size, draws.rotation_B, draws.flip_B)
        image_BSS3 = self._images(index_B, crop.compose(affine_B23, crop.invert(labels["affine"].astype(np.float64))))
        joints_2d, joints_3d, pose_aa = self._pose_labels(labels, affine_B23, draws)
        arrays = {
            "image": image_BSS3,
            "colour": draws.colour_B3.astype(np.float32),
            "joints_2d": joints_2d,
            "joints_3d": joints_3d,
            "pose_aa": pose_aa,
            **{name: labels[name] for name in ("betas", "has_2d", "has_3d", "has_mesh")},
            "mask": mask_BT,
            "index": index_B,
            "affine": affine_B23.astype(np.float32),
        }
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def _stream(self, position_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Record and pass over its dataset for each position of the training stream.

        A round of the stream takes `quota` records of each dataset, in random order; each dataset is gone through
        permutation after permutation. Without weights a round is one epoch of the concatenated datasets.
        """
        bounds = np.cumsum([0, *self._quotas])
        round_B, place_B = np.divmod(position_B, bounds[-1])
        slot_B = permute(self._seed, round_B, place_B, int(bounds[-1]))
        dataset_B = np.searchsorted(bounds, slot_B, side="right") - 1
        index_B, epoch_B = np.empty_like(slot_B), np.empty_like(slot_B)
        for d, dataset in enumerate(self._datasets):
            here = dataset_B == d
            turn = round_B[here] * self._quotas[d] + slot_B[here] - bounds[d]
            epoch_B[here], place = np.divmod(turn, len(dataset))
            if self._quotas[d] != len(dataset):  # else the round's own order will do
                place = permute(self._seed + d + 1, epoch_B[here], place, len(dataset))
            index_B[here] = self._firsts[d] + place
        return index_B, epoch_B

    def _rows(self, index_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dataset_B = np.searchsorted(self._firsts, index_B, side="right") - 1
        return dataset_B, index_B - self._firsts[dataset_B]

    def _labels(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        dataset_B, row_B = self._rows(index_B)
        labels: dict[str, np.ndarray] = {}
        for name in _LABELS:
            first = self._datasets[0].labels[name]
            labels[name] = np.empty((len(index_B), *first.shape[1:]), first.dtype)
            for d in np.unique(dataset_B):
                here = dataset_B == d
                labels[name][here] = self._datasets[d].labels[name][row_B[here]]
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
        self, labels: dict[str, np.ndarray], affine_B23: np.ndarray, draws: augment.Draws
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        joints_2d = labels["joints_2d"].copy()
        # Mirroring is part of the affine; truncation must see the picture before it, as in the official code.
        crop_BJ2 = crop.apply(affine_B23, joints_2d[..., :2])
        crop_BJ2[..., 0] = np.where(draws.flip_B[:, None], self._size - 1 - crop_BJ2[..., 0], crop_BJ2[..., 0])
        known_BJ1 = joints_2d[..., 2:] > 0
        joints_2d[..., :2] = np.where(known_BJ1, augment.normalise_2d(crop_BJ2, self._size, self._integer_2d), 0)
        joints_3d = labels["joints_3d"].copy()
        joints_3d[..., :3] = augment.turn_3d(joints_3d[..., :3], draws.rotation_B)
        pose_aa = augment.turn_pose(labels["pose_aa"], draws.rotation_B)
        joints_2d = augment.flip_joints(joints_2d, self._flip_joints, draws.flip_B)
        joints_3d = augment.flip_joints(joints_3d, self._flip_joints, draws.flip_B)
        pose_aa = augment.flip_pose(pose_aa, self._flip_pose, draws.flip_B)
        return joints_2d, joints_3d, pose_aa


def permute(seed: int, epoch_B: np.ndarray, place_B: np.ndarray, count: int) -> np.ndarray:
    """What stands at `place` of the permutation of range(count) that belongs to (seed, epoch).

    A Feistel network over a grid of about √count rows and columns, walked until it lands in the range (Black and
    Rogaway 2002): any place costs the same, and no permutation is stored. Unlike a library's shuffle it cannot change
    between versions.
    """
    rows = math.isqrt(count - 1) + 1
    columns = -(-count // rows)  # rows · columns - count < rows: hardly ever a second walk
    key_B = augment.sample_keys(seed, epoch_B, np.full(len(place_B), count))
    rounds_BK = augment.random_bits(key_B, 0, _FEISTEL_ROUNDS)
    value_B = np.asarray(place_B).astype(np.uint64)
    outside_B = np.ones(len(value_B), bool)
    while outside_B.any():
        halves = list(np.divmod(value_B[outside_B], np.uint64(columns)))
        for k, round_B in enumerate(rounds_BK[outside_B].T):
            side = k % 2
            scattered_B = augment.mix(halves[1 - side] ^ round_B) >> np.uint64(1)  # the sum cannot overflow
            halves[side] = (halves[side] + scattered_B) % np.uint64((rows, columns)[side])
        value_B[outside_B] = halves[0] * np.uint64(columns) + halves[1]
        outside_B = value_B >= count
    return value_B.astype(np.int64)


def _quotas(firsts: np.ndarray, weights: Sequence[float] | None) -> list[int]:
    """Records of each dataset in one round of the stream."""
    sizes = np.diff(firsts)
    if weights is None:
        return [int(n) for n in sizes]
    share = np.asarray(weights, np.float64)
    if share.shape != sizes.shape or not (share > 0).all():
        raise MetroError(f"{len(sizes)} datasets need {len(sizes)} positive weights, got {list(weights)}")
    return [max(1, round(x)) for x in share / share.sum() * sizes.sum()]


def _check_shared_memory(train: TrainConfig, size: int) -> None:
    """Workers hand batches over in shared memory; where it is too small they would die of a bus error."""
    need = train.workers * (_PREFETCH + 1) * train.batch_size * size * size * 3 * 1.1
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return  # a system that keeps shared memory elsewhere
    if stat.f_frsize * stat.f_bavail < need:
        raise MetroError(
            f"train.workers={train.workers} need {need / 2**20:.0f} MiB of shared memory in /dev/shm, which has "
            f"{stat.f_frsize * stat.f_bavail / 2**20:.0f} MiB; use fewer workers, smaller batches, or enlarge it"
        )
