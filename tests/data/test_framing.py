"""Boxes around parts of people: cases by hand, what is left to see, and batches that do not change without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metro.body.joints import JOINT_SETS
from metro.config import AugmentConfig, BoxConfig, ModelConfig, TrainConfig
from metro.data import crop, framing
from metro.data.loader import TrainStream
from metro.data.shards import ShardDataset
from metro.random import stream

HEIGHTS = {  # px above the soles of somebody of 170 px who stands upright
    "Ankle": 8, "Knee": 45, "Hip": 85, "Wrist": 80, "Elbow": 105, "Shoulder": 140, "Neck": 145, "Top_of_Head": 170,
    "Pelvis": 88, "Thorax": 140, "Spine": 110, "Jaw": 150, "Head": 160, "Nose": 155, "Eye": 158, "Ear": 157,
}  # fmt: skip
CENTER, SIDE = np.array([300.0, 215.0]), 200.0


def standing() -> np.ndarray:
    """J24 joints (24, 3) of that person, soles at y = 300, ±20 px wide."""
    rows = []
    for name in JOINT_SETS["J24"]:
        side, _, part = name.partition("_") if name[:2] in ("L_", "R_") else ("", "", name)
        rows.append([300 + {"L": 20, "R": -20, "": 0}[side], 300 - HEIGHTS[part], 1.0])
    return np.array(rows)


def drawn(config: BoxConfig, count: int = 400, joints: np.ndarray | None = None) -> framing.Squares:
    one = standing() if joints is None else joints
    rngs = [stream(3, k) for k in range(count)]
    return framing.draw(config, rngs, np.repeat(one[None], count, 0), np.tile(CENTER, (count, 1)), np.full(count, SIDE))


def test_boxes_end_at_the_line_and_hold_what_is_seen(monkeypatch):
    monkeypatch.setattr(framing, "SIDES", {"bottom": 1.0})
    config = BoxConfig(part=1, part_kept=0.5, part_edge=1, part_covered=0)
    found = drawn(config)
    # From 10 px above the head (y = 120) to 10 px below the ankles (302) between 0.5 and 0.9 are kept.
    line_B = np.array([past.corners_N2[:, 1].min() for past in found.past])
    assert (line_B >= 120 + 0.5 * 182 - 1e-9).all()
    assert (line_B <= 120 + 0.9 * 182 + 1e-9).all()
    assert line_B.std() > 15
    np.testing.assert_allclose(found.center_B2[:, 1], (120 + line_B) / 2)
    np.testing.assert_allclose(found.side_B, 1.2 * (line_B - 120))  # people are taller than wide, as far as their hips
    np.testing.assert_allclose(found.center_B2[:, 0], 300)


@pytest.mark.parametrize(("at", "axis", "sign"), [("bottom", 1, 1), ("top", 1, -1), ("left", 0, -1), ("right", 0, 1)])
@pytest.mark.parametrize("covered", [0, 1])
def test_what_is_past_the_line_is_not_to_be_seen(monkeypatch, at, axis, sign, covered):
    """Joints of a white picture are white up to some place along the axis, and black or covered from there on."""
    monkeypatch.setattr(framing, "SIDES", {name: float(name == at) for name in framing.SIDES})
    found = drawn(BoxConfig(part=1, part_kept=0.4, part_edge=1 - covered, part_covered=covered), 100)
    outward_J = sign * standing()[:, axis]
    hidden = []
    for past, affine in zip(found.past, crop.crop_affine(found.center_B2, 2 * found.side_B, 200), strict=True):
        image = np.full((200, 200, 3), 255, np.uint8)
        framing.hide(image, past, affine)
        column_J, row_J = np.rint(crop.apply(affine, standing()[:, :2])).astype(int).T
        inside_J = (column_J >= 0) & (column_J < 200) & (row_J >= 0) & (row_J < 200)
        gone_J = (image[row_J.clip(0, 199), column_J.clip(0, 199)] < 255).any(1)
        if not covered:
            gone, seen = outward_J[inside_J & gone_J], outward_J[inside_J & ~gone_J]
            assert not len(gone) or gone.min() > seen.max() - 2
            assert outward_J.min() in seen
        hidden.append(gone_J[outward_J == outward_J.max()].any())
    assert np.mean(hidden) > 0.5


def test_shares_and_shifts_are_those_asked_for():
    found = drawn(BoxConfig(part=0.4, part_edge=0.5, part_covered=0.25), 4000)
    in_part = found.side_B != SIDE
    assert in_part.mean() == pytest.approx(0.4, abs=0.03)
    kinds = [None if past is None else past.rng is None for past in found.past]
    assert kinds.count(True) / in_part.sum() == pytest.approx(0.5, abs=0.04)
    assert kinds.count(False) / in_part.sum() == pytest.approx(0.25, abs=0.04)
    moved = drawn(BoxConfig(shift=0.1), 4000)
    off = (moved.center_B2 - CENTER) / SIDE
    assert np.abs(off).max() == pytest.approx(0.1, abs=1e-3)
    np.testing.assert_allclose(off.mean(0), 0, atol=0.005)
    assert (moved.side_B == SIDE).all()


def test_a_share_of_those_who_are_hidden_keeps_the_box_of_the_whole_person():
    found = drawn(BoxConfig(part=1, part_edge=0.5, part_covered=0.25, part_whole=0.4), 4000)
    hidden_B = np.array([past is not None for past in found.past])
    whole_B = (found.side_B == SIDE) & (found.center_B2 == CENTER).all(1)
    assert hidden_B.mean() == pytest.approx(0.75, abs=0.03)
    assert whole_B[hidden_B].mean() == pytest.approx(0.4, abs=0.03)
    assert not whole_B[~hidden_B].any()  # who goes on past the line is seen whole only in the box of a whole person
    assert not (found.side_B[~whole_B] == SIDE).any()


def test_people_of_whom_too_little_is_known_keep_their_box():
    joints = standing()
    joints[3:, 2] = 0
    assert (drawn(BoxConfig(part=1), joints=joints).side_B == SIDE).all()
    away = standing()
    away[:, 0] += 1000  # labelled, but not in the square
    assert (drawn(BoxConfig(part=1), joints=away).side_B == SIDE).all()


# ------------------------------------------------------------------------------------------------ in the stream


def batch_of(made, step: int = 2, **augment) -> dict[str, torch.Tensor]:
    train = TrainConfig(batch_size=8, workers=0, augment=AugmentConfig(**augment))
    return TrainStream([ShardDataset(made)], ModelConfig(image_size=64), train).batch(step)


def test_a_part_changes_pictures_and_2d_labels_alone(made):
    """3D stays as it is, and 2D joints go where the new affine puts them."""
    whole, part = batch_of(made), batch_of(made, boxes=BoxConfig(part=1, shift=0.05))
    for name in ("joints_3d", "pose_aa", "betas", "has_2d", "colour", "index"):
        assert torch.equal(whole[name], part[name]), name
    assert not torch.equal(whole["image"], part["image"])
    # Joints of both batches, taken back into the frame, are the same points.
    frames = []
    for batch in (whole, part):
        pixels = ((batch["joints_2d"][..., :2].double() + 1) * 64 - 1) / 2
        frames.append(crop.apply(crop.invert(batch["affine"].double().numpy()), pixels.numpy()))
    np.testing.assert_allclose(frames[0], frames[1], atol=1e-3)


def test_who_keeps_the_whole_box_keeps_all_labels_and_is_black_past_the_line(made):
    """Affine, 2D and 3D are those of a whole person; what the picture lacks is black."""
    whole, part = batch_of(made), batch_of(made, boxes=BoxConfig(part=1, part_edge=1, part_covered=0, part_whole=1))
    assert {name for name in whole if not torch.equal(whole[name], part[name])} == {"image"}
    gone = (whole["image"] != part["image"]).any(-1)
    assert (part["image"][gone] == 0).all()
    assert gone.flatten(1).any(1).float().mean() > 0.5


def test_jitter_leaves_who_is_seen_in_part_alone(made):
    """An ablation of one switch compares the same people."""
    still, moved = (batch_of(made, boxes=BoxConfig(part=0.5, shift=shift)) for shift in (0, 0.1))
    sizes = [torch.det(b["affine"][:, :, :2]) for b in (still, moved)]
    torch.testing.assert_close(sizes[0], sizes[1])
