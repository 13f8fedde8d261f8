"""Protocols against the official scorers' rules, written out one sample at a time, and cases with known answers."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate

from metro.body.joints import index_map
from metro.body.model import BodyModel
from metro.data.loader import EvalPass
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.evaluation import metrics as m
from metro.evaluation.measure import Truth, check_people, ground_truth, score
from metro.evaluation.protocols import PROTOCOLS
from tests.conftest import World

MPI_INF = PROTOCOLS["mpi-inf-3dhp"]


def changed(dataset: ShardDataset, **labels: np.ndarray) -> ShardDataset:
    other = copy.copy(dataset)
    other.labels = {**dataset.labels, **labels}
    return other


def annotated(world: World, vertices_BV3: torch.Tensor) -> torch.Tensor:
    """Labels (B, 24, 4) that a mesh meets, with what stands in for spine and jaw; nothing else is annotated."""
    found = world.body.regress("h36m17", vertices_BV3)
    labels = torch.zeros(len(found), 24, 4)
    names = ("Pelvis", "Torso", "Neck", "Nose", "Head", *(f"{s}_{j}" for s in "RL" for j in LIMBS))
    to = ("Pelvis", "Spine", "Neck", "Jaw", "Head", *(f"{s}_{j}" for s in "RL" for j in LIMBS))
    labels[:, index_map("J24", to), :3] = found[:, index_map("H36M17", names)]
    labels[:, index_map("J24", to), 3] = 1
    return labels


LIMBS = ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist")


def mpi_inf_truth(world: World, labels_BA4: torch.Tensor) -> Truth:
    batch = next(iter(EvalPass(world.dataset, world.model.config, len(labels_BA4))))
    everyone = torch.ones(len(labels_BA4), dtype=torch.bool)
    return ground_truth({**batch, "joints_3d": labels_BA4, "has_3d": everyone}, world.body, MPI_INF)


def test_shares_of_mpi_inf_3dhp_are_strict_and_their_area_is_a_mean() -> None:
    errors = torch.tensor([[0.0, 0.0], [0.1, 0.1], [0.15, 0.1499]], dtype=torch.float64)
    steps = torch.arange(31, dtype=torch.float64) * 5 / 1000
    assert m.pck(errors, 0.15, strict=True).tolist() == [1, 1, 0.5]
    # Of 0, 5, … 150 mm, 30 are above no error, 10 above 100 mm, none above 150 mm and one above 149.9 mm.
    assert m.mean_pck(errors, steps).tolist() == pytest.approx([30 / 31, 10 / 31, 0.5 / 31])
    assert m.mean_pck(errors, steps, torch.tensor([[1, 1], [1, 1], [0, 1]]))[2] == pytest.approx(1 / 31)


def test_mpi_inf_3dhp_by_hand(world: World) -> None:
    """One wrist 200 mm off: 13 of 14 joints count, the mean error is a fourteenth, of 17 joints a seventeenth."""
    vertices = world.body.template_C.reshape(3, -1).T[None].expand(2, -1, -1)
    labels = annotated(world, vertices)
    labels[:, index_map("J24", ("R_Wrist",)), 1] += 0.2
    labels[1, index_map("J24", ("Pelvis",)), 3] = 0  # a person without pelvis cannot be centred
    scores = score(vertices, mpi_inf_truth(world, labels), world.body, MPI_INF, MPI_INF.metrics)
    assert {k: v[0].item() for k, v in scores.items() if k != "pa_mpjpe"} == {
        "mpjpe": pytest.approx(0.2 / 14, abs=1e-6),
        "mpjpe17": pytest.approx(0.2 / 17, abs=1e-6),
        "pck150": pytest.approx(13 / 14),
        "auc150": pytest.approx(13 / 14 * 30 / 31),
    }
    assert all(v[1].isnan() for v in scores.values())


def test_mpi_inf_3dhp_as_its_scorer_counts(world: World) -> None:
    rng = np.random.default_rng(0)
    vertices = world.body.template_C.reshape(3, -1).T[None].expand(6, -1, -1)
    labels = annotated(world, vertices)
    labels[..., :3] += torch.from_numpy(rng.normal(0, 0.06, (6, 24, 3))).float() + torch.tensor([0.3, 0, 4])
    scores = score(vertices, mpi_inf_truth(world, labels), world.body, MPI_INF, MPI_INF.metrics)
    # The set's order of 17 joints, of which the last three are pelvis, spine and jaw; millimetres.
    names = ("Head", "Neck", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist")
    names += ("R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Spine", "Jaw")
    true = 1000 * labels[:, index_map("J24", names), :3].double().numpy()
    found = 1000 * annotated(world, vertices)[:, index_map("J24", names), :3].double().numpy()
    wrong, below, areas = [], [], []
    for gt, pred in zip(true - true[:, 14:15], found - found[:, 14:15], strict=True):
        error = np.sqrt(((gt - pred) ** 2).sum(1))
        wrong.append(error.mean())
        below.append((error[:14] < 150).mean())
        areas.append(np.mean([(error[:14] < limit).mean() for limit in range(0, 151, 5)]))
    assert (1000 * scores["mpjpe17"]).tolist() == pytest.approx(wrong, abs=1e-3)
    assert scores["pck150"].tolist() == pytest.approx(below)
    assert scores["auc150"].tolist() == pytest.approx(areas)


def test_the_challenge_of_3dpw_as_its_scorer_counts(world: World) -> None:
    """24 joints minus the first; limbs 1, 2, 4, 5, 7, 8 and 16 to 21; the integral of the interpolated curve."""
    protocol = PROTOCOLS["3dpw"]
    batch = next(iter(EvalPass(world.dataset, world.model.config, 12)))
    truth = ground_truth(batch, world.body, protocol)
    noise = 0.05 * torch.randn(truth.vertices_BV3.shape[0], 3, 3, generator=torch.Generator().manual_seed(0))
    vertices = truth.vertices_BV3.nan_to_num() @ (torch.eye(3) + noise)
    scores = score(vertices, truth, world.body, protocol, protocol.metrics)
    assert truth.smpl_BK3 is not None
    x = np.arange(0.0, 200.0)
    for row in np.flatnonzero(batch["has_mesh"].numpy()):
        pred = 1000 * (world.data.J_regressor @ vertices[row].double().numpy())
        true = 1000 * truth.smpl_BK3[row].double().numpy()
        error = np.linalg.norm((pred - pred[0]) - (true - true[0]), axis=1)
        limbs = error[[1, 2, 4, 5, 7, 8, *range(16, 22)]]
        curve = np.array([(limbs <= limit).mean() for limit in x])
        area = integrate.quad(lambda t, c=curve: np.interp(t, x / 199, c), 0, 1, points=x / 199, limit=500)[0]
        assert 1000 * scores["challenge_mpjpe"][row].item() == pytest.approx(error.mean(), abs=2e-3)
        assert scores["challenge_pck50"][row].item() == pytest.approx((limbs <= 50).mean())
        assert scores["challenge_auc200"][row].item() == pytest.approx(area, abs=1e-6)
        assert 0 < area < 1


def test_gendered_meshes_are_compared_at_the_regressed_pelvis(world: World) -> None:
    """True people are twice as large as the neutral body says; the network's mesh is that one, moved."""
    twice = replace(world.data, **{k: 2 * getattr(world.data, k) for k in ("v_template", "shapedirs", "posedirs")})
    body, protocol = BodyModel(world.data, variants={"female": twice}.__getitem__), PROTOCOLS["3dpw-gendered"]
    women = changed(world.dataset, gender=np.ones(12, np.uint8))
    check_people(women, protocol)
    (batch,) = EvalPass(women, world.model.config, 12)
    truth = ground_truth(batch, body, protocol)
    half = truth.vertices_BV3.nan_to_num() / 2 + torch.tensor([0.1, 0, 3])
    scores = score(half, truth, body, protocol, protocol.metrics)
    joints = world.data.regressors["h36m17"] @ truth.vertices_BV3[0].double().numpy()
    expected = np.linalg.norm((joints - joints[0])[index_map("H36M17", "J14")], axis=1).mean() / 2
    assert scores["mpjpe"][0].item() == pytest.approx(expected, abs=1e-5)
    assert scores["pa_mpjpe"][0].item() == pytest.approx(0, abs=1e-5)
    assert scores["mpve"][0].item() == pytest.approx(truth.vertices_BV3[0].norm(dim=1).mean().item() / 2, abs=1e-5)
    assert scores["mpjpe"][~batch["has_mesh"]].isnan().all()


@pytest.mark.parametrize(
    ("protocol", "labels", "said"),
    [
        ("3dpw", {"gender": np.ones(12, np.uint8)}, "prepare the dataset with `gender: neutral`, or choose 3dpw-gen"),
        ("3dpw-gendered", {}, "needs that of their gender; prepare the dataset with `gender: own`"),
        ("h36m-p2", {"keys": np.array([b"h36m:S9/Videos/Eating.55011271.mp4@0#0"] * 12)}, "is of camera 55011271"),
        ("h36m-p1", {"keys": np.array([b"h36m:s_07_act_02_subact_01_ca_01/x_000001.jpg#0"] * 12)}, "S9 and S11 alone"),
    ],
)
def test_data_of_another_protocol(world: World, protocol: str, labels: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(MetroError, match=said):
        check_people(changed(world.dataset, **labels), PROTOCOLS[protocol])
