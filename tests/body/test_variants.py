"""People are posed on the body of their gender."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from metro.body.arrays import BodyData, save_body
from metro.body.load import load_body, load_variant
from metro.body.model import BodyModel
from metro.config import BodyConfig
from metro.errors import MetroError
from metro.words import GENDERS


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return BodyModel(load_body("open"), variants=partial(load_variant, BodyConfig()))


def people(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, 72, generator=draw) * 0.3, torch.randn(count, 10, generator=draw)


def test_everybody_has_the_mesh_and_the_joints_of_the_own_body(model: BodyModel) -> None:
    pose_aa, betas = people(5)
    genders = ("female", "neutral", "male", "female", "male")
    found = model.of_people(pose_aa, betas, torch.tensor([GENDERS.index(gender) for gender in genders]))
    for i, gender in enumerate(genders):
        own = BodyModel(load_body("open", gender))(pose_aa[i : i + 1], betas[i : i + 1])
        torch.testing.assert_close(found.vertices[i], own.vertices[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(found.joints[i], own.joints[0], atol=1e-5, rtol=0)
        if gender != "neutral":
            neutral = model(pose_aa[i : i + 1], betas[i : i + 1])
            assert (found.vertices[i] - neutral.vertices[0]).norm(dim=-1).mean() > 0.01


def test_neutral_people_cost_no_other_body() -> None:
    """And they get the very numbers of `forward`."""

    def variants(gender: str) -> BodyData:
        raise AssertionError(gender)

    model, (pose_aa, betas) = BodyModel(load_body("open"), variants=variants), people(3)
    expected = model(pose_aa, betas).vertices
    assert torch.equal(model.of_people(pose_aa, betas).vertices, expected)
    assert torch.equal(model.of_people(pose_aa, betas, torch.zeros(3, dtype=torch.uint8)).vertices, expected)


def test_a_body_is_loaded_once_and_goes_where_the_model_goes() -> None:
    loaded: list[str] = []

    def variants(gender: str) -> BodyData:
        loaded.append(gender)
        return load_body("open", gender)

    model = BodyModel(load_body("open"), variants=variants)
    model.require(["female"])
    pose_aa, betas = (t.double() for t in people(2))
    found = model.double().of_people(pose_aa, betas, torch.tensor([1, 1], dtype=torch.uint8))
    assert (loaded, found.vertices.dtype) == (["female"], torch.float64)
    assert not [name for name, _ in model.named_modules() if name]  # of the neutral one alone: state and size stay


@pytest.mark.parametrize("place", ["folder", "file", "shipped hand"])
def test_a_missing_body_is_told_in_one_line_with_both_remedies(tmp_path: Path, place: str) -> None:
    save_body(load_body("open"), tmp_path / "open.npz")
    config = {
        "folder": BodyConfig(kind="smpl", path=tmp_path),
        "file": BodyConfig(kind="smpl", path=tmp_path / "basic.pkl"),
        "shipped hand": BodyConfig(kind="open_hand"),
    }[place]
    message = rf"is no folder with {config.kind}_male\.npz, .*male people.*body\.path.*`gender: neutral`"
    with pytest.raises(MetroError, match=message) as caught:
        load_variant(config, "male")
    assert "\n" not in str(caught.value)


def test_a_model_without_variants_says_so() -> None:
    with pytest.raises(MetroError, match="male people need a body of their own"):
        BodyModel(load_body("open")).require(["male"])


def test_the_body_of_the_settings_is_that_of_its_gender() -> None:
    config = BodyConfig(gender="female")
    assert load_variant(config, "neutral").gender == load_variant(config, "female").gender == "female"
    assert load_variant(config, "male").gender == "male"
