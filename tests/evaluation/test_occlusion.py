"""Occlusion: what hides people hides what it says, and errors are found where a network looks."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metro.body.joints import JOINT_SETS
from metro.config import OcclusionConfig
from metro.data.augment import IMAGENET_MEAN, IMAGENET_SD
from metro.evaluation import occlusion as o
from metro.evaluation.measure import measure
from metro.evaluation.protocols import protocol_of
from metro.random import stream
from tests.conftest import World

SIZE, WRIST = 64, JOINT_SETS["J14"].index("L_Wrist")
SMALL = OcclusionConfig(
    people=4, patch_people=2, shares=(0.2, 0.4), masked=(0.5, 1.0), steps=3, bootstrap=20, batch_size=7
)


def test_objects_hide_the_share_of_the_box_that_is_told_and_stay() -> None:
    dark, box = np.zeros((SIZE, SIZE, 3), np.uint8), np.array([10, 4, 40, 60])  # textures are nowhere black
    seen, hidden = o.behind_objects(dark, box, (0.1, 0.3, 0.6), stream(5, 7))
    changed = seen.any(-1)
    assert hidden == pytest.approx(changed[:, 4:60, 10:40].mean((1, 2)))
    assert (hidden >= [0, 0.1, 0.3, 0.6]).all()
    assert (hidden < [0.01, 0.2, 0.4, 0.7]).all()
    assert all((later | ~earlier).all() for earlier, later in pairwise(changed))
    again, _ = o.behind_objects(dark, box, (0.1, 0.3, 0.6), stream(5, 7))
    other, _ = o.behind_objects(dark, box, (0.1, 0.3, 0.6), stream(5, 8))
    assert np.array_equal(again, seen)
    assert not np.array_equal(other, seen)


def test_the_patch_covers_what_is_said_to_be_covered() -> None:
    image = np.full((SIZE, SIZE, 3), 255, np.uint8)
    places = np.array([[0, 0], [15.4, 40], [63, 63], [np.nan, 3], [-4, 5]])
    seen, covered = o.under_patch(image, places, 0.25, 4)
    assert ((seen != 255).all(-1).sum((2, 3)) == 16 * 16).all()
    for j, (x, y) in enumerate(places):
        known = x >= 0
        assert np.array_equal(covered[..., j], seen[:, :, round(y), round(x), 0] != 255 if known else np.zeros((4, 4)))
    assert (seen[0, 3, :16, 48:] != 255).all()  # row 0, last column


def test_masks_hide_their_share_and_what_smaller_ones_hid() -> None:
    masks = o.query_masks(stream(1), 14, 74, (0.0, 0.25, 0.5, 1.0))
    assert masks["joints"].sum(1).tolist() == [0, 4, 7, 14]
    assert masks["vertices"].sum(1).tolist() == [0, 15, 30, 60]
    assert not masks["joints"][:, 14:].any()
    assert not masks["vertices"][:, :14].any()
    assert np.array_equal(masks["both"], masks["joints"] | masks["vertices"])
    assert all((more | ~less).all() for less, more in pairwise(masks["both"]))


class Eye(nn.Module):
    """A network whose left wrist is as far right (metres) as the region it looks at is bright; a masked query: a metre
    further."""

    rows, columns = slice(8, 24), slice(40, 56)

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_size=SIZE, joint_set="J14")
        self.num_joints, self.template_T3 = 14, torch.zeros(20, 3)
        self.backbone = SimpleNamespace(features=lambda images: images.flatten(1))

    def forward(self, images: Tensor, mask_BT: Tensor | None = None, full: bool = True) -> SimpleNamespace:
        pixels = images.reshape(-1, 3, SIZE, SIZE) * torch.tensor(IMAGENET_SD)[:, None, None]
        pixels = pixels + torch.tensor(IMAGENET_MEAN)[:, None, None]
        joints = torch.zeros(len(pixels), 14, 3)
        joints[:, WRIST, 0] = pixels[:, 0, self.rows, self.columns].mean((1, 2))
        if mask_BT is not None:
            joints[:, WRIST, 0] += mask_BT[:, WRIST].float()
        return SimpleNamespace(mesh_joints=joints, camera=torch.tensor([[1.0, 0, 0]]).expand(len(pixels), 3))


def test_the_map_lights_up_where_the_network_looks() -> None:
    """A white picture, a patch of 16 pixels at 0, 16, 32, 48: it covers half of the region at two places."""
    truth = torch.zeros(2, 14, 3)
    truth[:, WRIST, 0] = 1  # what it says of white
    places = np.full((2, 14, 2), np.nan)
    places[:, WRIST] = 50, 20
    white = np.full((2, SIZE, SIZE, 3), 255, np.uint8)
    people = o.People(np.array([3, 9]), white, truth, places, np.tile([0, 0, SIZE, SIZE], (2, 1)))
    config = OcclusionConfig(people=2, patch_people=1, steps=4, masked=(0.5, 1.0), shares=(0.3,), bootstrap=10)
    found = o.measure_occlusion(Eye(), people, config)  # type: ignore[arg-type]
    rise = 1 - round(255 * IMAGENET_MEAN[0]) / 255
    expected = np.zeros((4, 4))
    # Rows 8-24 lie half under the patches at 0 and 16, columns 40-56 half under those at 32 and 48: a quarter each.
    expected[:2, 2:] = rise / 4
    assert np.abs(found.patch_MPPJ[0, ..., WRIST] - expected).max() < 1e-6
    assert np.delete(found.patch_MPPJ, WRIST, -1).max() == 0
    assert [tuple(place) for place in np.argwhere(found.covered_MPPJ[0, ..., WRIST])] == [(1, 3)]
    assert found.masked_CNJ["vertices"].max() < 1e-6
    assert found.masked_CNJ["joints"][-1, :, WRIST] == pytest.approx(1, abs=1e-6)
    summary = o.summarise({"eye": found}, people, "J14", config, benchmark="b")
    row = summary["networks"][0]["patch"][WRIST]
    assert row["covered_mm"] == pytest.approx(250 * rise, abs=0.01)
    assert row["elsewhere_mm"] == pytest.approx(250 * rise * 3 / 15, abs=0.01)
    assert row["map_mm"][1][2] == pytest.approx(250 * rise, abs=0.01)
    assert summary["networks"][0]["joints"][-1]["mpjpe_mm"] == pytest.approx(1000 / 14, abs=0.01)


def test_without_occlusion_errors_are_those_of_the_evaluation(world: World) -> None:
    protocol = protocol_of("open")
    people = o.choose_people(world.dataset, world.model, world.body, protocol, SMALL)
    assert len(people) == 4
    found = o.measure_occlusion(world.model, people, SMALL)
    samples = measure(world.model, world.dataset, world.body, protocol)
    truth = samples.values["mpjpe"][people.index_N]
    assert np.isfinite(truth).all()
    assert np.nanmean(found.objects_CNJ[0], 1) == pytest.approx(truth, abs=1e-5)
    for errors_CNJ in found.masked_CNJ.values():  # through the features of the backbone
        assert np.nanmean(errors_CNJ[0], 1) == pytest.approx(truth, abs=1e-5)
    summary = o.summarise({"a": found, "b": found}, people, "J14", SMALL, benchmark="b")
    assert all(p["mpjpe_mm"] == 0 and p["ci95"] == [0, 0] for p in summary["differences"][0]["objects"])
