"""Axis-angle and rotation matrices, differentiable and accurate near 0 and π.

All functions take any leading dimensions and keep dtype and device.
"""

from __future__ import annotations

import torch

_SMALL = 1e-3  # below this angle (radians) series are used; their error is far below float64 rounding of the result


def rot_from_aa(aa: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) of axis-angle vectors (..., 3), radians (Rodrigues' formula).

    Gradients are finite everywhere, at zero too.
    """
    square = (aa * aa).sum(-1)
    small = square < _SMALL**2
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    sinc = torch.where(small, 1 - square / 6 + square**2 / 120, angle.sin() / angle)
    # (1 - cos a) / a² written with the half angle, which does not cancel.
    versine = torch.where(small, 0.5 - square / 24 + square**2 / 720, 0.5 * ((angle / 2).sin() / (angle / 2)) ** 2)
    x, y, z = aa.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).reshape(*aa.shape[:-1], 3, 3)
    outer = aa.unsqueeze(-1) * aa.unsqueeze(-2)
    eye = torch.eye(3, dtype=aa.dtype, device=aa.device)
    # K² = a aᵀ - |a|² I
    return eye + sinc[..., None, None] * cross + versine[..., None, None] * (outer - square[..., None, None] * eye)


def aa_from_rot(rot: torch.Tensor) -> torch.Tensor:
    """Axis-angle vectors (..., 3), angle in [0, π], of rotation matrices (..., 3, 3).

    Goes through the quaternion whose largest component is computed first, so that no angle loses accuracy. At π the
    two possible axes are equally right; one of them is returned.
    """
    quaternion = _quaternion_from_rot(rot)
    real, vector = quaternion[..., 0], quaternion[..., 1:]
    square = (vector * vector).sum(-1)
    small = square < _SMALL**2
    length = torch.where(small, torch.ones_like(square), square).sqrt()
    # angle / sin(angle / 2), real >= 0; asin(s) / s by its series where s is small.
    factor = torch.where(small, 2 + square / 3 + 3 * square**2 / 20, 2 * torch.atan2(length, real) / length)
    return factor.unsqueeze(-1) * vector


def _quaternion_from_rot(rot: torch.Tensor) -> torch.Tensor:
    """Unit quaternions (w, x, y, z), w >= 0."""
    m00, m11, m22 = rot[..., 0, 0], rot[..., 1, 1], rot[..., 2, 2]
    # Four times the squares of w, x, y, z.
    squares = torch.stack((1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22), -1)
    wx, wy, wz = (rot[..., 2, 1] - rot[..., 1, 2], rot[..., 0, 2] - rot[..., 2, 0], rot[..., 1, 0] - rot[..., 0, 1])
    xy, xz, yz = (rot[..., 1, 0] + rot[..., 0, 1], rot[..., 0, 2] + rot[..., 2, 0], rot[..., 2, 1] + rot[..., 1, 2])
    w2, x2, y2, z2 = squares.unbind(-1)
    # Row k is four times the quaternion times its k-th component.
    products = torch.stack(
        (
            torch.stack((w2, wx, wy, wz), -1),
            torch.stack((wx, x2, xy, xz), -1),
            torch.stack((wy, xy, y2, yz), -1),
            torch.stack((wz, xz, yz, z2), -1),
        ),
        -2,
    )
    largest = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quaternion = torch.nn.functional.normalize(products.gather(-2, largest).squeeze(-2), dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
