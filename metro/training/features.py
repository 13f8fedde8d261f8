"""Features of a frozen backbone, or of the frozen part of one, computed once for each view and kept on disk.

A view is a picture as augmentation made it in one of the first `train.views` passes; labels and masks stay with the
loader. A folder of views is named after a digest of all that decides their bytes, so that trainings which differ in
something else (those of a study, for instance) share it:

    KEY/part-00000.bin   rows: float16 (F,) of one view, then crc32 of these bytes, uint32. The views of a record
                         follow one another, as records do; parts hold whole records, each the same number
    KEY/done             appears when the last part has
    KEY.lock             locked while a process computes or uses them

A part depends on nothing but its records, and appears whole: a killed computation goes on with the parts that lack, and
the number of processes changes no byte. All processors compute, by ONNX Runtime, which took less than half of PyTorch's
time for a view of `blazepose` (10 against 23 ms of one core); GPUs do not.

Shapes: B view of a batch, F number of a view.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from metro.config import Params
from metro.data import augment, crop, framing, loader, photo
from metro.data.hdf5 import open_h5, read_facts
from metro.data.loader import TrainStream, made_by_workers
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.files import atomic_file, readable, sha256_of
from metro.model.backbones import Backbone
from metro.model.onnx import onnx_of
from metro.model.runtime import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PART_BYTES = 16 << 20
"""Size of a part, about: some seconds of one processor, which is what a kill loses."""

_BATCH = 4  # views computed at once: more are slower on a CPU. It decides how numbers are rounded, so it never changes
_CODE = (augment, crop, framing, loader, photo)  # what turns a record into a view


@dataclass(frozen=True)
class StoredViews:
    """Features of the views of some records, read row by row; any process may do so while parts are complete."""

    folder: Path
    records: int
    views: int
    """Of each record."""
    width: int
    """Numbers F of a view."""

    @cached_property
    def row(self) -> np.dtype:
        """One view on disk."""
        return np.dtype([("features", "<f2", (self.width,)), ("crc32", "<u4")])

    @cached_property
    def part_records(self) -> int:
        """Records of a part; the last may have fewer."""
        return max(1, PART_BYTES // (self.views * self.row.itemsize))

    @property
    def nbytes(self) -> int:
        return self.records * self.views * self.row.itemsize

    @property
    def done(self) -> Path:
        """The file that tells that all parts are there."""
        return self.folder / "done"

    def parts(self) -> Iterator[tuple[Path, range]]:
        """Every part, and its records."""
        for number, first in enumerate(range(0, self.records, self.part_records)):
            yield self._part(number), range(first, min(self.records, first + self.part_records))

    def __call__(self, index_B: np.ndarray, view_B: np.ndarray) -> np.ndarray:
        """Features (B, F) float16 of a view each of the records (B,).

        Raises
        ------
        MetroError
            They are not what was written.
        """
        features_BF = np.empty((len(index_B), self.width), "<f2")
        part_B, place_B = np.divmod(index_B, self.part_records)
        for i, (part, place) in enumerate(zip(part_B.tolist(), (place_B * self.views + view_B).tolist(), strict=True)):
            path = self._part(part)
            with readable(path, f"delete {self.folder} and run again"):
                # Not mapped: pages of a map would count as this process's memory.
                file = os.open(path, os.O_RDONLY)
                try:
                    read = os.pread(file, self.row.itemsize, place * self.row.itemsize)
                finally:
                    os.close(file)
                stored = np.frombuffer(read, self.row)[0]
                if zlib.crc32(stored["features"]) != stored["crc32"]:
                    raise ValueError("the checksum of a view differs")
                features_BF[i] = stored["features"]
        return features_BF

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.bin"


class FeatureCache:
    """The features that a training needs, computed where they are not there yet; those of others are removed.

    All processes of the training make one; the first computes, by as many processes as there are processors.

    Parameters
    ----------
    root
        Folder of such features; trainings that run at the same time may share it.
    params
        `params.train.views` is set.
    datasets
        As the training has them.
    backbone
        As the training starts with it, on the CPU.
    leads
        Whether this is the first process.

    Attributes
    ----------
    stored
        The features. As long as this object lives no other training removes them.

    Raises
    ------
    MetroError
        Weights that the features are made with learn, there is too little room, the disk got full, a record cannot be
        read, or float16 cannot hold the features.
    """

    def __init__(
        self, root: Path, params: Params, datasets: Sequence[ShardDataset], backbone: Backbone, leads: bool
    ) -> None:
        config, side = params.train, params.model.image_size
        if learning := [name for name, weight in backbone.kept().items() if weight.requires_grad]:
            raise MetroError(
                f"train.views: backbone.{learning[0]} learns, and features that are kept are made with it; "
                "add `backbone` to train.freeze"
            )
        self._backbone, self._side = backbone.eval(), side
        self._frames = TrainStream(datasets, params.model, config)
        with torch.inference_mode():
            width = backbone.features(torch.zeros(1, 3, side, side)).shape[1]
        folder = root / _key(params, datasets, backbone)
        self.stored = StoredViews(folder, sum(map(len, datasets)), cast("int", config.views), width)
        self._lock: IO[bytes] | None = None
        if leads:
            self._lock = self._held(root)
        else:  # not a barrier, whose patience is that of the network
            while not self.stored.done.is_file():
                time.sleep(0.1)

    def _held(self, root: Path) -> IO[bytes]:
        """Complete the features; the lock on them."""
        folder, done = self.stored.folder, self.stored.done
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock_file(folder)
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not done.is_file():
            fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_others(root, folder)
            if not done.is_file():  # another process may have computed them meanwhile
                self._compute()
            fcntl.flock(lock, fcntl.LOCK_SH)  # for a moment it is not locked, so that it has to be looked at again
        return lock

    def _compute(self) -> None:
        stored = self.stored
        stored.folder.mkdir(parents=True, exist_ok=True)
        for left in stored.folder.glob(".*.tmp"):  # of a process that was killed
            left.unlink()
        missing = [(path, records) for path, records in stored.parts() if not path.is_file()]
        total, count = stored.records * stored.views, stored.views * sum(len(records) for _, records in missing)
        need, free = count * stored.row.itemsize, shutil.disk_usage(stored.folder).free
        told = f"features of {count} views need {_size(need)}"
        if free < need:
            raise MetroError(
                f"{stored.folder}: {told}, but {_size(free)} are free; make room, lower train.views, or set it to none"
            )
        print(f"{told} in {stored.folder}", flush=True)
        self._program = onnx_of(_Features(self._backbone), self._side, ["features"]).SerializeToString()
        cores = len(os.sched_getaffinity(0))
        with tqdm(total=total, initial=total - count, desc="features", unit="view") as bar:
            for views in made_by_workers(self._write, missing, min(cores, len(missing))):
                bar.update(views)
        with atomic_file(stored.done) as temporary:
            temporary.touch()

    @cached_property
    def _session(self) -> InferenceSession:
        """The backbone; each worker, which has one thread, opens its own."""
        return open_session(self._program, threads=1)

    def _write(self, part: tuple[Path, range]) -> int:
        """Compute one part; the number of its views."""
        (path, records), stored = part, self.stored
        index_N, view_N = (a.ravel() for a in np.meshgrid(records, np.arange(stored.views), indexing="ij"))
        rows = np.empty(len(index_N), stored.row)
        for first in range(0, len(rows), _BATCH):
            some = slice(first, first + _BATCH)
            batch = self._frames.pictures(index_N[some], view_N[some])
            images = augment.normalise(batch["image"], batch["colour"]).numpy()
            rows["features"][some] = self._session.run(None, {"image": images})[0]
        if not np.isfinite(rows["features"]).all():
            raise MetroError(f"{path}: features that float16 cannot hold; set train.views to none for this backbone")
        rows["crc32"] = [zlib.crc32(row) for row in rows["features"]]
        with atomic_file(path) as temporary:
            temporary.write_bytes(rows.tobytes())
        return len(rows)


class _Features(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return self.backbone.features(images_B3HW)


def _key(params: Params, datasets: Sequence[ShardDataset], backbone: Backbone) -> str:
    """Digest of all that decides the bytes of the features, but the processor."""
    import onnxruntime

    train = params.train
    told = {
        "backbone": [params.model.backbone, params.model.image_size, torch.__version__, onnxruntime.__version__],
        "weights": hashlib.sha256(save({k: v.data.contiguous() for k, v in backbone.kept().items()})).hexdigest(),
        "views": [train.augment.model_dump(mode="json"), train.seen_by, train.views],
        "records": [_records(dataset) for dataset in datasets],
        "code": [sha256_of(Path(str(sys.modules[name].__file__))) for name in _code_of(backbone)],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _records(dataset: ShardDataset) -> str:
    """Digest of the records of a dataset, pictures by their checksums."""
    sha = hashlib.sha256(dataset.labels["keys"].tobytes())
    for path in dataset.paths:
        with open_h5(path) as file:
            sha.update(read_facts(file)["digest"].encode())
    return sha.hexdigest()


def _code_of(backbone: Backbone) -> list[str]:
    """Modules of this project that a view and its features come from."""
    layers = {type(module).__module__ for module in backbone.modules()}
    return [__name__, *(module.__name__ for module in _CODE), *sorted(n for n in layers if n.startswith("metro."))]


def _remove_others(root: Path, own: Path) -> None:
    """Remove the features that no process uses; folders of other names are none."""
    for folder in root.iterdir():
        if folder.is_dir() and folder != own and re.fullmatch(r"[0-9a-f]{16}", folder.name):
            with _lock_file(folder) as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(folder, ignore_errors=True)


def _lock_file(folder: Path) -> IO[bytes]:
    return folder.with_suffix(".lock").open("ab")


def _size(count: int) -> str:
    unit, name = next((u, n) for u, n in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")) if count >= u or n == "kB")
    return f"{count / unit:.1f} {name}"
