"""HDF5 shards: written once, atomically, the same bytes each time; images are read one by one, labels as a table.

A shard holds, for N records:

    images/bytes     (L,) uint8: all JPEG files, one after the other, in one contiguous piece
    images/offsets   (N + 1,) int64: where each begins; the last is L
    images/crc32     (N,) uint32: checksum of each, compared whenever it is read
    labels/NAME      one array per label, first axis N (see `metro.data.table.LABELS`)
    about/json       facts: source, licence, params, recipe (digest of params and place in the set), digest (of all
                     arrays but the first and of the other facts, compared on opening), image_size, skipped
                     and left (what is not in it, and how many), colour_sum, colour_square_sum

A dataset is a folder of shards with a `manifest.json`. Pseudo-meshes lie in sidecar files (`fit-00000.h5` for
`shard-00000.h5`) in a folder of their own; shards are never edited.

Shapes: N records, J joints (24 body, 21 hand), P pose parameters (72 body, 48 hand).
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
import zlib
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from typing_extensions import TypedDict

from metro.body.figure import BODY, Figure
from metro.config import CropConfig
from metro.data import crop
from metro.data.hdf5 import MAX_BYTES, SCHEMA, open_h5, read_facts, write_h5
from metro.data.lens import LENSES
from metro.data.records import MESH_ORIGINS, BadRecord, Left, Record
from metro.data.table import FIT_LABELS, LABELS, load_table
from metro.errors import MetroError, naming
from metro.files import Spool, read_json, readable
from metro.words import GENDERS

_OPEN_SHARDS = 64  # of one dataset, in one process

# ---------------------------------------------------------------------------------------------------- writing


class ShardWriter:
    """Collects records and writes them as one shard, all or nothing.

    A context manager: the file appears, under its final name and synced to disk, when the block ends without an
    exception; otherwise nothing is left. Memory is for the labels and for few images (`metro.files.Spool`). Records of
    one picture that follow each other have it decoded once.

    Parameters
    ----------
    path
        The shard.
    config
        Geometry and JPEG quality of the stored crops.
    supervision
        Strongest label kept: `mesh`, `joints_3d` (drops pose and shape) or `joints_2d` (drops 3D joints as well).
    figure
        What the records are of: gives the number of joints and pose parameters.
    facts
        Added to the facts about the file.
    """

    def __init__(
        self,
        path: Path,
        config: CropConfig,
        supervision: str = "mesh",
        figure: Figure = BODY,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self._config = config
        self._supervision = supervision
        self._figure = figure
        self._facts = dict(facts or {})
        self._picture = crop.Picture(b"")
        self._images = Spool(self.path)
        self._offsets = [0]
        self._crc32: list[int] = []
        self._keys: list[bytes] = []
        self._labels_of = {name: bytearray() for name in LABELS if name != "keys"}
        self._skipped: list[tuple[str, int]] = []
        self._left: Counter[str] = Counter()
        self._levels = np.zeros((3, 256), np.int64)  # pixels of each value, of all images

    def add(self, record: Record | Left | BadRecord) -> None:
        """Check, crop and encode one record; a bad one is counted, and so is one that a rule of its set leaves out."""
        if isinstance(record, Left):
            self._left[record.reason] += record.count
            return
        if isinstance(record, BadRecord):
            self._skipped.append((f"{record.name}: {record.problem}", record.count))
            return
        try:
            record.check(self._figure)
            center, scale = record.crop_square()
            image, affine = self._cut(record, center, scale)
        except MetroError as err:
            self._skipped.append((str(err), 1))
            return
        options = [cv2.IMWRITE_JPEG_QUALITY, self._config.quality]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
        data = encoded.tobytes()
        self._images.add(data)
        self._crc32.append(zlib.crc32(data))
        if self._images.size > MAX_BYTES:
            raise MetroError(f"{self.path}: more than 1 GiB; lower the dataset's shard_size")
        self._offsets.append(self._images.size)
        for channel in range(3):
            self._levels[channel] += cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        labels = self._labels(record, center, scale, affine)
        self._keys.append(labels.pop("keys"))
        for name, value in labels.items():
            kind = LABELS[name].type(self._figure)
            self._labels_of[name] += np.asarray(value, kind.base).reshape(kind.shape).tobytes()

    def _cut(self, record: Record, center: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        if not self._picture.shows(record.image, record.upright):
            self._picture = crop.Picture(record.image, record.upright)
        with naming(record.name):
            return crop.cut(self._picture, center, scale, self._config.box_px, self._config.margin)

    def _labels(self, record: Record, center: np.ndarray, scale: float, affine: np.ndarray) -> dict[str, Any]:
        keep_3d = record.has_3d and self._supervision != "joints_2d"
        keep_mesh = record.has_mesh and self._supervision == "mesh"
        corner, side = center - 100 * scale, 200 * scale
        return {
            "keys": record.name.encode(),
            "box": [*corner, side, side] if record.box is None else record.box,
            "center": center,
            "scale": scale,
            "affine": affine,
            "intrinsics": np.full((3, 3), np.nan) if record.intrinsics is None else record.intrinsics,
            "distortion": np.zeros(8) if record.distortion is None else record.distortion,
            "lens": LENSES.index(record.lens),
            "gender": GENDERS.index(record.gender),
            "joints_2d": record.keypoints_2d if record.has_2d else np.zeros((self._figure.num_labels, 3)),
            "joints_3d": record.joints_3d if keep_3d else np.zeros((self._figure.num_labels, 4)),
            "pose_aa": record.pose_aa if keep_mesh else np.zeros(self._figure.pose_size),
            "betas": record.betas if keep_mesh else np.zeros(10),
            "transl": record.transl if keep_mesh and record.transl is not None else np.full(3, np.nan),
            "has_2d": record.has_2d,
            "has_3d": keep_3d,
            "has_mesh": keep_mesh,
            "mesh_origin": MESH_ORIGINS.index(record.mesh_origin) if keep_mesh else 0,
            "fit_error": record.fit_error if keep_mesh and record.fit_error is not None else np.nan,
        }

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._write()
        finally:
            self._images.close()

    def _write(self) -> None:
        arrays = {f"labels/{name}": self._column(name) for name in LABELS}
        arrays["images/offsets"] = np.array(self._offsets, np.int64)
        arrays["images/crc32"] = np.array(self._crc32, np.uint32)
        size = round(self._config.box_px * self._config.margin)
        grey = np.arange(256)
        facts = {
            **self._facts,
            "image_size": size,
            "skipped": self._skipped,
            "left": dict(self._left),
            # Sums over images of the mean, and of the mean square, of channels in [0, 1]; whole numbers until divided.
            "colour_sum": (self._levels @ grey / (255 * size**2)).tolist(),
            "colour_square_sum": (self._levels @ grey**2 / (255**2 * size**2)).tolist(),
        }
        write_h5(self.path, arrays, facts, self._images)

    def _column(self, name: str) -> np.ndarray:
        if name == "keys":
            return np.array(self._keys, dtype=f"S{max(map(len, self._keys), default=1)}")
        kind = LABELS[name].type(self._figure)
        return np.frombuffer(self._labels_of[name], kind.base).reshape(-1, *kind.shape)


def write_fits(
    folder: Path, shard_name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None
) -> Path:
    """Write the pseudo-meshes of one shard as a sidecar file.

    Parameters
    ----------
    folder
        Where sidecars go.
    shard_name
        File name of the shard (`shard-00000.h5`); the sidecar is named after it (`fit-00000.h5`).
    arrays
        `keys` (as in the shard), `pose_aa` (N, P), `betas` (N, 10), `transl` (N, 3), `fit_error` (N,) metres and
        `accepted` (N,) bool. More arrays may be added.
    attributes
        Attributes of the file beside its schema version.

    Raises
    ------
    MetroError
        An array is missing or has another length, or the disk is full.
    """
    count = len(arrays["keys"])
    problems = [name for name in FIT_LABELS if name not in arrays or len(arrays[name]) != count]
    if problems:
        raise MetroError(f"fits of {shard_name}: {', '.join(problems)} missing or not of length {count}")
    path = fit_path(Path(folder), shard_name)
    labels = {f"labels/{name}": np.asarray(value) for name, value in arrays.items()}
    write_h5(path, labels, facts or {})
    return path


def fit_path(folder: Path, shard_name: str) -> Path:
    return folder / shard_name.replace("shard-", "fit-")


# ---------------------------------------------------------------------------------------------------- reading


class ShardDataset:
    """Records of one or more shards: labels in memory or mapped (`metro.data.table`), images read when asked for.

    Works as a map-style dataset and may be pickled or inherited by forked worker processes.

    Parameters
    ----------
    source
        Folder written by `prepare`, or a list of shards.
    fits
        Folder of fit sidecars. Accepted fits are laid over the records: they get `has_mesh`.
    cache
        Folder for a file with all labels, from which this and other processes map them (`metro.data.table.load_table`);
        none: they are read into memory.

    Attributes
    ----------
    labels
        Arrays over all records, see `metro.data.table.LABELS`; read-only where they are mapped.
    image_size
        Side of the stored images, pixels.
    paths
        The shards.
    figure
        What the records are of.

    Raises
    ------
    MetroError
        The folder is not a finished dataset, or a shard or sidecar is damaged, of another version, or does not fit
        the others.
    """

    def __init__(
        self, source: Path | str | Sequence[Path], fits: Path | str | None = None, cache: Path | None = None
    ) -> None:
        self.paths = shard_paths(Path(source)) if isinstance(source, str | Path) else [Path(path) for path in source]
        if not self.paths:
            raise MetroError("a dataset needs at least one shard")
        self.name = str(self.paths[0].parent)
        sidecars = [fit_path(Path(fits), path.name) for path in self.paths] if fits is not None else []
        self._rows, self.figure, self.image_size = load_table(self.paths, sidecars, cache)
        self.labels: dict[str, np.ndarray] = {name: self._rows[name] for name in LABELS}
        self._files = _Files(self.paths)

    def __len__(self) -> int:
        return len(self._rows)

    def subset(self, indices: Sequence[int] | np.ndarray) -> ShardDataset:
        """A view of some records, in the given order."""
        view = copy.copy(self)
        view._rows = self._rows[np.asarray(indices, np.int64)]
        view.labels = {name: view._rows[name] for name in LABELS}
        return view

    def first(self, count: int) -> ShardDataset:
        """A view of the first `count` records."""
        return self.subset(np.arange(min(count, len(self))))

    @property
    def joint_set(self) -> str:
        """Joints of the labels: `J24` or `HAND21`."""
        return self.figure.labels

    @property
    def genders(self) -> list[str]:
        """Genders of the people with a mesh who are posed on a body of their own."""
        posed_N = self.labels["gender"][self.labels["has_mesh"]]
        return [GENDERS[number] for number in np.unique(posed_N) if number]

    def digest(self) -> str:
        """Hex sha256 of the records in their order, however they are sharded: names, labels, checksums of images."""
        found, step = hashlib.sha256(), 65536
        for start in range(0, len(self), step):
            for name, values in {**self.labels, "crc32": self._rows["crc32"]}.items():
                part = values[start : start + step]
                # Names are as long as the longest of the shards they came in.
                found.update(b"\0".join(part.tolist()) if name == "keys" else np.ascontiguousarray(part).data)
        return found.hexdigest()

    def colour_moments(self) -> np.ndarray:
        """(2, 3) mean and mean square of each RGB channel in [0, 1], over all images of the shards."""
        sums, count = np.zeros((2, 3)), 0
        for path in self.paths:
            with open_h5(path) as file:
                facts = read_facts(file)
                sums += [facts["colour_sum"], facts["colour_square_sum"]]
                count += len(file["labels/keys"])
        return sums / max(1, count)

    def expect(self, indices: np.ndarray) -> None:
        """Have the system read the images of these records (N,) ahead, all at once and in the order of the disk."""
        rows = self._rows[["shard", "start", "size"]][np.sort(indices)]
        for shard, start, size in rows.tolist():
            self._files.expect(shard, start, size)

    def encoded(self, index: int) -> bytes:
        """JPEG file of a record.

        Raises
        ------
        MetroError
            It is not what was written.
        """
        shard, start, size, crc32 = (self._rows[name][index].item() for name in ("shard", "start", "size", "crc32"))
        data = self._files.read(shard, start, size)
        if zlib.crc32(data) != crc32:
            raise self._corrupt(index)
        return data

    def _corrupt(self, index: int) -> MetroError:
        path, key = self.paths[self._rows["shard"][index]], self.labels["keys"][index].decode(errors="replace")
        return MetroError(f"{path}: image of {key} is corrupt; `metro data verify` checks the dataset")

    def check_images(self) -> None:
        """Read every image.

        Raises
        ------
        MetroError
            One of them is not what was written.
        """
        for index in range(len(self)):
            self.encoded(index)

    def image(self, index: int, reduce: int = 1) -> np.ndarray:
        """The stored image (S, S, 3) uint8 RGB; with `reduce` 2, 4 or 8 decoded at that fraction of its size.

        Raises
        ------
        MetroError
            The JPEG data is corrupt.
        """
        image = crop.decode(self.encoded(index), reduce)
        if image is None:
            raise self._corrupt(index)
        return image

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.image(index), **{name: values[index] for name, values in self.labels.items()}}


class _Files:
    """Open shards, those last used. Reads give a place, so processes may share a descriptor that they inherited."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._open: OrderedDict[int, int] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Files, (self._paths,)

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, shard: int, start: int, size: int) -> bytes:
        """Bytes of a shard; fewer than asked for if it has become shorter."""
        with readable(self._paths[shard], "run prepare again"):
            return os.pread(self._descriptor(shard), size, start)

    def expect(self, shard: int, start: int, size: int) -> None:
        """Have bytes of a shard read ahead."""
        with readable(self._paths[shard], "run prepare again"):
            os.posix_fadvise(self._descriptor(shard), start, size, os.POSIX_FADV_WILLNEED)

    def _descriptor(self, shard: int) -> int:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        while len(self._open) >= _OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1])
        descriptor = os.open(self._paths[shard], os.O_RDONLY)
        # Otherwise the system reads what lies around a record as well, some hundred times as much.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        self._open[shard] = descriptor
        return descriptor


class ManifestEntry(TypedDict):
    """What a manifest says of one shard."""

    file: str
    count: int
    bytes: int
    sha256: str


class _Manifest(TypedDict):
    count: int
    shards: list[ManifestEntry]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a dataset folder.

    Raises
    ------
    MetroError
        It is missing (the folder is not a finished dataset), damaged, or of another version.
    """
    remedy = "run the dataset's prepare stage to the end"
    path = folder / "manifest.json"
    manifest: dict[str, Any] = read_json(path, remedy, ("count", "shards"), ("schema", SCHEMA), shape=_Manifest)
    for entry in manifest["shards"]:
        if not re.fullmatch(r"[\w.-]{1,200}", entry["file"]) or entry["file"] in (".", "..") or entry["count"] < 0:
            raise MetroError(f"{path}: damaged, {entry['file'][:80]!r} is no shard of this folder; {remedy}")
    if manifest["count"] != sum(entry["count"] for entry in manifest["shards"]):
        raise MetroError(f"{path}: damaged, the shards do not add up to {manifest['count']} records; {remedy}")
    return manifest


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a dataset folder, whose sizes are as its manifest says.

    Raises
    ------
    MetroError
        They are not, or the folder is not a finished dataset.
    """
    paths = []
    for entry in read_manifest(folder)["shards"]:
        path = folder / entry["file"]
        if not path.is_file():
            raise MetroError(f"{path}: no such shard; run the prepare stage again")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise MetroError(f"{path}: {size} bytes instead of {entry['bytes']}; delete it and run prepare again")
        paths.append(path)
    return paths
