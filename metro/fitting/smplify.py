"""SMPLify in batches: pseudo-meshes from 2D or 3D joints.

Schedule. 3D joints: from a rigid alignment by least squares, at a loose sigma if the asked one is tight; then at the
asked one with the robust penalty, which would throw out whole limbs if it came first. 2D joints: from two facings, at
a loose sigma, then at the asked one; the cheaper facing wins; then rounds of jumps (see `metro.fitting.hypotheses`),
each kept where it lowers the cost.

A pose that is known beforehand, a network's say, narrows the pose prior and the root's rotation to its neighbourhood,
and takes the place of the facings. To start from it and then forget it would gain nothing: noisy image joints lead
away from it as soon as from any other pose.

2D joints are taken to where a lens without distortion would show them, and all that follows, errors included, is in the
picture of a pinhole camera.

Shape legend: N people asked for, B people solved together, K points, R target coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metro.body.arrays import BodyData
from metro.body.joints import JOINT_SETS
from metro.body.rotation import rot_from_aa
from metro.config import CROP_PX, FitConfig
from metro.data.lens import LENSES, undistort_pixels
from metro.data.records import Record
from metro.errors import MetroError
from metro.fitting import gate
from metro.fitting.contact import Contact
from metro.fitting.hypotheses import TORSO, facing, mirrored_in_depth, start_from_image, start_from_space
from metro.fitting.objective import Objective
from metro.fitting.points import PosedPoints
from metro.fitting.prior import Prior, load_prior
from metro.fitting.solver import Solution, minimise
from metro.fitting.state import FitState, concatenate

Array = NDArray[np.float32]

_LOOSE_3D = 0.02  # metres: least sigma of the first stage
# An outlier is a joint in another place, however sharp the others are: least scale of the robust penalty.
_LEAST_ROBUST_3D = 0.08  # metres
_LEAST_ROBUST_2D = 0.04  # × box side
_LOOSE_2D = 8.0  # × sigma_2d in the first stages
_LOOSE_JUMP = 4.0  # × sigma_2d right after a jump
_LARGEST_START = 4 * np.pi  # radians along one axis: two whole turns are a mistake
_LAYOUTS = tuple(len(JOINT_SETS[name]) for name in ("SMPL24", "SMPLX55"))  # alike in the 22 joints of the body
_LEAST_GAIN = 0.05  # by which a jump must lower the cost


@dataclass(frozen=True)
class Fits:
    """Fits of N people, in their order."""

    pose_aa: Array
    """(N, 3 J) axis-angle, root first; the root turns the body into the camera frame. Zero without a fit."""
    betas: Array
    """(N, 10)."""
    transl: Array
    """(N, 3) metres, as `BodyModel` takes it."""
    error_3d: Array
    """(N,) mean distance of the joints used, metres; nan unless 3D joints were fitted."""
    error_2d: Array
    """(N,) mean reprojection error as a share of the box side, in the picture without distortion; nan unless 2D joints
    were fitted."""
    accepted: NDArray[np.bool_]
    """(N,) whether the fit passed the gate."""
    reason: NDArray[np.str_]
    """(N,) why not (`metro.fitting.gate.Reason`); empty if it did."""
    converged: NDArray[np.bool_]
    """(N,) whether the solver stopped by itself."""
    iterations: NDArray[np.int32]
    """(N,) steps of the solver's last stage; 0 where none was tried."""

    def __len__(self) -> int:
        return len(self.accepted)


def fit(
    labels: Mapping[str, np.ndarray] | Sequence[Record],
    body: BodyData,
    config: FitConfig | None = None,
    *,
    start: NDArray[np.floating] | None = None,
    device: torch.device | str = "cpu",
    prior: Prior | None = None,
) -> Fits:
    """Fit pose, shape and position of a body model to joints (SMPLify, Bogo et al., ECCV 2016).

    A person with enough 3D joints is fitted to these, else to the 2D joints. Each result depends on that person alone,
    up to float rounding.

    Parameters
    ----------
    labels
        Records, or label arrays as `ShardDataset.labels` holds them: `joints_2d` (N, 24, 3) frame pixels and
        confidence, `joints_3d` (N, 24, 4) camera frame metres and confidence, `has_2d`, `has_3d` (N,), and for 2D
        fits `center` (N, 2), `scale` (N,) and `intrinsics` (N, 3, 3), nan where unknown. Without intrinsics the camera
        looks at the middle of the box with `config.focal`. `distortion` (N, 8) and `lens` (N,), positions in
        `metro.data.lens.LENSES`, may be left out together: there is no distortion then.
    body
        A body of SMPL's or SMPL-X's layout (J = 24 or 55 joints). The jaw, eyes and fingers of SMPL-X, which no joint
        of J24 shows, stay as they are in its zero pose.
    config
        Weights, schedule and gate; the defaults if left out.
    start
        (N, 3 J) poses to start from and stay near (`config.sigma_start`), such as `metro.fitting.from_mesh` reads off
        predicted meshes: axis-angle, the root turning the body into the camera frame; a row of nan where there is none.
        Shape and position are not needed, as they follow from pose and joints.
    device
        Where to compute.
    prior
        Pose prior over SMPL's 23 joints; `config.prior` if left out.

    Raises
    ------
    MetroError
        The body has not SMPL's joints or no J24 regressor, the prior cannot be read, label arrays are missing, 3D
        joints are not in metres, or the start is no array of poses.
    """
    config = config or FitConfig()
    if body.num_joints not in _LAYOUTS or "j24" not in body.regressors:
        raise MetroError(
            f"body.kind={body.kind}: fitting needs a body with SMPL's or SMPL-X's joints and a j24 regressor; "
            "use open, smpl or smplx"
        )
    arrays = _label_arrays(labels)
    prior = (prior or load_prior(config.prior)).of_body(body).to(device)
    count = len(arrays["joints_2d"])
    contact = Contact.of(body, device) if config.contact else None
    starts = _start_poses(start, count, 3 * body.num_joints)
    started = np.all(np.isfinite(starts), axis=1)
    fits = _empty(count, 3 * body.num_joints, body.num_betas)
    in_space = _Task.in_space(arrays, config)
    in_image = _Task.in_image(arrays, config)
    chosen = (in_space.reason == "") | (in_image.reason != "") & arrays["has_3d"]
    for task, rows in ((in_space, np.flatnonzero(chosen)), (in_image, np.flatnonzero(~chosen))):
        fits.reason[rows] = task.reason[rows]
        rows = rows[task.reason[rows] == ""]
        used = np.flatnonzero((task.conf_NK[rows] > 0).any(0))
        if len(rows) == 0:
            continue
        points = PosedPoints(body, body.regressors["j24"][used], device)
        for alike in (rows[~started[rows]], rows[started[rows]]):
            for first in range(0, len(alike), config.batch_size):
                batch = alike[first : first + config.batch_size]
                _fit_batch(task, batch, used, points, prior, contact, starts[batch], config, fits)
    return fits


@dataclass(frozen=True)
class _Task:
    """Targets of one kind for everybody."""

    target_NKR: NDArray[np.float64]
    conf_NK: NDArray[np.float64]
    focal_N2: NDArray[np.float64] | None
    reason: NDArray[np.str_]

    @staticmethod
    def in_space(arrays: Mapping[str, np.ndarray], config: FitConfig) -> _Task:
        target_NK3, conf_NK = _split(arrays["joints_3d"], arrays["has_3d"])
        gate.check_metres(target_NK3, conf_NK > 0, "joints_3d")
        return _Task(target_NK3, conf_NK, None, gate.judge_input(target_NK3, conf_NK, config))

    @staticmethod
    def in_image(arrays: Mapping[str, np.ndarray], config: FitConfig) -> _Task:
        pixels_NK2, conf_NK = _split(_pinhole_joints(arrays), arrays["has_2d"])
        camera_N33 = np.asarray(arrays["intrinsics"], np.float64)
        side_N1 = 200.0 * np.asarray(arrays["scale"], np.float64)[:, None]
        known_N1 = np.isfinite(camera_N33.reshape(-1, 9)).all(1, keepdims=True)
        centre_N2 = np.where(known_N1, camera_N33[:, :2, 2], np.asarray(arrays["center"], np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            focal_N2 = np.where(known_N1, camera_N33[:, (0, 1), (0, 1)] / side_N1, config.focal / CROP_PX)
            target_NK2 = np.where(conf_NK[..., None] > 0, (pixels_NK2 - centre_N2[:, None]) / side_N1[:, None], 0)
        sound_N = np.isfinite(target_NK2).all((1, 2)) & np.isfinite(focal_N2).all(1) & (focal_N2 > 0).all(1)
        sound_N &= side_N1[:, 0] > 0
        target_NK2[~sound_N] = 0
        reason = gate.judge_input(target_NK2, conf_NK, config)
        no_camera = ~sound_N & ~np.isin(reason, [gate.Reason.NO_JOINTS, gate.Reason.FEW_JOINTS])
        return _Task(target_NK2, conf_NK, focal_N2, np.where(no_camera, gate.Reason.BAD_BOX, reason))


def _pinhole_joints(arrays: Mapping[str, np.ndarray]) -> NDArray[np.float64]:
    """2D joints (N, K, 3) where a lens without distortion shows them; nan where this one can show nothing."""
    joints_NK3 = np.array(arrays["joints_2d"], np.float64)
    for number in set(np.unique(arrays["lens"]).tolist()) - {0}:
        rows = np.flatnonzero(arrays["lens"] == number)
        camera_N33, distortion_N8 = arrays["intrinsics"][rows], arrays["distortion"][rows]
        seen_NK2 = joints_NK3[rows, :, :2]
        joints_NK3[rows, :, :2] = undistort_pixels(seen_NK2, camera_N33, distortion_N8, LENSES[number])
    return joints_NK3


def _split(joints: np.ndarray, has_N: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates, and confidence in [0, 1] that is 0 where anything is missing or not finite."""
    joints = np.asarray(joints, np.float64)
    good_NK = np.isfinite(joints).all(2) & np.asarray(has_N, bool)[:, None]
    return np.where(good_NK[..., None], joints[..., :-1], 0), np.where(good_NK, joints[..., -1], 0).clip(0, 1)


def _fit_batch(
    task: _Task,
    rows: NDArray[np.intp],
    used: NDArray[np.intp],
    points: PosedPoints,
    prior: Prior,
    contact: Contact | None,
    start: NDArray[np.floating],
    config: FitConfig,
    fits: Fits,
) -> None:
    """Fit some people, all of whom have a start or none, and enter them into `fits`."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.as_tensor(array).to(prior.mean_BD)

    in_space = task.focal_N2 is None
    objective = Objective(
        points,
        prior,
        target_BKR=tensor(task.target_NKR[rows][:, used]),
        conf_BK=tensor(task.conf_NK[rows][:, used]),
        sigma=config.sigma_3d if in_space else config.sigma_2d,
        focal_B2=None if task.focal_N2 is None else tensor(task.focal_N2[rows]),
        robust=_robust_scale(in_space, config),
        bending=config.bending,
        contact=contact,
    )
    if np.isfinite(start).all():
        objective = replace(
            objective,
            prior=prior.towards(tensor(start[:, 3:]), config.sigma_start),
            root_B33=rot_from_aa(tensor(start[:, :3])),
            sigma_root=config.sigma_start,
        )
    torso_K = tensor(np.array([JOINT_SETS["J24"][k] in TORSO for k in used]))
    solution = (_solve_space if in_space else _solve_image)(objective, torso_K, config)
    solution = _with_sound_shapes(objective, solution, config)

    predicted_BKR = objective.predict(solution.state)
    visible_BK = (objective.conf_BK > 0).to(predicted_BKR)
    distance_BK = (predicted_BKR - objective.target_BKR).norm(dim=-1)
    error = ((visible_BK * distance_BK).sum(1) / visible_BK.sum(1)).cpu().numpy()
    found = [solution.state.pose_aa(), solution.state.betas, solution.state.transl]
    pose, betas, transl = (t.cpu().numpy() for t in found)
    finite = np.isfinite(np.concatenate((pose, betas, transl), 1)).all(1)
    fits.pose_aa[rows], fits.betas[rows], fits.transl[rows] = (
        np.where(finite[:, None], a, 0) for a in (pose, betas, transl)
    )
    (fits.error_3d if in_space else fits.error_2d)[rows] = error
    fits.reason[rows] = gate.judge_fit(error, finite, in_space, config)
    fits.accepted[rows] = fits.reason[rows] == ""
    fits.converged[rows] = solution.converged_B.cpu().numpy()
    fits.iterations[rows] = solution.iterations_B.cpu().numpy()


def _robust_scale(in_space: bool, config: FitConfig) -> float | None:
    """Scale of the robust penalty in sigmas."""
    if config.robust is None:
        return None
    least = _LEAST_ROBUST_3D / config.sigma_3d if in_space else _LEAST_ROBUST_2D / config.sigma_2d
    return max(config.robust, least)


def _solve_space(objective: Objective, torso_K: Tensor, config: FitConfig) -> Solution:
    loose = replace(objective, sigma=max(objective.sigma, _LOOSE_3D), robust=None)
    state = minimise(loose, start_from_space(objective, torso_K), 15, relative=1e-2, absolute=0.1).state
    return minimise(objective, state, config.iterations)


def _solve_image(objective: Objective, torso_K: Tensor, config: FitConfig) -> Solution:
    known = objective.root_B33
    roots = [known] if known is not None else [facing(objective, yaw) for yaw in config.yaws_deg]
    count, starts = len(objective), len(roots)
    state = concatenate([start_from_image(objective, torso_K, root_B33) for root_B33 in roots])
    person = torch.arange(count, device=torso_K.device)
    twice = objective.select(person.repeat(starts))
    loose = replace(twice, sigma=_LOOSE_2D * objective.sigma)
    state = minimise(loose, state, 12, relative=1e-2, absolute=0.1, damping=10).state
    solution = minimise(twice, state, config.iterations)
    cost_SB = solution.cost_B.reshape(starts, count)
    # Of starts that end alike the first counts: rounding must not decide between a front and a back.
    first_B = (cost_SB <= cost_SB.min(0).values + _LEAST_GAIN).int().argmax(0)
    best = solution.select(first_B * count + person)
    for _ in range(config.jump_rounds):
        best, person = _jump(objective, best, person, config)
    return best


def _jump(objective: Objective, best: Solution, people: Tensor, config: FitConfig) -> tuple[Solution, Tensor]:
    """Try every mirrored bone of some people, and keep the cheapest result where it is cheaper.

    Returns
    -------
    best, people
        The solutions, and for whom they changed: nobody else would gain from another round.
    """
    state, row = mirrored_in_depth(objective.select(people), best.state.select(people))
    person = people[row]
    ends = []
    for part in torch.arange(len(person), device=person.device).split(config.batch_size):
        tried = objective.select(person[part])
        loose = replace(tried, sigma=_LOOSE_JUMP * objective.sigma)
        near = minimise(loose, state.select(part), 4, relative=1e-2, absolute=0.1).state
        ends.append(minimise(tried, near, 6, relative=1e-3, absolute=0.01))
    if not ends:
        return best, people[:0]
    cost = torch.cat([end.cost_B for end in ends])
    lowest_B = torch.full_like(best.cost_B, torch.inf).scatter_reduce(0, person, cost, "amin")
    wins = (cost == lowest_B[person]) & (cost < best.cost_B[person] - _LEAST_GAIN)
    # Two bones may lead to the very same cost: the first counts.
    winners: dict[int, int] = {}
    for number in wins.nonzero()[:, 0].tolist():
        winners.setdefault(int(person[number]), number)
    if not winners:
        return best, people[:0]
    who, which = (torch.tensor(list(x), device=person.device) for x in (winners.keys(), winners.values()))
    state = concatenate([end.state for end in ends]).select(which)
    return best.replaced(who, minimise(objective.select(who), state, config.iterations)), who


def _with_sound_shapes(objective: Objective, solution: Solution, config: FitConfig) -> Solution:
    """Give people of extreme shape the mean shape, and fit their pose to it."""
    extreme = torch.as_tensor(gate.extreme_shape(solution.state.betas.cpu().numpy(), config)).nonzero()[:, 0]
    extreme = extreme.to(solution.cost_B.device)
    if len(extreme) == 0:
        return solution
    state = solution.state.select(extreme)
    state = FitState(state.root_rot, state.joints_aa, torch.zeros_like(state.betas), state.transl)
    again = minimise(replace(objective.select(extreme), fixed_betas=True), state, config.iterations)
    return solution.replaced(extreme, again)


def _start_poses(start: NDArray[np.floating] | None, count: int, size: int) -> NDArray[np.float64]:
    """Poses (N, size) to start from, nan where there is none."""
    if start is None:
        return np.full((count, size), np.nan)
    poses = np.asarray(start, np.float64)
    if poses.shape != (count, size):
        raise MetroError(f"start has shape {poses.shape}; {count} people need ({count}, {size})")
    largest = np.abs(poses[np.isfinite(poses)]).max(initial=0)
    if largest > _LARGEST_START:
        raise MetroError(f"start: rotations by up to {largest:.3g} rad; are they in degrees? Axis-angle is in radians")
    return poses


def _label_arrays(labels: Mapping[str, np.ndarray] | Sequence[Record]) -> dict[str, np.ndarray]:
    """The arrays a fit reads."""
    if isinstance(labels, Mapping):
        wanted = ("joints_2d", "joints_3d", "has_2d", "has_3d", "center", "scale", "intrinsics")
        missing = [name for name in wanted if name not in labels]
        if missing:
            raise MetroError(f"labels for a fit lack {', '.join(missing)}")
        if labels["joints_2d"].shape[1] != len(JOINT_SETS["J24"]):
            raise MetroError(f"fitting reads the 24 joints of J24; these labels have {labels['joints_2d'].shape[1]}")
        count = len(labels["joints_2d"])
        no_lens: dict[str, np.ndarray] = {"distortion": np.zeros((count, 8)), "lens": np.zeros(count, np.uint8)}
        return no_lens | {name: np.asarray(labels[name]) for name in (*wanted, *no_lens) if name in labels}
    records, joints = list(labels), len(JOINT_SETS["J24"])
    empty_2d, empty_3d, unknown = np.zeros((joints, 3)), np.zeros((joints, 4)), np.full((3, 3), np.nan)
    squares = [record.crop_square() for record in records]

    def stack(rows: Sequence[Any], *shape: int) -> np.ndarray:
        return np.array(rows, np.float64).reshape(len(records), *shape)

    return {
        "joints_2d": stack([empty_2d if r.keypoints_2d is None else r.keypoints_2d for r in records], joints, 3),
        "joints_3d": stack([empty_3d if r.joints_3d is None else r.joints_3d for r in records], joints, 4),
        "has_2d": np.array([r.has_2d for r in records], bool),
        "has_3d": np.array([r.has_3d for r in records], bool),
        "center": stack([center for center, _ in squares], 2),
        "scale": stack([scale for _, scale in squares]),
        "intrinsics": stack([unknown if r.intrinsics is None else r.intrinsics for r in records], 3, 3),
        "distortion": stack([np.zeros(8) if r.distortion is None else r.distortion for r in records], 8),
        "lens": np.array([LENSES.index(r.lens) for r in records], np.uint8),
    }


def _empty(count: int, pose: int, betas: int) -> Fits:
    longest = max(map(len, gate.Reason))
    return Fits(
        pose_aa=np.zeros((count, pose), np.float32),
        betas=np.zeros((count, betas), np.float32),
        transl=np.zeros((count, 3), np.float32),
        error_3d=np.full(count, np.nan, np.float32),
        error_2d=np.full(count, np.nan, np.float32),
        accepted=np.zeros(count, bool),
        reason=np.zeros(count, f"U{longest}"),
        converged=np.zeros(count, bool),
        iterations=np.zeros(count, np.int32),
    )
