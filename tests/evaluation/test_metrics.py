"""Metrics against slow literal twins and cases with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from metro.evaluation import metrics as m


def cloud(seed: int, count: int = 14, batch: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, count, 3)))


def turned(points: torch.Tensor, seed: int, scale: float = 1.0) -> torch.Tensor:
    rotation = torch.from_numpy(Rotation.random(rng=np.random.default_rng(seed)).as_matrix())
    return scale * points @ rotation.T + torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)


def freihand_alignment(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """One sample, step by step as the FreiHAND scorer documents it: norms to one, orthogonal Procrustes, scale back."""
    target_mean, source_mean = target.mean(0), source.mean(0)
    target, source = target - target_mean, source - source_mean
    target_norm, source_norm = np.linalg.norm(target) + 1e-8, np.linalg.norm(source) + 1e-8
    rotation, scale = orthogonal_procrustes(target / target_norm, source / source_norm)
    return source / source_norm @ rotation.T * scale * target_norm + target_mean


def proper_alignment(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """One sample by Kabsch with SciPy's rotation fit, and the scale by least squares."""
    t, s = target - target.mean(0), source - source.mean(0)
    rotation, _ = Rotation.align_vectors(t, s)
    moved = rotation.apply(s)
    return moved * (moved * t).sum() / (moved**2).sum() + target.mean(0)


@given(st.integers(0, 10_000), st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_alignment_undoes_any_similarity(seed: int, scale: float) -> None:
    points = cloud(seed)
    assert m.pa_mpjpe(turned(points, seed, scale), points).max() < 1e-9
    assert m.pa_mpjpe(points, turned(points, seed, scale)).max() < 1e-8 * scale


def test_alignment_against_literal_twins() -> None:
    pred, target = cloud(1, 21, 20), cloud(2, 21, 20)
    pred = target + 0.2 * pred
    for reflection, twin in ((True, freihand_alignment), (False, proper_alignment)):
        ours = m.procrustes(pred, target, reflection=reflection).apply(pred)
        theirs = np.stack([twin(t, p) for t, p in zip(target.numpy(), pred.numpy(), strict=True)])
        assert np.abs(ours.numpy() - theirs).max() < 1e-7


def test_only_the_reflecting_alignment_forgives_a_mirror() -> None:
    points = cloud(3)
    mirrored = points * torch.tensor([-1.0, 1, 1], dtype=torch.float64)
    assert m.pa_mpjpe(mirrored, points, reflection=True).max() < 1e-12
    assert m.pa_mpjpe(mirrored, points).min() > 0.1
    rotation = m.procrustes(mirrored, points).rotation
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(3, dtype=torch.float64))


def test_flat_and_single_points() -> None:
    flat = cloud(4) * torch.tensor([1.0, 1, 0], dtype=torch.float64)
    assert m.pa_mpjpe(turned(flat, 5), flat).max() < 1e-9
    target = cloud(6)
    at_centre = m.procrustes(torch.zeros_like(target), target).apply(torch.zeros_like(target))
    assert torch.allclose(at_centre, target.mean(1, keepdim=True).expand_as(target))


def test_weights_leave_joints_out() -> None:
    target = cloud(7)
    pred = turned(target, 8, 1.3)
    pred[:, 5] += 3.0
    weights = torch.ones(3, 14, dtype=torch.float64)
    weights[:, 5] = 0
    assert m.pa_mpjpe(pred, target, weights=weights).max() < 1e-9
    assert m.mpjpe(target + torch.eye(14)[5][:, None], target, weights=weights).max() == 0
    assert m.mpjpe(target, target, weights=torch.zeros(3, 14)).isnan().all()


def test_mpjpe_by_hand() -> None:
    target = torch.zeros(1, 4, 3)
    pred = torch.tensor([[[0.0, 0, 0], [3, 4, 0], [0, 0, 2], [0, 0, 4]]])
    assert m.mpjpe(pred, target).item() == pytest.approx((5 + 2 + 4) / 4)
    # Both hips (2, 3) move to the origin: their mean is (0, 0, 3).
    expected = (3 + math.sqrt(25 + 9) + 1 + 1) / 4
    assert m.mpjpe(pred, target, root=(2, 3)).item() == pytest.approx(expected)
    assert m.mpjpe(pred + 7, target, root=(2, 3)).item() == pytest.approx(expected)


def test_mpve_uses_each_meshs_own_root() -> None:
    mesh = cloud(9, 50, 2)
    shift = torch.tensor([[1.0, 2, 3], [0, 0, 1]], dtype=torch.float64)
    assert m.mpve(mesh + shift[:, None], mesh).tolist() == pytest.approx(shift.norm(dim=1).tolist())
    assert m.mpve(mesh + shift[:, None], mesh, pred_root=shift, target_root=torch.zeros(2, 3)).max() < 1e-12


def test_pck_and_auc() -> None:
    errors = torch.tensor([[0.0, 0.05, 0.0501, 0.3], [0.2, 0.2, 0.2, 0.2]], dtype=torch.float64)
    assert m.pck(errors, 0.05).tolist() == [0.5, 0.0]
    assert m.pck(errors, 0.05, torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])).tolist() == [1.0, 0.0]
    thresholds = torch.linspace(0, 0.2, 201, dtype=torch.float64)
    # One error e fills the share 1 - e / 0.2 of the area, up to half a step.
    assert m.auc(torch.tensor([[0.05]]), thresholds).item() == pytest.approx(0.75, abs=0.003)
    twin = [
        np.trapezoid([(row <= t).mean() for t in thresholds.numpy()], thresholds.numpy()) / 0.2
        for row in errors.numpy()
    ]
    assert m.auc(errors, thresholds).tolist() == pytest.approx(twin)


def test_pck_auc_of_the_challenge() -> None:
    target = cloud(10)
    errors = m.joint_errors(target + 0.04, target, root=(0,))
    assert m.pck(errors, 0.05).tolist() == [1, 1, 1]
    assert m.auc(errors, m.WHOLE_MM).tolist() == pytest.approx([1, 1, 1], abs=0.003)
    assert m.pck(m.joint_errors(target + 0.04, target), 0.05).tolist() == [0, 0, 0]  # 69 mm away without centring


def test_f_score_against_double_loop() -> None:
    pred, target = 0.01 * cloud(11, 30, 2), 0.01 * cloud(12, 40, 2)
    for b in range(2):
        near_p = [min(float((p - t).norm()) for t in target[b]) for p in pred[b]]
        near_t = [min(float((p - t).norm()) for p in pred[b]) for t in target[b]]
        for k, limit in enumerate((0.005, 0.015)):
            precision, recall = np.mean(np.array(near_p) < limit), np.mean(np.array(near_t) < limit)
            expected = 2 * precision * recall / (precision + recall)
            assert m.f_score(pred, target, (0.005, 0.015))[b, k].item() == pytest.approx(expected)


def test_f_score_extremes() -> None:
    points = cloud(13, 20, 5)
    assert m.f_score(points, points, 0.005).tolist() == [1.0] * 5
    assert m.f_score(points + 100, points, 0.005).tolist() == [0.0] * 5


def test_processors_and_gpus_score_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels on the one, tensor operations on the other, which run here too."""
    pred, target = cloud(13, 20, 5), 1.1 * cloud(19, 20, 5) + 0.3
    weights = (cloud(20, 20, 5)[..., 0] > 0).double()
    weights[1] = 0.0
    root = cloud(21, 1, 5)[:, 0]

    def scores() -> list[torch.Tensor]:
        return [
            m.pa_mpjpe(pred, target),
            m.aligned_errors(pred.float(), target, weights=weights),
            m.procrustes(pred, target, weights=weights).translation,
            m.mpve(pred, target),
            m.mpve(pred, target.float(), pred_root=root, target_root=2 * root),
        ]

    kernels = scores()
    monkeypatch.setattr(m, "_on_processor", lambda tensor: False)
    for found, expected in zip(kernels, scores(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_freihand_scores_against_the_scorers_steps() -> None:
    joints, vertices = 0.03 * cloud(14, 21, 4), 0.03 * cloud(15, 60, 4)
    pred_joints, pred_vertices = joints + 0.004 * cloud(16, 21, 4), vertices + 0.004 * cloud(17, 60, 4)
    scores = {k: v.mean().item() for k, v in m.freihand_scores(pred_joints, joints, pred_vertices, vertices).items()}
    thresholds = np.linspace(0, 0.05, 100)
    for name, pred, target in (("joints", pred_joints, joints), ("vertices", pred_vertices, vertices)):
        aligned = np.stack([freihand_alignment(t, p) for t, p in zip(target.numpy(), pred.numpy(), strict=True)])
        for suffix, points in (("", pred.numpy()), ("_aligned", aligned)):
            error_per_point = np.linalg.norm(points - target.numpy(), axis=-1)  # (sample, keypoint)
            curve = [np.mean([(error_per_point[:, k] <= t).mean() for k in range(points.shape[1])]) for t in thresholds]
            assert scores[name + suffix] == pytest.approx(error_per_point.mean(0).mean())
            assert scores[f"{name}{suffix}_auc"] == pytest.approx(
                np.trapezoid(curve, thresholds) / np.trapezoid(np.ones(100), thresholds), abs=1e-6
            )
    assert scores["f15_aligned"] > scores["f5_aligned"] > 0


def test_half_precision_input_is_scored_in_double() -> None:
    points = cloud(18).float()
    assert m.mpjpe(points.half(), points).dtype == torch.float64
    assert m.pa_mpjpe(points, points).max() < 1e-12
