"""What cameras and files do to pictures, and small objects in front of people: augmentation of finished views.

Every effect has random numbers of its own, so that switching one on or off leaves what the others do as it is.

Shapes: S image side, H, W sides of a patch.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from scipy.special import ndtri

from metro.config import PhotoConfig
from metro.random import stream

UNIT_PX = 256
"""Side of the picture whose pixels blurs are stated in."""
BEST_JPEG = 95
_GAUSS = ndtri((np.arange(256) + 0.5) / 256)  # a byte at random → a standard normal number, in 256 steps
_LEVELS = np.arange(256) / 255

Effect = Callable[[PhotoConfig, np.random.Generator, np.ndarray], np.ndarray]


def photograph(config: PhotoConfig, rng: np.random.Generator, image_SS3: np.ndarray) -> np.ndarray:
    """A view (S, S, 3) uint8 RGB as a worse camera would have taken it, from the random numbers of its sample."""
    for name, effect in EFFECTS.items():
        chance, key = rng.random(), rng.integers(1 << 63)
        if chance < getattr(config, name):
            image_SS3 = effect(config, stream(int(key)), image_SS3)
    return image_SS3


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A patch (H, W, 3) uint8: a coarse grid of similar colours, made smooth or left as tiles, checks or stripes."""
    rows, columns = np.exp(rng.uniform(0, np.log(24), 2)).astype(int)
    grey, variety = rng.uniform(10, 245), rng.uniform(0, 90)
    colour = grey + rng.uniform(0, 0.5) * (rng.uniform(0, 255, 3) - grey)  # mostly muted, as things are
    shade = rng.uniform(-1, 1, (rows, columns, 1)) + 0.2 * rng.uniform(-1, 1, (rows, columns, 3))
    cells = np.clip(colour + variety * shade, 1, 255).astype(np.uint8)
    smooth = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_NEAREST
    return cv2.resize(cells, (width, height), interpolation=smooth)


def _occluders(config: PhotoConfig, rng: np.random.Generator, image_SS3: np.ndarray) -> np.ndarray:
    size, image_SS3 = len(image_SS3), image_SS3.copy()
    for _ in range(rng.integers(1, config.occluders_max + 1)):
        sides_2 = np.maximum(size * config.occluder_side * rng.uniform(0.25, 1, 2), 2)
        box = (rng.uniform(0, size, 2).tolist(), sides_2.tolist(), rng.uniform(0, 180))
        mask_SS = np.zeros((size, size), np.uint8)
        if rng.random() < 0.5:
            cv2.ellipse(mask_SS, box, 255, cv2.FILLED)
        else:
            cv2.fillPoly(mask_SS, [np.rint(cv2.boxPoints(box)).astype(np.int32)], 255)
        cv2.copyTo(texture(rng, size, size), mask_SS, image_SS3)
    return image_SS3


def _blur(config: PhotoConfig, rng: np.random.Generator, image_SS3: np.ndarray) -> np.ndarray:
    sd = config.blur_max * len(image_SS3) / UNIT_PX * rng.uniform(0.1, 1)
    return cv2.GaussianBlur(image_SS3, (0, 0), sd)


def _motion(config: PhotoConfig, rng: np.random.Generator, image_SS3: np.ndarray) -> np.ndarray:
    """The mean of the picture along a line through each pixel."""
    length = config.motion_max * len(image_SS3) / UNIT_PX * rng.uniform(0.2, 1)
    angle, along_N = rng.uniform(0, np.pi), np.linspace(-length / 2, length / 2, 64)
    place_N2 = np.rint(along_N[:, None] * [np.sin(angle), np.cos(angle)]).astype(int)
    reach = np.abs(place_N2).max()
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    np.add.at(kernel, tuple((place_N2 + reach).T), 1)
    return cv2.filter2D(image_SS3, -1, kernel / kernel.sum())


def _grey(config: PhotoConfig, rng: np.random.Generator, image_SS3: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image_SS3, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _gamma(config: PhotoConfig, rng: np.random.Generator, image_SS3: np.ndarray) -> np.ndarray:
    return _curve(image_SS3, _LEVELS ** (config.gamma_max ** rng.uniform(-1, 1)))


def _contrast(config: PhotoConfig, rng: np.random.Generator, image_SS3: np.ndarray) -> np.ndarray:
    return _curve(image_SS3, 0.5 + (1 + config.contrast_max * rng.uniform(-1, 1)) * (_LEVELS - 0.5))


def _curve(image_SS3: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return cv2.LUT(image_SS3, np.rint(255 * np.clip(levels, 0, 1)).astype(np.uint8))


def _noise(config: PhotoConfig, rng: np.random.Generator, image_SS3: np.ndarray) -> np.ndarray:
    table = np.rint(config.noise_max * rng.random() * _GAUSS).astype(np.int16)
    noise_SS3 = table[np.frombuffer(rng.bytes(image_SS3.size), np.uint8)].reshape(image_SS3.shape)
    return cv2.add(image_SS3, noise_SS3, dtype=cv2.CV_8U)


def _jpeg(config: PhotoConfig, rng: np.random.Generator, image_SS3: np.ndarray) -> np.ndarray:
    quality = int(rng.integers(config.jpeg_min, BEST_JPEG + 1))
    bgr = cv2.cvtColor(image_SS3, cv2.COLOR_RGB2BGR)
    coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB))


EFFECTS: dict[str, Effect] = {
    "occluders": _occluders,
    "blur": _blur,
    "motion": _motion,
    "grey": _grey,
    "gamma": _gamma,
    "contrast": _contrast,
    "noise": _noise,
    "jpeg": _jpeg,
}
"""In the order in which they happen to light, sensor and file, by the field of `PhotoConfig` that gives their share."""
