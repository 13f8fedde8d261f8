"""Adults sampled from Anny and posed into SMPL's T-pose.

Shape suffixes: N people, V vertices, B bones. Frame everywhere: metres, y up, +z front, left = +x (Anny has z up).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from metro.errors import MetroError

Shapes = dict[str, torch.Tensor]
"""Anny's phenotype parameters of N people, each (N,)."""

# The height parameter is drawn closer to its middle than Anny's distribution has it: stature then varies by 10.6 cm
# over both sexes, as in adults, not by 12.7 cm.
STATURE_SPREAD = 0.7

_GENDERS = {"male": (0.0, 0.1), "female": (0.9, 0.1)}  # Anny's gender parameter: lower end and width

# Bones that the hand's own rotation reaches.
_PALM = ("wrist", "metacarpal1", "metacarpal2", "metacarpal3", "metacarpal4")


@dataclass(frozen=True)
class Posed:
    """N people in the T-pose."""

    rest_NV3: np.ndarray
    heads_NB3: np.ndarray
    """Bone heads in Anny's rest pose."""
    turns_NB33: np.ndarray
    """World rotation of each bone from the rest pose to the T-pose."""
    placed_NB3: np.ndarray
    """Bone heads in the T-pose."""


class Source:
    """An Anny model: mesh, rig, and people drawn from its calibrated distribution of adults.

    Parameters
    ----------
    options
        What Anny is constructed with: topology, local changes.

    Raises
    ------
    MetroError
        Anny is not installed.
    """

    def __init__(self, **options: Any) -> None:
        anny = import_anny()
        self.model = anny.Anny(phenotypes="all", skinning_method="lbs", **options).to(torch.float32)
        self.bones: list[str] = list(self.model.bone_labels)
        self.index = {bone: i for i, bone in enumerate(self.bones)}
        self.parents: list[int] = list(self.model.bone_parents)
        self.faces: np.ndarray = self.model.get_triangular_faces().numpy()
        self.template: np.ndarray = y_up(self.model.template_vertices.numpy().astype(np.float64))
        indices, weights = self.model.vertex_bone_indices.numpy(), self.model.vertex_bone_weights.numpy()
        summed = np.zeros((len(self.template), len(self.bones)), np.float32)
        np.add.at(summed, (np.arange(len(summed))[:, None], indices), weights)
        self.weights: np.ndarray = summed / summed.sum(1, keepdims=True)

    def sample(self, count: int, seed: int, gender: str = "neutral", stature_spread: float = STATURE_SPREAD) -> Shapes:
        """Draw adults of 18 to 75 years, of both sexes alike or of one.

        Height, weight, muscle and proportions follow the drawn sex and age, ancestry a flat-ended Dirichlet.
        """
        from anny.shape_distribution import SimpleShapeDistribution

        torch.manual_seed(seed)
        ages = torch.distributions.Uniform(torch.tensor(18.0), torch.tensor(75.0))
        distribution = SimpleShapeDistribution(self.model, morphological_age_distribution=ages)
        _, drawn = distribution.sample(count)
        within = torch.rand(count)
        if gender == "neutral":
            drawn["gender"] = (torch.rand(count) < 0.5).float() * 0.9 + 0.1 * within
        else:
            low, width = _GENDERS[gender]
            drawn["gender"] = low + width * within
        male = drawn["gender"] < 0.5
        for name in ("height", "weight", "muscle", "proportions"):
            both = [
                getattr(distribution, f"{sex}_conditional_{name}_distribution").get_torch_distribution(drawn["age"])
                for sex in ("boys", "girls")
            ]
            drawn[name] = torch.where(male, both[0].sample(), both[1].sample()).float()
        drawn["height"] = (0.5 + stature_spread * (drawn["height"] - 0.5)).clamp(0, 1)
        ancestry = torch.distributions.Dirichlet(torch.ones(3) * 0.5).sample((count,))
        drawn |= {name: ancestry[:, i] for i, name in enumerate(("african", "asian", "caucasian"))}
        return {name: values.float() for name, values in drawn.items()}

    @torch.no_grad()
    def rest(self, people: Shapes, batch: int = 50, **others: Shapes) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (N, V, 3) and bone heads (N, B, 3) in Anny's rest pose."""
        vertices, heads = [], []
        for begin in range(0, len(people["age"]), batch):
            part = slice(begin, begin + batch)
            phenotype = {name: values[part] for name, values in people.items()}
            identity = torch.eye(4)[None, None].repeat(len(phenotype["age"]), self.model.bone_count, 1, 1)
            more = {name: {k: v[part] for k, v in values.items()} for name, values in others.items()}
            out = self.model(pose_parameters=identity, phenotype_kwargs=phenotype, **more)
            vertices.append(y_up(out["rest_vertices"].numpy()))
            heads.append(y_up(out["rest_bone_heads"].numpy()))
        return np.concatenate(vertices), np.concatenate(heads).astype(np.float64)

    def posed(self, people: Shapes, batch: int = 50, **others: Shapes) -> Posed:
        """The people in the T-pose: everything needed to skin them."""
        rest, heads = self.rest(people, batch, **others)
        turns = self.t_pose(heads)
        return Posed(rest, heads, turns, self.place(heads, turns))

    def skin(self, people: Posed, chosen: np.ndarray | None = None) -> np.ndarray:
        """T-pose vertices (N, V, 3) float32 of all or of the chosen vertices."""
        rest, weights = people.rest_NV3, self.weights
        if chosen is not None:
            rest, weights = rest[:, chosen], weights[chosen]
        return skin(rest, people.heads_NB3, people.turns_NB33, people.placed_NB3, weights)[0]

    def place(self, heads_NB3: np.ndarray, turns_NB33: np.ndarray) -> np.ndarray:
        """Bone heads after each bone is turned by its world rotation, parents first."""
        placed = np.zeros_like(heads_NB3)
        placed[:, 0] = heads_NB3[:, 0]
        for bone, parent in enumerate(self.parents):
            if parent >= 0:
                along = heads_NB3[:, bone] - heads_NB3[:, parent]
                placed[:, bone] = placed[:, parent] + np.einsum("nij,nj->ni", turns_NB33[:, parent], along)
        return placed

    def t_pose(self, heads_NB3: np.ndarray) -> np.ndarray:
        """World rotations (N, B, 3, 3) from the rest pose: arms along x, palms down, fingers straight, legs down."""
        turns = np.broadcast_to(np.eye(3), (*heads_NB3.shape[:2], 3, 3)).copy()
        for side in ("L", "R"):
            turns_of_arm = self._arm(heads_NB3, side)
            for bone, turn in (turns_of_arm | self._leg(heads_NB3, side)).items():
                turns[:, self.index[f"{bone}.{side}"]] = turn
        return turns

    def _arm(self, heads_NB3: np.ndarray, side: str) -> dict[str, np.ndarray]:
        def head(bone: str) -> np.ndarray:
            return heads_NB3[:, self.index[f"{bone}.{side}"]]

        sign = 1.0 if side == "L" else -1.0
        outward = np.array([sign, 0.0, 0.0])
        upper = _between(head("lowerarm01") - head("upperarm01"), outward[None])
        lower = _between(_turn(upper, head("wrist") - head("lowerarm01")), outward[None]) @ upper
        # The hand: its length along x, its breadth (index to little finger) along -z .. +z, so the palm looks down.
        length = (head("finger3-1") + head("finger4-1")) / 2 - head("wrist")
        breadth = head("finger2-1") - head("finger5-1")
        target = _frame(np.broadcast_to(outward, length.shape), np.broadcast_to([0.0, 0.0, 1.0], length.shape))
        hand = target @ np.swapaxes(_frame(length, breadth), -1, -2)
        # What is left between forearm and hand is mostly twist; the arm's bones share it out.
        left_over = Rotation.from_matrix(hand @ np.swapaxes(lower, -1, -2)).as_rotvec()
        twist = (left_over @ outward)[:, None] * outward

        def twisted(share: float, turn: np.ndarray) -> np.ndarray:
            return Rotation.from_rotvec(twist * share).as_matrix() @ turn

        turns = {
            "clavicle": _about_z(sign * np.deg2rad(8)),
            "shoulder01": _about_z(sign * np.deg2rad(14)),
            "upperarm01": twisted(0.10, upper),
            "upperarm02": twisted(0.25, upper),
            "lowerarm01": twisted(0.45, lower),
            "lowerarm02": twisted(0.8, lower),
            **dict.fromkeys((*_PALM, *(f"finger1-{k}" for k in (1, 2, 3))), hand),
        }
        for finger in range(2, 6):
            for k, droop in ((1, 2), (2, 6), (3, 9)):  # nearly straight; the last bone has no end to aim with
                if k < 3:
                    along = _turn(hand, head(f"finger{finger}-{k + 1}") - head(f"finger{finger}-{k}"))
                aim = along.copy()
                aim[:, 1] = -np.linalg.norm(along, axis=1) * np.sin(np.deg2rad(droop))
                aim[:, 2] *= 0.6
                turns[f"finger{finger}-{k}"] = _between(along, aim) @ hand
        return turns

    def _leg(self, heads_NB3: np.ndarray, side: str) -> dict[str, np.ndarray]:
        def head(bone: str) -> np.ndarray:
            return heads_NB3[:, self.index[f"{bone}.{side}"]]

        sign = 1.0 if side == "L" else -1.0
        thigh_aim = np.array([[sign * np.sin(np.deg2rad(4)), -1, 0.0]])
        shank_aim = np.array([[sign * np.sin(np.deg2rad(1)), -1, -0.05]])
        thigh = _between(head("lowerleg01") - head("upperleg01"), thigh_aim)
        shank = _between(_turn(thigh, head("foot") - head("lowerleg01")), shank_aim) @ thigh
        forward = head("toe3-1") - head("foot")
        forward[:, 1] = 0
        toes_out = np.deg2rad(10)
        foot = _between(forward, np.array([[sign * np.sin(toes_out), 0, np.cos(toes_out)]]))
        toes = [bone.removesuffix(f".{side}") for bone in self.bones if bone.startswith("toe") and bone.endswith(side)]
        return {
            **{"upperleg01": thigh, "upperleg02": thigh, "lowerleg01": shank, "lowerleg02": shank},
            **dict.fromkeys(("foot", *toes), foot),
        }


def import_anny() -> Any:
    """The `anny` package.

    Raises
    ------
    MetroError
        It is not installed.
    """
    try:
        import anny
    except ImportError:
        raise MetroError("building the open body needs Anny: pip install 'metro[build]'") from None
    return anny


def y_up(points: np.ndarray) -> np.ndarray:
    """Anny's axes (z up, facing -y) to ours."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def skin(
    rest_NV3: np.ndarray, heads_NB3: np.ndarray, turns_NB33: np.ndarray, placed_NB3: np.ndarray, weights_VB: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Linear blend skinning with world rotations: vertices (N, V, 3) and blended transforms (N, V, 3, 4), float32."""
    shift = placed_NB3 - np.einsum("nbij,nbj->nbi", turns_NB33, heads_NB3)
    bones = np.concatenate([turns_NB33, shift[..., None]], -1).astype(np.float32)
    flat = bones.reshape(*bones.shape[:2], 12)
    blended = np.matmul(weights_VB.astype(np.float32)[None], flat).reshape(len(bones), len(weights_VB), 3, 4)
    rest = np.broadcast_to(rest_NV3, (len(bones), *rest_NV3.shape[1:])).astype(np.float32)
    return np.einsum("nvij,nvj->nvi", blended[..., :3], rest) + blended[..., 3], blended


def _turn(rot_N33: np.ndarray, vector_N3: np.ndarray) -> np.ndarray:
    return np.einsum("nij,nj->ni", rot_N33, vector_N3)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def _between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Smallest rotations (N, 3, 3) that take the directions `start` (N, 3) to `end`, (N, 3) or (1, 3)."""
    start = _unit(start)
    end = np.broadcast_to(_unit(end), start.shape)
    axis, cosine = np.cross(start, end), (start * end).sum(-1)
    cross = np.zeros((*start.shape[:-1], 3, 3))
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -axis[..., 2], axis[..., 1], -axis[..., 0]
    cross -= np.swapaxes(cross, -1, -2)
    return np.eye(3) + cross + cross @ cross / (1 + cosine)[..., None, None]


def _frame(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Orthonormal frames (N, 3, 3) with columns along x, across both, and close to z."""
    x = _unit(x)
    y = _unit(np.cross(z, x))
    return np.stack([x, y, np.cross(x, y)], -1)


def _about_z(angle: float) -> np.ndarray:
    return Rotation.from_rotvec([0, 0, angle]).as_matrix()
