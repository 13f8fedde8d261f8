"""FreiHAND from folders of a few hands that are written here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from metro.body.figure import HAND as FIGURE
from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.sources import freihand
from metro.sources.source import Row

HAND = BodyConfig(kind="open_hand")
K = [[380.0, 0.0, 112.0], [0.0, 420.0, 112.0], [0.0, 0.0, 1.0]]  # pixels that are not square
# The published order by MANO's joints, which list the pinky before the ring finger and the thumb last.
FREIHAND = (0, 13, 14, 15, None, 1, 2, 3, None, 4, 5, 6, None, 10, 11, 12, None, 7, 8, 9, None)
TIPS = {4: 744, 8: 333, 12: 444, 16: 555, 20: 672}


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return BodyModel(load_body("open_hand"), torch.float64)


@pytest.fixture(scope="module")
def hands(model: BodyModel) -> list[dict[str, Any]]:
    """Entries of the lists for three poses."""
    g = np.random.default_rng(3)
    return [_hand(model, g) for _ in range(3)]


def _hand(model: BodyModel, g: np.random.Generator) -> dict[str, Any]:
    pose, betas = g.normal(0, 0.3, 48), g.normal(0, 1, 10)
    pose[:3] *= 20  # more than a turn
    wanted = np.array([0.03, -0.02, 0.6])  # where the root is
    # The model adds the mean pose.
    out = model(*(torch.from_numpy(a[None]) for a in (pose, betas, np.zeros(3))))
    move = wanted - out.joints[0, 4].numpy()
    joints, vertices = out.joints[0].numpy() + move, out.vertices[0].numpy() + move
    xyz = np.array([vertices[TIPS[k]] if at is None else joints[at] for k, at in enumerate(FREIHAND)])
    scale = 400 / wanted[2]
    mano = [*pose, *betas, 112 + wanted[0] * scale, 112 + wanted[1] * scale, scale]
    return {"K": K, "xyz": xyz.tolist(), "mano": [mano], "verts": vertices.tolist(),
            "scale": float(np.linalg.norm(xyz[9] - xyz[10]))}  # fmt: skip


def write(root: Path, hands: list[dict[str, Any]], part: str = "training", lists: Iterable[str] = (), versions: int = 4,
          **changes: Any) -> None:  # fmt: skip
    (root / part / "rgb").mkdir(parents=True, exist_ok=True)
    for number in range(versions * len(hands)):
        Image.new("RGB", (224, 224)).save(root / part / "rgb" / f"{number:08d}.jpg")
    for name in lists or ("K", "xyz", "mano", "scale"):
        entries = [changes.get(name, {}).get(n, hand[name]) for n, hand in enumerate(hands)]
        (root / f"{part}_{name}.json").write_text(json.dumps(entries))
    (root / "metro-fixture.json").write_text('{"body": "open_hand"}')


def config(root: Path, split: str = "train", supervision: str = "mesh", **options: Any) -> DatasetConfig:
    values = {"source": "freihand", "root": root, "split": split, "supervision": supervision}
    return DatasetConfig(**values, options=options)  # type: ignore[arg-type]


def everything(settings: DatasetConfig, body: BodyConfig = HAND) -> tuple[list[Record], list[Any]]:
    """All that the adapter makes of a folder, the rows having gone through JSON."""
    found = [*freihand.rows(settings, body)]
    indexed = [Row(*json.loads(json.dumps(row))) for row in found if isinstance(row, Row)]
    return [*freihand.read(settings, body, indexed)], [row for row in found if not isinstance(row, Row)]


def test_every_version_of_a_picture_has_the_labels_of_its_pose(tmp_path: Path, hands: list[dict[str, Any]]) -> None:
    """Pictures i, i + 3, i + 6 and i + 9 show pose i of three."""
    write(tmp_path, hands)
    (tmp_path / "training_verts.json").write_text("no JSON: it is not opened")
    records, others = everything(config(tmp_path))
    assert not others
    for record in records:
        record.check(FIGURE)
        number = int(Path(record.frame).stem)
        assert record.frame == f"training/rgb/{number:08d}.jpg"
        assert record.image == tmp_path / record.frame
        assert np.array_equal(record.joints_3d[:, :3], hands[number % 3]["xyz"])
    assert sorted(record.frame[-6:-4] for record in records) == [f"{n:02d}" for n in range(12)]
    records, _ = everything(config(tmp_path, backgrounds=2))
    assert sorted(int(record.frame[-6:-4]) for record in records) == [0, 1, 2, 3, 4, 5]


def test_the_posed_hand_lies_on_the_published_joints(
    tmp_path: Path, hands: list[dict[str, Any]], model: BodyModel
) -> None:
    """Pose + mean pose, keypoint 9 as the root, the mean of both focal lengths; names of joints, tips as annotated."""
    write(tmp_path, hands)
    records, _ = everything(config(tmp_path, backgrounds=1))
    for record, hand in zip(records, hands, strict=True):
        out = model(*(torch.from_numpy(np.asarray(a)[None]) for a in (record.pose_aa, record.betas, record.transl)))
        vertices = out.vertices[0].numpy()
        assert np.abs(vertices - hand["verts"]).max() < 1e-7
        assert np.linalg.norm(record.pose_aa[:3]) <= np.pi
        assert np.array_equal(record.pose_aa[3:], hand["mano"][0][3:48])
        mano = dict(zip(JOINT_SETS["MANO16"], out.joints[0].numpy(), strict=True))
        tips = dict(zip(("Thumb4", "Index4", "Middle4", "Ring4", "Pinky4"), vertices[list(TIPS.values())], strict=True))
        for name, joint in zip(JOINT_SETS["HAND21"], record.joints_3d, strict=True):
            assert np.abs(joint[:3] - (mano | tips)[name]).max() < 1e-7, name
        x, y, z = np.transpose(hand["xyz"])
        assert np.allclose(record.keypoints_2d, np.transpose([380 * x / z + 112, 420 * y / z + 112, np.ones(21)]))
        assert record.intrinsics.tolist() == K
        assert (*record.center, record.scale) == (112, 112, 0.9)
        assert (record.gender, record.mesh_origin) == ("neutral", "fit")


def test_no_pose_is_in_both_parts_of_the_training_set(tmp_path: Path, model: BodyModel) -> None:
    g = np.random.default_rng(1)
    hands = [_hand(model, g)] * 40
    write(tmp_path, hands)
    parts = {}
    for split in ("train", "validation"):
        settings = config(tmp_path, split, "joints_3d", validation=0.5)
        found = [row for row in freihand.rows(settings, HAND) if isinstance(row, Row)]
        parts[split] = {int(row.frame[-12:-4]) % 40 for row in found}
        assert len(found) == 4 * len(parts[split])
    assert not parts["train"] & parts["validation"]
    assert parts["train"] | parts["validation"] == set(range(40))
    # Written down: the same on every machine.
    assert sorted(parts["validation"]) == HELD_BACK
    expected = [freihand.survey(config(tmp_path, split, validation=0.5), HAND).expected for split in parts]
    assert sum(expected) == 130_240
    assert expected[1] == pytest.approx(130_240 / 2, rel=0.02)
    with pytest.raises(MetroError, match=r"needs options\.validation"):
        freihand.survey(config(tmp_path, "validation"), HAND)


HELD_BACK = [3, 4, 6, 9, 13, 14, 16, 19, 23, 25, 26, 30, 32, 35]


def test_the_evaluation_set_with_and_without_labels(tmp_path: Path, hands: list[dict[str, Any]]) -> None:
    write(tmp_path, hands, "evaluation", ("K", "scale"), versions=1)
    survey = freihand.survey(config(tmp_path, "test"), HAND)
    assert "without labels" in survey.dialect
    assert "public since 2022" in survey.notes[0]
    assert everything(config(tmp_path, "test")) == ([], [Left("no labels", 3)])
    write(tmp_path, hands, "evaluation", versions=1)
    assert freihand.survey(config(tmp_path, "test"), HAND).expected == 3_960
    records, _ = everything(config(tmp_path, "test"))
    assert [record.frame for record in records] == [f"evaluation/rgb/{n:08d}.jpg" for n in range(3)]
    (tmp_path / "evaluation_mano.json").unlink()  # one of both is an accident
    lost = [file for file in freihand.survey(config(tmp_path, "test"), HAND).files if not file.found]
    assert [file.path for file in lost] == ["evaluation_mano.json"]


def test_survey_tells_versions_apart(tmp_path: Path, hands: list[dict[str, Any]]) -> None:
    write(tmp_path, hands)
    survey = freihand.survey(config(tmp_path), HAND)
    assert (survey.figure, survey.parameters, survey.expected) == ("hand", "mano", 130_240)
    assert [file.path for file in survey.files] == [f"training_{name}.json" for name in ("K", "mano", "xyz")]
    assert not survey.missing
    assert not survey.notes
    assert [check.passed for check in survey.checks] == [True, True, True]
    write(tmp_path, hands, lists=("K", "xyz", "mano", "scale", "verts"))
    checks = freihand.survey(config(tmp_path, verts=True), HAND).checks
    assert [check.passed for check in checks] == [True, True, True, True]
    # Another hand model: the fingers are bent otherwise.
    bent = [[*hand["mano"][0][:3], *(np.array(hand["mano"][0][3:48]) + 0.1), *hand["mano"][0][48:]] for hand in hands]
    write(tmp_path, hands, mano=dict(enumerate([[entry] for entry in bent])), scale=dict.fromkeys(range(3), 0.05))
    checks = freihand.survey(config(tmp_path), HAND).checks
    assert [check.passed for check in checks] == [True, False, False]
    (tmp_path / "metro-fixture.json").unlink()
    checks = freihand.survey(config(tmp_path), HAND).checks
    assert [check.passed for check in checks] == [True, False, None]
    for path in (tmp_path / "training" / "rgb").iterdir():
        path.unlink()
    assert "lacks the last of 12 pictures" in freihand.survey(config(tmp_path), HAND).notes[0]
    (tmp_path / "training" / "rgb").rmdir()
    (missing,) = freihand.survey(config(tmp_path), HAND).missing
    assert missing.startswith("training/rgb (FreiHAND_pub_v2.zip of https://")


def test_meshes_are_compared_with_all_vertices_if_asked(tmp_path: Path, hands: list[dict[str, Any]]) -> None:
    moved = [[x, y, z + 0.011] for x, y, z in hands[1]["verts"]]
    write(tmp_path, hands, lists=("K", "xyz", "mano", "verts"), verts={1: moved, 2: hands[2]["verts"][:700]})
    records, bad = everything(config(tmp_path, verts=True))
    assert len(records) == 4
    assert [(item.count, item.problem) for item in bad] == [
        (4, "pose 1: its mesh is up to 11.0 mm from training_verts.json"),
        (4, "pose 2: verts is not 778 × 3 finite numbers"),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"xyz": [[float("nan")] * 3] * 21}, "xyz is not 21 × 3 finite numbers"),
        ({"xyz": [[0, 0, 1]] * 20}, "xyz is not 21 × 3 finite numbers"),
        ({"xyz": [[0, 0, -1]] * 21}, "not before the camera"),
        ({"xyz": [[0, 0, 1]] * 21}, "keypoint 9 40"),
        ({"mano": None}, "mano is not 61 finite numbers"),
        ({"mano": [[0] * 61]}, "not before the camera"),
        ({"K": [["a"] * 3] * 3}, "could not convert"),
    ],
)
def test_a_bad_entry_costs_the_pictures_of_its_pose(
    tmp_path: Path, hands: list[dict[str, Any]], changes: dict[str, Any], said: str
) -> None:
    write(tmp_path, hands, **{name: {1: value} for name, value in changes.items()})
    records, (bad,) = everything(config(tmp_path))
    assert len(records) == 8
    assert isinstance(bad, BadRecord)
    assert (bad.name, bad.count) == ("freihand:training/rgb/00000001.jpg#0", 4)
    assert said in bad.problem


def test_lists_of_different_length_are_refused(tmp_path: Path, hands: list[dict[str, Any]]) -> None:
    write(tmp_path, hands)
    for name, kept in (("xyz", 2), ("K", 2)):
        write(tmp_path, hands)
        (tmp_path / f"training_{name}.json").write_text(json.dumps([hand[name] for hand in hands[:kept]]))
        with pytest.raises(MetroError, match=rf"training_{name}\.json: ends after 2 entries"):
            everything(config(tmp_path))


def test_joints_need_no_hand_model(tmp_path: Path, hands: list[dict[str, Any]]) -> None:
    write(tmp_path, hands)
    records, _ = everything(config(tmp_path, supervision="joints_3d"), BodyConfig(kind="mano", path=tmp_path))
    assert not records[0].has_mesh
    assert not freihand.survey(config(tmp_path), HAND).posed


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_is_in_the_lists_ends_in_records_or_lines(
    tmp_path_factory: pytest.TempPathFactory, hands: list[dict[str, Any]], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("junk")
    write(root, hands, versions=1)
    path = root / f"training_{data.draw(st.sampled_from(['K', 'xyz', 'mano']))}.json"
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw)))
    path.write_bytes(raw[:at] + data.draw(st.binary(max_size=6)) + raw[at + data.draw(st.integers(0, 6)) :])
    with suppress(MetroError):
        records, _ = everything(config(root))
        for record in records:
            with suppress(MetroError):
                record.check(FIGURE)
