"""Changes to the bytes of a file: blind ones, and those that know the format and mend its checksums."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import h5py
import numpy as np
import scipy.io
import yaml

Change = Callable[[Random, bytes], bytes]

INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**40,
    2**63 - 1,
    -(2**63),
)
ODD = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        0.5,
        -0.0,
        1e308,
        -1e308,
        1e-320,
        float("inf"),
        float("nan"),
        2**31,
        2**63,
        10**400,
    ),
    *("", "x", "ö", "none", "1", "-1", "nan", "../x", "a\nb", "\x00", "x" * 5000, "open", "../../x"),
    *([], {}, [[]], [None], {"": None}, [0, 0, 0, 0], ["a", "b"], [1e308] * 4, {"a": {"a": {"a": {}}}}),
)


def bytes_changed(words: Sequence[bytes] = ()) -> Change:
    """One to four blind changes; `words` are those of the format."""

    def change(rng: Random, data: bytes) -> bytes:
        raw = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at, length = _place(rng, len(raw)), min(rng.choice((1, 2, 4, 8, 64, 512)), len(raw))
            kind = rng.randrange(10)
            if kind <= 2 and raw:
                raw[at] ^= 1 << rng.randrange(8)
            elif kind == 3 and raw:
                raw[at] = rng.randrange(256)
            elif kind == 4:
                size = rng.choice((1, 2, 4, 8))
                number = rng.choice(INTEGERS) % (1 << 8 * size)
                raw[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
            elif kind == 5:
                del raw[at : len(raw) if rng.random() < 0.5 else at + length]
            elif kind == 6:
                raw[at:at] = raw[at : at + length] * rng.choice((1, 2, 50))
            elif kind == 7:
                other = _place(rng, len(raw))
                raw[at : at + length] = raw[other : other + length]
            elif kind == 8 and words:
                word = rng.choice(words)
                raw[at : at + (len(word) if rng.random() < 0.5 else 0)] = word
            else:
                raw[at : at + length] = rng.randbytes(length) if rng.random() < 0.5 else bytes(length)
        return bytes(raw)

    return change


def _place(rng: Random, length: int) -> int:
    """A position, often near an end, where the headers are."""
    if not length:
        return 0
    near = min(length, 300)
    return rng.choice((rng.randrange(length), rng.randrange(near), length - 1 - rng.randrange(near)))


def one_of(*changes: Change) -> Change:
    """Any of some changes."""
    return lambda rng, data: rng.choice(changes)(rng, data)


def value_changed(rng: Random, value: Any) -> Any:
    """Plain data with one to three of its parts replaced, removed, renamed, repeated or wrapped."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed(rng, value)
    return value


def _changed(rng: Random, value: Any) -> Any:
    if rng.random() < 0.75 and isinstance(value, dict | list) and value:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        kind = rng.randrange(8)
        if kind == 0:
            del copy[key]
        elif kind == 1 and isinstance(copy, dict):
            copy[rng.choice((f"{key}x", "", "x", str(key).upper()))] = copy.pop(key)
        elif kind == 2 and isinstance(copy, list):
            copy.insert(key, rng.choice(copy))
        elif kind == 3:
            copy[key] = copy[rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))]
        else:
            copy[key] = _changed(rng, copy[key])
        return copy
    kind = rng.randrange(6)
    if kind == 0:
        return [value]
    if kind == 1 and isinstance(value, int | float) and abs(value) < 2**64:
        return rng.choice((value + 1, -value, value * 1e3, float(value), str(value), value * 10**20))
    return rng.choice(ODD)


def json_changed(rng: Random, data: bytes) -> bytes:
    """A JSON file whose content is changed."""
    return json.dumps(value_changed(rng, json.loads(data))).encode()


def yaml_changed(rng: Random, data: bytes) -> bytes:
    """A YAML file whose content is changed."""
    return yaml.safe_dump(value_changed(rng, yaml.safe_load(data))).encode("utf-8", "surrogatepass")


def member_changed(change: Change, only: str = "", compression: int = zipfile.ZIP_STORED) -> Change:
    """A zip with one of its members changed (those whose name contains `only`), and its CRC right again."""

    def whole(rng: Random, data: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = rng.choice([name for name in members if only in name])
        members[name] = change(rng, members[name])
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", compression) as archive:
            for key, content in members.items():
                archive.writestr(key, content)
        return out.getvalue()

    return whole


def array_changed(rng: Random, array: np.ndarray) -> np.ndarray:
    """An array with other values, another shape or another type."""
    kind = rng.randrange(8)
    if kind <= 2 and array.size and array.dtype.kind in "iufb":
        out = array.copy()
        flat = out.reshape(-1)
        odd: tuple[Any, ...] = INTEGERS
        if array.dtype.kind == "f":
            odd = (0.0, -1.0, np.nan, np.inf, -np.inf, 1e300, 1e-300, 1e9)
        for _ in range(rng.choice((1, 1, 3, 100))):
            with np.errstate(all="ignore"):
                flat[rng.randrange(flat.size)] = np.asarray(rng.choice(odd)).astype(array.dtype)
        return out
    if kind == 3:
        names = ("f2", "f4", "f8", "i1", "i4", "i8", "u1", "u8", ">f4", ">i4", "?", "c8", "S3", "U2", "M8[s]", "g")
        with np.errstate(all="ignore"):
            try:
                return array.astype(rng.choice(names))
            except (ValueError, TypeError, RuntimeError):  # the last: a date for which there is no room
                return array.view()
    if kind == 4:
        return array.reshape(-1) if rng.random() < 0.5 else array[..., None]
    if kind == 5:
        return array[: rng.randrange(len(array) + 1)] if array.ndim else array[None]
    if kind == 6 and array.ndim:
        return np.concatenate([array, array[:1]])
    return rng.choice(
        (
            array.T,
            np.zeros(0),
            np.array(rng.choice((0, -1, 1e300, "x"))),
            np.zeros((1, 2, 3)),
            array[::-1] if array.ndim else array,
        )
    )


def arrays_changed(rng: Random, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Named arrays with one or two of them changed, lost, renamed or exchanged."""
    arrays = dict(arrays)
    for _ in range(rng.choice((1, 1, 2))):
        if not arrays:
            break
        key, other = rng.choice(list(arrays)), rng.choice(list(arrays))
        kind = rng.randrange(10)
        if kind == 0:
            del arrays[key]
        elif kind == 1:
            arrays[rng.choice((f"{key}x", "x", key.upper()))] = arrays.pop(key)
        elif kind == 2:
            arrays[key], arrays[other] = arrays[other], arrays[key]
        else:
            arrays[key] = array_changed(rng, arrays[key])
    return arrays


def npz_changed(rng: Random, data: bytes) -> bytes:
    """An npz whose arrays are changed."""
    with np.load(io.BytesIO(data)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    out = io.BytesIO()
    np.savez(out, **{name.replace("/", "_") or "_": array for name, array in arrays_changed(rng, arrays).items()})
    return out.getvalue()


def mat5_changed(rng: Random, data: bytes) -> bytes:
    """A MAT-file of version 5 with other values, shapes or types somewhere in its cells and structs."""
    content = {k: v for k, v in scipy.io.loadmat(io.BytesIO(data)).items() if not k.startswith("__")}
    name = rng.choice(list(content))
    content[name] = _cell_changed(rng, content[name])
    out = io.BytesIO()
    try:
        scipy.io.savemat(out, content)
    except (TypeError, ValueError, AttributeError, OverflowError):  # what the format has no room for
        return bytes_changed()(rng, data)
    return out.getvalue()


def _cell_changed(rng: Random, value: Any) -> Any:
    """The same with one array in it changed; cells and structs are arrays of objects, or of records of them."""
    if not isinstance(value, np.ndarray):
        return rng.choice((value, "x", np.zeros((0, 0))))
    inner = value.dtype.names or (value.dtype.kind == "O" and value.size)
    if not inner or not value.size or rng.random() < 0.2:
        return array_changed(rng, value)
    copy = value.copy()
    place = tuple(rng.randrange(size) for size in copy.shape)
    if value.dtype.names:
        field = rng.choice(value.dtype.names)
        copy[field][place] = _cell_changed(rng, copy[field][place])
    else:
        copy[place] = _cell_changed(rng, copy[place])
    return copy


def hdf5_changed(rng: Random, data: bytes) -> bytes:
    """An HDF5 file, MATLAB's among them, with one of its arrays changed or lost; references to it lead nowhere then."""
    file_bytes = io.BytesIO(data)
    with h5py.File(file_bytes, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = rng.choice(names)
        stored, attributes = file[name][...], dict(file[name].attrs)
        if stored.dtype.kind == "O":  # references
            file[name][...] = rng.choice(list(stored.ravel()))
        else:
            del file[name]
            if rng.random() < 0.9:
                other = array_changed(rng, stored)
                kept = other.dtype.kind in "iufb" and other.dtype.char != "g"
                file[name] = other if kept else stored.ravel()
                file[name].attrs.update(attributes if rng.random() < 0.8 else {})
    return file_bytes.getvalue()


HEADERS = (
    b"'descr': '|O'",
    b"(1099511627776,)",
    b"(-1,)",
    b"(4294967296, 4294967296)",
    b"'<U9999'",
    b"True",
    b"|V0",
    b"((",
)
npz_bytes = one_of(bytes_changed(), member_changed(bytes_changed(HEADERS)), npz_changed)
"""An npz changed in its bytes, in those of a member, or in its arrays."""

OPCODES = (
    *(
        b"N.",
        b"b",
        b"R",
        b"0",
        b"2",
        b"(",
        b"l",
        b"t",
        b"}",
        b"]",
        b"e",
        b"u",
        b"s",
        b"\x81",
        b"\x85",
        b"\x86",
        b"\x87",
    ),
    *(
        b"K\x00",
        b"K\xff",
        b"J\xff\xff\xff\x7f",
        b"J\xff\xff\xff\xff",
        b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
        b"I99999999999\n",
    ),
    *(
        b"h\x00",
        b"h\x01",
        b"q\x00",
        b"r\xff\xff\xff\x7f",
        b"B\xff\xff\xff\x7f",
        b"U\x01O",
        b"U\x02O8",
        b"X\x02\x00\x00\x00f8",
    ),
    *(
        b"cnumpy\nndarray\n",
        b"cnumpy\ndtype\n",
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy.core.multiarray\nscalar\n",
    ),
    *(b"cscipy.sparse.csc\ncsc_matrix\n", b"c__builtin__\nset\n", b"cchumpy.ch\nCh\n", b"ccopy_reg\n_reconstructor\n"),
    *(
        b"c_codecs\nencode\n",
        b"cos\nsystem\n",
        b"\x82\x01",
        b"P0\n",
        b"Q",
        b"\x96" + b"\xff" * 4 + bytes(4),
        b"\x97",
        b"\x98",
    ),
)


def pickle_changed(rng: Random, data: bytes) -> bytes:
    """A pickle with opcodes lost, repeated, exchanged, put in, or with another number in one."""
    ends = [place for _, _, place in pickletools.genops(data) if place is not None] + [len(data)]
    parts = [data[a:b] for a, b in pairwise(ends)]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(6)
        if kind == 0 and len(parts) > 1:
            del parts[at]
        elif kind == 1:
            parts.insert(at, parts[other])
        elif kind == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3:
            small = [k for k, part in enumerate(parts) if part[:1] in (b"K", b"M", b"J", b"\x88", b"\x89", b"N", b"U")]
            parts[rng.choice(small) if small else at] = pickle.dumps(rng.choice(INTEGERS), 2)[2:-1]
        else:
            parts.insert(at, rng.choice(OPCODES))
    return b"".join(parts)


pickle_bytes = one_of(pickle_changed, pickle_changed, bytes_changed(OPCODES))
"""A pickle changed in its opcodes or its bytes."""


def safetensors_changed(rng: Random, data: bytes) -> bytes:
    """A safetensors file with another header, or other data under the same."""
    size = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.7:
        header = json_changed(rng, header)
    else:
        body = bytes_changed()(rng, body)
    return len(header).to_bytes(8, "little") + header + body


safetensors_bytes = one_of(bytes_changed(), safetensors_changed, safetensors_changed)
"""A safetensors file changed in its bytes, its header or its data."""
