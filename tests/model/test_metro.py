"""The network against its description, and what each of its choices promises."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from metro import presets
from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.config import BlockConfig, ModelConfig, NeckConfig, load_params
from metro.errors import MetroError
from metro.mesh.sampling import Level, build_sampling
from metro.model.metro import EncoderBlock, Metro, Neck, build_model
from metro.model.official import to_official
from metro.model.template import template_mesh, template_tokens
from tests.model import published_network

TOKENS = 24  # 14 joints and 10 coarse vertices
HAND = {"joint_set": "HAND21", "token_source": "pooled", "camera_from": "all"}


@pytest.mark.parametrize("kind", [{}, HAND], ids=["body", "hand"])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_published_forward_pass(make, images, kind, masked) -> None:
    model = make(**kind)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms are trivial at the start; make every term count
            parameter.add_(0.05 * torch.randn_like(parameter))
        feature = model.backbone(images)
        tokens = len(model.template_T3)
        mask = torch.rand(len(images), tokens) < 0.4 if masked else None
        output = model(images, mask)
    pooled = feature.mean((2, 3)) if kind else feature
    expected = published_network.forward(to_official(model), pooled, model.template_T3, heads=2, masked=mask)
    torch.testing.assert_close(output.camera.double(), expected["camera"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.joints.double(), expected["joints"], rtol=1e-4, atol=1e-5)
    for level, vertices in zip(output.vertices, expected["vertices"], strict=True):
        torch.testing.assert_close(level.double(), vertices, rtol=1e-4, atol=1e-5)


def test_masked_queries_know_neither_image_nor_template(make, images) -> None:
    model = make()
    everything = torch.ones(3, TOKENS, dtype=torch.bool)
    with torch.no_grad():
        hidden = model(images, everything)
        model.template_T3 += 1.0
        moved = model(images.flip(-1), everything)
        nothing = model(images, ~everything)
        plain = model(images)
    assert torch.equal(hidden.joints[0], hidden.joints[1])
    assert torch.equal(hidden.vertices[0], moved.vertices[0])
    assert torch.equal(nothing.joints, plain.joints)


def test_masking_does_not_depend_on_the_mode(make, images) -> None:
    model = make(attention_dropout=0.0)
    for module in model.backbone.modules():  # BatchNorm alone differs between the modes
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
            module.train = lambda mode=True, self=module: self
    mask = torch.rand(3, TOKENS) < 0.5
    assert torch.equal(model.eval()(images, mask).joints, model.train()(images, mask).joints)


@pytest.mark.parametrize("kind", [{}, HAND], ids=["body", "hand"])
def test_attention_maps_come_from_the_same_computation(make, images, kind) -> None:
    model = make(**kind)
    with torch.no_grad():
        fused, explicit = model(images), model(images, need_attention=True)
    torch.testing.assert_close(fused.vertices[-1], explicit.vertices[-1], rtol=1e-5, atol=1e-6)
    assert fused.attention is None
    assert [len(block) for block in explicit.attention] == [2, 1, 2]
    tokens = len(model.template_T3)
    for maps in (layer for block in explicit.attention for layer in block):
        assert maps.shape == (3, 2, tokens, tokens)
        torch.testing.assert_close(maps.sum(-1), torch.ones(3, 2, tokens))


@pytest.fixture
def alone(make, levels) -> Metro:
    """The network that is asked about vertices alone."""
    both = make()
    config = both.config.model_copy(update={"queries": "vertices"})
    return Metro(config, both.template_T3[14:], levels, sp.csr_matrix(both.regressor_JV.numpy())).eval()


def test_vertices_alone_are_those_of_both_where_tokens_do_not_meet(make, images, alone) -> None:
    """Tokens meet in attention and nowhere else."""
    both = make()
    with torch.no_grad():
        for name, parameter in both.named_parameters():
            if ".attention_out." in name:
                parameter.zero_()
            elif name.endswith("bias"):  # zero at the start
                parameter.add_(0.1)
    of_tokens = ("position_TD", "mix.weight", "mix.bias")
    alone.load_state_dict({k: v[14:] if k.endswith(of_tokens) else v for k, v in both.state_dict().items()})
    mask = torch.rand(3, TOKENS) < 0.4
    with torch.no_grad():
        expected, found = both(images, mask), alone(images, mask[:, 14:], need_attention=True)
    assert found.joints is None
    torch.testing.assert_close(found.vertices, expected.vertices)
    torch.testing.assert_close(found.mesh_joints, expected.mesh_joints)
    torch.testing.assert_close(found.camera, expected.camera)
    assert found.attention[0][0].shape == (3, 2, 10, 10)


def test_every_parameter_for_vertices_alone_is_used(alone, images) -> None:
    output = alone.train()(images)
    (output.camera.sum() + output.vertices[-1].sum()).backward()
    assert [n for n, p in alone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("upsampling", ["learned", "fixed"])
def test_template_init_predicts_the_template(make, images, levels, upsampling) -> None:
    model = make(init="template", upsampling=upsampling)
    with torch.no_grad():
        output = model(images)
    expected = model.template_T3[14:]
    for level, vertices in zip((None, *reversed(levels)), output.vertices, strict=True):
        if level is not None:
            expected = torch.from_numpy(level.up @ expected.numpy()).float()
        assert (vertices - expected).norm(dim=-1).max() < 0.05
    assert (output.joints - model.template_T3[:14]).norm(dim=-1).max() < 0.05
    scale, shift = output.camera[:, 0], output.camera[:, 1:]
    assert ((scale > 0.6) & (scale < 1.0)).all()
    assert shift.abs().max() < 0.1


def test_fixed_upsampling_is_the_matrix(make, images, levels) -> None:
    model = make(upsampling="fixed")
    with torch.no_grad():
        coarse, middle, full = model(images).vertices
    for b in range(3):
        np.testing.assert_allclose(levels[1].up @ coarse[b].numpy(), middle[b].numpy(), atol=1e-6)
        np.testing.assert_allclose(levels[0].up @ middle[b].numpy(), full[b].numpy(), atol=1e-6)


@pytest.mark.parametrize("upsampling", ["learned", "fixed", "rigid"])
def test_mesh_joints_are_regressed_from_the_full_mesh(make, images, levels, upsampling) -> None:
    model = make(upsampling=upsampling)
    rows = np.random.default_rng(1)
    rows.normal(0, 0.4, (24, 3))  # the draw of the template, before that of the regressor
    regressor = torch.from_numpy(rows.dirichlet(np.ones(90), 14)).float()
    with torch.no_grad():
        output, quick = model(images), model(images, full=False)
    torch.testing.assert_close(output.mesh_joints, regressor @ output.vertices[-1], rtol=1e-4, atol=1e-6)
    if upsampling == "rigid":  # then of the interpolated mesh
        up = torch.from_numpy((levels[0].up @ levels[1].up).toarray()).float()
        torch.testing.assert_close(quick.mesh_joints, regressor @ up @ output.vertices[0], rtol=1e-4, atol=1e-6)
    else:
        assert torch.equal(quick.mesh_joints, output.mesh_joints)
    assert [v.shape[1] for v in output.vertices] == [10, 30, 90]
    assert len(quick.vertices) == (3 if upsampling == "learned" else 1)


def test_rigid_upsampling_keeps_the_template_at_the_start(make, images) -> None:
    model = make(init="template", upsampling="rigid")
    with torch.no_grad():
        _, middle, full = model(images).vertices
    assert (full - model.upsampling.template_V3).norm(dim=-1).max() < 0.05
    assert torch.equal(middle, full[:, :30])


def test_rigid_upsampling_needs_the_whole_template(make, levels) -> None:
    config = make(upsampling="rigid").config
    with pytest.raises(MetroError, match="rigid upsampling needs the template at full resolution"):
        Metro(config, torch.zeros(24, 3), levels)


def test_one_image_keeps_its_batch_axis(make, images) -> None:
    model = make()
    with torch.no_grad():
        one, many = model(images[:1]), model(images)
    assert one.camera.shape == (1, 3)
    assert [tuple(v.shape) for v in one.vertices] == [(1, 10, 3), (1, 30, 3), (1, 90, 3)]
    torch.testing.assert_close(one.vertices[-1], many.vertices[-1][:1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("upsampling", ["fixed", "rigid"])
def test_mixed_precision_keeps_positions_exact(make, images, upsampling) -> None:
    model = make(init="template", upsampling=upsampling)
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = model(images)
    for name in ("camera", "joints", "mesh_joints"):
        value = getattr(mixed, name)
        assert value.dtype == torch.float32
        assert (value - getattr(exact, name)).abs().max() < 2e-3  # bfloat16 positions would be off by 4e-3 at 1 m


def test_state_dict_holds_weights_alone(make) -> None:
    for upsampling in ("learned", "fixed", "rigid"):
        names = make(upsampling=upsampling).state_dict()
        assert not [n for n in names if "template" in n or "_JV" in n or "_KV" in n or "_P" in n]
    assert not [n for n in names if n.startswith("upsampling")]


def test_every_parameter_is_used(make, images) -> None:
    model = make().train()
    output = model(images)
    (output.camera.sum() + output.joints.sum() + output.vertices[-1].sum()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_a_template_of_another_size_is_refused(make, levels) -> None:
    config = make().config
    with pytest.raises(MetroError, match=r"template has shape \(23, 3\).*need \(24, 3\)"):
        Metro(config, torch.zeros(23, 3), levels)


@pytest.mark.parametrize(
    ("config", "sizes", "published"),
    [
        (ModelConfig(), (431, 1723, 6890), 196_187_885),
        (
            ModelConfig(
                **HAND,
                blocks=[
                    BlockConfig(width=width, out=out, ffn=4 * width)
                    for width, out in ((1024, 512), (256, 128), (64, 3))
                ],
                camera_width=150,
            ),
            (195, 778),
            184_543_837,
        ),
    ],
    ids=["body", "hand"],
)
def test_official_sizes(config: ModelConfig, sizes: tuple[int, ...], published: int) -> None:
    tokens = len(JOINT_SETS[config.joint_set]) + sizes[0]
    levels = [
        Level(np.arange(coarse), sp.csr_matrix((fine, coarse)), np.zeros((0, 3), np.int32))
        for coarse, fine in pairwise(sizes)
    ]
    with torch.device("meta"):
        model = Metro(config, torch.zeros(tokens, 3), levels[::-1])
    unused_rows = 512 - tokens  # of the official position tables
    spare = sum(unused_rows * block.width for block in config.blocks)
    assert sum(p.numel() for p in model.parameters()) + spare == published


def test_template_of_a_body_stands_upside_down_in_camera_axes() -> None:
    body = load_body("open")
    levels = build_sampling(body.v_template, body.faces)
    config = build_model_config()
    mesh = template_mesh(config, body)
    tokens = template_tokens(config, mesh, levels)
    assert tokens.shape == (445, 3)
    joints = dict(zip(JOINT_SETS["J14"], tokens[:14], strict=True))
    assert ((joints["R_Hip"] + joints["L_Hip"]) / 2).norm() < 0.05  # the pelvis is the origin
    assert joints["Head"][1] < -0.5  # y points down
    assert joints["R_Ankle"][1] > 0.6
    assert joints["L_Wrist"][0] > 0.5  # the body faces the camera, whose x points to the left hand
    assert joints["R_Wrist"][0] < -0.5
    kept = levels[0].indices[levels[1].indices]
    cos, sin = math.cos(3.1416), math.sin(3.1416)
    upright = tokens[14:] @ torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    offset = upright - torch.from_numpy(body.v_template[kept])
    assert (offset - offset[0]).abs().max() < 1e-5  # a rotation by 3.1416 about x and a shift, nothing else

    relaxed_config = config.model_copy(update={"template": "relaxed"})
    relaxed = template_tokens(relaxed_config, template_mesh(relaxed_config, body), levels)
    wrist = relaxed[JOINT_SETS["J14"].index("L_Wrist")]
    assert wrist[1] > joints["L_Wrist"][1] + 0.3
    assert wrist[0] < joints["L_Wrist"][0] - 0.1

    learned = template_tokens(config.model_copy(update={"positions": "learned"}), mesh, levels)
    assert torch.equal(learned, torch.zeros(445, 3))
    assert torch.equal(template_tokens(config.model_copy(update={"queries": "vertices"}), mesh, levels), tokens[14:])


def test_template_of_a_hand_is_its_mean_pose() -> None:
    hand = load_body("open_hand")
    levels = build_sampling(hand.v_template, hand.faces, (195,))
    config = build_model_config(joint_set="HAND21")
    tokens = template_tokens(config, template_mesh(config, hand), levels)
    assert tokens.shape == (216, 3)
    assert tokens[0].abs().max() < 1e-6  # the wrist is the origin
    flat = torch.from_numpy(hand.v_template[levels[0].indices])
    curled = torch.cdist(tokens[21:], tokens[21:]) - torch.cdist(flat, flat)
    assert curled.abs().max() > 0.01


def test_build_model_joins_body_and_levels() -> None:
    body = load_body("open_hand")
    levels = build_sampling(body.v_template, body.faces, (195,))
    model = build_model(build_model_config(joint_set="HAND21", token_source="pooled", camera_from="all"), body, levels)
    with torch.no_grad():
        output = model.eval()(torch.zeros(1, 3, 64, 64))
    assert [v.shape[1] for v in output.vertices] == [195, 778]
    assert output.mesh_joints.shape == (1, 21, 3)


def build_model_config(**changes: object) -> ModelConfig:
    block = BlockConfig(width=8, out=3, layers=1, heads=1, ffn=8)
    return ModelConfig(**{"backbone": "resnet18", "image_size": 64, "blocks": (block,)} | changes)


def test_averaged_cells_are_those_of_a_backbone_with_as_many(make, images) -> None:
    coarse, plain = make(cells=1), make(token_source="pooled")
    assert coarse.mix.weight.shape == (TOKENS, 1)
    state = {key: value for key, value in coarse.state_dict().items() if not key.startswith("mix.")}
    plain.load_state_dict(state)
    with torch.no_grad():  # one cell that every query takes as it is: the pooled feature of hands
        coarse.mix.weight.fill_(1.0)
        coarse.mix.bias.zero_()
        torch.testing.assert_close(coarse.eval()(images).joints, plain.eval()(images).joints)
    with pytest.raises(MetroError, match=r"model\.cells: .* do not make 7 a side"):
        make(cells=7)


def test_a_neck_tells_each_cell_of_all_cells_and_of_itself() -> None:
    torch.manual_seed(0)
    neck = Neck(channels=6, cells=4, config=NeckConfig(squeeze=3, width=16, out=2)).eval()
    features = torch.randn(1, 4, 6)
    changed = features.clone()
    changed[:, 2] += 1.0
    with torch.no_grad():
        differs = neck(features) != neck(changed)
    assert differs.shape == (1, 4, 5)
    own, every = differs[0].split([3, 2], 1)
    assert own.all(1).tolist() == [False, False, True, False]
    assert own.any(1).tolist() == [False, False, True, False]
    assert every.all()


def test_a_neck_is_a_part_of_the_network(make, images) -> None:
    model = make(neck=NeckConfig(squeeze=3, width=16, out=2))
    assert model.blocks[0].embed.in_features == 3 + 5
    with torch.no_grad():
        before = model(images).joints
        model.neck.layers[1].bias += torch.linspace(-1, 1, 16)  # an equal shift of all would end in the norm
        assert (model(images).joints - before).abs().amax((1, 2)).min() > 0
    with pytest.raises(MetroError, match=r"model\.neck has no official form"):
        to_official(model)


@pytest.mark.parametrize(("preset", "channels"), [("study-reduction", 1440), ("study-reduction-paper", 2048)])
def test_constant_width_has_as_many_weights_as_progressive(preset: str, channels: int) -> None:
    params = load_params(presets.resolve(preset))
    params = params.model_copy(update={"study_runs": params.planned_runs()})
    seed = params.studies["reduction"].seeds[0]
    counts = []
    for variant in ("progressive", "constant"):
        config = params.of_run(f"reduction-{variant}-{seed}").model
        widths = [3 + channels, *(block.out for block in config.blocks)]
        with torch.device("meta"):
            blocks = [EncoderBlock(n, 445, b, config) for n, b in zip(widths, config.blocks, strict=False)]
        counts.append(sum(p.numel() for block in blocks for p in block.parameters()))
    assert counts[1] == pytest.approx(counts[0], rel=0.005)
    for count in counts:  # as the preset tells
        assert f"{count:,}" in presets.written(preset)
