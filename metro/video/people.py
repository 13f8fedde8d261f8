"""People in a frame, placed by a camera of the whole frame, which does not jump with the boxes; and their smoothing.

Frames as in `metro.export.predictor`: camera axes (x right, y down, z forward), metres, root-relative; pixels are
OpenCV's. Shape suffixes: P person, V vertex, J joint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from metro.export.folder import CONTEXT
from metro.export.predictor import Prediction
from metro.video.smooth import one_euro
from metro.viz.camera import FOCAL, project
from metro.viz.overlay import Image, draw_mesh
from metro.words import CROP_PX

LEAST_SIZE = 1e-3
"""Pixels a metre at least: a size is divided by."""
COLOURS = (
    *((0.42, 0.62, 0.88), (0.95, 0.72, 0.45), (0.52, 0.78, 0.56), (0.87, 0.53, 0.58), (0.70, 0.60, 0.87)),
    *((0.45, 0.78, 0.80), (0.85, 0.80, 0.45), (0.72, 0.66, 0.60)),
)
"""Mesh colours of people, which begin again after the last."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A person in a frame."""

    person: int
    box: np.ndarray
    """(5,) tight x, y, width, height, pixels, and the score of whoever found it, or NaN."""
    left: bool
    """Whether it is a left hand, which is the mirror image of what the network knows."""
    vertices: np.ndarray
    """(V, 3)."""
    joints: np.ndarray
    """(J, 3)."""
    size: float
    """Pixels that a metre at the root's distance covers."""
    root: np.ndarray
    """(2,) pixel of the root."""

    @property
    def joints_2d(self) -> np.ndarray:
        """(J, 2) pixels."""
        return self.root + self.size * self.joints[:, :2]

    def translation(self, focal: float, image_size: tuple[int, int]) -> np.ndarray:
        """(3,) metres: adding it to the vertices puts them before a pinhole camera, as `Prediction.translation`."""
        centre = (np.array(image_size) - 1) / 2
        return np.append(self.root - centre, focal) / self.size

    def draw(self, image: Image, faces_F3: np.ndarray, ratio: float = 1.0) -> Image:
        """The mesh over a frame that was resized by `ratio`; the faces are the network's."""
        middle, side = self.box[:2] + self.box[2:4] / 2, CONTEXT * self.box[2:4].max()
        focal = FOCAL * side / CROP_PX  # as over a photograph
        vertices = self.vertices + np.append(self.root - middle, focal) / self.size
        x, y = ratio * (middle + 0.5) - 0.5
        intrinsics = np.array([[ratio * focal, 0, x], [0, ratio * focal, y], [0, 0, 1]])
        faces_F3 = outside(faces_F3, self.left)
        return draw_mesh(image, vertices, faces_F3, intrinsics, colour=COLOURS[self.person % len(COLOURS)])


def outside(faces_F3: np.ndarray, left: bool) -> np.ndarray:
    """Faces of the network's mesh, or of its mirror image: anticlockwise seen from outside."""
    return faces_F3[:, ::-1] if left else faces_F3


def placed(prediction: Prediction, person: int, box_6: np.ndarray, left: bool) -> Placed:
    """A prediction by the camera of the whole frame instead of its crop's."""
    zoom = prediction.affine[0, 0]
    root = prediction.to_image(project(np.zeros((1, 3)), prediction.camera, prediction.crop_size))[0]
    size = float(prediction.camera[0]) * prediction.crop_size / 2 / zoom
    return Placed(person, box_6[:5], left, prediction.vertices, prediction.joints, max(size, LEAST_SIZE), root)


class Smoother:
    """Smooths people over a sequence of frames: meshes, joints, and where they stand, all alike.

    Parameters
    ----------
    fps
        Frames a second.
    patience
        Frames after which a person who was lost begins anew.
    """

    def __init__(self, fps: float, patience: int) -> None:
        self.fps, self.patience = fps, patience
        self.last: dict[int, tuple[int, dict[str, np.ndarray]]] = {}  # by person: frame; values and speeds (2, …)

    def __call__(self, frame: int, people: Sequence[Placed]) -> list[Placed]:
        """People of a frame, whose number is higher than the last one's."""
        self.last = {person: past for person, past in self.last.items() if frame - past[0] < self.patience}
        return [self._smooth(frame, person) for person in people]

    def _smooth(self, frame: int, person: Placed) -> Placed:
        # A logarithm of the size, times the metre or so from the root to hands and feet, is how far these move.
        new = {
            "vertices": person.vertices.astype(np.float64),
            "joints": person.joints.astype(np.float64),
            "size": np.log([person.size]),
            "root": person.root,
        }
        if person.person not in self.last:
            state = {name: np.stack([value, np.zeros_like(value)]) for name, value in new.items()}
        else:
            before, old = self.last[person.person]
            seconds = (frame - before) / self.fps
            metres = dict.fromkeys(new, 1.0) | {"root": person.size}
            state = {
                name: np.stack(one_euro(value, old[name][0], old[name][1], seconds, metres[name]))
                for name, value in new.items()
            }
        self.last[person.person] = frame, state
        return replace(
            person,
            vertices=state["vertices"][0],
            joints=state["joints"][0],
            size=float(np.exp(state["size"][0, 0])),
            root=state["root"][0],
        )

    def state(self) -> dict[str, np.ndarray]:
        """All that later frames depend on."""
        if not self.last:
            return {}
        frames, states = zip(*self.last.values(), strict=True)
        stacked = {name: np.stack([state[name] for state in states]) for name in states[0]}
        return {"person": np.array([*self.last]), "frame": np.array(frames), **stacked}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from where `state` was taken."""
        for row, (person, frame) in enumerate(zip(state.get("person", ()), state.get("frame", ()), strict=True)):
            arrays = {name: state[name][row] for name in ("vertices", "joints", "size", "root")}
            self.last[int(person)] = int(frame), arrays
