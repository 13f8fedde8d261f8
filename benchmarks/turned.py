"""People and hands that do not stand upright in a picture: `python benchmarks/turned.py` writes `benchmarks/turned.md`.

Whole rendered people and hands, one to a picture, which is turned by some degrees. A box is given, tight and upright,
and the network looks at the picture as it is, or turns whom it finds leaning; or the detector finds them, whose
landmarks tell how they lean. Who is not found counts as wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from machine import machine

import metro
from metro.body.figure import FIGURES
from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, CropConfig, DatasetConfig
from metro.data.crop import apply, warp
from metro.detect import detector
from metro.export.predictor import Prediction
from metro.options import SyntheticOptions
from metro.synthetic.hands import photograph_hands
from metro.synthetic.people import open_studio
from metro.synthetic.scene import annotate, photograph_people

PEOPLE, HANDS, SEED = 60, 80, 712_012  # those of benchmarks/detector.py
ANGLES = (0, 45, 90, 135, 180)
WAYS = ("box, as it is", "box, turned", "found, turned")


@dataclass(frozen=True)
class Sample:
    """A picture, and where things are in it."""

    image: np.ndarray
    box: tuple[float, float, float, float]
    joints_J2: np.ndarray
    side: float
    """Longer side of the tight box before the picture was turned."""


def samples(kind: str, names: tuple[str, ...]) -> list[Sample]:
    """Those of the detector's benchmark, whom nothing hides."""
    hand, options = kind == "open_hand", SyntheticOptions(count=PEOPLE, seed=SEED, occlusion=0, truncation=0)
    crop = CropConfig(box_px=224, margin=2) if hand else CropConfig(box_px=448, margin=1.25)
    config, body = DatasetConfig(split="test", crop=crop, options=options), BodyConfig(kind=kind)
    photograph, count = (photograph_hands, HANDS) if hand else (photograph_people, PEOPLE)
    studio, labels = open_studio(body, "test"), JOINT_SETS["HAND21" if hand else "J24"]
    rows = [labels.index(name) for name in names]
    made = []
    for index, shot in enumerate(photograph(config, body, range(count))):
        record = annotate(studio, shot, SEED, index)
        seen = np.argwhere(shot.visible > 0.5)[:, ::-1]
        low, extent = seen.min(0) - 0.5, np.ptp(seen, axis=0) + 1.0
        made.append(Sample(shot.image, (*low, *extent), record.keypoints_2d[rows, :2], float(extent.max())))
    return made


def turned(sample: Sample, degrees: float) -> Sample:
    """The same in a picture that was turned anticlockwise, and is as much larger as that takes."""
    height, width = sample.image.shape[:2]
    affine = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    size = np.ceil(np.abs(affine[:, :2]) @ [width, height] - 1e-6).astype(int)
    affine[:, 2] += (size - [width, height]) / 2
    image = np.empty((size[1], size[0], 3), np.uint8)
    warp(sample.image, affine, image)
    x, y, w, h = sample.box
    corners = apply(affine, np.array([[x, y], [x + w, y], [x, y + h], [x + w, y + h]]))
    low, extent = corners.min(0), np.ptp(corners, axis=0)
    return replace(sample, image=image, box=(*low, *extent), joints_J2=apply(affine, sample.joints_J2))


def near(found: list[Prediction], sample: Sample) -> float:
    """Share of the joints within a tenth of the box, of the surest that was found."""
    if not found:
        return 0.0
    return float((np.linalg.norm(found[0].joints_2d - sample.joints_J2, axis=1) < 0.1 * sample.side).mean())


def table(model: str, kind: str, what: str) -> list[str]:
    """Share of the joints that are near, for each angle."""
    predictor, finder = metro.load(model, detector="none"), detector("blazepose", hands=kind == "open_hand", levels=1)
    joint_set = predictor.network.meta["model"]["joint_set"]
    figure, upright = FIGURES[joint_set], samples(kind, tuple(predictor.network.meta["joint_names"]))
    lines = [f"| {what} | {' | '.join(f'{angle}°' for angle in ANGLES)} |", "| --- |" + " ---: |" * len(ANGLES)]
    pictures = {angle: [turned(sample, angle) for sample in upright] for angle in ANGLES}
    for way in WAYS:
        FIGURES[joint_set] = replace(figure, leans_deg=360.0) if way == "box, as it is" else figure
        shares = []
        for some in pictures.values():
            boxes = [finder(s.image) if way.startswith("found") else [s.box] for s in some]
            shares.append(np.mean([near(predictor(s.image, box), s) for s, box in zip(some, boxes, strict=True)]))
        lines.append(f"| {way} | {' | '.join(f'{share:.3f}' for share in shares)} |")
        print(lines[-1], flush=True)
    FIGURES[joint_set] = figure
    return lines


def main() -> None:
    """Measure and write the table."""
    lines = [
        "# Who does not stand upright in the picture",
        "",
        f"{machine()}; `python benchmarks/turned.py`; shipped checkpoints; share of the joints within a tenth of the",
        "box's longer side (before turning) of their place.",
        "",
        *table("open", "open", f"{PEOPLE} people"),
        "",
        *table("open-hand", "open_hand", f"{HANDS} right hands"),
        "",
        "As it is: what `metro predict` did before. A box says nothing of an upside-down body, and a first look takes",
        "it for another pose; landmarks tell. Who is not found counts as wrong, which is what found hands lack.",
    ]
    with open(f"{__file__[:-3]}.md", "w") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
