"""`metro body render`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from metro.cli.options import Between, OutFile, Place, check_new
from metro.words import BodyKind, Gender

if TYPE_CHECKING:
    import numpy as np

# Degrees about x, y, z for named joints, in the model frame (y up, +z front, left = +x).
_BODY_POSES: dict[str, dict[str, tuple[float, float, float]]] = {
    "T-pose": {},
    "standing": {
        **{"left_shoulder": (0, -5, -70), "right_shoulder": (0, 5, 70)},
        **{"left_elbow": (0, -12, 0), "right_elbow": (0, 12, 0)},
    },
    "running": {
        **{"left_hip": (-65, 0, 2), "right_hip": (20, 0, -2), "left_knee": (80, 0, 0), "right_knee": (45, 0, 0)},
        **{"left_shoulder": (0, 35, -60), "right_shoulder": (0, 60, 55), "right_ankle": (25, 0, 0)},
        **{"left_elbow": (0, -85, 0), "right_elbow": (0, 85, 0), "spine1": (8, 0, 0)},
    },
    "sitting": {
        **{"left_hip": (-88, 0, 8), "right_hip": (-88, 0, -8), "left_knee": (85, 0, 0), "right_knee": (85, 0, 0)},
        **{"left_shoulder": (0, -30, -66), "right_shoulder": (0, 30, 66), "spine1": (8, 0, 0)},
        **{"left_elbow": (0, -45, 0), "right_elbow": (0, 45, 0)},
    },
    "arms up": {
        **{"left_shoulder": (0, -20, 60), "right_shoulder": (0, 20, -60), "head": (-12, 0, 0)},
        **{"left_collar": (0, 0, 15), "right_collar": (0, 0, -15)},
    },
}
_HAND_POSES = ("flat", "mean pose", "component 1 +", "component 1 -", "component 2 -")
_TURNS = (0.0, -50.0, 180.0)


def render(
    out: OutFile,
    /,
    *,
    kind: BodyKind = "open",
    gender: Gender = "neutral",
    path: Place | None = None,
    size: Annotated[int, Parameter(validator=Between(16, 4096))] = 320,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw a contact sheet of a body model: poses from three sides, and its first shape directions.

    Parameters
    ----------
    out
        PNG to write.
    kind
        Model to draw.
    gender
        Its variant.
    path
        Licensed file, or folder of them; the open models need none.
    size
        Side of one picture, pixels.
    overwrite
        Replace `out` if it exists.
    """
    import numpy as np

    from metro.body.load import load_body
    from metro.errors import MetroError
    from metro.viz.overlay import grid, save_image, view

    if out.suffix.lower() != ".png":
        raise MetroError(f"{out}: the picture is a PNG; give it that ending")
    check_new(out, overwrite)
    data = load_body(kind, gender, path, partial=True)
    posed, shaped = _meshes(data)
    # One scale for all, so that sizes compare; from the model frame to camera axes: y down, z forward.
    everything = np.stack([*posed.values(), *shaped.values()])
    radius = 0.54 * float(np.ptp(everything, axis=1).max())

    def picture(vertices: np.ndarray, turn: float) -> np.ndarray:
        return view(vertices * [1, -1, -1], data.faces, size, yaw_deg=turn, radius=radius)

    images = [picture(mesh, turn) for turn in _TURNS for mesh in posed.values()]
    images += [picture(mesh, 0.0) for mesh in shaped.values()]
    labels = [*posed, *[f"{name}, turned {abs(turn):.0f}°" for turn in _TURNS[1:] for name in posed], *shaped]
    save_image(grid(images, len(posed), labels=labels), out)
    return {"written": str(out), "pictures": len(images)}


def _meshes(data: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Vertices (V, 3) of the example poses, and of one pose at ±2 of the leading betas, by label."""
    import numpy as np
    import torch

    from metro.body.model import BodyModel

    model = BodyModel(data, flat_hand_mean=True)
    if data.is_hand:
        mean, parts = data.hands_mean, data.hands_components
        parts = parts / np.linalg.norm(parts, axis=1, keepdims=True)
        hands = [0 * mean, mean, mean + 1.2 * parts[0], mean - 1.2 * parts[0], mean - 1.2 * parts[1]]
        # Palms are down in the model frame; turn the back of the hand to the viewer, fingers up.
        root = [np.pi / 2, 0, 0]
        poses = {name: np.concatenate([root, hand]) for name, hand in zip(_HAND_POSES, hands, strict=True)}
        rest = poses["flat"]
    else:
        poses = {name: _pose(turns, data.joint_names) for name, turns in _BODY_POSES.items()}
        rest = poses["standing"]
    shapes: dict[str, np.ndarray] = {"mean shape": np.zeros(data.num_betas)}
    for direction in range(2):
        for sign, word in ((2, "+2"), (-2, "-2")):
            shapes[f"beta {direction + 1} = {word}"] = sign * np.eye(data.num_betas)[direction]
    batch = torch.tensor(np.stack([*poses.values(), *[rest] * len(shapes)]), dtype=torch.float32)
    betas = torch.tensor(np.stack([*[np.zeros(data.num_betas)] * len(poses), *shapes.values()]), dtype=torch.float32)
    with torch.no_grad():
        vertices = model(batch, betas).vertices.numpy()
    return dict(zip(poses, vertices[: len(poses)], strict=True)), dict(zip(shapes, vertices[len(poses) :], strict=True))


def _pose(turns: dict[str, tuple[float, float, float]], joint_names: tuple[str, ...]) -> np.ndarray:
    """Axis-angle pose (3 J,) from degrees about the axes of named joints, applied z, then y, then x for arms."""
    import numpy as np
    from scipy.spatial.transform import Rotation

    pose = np.zeros((len(joint_names), 3))
    for name, (x, y, z) in turns.items():
        pose[joint_names.index(name)] = Rotation.from_euler("YZX", [y, z, x], degrees=True).as_rotvec()
    return pose.ravel()
