"""HDF5 shards: written once, atomically, the same bytes each time; read by memory map.

A shard holds, for N records:

    images/bytes     (L,) uint8: all JPEG files, one after the other, in one contiguous piece
    images/offsets   (N + 1,) int64: where each begins; the last is L
    labels/NAME      one array per label, first axis N (see `LABELS`)
    attributes       schema, source, licence, params (JSON), recipe (digest of params and place in the set),
                     digest (of the arrays), image_size, skipped (JSON), colour_sum, colour_square_sum

A dataset is a folder of shards with a `manifest.json`. Pseudo-meshes lie in sidecar files (`fit-00000.h5` for
`shard-00000.h5`) in a folder of their own; shards are never edited.

Shapes: N records, J joints (24 body, 21 hand), P pose parameters (72 body, 48 hand).
"""

from __future__ import annotations

import copy
import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from metro.body.figure import BODY, FIGURES, Figure
from metro.config import CropConfig
from metro.data import crop
from metro.data.hdf5 import MAX_BYTES, SCHEMA, open_h5, write_h5
from metro.data.records import GENDERS, MESH_ORIGINS, BadRecord, Record
from metro.errors import MetroError
from metro.files import read_json

LABELS = (
    *("keys", "box", "center", "scale", "affine", "intrinsics", "gender"),
    *("joints_2d", "joints_3d", "pose_aa", "betas", "transl"),
    *("has_2d", "has_3d", "has_mesh", "mesh_origin", "fit_error"),
)
"""Label arrays: `keys` bytes; `box` (N, 4) and `center` (N, 2) px of the frame; `scale` (N,) square side / 200 px;
`affine` (N, 2, 3) frame px → stored px; `intrinsics` (N, 3, 3), nan if unknown; `gender`, `mesh_origin` (N,) positions
in `GENDERS`, `MESH_ORIGINS`; `joints_2d` (N, J, 3) frame px + confidence; `joints_3d` (N, J, 4) camera frame, metres +
confidence; `pose_aa` (N, P); `betas` (N, 10); `transl` (N, 3) metres, nan if unknown; `fit_error` (N,) metres, nan if
there is none. Absent 2D, 3D and mesh labels are zeros, and their `has_*` is false."""

FIT_LABELS = ("keys", "pose_aa", "betas", "transl", "fit_error", "accepted")
"""Arrays of a fit sidecar."""


# ---------------------------------------------------------------------------------------------------- writing


class ShardWriter:
    """Collects records and writes them as one shard, all or nothing.

    A context manager: the file appears, under its final name and synced to disk, when the block ends without an
    exception; otherwise nothing is left. Holds the encoded images of the shard in memory.

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
    attributes
        Strings added to the file's attributes.
    """

    def __init__(
        self,
        path: Path,
        config: CropConfig,
        supervision: str = "mesh",
        figure: Figure = BODY,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self._config = config
        self._supervision = supervision
        self._figure = figure
        self._shapes = {
            "joints_2d": (figure.num_labels, 3),
            "joints_3d": (figure.num_labels, 4),
            "pose_aa": (figure.pose_size,),
            **{"box": (4,), "center": (2,), "affine": (2, 3), "intrinsics": (3, 3), "betas": (10,), "transl": (3,)},
        }
        self._attributes = dict(attributes or {})
        self._blob = bytearray()
        self._offsets = [0]
        self._rows: list[dict[str, Any]] = []
        self._skipped: list[str] = []
        self._colour = np.zeros((2, 3))

    def add(self, record: Record | BadRecord) -> None:
        """Check, crop and encode one record; a bad one is counted and left out."""
        try:
            if isinstance(record, BadRecord):
                raise MetroError(f"{record.name}: {record.problem}")
            record.check(self._figure)
            center, scale = record.crop_square()
            image, affine = self._cut(record, center, scale)
        except MetroError as err:
            self._skipped.append(str(err))
            return
        options = [cv2.IMWRITE_JPEG_QUALITY, self._config.quality]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
        self._blob += encoded.tobytes()
        if len(self._blob) > MAX_BYTES:
            raise MetroError(f"{self.path}: more than 1 GiB; lower the dataset's shard_size")
        self._offsets.append(len(self._blob))
        pixels = image.reshape(-1, 3) / 255.0
        self._colour += [pixels.mean(0), (pixels**2).mean(0)]
        self._rows.append(self._labels(record, center, scale, affine))

    def _cut(self, record: Record, center: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        try:
            return crop.cut(record.image, center, scale, self._config.box_px, self._config.margin, record.upright)
        except MetroError as err:
            raise MetroError(f"{record.name}: {err}") from None

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
            "gender": GENDERS.index(record.gender),
            "joints_2d": record.keypoints_2d if record.has_2d else np.zeros(self._shapes["joints_2d"]),
            "joints_3d": record.joints_3d if keep_3d else np.zeros(self._shapes["joints_3d"]),
            "pose_aa": record.pose_aa if keep_mesh else np.zeros(self._shapes["pose_aa"]),
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
        if kind is None:
            self._write()

    def _write(self) -> None:
        arrays = {f"labels/{name}": self._column(name) for name in LABELS}
        arrays["images/bytes"] = np.frombuffer(self._blob, np.uint8)
        arrays["images/offsets"] = np.array(self._offsets, np.int64)
        attributes = {
            **self._attributes,
            "schema": SCHEMA,
            "image_size": round(self._config.box_px * self._config.margin),
            "skipped": json.dumps(self._skipped),
            "colour_sum": self._colour[0],
            "colour_square_sum": self._colour[1],
        }
        write_h5(self.path, arrays, attributes)

    def _column(self, name: str) -> np.ndarray:
        values = [row[name] for row in self._rows]
        if name == "keys":
            return np.array(values, dtype=f"S{max(map(len, values), default=1)}")
        kind = np.bool_ if name.startswith("has_") else np.uint8 if name in ("gender", "mesh_origin") else np.float32
        return np.array(values, dtype=kind).reshape(-1, *self._shapes.get(name, ()))


def write_fits(
    folder: Path, shard_name: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any] | None = None
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
    write_h5(path, labels, {**(attributes or {}), "schema": SCHEMA})
    return path


def fit_path(folder: Path, shard_name: str) -> Path:
    return folder / shard_name.replace("shard-", "fit-")


# ---------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class _Blob:
    """Where the images of one shard lie."""

    path: Path
    start: int  # byte in the file where images/bytes begins
    offsets: np.ndarray  # (N + 1,)


class ShardDataset:
    """Records of one or more shards: labels in memory, images by memory map, opened when first used.

    Works as a map-style dataset and may be pickled or inherited by forked worker processes.

    Parameters
    ----------
    source
        Folder written by `prepare`, or a list of shards.
    fits
        Folder of fit sidecars. Accepted fits are laid over the records: they get `has_mesh`.

    Attributes
    ----------
    labels
        Arrays over all records, see `LABELS`.
    image_size
        Side of the stored images, pixels.
    paths
        The shards.
    figure
        What the records are of.
    colour_moments
        (2, 3) mean and mean square of each RGB channel in [0, 1], over all images of the shards.

    Raises
    ------
    MetroError
        The folder is not a finished dataset, or a shard or sidecar is damaged, of another version, or does not fit
        the others.
    """

    def __init__(self, source: Path | str | Sequence[Path], fits: Path | str | None = None) -> None:
        if isinstance(source, str | Path):
            self.paths = [Path(source) / entry["file"] for entry in read_manifest(Path(source))["shards"]]
        else:
            self.paths = [Path(path) for path in source]
        if not self.paths:
            raise MetroError("a dataset needs at least one shard")
        self.name = str(self.paths[0].parent)
        columns, blobs, sizes = [], [], set()
        colour = np.zeros((2, 3))
        for path in self.paths:
            with open_h5(path) as file:
                columns.append({name: file["labels"][name][...] for name in LABELS})
                blobs.append(_blob(path, file))
                sizes.add(int(file.attrs["image_size"]))
                colour += [file.attrs["colour_sum"], file.attrs["colour_square_sum"]]
            if fits is not None:
                _overlay(columns[-1], fit_path(Path(fits), path.name))
        shapes = {(c["joints_2d"].shape[1], c["pose_aa"].shape[1]) for c in columns}
        figures = [f for f in FIGURES.values() if shapes == {(f.num_labels, f.pose_size)}]
        if len(sizes) > 1 or len(figures) != 1:
            raise MetroError(f"{self.paths[0].parent}: not all shards are of one kind and size, body or hand")
        self.figure = figures[0]
        self.image_size = sizes.pop()
        self.labels: dict[str, np.ndarray] = {name: np.concatenate([c[name] for c in columns]) for name in LABELS}
        self._blobs = blobs
        self.colour_moments = colour / max(1, len(self))
        self._firsts = np.cumsum([0] + [len(blob.offsets) - 1 for blob in blobs])
        self._rows = np.arange(self._firsts[-1])
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.labels["keys"])

    def subset(self, indices: Sequence[int] | np.ndarray) -> ShardDataset:
        """A view of some records, in the given order."""
        rows = np.asarray(indices, np.int64)
        view = copy.copy(self)
        view.labels = {name: values[rows] for name, values in self.labels.items()}
        view._rows = self._rows[rows]
        return view

    def first(self, count: int) -> ShardDataset:
        """A view of the first `count` records."""
        return self.subset(np.arange(min(count, len(self))))

    @property
    def joint_set(self) -> str:
        """Joints of the labels: `J24` or `HAND21`."""
        return self.figure.labels

    def encoded(self, index: int) -> np.ndarray:
        """JPEG file of a record, as a view (L,) uint8 of the mapped shard."""
        shard, row = self._find(index)
        if shard not in self._maps:
            self._maps[shard] = _map(self._blobs[shard])
        offsets = self._blobs[shard].offsets
        return self._maps[shard][offsets[row] : offsets[row + 1]]

    def _find(self, index: int) -> tuple[int, int]:
        """Shard of a record, and its row there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = int(self._rows[index])
        shard = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return shard, row - int(self._firsts[shard])

    def image(self, index: int, reduce: int = 1) -> np.ndarray:
        """The stored image (S, S, 3) uint8 RGB; with `reduce` 2, 4 or 8 decoded at that fraction of its size.

        Raises
        ------
        MetroError
            The JPEG data is corrupt.
        """
        image = crop.decode(self.encoded(index), reduce)
        if image is None:
            shard, _ = self._find(index)
            key = self.labels["keys"][index].decode()
            raise MetroError(f"{self.paths[shard]}: image of {key} is corrupt; `metro data verify` checks the dataset")
        return image

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.image(index), **{name: values[index] for name, values in self.labels.items()}}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}


def _blob(path: Path, file: h5py.File) -> _Blob:
    offsets = file["images/offsets"][...]
    data = file["images/bytes"]
    if offsets[0] != 0 or (np.diff(offsets) <= 0).any() or offsets[-1] != len(data):
        raise MetroError(f"{path}: damaged (image offsets are out of order); delete it and run prepare again")
    if len(offsets) != len(file["labels/keys"]) + 1:
        raise MetroError(f"{path}: damaged (images and labels differ in number); delete it and run prepare again")
    return _Blob(path, data.id.get_offset() or 0, offsets)


def _map(blob: _Blob) -> np.ndarray:
    try:
        with blob.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as err:
        raise MetroError(f"{blob.path}: cannot be read: {err}") from None
    end = blob.start + int(blob.offsets[-1])
    if end > len(mapped):
        raise MetroError(f"{blob.path}: truncated; delete it and run prepare again")
    return np.frombuffer(mapped, np.uint8, count=int(blob.offsets[-1]), offset=blob.start)


def _overlay(labels: dict[str, np.ndarray], path: Path) -> None:
    """Lay accepted fits over the labels of their shard."""
    with open_h5(path) as file:
        fits = {name: file["labels"][name][...] for name in FIT_LABELS}
    if not np.array_equal(fits["keys"], labels["keys"]):
        raise MetroError(f"{path}: fits of other records than the shard has; run the fit stage again")
    accepted = fits["accepted"].astype(bool)
    for name in ("pose_aa", "betas", "transl", "fit_error"):
        labels[name][accepted] = fits[name][accepted]
    labels["has_mesh"][accepted] = True
    labels["mesh_origin"][accepted] = MESH_ORIGINS.index("fit")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a dataset folder.

    Raises
    ------
    MetroError
        It is missing (the folder is not a finished dataset), damaged, or of another version.
    """
    remedy = "run the dataset's prepare stage to the end"
    return read_json(folder / "manifest.json", remedy, ("count", "shards"), version=("schema", SCHEMA))
