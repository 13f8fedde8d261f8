"""Makes the example pictures of the page that `metro serve` shows: ``python -m tools.demo_examples``.

Rendered people of a seed that no dataset uses; the numbers were chosen by eye for variety.
"""

from __future__ import annotations

from pathlib import Path

import cv2

from metro.config import BodyConfig, CropConfig, DatasetConfig
from metro.options import SyntheticOptions
from metro.synthetic.scene import photograph_people

FOLDER = Path(__file__).resolve().parents[1] / "metro" / "serve" / "page" / "examples"
SEED = 20211107
CHOSEN = (12, 17, 10)
JPEG_QUALITY = 88


def main() -> None:
    """Render and write them."""
    options = SyntheticOptions(seed=SEED, occlusion=0.0, truncation=0.0)
    config = DatasetConfig(split="test", options=options, crop=CropConfig(box_px=420, margin=1.1))
    FOLDER.mkdir(exist_ok=True)
    for number, shot in enumerate(photograph_people(config, BodyConfig(kind="open"), CHOSEN), 1):
        picture = cv2.cvtColor(shot.image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(FOLDER / f"{number}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


if __name__ == "__main__":
    main()
