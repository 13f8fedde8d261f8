"""METRO's TSV files, of a few rows that are written here."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from metro.body.figure import HAND as HAND_FIGURE
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.sources import metro_tsv
from metro.sources.source import Row

OPEN, HAND = BodyConfig(), BodyConfig(kind="open_hand")
J2D = np.column_stack([np.arange(24) + 40, np.arange(24) + 60, np.ones(24)])
J3D = np.column_stack([np.arange(24) / 20, np.arange(24) / 30, np.zeros(24), np.ones(24)])


def label(**changes: Any) -> dict[str, Any]:
    pose = np.linspace(-0.5, 0.5, 72)
    return {
        "center": [52.5, 70.25],
        "scale": 0.75,
        "2d_joints": J2D.tolist(),
        "has_2d_joints": 1,
        "3d_joints": J3D.tolist(),
        "has_3d_joints": 1,
        "pose": pose.tolist(),
        "betas": [0.5] * 10,
        "has_smpl": 1,
        **changes,
    }


def hand(**changes: Any) -> dict[str, Any]:
    return label(**{"2d_joints": J2D[:21].tolist(), "3d_joints": (J3D[:21] / [9, 9, 9, 1]).tolist(),
                    "pose": [0.1] * 48, "center": [112, 112], "scale": 0.9} | changes)  # fmt: skip


def picture(folder: Path, shade: int = 90) -> bytes:
    Image.new("L", (120, 160), shade).save(folder / "x.jpg")
    return (folder / "x.jpg").read_bytes()


def table(path: Path, rows: list[tuple[str, str]]) -> None:
    """A TSV and where its rows begin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begins, content = [], b""
    for row in rows:
        begins.append(len(content))
        content += "\t".join(row).encode() + b"\n"
    path.write_bytes(content)
    path.with_suffix(".lineidx").write_text("".join(f"{begin}\n" for begin in begins))


def source(root: Path, name: str, labels: list[Any], tmp: Path) -> None:
    keys = [f"{name}_{n}.jpg" if n < 2 else f"Straße {n}" for n in range(len(labels))]
    pictures = [base64.b64encode(picture(tmp, 10 * n)).decode() for n in range(len(labels))]
    table(root / f"{name}.img.tsv", list(zip(keys, pictures, strict=True)))
    table(root / f"{name}.label.tsv", [(key, json.dumps([entry])) for key, entry in zip(keys, labels, strict=True)])
    table(root / f"{name}.hw.tsv", [(key, '[{"height": 160, "width": 120}]') for key in keys])


def single(root: Path, labels: list[Any], listed: str | None = None) -> None:
    source(root, "train", labels, root)
    named = "img: train.img.tsv\nlabel: train.label.tsv\nhw: train.hw.tsv\n"
    if listed is not None:
        (root / "train.linelist.tsv").write_text(listed)
        named += "linelist: train.linelist.tsv\n"
    (root / "train.yaml").write_text(named)


def composite(root: Path, listed: str) -> None:
    """Two sources in folders of their own, beside the set that is made of them."""
    for name, shapes in (("one", [label(), label(gender="f")]), ("two", [label(has_smpl=0), label(), label()])):
        source(root / "tsv", f"{name}/{name}", shapes, root)
    for key in ("img", "label", "hw"):
        (root / f"tsv/mix.{key}.list").write_text(f"one/one.{key}.tsv\ntwo/two.{key}.tsv\n")
    (root / "tsv/mix.linelist.tsv").write_text(listed)
    lists = "".join(f"{key}: mix.{key}.list\n" for key in ("img", "label", "hw"))
    (root / "tsv/mix.yaml").write_text(f"{lists}linelist: mix.linelist.tsv\ncomposite: true\n")


def config(root: Path, yaml: str = "train.yaml", **values: Any) -> DatasetConfig:
    return DatasetConfig(**{"source": "metro_tsv", "root": root, "options": {"yaml": yaml}} | values)


def everything(settings: DatasetConfig, body: BodyConfig = OPEN) -> tuple[list[Record], list[Any]]:
    """All that the adapter makes of a folder, the rows having gone through JSON."""
    found = [*metro_tsv.rows(settings, body)]
    indexed = [Row(*json.loads(json.dumps(row))) for row in found if isinstance(row, Row)]
    made = [*found, *metro_tsv.read(settings, body, indexed)]
    return [m for m in made if isinstance(m, Record)], [m for m in made if isinstance(m, (BadRecord, Left))]


def test_a_row_is_a_record(tmp_path: Path) -> None:
    joints = J3D.copy()
    joints[5, 3] = 0  # the fourth number says whether a joint is known
    in_a_list = {"2d_joints": [J2D.tolist()], "3d_joints": [joints.tolist()], "has_smpl": [1.0], "gender": "m"}
    single(tmp_path, [label(), label(**in_a_list), label(has_2d_joints=0, has_smpl=0)], "2\n0\n1\n")
    (last, first, second), others = everything(config(tmp_path))
    assert not others
    assert [r.frame for r in (last, first, second)] == [f"train.img.tsv@{row}" for row in (2, 0, 1)]
    first.check()
    assert first.center.tolist() == [52.5, 70.25]
    assert first.scale == 0.75
    assert np.array_equal(first.keypoints_2d, J2D)
    assert np.array_equal(first.joints_3d, J3D)
    assert np.array_equal(first.pose_aa, np.linspace(-0.5, 0.5, 72))
    assert (first.betas.tolist(), first.gender, first.mesh_origin) == ([0.5] * 10, "neutral", "fit")
    assert first.transl is None
    assert first.image == picture(tmp_path, 0)
    assert second.image == picture(tmp_path, 10)
    assert second.joints_3d[5].tolist() == [0, 0, 0, 0]
    assert np.array_equal(np.delete(second.joints_3d, 5, 0), np.delete(J3D, 5, 0))
    assert np.array_equal(second.keypoints_2d, J2D)
    assert second.gender == "male"
    assert (last.has_2d, last.has_3d, last.has_mesh) == (False, True, False)
    assert [r.gender for r in everything(config(tmp_path, gender="neutral"))[0]] == ["neutral"] * 3


def test_all_rows_without_a_line_list(tmp_path: Path) -> None:
    single(tmp_path, [label(), label()])
    assert [record.frame[-1] for record in everything(config(tmp_path))[0]] == ["0", "1"]
    assert metro_tsv.survey(config(tmp_path), OPEN).notes == ("no line list: all rows",)


def test_a_composite_set_takes_rows_of_its_sources(tmp_path: Path) -> None:
    composite(tmp_path, "1\t2\n0\t1\n1\t0\n0\t1\n")
    settings = config(tmp_path, "tsv/mix.yaml")
    records, others = everything(settings)
    assert [record.frame for record in records] == [
        "tsv/two/two.img.tsv@2",
        "tsv/one/one.img.tsv@1",
        "tsv/two/two.img.tsv@0",
    ]
    assert [record.has_mesh for record in records] == [True, True, False]
    assert records[1].gender == "female"
    assert others == [Left("listed again")]
    survey = metro_tsv.survey(settings, OPEN)
    assert (survey.dialect, survey.figure, survey.parameters) == ("composite of 2 sources", "body", "smpl")
    assert len(survey.files) == 1 + 2 + 2 + 4 + 1  # yaml, lists, labels, offsets, line list
    assert not survey.missing


def test_placeholders_of_the_hand_set_are_no_labels(tmp_path: Path) -> None:
    empty = {"2d_joints": [[0] * 3] * 21, "3d_joints": [[0] * 4] * 21, "pose": [1] * 48, "betas": [1] * 10}
    single(tmp_path, [hand(), hand(**empty), hand(**empty | {"3d_joints": [[0, 0, 0, 1]] * 21})])
    (record,), others = everything(config(tmp_path), HAND)
    record.check(HAND_FIGURE)
    assert (*record.center, record.scale, record.pose_aa.tolist()) == (112, 112, 0.9, [0.1] * 48)
    assert others == [Left("no labels"), Left("no labels")]
    survey = metro_tsv.survey(config(tmp_path), HAND)
    assert (survey.figure, survey.parameters) == ("hand", "mano")
    assert "2d_joints is not 24 × 3" in everything(config(tmp_path), OPEN)[1][0].problem


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"2d_joints": J2D[:23].tolist()}, "2d_joints is not 24 × 3 finite numbers"),
        ({"3d_joints": J3D[:, :3].tolist()}, "3d_joints is not 24 × 4 finite numbers"),
        ({"pose": [float("nan")] * 72}, "pose is not 72 finite numbers"),
        ({"pose": [10**400] * 72}, "too large"),
        ({"betas": None}, "betas is not 10 finite numbers"),
        ({"center": "here"}, "could not convert"),
        ({"scale": []}, "scale is not one finite numbers"),
        ({"has_smpl": 2}, "has_smpl is 2, not 0 or 1"),
        ({"has_3d_joints": None}, "has_3d_joints is None"),
        ({"gender": "x"}, "gender is 'x', not m, f or n"),
    ],
)
def test_a_bad_label_costs_its_record(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    single(tmp_path, [label(**changes), label()])
    (record,), (bad,) = everything(config(tmp_path))
    assert record.frame == "train.img.tsv@1"
    assert bad.name == "metro_tsv:train.img.tsv@0#0"
    assert said in bad.problem
    assert "\n" not in bad.problem


def test_rows_that_do_not_go_together_cost_their_record(tmp_path: Path) -> None:
    single(tmp_path, [label()] * 6, "0\n1\n2\n3\n4\n5\n9\n")
    lines = (tmp_path / "train.label.tsv").read_text().splitlines()
    two = json.dumps([label(), label()])
    changed = [lines[0], f"other.jpg\t{lines[1].split(chr(9))[1]}", f"Straße 2\t{two}", "Straße 3\t[{", "no tab"]
    table(tmp_path / "train.label.tsv", [tuple(line.split("\t")) for line in [*changed, lines[5]]])  # type: ignore[misc]
    pictures = [line.split("\t") for line in (tmp_path / "train.img.tsv").read_text().splitlines()]
    table(tmp_path / "train.img.tsv", [("train_0.jpg", "****"), *[(key, value) for key, value in pictures[1:]]])
    records, bad = everything(config(tmp_path))
    assert [record.frame for record in records] == ["train.img.tsv@5"]
    said = ["line 7", "base64", "are 'train_1.jpg' and 'other.jpg'", "list of one object", "Expecting", "not a key"]
    assert len(bad) == len(said)
    assert all(word in f"{item.name} {item.problem}" for word, item in zip(said, bad, strict=True)), bad
    assert "which has 6 rows, from 0" in bad[0].problem
    # Offsets of another file.
    (tmp_path / "train.label.lineidx").write_text("0\n7\n9\n11\n13\n99999999\n")
    records, bad = everything(config(tmp_path))
    assert not records
    assert "its .lineidx is of another file" in bad[-1].problem


@pytest.mark.parametrize("name", ["../train.img.tsv", "/etc/passwd", "a/../../train.img.tsv", "..", "a\0b"])
def test_paths_may_not_leave_the_tree(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    single(root, [label()])
    (root / "train.yaml").write_text(json.dumps({"img": name, "label": "train.label.tsv"}))
    with pytest.raises(MetroError, match=r"train\.yaml: img: .* is not within .*; move the files there"):
        metro_tsv.survey(config(root), OPEN)
    composite(root, "0\t0\n")
    (root / "tsv/mix.img.list").write_text("one/one.img.tsv\n../../two.img.tsv\n")
    with pytest.raises(MetroError, match=r"mix\.img\.list: .* is not within"):
        metro_tsv.survey(config(root, "tsv/mix.yaml"), OPEN)


def test_paths_within_the_tree_may_be_absolute_or_in_a_folder_beside(tmp_path: Path) -> None:
    single(tmp_path, [label()])
    (tmp_path / "sets").mkdir()
    named = {"img": "../train.img.tsv", "label": str(tmp_path / "train.label.tsv")}
    (tmp_path / "sets/train.yaml").write_text(json.dumps(named))
    (record,), _ = everything(config(tmp_path, "sets/train.yaml"))
    assert record.frame == "train.img.tsv@0"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", "is no list of files by name"),
        ("label: a.tsv", "names no img"),
        ("img: 3\nlabel: x", "names no img"),
        ("img: a\nlabel: b\ncomposite: 2", "composite is 2"),
        ("img: a\nlabel: b\ncomposite: true", "names no linelist"),
        ("img: a\nlabel: b\nlinelist: c\ncomposite: true", "missing"),
        ("img: [", "not valid YAML"),
    ],
)
def test_a_yaml_file_that_is_something_else_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "train.yaml").write_text(content)
    with pytest.raises(MetroError, match=said):
        metro_tsv.survey(config(tmp_path), OPEN)


def test_survey_names_what_is_missing(tmp_path: Path) -> None:
    (file,) = metro_tsv.survey(config(tmp_path), OPEN).files
    assert (file.path, file.found) == ("train.yaml", False)
    single(tmp_path, [label()], "0\n")
    for name in ("train.img.tsv", "train.img.lineidx", "train.linelist.tsv"):
        (tmp_path / name).unlink()
    survey = metro_tsv.survey(config(tmp_path), OPEN)
    assert [file.path for file in survey.files if not file.found] == ["train.img.lineidx", "train.linelist.tsv"]
    assert survey.missing[0].startswith("train.img.tsv (https://")


def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    single(tmp_path, [label()])
    (tmp_path / "train.yaml").write_text(f"img: {'x' * 5000}.img.tsv\nlabel: train.label.tsv\n")
    assert metro_tsv.survey(config(tmp_path), OPEN).missing[0].startswith("xxx")


@pytest.mark.parametrize("listed", ["0\n0\t1\n", "0\nx\n", "0\n-1\n", f"0\n{'9' * 200}\n"])
def test_a_line_list_of_another_kind_is_refused(tmp_path: Path, listed: str) -> None:
    single(tmp_path, [label()], listed)
    with pytest.raises(MetroError, match=r"train\.linelist\.tsv(, line 2: is not the number of a row|: damaged)"):
        everything(config(tmp_path))


def test_pictures_and_labels_must_be_as_many(tmp_path: Path) -> None:
    single(tmp_path, [label(), label()])
    (tmp_path / "train.label.lineidx").write_text("0\n")
    with pytest.raises(MetroError, match=r"has 2 rows, train\.label\.tsv 1"):
        everything(config(tmp_path))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_is_in_the_files_ends_in_records_or_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("junk")
    single(root, [label(), label()], "0\n1\n")
    names = ["train.yaml", "train.linelist.tsv", "train.img.lineidx", "train.label.lineidx", "train.label.tsv"]
    path = root / data.draw(st.sampled_from(names))
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw)))
    path.write_bytes(raw[:at] + data.draw(st.binary(max_size=6)) + raw[at + data.draw(st.integers(0, 6)) :])
    with suppress(MetroError):
        metro_tsv.survey(config(root), OPEN)
        records, _ = everything(config(root))
        for record in records:
            with suppress(MetroError):
                record.check()
