"""Loss terms against cases worked out by hand and against a twin that loops over samples and joints."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import LossConfig, ModelConfig
from metro.errors import MetroError
from metro.mesh.sampling import build_sampling
from metro.model.losses import Target, Targets, metro_loss, project
from metro.model.metro import MetroOutput
from tests.conftest import nearest_levels

SIZES = (5, 11, 23)
ROOT = torch.tensor([2, 3])


def draw(seed: int, has_3d: list[bool], has_mesh: list[bool], joints: int = 14) -> tuple[MetroOutput, Target]:
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng)

    batch = len(has_3d)
    output = MetroOutput(
        camera=normal(batch, 3),
        joints=normal(batch, joints, 3).requires_grad_(),
        vertices=tuple(normal(batch, n, 3).requires_grad_() for n in SIZES),
        mesh_joints=normal(batch, joints, 3).requires_grad_(),
        attention=None,
    )
    target = Target(
        edges=torch.tensor([[0, 1], [1, 4], [3, 2]]),
        joints_3d=normal(batch, joints, 3),
        pelvis_3d=normal(batch, 1, 3),
        has_pelvis=torch.arange(batch) != 1,
        confidence_3d=torch.rand(batch, joints, generator=rng) * (torch.rand(batch, joints, generator=rng) < 0.7),
        has_3d=torch.tensor(has_3d),
        joints_2d=normal(batch, joints, 2),
        confidence_2d=torch.rand(batch, joints, generator=rng) * (torch.rand(batch, joints, generator=rng) < 0.7),
        vertices=tuple(normal(batch, n, 3) for n in SIZES),
        mesh_root=normal(batch, 1, 3),
        has_mesh=torch.tensor(has_mesh),
        root=ROOT if joints == 14 else torch.tensor([0]),
    )
    return output, target


def looped(output: MetroOutput, target: Target, config: LossConfig) -> dict[str, float]:
    """The same terms one number at a time, over the selected samples only."""

    def size(x: float) -> float:
        return abs(x) if config.joint_loss == "l1" else x * x

    terms = {}
    output = MetroOutput(
        output.camera,
        output.joints.detach(),
        tuple(v.detach() for v in output.vertices),
        output.mesh_joints.detach(),
        None,
    )

    def origin(points: torch.Tensor, axis: int) -> float:
        return sum(float(points[r, axis]) for r in target.root) / len(target.root)

    batch, joints = target.confidence_3d.shape
    for name, points in (("joints", output.joints), ("mesh_joints", output.mesh_joints)):
        values = []
        for b in range(batch):
            if target.has_3d[b] and (config.joint_root == "own" or target.has_pelvis[b]):
                for j in range(joints):
                    for axis in range(3):
                        own, true = 0.0, float(target.pelvis_3d[b, 0, axis])
                        if config.joint_root == "own":
                            own, true = origin(points[b], axis), origin(target.joints_3d[b], axis)
                        gap = (float(points[b, j, axis]) - own) - (float(target.joints_3d[b, j, axis]) - true)
                        values.append(float(target.confidence_3d[b, j]) * size(gap))
        terms[f"{name}_3d"] = sum(values) / len(values) if values else 0.0
        values = []
        for b in range(batch):
            scale, *shift = output.camera[b].tolist()
            for j in range(joints):
                for axis in range(2):
                    uv = scale * (float(points[b, j, axis]) + shift[axis])
                    values.append(float(target.confidence_2d[b, j]) * size(uv - float(target.joints_2d[b, j, axis])))
        terms[f"{name}_2d"] = sum(values) / len(values)
    terms["vertices"] = 0.0
    for level, weight in enumerate(config.level_weights):
        gaps = []
        for b in range(batch):
            for axis in range(3) if target.has_mesh[b] else ():
                own = true = 0.0
                if config.vertex_root == "own":
                    own, true = origin(output.mesh_joints[b], axis), float(target.mesh_root[b, 0, axis])
                pairs = zip(output.vertices[level][b, :, axis], target.vertices[level][b, :, axis], strict=True)
                gaps += [abs((float(x) - own) - (float(y) - true)) for x, y in pairs]
        terms["vertices"] += weight * sum(gaps) / len(gaps) if gaps else 0.0
    if config.edges:
        gaps = []
        for b in range(batch):
            for i, j in target.edges.tolist() if target.has_mesh[b] else ():
                mine, true = (math.dist(mesh[0][b, i], mesh[0][b, j]) for mesh in (output.vertices, target.vertices))
                gaps.append(abs(mine - true))
        terms["edges"] = sum(gaps) / len(gaps) if gaps else 0.0
    terms["total"] = (
        config.joints_3d * (terms["joints_3d"] + terms["mesh_joints_3d"])
        + config.vertices * terms["vertices"]
        + config.joints_2d * (terms["joints_2d"] + terms["mesh_joints_2d"])
        + config.edges * terms.get("edges", 0.0)
    )
    return terms


@settings(max_examples=24, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    flags=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=3),
    kind=st.sampled_from(["mse", "l1"]),
    joints=st.sampled_from([14, 21]),
    roots=st.tuples(*[st.sampled_from(["own", "pelvis"])] * 2),
    edges=st.sampled_from([0.0, 30.0]),
)
def test_equals_the_loops(
    seed: int, flags: list[tuple[bool, bool]], kind: str, joints: int, roots: tuple[str, str], edges: float
) -> None:
    output, target = draw(seed, [a for a, _ in flags], [b for _, b in flags], joints)
    config = LossConfig(joint_loss=kind, joints_2d=70.0, edges=edges, joint_root=roots[0], vertex_root=roots[1])
    expected = looped(output, target, config)
    terms = metro_loss(output, target, config)
    assert terms.keys() == expected.keys()
    for name, value in terms.items():
        assert value.item() == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name


def test_worked_example() -> None:
    """Two samples, one with 3D joints: one joint 0.2 m off along x with confidence 0.5, 14 x 3 entries."""
    zeros = torch.zeros(2, 14, 3)
    moved = zeros.clone()
    moved[0, 5, 0] = 0.2
    moved[1] = 7.0  # the sample without labels
    output = MetroOutput(
        camera=torch.tensor([[2.0, 0.5, 0.0], [1.0, 0.0, 0.0]]),
        joints=moved,
        vertices=(torch.full((2, 4, 3), 0.1),),
        mesh_joints=zeros,
        attention=None,
    )
    confidence = torch.zeros(2, 14)
    confidence[0, 5] = 0.5
    target = Target(
        edges=torch.zeros(0, 2, dtype=torch.long),
        joints_3d=zeros + 3.0,  # another origin: each side is centred at its own root
        pelvis_3d=torch.zeros(2, 1, 3),
        has_pelvis=torch.tensor([True, True]),
        confidence_3d=confidence,
        has_3d=torch.tensor([True, False]),
        joints_2d=torch.zeros(2, 14, 2),
        confidence_2d=confidence,
        vertices=(torch.zeros(2, 4, 3),),
        mesh_root=torch.zeros(2, 1, 3),
        has_mesh=torch.tensor([False, True]),
        root=ROOT,
    )
    terms = metro_loss(output, target, LossConfig(level_weights=(0.33,)))
    assert terms["joints_3d"].item() == pytest.approx(0.5 * 0.2**2 / (14 * 3))
    assert terms["mesh_joints_3d"].item() == 0.0
    # 2 (0.2 + 0.5) = 1.4 from the origin, over all 2 x 14 x 2 entries: also those without confidence
    assert terms["joints_2d"].item() == pytest.approx(0.5 * 1.4**2 / (2 * 14 * 2))
    assert terms["mesh_joints_2d"].item() == pytest.approx(0.5 * 1.0**2 / (2 * 14 * 2))
    assert terms["vertices"].item() == pytest.approx(0.33 * 0.1)
    total = 1000 * 0.02 / 42 + 100 * 0.033 + 100 * (0.5 * 1.96 + 0.5) / 56
    assert terms["total"].item() == pytest.approx(total)


def test_losses_of_tokens_are_left_out_where_there_are_none() -> None:
    (output, target), config = draw(1, [True, True], [True, False]), LossConfig(joints_3d=7, joints_2d=3, vertices=2)
    both, alone = metro_loss(output, target, config), metro_loss(output._replace(joints=None), target, config)
    assert both.keys() - alone.keys() == {"joints_3d", "joints_2d"}
    expected = both["total"] - 7 * both["joints_3d"] - 3 * both["joints_2d"]
    torch.testing.assert_close(alone["total"], expected)


def test_edges_of_a_scaled_mesh() -> None:
    """A triangle with sides 3, 4, 5 at twice its size: the lengths are off by 4 on average."""
    triangle = torch.tensor([[[0.0, 0, 0], [3, 0, 0], [3, 4, 0]]])
    output, target = draw(0, [True], [True])
    output = output._replace(vertices=(2 * triangle + 1.0,))
    target = replace(target, vertices=(triangle,), edges=torch.tensor([[0, 1], [1, 2], [0, 2]]))
    config = LossConfig(edges=10.0, level_weights=(0.0,))
    terms = metro_loss(output, target, config)
    assert terms["edges"].item() == pytest.approx(4.0)
    without = metro_loss(output, target, config.model_copy(update={"edges": 0.0}))
    assert terms["total"].item() == pytest.approx(without["total"].item() + 40.0)
    assert "edges" not in without


def test_a_ramp_reaches_the_weight_of_edges_in_a_straight_line() -> None:
    config = LossConfig(edges=300.0, edges_ramp=True, vertices=7.0)
    assert [config.after(share).edges for share in (0.01, 0.5, 1.0)] == pytest.approx([3.0, 150.0, 300.0])
    assert config.after(0.5).vertices == 7.0
    assert LossConfig(edges=300.0).after(0.5).edges == 300.0


def test_edges_need_faces() -> None:
    output, target = draw(0, [True], [True])
    with pytest.raises(MetroError, match=r"loss\.edges: the mesh levels come without faces"):
        metro_loss(output, replace(target, edges=target.edges[:0]), LossConfig(edges=1.0))


def test_nothing_selected_is_a_zero_with_zero_gradient() -> None:
    output, target = draw(0, [False, False], [False, False])
    target = replace(target, confidence_2d=torch.zeros(2, 14))
    total = metro_loss(output, target, LossConfig())["total"]
    assert total.item() == 0.0
    total.backward()
    for tensor in (output.joints, output.mesh_joints, *output.vertices):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_the_mesh_must_be_root_relative_but_joints_need_not() -> None:
    output, target = draw(1, [True], [True])
    shifted = output._replace(joints=output.joints + 1.0, vertices=tuple(v + 1.0 for v in output.vertices))
    before, after = (metro_loss(o, target, LossConfig()) for o in (output, shifted))
    assert after["joints_3d"].item() == pytest.approx(before["joints_3d"].item(), rel=1e-4)
    assert after["vertices"].item() != pytest.approx(before["vertices"].item(), rel=1e-2)


def test_the_other_roots_ask_for_the_opposite() -> None:
    """Joints at the pelvis as predicted, meshes wherever they are."""
    output, target = draw(1, [True], [True])
    config = LossConfig(joint_root="pelvis", vertex_root="own")
    moved = output._replace(
        joints=output.joints + 1.0,
        mesh_joints=output.mesh_joints + 1.0,
        vertices=tuple(v + 1.0 for v in output.vertices),
    )
    before, after = (metro_loss(o, target, config) for o in (output, moved))
    assert after["vertices"].item() == pytest.approx(before["vertices"].item(), rel=1e-4)
    assert after["joints_3d"].item() != pytest.approx(before["joints_3d"].item(), rel=1e-2)
    right = output._replace(joints=target.joints_3d - target.pelvis_3d)
    assert metro_loss(right, target, config)["joints_3d"].item() == 0.0


def test_levels_without_weight_need_not_be_predicted() -> None:
    output, target = draw(2, [True, True], [True, False])
    coarse = output._replace(vertices=output.vertices[:1])
    config = LossConfig(level_weights=(0.5, 0.0, 0.0))
    assert metro_loss(coarse, target, config)["vertices"] == metro_loss(output, target, config)["vertices"]
    with pytest.raises(MetroError, match=r"level 2 .* has a weight, but 1 of 3 levels were predicted"):
        metro_loss(coarse, target, LossConfig())
    with pytest.raises(MetroError, match="no mesh joints"):
        metro_loss(output._replace(mesh_joints=None), target, LossConfig())


def test_projection_shifts_before_it_scales() -> None:
    uv = project(torch.tensor([[[1.0, 2.0, 9.0]]]), torch.tensor([[3.0, 0.5, -1.0]]))
    assert uv.tolist() == [[[4.5, 3.0]]]


def loader_batch(joints: int, pose: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    joints_3d, joints_2d = torch.randn(3, joints, 4, generator=rng), torch.randn(3, joints, 3, generator=rng)
    joints_3d[..., 3] = 1.0
    joints_2d[..., 2] = 1.0
    batch = {
        "joints_3d": joints_3d,
        "joints_2d": joints_2d,
        "pose_aa": 0.3 * torch.randn(3, pose, generator=rng),
        "betas": torch.randn(3, 10, generator=rng),
        "has_2d": torch.tensor([True, True, False]),
        "has_3d": torch.tensor([True, False, False]),
        "has_mesh": torch.tensor([True, False, True]),
    }
    for name, flag in (
        ("joints_3d", "has_3d"),
        ("pose_aa", "has_mesh"),
        ("betas", "has_mesh"),
        ("joints_2d", "has_2d"),
    ):
        batch[name][~batch[flag]] = float("nan")
    return batch


def test_targets_of_a_person_are_of_the_body_of_the_gender() -> None:
    body = BodyModel(load_body("open"), variants=lambda gender: load_body("open", gender))
    levels = nearest_levels(load_body("open").v_template, (300, 60))
    batch = loader_batch(24, 72) | {"gender": torch.tensor([1, 0, 2], dtype=torch.uint8)}
    batch["has_mesh"] = torch.tensor([True, False, True])
    found = Targets(body, levels, ModelConfig())(batch).vertices[-1]
    for row, gender in ((0, "female"), (2, "male")):
        own = BodyModel(load_body("open", gender))
        vertices = own(*(batch[name][row : row + 1].nan_to_num() for name in ("pose_aa", "betas"))).vertices
        own_root = own.regress("h36m17", vertices)[:, :1]
        torch.testing.assert_close(found[row], (vertices - own_root)[0], atol=1e-5, rtol=0)


def test_targets_of_a_body() -> None:
    data = load_body("open")
    body, levels = BodyModel(data), build_sampling(data.v_template, data.faces)
    batch = loader_batch(24, 72)
    target = Targets(body, levels, ModelConfig())(batch)

    names = JOINT_SETS["J24"]
    for j, name in enumerate(JOINT_SETS["J14"]):
        torch.testing.assert_close(target.joints_3d[0, j], batch["joints_3d"][0, names.index(name), :3])
        torch.testing.assert_close(target.joints_2d[1, j], batch["joints_2d"][1, names.index(name), :2])
    assert [JOINT_SETS["J14"][r] for r in target.root] == ["R_Hip", "L_Hip"]

    # one sample on its own, straight from the body model
    vertices = body(batch["pose_aa"][2:], batch["betas"][2:]).vertices[0]
    vertices = vertices - body.regress("h36m17", vertices[None])[0, 0]
    middle = levels[0].indices
    coarse = middle[levels[1].indices]
    pelvis = batch["joints_3d"][0, names.index("Pelvis"), :3]
    torch.testing.assert_close(target.pelvis_3d[0, 0], pelvis)
    assert target.has_pelvis.tolist() == [True, False, False]
    hips = body.regress("h36m17", vertices[None])[0, [JOINT_SETS["H36M17"].index(n) for n in ("R_Hip", "L_Hip")]]
    torch.testing.assert_close(target.mesh_root[2, 0], hips.mean(0), rtol=0, atol=1e-6)
    assert [v.shape[1] for v in target.vertices] == [431, 1723, 6890]
    for found, index in zip(target.vertices, (coarse, middle, slice(None)), strict=True):
        torch.testing.assert_close(found[2], vertices[index], rtol=0, atol=1e-6)
    values = (target.joints_3d, target.confidence_3d, target.joints_2d, target.confidence_2d, *target.vertices)
    assert all(v.isfinite().all() for v in values)
    assert not target.confidence_2d[2].any()


def test_targets_of_a_hand_come_from_its_mesh() -> None:
    data = load_body("open_hand")
    body, levels = BodyModel(data), build_sampling(data.v_template, data.faces, (195,))
    batch = loader_batch(21, 48)
    target = Targets(body, levels, ModelConfig(joint_set="HAND21"))(batch)
    vertices = body(batch["pose_aa"][:1], batch["betas"][:1]).vertices
    joints = body.regress("hand21", vertices)
    torch.testing.assert_close(target.joints_3d[:1] - target.joints_3d[:1, :1], joints - joints[:, :1])
    torch.testing.assert_close(target.vertices[-1][:1], vertices - joints[:, :1], rtol=0, atol=1e-6)
    assert target.has_3d.tolist() == [True, False, True]
    assert target.confidence_3d[0].eq(1).all()
    assert target.root.tolist() == [0]
    assert target.has_pelvis.tolist() == [True, False, True]
    torch.testing.assert_close(target.pelvis_3d[:1], joints[:, :1])
    assert not target.mesh_root.any()  # the wrist is the origin of hand meshes and their root
