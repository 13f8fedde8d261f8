"""Pose and mesh metrics: batched torch functions over metres, one value per sample.

Averaging over samples is left to the caller, so that a result never depends on batch or process boundaries.

Shapes: B samples, N points, J joints, V vertices, K thresholds. Points are float tensors (…, 3) in metres; sums,
singular values and nearest points are computed in float64.

Sources: METRO's evaluation (MPJPE, PA-MPJPE, MPVE: Lin et al. 2021 §4), the FreiHAND scorer (Zimmermann et al. 2019:
similarity alignment that may reflect, AUC over 0–50 mm in 100 thresholds, F-score by strict nearest-point distance),
the 3DPW challenge scorer (PCK at 50 mm, AUC over 0–199 mm in whole millimetres) and MPI-INF-3DHP's (Mehta et al. 2017:
PCK at 150 mm and its mean over 0, 5, … 150 mm, strict).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metro.evaluation import pairs

WHOLE_MM = torch.arange(200, dtype=torch.float64) / 1000
"""Thresholds of the 3DPW challenge's curve: 0 to 199 mm."""


class Similarity(NamedTuple):
    """``aligned = scale · points @ rotationᵀ + translation``, per sample."""

    scale: Tensor  # (B,)
    rotation: Tensor  # (B, 3, 3)
    translation: Tensor  # (B, 3)

    def apply(self, points: Tensor) -> Tensor:
        """Transform points (B, N, 3)."""
        moved = self.scale[:, None, None] * points.to(self.rotation.dtype) @ self.rotation.transpose(1, 2)
        return moved + self.translation[:, None]


def procrustes(
    source: Tensor, target: Tensor, *, reflection: bool = False, weights: Tensor | None = None
) -> Similarity:
    """Least-squares similarity that takes `source` (B, N, 3) onto `target` (B, N, 3) (Umeyama 1991), in float64.

    Parameters
    ----------
    reflection
        Allow an improper rotation (FreiHAND's scorer does). By default the determinant is kept at +1.
    weights
        (B, N) non-negative weights; points of weight 0 take no part.

    Notes
    -----
    A source without extent gets scale 0: every point lands on the target's centroid, as in the published scorers.
    """
    centre_s, centre_t, covariance, variance = _moments(source, target, weights)
    u, d, vh = torch.linalg.svd(covariance)
    sign = torch.ones_like(d)
    if not reflection:
        sign[:, 2] = torch.linalg.det(u) * torch.linalg.det(vh)
    rotation = (u * sign[:, None]) @ vh
    scale = torch.where(variance > 1e-20, (d * sign).sum(1) / variance.clamp_min(1e-20), 0.0)
    return Similarity(scale, rotation, centre_t - scale[:, None] * (rotation @ centre_s[..., None])[..., 0])


def _moments(source: Tensor, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weighted means (B, 3) of both, mean (B, 3, 3) of target × source and (B,) of |source|², both centred."""
    if _on_processor(source):
        arrays = None if weights is None else _array(weights)
        found = pairs.moments(_array(source), _array(target), arrays)
        return tuple(map(torch.from_numpy, found))  # type: ignore[return-value]
    source, target = source.double(), target.double()
    w = torch.ones_like(source[..., 0]) if weights is None else weights.double()
    w = (w / w.sum(1, keepdim=True).clamp_min(1e-300))[..., None]  # (B, N, 1)
    centre_s, centre_t = (w * source).sum(1), (w * target).sum(1)
    s, t = source - centre_s[:, None], target - centre_t[:, None]
    return centre_s, centre_t, t.mT @ (w * s), (w * s * s).sum((1, 2))


def joint_errors(pred: Tensor, target: Tensor, *, root: Sequence[int] | None = None) -> Tensor:
    """Distance per point (B, N), each side first centred at its own mean of the points `root` (none: as given)."""
    pred, target = pred.double(), target.double()
    if root is not None:
        pred = pred - pred[:, list(root)].mean(1, keepdim=True)
        target = target - target[:, list(root)].mean(1, keepdim=True)
    return (pred - target).norm(dim=-1)


def aligned_errors(pred: Tensor, target: Tensor, *, reflection: bool = False, weights: Tensor | None = None) -> Tensor:
    """Distance per point (B, N) after the best similarity alignment of `pred` to `target`."""
    found = procrustes(pred, target, reflection=reflection, weights=weights)
    if not _on_processor(pred):
        return (found.apply(pred) - target.double()).norm(dim=-1)
    turn = (found.scale[:, None, None] * found.rotation).numpy()
    return torch.from_numpy(pairs.distances(_array(pred), _array(target), turn, found.translation.numpy()))


def mpjpe(pred: Tensor, target: Tensor, *, root: Sequence[int] | None = None, weights: Tensor | None = None) -> Tensor:
    """Mean per-joint position error (B,) in metres.

    Parameters
    ----------
    pred, target
        (B, J, 3), metres.
    root
        Joints whose mean each side is centred at (METRO: the two hips); none: positions are compared as they are.
    weights
        (B, J): joints that count; none: all. A sample without any gives nan.
    """
    return weighted_mean(joint_errors(pred, target, root=root), weights)


def pa_mpjpe(pred: Tensor, target: Tensor, *, reflection: bool = False, weights: Tensor | None = None) -> Tensor:
    """MPJPE (B,) in metres after similarity alignment per sample (rotation, scale, translation)."""
    return weighted_mean(aligned_errors(pred, target, reflection=reflection, weights=weights), weights)


def mpve(pred: Tensor, target: Tensor, *, pred_root: Tensor | None = None, target_root: Tensor | None = None) -> Tensor:
    """Mean per-vertex error (B,) in metres of meshes (B, V, 3), each minus its own root (B, 3) where given."""
    shift = torch.zeros(len(pred), 3, dtype=torch.float64, device=pred.device)
    for root, sign in ((pred_root, -1), (target_root, 1)):
        if root is not None:
            shift += sign * root.double()
    if not _on_processor(pred):
        return (pred.double() + shift[:, None] - target.double()).norm(dim=-1).mean(1)
    return torch.from_numpy(pairs.mean_distances(_array(pred), _array(target), shift.numpy()))


def _on_processor(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _array(tensor: Tensor) -> np.ndarray:
    """What `metro.evaluation.pairs` takes: float32 or float64, in order."""
    wide = tensor.detach() if tensor.dtype in (torch.float32, torch.float64) else tensor.detach().double()
    array: np.ndarray = wide.cpu().contiguous().numpy()
    return array


def weighted_mean(errors: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over the points of errors (B, N); nan where the weights (B, N) are all zero."""
    if weights is None:
        return errors.mean(1)
    w = weights.to(errors.dtype)
    return (errors * w).sum(1) / w.sum(1)


def pck(errors: Tensor, threshold: float, weights: Tensor | None = None, *, strict: bool = False) -> Tensor:
    """Share (B,) of the errors (B, N) of at most `threshold` (metres; `strict`: below), over points of some weight."""
    return weighted_mean((errors < threshold if strict else errors <= threshold).double(), weights)


def auc(errors: Tensor, thresholds: Tensor, weights: Tensor | None = None) -> Tensor:
    """Area (B,) under the curve of `pck` over ascending `thresholds` (K,), by the trapezoidal rule, as a share of 1.

    Each error adds the areas of the thresholds that it does not exceed, so that the curve itself is not computed.
    """
    x = thresholds.to(errors.device, torch.float64)
    ends = torch.cat((x[:1], x, x[-1:]))
    areas = (ends[2:] - ends[:-2]) / 2 / (x[-1] - x[0])  # of each threshold's share in the rule
    return weighted_mean(_from_first(errors, x, areas), weights)


def mean_pck(errors: Tensor, thresholds: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean (B,) over ascending `thresholds` (K,) of the shares strictly below them: MPI-INF-3DHP's area."""
    x = thresholds.to(errors.device, torch.float64)
    return weighted_mean(_from_first(errors, x, torch.full_like(x, 1 / len(x)), strict=True), weights)


def _from_first(errors: Tensor, thresholds: Tensor, amounts: Tensor, *, strict: bool = False) -> Tensor:
    """Sum (B, N) of the amounts (K,) of the thresholds (K,) that are reached by (`strict`: are above) each error."""
    left = torch.cat((amounts.flip(0).cumsum(0).flip(0), amounts.new_zeros(1)))  # from each threshold on
    first = torch.searchsorted(thresholds, errors.contiguous(), right=strict)
    return left[first]


def f_score(pred: Tensor, target: Tensor, threshold: float | Sequence[float]) -> Tensor:
    """F-score of two point sets (B, N, 3), (B, M, 3): harmonic mean of the shares within reach of the other set.

    Distances count when strictly below `threshold` (metres), as in FreiHAND's scorer. Returns (B,), or (B, K) when
    K thresholds are given.
    """
    limits_K = np.atleast_1d(threshold)
    scores_BK = np.zeros((len(pred), len(limits_K)))
    for row, (p, t) in enumerate(zip(_array(pred.double()), _array(target.double()), strict=True)):
        near_t = pairs.nearest(t, p, limits_K.max())[:, None] < limits_K
        near_p = pairs.nearest(p, t, limits_K.max())[:, None] < limits_K
        precision, recall = near_p.mean(0), near_t.mean(0)
        scores_BK[row] = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    score = torch.from_numpy(scores_BK).to(pred.device)
    return score if isinstance(threshold, Sequence) else score[:, 0]


def freihand_scores(
    joints: Tensor, target_joints: Tensor, vertices: Tensor, target_vertices: Tensor
) -> dict[str, Tensor]:
    """Per-sample scores of the FreiHAND benchmark; their means over samples are what its scorer prints.

    Parameters
    ----------
    joints, target_joints
        (B, 21, 3), metres.
    vertices, target_vertices
        (B, 778, 3), metres. Joints and vertices are aligned separately, reflections allowed.

    Returns
    -------
    dict
        ``joints``, ``vertices``: mean error as given; ``joints_aligned``, ``vertices_aligned``: after alignment;
        ``…_auc``: area over 0–50 mm; ``f5``, ``f15``, ``f5_aligned``, ``f15_aligned``: F-score at 5 and 15 mm.
    """
    limits = torch.linspace(0, 0.05, 100, dtype=torch.float64)
    scores = {}
    for name, pred, target in (("joints", joints, target_joints), ("vertices", vertices, target_vertices)):
        aligned = procrustes(pred, target, reflection=True).apply(pred)
        for suffix, points in (("", pred), ("_aligned", aligned)):
            errors = joint_errors(points, target)
            scores[name + suffix] = errors.mean(1)
            scores[f"{name}{suffix}_auc"] = auc(errors, limits)
            if name == "vertices":
                f = f_score(points, target, (0.005, 0.015))
                scores["f5" + suffix], scores["f15" + suffix] = f[:, 0], f[:, 1]
    return scores
