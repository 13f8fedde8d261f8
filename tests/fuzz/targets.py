"""What is fuzzed: for each reader its whole inputs, how they are changed, and what reading one gives."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import trimesh
from PIL import Image

from metro.errors import MetroError
from tests.fuzz import mutate
from tests.fuzz.mutate import Change, bytes_changed, one_of

JSON_WORDS = (
    b"null",
    b"NaN",
    b"1e999",
    b"-1",
    b'""',
    b"{}",
    b"[]",
    b"[" * 3000,
    b'"\\ud800"',
    b"\xff",
    b"9" * 5000,
    b",",
    b'"',
)
YAML_WORDS = (
    *(
        b"!!int x",
        b"!!float x",
        b"!!timestamp x",
        b"!!binary x",
        b"!!python/object:os.system x",
        b"!!set {}",
        b"&a ",
        b"*a",
    ),
    *(
        b"<<: *a",
        b".nan",
        b".inf",
        b"0x" + b"f" * 4000,
        b"\xff",
        b"\x00",
        b"\t",
        b"[",
        b"{" * 500,
        b"? ",
        b"- ",
        b"---\n",
        b"%TAG",
    ),
    *(b"'", b'"', b"|\n", b"\n", b": ", b"~", b"=", b"1:60", b"2001-99-99", b"null"),
)


@dataclass(frozen=True)
class Target:
    """One reader."""

    name: str
    file: str
    """File that is changed."""
    prepare: Callable[[Path], list[bytes]]
    """Furnishes a folder with the other files; returns contents to change."""
    change: Change
    read: Callable[[Path], Any]
    """Reads the file; what it returns is compared with what the unchanged content gave."""
    digested: bool = False
    """Whether a changed file must be refused, or read as before."""
    finish: Callable[[Path], None] | None = None
    """Done after the file is written: mends checksums in other files."""


def fingerprint(value: Any) -> str:
    """A digest of nested data, arrays, tensors and dataclasses."""
    sha = hashlib.blake2b(digest_size=16)

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            part = part.detach().float().numpy() if part.dtype == torch.bfloat16 else part.detach().numpy()
        if sp.issparse(part):
            part = part.tocoo()
            part = [part.shape, part.row, part.col, part.data]
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype} {part.shape}".encode())
            sha.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, Mapping):
            for key in sorted(part, key=repr):
                sha.update(repr(key).encode("utf-8", "replace"))
                add(part[key])
        elif isinstance(part, list | tuple):
            sha.update(b"[")
            for item in part:
                add(item)
        elif is_dataclass(part) and not isinstance(part, type):
            add([getattr(part, field.name) for field in fields(part)])
        else:
            sha.update(repr(part).encode("utf-8", "replace"))

    add(value)
    return sha.hexdigest()


# ------------------------------------------------------------------------------------------------------ pictures


def _pictures(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 255, (24, 31, 3), np.uint8))
    made = []
    for form, image in (
        ("PNG", colour),
        ("PNG", colour.convert("P")),
        ("PNG", colour.convert("LA")),
        ("PNG", colour.convert("I;16")),
        ("JPEG", colour),
        ("JPEG", colour.convert("CMYK")),
        ("WEBP", colour.convert("RGBA")),
        ("TIFF", colour),
        ("TIFF", colour.convert("F")),
        ("BMP", colour),
        ("GIF", colour.convert("P")),
    ):
        stream = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(stream, form, **({"exif": exif} if form in ("JPEG", "WEBP") else {}))
        made.append(stream.getvalue())
    return made


def _read_picture(path: Path) -> Any:
    from metro.export.predictor import read_image

    return read_image(path)


CROP = {"image": [40, 30], "center": [10.5, 20.0], "scale": 0.2, "box_px": 64, "margin": 1.5}


def _read_crop(path: Path) -> Any:
    """Odd numbers in the place of good ones; a shape that is none is a fault of the caller."""
    from metro.data.crop import cut

    given = _named(path)
    try:
        center = [float(x) for x in given["center"]][:2]
        scale, width, height = float(given["scale"]), int(given["image"][0]), int(given["image"][1])
    except (ValueError, TypeError, KeyError, IndexError, OverflowError):
        raise MetroError("not numbers") from None
    if len(center) != 2 or not (0 < width < 500 and 0 < height < 500):
        raise MetroError("no picture")
    return cut(np.full((height, width, 3), 99, np.uint8), np.array(center), scale, 64, 1.5)


def _named(path: Path) -> dict[str, Any]:
    """What this harness keeps as JSON for readers of other things."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise MetroError("not what the reader is given")
    return content


def _values(content: Any) -> Callable[[Path], list[bytes]]:
    return lambda folder: [json.dumps(content).encode()]


# ------------------------------------------------------------------------------------------------------- weights


def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {**torch.nn.Linear(3, 2).state_dict(), "half": torch.ones(3).half(), "count": torch.tensor(3)}


def _saved(folder: Path) -> list[bytes]:
    made = []
    for content in (_state(), {"state_dict": _state(), "epoch": 3}, {f"module.{k}": v for k, v in _state().items()}):
        for zipped in (True, False):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=zipped)
            made.append(stream.getvalue())
    return made


def _read_saved(path: Path) -> Any:
    from metro.model.official import describe
    from metro.model.tensors import load_tensors

    state = load_tensors(path)
    with contextlib.suppress(MetroError):  # what is read here is no METRO network
        describe(state)
    return state


_saved_bytes = bytes_changed(mutate.OPCODES)


def _saved_changed(rng: Random, data: bytes) -> bytes:
    zipped = data[:2] == b"PK" and rng.random() < 0.7
    member = one_of(mutate.member_changed(mutate.pickle_bytes, "data.pkl"), mutate.member_changed(_saved_bytes))
    return (member if zipped else _saved_bytes)(rng, data)


def _official(folder: Path) -> list[bytes]:
    from metro.model.metro import build_model
    from metro.model.official import DEAD, to_official

    body, levels, config = _hand()
    block = {"layers": 1, "heads": 4, "ffn": 32}
    config = config.model_validate(
        config.model_dump()
        | {
            "backbone": "resnet18",
            "upsampling": "learned",
            "token_source": "pooled",
            "camera_from": "all",
            "image_size": 64,
        }
        | {"blocks": [{"width": 16, "out": 8, **block}, {"width": 8, "out": 3, **block}]}
    )
    state = to_official(build_model(config, body, levels))
    return [json.dumps({key: list(value.shape) for key, value in state.items() if not DEAD.match(key)}).encode()]


def _read_official(path: Path) -> Any:
    """Names and shapes of an official state dict; a tensor of any size takes no memory."""
    from metro.model.official import convert

    state = {}
    for key, shape in _named(path).items():
        try:
            state[key] = torch.zeros((), dtype=torch.long if "num_batches" in key else None).expand(shape)
        except (TypeError, RuntimeError, ValueError, OverflowError):
            state[key] = torch.zeros(2)
    return convert(state)[0]


def _hand() -> tuple[Any, Any, Any]:
    from metro.body.load import load_body
    from tests.conftest import nearest_levels, small_model

    body = load_body("open_hand")
    return body, nearest_levels(body.v_template, (50,)), small_model(hand=True)


def _sphere() -> tuple[np.ndarray, np.ndarray, Any]:
    from metro.mesh.sampling import build_sampling

    mesh = trimesh.creation.icosphere(1)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    return vertices, faces, build_sampling(vertices, faces, (21, 9))


def _checkpoint(name: str) -> Callable[[Path], list[bytes]]:
    def prepare(folder: Path) -> list[bytes]:
        from metro.config import ModelConfig, Params
        from metro.training.checkpoint import save_checkpoint

        save_checkpoint(
            folder / "c",
            _state(),
            params=Params(model=ModelConfig(image_size=96)),
            step=3,
            metrics={"mpjpe": 1.5},
            body_digest="b" * 64,
            levels=_sphere()[2],
            training_state={"weights": _state(), "step": 3},
        )
        return [(folder / "c" / name).read_bytes()]

    return prepare


def _sums_mended(meta: str) -> Callable[[Path], None]:
    def finish(path: Path) -> None:
        from metro.files import sha256_of

        content = json.loads((path.parent / meta).read_text())
        content["sha256"][path.name] = sha256_of(path)
        (path.parent / meta).write_text(json.dumps(content))

    return finish


def _read_checkpoint(path: Path) -> Any:
    from metro.training.checkpoint import load_checkpoint

    found = load_checkpoint(path.parent)
    if path.name == "model.safetensors":
        return found.weights()
    if path.name == "levels.npz":
        return found.levels
    if path.name == "training.pt":
        return found.training_state()
    return [found.params, found.step, found.metrics, found.body_digest, found.sha256]


def _bundle(name: str) -> Callable[[Path], list[bytes]]:
    def prepare(folder: Path) -> list[bytes]:
        _write_bundle(folder / "b")
        return [(folder / "b" / name).read_bytes()]

    return prepare


def _write_bundle(folder: Path) -> None:
    from metro.export.bundle import bundle_of, write_bundle
    from metro.model.metro import build_model

    body, levels, config = _hand()
    torch.manual_seed(0)
    write_bundle(folder, bundle_of(build_model(config, body, levels), body, levels))


def _read_bundle(path: Path) -> Any:
    from metro.export.bundle import load_bundle

    found = load_bundle(path.parent)
    return [found.model.state_dict(), found.faces_F3, found.levels, found.regressor, found.meta["joint_names"]]


# ---------------------------------------------------------------------------------------------- bodies and levels


def _mano() -> dict[str, Any]:
    from metro.body.load import load_body

    source = load_body("open_hand")
    return {
        "v_template": source.v_template,
        "shapedirs": source.shapedirs.astype(np.float16),
        "posedirs": source.posedirs.astype(np.float16),
        "weights": source.weights,
        "J_regressor": source.J_regressor,
        "kintree_table": np.array([source.parents, range(16)]).astype(np.uint32),
        "f": source.faces.astype(np.uint32),
        "hands_mean": source.hands_mean,
        "hands_components": source.hands_components,
    }


def _licensed_pickles(folder: Path) -> list[bytes]:
    content = _mano() | {
        "J_regressor": sp.csc_matrix(_mano()["J_regressor"]),
        "bs_type": "lrotmin",
        "about": {"n": [1, 2.5, None]},
    }
    return [pickle.dumps(content, protocol) for protocol in (0, 2, 4, 5)]


def _small_pickles(folder: Path) -> list[bytes]:
    content = {
        "a": np.arange(6.0).reshape(2, 3),
        "o": np.array([1, None, "x"], object),
        "s": np.array(["a", "bc"]),
        "n": np.float64(1.5),
        "csc": sp.csc_matrix(np.eye(4)),
        "csr": sp.csr_matrix(np.eye(3)),
        "coo": sp.coo_matrix(np.eye(2)),
        "set": {1, 2},
        "i": 10**30,
    }
    return [pickle.dumps(content, protocol) for protocol in (0, 2, 4, 5)]


def _read_small_pickle(path: Path) -> Any:
    from metro.body.pickles import plain, read_pickle
    from metro.files import readable

    content = read_pickle(path)
    with readable(path, "get it again"):
        return {str(key): plain(value) for key, value in content.items()} if isinstance(content, dict) else None


def _read_licensed(path: Path) -> Any:
    from metro.body.arrays import digest
    from metro.body.convert import read_licensed
    from metro.body.model import BodyModel

    body = read_licensed(path)
    BodyModel(body)
    return digest(body)


def _licensed_npz(folder: Path) -> list[bytes]:
    stream = io.BytesIO()
    np.savez(stream, **_mano())
    return [stream.getvalue()]


def _body_npz(folder: Path) -> list[bytes]:
    from metro.body.arrays import save_body
    from metro.body.load import load_body

    save_body(load_body("open_hand"), folder / "body.npz")
    return [(folder / "body.npz").read_bytes()]


def _read_body(path: Path) -> Any:
    from metro.body.arrays import digest, read_npz
    from metro.body.model import BodyModel

    body = read_npz(path)
    BodyModel(body)
    return digest(body)


def _published(folder: Path) -> list[bytes]:
    _, faces, levels = _sphere()
    sizes = [level.up.shape[0] for level in levels]

    def objects(items: list[Any]) -> np.ndarray:
        array = np.empty(len(items), object)
        array[:] = items
        return array

    down = [
        sp.csc_matrix((np.ones(len(x.indices)), (np.arange(len(x.indices)), x.indices)), (len(x.indices), n))
        for x, n in zip(levels, sizes, strict=True)
    ]
    made = []
    for kind in (sp.coo_matrix, sp.csc_matrix, sp.csr_matrix):
        stream = io.BytesIO()
        up, all_faces = (
            [kind(level.up) for level in levels],
            [faces.astype(np.uint32), *(level.faces for level in levels)],
        )
        np.savez(stream, D=objects(down), U=objects(up), F=objects(all_faces))
        made.append(stream.getvalue())
    return made


def _npy_pickle(rng: Random, member: bytes) -> bytes:
    """The pickle behind the header of an npy."""
    start = 10 + int.from_bytes(member[8:10], "little")
    return member[:start] + mutate.pickle_bytes(rng, member[start:])


def _read_published(path: Path) -> Any:
    from metro.mesh.legacy import load_legacy
    from metro.mesh.sampling import compose_up

    levels = load_legacy(path, _faces())
    compose_up(levels)
    return levels


def _faces() -> np.ndarray:
    return np.asarray(trimesh.creation.icosphere(1).faces)


def _sampling(folder: Path) -> list[bytes]:
    from metro.mesh.sampling import save_sampling

    save_sampling(folder / "sampling.npz", _sphere()[2], {"body": "b" * 64})
    return [(folder / "sampling.npz").read_bytes()]


def _read_sampling(path: Path) -> Any:
    from metro.mesh.sampling import compose_indices, compose_up, load_sampling

    levels = load_sampling(path)
    return [levels, compose_indices(levels), compose_up(levels), [level.edges for level in levels]]


def _mean_poses(folder: Path) -> list[bytes]:
    from metro.evaluation.baselines import Baselines

    mesh = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    Baselines(mesh, -mesh, 5, "made up").save(folder / "mean_poses.npz")
    return [(folder / "mean_poses.npz").read_bytes()]


def _result(name: str) -> Callable[[Path], list[bytes]]:
    def prepare(folder: Path) -> list[bytes]:
        _three_people().write(folder / "r")
        return [(folder / "r" / name).read_bytes()]

    return prepare


def _three_people() -> Any:
    from metro.config import EvaluateConfig
    from metro.evaluation.evaluate import Result
    from metro.evaluation.measure import Samples
    from metro.evaluation.protocols import PROTOCOLS
    from metro.evaluation.summary import summarise

    protocol, errors = PROTOCOLS["h36m-p2"], np.array([0.1, 0.2, np.nan])
    joints = {name: np.tile(errors[:, None], 14) for name in ("mpjpe", "pa_mpjpe")}
    attributes = {"heading": np.array([0.0, 90.0, 180.0]), "inside": np.ones(3), "distance": np.full(3, 4.0)}
    values = dict.fromkeys(protocol.metrics, errors)
    samples = Samples(np.arange(3), values, joints, attributes, {}, np.ones((3, 3)))
    data = {"records": "d" * 64, "body": "open"}
    summary = summarise(samples, protocol, EvaluateConfig(bootstrap=5), keys=[b"a", b"b", b"c"], data=data)
    return Result(protocol, samples, summary)


def _read_result(path: Path) -> Any:
    from metro.evaluation.compare import compare, table
    from metro.evaluation.evaluate import Result

    found = compare(_three_people(), Result.read(path.parent), resamples=100, keys=["a", "b", "c"])
    return table(found.summary)


def _read_mean_poses(path: Path) -> Any:
    from metro.evaluation.baselines import Baselines

    return Baselines.load(path)


# ------------------------------------------------------------------------------------------------------ parameters


def _params(folder: Path) -> list[bytes]:
    text = "preset: open\nbody: {kind: open}\ndatasets:\n  a: {split: train}\n  b:\n    split: test\n"
    text += "train:\n  lr: 1.0e-3\n  clip: null\n"
    alias = "datasets:\n  a: &set {split: train, shard_size: 9}\n  b: *set\n  c: {<<: *set, shard_size: 8}\n"
    return [text.encode(), alias.encode(), b"# nothing\nattention: {samples: 4}\n"]


def _read_params(path: Path) -> Any:
    from metro.config import load_params

    return load_params(path).model_dump(mode="json")


def _all_params(folder: Path) -> list[bytes]:
    from metro.config import load_params
    from metro.presets import resolve

    return [
        json.dumps(load_params(resolve(name)).model_dump(mode="json")).encode()
        for name in ("open", "debug", "paper-hand")
    ]


def _read_values(path: Path) -> Any:
    from metro.config import load_params

    return load_params(_named(path)).model_dump(mode="json")


# ------------------------------------------------------------------------------------------------------------ sets


def _set(name: str) -> Callable[[Path], list[bytes]]:
    def prepare(folder: Path) -> list[bytes]:
        _write_set(folder)
        return [(folder / name).read_bytes()]

    return prepare


def _write_set(folder: Path) -> None:
    from metro.body.load import load_body
    from metro.body.model import BodyModel
    from metro.data.shards import SCHEMA, ShardDataset, write_fits
    from metro.data.verify import statistics
    from metro.files import sha256_of
    from tests.conftest import write_people

    body = load_body("open_hand")
    path = folder / "shards" / "shard-00000.h5"
    write_people(path, body, BodyModel(body), 4)
    labels = ShardDataset([path]).labels
    fits = {name: labels[name] for name in ("keys", "pose_aa", "betas")}
    fits |= {
        "transl": np.ones((4, 3), np.float32),
        "fit_error": np.full(4, 0.01, np.float32),
        "accepted": np.ones(4, bool),
    }
    write_fits(folder / "fits", path.name, fits)
    entry = {"file": path.name, "count": 4, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    params = {"body": {"kind": "open_hand"}}
    content = {
        "schema": SCHEMA,
        "name": "x",
        "source": "made",
        "licence": "CC0",
        "count": 4,
        "params": params,
        "shards": [entry],
    }
    content |= {"skipped": 0, "skipped_first": [], "statistics": statistics(ShardDataset([path]))}
    (folder / "shards" / "manifest.json").write_text(json.dumps(content))


def _h5_changed(rng: Random, data: bytes) -> bytes:
    """An HDF5 file of ours with other arrays, and the digest of those."""
    import tempfile

    import h5py

    from metro.data.hdf5 import ABOUT, write_h5

    with h5py.File(io.BytesIO(data)) as file:
        arrays = {f"{group}/{name}": file[group][name][...] for group in file for name in file[group]}
    facts = json.loads(arrays.pop(ABOUT).tobytes())
    del facts["digest"]
    arrays = mutate.arrays_changed(rng, arrays)
    if rng.random() < 0.2 and facts:
        facts[rng.choice(list(facts))] = rng.choice((0, -1, 2**40, 0.5, "x", "", [0, 0, 0], [], None, {}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        kept = {name: a for name, a in arrays.items() if a.dtype.kind not in "UM" and a.dtype.char != "g"}
        write_h5(path, {name.strip("/") or "x": a for name, a in kept.items()}, facts)
        return path.read_bytes()


def _read_shard(path: Path) -> Any:
    from metro.data.shards import ShardDataset

    dataset = ShardDataset([path])
    for index in range(len(dataset)):
        with contextlib.suppress(MetroError):  # a picture that is corrupt is met when it is used
            dataset.image(index)
    return dataset.labels


def _read_fits(path: Path) -> Any:
    from metro.data.shards import ShardDataset

    return ShardDataset([path.parent.parent / "shards" / "shard-00000.h5"], path.parent).labels


def _read_manifest(path: Path) -> Any:
    from metro.data.shards import ShardDataset
    from metro.data.verify import verify

    dataset = ShardDataset(path.parent)
    return [dataset.labels, verify(path.parent)]


def _stage_json(path: Path) -> Any:
    from pipeline import stage

    return stage.read_json(path, "train")


# -------------------------------------------------------------------------------------------------------- raw sets


@dataclass(frozen=True)
class RawSet:
    """A fixture, of which one of some files is changed: an input is the name of that file, and what it holds now."""

    source: str
    dialect: str
    split: str
    """As `truth.json` calls it."""
    changes: Mapping[str, Change]
    """By path."""

    def prepare(self, folder: Path) -> list[bytes]:
        """Write the fixture."""
        from metro import fixtures

        fixtures.write(self.source, folder / "raw", dialect=self.dialect)
        return [b"%s\n%s" % (name.encode(), (folder / "raw" / name).read_bytes()) for name in self.changes]

    def change(self, rng: Random, data: bytes) -> bytes:
        """Change the content as is usual for the file."""
        name, _, content = data.partition(b"\n")
        return name + b"\n" + self.changes[name.decode()](rng, content)

    def read(self, path: Path) -> Any:
        """Records of the set with that file in the place of the whole one."""
        name, _, content = path.read_bytes().partition(b"\n")
        raw = path.parent / "raw"
        place = raw / name.decode()
        whole = place.read_bytes()
        place.write_bytes(content)
        try:
            return self._records(raw)
        finally:
            place.write_bytes(whole)

    def _records(self, raw: Path) -> list[Any]:
        """What becomes of a set, as `prepare` goes about it, but for the pictures: survey, index, records."""
        from metro import sources
        from metro.body.figure import figure_of
        from metro.config import BodyConfig, DatasetConfig
        from metro.data.records import BadRecord, Record
        from metro.sources.prepare import check
        from metro.sources.source import Row

        truth = json.loads((raw / "truth.json").read_text())
        given = {key: truth["splits"][self.split][key] for key in ("split", "supervision", "options")}
        config = DatasetConfig.model_validate({"source": self.source, "root": raw, **given})
        body = BodyConfig(kind=truth["parameters"])
        adapter = sources.adapter(self.source)
        check(config, body, adapter.survey(config, body))
        rows, found = [], []
        for row in adapter.rows(config, body):
            if isinstance(row, Row):
                rows.append(Row(*json.loads(json.dumps(row))))
            else:
                found.append(row)
        for record in adapter.read(config, body, rows):
            if isinstance(record, Record):
                try:
                    record.check(figure_of(body.kind))
                    record.crop_square()
                    record.name.encode()
                except MetroError as err:
                    record = BadRecord(record.name, str(err))
            found.append(record)
        for said in found:
            words = f"{said.name}: {said.problem}" if isinstance(said, BadRecord) else ""
            assert words.isprintable(), f"not one line: {words!r}"
        return found


TEXT_WORDS = (
    b"nan",
    b"inf",
    b"1e999",
    b"-1",
    b"\xff",
    b"\x00",
    b"9" * 400,
    b"\t",
    b"\n",
    b",",
    b" ",
    b"\r\n",
    b"x",
    b"",
)
XML_WORDS = (
    b"<a>" * 2000,
    b"]>",
    b"<!ENTITY a 'b'>",
    b"&a;",
    b"&#0;",
    b"<tr/>",
    b"<td></td>",
    b"[1 2; 3 4]",
    *TEXT_WORDS,
)
_json = one_of(mutate.json_changed, mutate.json_changed, bytes_changed(JSON_WORDS))
_text = bytes_changed(TEXT_WORDS)
_mat5 = one_of(bytes_changed(), mutate.mat5_changed, mutate.mat5_changed)
_hdf5 = one_of(bytes_changed(), mutate.hdf5_changed, mutate.hdf5_changed)
_cdf = bytes_changed()


def _python2_changed(rng: Random, data: bytes) -> bytes:
    """A pickle of Python 2, whose opcodes `pickletools` cannot read, written again by Python 3 and changed."""
    return mutate.pickle_bytes(rng, pickle.dumps(pickle.loads(data, encoding="latin1"), 0))


def _lines_changed(rng: Random, data: bytes) -> bytes:
    """TSV with one of its JSON cells changed, where the line keeps its length or not."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    key, tab, cell = lines[at].partition(b"\t")
    if tab:
        lines[at] = key + tab + mutate.json_changed(rng, cell).ljust(len(cell))
    return b"\n".join(lines)


RAW_SETS = {
    "3DPW's pickles": RawSet(
        "pw3d", "pickles", "train", {"sequenceFiles/train/courtyard_made_00.pkl": mutate.pickle_bytes}
    ),
    "3DPW's JSON": RawSet("pw3d", "json", "train_json", {"3DPW_train.json": _json}),
    "UP-3D": RawSet(
        "up3d",
        "folder",
        "train",
        {
            "00001_body.pkl": one_of(bytes_changed(mutate.OPCODES), _python2_changed),
            "00001_joints.npy": bytes_changed(mutate.HEADERS),
            "00001_fit_crop_info.txt": _text,
            "train.txt": _text,
        },
    ),
    "MuCo-3DHP's JSON": RawSet("muco", "release", "all", {"data/MuCo-3DHP.json": _json, "data/smpl_param.json": _json}),
    "MuCo-3DHP's composites": RawSet(
        "muco",
        "generated",
        "all",
        {"sampled_dataset_info.mat": _hdf5, "unaugmented_set_001/chunk_00001_annot.mat": _mat5},
    ),
    "MPI-INF-3DHP": RawSet(
        "mpi_inf_3dhp",
        "videos and frames",
        "some cameras",
        {"S1/Seq1/annot.mat": _mat5, "S2/Seq1/annot.mat": _hdf5, "S1/Seq1/camera.calibration": _text},
    ),
    "Human3.6M": RawSet(
        "h36m",
        "frames_mmpose",
        "p2_graphcmr",
        {
            "metadata.xml": bytes_changed(XML_WORDS),
            "annotations/Human36M_subject9_smpl_param.json": _json,
            "S9/MyPoseFeatures/D2_Positions/Greeting.60457274.cdf": _cdf,
            "S9/MyPoseFeatures/D3_Positions_mono/Greeting.60457274.cdf": _cdf,
        },
    ),
    "MPII's MAT-file": RawSet("mpii", "mat", "train 1", {"mpii_human_pose_v1_u12_1.mat": _mat5}),
    "MPII's HDF5": RawSet("mpii", "h5", "train 1", {"annot/train.h5": _hdf5}),
    "MPII's JSON": RawSet("mpii", "json", "train 1", {"annot/train.json": _json}),
    "COCO": RawSet(
        "coco",
        "2017",
        "train fits",
        {"annotations/person_keypoints_train2017.json": _json, "annotations/coco_smplify_train.json": _json},
    ),
    "FreiHAND": RawSet(
        "freihand",
        "public",
        "training 4",
        {f"training_{name}.json": _json for name in ("K", "mano", "xyz", "scale")},
    ),
    "METRO's TSV": RawSet(
        "metro_tsv",
        "composite",
        "train.yaml",
        {
            "train.yaml": one_of(bytes_changed(YAML_WORDS), mutate.yaml_changed),
            "train.linelist.tsv": _text,
            "first/train.label.tsv": one_of(_text, _lines_changed, _lines_changed),
            "first/train.label.lineidx": _text,
            "first/train.hw.tsv": _text,
        },
    ),
    "own JSON": RawSet("own", "json", "train", {"people.json": _json}),
    "own CSV": RawSet("own", "csv", "train", {"people.csv": _text}),
}


def _mosh(folder: Path) -> list[bytes]:
    content = {"new_poses": np.random.default_rng(0).normal(0, 0.3, (4, 72)), "betas": np.zeros(10), "other": [1, "x"]}
    return [pickle.dumps(content, protocol) for protocol in (0, 2)]


def _read_mosh(path: Path) -> Any:
    from metro.sources.h36m_files import read_mosh

    return read_mosh(path, [0, 5, 10, 99])


# ------------------------------------------------------------------------------------------- what a user types


def _read_box_string(path: Path) -> Any:
    from metro.cli.export import _boxes
    from metro.export.predictor import box_table as checked

    words = path.read_bytes().decode("utf-8", "replace")
    return checked(_boxes([Path("a.png")], words, None)[0], "a.png")


def _read_boxes_file(path: Path) -> Any:
    from metro.cli.export import _boxes
    from metro.export.predictor import box_table as checked

    return [checked(boxes, "x") for boxes in _boxes([Path("a.png"), Path("x/b.png")], None, path)]


def _photo_labels(folder: Path) -> list[bytes]:
    person = [number for k in range(17) for number in (40 + k, 60 + 2 * k, k % 3)]
    people = [{"id": k, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [30, 50.5, 40, 60], "keypoints": person}
              for k in range(3)]  # fmt: skip
    image = {"id": 7, "file_name": "a.png", "width": 120, "height": 160}
    labels = {"images": [image], "annotations": people}
    return [json.dumps(labels).encode(), json.dumps(dict(reversed(labels.items()))).encode()]


def _read_photo_labels(path: Path) -> Any:
    from metro.evaluation.photo_labels import read_labels

    return read_labels(path)


BOXES = (
    {"a.png": [[1, 2, 30, 40], [5.5, 6, 7, 8]], "b.png": [[1, 2, 3, 4]]},
    {"a.png": [1, 2, 3, 4], "x/b.png": [[1, 2, 3, 4]]},
)

COMMANDS = (
    "predict a.png --model bundle --box 1,2,20,20 --out out --batch-size 2",
    "predict a.png b.png --model bundle --boxes boxes.json --vertices",
    "data show shards --count 2 --out sheet.png",
    "data stats shards --fits fits",
    "data unpack coco --raw raw",
    "data doctor synthetic --raw raw --option count=3",
    "data verify shards --fits fits",
    "evaluate shards --model bundle --limit 2 --batch-size 2 --bootstrap 10 --cases 1 --out ev --protocol freihand",
    "body info --kind open_hand --gender neutral",
    "body convert body.npz new.npz --gender neutral --overwrite",
    "body render poses.png --kind open_hand --size 40",
    "mesh info sampling.npz --kind open_hand",
    "checkpoint info c",
    "checkpoint release c released",
    "preset apply open --params p.yaml --merge",
    "preset show debug --resolved",
    "preset list",
    "protocols",
    "data sources",
    "export --model bundle --out exported --no-onnx --no-torch-export",
)
WORDS = (
    *(
        "-1",
        "0",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "1,2,3",
        "1,2,3,1e308",
        "-5,-5,9,9",
        "1,2,-3,4",
        "a",
        "",
        " ",
        "\n",
        "ö",
        "\udcff",
        "--",
        "-",
    ),
    *(
        "missing.file",
        "text.txt",
        "shards",
        "bundle",
        "empty",
        "empty/x",
        "text.txt/x",
        "x" * 300,
        "/proc/x",
        ".",
        "9" * 400,
        "true",
    ),
    *(
        "--out",
        "--model",
        "--box",
        "--boxes",
        "--count",
        "--limit",
        "--help",
        "--unknown",
        "--no-vertices",
        "open",
        "open_hand",
    ),
)


def _commands(folder: Path) -> list[bytes]:
    from metro.mesh.sampling import save_sampling

    here = folder / "deep" / "inside" / "here"  # a path that climbs stays within the folder
    (here / "empty").mkdir(parents=True)
    _write_bundle(here / "bundle")
    _write_set(here)
    _checkpoint("checkpoint.json")(here)
    _body_npz(here)
    save_sampling(here / "sampling.npz", _hand()[1])
    for name, picture in zip(("a.png", "b.png"), _pictures(here), strict=False):
        (here / name).write_bytes(picture)
    (here / "boxes.json").write_text(json.dumps(BOXES[0]))
    (here / "raw").mkdir()
    with zipfile.ZipFile(here / "raw/annotations_trainval2017.zip", "w") as archive:
        archive.writestr("annotations/person_keypoints_val2017.json", "{}")
    (here / "text.txt").write_text("words")
    (here / "p.yaml").write_text("preset: open")
    return [json.dumps(line.split()).encode() for line in COMMANDS]


def _command_changed(rng: Random, data: bytes) -> bytes:
    words = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(words))
        kind = rng.randrange(5)
        if kind <= 2:
            words[at] = rng.choice(WORDS)
        elif kind == 3:
            words.insert(at, rng.choice(WORDS))
        elif len(words) > 1:
            del words[at]
    return json.dumps(words).encode()


def _read_command(path: Path) -> Any:
    """Run a command line in this process: status 0, or 2 with one line."""
    from metro.cli.app import main

    words = json.loads(path.read_text())
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(path.parent / "deep" / "inside" / "here")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
    finally:
        os.chdir(before)
    if status == 2 and err.getvalue():
        raise MetroError(err.getvalue().removesuffix("\n"))
    assert status == 0 or (status == 2 and out.getvalue()), (status, err.getvalue())
    return status


def _read_environment(path: Path) -> Any:
    from pipeline.environment import environment

    given = {name: str(value) for name, value in _named(path).items() if name and "=" not in name}
    before = dict(os.environ)
    try:
        for name, value in given.items():
            with contextlib.suppress(ValueError, UnicodeError):  # what no environment can hold
                os.environ[name] = value
        return tuple(environment())
    finally:
        os.environ.clear()
        os.environ.update(before)


ENVIRONMENT = {
    "METRO_TRACKING": "off",
    "METRO_DASK": "tcp://localhost:1",
    "MLFLOW_TRACKING_URI": "",
    "MLFLOW_PORT": "5000",
    "PREFECT_PORT": "4200",
    "RANK": "0",
    "LOCAL_RANK": "1",
    "DVC_STAGE": "train",
    "DVC_ROOT": ".",
    "PREFECT_FLOW_RUN_ID": "x",
}

_weights, _geometry = "c/model.safetensors", "b/geometry.safetensors"
_h5 = one_of(bytes_changed(), bytes_changed(), _h5_changed)
_published_changed = one_of(
    bytes_changed(),
    *[mutate.member_changed(_npy_pickle, key) for key in "DUF"],
    mutate.member_changed(bytes_changed(mutate.HEADERS)),
)

TARGETS = {
    target.name: target
    for target in (
        Target("pictures", "x", _pictures, bytes_changed(), _read_picture),
        Target("crop numbers", "x.json", _values(CROP), mutate.json_changed, _read_crop),
        Target("weights of others (.bin)", "x.bin", _saved, _saved_changed, _read_saved),
        Target("official names and shapes", "x.json", _official, mutate.json_changed, _read_official),
        Target(
            "checkpoint weights",
            _weights,
            _checkpoint("model.safetensors"),
            mutate.safetensors_bytes,
            _read_checkpoint,
            True,
        ),
        Target(
            "checkpoint weights, sum mended",
            _weights,
            _checkpoint("model.safetensors"),
            mutate.safetensors_bytes,
            _read_checkpoint,
            finish=_sums_mended("checkpoint.json"),
        ),
        Target("checkpoint.json", "c/checkpoint.json", _checkpoint("checkpoint.json"), _json, _read_checkpoint),
        Target("levels.npz", "c/levels.npz", _checkpoint("levels.npz"), mutate.npz_bytes, _read_checkpoint, True),
        Target(
            "levels.npz, sum mended",
            "c/levels.npz",
            _checkpoint("levels.npz"),
            mutate.npz_bytes,
            _read_checkpoint,
            finish=_sums_mended("checkpoint.json"),
        ),
        Target(
            "training.pt, sum mended",
            "c/training.pt",
            _checkpoint("training.pt"),
            _saved_changed,
            _read_checkpoint,
            finish=_sums_mended("checkpoint.json"),
        ),
        Target("result.json", "r/result.json", _result("result.json"), _json, _read_result),
        Target("samples.npz", "r/samples.npz", _result("samples.npz"), mutate.npz_bytes, _read_result),
        Target("bundle.json", "b/bundle.json", _bundle("bundle.json"), _json, _read_bundle),
        Target(
            "bundle geometry", _geometry, _bundle("geometry.safetensors"), mutate.safetensors_bytes, _read_bundle, True
        ),
        Target(
            "bundle geometry, sum mended",
            _geometry,
            _bundle("geometry.safetensors"),
            mutate.safetensors_bytes,
            _read_bundle,
            finish=_sums_mended("bundle.json"),
        ),
        Target(
            "bundle weights, sum mended",
            "b/model.safetensors",
            _bundle("model.safetensors"),
            mutate.safetensors_bytes,
            _read_bundle,
            finish=_sums_mended("bundle.json"),
        ),
        Target("pickles", "x.pkl", _small_pickles, mutate.pickle_bytes, _read_small_pickle),
        Target("licensed pickles", "MANO_RIGHT.pkl", _licensed_pickles, mutate.pickle_bytes, _read_licensed),
        Target("licensed npz", "MANO_RIGHT.npz", _licensed_npz, mutate.npz_bytes, _read_licensed),
        Target("published levels", "mesh.npz", _published, _published_changed, _read_published),
        Target("sampling.npz", "sampling.npz", _sampling, mutate.npz_bytes, _read_sampling),
        Target("body.npz", "body.npz", _body_npz, mutate.npz_bytes, _read_body),
        Target("mean_poses.npz", "mean_poses.npz", _mean_poses, mutate.npz_bytes, _read_mean_poses),
        Target(
            "params.yaml", "params.yaml", _params, one_of(bytes_changed(YAML_WORDS), mutate.yaml_changed), _read_params
        ),
        Target("params, every value", "params.json", _all_params, mutate.json_changed, _read_values),
        Target(
            "box strings",
            "x.txt",
            lambda folder: [b"1,2,30,40", b"1,2,3,4;5,6,7.5,8"],
            bytes_changed((b",", b";", b"-", b"e308", b"nan", b"inf", b"1e999", b" ", b"\xff", b"9" * 400)),
            _read_box_string,
        ),
        Target(
            "boxes files", "boxes.json", lambda folder: [json.dumps(b).encode() for b in BOXES], _json, _read_boxes_file
        ),
        Target("photo labels", "people.json", _photo_labels, _json, _read_photo_labels),
        Target("shards", "shards/shard-00000.h5", _set("shards/shard-00000.h5"), bytes_changed(), _read_shard, True),
        Target(
            "shards, digest mended", "shards/shard-00000.h5", _set("shards/shard-00000.h5"), _h5_changed, _read_shard
        ),
        Target("fits", "fits/fit-00000.h5", _set("fits/fit-00000.h5"), bytes_changed(), _read_fits, True),
        Target("fits, digest mended", "fits/fit-00000.h5", _set("fits/fit-00000.h5"), _h5_changed, _read_fits),
        Target("manifest.json", "shards/manifest.json", _set("shards/manifest.json"), _json, _read_manifest),
        Target(
            "metrics and run JSON",
            "x.json",
            _values({"run_id": "a" * 32, "mpjpe": 1.5, "curves": [{"step": 1, "loss": 2.0}]}),
            _json,
            _stage_json,
        ),
        *[Target(name, "changed", raw.prepare, raw.change, raw.read) for name, raw in RAW_SETS.items()],
        Target("MoSh's bodies", "x.pkl", _mosh, mutate.pickle_bytes, _read_mosh),
        Target("command lines", "x.json", _commands, _command_changed, _read_command),
        Target("environment", "x.json", _values(ENVIRONMENT), mutate.json_changed, _read_environment),
    )
}
