"""Against the published files. Those tests need licensed files and run where the environment names them:

METRO_SMPL            basicModel_neutral_lbs_10_207_0_v1.0.0.pkl
METRO_MANO            MANO_RIGHT.pkl
METRO_SAMPLING_SMPL   mesh_downsampling.npz
METRO_SAMPLING_MANO   mano_downsampling.npz
METRO_SAMPLING_OPEN   a mesh_downsampling.npz without faces, made for the open body
"""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import trimesh

from metro.body.load import load_body
from metro.body.pickles import plain, read_pickle
from metro.errors import MetroError
from metro.mesh.legacy import load_legacy
from metro.mesh.sampling import build_sampling, compose_indices, load_sampling, save_sampling
from metro.mesh.topology import is_watertight

# sha256 of the int32 little-endian indices (to the full mesh) and faces of each coarser level, first 16 digits.
GOLDEN = {
    "SMPL": (("567073a400828963", "d4d3952ee04ed3b7"), ("5f97fa5c61f9d125", "320f6bebd2c773a9")),
    "MANO": (("6c6c87c34ff48616",), ("6f1aadafb5e0de5f",)),
}
SIZES = {"SMPL": (1723, 431), "MANO": (195,)}


def licensed(variable):
    if not os.environ.get(variable):
        pytest.skip(f"{variable} does not name a file")
    return Path(os.environ[variable])


def template(kind):
    model = read_pickle(licensed(f"METRO_{kind}"))
    return np.asarray(plain(model["v_template"]), float), np.asarray(plain(model["f"])).astype(np.int64)


def digests(levels):
    def of(array):
        return hashlib.sha256(np.ascontiguousarray(array, "<i4").tobytes()).hexdigest()[:16]

    return tuple(map(of, compose_indices(levels))), tuple(of(level.faces) for level in levels)


@pytest.mark.parametrize("kind", GOLDEN)
def test_our_levels_are_the_published_ones(kind):
    assert digests(build_sampling(*template(kind), SIZES[kind])) == GOLDEN[kind]


@pytest.mark.parametrize("kind", GOLDEN)
def test_reading_the_published_file(kind):
    _, faces = template(kind)
    levels = load_legacy(licensed(f"METRO_SAMPLING_{kind}"), faces, SIZES[kind])
    assert digests(levels) == GOLDEN[kind]
    finer = len(np.unique(faces))
    for level, size in zip(levels, SIZES[kind], strict=True):
        assert level.up.shape == (finer, size)
        assert level.up.nnz <= 3 * finer
        np.testing.assert_allclose(level.up[level.indices].toarray(), np.eye(size), atol=1e-10)
        finer = size
    if kind == "SMPL":
        sums = np.asarray(levels[0].up.sum(axis=1)).ravel()
        assert np.isclose(sums, 1, atol=1e-6).mean() == pytest.approx(0.964, abs=0.01)
        assert (sums.min(), sums.max()) == pytest.approx((0.918, 1.022), abs=0.002)
        assert (levels[0].up.data.min(), levels[0].up.data.max()) == pytest.approx((-2.53, 3.45), abs=0.01)


@pytest.fixture(scope="module")
def sphere():
    mesh = trimesh.creation.icosphere(2)
    return mesh.vertices, np.array(mesh.faces), build_sampling(mesh.vertices, mesh.faces, (41, 12))


def objects(items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


def write(path, faces, levels, **changes):
    sizes = [len(level.up.indptr) - 1 for level in levels]
    down = [
        sp.csc_matrix((np.ones(len(x.indices)), (np.arange(len(x.indices)), x.indices)), (len(x.indices), n))
        for x, n in zip(levels, sizes, strict=True)
    ]
    stored = {
        "D": objects(down),
        "U": objects([sp.coo_matrix(level.up) for level in levels]),
        "F": objects([faces.astype(np.uint32), *[level.faces.astype(np.int64) for level in levels]]),
    }
    stored |= {key: value for key, value in changes.items() if value is not None}
    np.savez(path, **{key: value for key, value in stored.items() if changes.get(key, 0) is not None})
    return path


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_the_layout_is_understood_and_other_keys_stay_closed(tmp_path, sphere, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, faces, levels = sphere
    path = write(tmp_path / "mesh.npz", faces, levels, M=objects([Trap(), Trap()]))
    for ours, read in zip(levels, load_legacy(path, faces), strict=True):
        np.testing.assert_array_equal(read.indices, ours.indices)
        np.testing.assert_array_equal(read.faces, ours.faces)
        assert abs(read.up - ours.up).max() == 0
    assert len(load_legacy(path, faces, (41,))) == 1
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("key", ["D", "U", "F"])
def test_nothing_pickled_is_run(tmp_path, sphere, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    _, faces, levels = sphere
    path = write(tmp_path / "mesh.npz", faces, levels, **{key: objects([Trap(), Trap()])})
    with pytest.raises(MetroError, match="refused"):
        load_legacy(path, faces)
    assert not (tmp_path / "trapped").exists()


def test_matrices_of_old_scipy_are_read(tmp_path, sphere):
    # Python 2 and 3 files name the classes by where they lived then.
    _, faces, levels = sphere
    path = write(tmp_path / "mesh.npz", faces, levels, U=None)
    old = pickle.dumps(objects([sp.coo_matrix(level.up) for level in levels]), protocol=2)
    for new, then in {b"scipy.sparse._coo": b"scipy.sparse.coo", b"numpy._core": b"numpy.core"}.items():
        assert new in old
        old = old.replace(new, then)
    with zipfile.ZipFile(path, "a") as archive, archive.open("U.npy", "w") as stream:
        header = {"descr": "|O", "fortran_order": False, "shape": (2,)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(old)
    assert abs(load_legacy(path, faces)[0].up - levels[0].up).max() == 0


def test_what_does_not_fit_is_refused(tmp_path, sphere):
    _, faces, levels = sphere
    path = tmp_path / "mesh.npz"
    with pytest.raises(MetroError, match="missing; get it again from METRO's code"):
        load_legacy(path, faces)
    with pytest.raises(MetroError, match="has no 'U'"):
        load_legacy(write(path, faces, levels, U=None), faces)
    with pytest.raises(MetroError, match="another mesh"):
        load_legacy(write(path, faces, levels), faces[::-1])
    with pytest.raises(MetroError, match="has 2 coarser levels, 3 are asked for"):
        load_legacy(write(path, faces, levels), faces, (41, 12, 3))
    with pytest.raises(MetroError, match=r"level 2 has 12 vertices, sampling\.sizes asks for 11"):
        load_legacy(path, faces, (41, 11))
    blurred = objects([sp.csr_matrix(np.full((41, 162), 1 / 162)), sp.eye(12, 41, format="csr")])
    with pytest.raises(MetroError, match="not a selection"):
        load_legacy(write(path, faces, levels, D=blurred), faces)
    with pytest.raises(MetroError, match="does not fit a mesh of 162"):
        load_legacy(write(path, faces, levels, U=objects([levels[1].up, levels[0].up])), faces)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(MetroError, match="damaged"):
        load_legacy(path, faces)


def test_a_file_without_faces_survives_saving(tmp_path, sphere):
    _, faces, levels = sphere
    read = load_legacy(write(tmp_path / "mesh.npz", faces, levels, F=None), faces)
    save_sampling(tmp_path / "sampling.npz", read)
    again = load_sampling(tmp_path / "sampling.npz")
    assert [level.faces.shape for level in again] == [(0, 3), (0, 3)]
    assert all((a.up != b.up).nnz == 0 for a, b in zip(again, levels, strict=True))


def test_a_file_without_faces_for_the_open_body():
    body = load_body("open")
    levels = load_legacy(licensed("METRO_SAMPLING_OPEN"), body.faces)
    assert [len(level.indices) for level in levels] == [1723, 431]
    assert not any(len(level.faces) for level in levels)
    ours = build_sampling(body.v_template, body.faces)
    assert all(is_watertight(level.faces) for level in ours)
    errors = []
    for made in (ours, levels):
        lifted = made[0].up @ (made[1].up @ body.v_template[compose_indices(made)[1]])
        errors.append(np.linalg.norm(lifted - body.v_template, axis=1).mean())
    assert errors[0] < errors[1]
