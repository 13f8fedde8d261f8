"""Benchmark `photos`: do the joints of predicted meshes fall on those that people marked in photographs?

Nothing but 2D labels is needed. `DESCRIPTION` defines the numbers, `metro.evaluation.photo_labels` reads the labels.
Files are those of other benchmarks: ``metrics.json`` (flat), ``samples.npz`` (a row per person, see `Photos.write`) and
``result.json`` with the keys of `metro.evaluation.summary` as far as they apply, and these, in percent:

- ``left_out``: reason → people of the labels who are not judged
- ``per_joint``: joint, n (people with it annotated), pck10, pck20 → value, ci95
- ``joint_groups``: group, joints, pck10, pck20 → value, ci95: means of left and right
- ``cases``: best, median, worst → list of row (in samples.npz), id, file, pck10

Shape suffixes: N person, L limb joint. 2D in image pixels, integers are pixel centres.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metro.body.joints import group_indices, index_map
from metro.detect import Detection, Detector
from metro.detect.anchors import overlap
from metro.errors import MetroError, naming
from metro.evaluation.photo_labels import LEAST_JOINTS, LIMBS, LabelledPeople
from metro.evaluation.protocols import Metric
from metro.evaluation.summary import SCHEMA, bootstrap, headline, table
from metro.export.predictor import Photo, Predictor, knows_hands, read_photo

NAME, TITLE = "photos", "Photographs, 2D"
NEAR = {"pck10": 0.1, "pck20": 0.2}
"""Largest distances that count as right, as shares of the longer side of a person's box."""
APART = 0.05
"""Distance along x between left and right, as a share of the longer side of the box, from which on they are told apart:
hips 0.2 m apart in a box of 1.7 m, when the person faces the camera, or turns its back to it, within 65°."""
MATCHED = 0.3
"""Intersection over union from which on a detector's box is that of an annotated person. Low, because it only has to
tell people apart: how good a box is shows in the joints."""
AT_ONCE = 8
"""Pictures in memory."""

METRICS: dict[str, Metric] = {
    "pck10": Metric("PCK@0.1", "%", "annotated joints within 0.1 of the box's longer side", lower_is_better=False),
    "pck10_whole": Metric("PCK@0.1 whole", "%", "of people with all 12 limb joints annotated", lower_is_better=False),
    "pck10_part": Metric("PCK@0.1 part", "%", "of people who lack some: cut or hidden", lower_is_better=False),
    "pck20": Metric("PCK@0.2", "%", "annotated joints within 0.2 of the box's longer side", lower_is_better=False),
    "pck20_whole": Metric("PCK@0.2 whole", "%", "of people with all 12 limb joints annotated", lower_is_better=False),
    "pck20_part": Metric("PCK@0.2 part", "%", "of people who lack some: cut or hidden", lower_is_better=False),
    "facing_front": Metric(
        "facing, fronts", "%", "people seen from the front whose mesh is too", lower_is_better=False
    ),
    "facing_back": Metric("facing, backs", "%", "people seen from behind whose mesh is too", lower_is_better=False),
}
"""What is measured of each person, by key."""

DESCRIPTION = (
    "For photographs with labels in COCO's layout (`metro evaluate-photos LABELS.json --images FOLDER`), "
    "not for prepared datasets. 12 limb joints (shoulders, elbows, wrists, hips, knees, ankles) regressed from the "
    "predicted full mesh and projected by the predicted camera, against the joints annotated in the photograph, hidden "
    "ones included. A joint is right if its distance is at most 0.1 (0.2) of the longer side of the person's annotated "
    "box; a person's number is the share of annotated joints that are right, the benchmark's the mean over people. "
    "Left and right count: a mirrored person is wrong. Seen from the front is who has the left shoulder and the left "
    f"hip right of the right ones in the image, each by {APART} of the box's longer side or more, from behind who has "
    "both left of them; the mesh is seen from the same side if the sum of its own two offsets has the same sign. "
    f"People with fewer than {LEAST_JOINTS} annotated limb joints are left out. The network sees the annotated box, "
    f"or, with a detector, the found box that overlaps it most (intersection over union of {MATCHED} or more, each box "
    "for one person); joints of people who are missed are wrong."
)


@dataclass(frozen=True, eq=False)
class Photos:
    """Outcome of the benchmark."""

    people: LabelledPeople
    boxes_N4: np.ndarray
    """Boxes that the network saw; nan: the detector missed the person."""
    joints_NL2: np.ndarray
    """Predicted joints; nan as above."""
    distance_NL: np.ndarray
    """From the annotated joint, as a share of the box's longer side; nan: not annotated, inf: the person was missed."""
    values: Mapping[str, np.ndarray]
    """Metric → (N,), shares in [0, 1]; nan: does not apply."""
    summary: dict[str, Any]
    """The content of ``result.json``."""

    def write(self, folder: Path) -> None:
        """Write ``metrics.json``, ``result.json`` and ``samples.npz``.

        The last holds `id`, `picture`, `annotated_box`, `box`, `annotated_joints` (nan where not annotated), `joints`,
        `distance` and a column for each metric.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(headline(self.summary), indent=1) + "\n")
        (folder / "result.json").write_text(json.dumps(self.summary, indent=1, ensure_ascii=False) + "\n")
        people = self.people
        np.savez(
            folder / "samples.npz",
            id=people.ids,
            picture=np.array(people.files),
            annotated_box=people.boxes_N4,
            box=self.boxes_N4,
            annotated_joints=np.where(people.annotated_NL[..., None], people.joints_NL2, np.nan),
            joints=self.joints_NL2,
            distance=self.distance_NL,
            **self.values,  # type: ignore[arg-type]
        )


def judge(
    predictor: Predictor,
    people: LabelledPeople,
    images: Path,
    detector: Detector | None = None,
    *,
    batch_size: int = 64,
    resamples: int = 1000,
    cases: int = 4,
    benchmark: str = "",
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Photos:
    """Judge a predictor, whatever network and passes it has, on labelled photographs.

    Parameters
    ----------
    images
        Folder of the pictures.
    detector
        Finds the boxes; None: the annotated ones are given.
    batch_size
        People per forward pass; they are of at most `AT_ONCE` pictures.
    resamples
        Of the bootstrap that the intervals come from.
    cases
        Best, median and worst people named, of each.
    benchmark, about
        Name and facts that the result carries.
    progress
        Called with people done and people in all.

    Raises
    ------
    MetroError
        The network predicts hands, a picture is missing, unreadable or not of the size that its labels tell, or a box
        lies outside of it.
    """
    if knows_hands(predictor.network):
        raise MetroError(f"protocol {NAME} is for bodies; this model predicts hands")
    boxes_N4, joints_NL2 = _predicted(predictor, people, images, detector, batch_size, progress)
    distance_NL = distances(people, joints_NL2)
    values = scores(people, joints_NL2, distance_NL)
    summary = {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "samples": len(people),
        "protocol": {"name": NAME, "title": TITLE, "description": DESCRIPTION, "joints": list(LIMBS)},
        "model": dict(about or {}),
        **_tables(values, distance_NL, resamples),
        "left_out": dict(people.left_out),
        "cases": _cases(people, values["pck10"], distance_NL, cases),
    }
    return Photos(people, boxes_N4, joints_NL2, distance_NL, values, summary)


def distances(people: LabelledPeople, joints_NL2: np.ndarray) -> np.ndarray:
    """Distances (N, L) of predicted joints (nan: the person was missed), as `Photos.distance_NL`."""
    off_NL = np.linalg.norm(joints_NL2 - people.joints_NL2, axis=-1) / people.side_N[:, None]
    return np.where(people.annotated_NL, np.where(np.isnan(off_NL), np.inf, off_NL), np.nan)


def scores(people: LabelledPeople, joints_NL2: np.ndarray, distance_NL: np.ndarray) -> dict[str, np.ndarray]:
    """Each of `METRICS` (N,) as a share; nan where it does not apply."""
    count_N, whole_N = people.annotated_NL.sum(1), people.annotated_NL.all(1)
    values = {key: (distance_NL <= near).sum(1) / count_N for key, near in NEAR.items()}
    for key in NEAR:
        values[f"{key}_whole"] = np.where(whole_N, values[key], np.nan)
        values[f"{key}_part"] = np.where(whole_N, np.nan, values[key])
    true_N2 = turn(people.joints_NL2) / people.side_N[:, None]
    known_N = people.annotated_NL[:, _TURN].all(1)
    way_N = turn(joints_NL2).sum(1)
    for name, sign in (("front", 1), ("back", -1)):
        seen_N = known_N & (sign * true_N2 >= APART).all(1)
        values[f"facing_{name}"] = np.where(seen_N, sign * way_N > 0, np.nan)
    return {key: values[key] for key in METRICS}


_TURN = index_map(LIMBS, ("L_Shoulder", "L_Hip", "R_Shoulder", "R_Hip"))


def turn(joints_NL2: np.ndarray) -> np.ndarray:
    """How far (N, 2) the left shoulder and the left hip are right of the right ones in the image: facing it, if so."""
    x_N4 = joints_NL2[:, _TURN, 0]
    return x_N4[:, :2] - x_N4[:, 2:]


def shown(summary: Mapping[str, Any]) -> str:
    """A result as text: metrics with intervals, joints, and who was left out."""
    rows = [["joints", *(f"{METRICS[key].label}{of}" for key in NEAR for of in ("", " left", " right")), "n"]]
    single = {entry["joint"]: entry for entry in summary["per_joint"]}
    for group in summary["joint_groups"]:
        sides = [single[joint] for joint in sorted(group["joints"])]  # L before R
        cells = [entry[key]["value"] for key in NEAR for entry in (group, *sides)]
        counted = str(sum(side["n"] for side in sides))
        rows.append([group["group"], *("" if v is None else f"{v:.1f} %" for v in cells), counted])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    joints = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    left = "; ".join(f"{count} {reason}" for reason, count in summary["left_out"].items())
    return "\n".join([table(summary), "", *joints, *([f"left out: {left}"] if left else [])])


def open_photo(people: LabelledPeople, images: Path, name: str) -> Photo:
    """One of the pictures.

    Raises
    ------
    MetroError
        It is missing, unreadable, or not of the size that its labels tell.
    """
    photo, told = read_photo(images / name), people.sizes[name]
    height, width = photo.pixels.shape[:2]
    if told not in (None, (width, height)):
        assert told is not None
        raise MetroError(
            f"{photo.source}: has {width}×{height} pixels, its labels are for {told[0]}×{told[1]}; give the "
            "pictures that were annotated, neither resized nor turned"
        )
    return photo


def _predicted(
    predictor: Predictor,
    people: LabelledPeople,
    images: Path,
    detector: Detector | None,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) and joints (N, L, 2), a few pictures after the other."""
    limbs = index_map(predictor.network.meta["model"]["joint_set"], LIMBS)
    boxes_N4, joints_NL2 = np.full_like(people.boxes_N4, np.nan), np.full_like(people.joints_NL2, np.nan)
    rows: dict[str, list[int]] = {}
    for number, name in enumerate(people.files):
        rows.setdefault(name, []).append(number)
    if missing := [name for name in rows if not (images / name).is_file()]:
        raise MetroError(
            f"{images / missing[0]}: no such image ({len(missing)} of {len(rows)} labelled ones are missing); give the "
            "folder from which the labels name them"
        )
    names, done = [*rows], 0
    for start in range(0, len(names), AT_ONCE):
        photos, wanted, seen = [], [], []
        for name in names[start : start + AT_ONCE]:
            photo, ours = open_photo(people, images, name), rows[name]
            boxes: Any = people.boxes_N4[ours]
            if detector is not None:
                with naming(photo.source):
                    theirs = assign(people.boxes_N4[ours], detector(photo.pixels))
                boxes = [one for one in theirs if one is not None]
                ours = [row for row, one in zip(ours, theirs, strict=True) if one is not None]
            photos.append(photo)
            wanted.append(boxes)
            seen += ours
            done += len(rows[name])
        for row, prediction in zip(seen, predictor(photos, wanted, batch_size=batch_size), strict=True):
            boxes_N4[row], joints_NL2[row] = prediction.box, prediction.joints_2d[limbs]
        if progress:
            progress(done, len(people))
    return boxes_N4, joints_NL2


def assign(boxes_N4: np.ndarray, found: Sequence[Detection]) -> list[Detection | None]:
    """For each annotated box the one found that is most like it, the best pairs first; None: there is none left."""
    theirs: list[Detection | None] = [None] * len(boxes_N4)
    if not found:
        return theirs
    overlap_ND = overlap(_corners(boxes_N4), _corners(np.array([one.box for one in found])))
    while overlap_ND.max() >= MATCHED:
        person, number = divmod(int(overlap_ND.argmax()), len(found))
        theirs[person] = found[number]
        overlap_ND[person], overlap_ND[:, number] = 0, 0
    return theirs


def _corners(boxes_N4: np.ndarray) -> np.ndarray:
    """Low and high corners (N, 2, 2)."""
    return np.stack((boxes_N4[:, :2], boxes_N4[:, :2] + boxes_N4[:, 2:]), 1)


def _tables(values: Mapping[str, np.ndarray], distance_NL: np.ndarray, resamples: int) -> dict[str, Any]:
    annotated_NL = ~np.isnan(distance_NL)
    columns: dict[tuple[str, str], np.ndarray] = {("all", key): column for key, column in values.items()}
    for j, joint in enumerate(LIMBS):
        for key, near in NEAR.items():
            columns[joint, key] = np.where(annotated_NL[:, j], distance_NL[:, j] <= near, np.nan)
    means, draws = bootstrap(columns, resamples)

    def entry(places: Sequence[str], key: str) -> dict[str, Any]:
        """Mean over places (all, or joints) of what is known."""
        known = [place for place in places if np.isfinite(means[place, key])]
        if not known:
            return {"value": None, "ci95": None}
        value = float(np.mean([means[place, key] for place in known]))
        drawn = np.mean([draws[place, key] for place in known], 0)
        drawn = drawn[np.isfinite(drawn)]
        ends = np.quantile(drawn, (0.025, 0.975)).tolist() if len(drawn) else None
        return {"value": round(100 * value, 3), "ci95": ends and [round(100 * end, 3) for end in ends]}

    told = {
        key: {
            **{"label": metric.label, "unit": metric.unit, "meaning": metric.meaning},
            **{"lower_is_better": metric.lower_is_better, **entry(["all"], key)},
            "n": int(np.isfinite(values[key]).sum()),
        }
        for key, metric in METRICS.items()
    }
    per_joint = [
        {"joint": joint, "n": int(annotated_NL[:, j].sum()), **{key: entry([joint], key) for key in NEAR}}
        for j, joint in enumerate(LIMBS)
    ]
    groups = {group: [LIMBS[j] for j in rows] for group, rows in group_indices(LIMBS).items()}
    return {
        "metrics": {key: row for key, row in told.items() if row["n"]},
        "baselines": {},
        "per_joint": per_joint,
        "joint_groups": [
            {"group": group, "joints": joints, **{key: entry(joints, key) for key in NEAR}}
            for group, joints in groups.items()
        ],
    }


def _cases(
    people: LabelledPeople, pck10_N: np.ndarray, distance_NL: np.ndarray, count: int
) -> dict[str, list[dict[str, Any]]]:
    """People by how far off their joints are on average, each by one side of the box at most."""
    off_N = np.nanmean(np.minimum(distance_NL, 1), 1)
    order = np.argsort(off_N, kind="stable")
    count = min(count, len(order))
    middle = (len(order) - count) // 2
    picks = {"best": order[:count], "median": order[middle : middle + count], "worst": order[::-1][:count]}
    return {
        name: [
            {
                **{"row": int(n), "id": int(people.ids[n]), "file": people.files[n]},
                "pck10": round(100 * float(pck10_N[n]), 3),
            }
            for n in rows
        ]
        for name, rows in picks.items()
    }
