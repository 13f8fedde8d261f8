"""`metro body` from the command line's side."""

import cv2
import numpy as np
import pytest

from metro.body.arrays import describe, digest, save_body
from metro.body.load import load_body
from metro.cli.body import convert, info
from metro.cli.viz import render
from metro.errors import MetroError


def test_info_counts():
    body, hand = info(), info(kind="open_hand")
    assert (body["vertices"], body["faces"], body["joints"], body["betas"]) == (6890, 13776, 24, 10)
    assert (hand["vertices"], hand["faces"], hand["joints"], hand["betas"]) == (778, 1538, 16, 10)
    assert 1.6 < body["extent_m"][1] < 1.8


def test_convert_keeps_what_is_there(tmp_path):
    data = load_body("open_hand")
    np.savez(
        tmp_path / "MANO_RIGHT.npz",
        **{name: getattr(data, name) for name in ("v_template", "shapedirs", "posedirs", "weights", "J_regressor")},
        kintree_table=np.array([data.parents, range(16)]),
        f=data.faces,
        hands_mean=data.hands_mean,
        hands_components=data.hands_components,
    )
    out = tmp_path / "mano_neutral.npz"
    told = convert(tmp_path / "MANO_RIGHT.npz", out)
    assert told["kind"] == "mano"
    assert told["digest"] == digest(load_body("mano", path=tmp_path))
    before = out.read_bytes()
    with pytest.raises(MetroError, match="--overwrite"):
        convert(tmp_path / "MANO_RIGHT.npz", out)
    convert(tmp_path / "MANO_RIGHT.npz", out, overwrite=True)
    assert out.read_bytes() == before
    with pytest.raises(MetroError, match="npz"):
        convert(tmp_path / "MANO_RIGHT.npz", tmp_path / "out.pkl")


def test_saved_bytes_depend_on_the_data_alone(tmp_path):
    data = load_body("open")
    save_body(data, tmp_path / "a.npz")
    save_body(data, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    assert describe(load_body("open")) == describe(data)


@pytest.mark.parametrize(
    ("kind", "gender", "message"),
    [("open", "other", r"body\.gender=other"), ("body", "neutral", "no body model 'body'; known: open, open_hand")],
)
def test_unknown_models_are_named(kind, gender, message):
    with pytest.raises(MetroError, match=message):
        load_body(kind, gender)


@pytest.mark.parametrize("kind", ["open", "open_hand"])
def test_render_draws_every_pose(tmp_path, kind):
    told = render(tmp_path / "sheet.png", kind=kind, size=96)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert told["pictures"] == 20
    columns = np.array_split(sheet[sheet.shape[0] // 4 :], 5, axis=1)
    assert all((column.min(2) < 200).mean() > 0.03 for column in columns)
    with pytest.raises(MetroError, match="--overwrite"):
        render(tmp_path / "sheet.png", kind=kind)
