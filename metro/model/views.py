"""Test-time augmentation: a crop is seen larger, smaller, turned and in the mirror, and the predictions are merged.

What a network says of a view is taken back to the crop as it is: turns and mirror images are undone about the root,
the origin of all predictions, and a box drawn larger leaves a person as large as they are. A mirrored body has its left
where its right was, in its joints and in its mesh, whose halves have to be each other's mirror image, vertex for vertex
(`mirror_vertices`).

The camera is taken back likewise: a point of the crop at u, its sides being -1 and 1, is at F R u / f in the view, for
the turn R, the mirror F and the box's factor f. With u = s (x + t) and x turned as the picture is, the view has the
camera s / f and F R t.

Shape suffixes: B person, K view, S side of the crop, J joint, V vertex, N points, F face, 3 xyz. The first view is the
crop as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from metro.body.figure import FIGURES
from metro.body.joints import flip_permutation
from metro.config import ViewsConfig
from metro.data import crop
from metro.errors import MetroError
from metro.words import Tta

_TURNS = tuple(float(degrees) for degrees in range(-90, 91, 10))
PAPER = ViewsConfig(scales=(0.7, 0.8, 0.9, 1.0, 1.1), rotations_deg=_TURNS, merge="aligned")
"""METRO's 95 views of a hand (official `run_hand_multiscale.py`)."""
TTA: dict[Tta, ViewsConfig] = {
    "none": ViewsConfig(),
    "flip": ViewsConfig(flip=True),
    "few": ViewsConfig(rotations_deg=(-10.0, 0.0, 10.0), flip=True),
    "paper": PAPER,
}
"""Views by the names that commands take."""


@dataclass(frozen=True, eq=False)
class Views:
    """The views of a crop and the way back from them."""

    scale_K: np.ndarray
    """Factor on the side of the box."""
    rotation_K: np.ndarray
    """Counter-clockwise turn of the picture about the crop's middle, degrees."""
    flip_K: np.ndarray
    """bool: mirrored after that."""
    merge_by: str
    """`mean` or `aligned`, see `metro.config.ViewsConfig`."""
    flip_J: np.ndarray
    """Order of the joints after left and right are exchanged."""
    mirror_V: np.ndarray | None
    """Order of the vertices after that; none: there are no mirrored views."""

    def __len__(self) -> int:
        """K."""
        return len(self.scale_K)

    def __str__(self) -> str:
        scales, turns = (" ".join(f"{x:g}" for x in np.unique(a)) for a in (self.scale_K, self.rotation_K))
        mirror = ", each mirrored too" if self.flip_K.any() else ""
        return f"{len(self)} views merged by {self.merge_by}: scales {scales}; turns {turns}{mirror}"

    @property
    def reach(self) -> float:
        """Side of a square that holds all views, over that of the crop."""
        angle_K = np.deg2rad(self.rotation_K)
        return float((self.scale_K * (np.abs(np.cos(angle_K)) + np.abs(np.sin(angle_K)))).max())

    def see(self, wide: np.ndarray, size: int) -> np.ndarray:
        """Pixels (K, S, S, 3) of the views, cut from a larger crop of the same middle and the same pixels."""
        middle_K2 = np.full((len(self), 2), (len(wide) - 1) / 2)
        affine_K23 = crop.crop_affine(middle_K2, size * self.scale_K, size, self.rotation_K, self.flip_K)
        seen_KSS3 = np.empty((len(self), size, size, 3), np.uint8)
        for affine_23, out_SS3 in zip(affine_K23, seen_KSS3, strict=True):
            crop.warp(wide, affine_23, out_SS3)
        return seen_KSS3

    def merge(
        self, camera_BK3: np.ndarray, joints_BKJ3: np.ndarray, vertices_BKV3: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One prediction for each person: camera (B, 3), joints (B, J, 3) and vertices (B, V, 3), float32.

        Aligned predictions stand before the camera of the first view, onto which they were brought.
        """
        joints, vertices = self._back(joints_BKJ3, self.flip_J), self._back(vertices_BKV3, self.mirror_V)
        if self.merge_by == "aligned":
            camera_B3 = camera_BK3[:, 0]
            joints, vertices = (_mean_on_the_first(points) for points in (joints, vertices))
        else:
            camera_B3 = self._mean_camera(camera_BK3)
            joints, vertices = joints.mean(1), vertices.mean(1)
        return camera_B3.astype(np.float32), joints.astype(np.float32), vertices.astype(np.float32)

    @property
    def _turn_K33(self) -> np.ndarray:
        """F R of each view."""
        return crop.turning(self.rotation_K, self.flip_K)

    def _back(self, points_BKN3: np.ndarray, order_N: np.ndarray | None) -> np.ndarray:
        """Points (B, K, N, 3) in the axes of the crop as it is, float64."""
        back_BKN3: np.ndarray = points_BKN3.astype(np.float64) @ self._turn_K33
        if order_N is not None:
            back_BKN3[:, self.flip_K] = back_BKN3[:, self.flip_K][:, :, order_N]
        return back_BKN3

    def _mean_camera(self, camera_BK3: np.ndarray) -> np.ndarray:
        """The camera (B, 3) that puts the mean of the points where, on average, the views' cameras put them: those are
        s x + s t, so that s and s t are averaged."""
        scale_BK = camera_BK3[..., 0].astype(np.float64) * self.scale_K
        shift_BK2 = np.einsum("bki,kij->bkj", camera_BK3[..., 1:].astype(np.float64), self._turn_K33[:, :2, :2])
        scale_B = scale_BK.mean(1)
        if (scale_B == 0).any():
            raise MetroError("the views' cameras have no size together, so there is none between them: leave them out")
        return np.column_stack([scale_B, (scale_BK[..., None] * shift_BK2).mean(1) / scale_B[:, None]])


def views_of(config: ViewsConfig, joint_set: str, mirror: Callable[[], np.ndarray]) -> Views | None:
    """The views that the settings ask for of a body or hand; none where they ask for the crop as it is alone.

    `mirror` gives the mesh's `mirror_vertices`, if they are needed.

    Raises
    ------
    MetroError
        Mirror images of hands are asked for, or of a mesh that has none.
    """
    sides = (False, True) if config.flip else (False,)
    if config.flip and not FIGURES[joint_set].may_flip:
        raise MetroError(
            "views.flip: a mirrored right hand is a left one, which the network does not know; leave it out"
        )
    every = [(s, r, f) for s in config.scales for r in config.rotations_deg for f in sides]
    if len(every) == 1:
        return None
    every.sort(key=lambda view: view != (1, 0, False))  # the crop as it is comes first, the others as they are named
    scale_K, rotation_K, flip_K = (np.array(column) for column in zip(*every, strict=True))
    mirror_V = mirror() if config.flip else None
    return Views(scale_K, rotation_K, flip_K, config.merge, np.array(flip_permutation(joint_set)), mirror_V)


def mirror_vertices(template_V3: np.ndarray, faces_F3: np.ndarray) -> np.ndarray:
    """The vertex (V,) that each one has for its mirror image, left to right (x).

    The nearest one to its place in the mirror. Whether it is the right one is not told by distances, since templates
    may be a little uneven: vertices have to pair up, and triangles to become triangles of the same mesh, turned inside
    out as mirrors do.

    Raises
    ------
    MetroError
        The mesh's halves are not each other's mirror image.
    """
    order_V = cKDTree(template_V3).query(template_V3 * [-1, 1, 1])[1]
    paired = np.array_equal(order_V[order_V], np.arange(len(order_V)))
    if not paired or _cycles(order_V[faces_F3][:, ::-1]) != _cycles(faces_F3):
        raise MetroError("views.flip: the left and the right of this mesh do not correspond; leave flip out")
    return order_V


def _cycles(faces_F3: np.ndarray) -> set[tuple[int, ...]]:
    """Triangles from their lowest vertex on, in their sense of rotation."""
    first_F = faces_F3.argmin(1)[:, None]
    return {tuple(face) for face in np.take_along_axis(faces_F3, (first_F + np.arange(3)) % 3, 1).tolist()}


def _mean_on_the_first(points_BKN3: np.ndarray) -> np.ndarray:
    """Mean (B, N, 3) of all views, each brought onto the first by a similarity, and of the first once more.

    The least-squares rotation (never a reflection), scale and shift: Umeyama 1991.
    """
    target_B1N3 = points_BKN3[:, :1]
    centre_BK13, onto_B113 = points_BKN3.mean(2, keepdims=True), target_B1N3.mean(2, keepdims=True)
    source_BKN3 = points_BKN3 - centre_BK13
    u, size, vt = np.linalg.svd((target_B1N3 - onto_B113).swapaxes(2, 3) @ source_BKN3)
    sign_BK3 = np.ones_like(size)
    sign_BK3[..., 2] = np.linalg.det(u) * np.linalg.det(vt)
    rotation_BK33 = (u * sign_BK3[..., None, :]) @ vt
    extent_BK = np.square(source_BKN3).sum((2, 3))
    scale_BK = np.divide((size * sign_BK3).sum(2), extent_BK, out=np.zeros_like(extent_BK), where=extent_BK > 0)
    aligned_BKN3 = scale_BK[..., None, None] * (source_BKN3 @ rotation_BK33.swapaxes(2, 3)) + onto_B113
    mean_BN3: np.ndarray = (aligned_BKN3.sum(1) + target_B1N3[:, 0]) / (points_BKN3.shape[1] + 1)
    return mean_BN3
