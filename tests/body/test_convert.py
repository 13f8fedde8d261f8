"""Licensed files, imitated: the same keys, dtypes, classes and pickle dialect, filled with the open models."""

import os
import pickle
import re
import struct
import sys
import types
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp

from metro.body.arrays import EXTRA_FILE, H36M_FILE, digest, save_body
from metro.body.convert import read_licensed
from metro.body.joints import JOINT_SETS, index_map
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.body.pickles import plain, read_pickle
from metro.cli.app import main
from metro.errors import MetroError


class Python2Pickler(pickle._Pickler):
    """Protocol 2 as Python 2 wrote it: text and bytes are the same 8-bit strings, modules have their old names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, obj):
        raw = obj.encode("latin1") if isinstance(obj, str) else obj
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(obj)

    dispatch[str] = dispatch[bytes] = save_string


OLD_NAMES = {
    b"cnumpy._core.multiarray\n": b"cnumpy.core.multiarray\n",
    b"cscipy.sparse._csc\n": b"cscipy.sparse.csc\n",
}


def dump_like_python2(content, path):
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)
    raw = path.read_bytes()
    for new, old in OLD_NAMES.items():
        raw = raw.replace(new, old)
    path.write_bytes(raw)


@pytest.fixture(scope="module")
def chumpy():
    """Classes with chumpy's names and pickled state, gone again before anything is read."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}

    def node(module, name):
        made = type(name, (), {"__module__": module})
        setattr(modules[module], name, made)
        return made

    ch, product, select = (
        node("chumpy.ch", "Ch"),
        node("chumpy.ch", "MatVecMult"),
        node("chumpy.reordering", "Select"),
    )

    def make(cls, **state):
        made = cls()
        made.__dict__.update(state, _dirty_vars=set(), _itr=0)
        return made

    sys.modules.update(modules)
    yield types.SimpleNamespace(
        ch=lambda x: make(ch, x=x),
        product=lambda a, b: make(product, mtx=a, vec=b),
        select=lambda a, idxs, shape: make(select, a=a, idxs=idxs, preferred_shape=shape),
    )
    for name in modules:
        del sys.modules[name]


@pytest.fixture(scope="module")
def smpl_folder(tmp_path_factory, chumpy):
    """A folder with SMPL_NEUTRAL.pkl and METRO's two regressor files."""
    folder, data = tmp_path_factory.mktemp("smpl"), load_body("open")
    kintree = np.array([data.parents, range(24)]).astype(np.uint32)  # the root's parent becomes 2**32 - 1
    content = {
        "v_template": data.v_template.astype(np.float64),
        "shapedirs": chumpy.ch(np.concatenate([data.shapedirs] * 2, axis=2)),
        "posedirs": chumpy.ch(data.posedirs),
        "weights": chumpy.ch(data.weights),
        "J_regressor": sp.csc_matrix(data.J_regressor),
        "J": chumpy.product(chumpy.ch(np.eye(3)), chumpy.ch(np.ones(3))),
        "kintree_table": kintree,
        "f": data.faces.astype(np.uint32),
        "bs_type": "lrotmin",
        "pose_training_info": {"created": "somewhere", "count": 3},
    }
    dump_like_python2(content, folder / "SMPL_NEUTRAL.pkl")
    rows = data.regressors["j24"].toarray()
    np.save(folder / H36M_FILE, data.regressors["h36m17"].toarray())
    np.save(folder / EXTRA_FILE, rows[index_map("J24", "EXTRA14")])
    return folder


def test_the_imitation_is_in_the_old_dialect(smpl_folder):
    raw = (smpl_folder / "SMPL_NEUTRAL.pkl").read_bytes()
    for name in (b"cnumpy.core.multiarray\n_reconstruct", b"cscipy.sparse.csc\ncsc_matrix", b"cchumpy.ch\nCh"):
        assert name in raw
    assert b"_codecs" not in raw


def test_smpl_pickle(smpl_folder):
    source = load_body("open")
    data = read_licensed(smpl_folder / "SMPL_NEUTRAL.pkl")
    assert (data.kind, data.gender, data.parents) == ("smpl", "neutral", source.parents)
    for name in ("v_template", "shapedirs", "posedirs", "weights", "J_regressor", "faces"):
        np.testing.assert_array_equal(getattr(data, name), getattr(source, name))
        assert getattr(data, name).dtype == getattr(source, name).dtype


def test_smpl_regressors_follow_get_joints(smpl_folder):
    """The annotation joints are picked from SMPL's 24 and the 14 extra ones, by METRO's published list."""
    data = read_licensed(smpl_folder / "SMPL_NEUTRAL.pkl")
    stacked = np.concatenate([data.J_regressor, np.load(smpl_folder / EXTRA_FILE)])
    published = [8, 5, 29, 30, 4, 7, 21, 19, 17, 16, 18, 20, 31, 32, 33, 34, 35, 36, 37, 24, 26, 25, 28, 27]
    np.testing.assert_array_equal(data.regressors["j24"].toarray(), stacked[published])
    np.testing.assert_array_equal(data.regressors["h36m17"].toarray(), np.load(smpl_folder / H36M_FILE))
    assert data.regressors["coco17"].shape == (17, 6890)


def test_smpl_without_regressor_files_says_what_to_add(smpl_folder, tmp_path):
    os.link(smpl_folder / "SMPL_NEUTRAL.pkl", tmp_path / "SMPL_NEUTRAL.pkl")
    model = BodyModel(read_licensed(tmp_path / "SMPL_NEUTRAL.pkl"))
    with pytest.raises(MetroError, match=f"no regressor 'h36m17'.*{H36M_FILE}"):
        model.regress("h36m17", model.template_C.reshape(1, 3, -1).transpose(1, 2))


def test_converted_file_is_the_same_model(smpl_folder, tmp_path):
    data = read_licensed(smpl_folder / "SMPL_NEUTRAL.pkl")
    save_body(data, tmp_path / "smpl_neutral.npz")
    assert digest(load_body("smpl", path=tmp_path)) == digest(data)
    assert digest(load_body("smpl", path=tmp_path / "smpl_neutral.npz")) == digest(data)
    with pytest.raises(MetroError, match=r"body\.gender=neutral, not female"):
        load_body("smpl", gender="female", path=tmp_path / "smpl_neutral.npz")
    with pytest.raises(MetroError, match=r"holds a smpl model, but body\.kind=smplx"):
        load_body("smplx", path=tmp_path / "smpl_neutral.npz")


@pytest.mark.parametrize(
    ("name", "gender"),
    [
        ("basicModel_f_lbs_10_207_0_v1.0.0", "female"),
        ("basicmodel_m_lbs_10_207_0_v1.1.0", "male"),
        ("SMPL_MALE", "male"),
        ("SMPL_FEMALE", "female"),
        ("basicModel_neutral_lbs_10_207_0_v1.0.0", "neutral"),
    ],
)
def test_gender_from_the_published_file_names(smpl_folder, tmp_path, name, gender):
    os.link(smpl_folder / "SMPL_NEUTRAL.pkl", tmp_path / f"{name}.pkl")
    assert read_licensed(tmp_path / f"{name}.pkl").gender == gender


def test_a_gender_against_the_file_name_is_refused(smpl_folder, tmp_path):
    path = tmp_path / "basicModel_f_lbs_10_207_0_v1.0.0.pkl"
    os.link(smpl_folder / "SMPL_NEUTRAL.pkl", path)
    with pytest.raises(MetroError, match=r"basicModel_f.*: is for body\.gender=female, not neutral"):
        load_body("smpl", path=path, partial=True)
    assert load_body("smpl", gender="female", path=path, partial=True).gender == "female"
    path = path.rename(tmp_path / "model.pkl")  # tells none
    assert load_body("smpl", gender="male", path=path, partial=True).gender == "male"
    assert read_licensed(path).gender == "neutral"


@pytest.mark.parametrize("lacking", [H36M_FILE, EXTRA_FILE])
def test_a_body_without_metros_regressors_is_refused_wherever_it_is_to_be_used(smpl_folder, tmp_path, capsys, lacking):
    for name in {"SMPL_NEUTRAL.pkl", H36M_FILE, EXTRA_FILE} - {lacking}:
        os.link(smpl_folder / name, tmp_path / name)
    path, made = tmp_path / "SMPL_NEUTRAL.pkl", tmp_path / "smpl_neutral.npz"
    said = f"the smpl model has no regressor .*put {H36M_FILE} and {EXTRA_FILE} beside the model file"
    assert main(["body", "convert", str(path), str(made)]) == 0
    assert re.search(f"{made}: {said}", capsys.readouterr().err)
    for file in (path, made):
        with pytest.raises(MetroError, match=said):
            load_body("smpl", path=file)
        assert load_body("smpl", path=file, partial=True).kind == "smpl"
    (tmp_path / "params.yaml").write_text(f"body: {{kind: smpl, path: {made}}}")
    main(["doctor", "--params", str(tmp_path / "params.yaml")])
    assert re.search(f"PROBLEM +its inputs +{said}", capsys.readouterr().out)


def test_mano_pickle(tmp_path, chumpy):
    source = load_body("open_hand")
    wide = np.concatenate([source.shapedirs, np.ones((778, 3, 10), np.float32)], 2)
    chosen = np.arange(wide.size).reshape(wide.shape)[:, :, :10].ravel()
    content = {
        "v_template": source.v_template,
        "shapedirs": chumpy.select(chumpy.ch(wide), chosen, (778, 3, 10)),
        "posedirs": source.posedirs,
        "weights": source.weights,
        "J_regressor": sp.csc_matrix(source.J_regressor),
        "kintree_table": np.array([source.parents, range(16)]).astype(np.uint32),
        "f": source.faces.astype(np.uint32),
        "hands_mean": source.hands_mean,
        "hands_components": source.hands_components,
    }
    dump_like_python2(content, tmp_path / "MANO_RIGHT.pkl")
    data = load_body("mano", path=tmp_path / "MANO_RIGHT.pkl")
    np.testing.assert_array_equal(data.shapedirs, source.shapedirs)
    np.testing.assert_array_equal(data.hands_mean, source.hands_mean)
    np.testing.assert_array_equal(data.regressors["hand21"].toarray(), source.regressors["hand21"].toarray())
    (tmp_path / "MANO_RIGHT.pkl").rename(tmp_path / "MANO_LEFT.pkl")
    with pytest.raises(MetroError, match="right hand"):
        read_licensed(tmp_path / "MANO_LEFT.pkl")


def test_smplx_npz(tmp_path):
    """Entries that hold pickled objects, as SMPL-X files have, are left alone."""
    rng = np.random.default_rng(0)
    weights = np.zeros((10475, 55), np.float32)
    weights[:, 0] = 1
    regressor = np.zeros((55, 10475), np.float32)
    regressor[np.arange(55), np.arange(55) * 100] = 1
    np.savez_compressed(
        tmp_path / "SMPLX_NEUTRAL.npz",
        v_template=rng.normal(size=(10475, 3)),
        shapedirs=np.zeros((10475, 3, 20), np.float16),
        posedirs=np.zeros((10475, 3, 486), np.float16),
        weights=weights,
        J_regressor=regressor,
        kintree_table=np.array([[2**32 - 1, *[0] * 54], range(55)]),
        f=np.zeros((4, 3), np.uint32),
        joint2num=np.array({"pelvis": 0}, dtype=object),
    )
    data = load_body("smplx", path=tmp_path / "SMPLX_NEUTRAL.npz")
    assert data.shapedirs.shape == (10475, 3, 10)
    assert data.parents[:3] == (-1, 0, 0)
    h36m, j24 = data.regressors["h36m17"].toarray(), data.regressors["j24"].toarray()
    np.testing.assert_allclose(h36m.sum(1), 1)
    np.testing.assert_array_equal(h36m[index_map("H36M17", "J14")], j24[index_map("J24", "J14")])
    knee = data.joint_names.index("right_knee")
    np.testing.assert_array_equal(h36m[JOINT_SETS["H36M17"].index("R_Knee")], data.J_regressor[knee])


@pytest.mark.parametrize("kind", ["smpl", "smplx", "mano"])
def test_missing_file_names_every_way_out(kind, tmp_path):
    free = "open_hand" if kind == "mano" else "open"
    where = str(tmp_path / f"{kind}_neutral.npz")
    with pytest.raises(MetroError) as raised:
        load_body(kind, path=tmp_path)
    message = str(raised.value)
    for part in (where, "tue.mpg.de", "metro body convert", "body.path", f"body.kind={free}"):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None}, "has no 'weights'"),
        ({"v_template": np.zeros((100, 3))}, "100 vertices; known models: smpl 6890"),
        ({"posedirs": np.zeros((778, 3, 9))}, r"posedirs has shape \(778, 3, 9\), expected 778 × 3 × 135"),
        ({"v_template": np.full((778, 3), np.nan)}, "not finite"),
        ({"kintree_table": np.array([[-1, *range(1, 16)], range(16)])}, "joint before its parent"),
        ({"f": np.array([[0, 1, 778]])}, "vertices that do not exist"),
        ({"weights": np.zeros((778, 16))}, "do not sum to one"),
        ({"hands_mean": np.array(["x"] * 45)}, "expected numbers"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, change, message):
    source = load_body("open_hand")
    content = {
        **{name: getattr(source, name) for name in ("v_template", "shapedirs", "posedirs", "weights", "J_regressor")},
        "kintree_table": np.array([source.parents, range(16)]),
        "f": source.faces,
        "hands_mean": source.hands_mean,
        "hands_components": source.hands_components,
    } | change
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(pickle.dumps({k: v for k, v in content.items() if v is not None}, protocol=2))
    with pytest.raises(MetroError, match=message):
        read_licensed(path)


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("call", "args", "named"),
    [
        (os.system, ("touch {}",), "system"),
        (eval, ("open('{}', 'w')",), "eval"),
        (getattr, (np, "load"), "getattr"),
        (np.load, ("{}",), "load"),
    ],
)
def test_malicious_pickle_is_refused_by_name(tmp_path, protocol, call, args, named):
    victim = tmp_path / "victim"
    args = tuple(a.format(victim) if isinstance(a, str) else a for a in args)
    if call is getattr:
        args = (complex, "real")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"v_template": Evil(call, *args)}, protocol=protocol))
    with pytest.raises(MetroError, match=f"refused, it asks for .*{named}"):
        read_pickle(tmp_path / "evil.pkl")
    assert not victim.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cnumpy.core.multiarray\n_reconstruct\n(c__builtin__\nset\n(I0\ntS'b'\ntR.",  # an "array" of another type
        b"ccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtR.",  # an instance of a real class
        b"cnumpy\ndtype\n(cnumpy\nndarray\ntR.",  # a dtype made of an object
        b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.",  # another codec
        b"\x80\x04\x8c\x05numpy\x8c\x0fcore.multiarray\x93.",  # a dotted name
        b"\x80\x02U\x03absQ.",  # a persistent id
    ],
)
def test_abuse_of_the_allowed_names_is_refused(tmp_path, stream):
    (tmp_path / "evil.pkl").write_bytes(stream)
    with pytest.raises(MetroError, match="refused, it asks for"):
        read_pickle(tmp_path / "evil.pkl")


def test_sparse_matrix_with_bad_indices_is_refused(tmp_path):
    matrix = sp.csc_matrix(np.eye(4))
    matrix.indices[0] = 1_000_000
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"m": matrix}, protocol=2))
    with pytest.raises(ValueError, match="exceeds matrix dimension 4"):
        plain(read_pickle(tmp_path / "bad.pkl")["m"])


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_plain_data_passes(tmp_path, protocol):
    """Annotation files of datasets: nested lists and dicts of arrays, numbers and strings."""
    content = {
        "poses": [np.arange(144.0).reshape(2, 72), np.zeros((2, 72), np.float32)],
        "genders": ["m", "f"],
        "sequence": "downtown_walking_00",
        "img_frame_ids": np.arange(2),
        "scale": np.float64(1.25),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "empty": np.zeros((0, 3)),
        "names": np.array(["a", "bc"]),
    }
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_pickle(tmp_path / "data.pkl")
    assert read["genders"] == content["genders"]
    assert read["scale"] == 1.25
    for name in ("img_frame_ids", "fortran", "empty", "names"):
        np.testing.assert_array_equal(read[name], content[name])
        assert read[name].dtype == content[name].dtype
    np.testing.assert_array_equal(read["poses"][0], content["poses"][0])


@pytest.mark.parametrize(
    "raw", [b"", b"\x80\x02}q\x00", b"not a pickle", b"\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\x7f"]
)
def test_damaged_pickle_gives_one_line(tmp_path, raw):
    (tmp_path / "broken.pkl").write_bytes(raw)
    with pytest.raises(MetroError, match=r"broken\.pkl: (is empty|damaged \()") as raised:
        read_pickle(tmp_path / "broken.pkl")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "raw"), [("x.npz", b"PK\x03\x04junk"), ("x.npz", b""), ("x.obj", b"v 0 0 0")])
def test_other_files_give_one_line(tmp_path, name, raw):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(MetroError, match=name):
        read_licensed(tmp_path / name)


@pytest.mark.parametrize("suffix", ["npz", "pkl"])
@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_what_was_saved_instead_of_a_body_is_named(tmp_path, suffix, raw, named):
    path = tmp_path / f"SMPL_NEUTRAL.{suffix}"
    path.write_bytes(raw)
    with pytest.raises(MetroError, match=f"SMPL_NEUTRAL.{suffix}: is .*{named}.*; get it again"):
        read_licensed(path)


def test_licensed_files_of_the_user():
    """With real files in METRO_BODY_MODELS (a folder of KIND_GENDER.npz), the published invariants hold."""
    folder = os.environ.get("METRO_BODY_MODELS")
    if not folder:
        pytest.skip("METRO_BODY_MODELS is not set")
    found = [kind for kind in ("smpl", "smplx", "mano") if os.path.exists(f"{folder}/{kind}_neutral.npz")]
    if not found:
        pytest.skip("no licensed model there")
    for kind in found:
        data = load_body(kind, path=folder)
        np.testing.assert_allclose(data.J_regressor.sum(1), 1, atol=1e-4)
        assert data.v_template[:, 1].max() < 1.2
