"""Known people are found again; bad input is turned away with a reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from metro.body.arrays import BodyData
from metro.body.joints import PARENTS
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import FitConfig
from metro.data.lens import LENSES, project
from metro.data.records import Record
from metro.errors import MetroError
from metro.fitting.gate import Reason
from metro.fitting.smplify import Fits, fit
from tests.fitting.conftest import People, mpjpe_mm

SHARP = FitConfig(sigma_2d=1 / 224, sigma_3d=0.002)


@pytest.fixture(scope="module")
def in_space(people: People, body) -> Fits:
    return fit(people.only("3d"), body, SHARP)


@pytest.fixture(scope="module")
def in_image(people: People, body) -> Fits:
    return fit(people.only("2d"), body, SHARP)


def test_exact_3d_joints_are_met(people, model, in_space) -> None:
    assert in_space.accepted.all()
    assert in_space.converged.all()
    assert (in_space.error_3d < 2e-3).all()
    assert mpjpe_mm(model, people, in_space).max() < 5
    assert np.abs(in_space.transl - people.transl).max() < 0.05
    assert np.isnan(in_space.error_2d).all()
    assert ((in_space.iterations >= 2) & (in_space.iterations <= SHARP.iterations)).all()


def test_exact_2d_joints_give_plausible_depth(people, model, in_image) -> None:
    assert in_image.accepted.all()
    assert in_image.error_2d.mean() < 0.002
    errors = mpjpe_mm(model, people, in_image)
    assert errors.mean() < 60  # 45 expected over many people
    assert np.median(errors) < 50


def test_noisy_2d_joints(people, body, model) -> None:
    labels = people.only("2d")
    rng = np.random.default_rng(0)
    side = 200 * labels["scale"][:, None, None]
    labels["joints_2d"][..., :2] += rng.normal(0, 4 / 224, (30, 24, 2)) * side
    labels["joints_2d"][..., 2] = rng.random((30, 24)) > 0.2
    fits = fit(labels, body, FitConfig(sigma_2d=4 / 224))
    assert fits.accepted.mean() > 0.95
    assert mpjpe_mm(model, people, fits).mean() < 115  # over many people 104, of thirty people 8 more or less


def test_outliers_cost_little(people, body, model) -> None:
    labels = people.only("3d")
    labels["joints_3d"][:, 0, :3] += [0.5, 0.0, -0.3]
    errors = {robust: mpjpe_mm(model, people, fit(labels, body, FitConfig(robust=robust))) for robust in (4.0, None)}
    assert np.median(errors[4.0]) < 0.5 * np.median(errors[None])


def test_missing_joints_do_not_matter_and_may_hold_anything(people, body, model) -> None:
    labels = people.only("3d", slice(6))
    labels["joints_3d"][:, 5] = [np.nan, np.inf, 7.0, 1.0]
    labels["joints_3d"][:, 11] = [9.0, 9.0, 9.0, 0.0]
    fits = fit(labels, body, SHARP)
    assert fits.accepted.all()
    assert (fits.error_3d < 2e-3).all()
    assert np.median(mpjpe_mm(model, people, fits, slice(6))) < 20  # the left ankle and wrist are guessed


def test_without_intrinsics_the_box_is_met(people, body, model) -> None:
    labels = people.only("2d", slice(10))
    labels["intrinsics"][:] = np.nan
    fits = fit(labels, body, FitConfig(sigma_2d=0.005))
    assert fits.accepted.all()
    assert (fits.transl[:, 2] > 20).all()  # METRO's camera: focal 5000 px, tens of metres away
    assert fits.error_2d.mean() < 0.005
    assert mpjpe_mm(model, people, fits, slice(10)).mean() < 130


def test_a_lens_is_taken_off_the_joints(people, body, in_image) -> None:
    """Joints as a lens shows them lead to the body that they lead to without."""
    labels, rows = people.only("2d", slice(2)), slice(2)
    bent = np.tile([-0.2, 0.25, -0.002, 0.003, -0.01, 0, 0, 0], (2, 1))
    seen = project(people.labels["joints_3d"][rows, :, :3], labels["intrinsics"], bent, "h36m")
    assert (np.abs(seen - labels["joints_2d"][..., :2]).max((1, 2)) > 0.5).all()
    labels |= {"joints_2d": np.concatenate((seen, np.ones((2, 24, 1))), 2), "distortion": bent}
    found = fit(labels | {"lens": np.full(2, LENSES.index("h36m"))}, body, SHARP)
    np.testing.assert_allclose(found.pose_aa, in_image.pose_aa[rows], atol=0.01)
    np.testing.assert_allclose(found.error_2d, in_image.error_2d[rows], atol=1e-5)


def test_a_result_does_not_depend_on_the_company(people, body, in_space, in_image) -> None:
    for kind, together in (("3d", in_space), ("2d", in_image)):
        apart = fit(people.only(kind, slice(9)), body, replace_batch(SHARP, 4))
        close = np.abs(apart.pose_aa - together.pose_aa[:9]).max(1)
        assert (close < 0.01).all()
        assert np.abs(apart.transl - together.transl[:9]).max() < 0.01


def disturbed(people: People, sigma: float, rows: slice = slice(None)) -> np.ndarray:
    """The true poses with noise along each axis of each joint, radians."""
    pose = people.pose_aa[rows]
    noise = np.random.default_rng(7).normal(0, sigma, pose.shape)
    root = Rotation.from_rotvec(pose[:, :3]) * Rotation.from_rotvec(noise[:, :3])
    return np.c_[root.as_rotvec(), pose[:, 3:] + noise[:, 3:]]


def test_a_start_tells_what_noisy_2d_joints_do_not(people, body, model) -> None:
    labels = people.only("2d")
    rng = np.random.default_rng(0)
    side = 200 * labels["scale"][:, None, None]
    labels["joints_2d"][..., :2] += rng.normal(0, 4 / 224, (30, 24, 2)) * side
    labels["joints_2d"][..., 2] = rng.random((30, 24)) > 0.2
    config = FitConfig(sigma_2d=4 / 224)
    without = mpjpe_mm(model, people, fit(labels, body, config)).mean()
    for sigma in (0.1, 0.25):  # starts that are 112 and 257 mm off
        fits = fit(labels, body, config, start=disturbed(people, sigma))
        assert fits.accepted.mean() > 0.95
        assert mpjpe_mm(model, people, fits).mean() < 0.8 * without


def test_a_start_does_no_harm_to_exact_joints(people, body, model, in_space, in_image) -> None:
    for kind, without in (("2d", in_image), ("3d", in_space)):
        fits = fit(people.only(kind), body, SHARP, start=disturbed(people, 0.25))
        assert fits.accepted.all()
        assert mpjpe_mm(model, people, fits).mean() < mpjpe_mm(model, people, without).mean() + 0.1


def test_people_without_a_start_are_fitted_as_if_nobody_had_one(people, body, in_image) -> None:
    start = disturbed(people, 0.1, slice(6))
    start[[0, 2, 5], [0, 40, 71]] = np.nan, np.inf, np.nan
    fits = fit(people.only("2d", slice(6)), body, SHARP, start=start)
    same = np.abs(fits.pose_aa - in_image.pose_aa[:6]).max(1) < 0.05
    assert same.tolist() == [True, False, True, False, False, True]


def test_a_firm_start_holds_and_a_loose_one_lets_go(people, body) -> None:
    labels, start = people.only("2d", slice(6)), disturbed(people, 0.25, slice(6))

    def away(sigma: float) -> float:
        fits = fit(labels, body, SHARP.model_copy(update={"sigma_start": sigma}), start=start)
        return float(np.abs(fits.pose_aa - start)[:, 3:].mean())

    assert away(0.02) < 0.05 < 0.1 < away(1.0)


def test_a_wrong_start_is_refused(people, body) -> None:
    labels = people.only("2d", slice(2))
    with pytest.raises(MetroError, match=r"start has shape \(3, 72\); 2 people need \(2, 72\)"):
        fit(labels, body, start=people.pose_aa[:3])
    with pytest.raises(MetroError, match="are they in degrees"):
        fit(labels, body, start=np.degrees(people.pose_aa[:2]))


@pytest.mark.parametrize(
    ("unit", "factor"), [("millimetres", 1000.0), ("centimetres", 100.0), ("inches", 1 / 0.0254), ("feet", 1 / 0.3048)]
)
def test_joints_in_another_unit_are_refused_by_its_name(people, body, unit: str, factor: float) -> None:
    labels = people.only("3d", slice(5))
    labels["joints_3d"][..., :3] *= factor
    labels["joints_3d"][0, 7:] = 0
    with pytest.raises(MetroError, match=rf"joints_3d: .* are these {unit}\?"):
        fit(labels, body)


def test_one_impossible_person_does_not_stop_the_others(people, body) -> None:
    labels = people.only("3d", slice(3))
    labels["joints_3d"][1, :, :3] *= 1000
    fits = fit(labels, body)
    assert fits.reason.tolist() == ["", Reason.ERROR_3D, ""]


def replace_batch(config: FitConfig, size: int) -> FitConfig:
    return config.model_copy(update={"batch_size": size})


def test_records_and_labels_give_the_same(people, body, in_space) -> None:
    joints = people.labels["joints_3d"][:3]
    records = [
        Record(source="made", frame=str(i), image=b"", box=np.array([0, 0, 50, 50]), joints_3d=j)
        for i, j in enumerate(joints)
    ]
    fits = fit(records, body, SHARP)
    assert np.allclose(fits.pose_aa, in_space.pose_aa[:3], atol=0.01)


def test_3d_joints_are_preferred_and_2d_joints_step_in(people, body) -> None:
    labels = {name: values[:3].copy() for name, values in people.labels.items()}
    labels["has_3d"][1] = False
    labels["joints_3d"][2, 4:, 3] = 0
    fits = fit(labels, body)
    assert np.isfinite(fits.error_3d).tolist() == [True, False, False]
    assert np.isfinite(fits.error_2d).tolist() == [False, True, True]
    assert fits.accepted.all()


def test_bad_input_is_turned_away_with_a_reason(people, body) -> None:
    labels = people.only("2d", slice(8))
    labels["has_2d"][0] = False
    labels["joints_2d"][1, 5:, 2] = 0
    labels["joints_2d"][2, :, :2] = 300.0
    labels["scale"][3] = 0.0
    labels["intrinsics"][4, 0, 0] = -1000.0
    labels["joints_2d"][5, :, :2] = np.random.default_rng(0).uniform(0, 1000, (24, 2))
    labels["joints_2d"][6, :, :2] = np.nan
    fits = fit(labels, body)
    assert fits.reason.tolist() == [
        Reason.NO_JOINTS,
        Reason.FEW_JOINTS,
        Reason.NO_SPREAD,
        Reason.BAD_BOX,
        Reason.BAD_BOX,
        Reason.ERROR_2D,
        Reason.NO_JOINTS,
        Reason.NONE,
    ]
    assert fits.accepted.tolist() == [False] * 7 + [True]
    for array in (fits.pose_aa, fits.betas, fits.transl):
        assert np.isfinite(array).all()


def test_nobody_to_fit(people, body) -> None:
    assert len(fit({name: values[:0] for name, values in people.labels.items()}, body)) == 0
    assert len(fit([], body)) == 0


def test_gate_refuses_large_3d_errors(people, body) -> None:
    labels = people.only("3d", slice(3))
    labels["joints_3d"][1, :, :3] += np.random.default_rng(0).normal(0, 0.15, (24, 3))
    fits = fit(labels, body)
    assert fits.reason.tolist() == ["", Reason.ERROR_3D, ""]
    assert fits.error_3d[1] > 0.05


def test_extreme_shapes_become_the_mean_shape_refitted(people, body) -> None:
    labels = people.only("3d", slice(4))
    pelvis = labels["joints_3d"][1, 14, :3].copy()
    labels["joints_3d"][1, :, :3] = pelvis + 1.5 * (labels["joints_3d"][1, :, :3] - pelvis)  # a giant
    fits = fit(labels, body, SHARP)
    assert (fits.betas[1] == 0).all()
    assert fits.reason[1] == Reason.ERROR_3D
    assert (np.abs(fits.betas) <= 3).all()
    assert fits.accepted[[0, 2, 3]].all()
    lenient = fit(labels, body, SHARP.model_copy(update={"max_beta": 50.0}))
    assert np.abs(lenient.betas[1]).max() > 3
    assert lenient.error_3d[1] < fits.error_3d[1]


def with_fingers(body: BodyData) -> BodyData:
    """The open body with SMPL-X's joints: SMPL's hands belong to the wrists, jaw and fingers to none."""
    vertices, known = body.num_vertices, 22
    weights = np.zeros((vertices, 55), np.float32)
    weights[:, :known] = body.weights[:, :known]
    weights[:, known - 2 : known] += body.weights[:, known:]
    parents = PARENTS["SMPLX55"]
    rows = np.zeros((55, vertices), np.float32)
    rows[:known] = body.J_regressor[:known]
    for joint in range(known, 55):
        rows[joint] = rows[parents[joint]]
    correctives = np.zeros((vertices, 3, 9 * 54), np.float32)
    correctives[..., : 9 * (known - 1)] = body.posedirs[..., : 9 * (known - 1)]
    return replace(body, kind="smplx", weights=weights, J_regressor=rows, parents=parents, posedirs=correctives)


def test_smplx_is_fitted_in_its_22_joints_of_the_body(people, body) -> None:
    """Shapes and joints are made up here: the licensed model is not to be had."""
    smplx = with_fingers(body)
    whole = BodyModel(smplx)
    pose = torch.zeros(3, 165)
    pose[:, :66] = torch.from_numpy(people.pose_aa[:3, :66])
    truth = whole(pose, *(torch.from_numpy(x[:3]) for x in (people.betas, people.transl))).vertices
    labels = people.only("3d", slice(3))
    labels["joints_3d"][..., :3] = whole.regress("j24", truth).numpy()
    fits = fit(labels, smplx, SHARP)
    assert fits.accepted.all()
    assert (fits.error_3d < 2e-3).all()
    assert fits.pose_aa.shape == (3, 165)
    assert np.abs(fits.pose_aa[:, 66:]).max() < 1e-4
    found = whole(*map(torch.from_numpy, (fits.pose_aa, fits.betas, fits.transl))).vertices
    assert (found - truth).norm(dim=-1).mean() < 0.02
    config = FitConfig(jump_rounds=0, contact=True)
    assert fit(people.only("2d", slice(2)), smplx, config).accepted.all()


def test_a_body_without_smpl_joints_is_refused(people, body) -> None:
    with pytest.raises(MetroError, match="needs a body with SMPL's or SMPL-X's joints"):
        fit(people.labels, load_body("open_hand"))
    with pytest.raises(MetroError, match="j24"):
        fit(people.labels, replace(body, regressors={}))


def test_wrong_labels_are_refused(people, body) -> None:
    with pytest.raises(MetroError, match="lack has_3d"):
        fit({name: values for name, values in people.labels.items() if name != "has_3d"}, body)
    hands = {**people.labels, "joints_2d": people.labels["joints_2d"][:, :21]}
    with pytest.raises(MetroError, match="24 joints of J24"):
        fit(hands, body)
