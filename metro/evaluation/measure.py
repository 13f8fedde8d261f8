"""Scores per sample: ground truth as a protocol defines it, the network's prediction, the metrics of both.

Shape suffixes: B sample, J joint, V vertex, K SMPL joint. Lengths in metres, camera axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metro.body.joints import index_map, names_of
from metro.body.model import BodyModel
from metro.config import CROP_PX
from metro.data.augment import Draws, normalise
from metro.data.loader import EvalPass, made_by_workers
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.evaluation import metrics as m
from metro.evaluation.baselines import BASELINES, Baselines, heading_degrees
from metro.evaluation.protocols import Protocol
from metro.evaluation.strata import overlaps, told
from metro.model.losses import project
from metro.model.metro import Metro
from metro.model.views import Views

CHALLENGE_LIMBS = tuple(
    f"{side}_{joint}" for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist") for side in ("left", "right")
)
"""SMPL joints of the 3DPW challenge's PCK."""
MPI_INF_17 = (*names_of("J14"), "Pelvis", "Spine", "Jaw")
"""Annotated joints that MPI-INF-3DHP's mean error is over."""
_IN_MESH = index_map("H36M17", (*names_of("J14"), "Pelvis", "Torso", "Nose"))
"""What the regressor has for them (SPIN's choice)."""
_STEPS_5_MM = torch.arange(31, dtype=torch.float64) * 5 / 1000
"""Thresholds of MPI-INF-3DHP's area: 0, 5, … 150 mm."""


class Truth(NamedTuple):
    """Ground truth of a batch, camera axes, metres."""

    joints_BJ3: Tensor
    weights_BJ: Tensor
    """1 where a joint is annotated (all 0: the sample does not count), else 0."""
    vertices_BV3: Tensor
    """Minus the mesh's own root; nan where there is no mesh."""
    smpl_BK3: Tensor | None
    """Kinematic joints of the true mesh; nan where there is none."""
    root_B3: Tensor
    """What the true joints are centred at."""
    annotated_BA4: Tensor
    """All annotated joints, with confidence."""


@dataclass(frozen=True)
class Samples:
    """Scores per sample, sorted by sample index. Lengths in metres, shares in [0, 1]; nan: does not apply."""

    index: np.ndarray
    """(N,) position in the dataset."""
    values: dict[str, np.ndarray]
    """Metric → (N,)."""
    joint_errors: dict[str, np.ndarray]
    """`mpjpe`, `pa_mpjpe` and each baseline → (N, J)."""
    attributes: dict[str, np.ndarray]
    """`heading` (degrees), `inside` (share of the joints that are labelled and in the crop, hidden ones included),
    `distance` (metres), `side` (of the square crop, px of the frame), `overlap` (largest share of the box that the box
    of another person of the frame covers; nan: there is no other) → (N,)."""
    baselines: dict[str, dict[str, np.ndarray]]
    """Baseline → headline metric → (N,)."""
    camera: np.ndarray
    """(N, 3) predicted cameras."""

    def __len__(self) -> int:
        return len(self.index)


def measure(
    model: Metro,
    dataset: ShardDataset,
    body: BodyModel,
    protocol: Protocol,
    baseline: Baselines | None = None,
    device: torch.device | str = "cpu",
    *,
    batch_size: int = 64,
    processes: int = 0,
    rank: int = 0,
    world_size: int = 1,
    views: Views | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """Scores of every sample of a dataset, or of this slice of it; see `evaluate` for the parameters.

    Memory holds one row of numbers per sample, and a few batches.

    Parameters
    ----------
    processes
        Processes that share this one's memory, each with one thread: scores are the same to the last bit, however many
        there are. 0: this process, with the threads that it has.
    rank, world_size
        Which slice, of how many.
    """
    check_compatible(model, body, protocol)
    check_people(dataset, protocol)
    model, body = model.to(device).eval(), body.to(device)
    body.require(dataset.genders)
    people, draws = (batch_size, None) if views is None else (max(1, batch_size // len(views)), draws_of(views))
    batches = EvalPass(dataset, model.config, people, rank=rank, world_size=world_size, views=draws)
    overlap_N = torch.from_numpy(overlaps(dataset.labels))

    @torch.inference_mode()
    def scored(number: int) -> Samples:
        batch = batches.batch(number)
        batch["side"] = 200 * torch.from_numpy(dataset.labels["scale"][batch["index"].numpy()]).double()
        batch["overlap"] = overlap_N[batch["index"]]
        batch = {k: v.to(device) for k, v in batch.items()}
        return _scored(batch, see(model, batch, views, batch_size), body, protocol, baseline)

    parts = made_by_workers(scored, range(len(batches)), processes)
    return _table(parts, batches.records, progress)


def _scored(
    batch: Mapping[str, Tensor],
    seen: tuple[Tensor, Tensor | None, Tensor],
    body: BodyModel,
    protocol: Protocol,
    baseline: Baselines | None,
) -> Samples:
    """Scores of a batch of which this was `see`n."""
    camera, joints, vertices = seen
    truth = ground_truth(batch, body, protocol)
    values = score(vertices, truth, body, protocol, protocol.metrics)
    if "token_mpjpe" in protocol.metrics:
        root = protocol.figure.root_rows
        tokens = torch.full_like(truth.joints_BJ3, torch.nan) if joints is None else joints
        values["token_mpjpe"] = m.mpjpe(tokens, truth.joints_BJ3, root=root, weights=truth.weights_BJ)
    if "error_2d" in protocol.metrics:
        values["error_2d"] = _error_2d(mesh_joints(vertices, body, protocol), camera, batch, protocol)
    joint_errors, baselines = _per_joint(vertices, truth, body, protocol), {}
    for name in BASELINES if baseline is not None else ():
        assert baseline is not None
        constant = baseline.predict(name, truth.joints_BJ3, protocol.joint_set)
        baselines[name] = score(constant, truth, body, protocol, protocol.headline)
        joint_errors[name] = _per_joint(constant, truth, body, protocol)["mpjpe"]
    attributes = _attributes(batch, truth, protocol)
    row = (batch["index"], values, joint_errors, attributes, baselines, camera)  # as the fields of Samples
    return Samples(*map(_arrays, row))


def _table(parts: Iterable[Samples], count: int, progress: Callable[[int, int], None] | None) -> Samples:
    """One table of parts that follow one another, `count` rows in all; each number is held once."""

    def room(column: Any) -> Any:
        if isinstance(column, Mapping):
            return {key: room(inner) for key, inner in column.items()}
        return np.empty((count, *column.shape[1:]), column.dtype)

    def fill(column: Any, rows: slice, part: Any) -> None:
        if isinstance(part, Mapping):
            for key, inner in part.items():
                fill(column[key], rows, inner)
        else:
            column[rows] = part

    table: dict[str, Any] = {}
    done = 0
    for part in parts:
        columns = {field.name: getattr(part, field.name) for field in fields(Samples)}
        table = table or room(columns)
        fill(table, slice(done, done + len(part)), columns)
        done += len(part)
        if progress:
            progress(done, count)
    return Samples(**table)


def draws_of(views: Views) -> Draws:
    """The views as the loader draws them."""
    return Draws(views.flip_K, np.ones((len(views), 3)), views.rotation_K, views.scale_K)


def see(
    model: Metro, batch: Mapping[str, Tensor], views: Views | None, most: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Camera (B, 3), joint tokens (B, J, 3), if there are any, and full meshes (B, V, 3) that a network predicts of a
    batch of `EvalPass`, of `most` images at once where it has `views`."""
    if views is None:
        output = model(normalise(batch["image"], batch["colour"]))
        return output.camera, output.joints, output.vertices[-1]
    images = batch["views"].flatten(0, 1)
    parts = []
    for some in images.split(most):
        output = model(normalise(some, torch.ones(len(some), 3, device=some.device)))
        joints = output.joints if model.num_joints else output.mesh_joints  # merged and dropped where not of tokens
        parts.append([t.float().cpu() for t in (output.camera, joints, output.vertices[-1])])
    arrays = (torch.cat(column).unflatten(0, (-1, len(views))).numpy() for column in zip(*parts, strict=True))
    camera, joints, vertices = (torch.from_numpy(array).to(images.device) for array in views.merge(*arrays))
    return camera, joints if model.num_joints else None, vertices


def merge(parts: Sequence[Samples]) -> Samples:
    """Join what several processes measured; a sample measured twice counts once."""
    _, first = np.unique(np.concatenate([p.index for p in parts]), return_index=True)

    def join(columns: Sequence[Any]) -> Any:
        if isinstance(columns[0], Mapping):
            return {key: join([column[key] for column in columns]) for key in columns[0]}
        return np.concatenate(columns)[first]

    return Samples(*(join([getattr(p, field.name) for p in parts]) for field in fields(Samples)))


def ground_truth(batch: Mapping[str, Tensor], body: BodyModel, protocol: Protocol) -> Truth:
    """Ground truth of a batch as the protocol defines it."""
    annotated = batch["joints_3d"][:, protocol.figure.label_rows]
    with_mesh = batch["has_mesh"].bool()
    posed = body.of_people(batch["pose_aa"], batch["betas"], batch.get("gender"))
    vertices = posed.vertices - body.regress(protocol.figure.regressor, posed.vertices)[:, :1]
    missing = torch.where(with_mesh, 0.0, torch.nan)[:, None, None]
    if protocol.truth == "mesh":
        joints = mesh_joints(vertices, body, protocol)
        weights = with_mesh[:, None].expand(-1, joints.shape[1]).double()
        known = with_mesh.double()
        pelvis = torch.zeros_like(vertices[:, 0])
    else:
        joints = annotated[..., :3]
        weights = ((annotated[..., 3] > 0) & batch["has_3d"].bool()[:, None]).double()
        pelvis, sure = batch["joints_3d"][:, _pelvis(protocol)].split((3, 1), -1)
        known = ((sure[:, 0] > 0) & batch["has_3d"].bool()).double()
    if protocol.root == "pelvis":
        root = pelvis.double()
    else:
        root = joints[:, protocol.figure.root_rows].double().mean(1)
        known = weights[:, protocol.figure.root_rows].amin(1)
    smpl = posed.joints + missing if any(k.startswith("challenge") for k in protocol.metrics) else None
    # Without its root a sample cannot be centred.
    return Truth(joints, weights * known[:, None], vertices + missing, smpl, root, batch["joints_3d"])


def score(
    vertices_BV3: Tensor, truth: Truth, body: BodyModel, protocol: Protocol, keys: Sequence[str]
) -> dict[str, Tensor]:
    """Metrics (B,) of predicted full meshes (B, V, 3) that need nothing but the mesh, of those asked for."""
    return _SCORERS[protocol.scorer](vertices_BV3, truth, body, protocol, keys)


def _aligned_scores(
    vertices_BV3: Tensor, truth: Truth, body: BodyModel, protocol: Protocol, keys: Sequence[str]
) -> dict[str, Tensor]:
    own = vertices_BV3 - body.regress(protocol.figure.regressor, vertices_BV3)[:, :1]
    centred, target = _centred(vertices_BV3, truth, body, protocol)
    counted = (truth.weights_BJ > 0).all(1) & truth.vertices_BV3.isfinite().all(-1).all(-1)
    scores = m.freihand_scores(centred, target, own, truth.vertices_BV3.nan_to_num())
    return {k: torch.where(counted, scores[k], torch.nan) for k in keys}


def _centred_scores(
    vertices_BV3: Tensor, truth: Truth, body: BodyModel, protocol: Protocol, keys: Sequence[str]
) -> dict[str, Tensor]:
    joints, weights = mesh_joints(vertices_BV3, body, protocol), truth.weights_BJ
    errors = m.joint_errors(*_centred(vertices_BV3, truth, body, protocol))
    wanted: dict[str, Callable[[], Tensor]] = {
        "mpjpe": lambda: m.weighted_mean(errors, weights),
        "pa_mpjpe": lambda: m.pa_mpjpe(joints, truth.joints_BJ3, weights=weights),
        "pck50": lambda: m.pck(errors, 0.05, weights),
        "auc200": lambda: m.auc(errors, m.WHOLE_MM, weights),
        "mpjpe17": lambda: _mpjpe_17(vertices_BV3, truth, body),
        "pck150": lambda: m.pck(errors, 0.15, weights, strict=True),
        "auc150": lambda: m.mean_pck(errors, _STEPS_5_MM, weights),
    }
    with_mesh = truth.vertices_BV3.isfinite().all(-1).all(-1)
    target = truth.vertices_BV3.nan_to_num()
    own_root = body.regress(protocol.figure.regressor, vertices_BV3)[:, 0]
    wanted["mpve"] = lambda: m.mpve(vertices_BV3, target, pred_root=own_root)
    wanted["pa_mpve"] = lambda: m.pa_mpjpe(vertices_BV3, target)
    if truth.smpl_BK3 is not None:
        smpl = body.regress("kinematic", vertices_BV3)
        true_smpl = truth.smpl_BK3.nan_to_num()
        limbs = index_map("SMPL24", CHALLENGE_LIMBS)
        smpl_errors = m.joint_errors(smpl, true_smpl, root=(0,))
        challenge: dict[str, Callable[[], Tensor]] = {
            "challenge_mpjpe": lambda: smpl_errors.mean(1),
            "challenge_pa_mpjpe": lambda: m.pa_mpjpe(smpl, true_smpl),
            "challenge_pck50": lambda: m.pck(smpl_errors[:, limbs], 0.05),
            "challenge_auc200": lambda: m.auc(smpl_errors[:, limbs], m.WHOLE_MM),
        }
        wanted |= challenge
    scores = {k: wanted[k]() for k in keys if k in wanted}
    needs_mesh = {k for k in scores if "mpve" in k or k.startswith("challenge")}
    return {k: torch.where(with_mesh, v, torch.nan) if k in needs_mesh else v for k, v in scores.items()}


_SCORERS = {"centred": _centred_scores, "aligned": _aligned_scores}


def mesh_joints(vertices_BV3: Tensor, body: BodyModel, protocol: Protocol) -> Tensor:
    """Joints (B, J, 3) of the protocol's set, regressed from full meshes (B, V, 3)."""
    return body.regress(protocol.figure.regressor, vertices_BV3)[:, protocol.figure.token_rows]


def _centred(vertices_BV3: Tensor, truth: Truth, body: BodyModel, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Joints (B, J, 3) of the mesh and true ones, each minus their own root, in float64."""
    found = body.regress(protocol.figure.regressor, vertices_BV3).double()
    joints = found[:, protocol.figure.token_rows]
    root = found[:, :1] if protocol.root == "pelvis" else joints[:, protocol.figure.root_rows].mean(1, keepdim=True)
    return joints - root, truth.joints_BJ3.double() - truth.root_B3[:, None]


def _pelvis(protocol: Protocol) -> int:
    return index_map(protocol.figure.labels, (protocol.figure.pelvis,))[0]


def _mpjpe_17(vertices_BV3: Tensor, truth: Truth, body: BodyModel) -> Tensor:
    joints, annotated = body.regress("h36m17", vertices_BV3)[:, _IN_MESH], truth.annotated_BA4
    target, pelvis = annotated[:, index_map("J24", MPI_INF_17)], MPI_INF_17.index("Pelvis")
    weights = (target[..., 3] > 0).double() * (truth.weights_BJ.amax(1, keepdim=True) > 0)
    return m.mpjpe(joints, target[..., :3], root=(pelvis,), weights=weights)


def check_people(dataset: ShardDataset, protocol: Protocol) -> None:
    """Refuse data whose people are not those that a protocol is about.

    Raises
    ------
    MetroError
        True meshes are of other bodies than the protocol's, or Human3.6M's records of other subjects or cameras.
    """
    gender_N = dataset.labels["gender"][dataset.labels["has_mesh"]]
    if protocol.genders == "neutral" and gender_N.any():
        raise MetroError(
            f"{dataset.name}: people are posed on bodies of women and men, which protocol {protocol.name} does not "
            "compare with; prepare the dataset with `gender: neutral`, or choose 3dpw-gendered"
        )
    if protocol.genders == "own" and not gender_N.all():
        raise MetroError(
            f"{dataset.name}: people are posed on the neutral body, protocol {protocol.name} needs that of their "
            "gender; prepare the dataset with `gender: own`, or choose 3dpw"
        )
    if not protocol.name.startswith("h36m"):
        return
    for key in dataset.labels["keys"]:
        found = told(key)
        if found.get("subject", "S9") not in ("S9", "S11"):
            raise MetroError(
                f"{dataset.name}: {key.decode()} is of a subject of the training set, protocol {protocol.name} of S9 "
                "and S11 alone; prepare the dataset with `split: test`"
            )
        if protocol.cameras and found.get("camera", protocol.cameras[0]) not in protocol.cameras:
            raise MetroError(
                f"{dataset.name}: {key.decode()} is of camera {found['camera']}, protocol {protocol.name} of "
                f"{', '.join(protocol.cameras)} alone; prepare the dataset with its option `protocol: p2_graphcmr`, or "
                "choose h36m-p1"
            )


def check_compatible(model: Metro, body: BodyModel, protocol: Protocol) -> None:
    """Refuse a model, body and protocol that do not belong together."""
    if model.config.joint_set != protocol.joint_set:
        raise MetroError(
            f"protocol {protocol.name} scores {protocol.joint_set} but the model predicts {model.config.joint_set}; "
            "use a benchmark for bodies with a body model, one for hands with a hand model"
        )
    if model.num_vertices != body.num_vertices:
        raise MetroError(
            f"the model predicts {model.num_vertices} vertices, the {body.kind} body has {body.num_vertices}; "
            "evaluate with the body.kind that the checkpoint was trained with"
        )


def _per_joint(vertices: Tensor, truth: Truth, body: BodyModel, protocol: Protocol) -> dict[str, Tensor]:
    joints, hidden = mesh_joints(vertices, body, protocol), truth.weights_BJ == 0
    errors = {
        "mpjpe": m.joint_errors(*_centred(vertices, truth, body, protocol)),
        "pa_mpjpe": m.aligned_errors(
            joints, truth.joints_BJ3, reflection=protocol.reflection, weights=truth.weights_BJ
        ),
    }
    return {k: v.masked_fill(hidden, torch.nan) for k, v in errors.items()}


def _error_2d(joints_BJ3: Tensor, camera_B3: Tensor, batch: Mapping[str, Tensor], protocol: Protocol) -> Tensor:
    joints_2d = batch["joints_2d"][:, protocol.figure.label_rows]
    distance = CROP_PX / 2 * (project(joints_BJ3, camera_B3) - joints_2d[..., :2]).double().norm(dim=-1)
    return m.weighted_mean(distance, (joints_2d[..., 2] > 0) & batch["has_2d"].bool()[:, None])


def _attributes(batch: Mapping[str, Tensor], truth: Truth, protocol: Protocol) -> dict[str, Tensor]:
    counted = truth.weights_BJ.amax(1) > 0
    nan = torch.full_like(truth.weights_BJ[:, 0], torch.nan)
    seen = batch["joints_2d"]
    inside = (seen[..., :2].abs() <= 1).all(-1) & (seen[..., 2] > 0)
    depth = truth.joints_BJ3[:, protocol.figure.root_rows, 2].mean(1).double()
    return {
        "heading": torch.where(counted, heading_degrees(truth.joints_BJ3, protocol.joint_set).double(), nan),
        "inside": torch.where(batch["has_2d"].bool(), inside.double().mean(1), nan),
        "distance": torch.where(counted & (depth > 0.3), depth, nan),  # root-relative labels have no distance
        "side": batch["side"],
        "overlap": batch["overlap"],
    }


def _arrays(values: Any) -> Any:
    """Tensors, in dictionaries or not, as arrays."""
    return {k: _arrays(v) for k, v in values.items()} if isinstance(values, Mapping) else values.cpu().numpy()
