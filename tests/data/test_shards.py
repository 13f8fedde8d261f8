"""Shards: what goes in comes out, the same bytes each time, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from metro import files
from metro.config import CropConfig
from metro.data import crop, hdf5, lens, shards
from metro.data.verify import verify
from metro.errors import MetroError
from tests.data import people
from tests.full_disk import said_on_a_full_disk

CROP = CropConfig(box_px=64, margin=1.5)


def write(path: Path, numbers=range(5), supervision="mesh") -> Path:
    with shards.ShardWriter(path, CROP, supervision) as writer:
        for number in numbers:
            writer.add(people.person(number))
    return path


def copy_of(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_labels_come_back_in_their_frames(tmp_path):
    dataset = shards.ShardDataset([write(tmp_path / "shard-00000.h5")])
    record, labels = people.person(3), dataset.labels
    assert len(dataset) == 5
    assert labels["keys"][3] == b"made:000003.png#0"
    for name in ("joints_3d", "pose_aa", "betas", "transl", "intrinsics", "box"):
        np.testing.assert_allclose(labels[name][3], getattr(record, name), rtol=1e-6)
    np.testing.assert_allclose(labels["joints_2d"][3], record.keypoints_2d, rtol=1e-6)
    assert (labels["center"][3].tolist(), labels["scale"][3]) == ([100, 80], 0.5)
    assert [labels[f"has_{kind}"][3] for kind in ("2d", "3d", "mesh")] == [True, True, True]
    assert np.isnan(labels["fit_error"][3])
    assert (labels["lens"][3], labels["distortion"][3].tolist()) == (0, [0.0] * 8)


def test_the_lens_comes_back(tmp_path):
    bent = np.array([-0.2, 0.25, -0.001, -0.0015, -0.003, 0, 0, 0])
    with shards.ShardWriter(tmp_path / "s.h5", CROP) as writer:
        writer.add(people.person(0, distortion=bent, lens="h36m"))
    labels = shards.ShardDataset([tmp_path / "s.h5"]).labels
    assert lens.LENSES[labels["lens"][0]] == "h36m"
    np.testing.assert_allclose(labels["distortion"][0], bent, rtol=1e-6)


def test_discs_drawn_at_the_joints_are_where_the_affine_says(tmp_path):
    dataset = shards.ShardDataset([write(tmp_path / "shard-00000.h5", range(3))])
    for i in range(3):
        image, labels = dataset.image(i), dataset.labels
        points = crop.apply(labels["affine"][i], labels["joints_2d"][i, :, :2])
        assert image.shape == (96, 96, 3)
        j = 23  # drawn last, so nothing covers it
        x, y = np.rint(points[j]).astype(int)
        assert np.abs(image[y, x].astype(int) - [10 * j, 255 - 10 * j, 128]).max() < 60


@pytest.mark.parametrize(
    ("supervision", "kept"), [("mesh", (1, 1, 1)), ("joints_3d", (1, 1, 0)), ("joints_2d", (1, 0, 0))]
)
def test_supervision_drops_stronger_labels(tmp_path, supervision, kept):
    labels = shards.ShardDataset([write(tmp_path / "s.h5", supervision=supervision)]).labels
    assert tuple(labels[f"has_{kind}"].all() for kind in ("2d", "3d", "mesh")) == tuple(map(bool, kept))
    assert labels["joints_3d"].any() == bool(kept[1])
    assert labels["pose_aa"].any() == labels["betas"].any() == bool(kept[2])
    assert np.isfinite(labels["transl"]).any() == bool(kept[2])
    assert labels["mesh_origin"].any() == bool(kept[2])


def test_equal_records_give_equal_bytes(tmp_path):
    a, b = write(tmp_path / "shard-00000.h5"), write(tmp_path / "other" / "shard-00000.h5")
    assert a.read_bytes() == b.read_bytes()


def test_the_digest_of_records_does_not_depend_on_how_they_are_sharded(tmp_path):
    whole = shards.ShardDataset([write(tmp_path / "shard-00000.h5", range(5))])
    parts = [write(tmp_path / f"part/shard-0000{k}.h5", n) for k, n in enumerate((range(2), range(2, 5)))]
    assert shards.ShardDataset(parts).digest() == whole.digest()
    others = [whole.first(4), whole.subset([1, 0, 2, 3, 4])]
    others.append(shards.ShardDataset([write(tmp_path / "less/shard-00000.h5", range(5), "joints_2d")]))
    assert len({whole.digest(), *(other.digest() for other in others)}) == 4


def test_images_are_one_contiguous_piece(tmp_path):
    path = write(tmp_path / "s.h5")
    with h5py.File(path) as file:
        assert file["images/bytes"].chunks is None
        start = file["images/bytes"].id.get_offset()
    dataset = shards.ShardDataset([path])
    first = dataset.encoded(0)
    assert path.read_bytes()[start : start + len(first)] == first


def test_pickled_and_forked_datasets_open_their_own_files(tmp_path):
    dataset = shards.ShardDataset([write(tmp_path / "s.h5")])
    expected = dataset.image(2)
    twin = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(twin.image(2), expected)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(dataset.image(2), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_few_of_many_shards_are_open_at_once(tmp_path):
    paths = [write(tmp_path / f"shard-{number:05d}.h5", [number]) for number in range(80)]
    before = descriptors()
    dataset = shards.ShardDataset(paths)
    forwards = [dataset.encoded(i) for i in range(80)]
    dataset.expect(np.arange(80))
    assert descriptors() - before == 64
    assert [dataset.encoded(i) for i in reversed(range(80))] == forwards[::-1]
    view = dataset.first(3)
    del dataset
    assert descriptors() - before == 64  # the view has the same files
    assert view.encoded(2) == forwards[2]
    del view
    assert descriptors() == before


def test_nothing_is_left_when_the_writer_fails(tmp_path):
    writer = shards.ShardWriter(tmp_path / "s.h5", CROP)
    with pytest.raises(ZeroDivisionError), writer:
        writer.add(people.person(1 // 0))
    assert not list(tmp_path.iterdir())


DISK_FULL = """
from metro import files
from metro.config import CropConfig
from metro.data import shards
from tests.data import people
path, files.SPOOL_BYTES, count = arguments[0], int(arguments[1]), int(arguments[2])
with shards.ShardWriter(shards.Path(path), CropConfig(box_px=64)) as writer:
    for number in range(count):
        writer.add(people.person(number))
"""


@pytest.mark.parametrize(("spool", "count"), [(10**9, 1), (1000, 20)])  # while writing the shard; while adding
def test_a_full_disk_gives_one_line_and_leaves_the_old_file(tmp_path, spool, count):
    path = tmp_path / "s.h5"
    path.write_bytes(b"old")
    said = said_on_a_full_disk(5000, DISK_FULL, path, spool, count)
    assert said.startswith(f"{path}: File too large; nothing was written")
    assert "\n" not in said
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


def test_images_that_memory_does_not_hold_wait_in_a_file_without_a_name(tmp_path, monkeypatch):
    whole = write(tmp_path / "memory" / "s.h5", range(9)).read_bytes()
    monkeypatch.setattr(files, "SPOOL_BYTES", 6000)
    path = tmp_path / "disk" / "s.h5"
    with shards.ShardWriter(path, CROP) as writer:
        for number in range(9):
            writer.add(people.person(number))
        assert list(path.parent.iterdir()) == []
    assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]


MEMORY = """
import resource, sys
import numpy as np
from metro import files
from metro.config import CropConfig
from metro.data import shards
from tests.data import people

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

files.SPOOL_BYTES = 4 << 20
noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
record = people.person(0, image=noise, box=np.array([0, 0, 1024, 1024]))
with shards.ShardWriter(shards.Path(sys.argv[1]), CropConfig(box_px=1024, margin=1, quality=100)) as writer:
    writer.add(record)
    before = peak()
    for number in range(30):
        writer.add(record)
written = peak() - before
dataset = shards.ShardDataset([writer.path])
dataset.check_images()
print(written, peak() - before, writer.path.stat().st_size >> 20)
"""


def test_memory_does_not_grow_with_the_images_of_a_shard(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(shards.__file__).parents[2])}
    command = [sys.executable, "-c", MEMORY, tmp_path / "s.h5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=True)
    written, checked, size = map(int, done.stdout.split())
    assert size > 40
    assert written < 16  # MiB: of the spool, twice at most while it moves to the disk, and of a copy
    assert checked < 16


def test_people_of_one_picture_have_it_decoded_once(tmp_path, monkeypatch):
    """For each size that they need; the file may be gone by then. Another picture, or another reading, is another."""
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), people.person(number, (900, 700)).image)
    decoded, decode = [], crop.decode
    monkeypatch.setattr(crop, "decode", lambda *args, **how: decoded.append((args[1], how)) or decode(*args, **how))
    boxes = {side: np.array([100 - side / 2, 80 - side / 2, side, side]) for side in (100.0, 90.0, 300.0)}
    plan = [
        (0, 100, None),
        (0, 90, None),
        (0, 300, None),
        (0, 100, None),
        (1, 100, None),
        (0, 100, None),
        (0, 90, False),
    ]
    with shards.ShardWriter(tmp_path / "s.h5", CROP) as writer:
        for person, (picture, side, upright) in enumerate(plan):
            path = Path(str(paths[picture]))
            writer.add(people.person(0, image=path, box=boxes[side], upright=upright, person=person))
    assert [reduce for reduce, _ in decoded] == [1, 4, 1, 1, 1]
    dataset = shards.ShardDataset([tmp_path / "s.h5"])
    expected = {}
    for person, (picture, side, upright) in enumerate(plan):
        with shards.ShardWriter(tmp_path / "alone.h5", CROP) as writer:
            writer.add(people.person(0, image=paths[picture], box=boxes[side], upright=upright, person=person))
        expected[person] = shards.ShardDataset([writer.path]).encoded(0)
    assert {person: dataset.encoded(person) for person in expected} == expected


def test_a_frame_that_is_painted_over_is_seen_anew(tmp_path):
    """A reader of videos may hand out one array again and again."""
    frame = np.full((160, 200, 3), 50, np.uint8)
    with shards.ShardWriter(tmp_path / "s.h5", CROP) as writer:
        for grey in (50, 200):
            frame[:] = grey
            writer.add(people.person(0, image=frame, person=grey))
    dataset = shards.ShardDataset([tmp_path / "s.h5"])
    assert [dataset.image(i)[48, 48].tolist() for i in range(2)] == [[50] * 3, [200] * 3]


def test_colour_sums_of_pictures_of_one_colour(tmp_path):
    """Pixels 51, 102, 204 are 1/5, 2/5, 4/5 of white; half of the second crop is the black outside of its frame."""
    image = np.tile(np.array([51, 102, 204], np.uint8), (160, 200, 1))
    with shards.ShardWriter(tmp_path / "s.h5", CROP) as writer:
        writer.add(people.person(0, image=image))
        writer.add(people.person(1, image=image, box=np.array([-32.5, 48, 64, 64])))
    mean, square = shards.ShardDataset([writer.path]).colour_moments()
    np.testing.assert_allclose(mean, np.array([0.2, 0.4, 0.8]) * 0.75, rtol=1e-15)
    np.testing.assert_allclose(square, np.array([0.04, 0.16, 0.64]) * 0.75, rtol=1e-15)


def test_a_shard_over_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_BYTES", 4000)
    with pytest.raises(MetroError, match="more than 1 GiB; lower the dataset's shard_size"):
        write(tmp_path / "s.h5")


def test_bad_records_are_left_out_and_named(tmp_path):
    with shards.ShardWriter(tmp_path / "s.h5", CROP) as writer:
        writer.add(people.person(0))
        writer.add(people.person(1, betas=np.full(10, np.nan)))
        writer.add(people.person(2, image=b"no picture"))
        writer.add(people.BadRecord("made:3#0", "gone"))
        writer.add(people.person(4))
    assert shards.ShardDataset([tmp_path / "s.h5"]).labels["keys"].tolist() == [
        b"made:000000.png#0",
        b"made:000004.png#0",
    ]
    with h5py.File(tmp_path / "s.h5") as file:
        assert [line for line, _ in hdf5.read_facts(file)["skipped"]] == [
            "made:000001.png#0: betas has values that are not finite numbers",
            "made:000002.png#0: encoded image: not a readable image",
            "made:3#0: gone",
        ]


# ------------------------------------------------------------------------------------------------ damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def other_version(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 99


def version_before_the_lens(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 2
        del file["labels/distortion"], file["labels/lens"]


def no_version(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs["schema"]


def version_as_text(path: Path) -> None:
    """HDF5 keeps strings of free length in a heap, and may search a damaged one for ever."""
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = "2"


def not_hdf5(path: Path) -> None:
    path.write_bytes(b"x" * 2000)


def missing_label(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["labels/betas"]


def crossed_offsets(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["images/offsets"][1] = 10**6


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "truncated; delete it and run prepare again"),
        (other_version, "shard layout version 99, this metro reads 3"),
        (version_before_the_lens, "shard layout version 2, this metro reads 3; delete it and run prepare again"),
        (no_version, "not a shard"),
        (version_as_text, "not a shard"),
        (not_hdf5, "damaged or not a shard"),
        (missing_label, "its digest differs"),
        (crossed_offsets, "its digest differs"),
        (Path.unlink, "no such shard"),
    ],
)
def test_a_damaged_shard_is_refused_in_one_line(tmp_path, damage, message):
    path = write(tmp_path / "s.h5")
    damage(path)
    with pytest.raises(MetroError, match=message) as caught:
        shards.ShardDataset([path])
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def flip_bit(path: Path, name: str, index: int = 0) -> None:
    """Flip a bit inside of an array and set the time back, so that only the content tells."""
    before = path.stat()
    with h5py.File(path) as file:
        array = file[name]
        place = array.id.get_offset() + index * array.dtype.itemsize
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["labels/pose_aa", "labels/keys", "labels/has_mesh", "images/offsets", "images/crc32"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_flipped_bit_outside_of_the_images_is_noticed_on_opening(made, tmp_path, name, cached):
    folder, cache = copy_of(made, tmp_path), tmp_path / "cache" if cached else None
    shards.ShardDataset(folder, cache=cache)
    flip_bit(folder / "shard-00001.h5", name)
    with pytest.raises(MetroError, match=r"shard-00001\.h5: damaged .*digest differs.* and run prepare again"):
        shards.ShardDataset(folder, cache=cache)


@pytest.mark.parametrize("cached", [False, True])
def test_a_flipped_bit_in_a_sidecar_is_noticed_on_opening(made, tmp_path, cached):
    fits, cache = fits_for(made, tmp_path / "fits"), tmp_path / "cache" if cached else None
    shards.ShardDataset(made, fits, cache)
    flip_bit(fits / "fit-00002.h5", "labels/betas")
    with pytest.raises(MetroError, match=r"fit-00002\.h5: damaged .* digest differs.*; delete it and run fit again"):
        shards.ShardDataset(made, fits, cache)


def test_a_flipped_bit_in_an_image_is_noticed_though_it_can_be_decoded(made, tmp_path):
    folder = copy_of(made, tmp_path)
    dataset = shards.ShardDataset(folder)
    middle = len(dataset.encoded(0)) // 2 + len(dataset.encoded(1))
    flip_bit(folder / "shard-00000.h5", "images/bytes", len(dataset.encoded(0)) + middle // 2)
    dataset = shards.ShardDataset(folder)
    dataset.image(0), dataset.image(2)
    with pytest.raises(MetroError, match=r"shard-00000\.h5: image of made:000001\.png#0 is corrupt"):
        dataset.image(1)


def replaced(path: Path, name: str, make) -> None:
    """Put what `make(group, leaf, values)` makes in the place of an array; the digest is that of the values."""
    with h5py.File(path, "r+") as file:
        group, leaf = name.split("/")
        values = file[name][...]
        del file[name]
        make(file[group], leaf, values)


def elsewhere(group, leaf, values):
    """The same array in a file beside it."""
    other = Path(group.file.filename).with_suffix(".other")
    with h5py.File(other, "w") as file:
        file["x"] = values
    return other


def external_link(group, leaf, values):
    group[leaf] = h5py.ExternalLink(elsewhere(group, leaf, values), "x")


def soft_link(group, leaf, values):
    group["hidden"] = values
    group[leaf] = h5py.SoftLink(f"{group.name}/hidden")


def external_storage(group, leaf, values):
    raw = Path(group.file.filename).with_suffix(".raw")
    raw.write_bytes(values.tobytes())
    group.create_dataset(leaf, values.shape, values.dtype, external=[(str(raw), 0, values.nbytes)])


def virtual(group, leaf, values):
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(elsewhere(group, leaf, values), "x", values.shape)
    group.create_virtual_dataset(leaf, layout)


def compressed(group, leaf, values):
    group.create_dataset(leaf, data=values, compression="gzip")


def unwritten(group, leaf, values):
    group.create_dataset(leaf, (1 << 50, *values.shape[1:]), values.dtype)


def strings(group, leaf, values):
    group.create_dataset(leaf, data=["x"] * len(values))


def references(group, leaf, values):
    group.create_dataset(leaf, data=np.array([group.ref] * len(values), h5py.ref_dtype))


def nothing(group, leaf, values):
    group.create_dataset(leaf, data=h5py.Empty("f4"))


def folder_instead(group, leaf, values):
    group.create_group(leaf)


@pytest.mark.parametrize("name", ["labels/keys", "labels/pose_aa", "images/bytes", "images/offsets"])
@pytest.mark.parametrize(
    "make",
    [
        *(external_link, soft_link, external_storage, virtual, compressed),
        *(unwritten, strings, references, nothing, folder_instead),
    ],
)
def test_arrays_that_are_not_plainly_in_the_file_are_refused(tmp_path, name, make):
    path = write(tmp_path / "shard-00000.h5")
    replaced(path, name, make)
    with pytest.raises(MetroError, match=r"shard-00000\.h5: damaged") as caught:
        shards.ShardDataset([path])
    assert "\n" not in str(caught.value)


def rewritten(path: Path, **arrays) -> Path:
    """The shard with other arrays (``labels__NAME``) and the digest that belongs to them."""
    with h5py.File(path) as file:
        whole = {f"{group}/{name}": file[group][name][...] for group in file for name in file[group]}
    facts = json.loads(whole.pop(hdf5.ABOUT).tobytes())
    del facts["digest"]
    hdf5.write_h5(path, whole | {name.replace("__", "/"): values for name, values in arrays.items()}, facts)
    return path


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels__pose_aa": np.zeros((3, 70), np.float32)}, "neither a body nor a hand"),
        ({"labels__betas": np.zeros((3, 9), np.float32)}, r"label betas is float32 \(3, 9\), not float32 \(3, 10\)"),
        ({"labels__betas": np.zeros((3, 10))}, "label betas is float64"),
        ({"labels__betas": np.zeros((2, 10), np.float32)}, "label betas is"),
        ({"labels__has_3d": np.zeros(3, np.uint8)}, "label has_3d is uint8"),
        ({"labels__keys": np.arange(3.0)}, "label keys is float64"),
        ({"labels__betas": np.full((3, 10), np.nan, np.float32)}, "label betas of made:000000.png#0 is not finite"),
        ({"labels__gender": np.full(3, 9, np.uint8)}, "label gender is out of range"),
        ({"labels__lens": np.full(3, 3, np.uint8)}, "label lens is out of range"),
        ({"labels__distortion": np.full((3, 8), np.nan, np.float32)}, "label distortion of made:000000.png#0 is not"),
        ({"labels__mesh_origin": np.full(3, 200, np.uint8)}, "label mesh_origin is out of range"),
        ({"labels__scale": np.zeros(3, np.float32)}, "a crop has no area"),
        ({"labels__affine": np.zeros((3, 2, 3), np.float32)}, "a crop has no area"),
        ({"images__offsets": np.array([0, 9, 5, 7])}, "image offsets are out of order"),
        ({"images__offsets": np.array([0, 2**63 - 1, -(2**63), 7])}, "image offsets are out of order"),
        ({"images__offsets": np.array([0, 5, 7])}, "images and labels differ in number"),
        ({"images__crc32": np.zeros(2, np.uint32)}, "images and labels differ in number"),
        ({"images__bytes": np.zeros(50, np.float32)}, "images are not bytes"),
    ],
)
def test_arrays_that_no_record_can_have_are_refused(tmp_path, arrays, message):
    path = rewritten(write(tmp_path / "s.h5", range(3)), **arrays)
    with pytest.raises(MetroError, match=message) as caught:
        shards.ShardDataset([path])
    assert "\n" not in str(caught.value)


def overwrite_image(path: Path, index: int, value: bytes, at: int = 0) -> None:
    with h5py.File(path, "r+") as file:
        start = file["images/offsets"][index] + at
        file["images/bytes"][start : start + len(value)] = np.frombuffer(value, np.uint8)


def test_a_corrupt_image_names_its_record(made, tmp_path):
    folder = copy_of(made, tmp_path)
    overwrite_image(folder / "shard-00001.h5", 2, b"\0" * 200)
    dataset = shards.ShardDataset(folder)
    dataset.image(9)
    with pytest.raises(MetroError, match=r"shard-00001\.h5: image of made:000010\.png#0 is corrupt"):
        dataset.image(10)


# ------------------------------------------------------------------------------------------------ verify


def test_verify_passes_what_prepare_wrote(made):
    assert verify(made) == []


def renew_manifest(folder: Path) -> None:
    """Digests of the files as they are, so that `verify` looks inside."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["shards"]:
        data = (folder / entry["file"]).read_bytes()
        entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_verify_finds_changed_short_missing_and_stray_shards(made, tmp_path):
    folder = copy_of(made, tmp_path)
    overwrite_image(folder / "shard-00000.h5", 0, b"\1", at=50)
    truncate(folder / "shard-00001.h5")
    (folder / "shard-00002.h5").rename(folder / "shard-00003.h5")
    problems = verify(folder)
    assert [p.removeprefix(f"{folder}/").split(";")[0].split(" (")[0] for p in problems] == [
        "shard-00000.h5: changed since it was written",
        f"shard-00001.h5: {os.path.getsize(folder / 'shard-00001.h5')} bytes instead of "
        f"{os.path.getsize(made / 'shard-00001.h5')}",
        "shard-00002.h5: missing",
        "shard-00003.h5: not in the manifest",
    ]


def test_verify_names_labels_that_cannot_be_and_their_likely_unit(made, tmp_path):
    folder = copy_of(made, tmp_path)
    labels = shards.ShardDataset([folder / "shard-00000.h5"]).labels
    joints, pose = labels["joints_3d"].copy(), labels["pose_aa"].copy()
    joints[1, :, :3] *= 1000
    pose[2, 5] = 170
    rewritten(folder / "shard-00000.h5", labels__joints_3d=joints, labels__pose_aa=pose)
    renew_manifest(folder)
    reach, turn = verify(folder)
    assert re.search(r"shard-00000\.h5: made:000001\.png#0: joints_3d reach over .* they look like millimetres", reach)
    assert "made:000002.png#0: pose_aa turns a joint by 170 radians; are they degrees?" in turn


def test_verify_looks_inside(made, tmp_path):
    folder = copy_of(made, tmp_path)
    flip_bit(folder / "shard-00000.h5", "labels/pose_aa")
    overwrite_image(folder / "shard-00001.h5", 2, b"\0", at=40)
    with h5py.File(folder / "shard-00002.h5") as file:
        keys = file["labels/keys"][...]
    keys[0] = keys[1]
    rewritten(folder / "shard-00002.h5", labels__keys=keys)
    renew_manifest(folder)
    problems = "\n".join(verify(folder))
    assert "shard-00000.h5: damaged" in problems
    assert "shard-00001.h5: image of made:000010.png#0 is corrupt" in problems
    assert "made:000017.png#0 occurs 2 times" in problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "missing; run the dataset's prepare stage"),
        ("{", "not valid JSON"),
        ('{"schema": 0}', "schema 0, this version of metro reads 3"),
        ("[]", "damaged"),
        ('{"schema": 3, "count": "1", "shards": []}', "count"),
        ('{"schema": 3, "count": 0, "shards": [5]}', "shards"),
        ('{"schema": 3, "count": 0, "shards": [{"file": "a"}]}', "shards"),
        ('{"schema": 3, "count": 1, "shards": []}', "do not add up to 1 records"),
        (
            '{"schema": 3, "count": 1, "shards": [{"file": "../a.h5", "count": 1, "bytes": 1, "sha256": ""}]}',
            "no shard of this folder",
        ),
    ],
)
def test_a_folder_needs_a_manifest_of_this_version(tmp_path, text, message):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(MetroError, match=message):
        verify(tmp_path)
    with pytest.raises(MetroError, match=message):
        shards.ShardDataset(tmp_path)


# ------------------------------------------------------------------------------------------------ fits


def fits_for(folder: Path, out: Path, accepted=lambda n: np.arange(n) % 2 == 0, keys=None) -> Path:
    for path in sorted(folder.glob("shard-*.h5")):
        labels = shards.ShardDataset([path]).labels
        n = len(labels["keys"])
        arrays = {
            "keys": labels["keys"] if keys is None else keys(labels["keys"]),
            "pose_aa": np.full((n, 72), 0.25, np.float32),
            "betas": np.full((n, 10), -0.5, np.float32),
            "transl": np.full((n, 3), 2.0, np.float32),
            "fit_error": np.full(n, 0.01, np.float32),
            "accepted": accepted(n),
        }
        shards.write_fits(out, path.name, arrays)
    return out


def test_accepted_fits_are_laid_over_the_labels(prepare, tmp_path):
    prepare(tmp_path / "set", count=6, per_shard=4, supervision="joints_2d")
    fits = fits_for(tmp_path / "set", tmp_path / "fits")
    labels = shards.ShardDataset(tmp_path / "set", fits).labels
    accepted = np.array([True, False, True, False, True, False])
    assert labels["has_mesh"].tolist() == accepted.tolist()
    assert (labels["pose_aa"] == np.where(accepted, 0.25, 0)[:, None]).all()
    assert (labels["mesh_origin"] == np.where(accepted, 2, 0)).all()
    assert verify(tmp_path / "set", fits) == []


def test_a_fit_is_of_the_body_of_the_settings_whoever_the_person_is(tmp_path):
    with shards.ShardWriter(tmp_path / "shard-00000.h5", CROP, "joints_2d") as writer:
        for number in range(2):
            writer.add(people.person(number, gender="male"))
    fits_for(tmp_path, tmp_path / "fits")
    dataset = shards.ShardDataset([tmp_path / "shard-00000.h5"], tmp_path / "fits")
    assert (dataset.labels["has_mesh"].tolist(), dataset.labels["gender"].tolist()) == ([True, False], [0, 2])
    assert dataset.genders == []


def test_fits_of_other_records_are_refused(made, tmp_path):
    fits = fits_for(made, tmp_path / "fits", keys=lambda keys: keys[::-1])
    with pytest.raises(MetroError, match=r"fit-00000\.h5: fits of other records"):
        shards.ShardDataset(made, fits)
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(MetroError, match=r"fit-00000\.h5: (no such sidecar|missing)"):
            shards.ShardDataset(made, tmp_path / "none", cache)


def test_incomplete_fits_are_not_written(made, tmp_path):
    with pytest.raises(MetroError, match=r"fits of shard-00000\.h5: pose_aa, betas"):
        shards.write_fits(tmp_path, "shard-00000.h5", {"keys": np.array([b"a"]), "betas": np.zeros((2, 10))})


def test_a_sidecar_that_holds_no_numbers_fails_verification(made, tmp_path):
    fits = fits_for(made, tmp_path / "fits")
    with h5py.File(fits / "fit-00001.h5") as file:
        betas = file["labels/betas"][...]
    betas[1] = np.inf  # not accepted: what is not used may be anything
    rewritten(fits / "fit-00001.h5", labels__betas=betas)
    assert verify(made, fits) == []
    betas[0] = np.inf
    rewritten(fits / "fit-00001.h5", labels__betas=betas)
    (problem,) = verify(made, fits)
    assert problem.startswith(
        f"{fits}/fit-00001.h5: damaged (ValueError: label betas of made:000008.png#0 is not finite)"
    )


# ------------------------------------------------------------------------------------------------ mapped labels


def test_mapped_labels_are_those_in_memory(made, tmp_path):
    fits = fits_for(made, tmp_path / "fits")
    for folder in (None, fits):
        plain, mapped = (shards.ShardDataset(made, folder, cache) for cache in (None, tmp_path / "cache"))
        assert plain.labels.keys() == mapped.labels.keys()
        for name, values in plain.labels.items():
            np.testing.assert_array_equal(values, mapped.labels[name], strict=True)
        assert (mapped.figure, mapped.image_size, len(mapped)) == (plain.figure, plain.image_size, 20)
        assert [mapped.encoded(i) for i in range(20)] == [plain.encoded(i) for i in range(20)]
        twin = pickle.loads(pickle.dumps(mapped.subset([7, 2])))
        assert np.array_equal(twin.image(1), plain.image(2))
    with pytest.raises(ValueError, match="read-only"):
        mapped.labels["betas"][0] = 0


def test_a_mapped_table_is_made_once_for_a_state_of_the_shards(made, tmp_path):
    folder, cache = copy_of(made, tmp_path), tmp_path / "cache"

    def tables() -> dict[str, int]:
        shards.ShardDataset(folder, cache=cache)
        return {path.name: path.stat().st_ino for path in cache.glob("*.npy")}

    first = tables()
    assert (len(first), tables()) == (1, first)
    shutil.copy(folder / "shard-00001.h5", tmp_path / "again.h5")
    (tmp_path / "again.h5").replace(folder / "shard-00001.h5")  # equal, but that has to be looked at
    second = tables()
    assert len(second) == 1
    assert second.keys() != first.keys()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]])
def test_a_damaged_table_is_made_again(made, tmp_path, damage):
    shards.ShardDataset(made, cache=tmp_path)
    (table,) = tmp_path.glob("*.npy")
    whole = table.read_bytes()
    table.write_bytes(damage(whole))
    dataset = shards.ShardDataset(made, cache=tmp_path)
    assert table.read_bytes() == whole
    assert len(dataset) == 20


MAPS = """
import sys
from metro.data.shards import ShardDataset
dataset = ShardDataset(sys.argv[1], cache=__import__("pathlib").Path(sys.argv[2]))
print([line.split()[4] for line in open("/proc/self/maps") if line.rstrip().endswith(".npy")][0], flush=True)
sys.stdin.read()
"""


def test_processes_that_open_at_once_map_the_same_file(made, tmp_path):
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", MAPS, made, tmp_path], **options) for _ in range(3)]
    try:
        inodes = [process.stdout.readline().strip() for process in running]
    finally:
        for process in running:
            process.communicate()
    (table,) = tmp_path.glob("*.npy")
    assert inodes == [str(table.stat().st_ino)] * 3


def test_views_hold_their_own_records(made):
    whole = shards.ShardDataset(made)
    view = whole.subset([17, 3, 9]).subset([2, 0])
    assert view.labels["keys"].tolist() == [b"made:000009.png#0", b"made:000017.png#0"]
    assert np.array_equal(view.image(0), whole.image(9))
    assert np.array_equal(pickle.loads(pickle.dumps(view)).image(1), whole.image(17))
    assert (len(whole.first(5)), len(whole.first(50))) == (5, 20)
    with pytest.raises(IndexError):
        view.image(2)


def test_a_shard_whose_records_were_all_bad_is_empty(made, tmp_path):
    with shards.ShardWriter(tmp_path / "empty.h5", CROP) as writer:
        writer.add(people.BadRecord("made:0#0", "gone"))
    both = shards.ShardDataset([tmp_path / "empty.h5", made / "shard-00001.h5"])
    assert len(both) == 8
    assert np.array_equal(both.image(0), shards.ShardDataset(made).image(8))
