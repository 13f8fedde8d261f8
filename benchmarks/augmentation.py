"""What the boxes and the effects of `train.augment` cost, per view of 256 px.

``python benchmarks/augmentation.py`` takes half a minute and writes ``benchmarks/augmentation.md``. Times are processor
time of one thread, because other jobs may share the machine.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from loader import frame
from machine import machine
from photographs import PARTS, PHOTO

from metro.config import BoxConfig, PhotoConfig
from metro.data import crop, framing
from metro.data.photo import EFFECTS, photograph
from metro.random import stream

SIZE, VIEWS = 256, 400


def cost(make: Callable[[np.random.Generator], object]) -> tuple[float, float]:
    """Mean and 95th percentile of the processor time of a view, milliseconds."""
    spent = []
    for view in range(VIEWS):
        rng, start = stream(0, view), time.thread_time()
        make(rng)
        spent.append(time.thread_time() - start)
    return 1e3 * float(np.mean(spent)), 1e3 * float(np.quantile(spent, 0.95))


def main() -> None:
    """Measure and write the table."""
    cv2.setNumThreads(0)
    image = frame(0, (SIZE, SIZE))
    numbers = np.random.default_rng(0)
    joints_1J3 = np.concatenate([numbers.uniform(100, 400, (1, 24, 2)), np.ones((1, 24, 1))], 2)

    def box(config: BoxConfig, rng: np.random.Generator) -> None:
        squares = framing.draw(config, [rng], joints_1J3, np.array([[250.0, 250]]), np.array([360.0]))
        for past in filter(None, squares.past):
            framing.hide(image.copy(), past, crop.crop_affine(squares.center_B2, squares.side_B, SIZE)[0])

    whole = {
        "every view in a part's box": lambda rng: box(BoxConfig(part=1.0, shift=0.05), rng),
        f"boxes of parts, {PARTS['part']:.0%}": lambda rng: box(BoxConfig(**PARTS), rng),
        "no effect": lambda rng: photograph(PhotoConfig(), rng, image),
    }
    rows = {name: cost(make) for name, make in whole.items()}
    for name in EFFECTS:
        config = PhotoConfig.model_validate({name: 1.0})
        rows[f"`{name}` on every view"] = cost(lambda rng, config=config: photograph(config, rng, image))  # type: ignore[misc]
    mixed = PhotoConfig.model_validate(PHOTO)
    rows["all effects, " + ", ".join(f"{name} {share:.0%}" for name, share in PHOTO.items())] = cost(
        lambda rng: photograph(mixed, rng, image)
    )
    table = "\n".join(f"| {name} | {mean:.2f} | {high:.2f} |" for name, (mean, high) in rows.items())
    versions = f"Python {platform.python_version()}, OpenCV {cv2.__version__}"
    text = f"""{machine()}, load {os.getloadavg()[0]:.1f}; {versions}; `python benchmarks/augmentation.py`

Milliseconds of one core for a view of {SIZE} px, over {VIEWS} views:

| | mean | 95 % below |
|---|---|---|
{table}
"""
    Path(__file__).with_suffix(".md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
