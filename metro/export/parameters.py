"""Body model parameters of predicted people, and the arrays that other programs read them from.

Shape legend: N frame, J joint, S shape coefficient. Metres, radians, axis-angle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metro.words import HAND_KINDS


@dataclass(frozen=True, eq=False)
class Parameters:
    """What a body model would have to be told to make a person's mesh."""

    pose_aa: np.ndarray
    """(3 J,) the root first, turning the body into camera axes (x right, y down, z forward)."""
    betas: np.ndarray
    """(S,)."""
    transl: np.ndarray
    """(3,) into the frame of the mesh, as `BodyModel` takes it."""
    rest_root: np.ndarray
    """(3,) the joint that the root turns about, of the body of `betas` at rest."""
    kind: str
    """The body model: betas of one mean nothing to another."""
    gender: str


def arrays(people: Sequence[Parameters], place_N3: ArrayLike, fps: float = 30.0) -> dict[str, np.ndarray]:
    """Arrays of one person in N frames, under the names that readers expect.

    In camera axes, as `smplx` takes them: ``global_orient`` (N, 3), ``body_pose`` (N, 69), or of a hand ``hand_pose``
    (N, 45), and ``transl`` (N, 3), which puts the body before the camera.

    In a viewer's axes (x right, y up, z to the viewer; the camera at the origin), as AMASS names them and Blender's
    SMPL add-on (format "AMASS (Y-up)") and AITViewer read them: ``poses`` (N, 72), of a hand (N, 48), ``trans`` (N, 3),
    ``gender`` and ``mocap_framerate``.

    For both ``betas`` (S,), the mean over the frames, which belong to the body that ``body`` names.

    Parameters
    ----------
    people
        The person in each frame.
    place_N3
        What puts the person's mesh before the camera (`Prediction.translation`).
    fps
        Frames per second. A single picture has none, but readers want a number.
    """
    from scipy.spatial.transform import Rotation

    pose_NP = np.stack([person.pose_aa for person in people]).astype(np.float64)
    # The root turns about its joint, not about the origin; other axes and other betas leave that joint in place.
    joint_N3 = np.stack([person.transl + person.rest_root for person in people]) + np.asarray(place_N3, np.float64)
    rest_3 = np.mean([person.rest_root for person in people], axis=0)
    root_N3 = (Rotation.from_euler("x", 180, degrees=True) * Rotation.from_rotvec(pose_NP[:, :3])).as_rotvec()
    kind = people[0].kind
    numbers = {
        "global_orient": pose_NP[:, :3],
        "hand_pose" if kind in HAND_KINDS else "body_pose": pose_NP[:, 3:],
        "transl": joint_N3 - rest_3,
        "betas": np.mean([person.betas for person in people], axis=0),
        "poses": np.concatenate((root_N3, pose_NP[:, 3:]), 1),
        "trans": joint_N3 * [1, -1, -1] - rest_3,
        "mocap_framerate": np.array(fps),
    }
    words = {"gender": np.array(people[0].gender), "body": np.array(kind)}
    return {name: array.astype(np.float32) for name, array in numbers.items()} | words
