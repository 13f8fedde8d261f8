"""The table of a dataset: a row for each record, with its labels and with where its image lies.

Shards keep labels in columns; here the rows of all shards follow one another and a row is one piece of 1.2 kB, so that
a record touches one page of memory or two. The table is either in memory, or a file that is made once and mapped: its
pages are then shared by all processes of a machine, and the system may drop them.

Shapes: N records, J joints (24 body, 21 hand), P pose parameters (72 body, 48 hand).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metro.body.figure import FIGURES, Figure
from metro.data.hdf5 import BLOB, SCHEMA, open_h5, piece, read_arrays, read_facts
from metro.data.lens import LENSES
from metro.data.records import MESH_ORIGINS
from metro.errors import MetroError
from metro.files import atomic_file, readable, sha256_of
from metro.words import GENDERS


class Label(NamedTuple):
    """A label of every record."""

    kind: str
    """Type of its numbers, as NumPy writes it; `S`: bytes, as many as the longest has."""
    shape: tuple[int | str, ...]
    """Of one record. J: annotated joints, P: pose parameters of the figure."""
    meaning: str
    may_be_nan: bool = False
    """Whether nan says that it is not known."""
    words: tuple[str, ...] = ()
    """What its numbers are positions in."""

    def type(self, figure: Figure) -> np.dtype:
        """Type and shape of one record's label."""
        sizes = {"J": figure.num_labels, "P": figure.pose_size}
        return np.dtype((self.kind, tuple(sizes[n] if isinstance(n, str) else n for n in self.shape)))


LABELS = {
    "keys": Label("S", (), "names of the records"),
    "box": Label("<f4", (4,), "x, y, width and height, px of the frame"),
    "center": Label("<f4", (2,), "of the square crop, px of the frame"),
    "scale": Label("<f4", (), "side of the square crop / 200 px"),
    "affine": Label("<f4", (2, 3), "frame px to stored px"),
    "intrinsics": Label("<f4", (3, 3), "camera matrix of the frame, px", may_be_nan=True),
    "distortion": Label("<f4", (8,), "k1 k2 p1 p2 k3 k4 k5 k6, zeros without a lens"),
    "lens": Label("u1", (), "whose formula that is", words=LENSES),
    "gender": Label("u1", (), "body that pose and shape belong to; neutral: that of the settings", words=GENDERS),
    "joints_2d": Label("<f4", ("J", 3), "frame px as the lens shows them, and confidence"),
    "joints_3d": Label("<f4", ("J", 4), "camera frame, metres, and confidence"),
    "pose_aa": Label("<f4", ("P",), "axis-angle, root first"),
    "betas": Label("<f4", (10,), "shape"),
    "transl": Label("<f4", (3,), "of the body model into the camera frame, metres", may_be_nan=True),
    "has_2d": Label("?", (), "whether there are 2D joints; zeros if not"),
    "has_3d": Label("?", (), "whether there are 3D joints; zeros if not"),
    "has_mesh": Label("?", (), "whether there are pose and shape; zeros if not"),
    "mesh_origin": Label("u1", (), "where pose and shape come from", words=MESH_ORIGINS),
    "fit_error": Label("<f4", (), "of a fit, metres", may_be_nan=True),
}
"""Labels of a shard, by name, in the order of the table: arrays whose first axis are the records."""

FIT_LABELS = {
    **{name: LABELS[name] for name in ("keys", "pose_aa", "betas", "transl", "fit_error")},
    "accepted": Label("?", (), "whether the fit passed the gate"),
}
"""Arrays of a fit sidecar."""

_FITTED = tuple(name for name in FIT_LABELS if name not in ("keys", "accepted"))
_PLACE = (("shard", "<i4"), ("start", "<i8"), ("size", "<i8"), ("crc32", "<u4"))


class _Head(NamedTuple):
    """What the rows of a shard look like."""

    records: int
    key_size: int
    figure: Figure
    image_size: int


class Table(NamedTuple):
    """The table of some shards."""

    rows: np.ndarray
    """(N,) of a structured type: `LABELS`, `shard` (position in the list of shards), `start` and `size` of the image in
    its file, bytes, and `crc32` of the image."""
    figure: Figure
    image_size: int
    """Side of the stored images, pixels."""


def load_table(shards: Sequence[Path], sidecars: Sequence[Path] = (), cache: Path | None = None) -> Table:
    """The table of some shards with the accepted fits of their sidecars laid over; every label's digest is compared.

    Parameters
    ----------
    shards
        All bodies or all hands.
    sidecars
        None, or one for each shard.
    cache
        Folder for the table; none: it stays in memory. A table in there is used as long as no shard or sidecar has
        been touched, and its own digest is compared. The file of an earlier state of the same shards is removed.

    Raises
    ------
    MetroError
        A shard or sidecar is damaged, of another version, or does not fit the others.
    """
    if cache is None:
        heads = [_head(path) for path in shards]
        rows = np.zeros(sum(head.records for head in heads), _row_type(heads, shards))
        first = 0
        for number, head in enumerate(heads):
            _fill(rows[first : first + head.records], number, shards, sidecars, head.figure)
            first += head.records
        return Table(rows, heads[0].figure, heads[0].image_size)
    head = _head(shards[0])
    return Table(np.load(_cached(shards, sidecars, cache), mmap_mode="r"), head.figure, head.image_size)


def _cached(shards: Sequence[Path], sidecars: Sequence[Path], cache: Path) -> Path:
    """The file of the table, made if there is none for the shards as they are now."""
    of, state = [], [str(SCHEMA)]
    for path in (*shards, *sidecars):
        with readable(path, "run the stage that makes it"):
            now = path.stat()
        of.append(str(path.resolve()))
        # The time of the last change is the system's own: setting the modification time back does not hide a change.
        state.append(f"{now.st_size} {now.st_mtime_ns} {now.st_ctime_ns} {now.st_ino}")
    stem, key = (hashlib.sha256(json.dumps(part).encode()).hexdigest()[:16] for part in (of, state))
    path = cache / f"{stem}-{key}.npy"
    if not _is_intact(path):
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{stem}.lock"):
            if not _is_intact(path):  # another process may have made it meanwhile
                _write(path, shards, sidecars)
                for old in set(cache.glob(f"{stem}-*.npy*")) - {path, _digest_of(path)}:
                    old.unlink()
    return path


def _write(path: Path, shards: Sequence[Path], sidecars: Sequence[Path]) -> None:
    heads = [_head(shard) for shard in shards]
    row_type = _row_type(heads, shards)
    header = {
        "descr": np.lib.format.dtype_to_descr(row_type),
        "fortran_order": False,
        "shape": (sum(head.records for head in heads),),
    }
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for number, head in enumerate(heads):
            rows = np.zeros(head.records, row_type)
            _fill(rows, number, shards, sidecars, head.figure)
            file.write(rows.tobytes())
    with atomic_file(_digest_of(path)) as temporary:
        temporary.write_text(sha256_of(path))


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".npy.sha256")


def _is_intact(path: Path) -> bool:
    digest = _digest_of(path)
    return path.is_file() and digest.is_file() and digest.read_text() == sha256_of(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _head(path: Path) -> _Head:
    with open_h5(path) as file:
        keys, joints, pose = (piece(file, f"labels/{name}") for name in ("keys", "joints_2d", "pose_aa"))
        shape = joints.shape[1], pose.shape[1]
        figure = next((f for f in FIGURES.values() if (f.num_labels, f.pose_size) == shape), None)
        if figure is None:
            raise ValueError(f"{shape[0]} joints and {shape[1]} pose parameters are neither a body nor a hand")
        return _Head(len(keys), keys.dtype.itemsize, figure, int(read_facts(file)["image_size"]))


def _row_type(heads: Sequence[_Head], shards: Sequence[Path]) -> np.dtype:
    if len({(head.figure.labels, head.image_size) for head in heads}) > 1:
        raise MetroError(f"{shards[0].parent}: not all shards are of one kind and size, body or hand")
    fields = [(name, label.type(heads[0].figure)) for name, label in LABELS.items() if name != "keys"]
    keys = ("keys", f"S{max(head.key_size for head in heads)}")
    return np.dtype([*_PLACE, *fields, keys], align=True)


def _fill(rows: np.ndarray, number: int, shards: Sequence[Path], sidecars: Sequence[Path], figure: Figure) -> None:
    """Fill in the rows of one shard."""
    with open_h5(shards[number]) as file:
        arrays = read_arrays(file)
        blob = piece(file, BLOB)
        labels = {name: arrays[f"labels/{name}"] for name in LABELS}
        offsets, crc32 = arrays["images/offsets"], arrays["images/crc32"]
        count = len(rows)
        _check_labels(labels, count, figure)
        if blob.dtype != np.uint8 or blob.ndim != 1:
            raise ValueError("images are not bytes")
        if (offsets.dtype, offsets.shape, crc32.dtype, crc32.shape) != (np.int64, (count + 1,), np.uint32, (count,)):
            raise ValueError("images and labels differ in number")
        sizes = np.diff(offsets)
        if offsets[0] != 0 or ((sizes <= 0) | (sizes > len(blob))).any() or offsets[-1] != len(blob):
            raise ValueError("image offsets are out of order")
        rows["shard"], rows["size"], rows["crc32"] = number, sizes, crc32
        rows["start"] = (blob.id.get_offset() or 0) + offsets[:-1]
    for name in LABELS:
        rows[name] = labels[name]
    if sidecars:
        _lay_over(rows, sidecars[number], figure)


def _check_labels(labels: dict[str, np.ndarray], count: int, figure: Figure) -> None:
    """Refuse labels that no record can have.

    Raises
    ------
    ValueError
        A label has another type or shape, or is not finite, or out of its range.
    """
    for name, values in labels.items():
        label = (LABELS | FIT_LABELS)[name]
        wanted = np.dtype(f"S{values.dtype.itemsize}") if label.kind == "S" else label.type(figure)
        if (values.dtype, values.shape) != (wanted.base, (count, *wanted.shape)):
            raise ValueError(
                f"label {name} is {values.dtype} {values.shape}, not {wanted.base} {(count, *wanted.shape)}"
            )
        if values.dtype.kind == "f" and not label.may_be_nan and not np.isfinite(values).all():
            row = np.argwhere(~np.isfinite(values))[0, 0]
            raise ValueError(f"label {name} of {labels['keys'][row].decode(errors='replace')} is not finite")
        if label.words and (values >= len(label.words)).any():
            raise ValueError(f"label {name} is out of range")
    if "scale" in labels:
        area = np.linalg.det(labels["affine"][:, :, :2].astype(np.float64))
        if (labels["scale"] <= 0).any() or (area == 0).any():
            raise ValueError("a crop has no area")


def _lay_over(rows: np.ndarray, path: Path, figure: Figure) -> None:
    """Lay accepted fits over the labels of their shard."""
    with open_h5(path, "fit") as file:
        arrays = read_arrays(file)
        fits = {name: arrays[f"labels/{name}"] for name in FIT_LABELS}
        if not np.array_equal(fits["keys"], rows["keys"]):
            raise MetroError(f"{path}: fits of other records than the shard has; run the fit stage again")
        accepted = fits["accepted"]
        _check_labels({"accepted": accepted}, len(rows), figure)
        fits = {name: fits[name][accepted] for name in ("keys", *_FITTED)}
        _check_labels(fits, len(fits["keys"]), figure)
        for name in _FITTED:
            rows[name][accepted] = fits[name]
        rows["has_mesh"][accepted] = True
        rows["gender"][accepted] = GENDERS.index("neutral")  # fits are of the body of the settings
        rows["mesh_origin"][accepted] = MESH_ORIGINS.index("fit")
