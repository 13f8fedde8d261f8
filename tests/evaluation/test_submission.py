"""FreiHAND's submission, read as the set's scorer reads it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from metro.body.joints import FINGERTIPS, TIP_VERTICES, index_map
from metro.errors import MetroError
from metro.evaluation import submission as s
from tests.conftest import World


def hands(count: int = 3) -> s.Hands:
    """Points in the room of a hand, with the tips of fingers on their vertices."""
    rng = np.random.default_rng(0)
    joints, vertices = rng.uniform(-0.08, 0.08, (count, 21, 3)), rng.uniform(-0.09, 0.09, (count, 778, 3))
    vertices[:, list(TIP_VERTICES["freihand"])] = joints[:, index_map("HAND21", FINGERTIPS)]
    return s.Hands(joints.astype(np.float32), vertices.astype(np.float32))


def test_the_scorer_reads_what_is_written(tmp_path: Path) -> None:
    made = hands()
    for name in ("a.zip", "b.zip"):
        s.write(made, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["pred.json"]
        pred = json.loads(archive.read("pred.json"))
    assert len(pred) == 2
    assert len(pred[0]) == len(pred[1]) == 3
    for found, wanted in zip(pred, made, strict=True):
        for one, true in zip(found, wanted, strict=True):
            assert np.array(one) == pytest.approx(true, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p[0], "not a list of 3 hands"),
        (lambda p: [p[0][:2], p[1]], "not a list of 3 hands"),
        (lambda p: [p[1], p[0]], "joints are not 21 × 3 finite numbers"),
        (lambda p: [p[0], [v[:777] for v in p[1]]], "vertices are not 778 × 3"),
        (lambda p: [[[[float("nan")] * 3] * 21] * 3, p[1]], "joints are not 21 × 3 finite"),
        (
            lambda p: (1000 * np.array(p[0])).tolist() and [p[0], (1000 * np.array(p[1])).tolist()],
            "hand 0 is no hand in",
        ),
        (lambda p: [[h[::-1] for h in p[0]], p[1]], "joints or vertices are in another order"),
        (lambda p: [p[0], [v[::-1] for v in p[1]]], "joints or vertices are in another order"),
    ],
)
def test_what_the_server_would_not_score_as_meant(change: object, said: str, tmp_path: Path) -> None:
    content = change([part.tolist() for part in hands()])  # type: ignore[operator]
    with zipfile.ZipFile(tmp_path / "pred.zip", "w") as archive:
        archive.writestr("pred.json", json.dumps(content))
    with pytest.raises(MetroError, match=said) as told:
        s.check(tmp_path / "pred.zip", 3)
    assert "\n" not in str(told.value)
    with pytest.raises(MetroError, match="write it again"):
        s.check(tmp_path / "none.zip", 3)


def test_pictures_in_their_order_and_hands_of_them(hands: World, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation" / "rgb"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in (2, 0, 1):
        cv2.imwrite(str(folder / f"{number:08d}.jpg"), rng.integers(0, 255, (224, 224, 3), np.uint8))
    paths = s.pictures(tmp_path, 3)
    assert [path.name for path in paths] == ["00000000.jpg", "00000001.jpg", "00000002.jpg"]
    whole = s.predict(hands.model, hands.body, paths, batch_size=2)
    alone = s.predict(hands.model, hands.body, paths[1:2])
    for found, one in zip(whole, alone, strict=True):
        assert found[1] == pytest.approx(one[0], abs=1e-5)
    assert np.abs(whole.joints_N213[:, 0]).max() < 1e-6  # the wrist
    joints = np.stack([hands.data.regressors["hand21"] @ mesh for mesh in whole.vertices_N7783])
    assert whole.joints_N213 == pytest.approx(joints, abs=1e-5)
    with pytest.raises(MetroError, match=r"holds 3 pictures, not 00000000\.jpg to 00003959\.jpg"):
        s.pictures(tmp_path)
    with pytest.raises(MetroError, match="meshes of MANO, the model's are of the open_hand body"):
        s.check_hand(hands.model, hands.body)
