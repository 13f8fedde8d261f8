"""How well people are found: `python benchmarks/detector.py` writes the table `benchmarks/detector.md`.

Rendered people are cut out by their own masks and set onto the packaged photographs, 1, 2 or 5 to a picture, in many
sizes: the boxes are known, but neither people nor pictures are real. A person is found if a box overlaps the true one
by half (intersection over union), each box counting for one person; precision is the share of boxes that are
somebody's.
"""

from __future__ import annotations

import os
import time
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from machine import machine

import metro
from metro.body.joints import JOINT_SETS
from metro.config import BodyConfig, CropConfig, DatasetConfig
from metro.detect import detector
from metro.detect.anchors import overlap
from metro.detect.hands import HandDetector
from metro.options import SyntheticOptions
from metro.synthetic.hands import photograph_hands
from metro.synthetic.people import open_studio
from metro.synthetic.scene import Shot, annotate, photograph_people

PEOPLE, PICTURES, HANDS, SEED = 60, 216, 80, 712_012
SIZES = ((480, 640), (960, 1280), (1080, 1920))
COUNTS = (1, 2, 5)
LEVELS = (0, 1, 2)
BANDS = ((0.0, 0.125), (0.125, 0.25), (0.25, 0.5), (0.5, 1.0))
"""Longer side of a person over that of the picture."""
PHOTOGRAPHS = ("coffee", "rocket", "grass", "chelsea", "hubble", "clock")
APART = 0.15
"""Most overlap of two people's boxes."""


def shots() -> list[Shot]:
    """People who are whole, and whom nothing hides."""
    config = DatasetConfig(
        split="test",
        crop=CropConfig(box_px=448, margin=1.25),
        options=SyntheticOptions(count=PEOPLE, seed=SEED, occlusion=0, truncation=0),
    )
    return list(photograph_people(config, BodyConfig(), range(PEOPLE)))


def photograph(name: str) -> np.ndarray:
    """One of the packaged ones (H, W, 3), RGB."""
    file = resources.files("metro") / "synthetic" / "data" / "photographs" / f"{name}.png"
    return cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)


def scene(
    g: np.random.Generator, people: list[Shot], count: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) with so many people, and their boxes (N, 2, 2): low and high corners."""
    height, width = size
    behind = photograph(g.choice(PHOTOGRAPHS))
    zoom = max(height / behind.shape[0], width / behind.shape[1])
    canvas = cv2.resize(behind, None, fx=zoom, fy=zoom)[:height, :width].astype(np.float32)
    boxes: list[np.ndarray] = []
    while len(boxes) < count:
        shot = people[g.integers(len(people))]
        side = np.exp(g.uniform(np.log(0.08), np.log(0.9 / np.sqrt(count)))) * max(size)
        rows, columns = np.nonzero(shot.visible > 0.5)
        part = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        share, colour = shot.visible[part], shot.image[part]
        zoom = min(side / max(share.shape), 0.95 * height / share.shape[0], 0.95 * width / share.shape[1])
        share = cv2.resize(share, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        colour = cv2.resize(colour, share.shape[::-1], interpolation=cv2.INTER_AREA)
        low = np.array([g.integers(width - share.shape[1] + 1), g.integers(height - share.shape[0] + 1)])
        box = np.stack((low - 0.5, low + share.shape[::-1] - 0.5))
        if boxes and overlap(box[None], np.stack(boxes)).max() > APART:
            continue
        boxes.append(box)
        under = canvas[low[1] : low[1] + share.shape[0], low[0] : low[0] + share.shape[1]]
        under += share[..., None] * (colour - under)
    return np.rint(canvas).astype(np.uint8), np.stack(boxes)


def corners(found: list) -> np.ndarray:
    """Boxes (N, 2, 2) of what was found."""
    return np.array([[[x, y], [x + w, y + h]] for x, y, w, h in (one.box for one in found)]).reshape(-1, 2, 2)


def matched(found_D22: np.ndarray, true_N22: np.ndarray) -> tuple[np.ndarray, int]:
    """Overlap (N,) of each person with the box that is theirs, 0 without one, and how many boxes are nobody's."""
    overlap_ND = overlap(true_N22, found_D22)
    theirs, left = np.zeros(len(true_N22)), overlap_ND.copy()
    while left.size and left.max() >= 0.5:
        person, box = np.unravel_index(left.argmax(), left.shape)
        theirs[person] = left[person, box]
        left[person], left[:, box] = 0, 0
    return theirs, len(found_D22) - np.count_nonzero(theirs)


def finding(people: list[Shot]) -> list[str]:
    """The table of how many are found."""
    finders = {level: detector("blazepose", levels=level) for level in LEVELS}
    overlaps: dict[int, list[np.ndarray]] = {level: [] for level in LEVELS}
    false, ms = dict.fromkeys(LEVELS, 0), dict.fromkeys(LEVELS, 0.0)
    shares, counts = [], []
    for number in range(PICTURES):
        g = np.random.default_rng((SEED, number))
        size, count = SIZES[number % 3], COUNTS[number // 3 % 3]
        image, true_N22 = scene(g, people, count, size)
        shares += [np.max(np.ptp(true_N22, axis=1), axis=1) / max(size)]
        counts += [count] * count
        for level, finder in finders.items():
            start = time.process_time()
            found = finder(image)
            ms[level] += 1000 * (time.process_time() - start)
            theirs, extra = matched(corners(found), true_N22)
            overlaps[level].append(theirs)
            false[level] += extra
    share, count_of = np.concatenate(shares), np.array(counts)
    lines = [
        f"{PICTURES} pictures of {', '.join(f'{w} × {h}' for h, w in SIZES)} with {len(share)} people: share found.",
        "",
        "| squares halved | all | "
        + " | ".join(f"{low:g} to {high:g} of the picture" for low, high in BANDS)
        + " | 1, 2, 5 to a picture | median IoU of the found | precision | CPU ms a picture |",
        "| --- |" + " ---: |" * (len(BANDS) + 5),
    ]
    for level in LEVELS:
        theirs = np.concatenate(overlaps[level])
        hit = theirs > 0
        bands = [f"{hit[(share >= low) & (share < high)].mean():.2f}" for low, high in BANDS]
        by_count = ", ".join(f"{hit[count_of == count].mean():.2f}" for count in COUNTS)
        lines.append(
            f"| {level} | {hit.mean():.2f} | {' | '.join(bands)} | {by_count} | {np.median(theirs[hit]):.2f} | "
            f"{hit.sum() / (hit.sum() + false[level]):.2f} | {ms[level] / PICTURES:.0f} |"
        )
    return lines


def nobody() -> list[str]:
    """The table of what is found where nobody is."""
    lines = [
        "The packaged photographs without people: boxes in each.",
        "",
        f"| squares halved | {' | '.join(PHOTOGRAPHS)} |",
        "| --- |" + " ---: |" * len(PHOTOGRAPHS),
    ]
    for level in LEVELS:
        finder = detector("blazepose", levels=level)
        lines.append(f"| {level} | {' | '.join(str(len(finder(photograph(name)))) for name in PHOTOGRAPHS)} |")
    return lines


def second_pass(people: list[Shot]) -> list[str]:
    """The table of what looking again at the box around the first mesh gives."""
    predictor = metro.load("open", detector="none")
    studio, names = open_studio(BodyConfig(), "test"), JOINT_SETS["J24"]
    finder = detector("blazepose", levels=1)
    rows: dict[str, list[tuple[float, float]]] = {}
    for index, shot in enumerate(people):
        record = annotate(studio, shot, SEED, index)
        columns = [names.index(name) for name in predictor.network.meta["joint_names"]]
        true_3d, true_2d = record.joints_3d[columns, :3], record.keypoints_2d[columns, :2]
        y, x = np.nonzero(shot.visible > 0.5)
        tight = (x.min() - 0.5, y.min() - 0.5, np.ptp(x) + 1, np.ptp(y) + 1)
        found = finder(shot.image)
        boxes = {"true": tight} | ({"found": found[0].box} if found else {})
        for kind, box in boxes.items():
            for predictor.passes in (1, 2):
                (person,) = predictor(shot.image, box)
                off_2d = np.linalg.norm(person.joints_2d - true_2d, axis=1)
                apart = person.joints - person.joints.mean(0) - (true_3d - true_3d.mean(0))
                rows.setdefault(f"{kind}, {predictor.passes}", []).append(
                    (float((off_2d < 0.1 * max(tight[2:])).mean()), 1000 * float(np.linalg.norm(apart, axis=1).mean()))
                )
    lines = [
        "The shipped checkpoint on the pictures that these people were rendered in, one to a picture; with two passes",
        "it looks again, at the box around its own first mesh.",
        "",
        "| box, passes | people | PCK@0.1 of the box | joints, mm from the truth, centred |",
        "| --- | ---: | ---: | ---: |",
    ]
    for kind, found_rows in rows.items():
        pck, mm = np.mean(found_rows, axis=0)
        lines.append(f"| {kind} | {len(found_rows)} | {pck:.3f} | {mm:.0f} |")
    return lines


def hands() -> list[str]:
    """The table of hands, which are all right ones."""
    config = DatasetConfig(
        split="test",
        crop=CropConfig(box_px=224, margin=2),
        options=SyntheticOptions(count=HANDS, seed=SEED, occlusion=0, truncation=0),
    )
    pictures = list(photograph_hands(config, BodyConfig(kind="open_hand"), range(HANDS)))
    lines = [
        f"{HANDS} rendered right hands, one to a picture, the whole picture looked at.",
        "",
        "| least score | found | of these told to be right hands |",
        "| --- | ---: | ---: |",
    ]
    for least in (0.5, 0.9):
        finder = detector("blazepose", hands=True, levels=0, least=least)
        best = [found[0] for shot in pictures if (found := finder(shot.image))]
        right = np.mean([not one.left for one in best])
        lines.append(f"| {least} | {len(best) / HANDS:.2f} | {right:.2f} |")
    return lines


def feet(people: list[Shot]) -> list[str]:
    """The table of what is found on arms and legs, with and without a look at whose they are."""
    studio, names, finder = open_studio(BodyConfig(), "test"), JOINT_SETS["J24"], HandDetector(levels=1)
    looks = {"as found": lambda image: [], "what lies on legs left out": finder.people}
    ends = {"hands": ("L_Wrist", "R_Wrist"), "legs": ("L_Ankle", "R_Ankle", "L_Knee", "R_Knee")}
    lines = [
        f"Hands found on {len(people)} rendered people, one to a picture, in squares of two sizes: so many lie within",
        "a tenth of the longer side of the person's box of a wrist, of an ankle or a knee, and of neither.",
        "",
        "| | hands | legs | elsewhere |",
        "| --- | ---: | ---: | ---: |",
    ]
    for kind, finder.people in looks.items():
        counts = dict.fromkeys((*ends, "elsewhere"), 0)
        for index, shot in enumerate(people):
            points_J2 = annotate(studio, shot, SEED, index).keypoints_2d[:, :2]
            near = 0.1 * np.ptp(np.argwhere(shot.visible > 0.5), axis=0).max()
            for one in finder(shot.image):
                apart_J = np.linalg.norm(points_J2 - one.landmarks[:, :2].mean(0), axis=1)
                off = {part: min(apart_J[names.index(name)] for name in of) for part, of in ends.items()}
                part = min(off, key=off.__getitem__)
                counts[part if off[part] < near else "elsewhere"] += 1
        lines.append(f"| {kind} | {' | '.join(str(count) for count in counts.values())} |")
    return lines


def main() -> None:
    """Measure and write the tables."""
    people = shots()
    tables = [*finding(people), "", *nobody(), "", *second_pass(people), "", *hands(), "", *feet(people)]
    lines = [
        "# Finding people",
        "",
        "Written by `python benchmarks/detector.py`: rendered people, cut out and set onto the packaged photographs.",
        f"{machine()}, load {os.getloadavg()[0]:.1f} while it ran.",
        "",
        *tables,
    ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
