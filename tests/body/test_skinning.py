"""The skinning layer against `smplx`, and the physics that any body must obey."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from metro.body.joints import JOINT_SETS, index_map
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.body.rotation import rot_from_aa
from metro.errors import MetroError


@pytest.fixture(scope="module")
def body():
    return load_body("open")


@pytest.fixture(scope="module")
def hand():
    return load_body("open_hand")


def random_inputs(data, batch, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    pose = 0.6 * torch.randn(batch, 3 * data.num_joints, generator=g, dtype=dtype)
    return (
        pose,
        torch.randn(batch, data.num_betas, generator=g, dtype=dtype),
        torch.randn(batch, 3, generator=g, dtype=dtype),
    )


def reference(data, pose, betas, transl, flat_hand_mean=False):
    """Vertices and joints of the `smplx` layer on the same arrays."""
    smplx = pytest.importorskip("smplx")
    arrays = smplx.utils.Struct(
        v_template=data.v_template,
        shapedirs=data.shapedirs,
        posedirs=data.posedirs,
        J_regressor=data.J_regressor,
        kintree_table=np.array([data.parents, range(data.num_joints)]),
        weights=data.weights,
        f=data.faces,
        hands_mean=data.hands_mean,
        hands_components=data.hands_components,
    )
    options = {"data_struct": arrays, "batch_size": len(pose), "dtype": pose.dtype}
    with contextlib.redirect_stdout(io.StringIO()):
        if data.is_hand:
            layer = smplx.MANO("", **options, use_pca=False, flat_hand_mean=flat_hand_mean, is_rhand=True)
            out = layer(global_orient=pose[:, :3], hand_pose=pose[:, 3:], betas=betas, transl=transl)
        else:
            layer = smplx.SMPL("", **options)
            out = layer(global_orient=pose[:, :3], body_pose=pose[:, 3:], betas=betas, transl=transl)
    return out.vertices, out.joints[:, : data.num_joints]


@pytest.mark.parametrize("name", ["body", "hand"])
@pytest.mark.parametrize("batch", [1, 5])
def test_equals_smplx(name, batch, request):
    data = request.getfixturevalue(name)
    inputs = random_inputs(data, batch)
    ours = BodyModel(data)(*inputs)
    vertices, joints = reference(data, *inputs)
    torch.testing.assert_close(ours.vertices, vertices, atol=1.5e-6, rtol=0)
    torch.testing.assert_close(ours.joints, joints, atol=1.5e-6, rtol=0)


@pytest.mark.parametrize("name", ["body", "hand"])
def test_equals_smplx_in_double(name, request):
    data = request.getfixturevalue(name)
    inputs = random_inputs(data, 3, seed=1, dtype=torch.float64)
    ours = BodyModel(data, dtype=torch.float64)(*inputs)
    vertices, joints = reference(data, *inputs)
    # The reference adds 1e-8 to the pose before taking its norm, hence not to the last bit.
    torch.testing.assert_close(ours.vertices, vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.joints, joints, atol=1e-6, rtol=0)


def test_flat_hand_equals_smplx(hand):
    inputs = random_inputs(hand, 2, seed=6)
    vertices, _ = reference(hand, *inputs, flat_hand_mean=True)
    torch.testing.assert_close(BodyModel(hand, flat_hand_mean=True)(*inputs).vertices, vertices, atol=1.5e-6, rtol=0)


def test_gradients_equal_smplx(body):
    inputs = [x.requires_grad_() for x in random_inputs(body, 2, seed=2, dtype=torch.float64)]
    weight = torch.randn(2, 6890, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    grads = []
    for vertices, joints in (BodyModel(body, dtype=torch.float64)(*inputs), reference(body, *inputs)):
        grads.append(torch.autograd.grad((vertices * weight).sum() + joints.square().sum(), inputs))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-6)


def test_pose_correctives_matter(body):
    assert np.abs(body.posedirs).max() > 0.01
    pose, betas, _ = random_inputs(body, 1)
    plain = BodyModel(body)
    plain.directions_DC[body.num_betas :] = 0
    moved = (BodyModel(body)(pose, betas).vertices - plain(pose, betas).vertices).norm(dim=-1)
    assert 0.001 < moved.mean() < 0.05


def test_zero_pose_is_the_template(body, hand):
    for data in (body, hand):
        out = BodyModel(data, flat_hand_mean=True)(torch.zeros(1, 3 * data.num_joints))
        torch.testing.assert_close(out.vertices[0], torch.tensor(data.v_template), atol=1e-6, rtol=0)
        torch.testing.assert_close(out.joints[0], torch.tensor(data.J_regressor @ data.v_template), atol=1e-6, rtol=0)


def test_rotation_matrices_and_short_betas(body):
    pose, betas, transl = random_inputs(body, 2)
    model = BodyModel(body)
    rot = rot_from_aa(pose.reshape(2, 24, 3))
    short = torch.cat([betas[:, :4], torch.zeros(2, 6)], 1)
    torch.testing.assert_close(model(None, betas[:, :4], transl, pose_rot=rot), model(pose, short, transl))
    shared = model(pose, betas[:1])
    torch.testing.assert_close(shared, model(pose, betas[:1].expand(2, -1)))
    with pytest.raises(ValueError, match="exactly one"):
        model(pose, pose_rot=rot)


def test_batch_does_not_mix(body):
    pose, betas, transl = random_inputs(body, 3)
    model = BodyModel(body)
    together = model(pose, betas, transl).vertices
    for i in range(3):
        alone = model(*(x[i : i + 1] for x in (pose, betas, transl))).vertices
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=0)


def test_root_rotation_turns_everything(body):
    """Turning the root turns vertices, joints and regressed joints rigidly about the pelvis joint."""
    pose, betas, _ = random_inputs(body, 1, seed=4)
    turn = rot_from_aa(torch.tensor([[0.3, -1.2, 0.8]]))[0]
    model = BodyModel(body)
    rot = rot_from_aa(pose.reshape(1, 24, 3))
    before = model(betas=betas, pose_rot=rot)
    turned = rot.clone()
    turned[:, 0] = turn @ rot[:, 0]
    after = model(betas=betas, pose_rot=turned)
    pelvis = before.joints[:, :1]
    for name in (None, "h36m17", "j24", "coco17"):
        a = before.vertices if name is None else model.regress(name, before.vertices)
        b = after.vertices if name is None else model.regress(name, after.vertices)
        torch.testing.assert_close((a - pelvis) @ turn.T + pelvis, b, atol=3e-6, rtol=0)
    shifted = model(betas=betas, pose_rot=turned, transl=torch.tensor([[1.0, 2.0, 3.0]]))
    torch.testing.assert_close(shifted.joints, after.joints + torch.tensor([1.0, 2.0, 3.0]))


def test_regressors(body, hand):
    shapes = {name: rows.shape for name, rows in body.regressors.items()}
    assert shapes == {"h36m17": (17, 6890), "j24": (24, 6890), "coco17": (17, 6890)}
    assert hand.regressors["hand21"].shape == (21, 778)
    for rows in (*body.regressors.values(), *hand.regressors.values()):
        np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
        assert rows.min() >= 0


def test_j14_is_one_definition(body):
    """The annotation joints and the evaluation joints of the open body are the same points."""
    h36m, j24, coco = (body.regressors[n].toarray() for n in ("h36m17", "j24", "coco17"))
    np.testing.assert_array_equal(h36m[index_map("H36M17", "J14")], j24[index_map("J24", "J14")])
    np.testing.assert_array_equal(coco, j24[index_map("J24", "COCO17")])


def test_joints_lie_where_their_names_say(body):
    joints = dict(zip(JOINT_SETS["J24"], body.regressors["j24"] @ body.v_template, strict=True))
    for side, sign in (("L", 1), ("R", -1)):  # left is +x, in the T-pose
        for joint in ("Ankle", "Knee", "Hip", "Shoulder", "Elbow", "Wrist", "Eye", "Ear"):
            assert sign * joints[f"{side}_{joint}"][0] > 0.02
    upwards = ("R_Ankle", "R_Knee", "R_Hip", "Spine", "Thorax", "Neck", "Jaw", "Nose", "L_Eye", "Top_of_Head")
    heights = [joints[name][1] for name in upwards]
    assert heights == sorted(heights)
    assert joints["Nose"][2] > joints["L_Ear"][2] + 0.05  # the face looks to +z


def test_hand_regressor_is_joints_and_tips(hand):
    pose, betas, _ = random_inputs(hand, 1, seed=5)
    out = BodyModel(hand)(0.3 * pose, betas)
    joints = BodyModel(hand).regress("hand21", out.vertices)[0]
    tips = [JOINT_SETS["HAND21"].index(f"{finger}4") for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky")]
    torch.testing.assert_close(joints[tips], out.vertices[0, [745, 317, 445, 556, 673]])


def test_kinematic_regressor_reads_the_rest_joints_off_a_mesh(body):
    betas = random_inputs(body, 2)[1]
    out = BodyModel(body)(torch.zeros(2, 72), betas)
    torch.testing.assert_close(BodyModel(body).regress("kinematic", out.vertices), out.joints, atol=1e-6, rtol=0)


def test_hand_joints_of_mano_are_its_layers(hand):
    """METRO's layer: kinematic joints, fingertips at vertices 745, 317, 444, 556, 673."""
    mano = BodyModel(replace(hand, kind="mano"))
    out = mano(*random_inputs(hand, 2, seed=7))
    stacked = torch.cat([out.joints, out.vertices[:, [745, 317, 444, 556, 673]]], 1)
    published = [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]
    torch.testing.assert_close(mano.true_joints(out), stacked[:, published])
    model = BodyModel(hand)
    torch.testing.assert_close(model.true_joints(out), model.regress("hand21", out.vertices))


def test_no_state_and_device_follows(body):
    model = BodyModel(body)
    assert not model.state_dict()
    assert not list(model.parameters())
    meta = BodyModel(body).to("meta")
    out = meta(torch.zeros(2, 72, device="meta"), torch.zeros(2, 10, device="meta"))
    assert out.vertices.device.type == "meta"
    assert out.vertices.shape == (2, 6890, 3)
    double = BodyModel(body).double()
    assert double(torch.zeros(1, 72, dtype=torch.float64)).vertices.dtype == torch.float64
    assert double.faces.dtype == torch.int64


def test_unknown_regressor_is_named(hand):
    with pytest.raises(MetroError, match=r"no regressor 'h36m17'; it has hand21, kinematic$"):
        BodyModel(hand).regress("h36m17", torch.zeros(1, 778, 3))
