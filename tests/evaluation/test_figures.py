"""Figures of a result: what is drawn and what the files hold."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from metro.config import EvaluateConfig
from metro.evaluation.evaluate import evaluate
from metro.evaluation.figures import fit_camera, write_figures
from tests.conftest import World


def test_figures(world: World, tmp_path: Path) -> None:
    result = evaluate(world.model, world.dataset, world.body, "open", EvaluateConfig(bootstrap=20, overlays=1))
    write_figures(result, world.model, world.dataset, world.body, tmp_path)
    names = {p.name for p in tmp_path.glob("*.png")}
    assert {"best.png", "median.png", "worst.png", "joints.png", "pck.png", "groups_heading.png"} <= names
    assert all(cv2.imread(str(tmp_path / n)).std() > 5 for n in names)
    with np.load(tmp_path / "cases.npz", allow_pickle=False) as arrays:
        assert arrays["kind"].tolist() == ["best", "median", "worst"]
        assert arrays["index"].tolist() == [result.cases[k][0] for k in ("best", "median", "worst")]
        assert arrays["predicted"].shape == arrays["true"].shape == (3, 6890, 3)
        missing = ~world.dataset.labels["has_mesh"][arrays["index"]]
        assert np.isnan(arrays["true"]).all(axis=(1, 2)).tolist() == missing.tolist()


def test_true_camera_is_recovered(world: World) -> None:
    """2D joints made by a known weak-perspective camera give that camera back."""
    mesh = torch.from_numpy(world.data.v_template)[None].expand(2, -1, -1)
    cameras = torch.tensor([[0.8, 0.1, -0.2], [1.3, 0.0, 0.4]])
    joints = world.body.regress("j24", mesh)
    uv = cameras[:, None, :1] * (joints[..., :2] + cameras[:, None, 1:])
    seen = torch.cat((uv, torch.ones(2, 24, 1)), -1)
    seen[0, 3] = torch.tensor([9.0, 9.0, 0.0])  # an unseen joint must not matter
    assert torch.allclose(fit_camera(joints, seen).float(), cameras, atol=1e-5)


def test_the_true_mesh_is_drawn_where_it_was_photographed(world: World) -> None:
    from metro.data import crop
    from metro.evaluation.figures import _predict

    result = evaluate(world.model, world.dataset, world.body, "open", EvaluateConfig(bootstrap=5, overlays=1))
    case = _predict(world.model, world.dataset, world.body, result, 4, "cpu")
    labels = world.dataset.labels
    # Sample 4 in frame pixels, then in the pixels of its 64 px crop.
    to_crop = crop.crop_affine(labels["center"][4:5], 200 * labels["scale"][4:5], 64)[0]
    expected = crop.apply(to_crop, labels["joints_2d"][4, :, :2].astype(np.float64))
    joints = world.data.regressors["j24"] @ case.true.astype(np.float64) + case.offset
    pixels = joints @ case.intrinsics.T
    assert np.abs(pixels[:, :2] / pixels[:, 2:] - expected).max() < 0.01


def test_no_cases(world: World, tmp_path: Path) -> None:
    result = evaluate(world.model, world.dataset, world.body, "open", EvaluateConfig(bootstrap=5, overlays=0))
    write_figures(result, world.model, world.dataset, world.body, tmp_path)
    assert not (tmp_path / "best.png").exists()
    assert (tmp_path / "pck.png").exists()
