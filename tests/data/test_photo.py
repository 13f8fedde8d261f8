"""What cameras do to pictures: each effect does what it says, alone, and to the share that was asked for."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import torch

from metro.config import AugmentConfig, ModelConfig, PhotoConfig, TrainConfig
from metro.data.loader import TrainStream
from metro.data.photo import EFFECTS, photograph
from metro.data.shards import ShardDataset
from metro.random import stream


def taken(image: np.ndarray, count: int = 60, **settings) -> list[np.ndarray]:
    """Pictures taken of one view."""
    config = PhotoConfig(**settings)
    return [photograph(config, stream(9, k), image) for k in range(count)]


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """A smooth coloured picture with one bright dot."""
    rows, columns = np.mgrid[:128, :128]
    image = np.stack([60 + rows, 60 + columns, 200 - rows / 2], -1).astype(np.uint8)
    image[64, 64] = 255
    return image


def test_nothing_is_on_by_default(scene):
    assert all(np.array_equal(picture, scene) for picture in taken(scene))


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_happens_to_the_share_asked_for_and_the_view_stays_as_it_was(scene, name):
    before = scene.copy()
    changed = [not np.array_equal(picture, scene) for picture in taken(scene, 400, **{name: 0.3})]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.07)
    assert np.array_equal(scene, before)


def test_blurs_keep_the_light_and_spread_it(scene):
    dot = np.full((129, 129, 3), 10, np.uint8)
    dot[60:69, 60:69] = 250  # of variance 80 / 12
    rows, columns = np.mgrid[-64:65, -64:65]
    for name, most in (("blur", 10.0), ("motion", 30 / np.sqrt(12))):
        widths, flat = [], []
        for picture in taken(
            dot, **{name: 1.0, f"{name}_max": 2 * (10 if name == "blur" else 30)}
        ):  # at half of 256 px
            light = picture[..., 0].astype(float) - 10
            assert light.sum() == pytest.approx(240 * 81, rel=0.15)  # rounded to whole grey levels
            spread = np.array([[(light * a * b).sum() for a in (rows, columns)] for b in (rows, columns)]) / light.sum()
            thin, wide = np.sqrt((np.linalg.eigvalsh(spread) - 80 / 12).clip(0))
            widths.append(wide)
            flat.append(thin)
        assert max(widths) == pytest.approx(most, rel=0.1)
        assert min(widths) < most / 2
        if name == "motion":
            assert np.mean(flat) < 0.6  # along a line of one pixel's width


def test_noise_has_the_deviation_asked_for():
    grey = np.full((128, 128, 3), 128, np.uint8)
    noise = np.array(taken(grey, 200, noise=1.0, noise_max=20.0)) - 128.0
    deviation = noise.std((1, 2, 3))
    assert deviation.max() == pytest.approx(20, abs=0.5)
    assert deviation.mean() == pytest.approx(10, abs=1)
    assert np.abs(noise.mean((1, 2, 3))).max() < 0.5
    loud = noise[deviation.argmax()]
    assert (np.abs(loud) > 40).mean() == pytest.approx(0.0429, abs=0.005)  # 2 (1 - Φ(40.5 / 20)), as of a bell shape
    assert np.abs(np.corrcoef(loud.reshape(-1, 3).T) - np.eye(3)).max() < 0.03


def test_curves_are_gamma_and_contrast(scene):
    """Middle grey, black and white stay under contrast as under gamma black and white; grey levels keep their order."""
    ramp = np.repeat(np.arange(1, 256, dtype=np.uint8)[:, None, None], 3, 2).repeat(4, 1)
    for picture in taken(ramp, gamma=1.0, gamma_max=2.0):
        exponent = np.log(picture[127, 0, 0] / 255) / np.log(128 / 255)
        assert 0.49 < exponent < 2.03
        np.testing.assert_allclose(picture[:, 0, 0], 255 * (ramp[:, 0, 0] / 255) ** exponent, atol=2)
    slopes = [(int(p[137, 0, 0]) - int(p[117, 0, 0])) / 20 for p in taken(ramp, 200, contrast=1.0, contrast_max=0.4)]
    assert min(slopes) == pytest.approx(0.6, abs=0.06)
    assert max(slopes) == pytest.approx(1.4, abs=0.06)


def test_grey_pictures_have_no_colour_and_the_old_brightness(scene):
    (picture,) = taken(scene, 1, grey=1.0)
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (picture[..., 1] == picture[..., 2]).all()
    assert picture[..., 0].mean() == pytest.approx((scene @ [0.299, 0.587, 0.114]).mean(), abs=1)


def test_jpeg_damages_edges_and_keeps_colours(scene):
    flat = np.full((64, 64, 3), (200, 40, 90), np.uint8)
    assert all(np.abs(picture.astype(int) - flat).max() <= 8 for picture in taken(flat, jpeg=1.0))
    worst = max(np.abs(picture.astype(int) - scene).max() for picture in taken(scene, jpeg=1.0, jpeg_min=5))
    assert worst > 20


def test_occluders_are_few_and_no_larger_than_asked(scene):
    grey = np.full((200, 200, 3), 99, np.uint8)
    covered = [(picture != 99).any(-1) for picture in taken(grey, occluders=1.0, occluders_max=1, occluder_side=0.3)]
    for mask in covered:
        if mask.any():
            box = cv2.minAreaRect(np.argwhere(mask).astype(np.float32))
            assert max(box[1]) < 0.3 * 200 + 3
    assert 0 < np.mean(covered) < 0.05


def test_one_effect_leaves_the_others_as_they_are(scene):
    """Runs that differ in one switch see the same of the rest: the same noise where nothing is blurred."""
    noisy, both = taken(scene, 400, noise=0.5), taken(scene, 400, noise=0.5, blur=0.5)
    alike = [np.array_equal(a, b) for a, b in zip(noisy, both, strict=True)]
    assert np.mean(alike) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_batches_do_not_change_a_picture(made, workers):
    photo, model = PhotoConfig(**dict.fromkeys(EFFECTS, 0.5)), ModelConfig(image_size=48)
    augment = AugmentConfig(photo=photo, boxes={"part": 0.7, "shift": 0.1})

    def images(batch_size: int, workers: int) -> torch.Tensor:
        train = TrainConfig(batch_size=batch_size, workers=workers, augment=augment)
        batches = TrainStream([ShardDataset(made)], model, train)
        return torch.cat([batch["image"] for batch in itertools.islice(batches, 24 // batch_size)])

    assert torch.equal(images(8, workers), images(6, 0))
