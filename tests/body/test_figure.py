"""Body and hand as data, against the lists that METRO publishes and the models themselves."""

from __future__ import annotations

from typing import get_args

import pytest

from metro.body.figure import BODY, FIGURES, HAND, figure_of
from metro.body.joints import JOINT_SETS
from metro.body.load import load_body
from metro.config import BodyConfig, ModelConfig


def test_there_is_one_for_each_joint_set_and_kind_that_parameters_may_name() -> None:
    assert set(FIGURES) == set(get_args(ModelConfig.model_fields["joint_set"].annotation))
    kinds = get_args(BodyConfig.model_fields["kind"].annotation)
    assert [figure_of(kind) for kind in kinds] == [BODY, BODY, BODY, HAND, HAND]
    for figure in FIGURES.values():
        assert figure_of(figure.free) is figure
        assert figure_of(figure.licensed) is figure


def test_the_body_is_metros() -> None:
    assert BODY.token_rows == [3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10]  # H36M_J17_TO_J14
    assert BODY.label_rows == [*range(13), 18]  # J24_TO_J14
    assert BODY.root_rows == [2, 3]  # the hips
    assert (BODY.num_labels, BODY.pose_size) == (24, 72)
    assert BODY.flip_labels == [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, *range(12, 20), 21, 20, 23, 22]


def test_the_hand_is_metros() -> None:
    assert HAND.token_rows == HAND.label_rows == list(range(21))
    assert HAND.root_rows == [0]  # the wrist
    assert (HAND.num_labels, HAND.pose_size) == (21, 48)
    assert HAND.flip_labels == list(range(21))


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_names_are_in_the_registry_and_the_models_have_the_rest(figure) -> None:
    assert JOINT_SETS[figure.regressed][0] == figure.pelvis  # the origin of meshes, annotated
    assert figure.pelvis in JOINT_SETS[figure.labels]
    joints = JOINT_SETS[figure.joint_set]
    assert {*figure.roots, *figure.queries} <= set(joints)
    body = load_body(figure.free)
    assert body.figure is figure
    assert body.num_joints * 3 == figure.pose_size
    assert body.regressors[figure.regressor].shape[0] > max(figure.token_rows)
    assert body.regressors[figure.label_regressor].shape[0] == figure.num_labels
