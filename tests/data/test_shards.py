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

import h5py
import numpy as np
import pytest

from metro.config import CropConfig
from metro.data import crop, shards
from metro.data.verify import verify
from metro.errors import MetroError
from tests.data import people

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


def test_images_are_one_contiguous_piece_read_by_map(tmp_path):
    path = write(tmp_path / "s.h5")
    with h5py.File(path) as file:
        assert file["images/bytes"].chunks is None
        start = file["images/bytes"].id.get_offset()
    dataset = shards.ShardDataset([path])
    first = bytes(dataset.encoded(0))
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


def test_nothing_is_left_when_the_writer_fails(tmp_path):
    writer = shards.ShardWriter(tmp_path / "s.h5", CROP)
    with pytest.raises(ZeroDivisionError), writer:
        writer.add(people.person(1 // 0))
    assert not list(tmp_path.iterdir())


DISK_FULL = """
import resource, sys
sys.path[:0] = {path!r}
from tests.data import people
from metro.config import CropConfig
from metro.data import shards
from metro.errors import MetroError
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # every later byte fails, as on a full disk
try:
    with shards.ShardWriter(shards.Path(sys.argv[1]), CropConfig(box_px=64)) as writer:
        writer.add(people.person(0))
except MetroError as err:
    print(err)
"""


def test_a_full_disk_gives_one_line_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "s.h5"
    path.write_bytes(b"old")
    code = DISK_FULL.format(path=[str(Path(people.__file__).parent), str(Path(shards.__file__).parents[2])])
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"{path}: File too large; nothing was written"), done
    assert done.stdout.count("\n") == 1
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


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
        assert json.loads(file.attrs["skipped"]) == [
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


def no_version(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs["schema"]


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
        (other_version, "shard layout version 99, this metro reads 1"),
        (no_version, "not a shard"),
        (not_hdf5, "damaged or not a shard"),
        (missing_label, "damaged"),
        (crossed_offsets, "image offsets are out of order"),
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
    with h5py.File(folder / "shard-00000.h5", "r+") as file:
        file["labels/joints_3d"][2, :, :3] *= 1000
        file["labels/pose_aa"][3, 5] = 170
    renew_manifest(folder)
    joints, pose = verify(folder)
    assert re.search(r"shard-00000\.h5: made:000002\.png#0: joints_3d reach over .* they look like millimetres", joints)
    assert "made:000003.png#0: pose_aa turns a joint by 170 radians; are they degrees?" in pose


def test_verify_looks_inside(made, tmp_path):
    folder = copy_of(made, tmp_path)
    with h5py.File(folder / "shard-00000.h5", "r+") as file:
        file["labels/pose_aa"][3, 5] = np.nan
        file["labels/keys"][0] = file["labels/keys"][1]
    overwrite_image(folder / "shard-00001.h5", 0, b"\0\0")
    overwrite_image(folder / "shard-00002.h5", 0, b"\0" * 300, at=2)
    renew_manifest(folder)
    problems = "\n".join(verify(folder))
    assert "shard-00000.h5: label pose_aa of made:000003.png#0 is not finite" in problems
    assert "shard-00001.h5: image of made:000008.png#0 is not a whole JPEG file" in problems
    assert "shard-00002.h5: image of made:000016.png#0 is corrupt" in problems
    assert "made:000001.png#0 occurs 2 times" in problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "missing; run the dataset's prepare stage"),
        ("{", "not valid JSON"),
        ('{"schema": 0}', "schema 0, this version of metro reads 1"),
        ("[]", "damaged"),
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


def test_fits_of_other_records_are_refused(made, tmp_path):
    fits = fits_for(made, tmp_path / "fits", keys=lambda keys: keys[::-1])
    with pytest.raises(MetroError, match=r"fit-00000\.h5: fits of other records"):
        shards.ShardDataset(made, fits)
    with pytest.raises(MetroError, match="no such shard"):
        shards.ShardDataset(made, tmp_path / "none")


def test_incomplete_fits_are_not_written(made, tmp_path):
    with pytest.raises(MetroError, match=r"fits of shard-00000\.h5: pose_aa, betas"):
        shards.write_fits(tmp_path, "shard-00000.h5", {"keys": np.array([b"a"]), "betas": np.zeros((2, 10))})


def test_a_sidecar_that_holds_no_numbers_fails_verification(made, tmp_path):
    fits = fits_for(made, tmp_path / "fits")
    with h5py.File(fits / "fit-00001.h5", "r+") as file:
        file["labels/betas"][0] = np.inf
    assert verify(made, fits) == [f"{fits}/fit-00001.h5: betas is not finite"]


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
