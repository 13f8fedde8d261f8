"""Sidecars for a prepared dataset: complete, resumable, and laid over the shards by the loader."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from metro import sources
from metro.body.arrays import BodyData
from metro.body.load import load_body
from metro.config import BodyConfig, CropConfig, DatasetConfig, FitConfig
from metro.data.records import Record
from metro.data.shards import ShardDataset
from metro.data.show import fitted_sheet
from metro.data.verify import verify
from metro.errors import MetroError
from metro.fitting.dataset import fit_dataset
from metro.sources import prepare as preparing
from metro.viz.overlay import BAD, GOOD
from tests.data.people import Made
from tests.fitting.conftest import People
from tests.fitting.test_smplify import with_fingers

CONFIG = FitConfig(jump_rounds=0, sigma_3d=0.005)


@pytest.fixture
def dataset(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nine people in three shards: one has a mesh, one too few joints."""
    labels = people.labels

    def record(i: int) -> Record:
        joints = labels["joints_3d"][i].copy()
        joints[4:, 3] *= i != 4
        mesh = {"pose_aa": people.pose_aa[i], "betas": people.betas[i], "transl": people.transl[i]}
        return Record(
            source="made",
            frame=str(i),
            image=np.full((1000, 1000, 3), 90, np.uint8),
            center=labels["center"][i],
            scale=float(labels["scale"][i]),
            joints_3d=joints,
            **({**mesh, "mesh_origin": "mocap"} if i == 2 else {}),
        )

    monkeypatch.setattr(sources, "adapter", lambda name: Made(9, make=record))
    out = tmp_path / "shards"
    config = DatasetConfig(crop=CropConfig(box_px=32), shard_size=3)
    preparing.prepare("made", config, BodyConfig(), out, workers=1, progress=False)
    return out


def bytes_of(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.h5"))}


def run(dataset: Path, out: Path, config: FitConfig = CONFIG, workers: int = 1) -> dict:
    return fit_dataset(dataset, out, BodyConfig(), config, workers=workers, progress=False)


def test_sidecars_and_summary(dataset: Path, people: People, tmp_path: Path) -> None:
    before = bytes_of(dataset)
    summary = run(dataset, tmp_path / "fits")
    assert bytes_of(dataset) == before
    assert summary.pop("seconds") > 0  # in no file: equal fits are equal files
    assert summary == json.loads((tmp_path / "fits" / "summary.json").read_text())
    assert summary["count"] == 9
    assert summary["accepted"] == 7
    assert summary["kept_meshes"] == 1
    assert summary["rejected"] == {"too few joints": 1}
    assert summary["error_3d_mm"]["max"] < 5
    assert summary["error_2d_percent"] is None
    assert 2 <= summary["iterations"]["mean"] <= CONFIG.iterations
    assert verify(dataset, fits=tmp_path / "fits") == []

    sheet = fitted_sheet(ShardDataset(dataset), tmp_path / "fits", load_body("open"), count=4, columns=2)
    frames = [int((sheet == colour).all(2).sum()) for colour in (GOOD, BAD)]
    tall, wide = sheet.shape[0] // 2, sheet.shape[1] // 2
    assert frames[0] == 3 * frames[1] > 6 * (32 + wide)  # three of the seven accepted, and the only refused one
    assert not (sheet[:tall, :wide] == BAD).all(2).any()

    labels = ShardDataset(dataset, fits=tmp_path / "fits").labels
    assert np.flatnonzero(~labels["has_mesh"]).tolist() == [4]
    assert np.array_equal(labels["pose_aa"][2], people.pose_aa[2])  # the mesh it had is not touched
    assert np.abs(labels["transl"][[0, 8]] - people.transl[[0, 8]]).max() < 0.05


def test_finished_shards_are_kept_and_others_made_again(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "fits"
    first = run(dataset, out)
    made = bytes_of(out)
    times = {p.name: p.stat().st_mtime_ns for p in out.glob("*.h5")}
    (out / "fit-00001.h5").write_bytes(b"interrupted")
    with h5py.File(out / "fit-00002.h5", "r+") as file:
        file["labels/betas"][0, 0] += 1
    (out / "fit-00009.h5").write_bytes(b"of an older dataset")
    again = run(dataset, out)
    assert bytes_of(out) == made
    changed = {p.name for p in out.glob("*.h5") if p.stat().st_mtime_ns != times[p.name]}
    assert changed == {"fit-00001.h5", "fit-00002.h5"}
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    run(dataset, out, CONFIG.model_copy(update={"sigma_3d": 0.03}))
    assert all(bytes_of(out)[name] != digest for name, digest in made.items())


def test_processes_give_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path / "one")
    run(dataset, tmp_path / "two", workers=2)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_an_unfinished_dataset_is_refused(dataset: Path, tmp_path: Path) -> None:
    (dataset / "manifest.json").unlink()
    with pytest.raises(MetroError, match=r"manifest\.json: missing"):
        run(dataset, tmp_path / "fits")
    assert not (tmp_path / "fits").exists()


def test_what_cannot_be_fitted_is_told_before_any_work(dataset: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(MetroError, match=r"gmm_08\.pkl: missing"):
        run(dataset, tmp_path / "fits", CONFIG.model_copy(update={"prior": tmp_path / "gmm_08.pkl"}))
    smplx = with_fingers(load_body("open"))
    monkeypatch.setattr("metro.fitting.dataset.load_body", lambda _: smplx)
    with pytest.raises(MetroError, match=r"body\.kind=open: datasets hold poses of SMPL's 24 joints"):
        run(dataset, tmp_path / "fits")
    assert not (tmp_path / "fits").exists()


@dataclass(frozen=True)
class FromTruth:
    """Starts from the true poses, for people without 3D joints."""

    poses: np.ndarray
    recipe: str = "truth"

    def check(self, body: BodyData) -> None:
        assert body.num_joints == 24

    def __call__(self, people: ShardDataset, body: BodyData) -> np.ndarray:
        assert not people.labels["has_3d"].any()
        assert len({image.shape for image in map(people.image, range(len(people)))}) == 1
        return self.poses[[int(key.split(b":")[1].split(b"#")[0]) for key in people.labels["keys"]]]


def test_image_fits_start_from_given_poses(people: People, tmp_path: Path, monkeypatch) -> None:
    """Two shards of image joints with noise: near the truth from the truth, and made again for another start."""
    rng = np.random.default_rng(1)

    def record(i: int) -> Record:
        joints = people.labels["joints_2d"][i].copy()
        joints[:, :2] += rng.normal(0, 10, (24, 2))
        return Record(
            source="made",
            frame=str(i),
            image=np.tile(np.arange(1000)[:, None, None] // 4, (1, 1000, 3)).astype(np.uint8),
            center=people.labels["center"][i],
            scale=float(people.labels["scale"][i]),
            keypoints_2d=joints,
            joints_3d=people.labels["joints_3d"][i] if i == 1 else None,
            intrinsics=people.labels["intrinsics"][i],
        )

    monkeypatch.setattr(sources, "adapter", lambda name: Made(4, make=record))
    config = DatasetConfig(crop=CropConfig(box_px=32), shard_size=2)
    preparing.prepare("made", config, BodyConfig(), tmp_path / "shards", workers=1, progress=False)

    def off(start: FromTruth | None, out: str) -> np.ndarray:
        where = tmp_path / out
        fit_dataset(tmp_path / "shards", where, BodyConfig(), CONFIG, workers=1, progress=False, start=start)
        pose = np.concatenate([h5py.File(path)["labels/pose_aa"][...] for path in sorted(where.glob("*.h5"))])
        return np.abs(pose - people.pose_aa[:4])[:, 3:].mean(1)

    alone = off(None, "fits")
    made = bytes_of(tmp_path / "fits")
    started = off(FromTruth(people.pose_aa), "fits")
    assert started[1] == pytest.approx(alone[1], abs=1e-4)  # has 3D joints
    assert (started[[0, 2, 3]] < 0.8 * alone[[0, 2, 3]]).all()
    assert bytes_of(tmp_path / "fits") != made


def test_command_line(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from metro.cli.app import main

    params = tmp_path / "params.yaml"
    params.write_text("fit: {jump_rounds: 0, max_error_3d: 0.0001}\n")
    out = tmp_path / "fits"
    assert main(["fit", str(dataset), "--out", str(out), "--params", str(params), "--workers", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["rejected"] == {"3D error too large": 7, "too few joints": 1}
    assert main(["fit", str(tmp_path / "nowhere"), "--out", str(out)]) == 2
    assert "manifest.json" in capsys.readouterr().err
