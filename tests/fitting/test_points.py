"""Points without a mesh equal points of the mesh, and their derivatives are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metro.body.arrays import BodyData
from metro.body.model import BodyModel
from metro.body.rotation import rot_from_aa
from metro.fitting.points import PosedPoints, right_jacobian

BATCH = 3


@pytest.fixture
def draws() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Axis-angle (B, 24, 3), betas (B, 10), translation (B, 3)."""
    g = torch.Generator().manual_seed(0)
    pose = 0.6 * torch.randn(BATCH, 24, 3, generator=g, dtype=torch.float64)
    betas = torch.randn(BATCH, 10, generator=g, dtype=torch.float64)
    return pose, betas, torch.randn(BATCH, 3, generator=g, dtype=torch.float64)


def evaluate(points: PosedPoints, pose_BJ3, betas_BS, transl_B3) -> torch.Tensor:
    rot = rot_from_aa(pose_BJ3).permute(2, 3, 1, 0)
    return points.evaluate(rot, betas_BS.T, transl_B3.T).points_CKB.permute(2, 1, 0)


@pytest.mark.parametrize("name", ["j24", "h36m17", "coco17"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_equal_those_of_the_mesh(body: BodyData, draws, name: str, dtype: torch.dtype) -> None:
    pose, betas, transl = (x.to(dtype) for x in draws)
    model = BodyModel(body, dtype)
    points = PosedPoints(body, body.regressors[name], dtype=dtype)
    expected = model.regress(name, model(pose.flatten(1), betas).vertices)
    assert (evaluate(points, pose, betas, 0 * transl) - expected).abs().max() < 1e-6
    moved = evaluate(points, pose, betas, transl) - expected
    assert (moved - transl[:, None]).abs().max() < 1e-6


def test_jacobian_equals_autograd(body: BodyData, draws) -> None:
    rigid = replace(body, posedirs=np.zeros_like(body.posedirs))  # their change with the pose is left out on purpose
    points = PosedPoints(rigid, rigid.regressors["j24"], dtype=torch.float64)
    pose, betas, transl = draws
    rows = torch.randn(3, 2, 24, BATCH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def along_rows(pose, betas, transl):
        return torch.einsum("crkb,bkc->rkb", rows, evaluate(points, pose, betas, transl))

    by_pose, by_betas, by_transl = torch.autograd.functional.jacobian(along_rows, (pose, betas, transl))
    own = [torch.diagonal(j, dim1=2, dim2=3) for j in (by_pose.flatten(4), by_betas, by_transl)]  # (R, K, U', B)
    posed = points.evaluate(rot_from_aa(pose).permute(2, 3, 1, 0), betas.T, transl.T)
    ours = points.jacobian(posed, right_jacobian(pose).permute(2, 3, 1, 0), rows)
    assert torch.allclose(ours, torch.cat(own, 2), atol=1e-10)


def test_jacobian_of_the_root_is_of_its_right_tangent(body: BodyData, draws) -> None:
    points = PosedPoints(body, body.regressors["j24"], dtype=torch.float64)
    pose, betas, transl = draws
    rot = rot_from_aa(pose).permute(2, 3, 1, 0)
    eye = torch.eye(3, dtype=torch.float64)
    rows = eye[:, :, None, None].expand(3, 3, 24, BATCH).contiguous()
    tangent = eye[:, :, None, None].expand(3, 3, 24, BATCH)
    ours = points.jacobian(points.evaluate(rot, betas.T, transl.T), tangent, rows)[:, :, :3]
    for axis in range(3):
        shifted = []
        for step in (1e-5, -1e-5):
            turned = rot.clone()
            turned[:, :, 0] = torch.einsum("cdb,de->ceb", rot[:, :, 0], rot_from_aa(step * eye[axis]))
            shifted.append(points.evaluate(turned, betas.T, transl.T).points_CKB)
        assert torch.allclose(ours[:, :, axis], (shifted[0] - shifted[1]) / 2e-5, atol=1e-8)


def test_right_jacobian_near_zero_and_beyond() -> None:
    for length in (0.0, 1e-4, 0.03, 1.0, 3.0):
        aa = torch.tensor([0.6, -0.64, 0.48], dtype=torch.float64) * length
        step = torch.tensor([2e-6, 1e-6, -1e-6], dtype=torch.float64)
        predicted = rot_from_aa(aa) @ rot_from_aa(right_jacobian(aa) @ step)
        assert torch.allclose(rot_from_aa(aa + step), predicted, atol=1e-11)
