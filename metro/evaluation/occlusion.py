"""What a network loses when it cannot see: things in front of people, a patch that slides over them, masked queries.

All of it is made of cropped pictures on the fly, from random numbers that belong to a person, so that every network
meets the same objects and the same masks, and whoever is behind larger ones was behind the smaller ones before:

- *objects*: textured discs and boxes are put before the person one by one, until they hide a share of their box, which
  is drawn around their 2D joints;
- *patch*: a square without content (the mean colour of ImageNet, zeros to the network) is put at each place of a grid,
  and the error of each joint kept for each place (occlusion sensitivity, Zeiler and Fergus 2014);
- *masked queries*: a share of the joint queries, vertex queries or both is hidden from the network, as in its training
  (`metro.model.masking`); features of the picture are computed once.

Errors are distances of joints regressed from the mesh, both sides centred at the root, so that what hides the hips
moves every joint. Memory holds the crops of all people, the pictures of one of them under the patch, and J numbers for
each person and condition.

Shape suffixes: N person, M of them under the patch, C condition, P places of the patch along an axis, J joint, S side
of the crop, T token (J, then vertices), B image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from metro.body.figure import FIGURES
from metro.body.joints import names_of
from metro.body.model import BodyModel
from metro.config import OcclusionConfig
from metro.data.augment import IMAGENET_MEAN, normalise
from metro.data.framing import FLESH
from metro.data.loader import EvalPass
from metro.data.photo import texture
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.evaluation import metrics as m
from metro.evaluation.measure import check_compatible, ground_truth
from metro.evaluation.protocols import Protocol
from metro.evaluation.summary import bootstrap, interval, mean, number
from metro.model.metro import Metro
from metro.random import stream
from metro.viz import overlay, plots
from metro.viz.camera import project

SCHEMA = 1
RESULT = "occlusion.json"
SMALLEST, LARGEST = 0.1, 0.25
"""Sides of an object, as shares of the square root of the box's area."""
BLANK = np.rint(255 * np.array(IMAGENET_MEAN)).astype(np.uint8)
"""RGB of the patch."""
MASKED = ("joints", "vertices", "both")
"""Which queries are masked."""
EXAMPLES = 3
"""People drawn behind the objects."""
_OBJECTS, _QUERIES = 0, 1  # what random numbers of a person are for


@dataclass(frozen=True, eq=False)
class People:
    """Whom all networks see: crops with the truth about them."""

    index_N: np.ndarray
    """Positions in the dataset."""
    images_NSS3: np.ndarray
    """uint8 RGB."""
    joints_NJ3: Tensor
    """True joints, metres, camera axes; nan where they are not known."""
    places_NJ2: np.ndarray
    """Pixels of the crop; nan where they are not known."""
    boxes_N4: np.ndarray
    """Left, top, right and bottom of the person in the crop, whole pixels, right and bottom excluded."""

    def __len__(self) -> int:
        """N."""
        return len(self.index_N)


@dataclass(frozen=True, eq=False)
class Occlusion:
    """Errors of one network, metres; nan where the truth is not known."""

    hidden_CN: np.ndarray
    """Share of each person's box that objects hide, from none on."""
    objects_CNJ: np.ndarray
    masked_CNJ: Mapping[str, np.ndarray]
    """By which queries are masked, from none on."""
    patch_MPPJ: np.ndarray
    """By row and column of the patch."""
    covered_MPPJ: np.ndarray
    """Whether the patch covers the joint."""
    examples: Sequence[tuple[overlay.Image, np.ndarray, np.ndarray]]
    """Pictures behind objects (person by person, C each), joints (J, 3) and camera predicted there."""


def choose_people(
    dataset: ShardDataset, model: Metro, body: BodyModel, protocol: Protocol, config: OcclusionConfig
) -> People:
    """The first people of a dataset whose joints are known.

    Raises
    ------
    MetroError
        Model, body and protocol do not belong together, or nobody's joints are known.
    """
    check_compatible(model, body, protocol)
    body.require(dataset.genders)
    rows: list[tuple[np.ndarray, ...]] = []
    wanted, size = config.people, model.config.image_size
    for batch in EvalPass(dataset, model.config, min(config.batch_size, config.people)):
        truth = ground_truth({name: value.to(body.faces.device) for name, value in batch.items()}, body, protocol)
        known_BJ = (truth.weights_BJ > 0).cpu()
        keep = known_BJ.any(1).nonzero()[:wanted, 0]
        joints_BJ3 = truth.joints_BJ3.cpu().where(known_BJ[..., None], torch.nan)
        labels_BJ3 = batch["joints_2d"].numpy()
        seen_BJ = (labels_BJ3[..., 2] > 0) & batch["has_2d"].numpy()[:, None]
        pixels_BJ2 = np.where(seen_BJ[..., None], ((labels_BJ3[..., :2] + 1) * size - 1) / 2, np.nan)
        boxes_B4 = np.stack([_box(pixels_J2, size) for pixels_J2 in pixels_BJ2])
        places_BJ2 = pixels_BJ2[:, protocol.figure.label_rows]
        columns = (batch["index"].numpy(), batch["image"].numpy(), joints_BJ3.numpy(), places_BJ2, boxes_B4)
        rows.append(tuple(column[keep.numpy()] for column in columns))
        wanted -= len(keep)
        if not wanted:
            break
    index_N, images_NSS3, joints_NJ3, places_NJ2, boxes_N4 = map(np.concatenate, zip(*rows, strict=True))
    if not len(index_N):
        raise MetroError(f"{dataset.name}: protocol {protocol.name} knows nobody's joints, so there is no error to see")
    return People(index_N, images_NSS3, torch.from_numpy(joints_NJ3), places_NJ2, boxes_N4)


@torch.inference_mode()
def measure_occlusion(
    model: Metro, people: People, config: OcclusionConfig | None = None, device: torch.device | str = "cpu"
) -> Occlusion:
    """Errors of a network behind objects, under a patch and with masked queries."""
    config = config or OcclusionConfig()
    model = model.to(device).eval()
    hidden, objects, examples = [], [], []
    masked: dict[str, list[np.ndarray]] = {which: [] for which in MASKED}
    root = FIGURES[model.config.joint_set].root_rows

    def errors(joints_CJ3: Tensor, n: int) -> np.ndarray:
        return m.joint_errors(joints_CJ3, people.joints_NJ3[n].expand_as(joints_CJ3), root=root).numpy()

    for n, image_SS3 in enumerate(people.images_NSS3):
        rng = stream(config.seed, _OBJECTS, int(people.index_N[n]))
        seen_CSS3, hidden_C = behind_objects(image_SS3, people.boxes_N4[n], config.shares, rng)
        joints_CJ3, camera_C3 = _predict(model, seen_CSS3, config.batch_size, device)
        hidden.append(hidden_C)
        objects.append(errors(joints_CJ3, n))
        if n < EXAMPLES:
            examples += list(zip(seen_CSS3, joints_CJ3.numpy(), camera_C3.numpy(), strict=True))
        features_1F = model.backbone.features(_input(image_SS3[None], device))
        order = stream(config.seed, _QUERIES, int(people.index_N[n]))
        masks = query_masks(order, model.num_joints, len(model.template_T3), (0.0, *config.masked))
        for which, mask_CT in masks.items():
            features_CF = features_1F.expand(len(mask_CT), -1)
            output = model(features_CF, torch.from_numpy(mask_CT).to(device), full=False)
            masked[which].append(errors(_joints(output.mesh_joints), n))
    patch, covered = [], []
    for n, image_SS3 in enumerate(people.images_NSS3[: config.patch_people]):
        seen_PPSS3, covered_PPJ = under_patch(image_SS3, people.places_NJ2[n], config.patch, config.steps)
        joints_CJ3, _ = _predict(model, seen_PPSS3.reshape(-1, *image_SS3.shape), config.batch_size, device)
        patch.append(errors(joints_CJ3, n).reshape(covered_PPJ.shape))
        covered.append(covered_PPJ)
    return Occlusion(
        np.stack(hidden, 1),
        np.stack(objects, 1),
        {which: np.stack(parts, 1) for which, parts in masked.items()},
        np.stack(patch),
        np.stack(covered),
        examples,
    )


def behind_objects(
    image_SS3: np.ndarray, box_4: np.ndarray, shares: Sequence[float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A picture (C, S, S, 3) without objects and with more and more, and the share (C,) of the box that they hide.

    Objects are added until they hide the share that is asked for; the last one of each may hide a little more.
    """
    left, top, right, bottom = box_4.tolist()
    unit = np.sqrt((right - left) * (bottom - top))
    picture, cover_SS = image_SS3.copy(), np.zeros(image_SS3.shape[:2], np.uint8)
    inside = cover_SS[top:bottom, left:right]
    seen, hidden = [picture.copy()], [0.0]
    for share in shares:
        while inside.mean() < share:
            middle, sides = rng.uniform((left, top), (right, bottom)), unit * rng.uniform(SMALLEST, LARGEST, 2)
            placed = (middle.tolist(), sides.tolist(), rng.uniform(0, 180))
            mask_SS = np.zeros_like(cover_SS)
            if rng.random() < 0.5:
                cv2.ellipse(mask_SS, placed, 1, cv2.FILLED)
            else:
                cv2.fillPoly(mask_SS, [np.rint(cv2.boxPoints(placed)).astype(np.int32)], 1)
            cv2.copyTo(texture(rng, len(picture), picture.shape[1]), mask_SS, picture)
            np.maximum(cover_SS, mask_SS, out=cover_SS)
        seen.append(picture.copy())
        hidden.append(float(inside.mean()))
    return np.stack(seen), np.array(hidden)


def under_patch(
    image_SS3: np.ndarray, places_J2: np.ndarray, share: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """A picture (P, P, S, S, 3) with a patch at each place, by row and column, and whether (P, P, J) it covers a joint.

    The patch's side is `share` of the picture's; the first and last place end at its borders.
    """
    size = len(image_SS3)
    side = max(1, round(share * size))
    first_P = np.rint(np.linspace(0, size - side, steps)).astype(int)
    seen = np.tile(image_SS3, (steps, steps, 1, 1, 1))
    for row, top in enumerate(first_P):
        for column, left in enumerate(first_P):
            seen[row, column, top : top + side, left : left + side] = BLANK
    within_PJ2 = (places_J2 >= first_P[:, None, None] - 0.5) & (places_J2 < first_P[:, None, None] + side - 0.5)
    return seen, within_PJ2[:, None, :, 1] & within_PJ2[None, :, :, 0]


def query_masks(rng: np.random.Generator, joints: int, tokens: int, shares: Sequence[float]) -> dict[str, np.ndarray]:
    """Masks (C, T) by which queries are masked: a larger share masks what a smaller one does, and more. Where there are
    no joint queries, masking those masks nothing."""
    rank_T = np.concatenate([rng.permutation(joints), rng.permutation(tokens - joints)])
    count_T = np.repeat([joints, tokens - joints], [joints, tokens - joints])
    masked_CT = rank_T < np.rint(np.multiply.outer(shares, count_T))
    is_joint_T = np.arange(tokens) < joints
    return {"joints": masked_CT & is_joint_T, "vertices": masked_CT & ~is_joint_T, "both": masked_CT}


def summarise(
    networks: Mapping[str, Occlusion],
    people: People,
    joint_set: str,
    config: OcclusionConfig,
    *,
    benchmark: str,
) -> dict[str, Any]:
    """Tables of networks that saw the same people, as plain data; of a second network, its differences from the first.

    Errors are means over people of the mean over joints, mm, with 95 % intervals over people.
    """
    names = names_of(joint_set)
    columns = {
        (name, kind, share): np.nanmean(errors_NJ, 1)
        for name, found in networks.items()
        for (kind, share), errors_NJ in _conditions(found, config)
    }
    means, draws = bootstrap(columns, config.bootstrap)

    def rows(name: str, kind: str, base: str = "") -> list[dict[str, Any]]:
        """Of each condition the error, or its difference from that of the network `base`."""
        told = []
        for share in (0.0, *(config.shares if kind == "objects" else config.masked)):
            value, drawn = means[name, kind, share], draws[name, kind, share]
            if base:
                value, drawn = value - means[base, kind, share], drawn - draws[base, kind, share]
            told.append({"share": share, "mpjpe_mm": number(1000 * value), "ci95": interval(1000 * drawn)})
        return told

    first = next(iter(networks))
    kinds = ("objects", *MASKED)
    return {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "people": len(people),
        "joints": list(names),
        "seed": config.seed,
        "hidden": [number(share, 4) for share in networks[first].hidden_CN.mean(1)],
        "patch": {"people": len(networks[first].patch_MPPJ), "side": config.patch, "steps": config.steps},
        "networks": [
            {"name": name, **{kind: rows(name, kind) for kind in kinds}, "patch": _patch(found, names)}
            for name, found in networks.items()
        ],
        "differences": [
            {"name": name, "from": first, **{kind: rows(name, kind, first) for kind in kinds}}
            for name in [*networks][1:]
        ],
    }


def table(summary: Mapping[str, Any]) -> str:
    """The summary as text: a line for each condition, a column for each network, then the differences."""
    head = ["", "share", *(f"{entry['name']}, mm" for entry in summary["networks"])]
    head += [f"{entry['name']} - {entry['from']}" for entry in summary["differences"]]
    rows = [head]
    for kind in ("objects", *MASKED):
        what = "behind objects" if kind == "objects" else f"masked: {kind}"
        for k, point in enumerate(summary["networks"][0][kind]):
            share = summary["hidden"][k] if kind == "objects" else point["share"]
            told = [entry[kind][k] for entry in (*summary["networks"], *summary["differences"])]
            spreads = ["" if p["ci95"] is None else " ({:.1f} … {:.1f})".format(*p["ci95"]) for p in told]
            cells = [f"{p['mpjpe_mm']:.1f}{spread}" for p, spread in zip(told, spreads, strict=True)]
            rows.append([what, f"{100 * share:.0f} %", *cells])
    widths = [max(len(row[c]) for row in rows) for c in range(len(head))]
    title = f"{summary['benchmark']}: {summary['people']} people; MPJPE with 95 % intervals"
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([title, *lines])


def write_occlusion(
    networks: Mapping[str, Occlusion], people: People, joint_set: str, summary: Mapping[str, Any], folder: Path
) -> None:
    """Write the summary (``occlusion.json``) and figures.

    ``curves.png``: error over what is hidden. ``patch.png``: what a patch at each place costs each joint, of the first
    network, and ``patch_2.png`` of the second. ``examples.png``: people behind objects, as the first sees them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    shown = summary["networks"]
    plots.share_curves(
        {entry["name"]: entry["objects"] for entry in shown},
        {f"{entry['name']}: {which}": entry[which] for entry in shown for which in MASKED},
        summary["hidden"],
        folder / "curves.png",
    )
    for k, entry in enumerate(shown, 1):
        maps_JPP = np.array([row["map_mm"] for row in entry["patch"]], float)
        places_J2 = mean(people.places_NJ2[: summary["patch"]["people"]]) / people.images_NSS3.shape[1]
        plots.patch_maps(
            maps_JPP, summary["joints"], places_J2, folder / ("patch.png" if k == 1 else f"patch_{k}.png"),
            title=f"{entry['name']}: rise of each joint's error, by where the patch is",
        )  # fmt: skip
    found = next(iter(networks.values()))
    count = len(found.hidden_CN)
    tiles = [
        overlay.skeleton(overlay.resize(image, 200), project(joints_J3, camera_3, 200), joint_set)
        for image, joints_J3, camera_3 in found.examples
    ]
    hidden = found.hidden_CN[:, : len(tiles) // count].T.ravel()
    labels = [f"{100 * share:.0f} % hidden" for share in hidden]
    overlay.save_image(overlay.grid(tiles, count, labels=labels), folder / "examples.png")


def _conditions(found: Occlusion, config: OcclusionConfig) -> Iterator[tuple[tuple[str, float], np.ndarray]]:
    """Of every curve, each condition with the errors (N, J) under it."""
    for share, errors_NJ in zip((0.0, *config.shares), found.objects_CNJ, strict=True):
        yield ("objects", share), errors_NJ
    for which, errors_CNJ in found.masked_CNJ.items():
        for share, errors_NJ in zip((0.0, *config.masked), errors_CNJ, strict=True):
            yield (which, share), errors_NJ


def _patch(found: Occlusion, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each joint, how much its error rises where the patch covers it and where it does not, and by place, mm."""
    rise_MPPJ = 1000 * (found.patch_MPPJ - found.objects_CNJ[0, : len(found.patch_MPPJ), None, None])
    told = []
    for j, name in enumerate(names):
        rise_MPP, covered_MPP = rise_MPPJ[..., j], found.covered_MPPJ[..., j]
        known = np.isfinite(rise_MPP)
        sides = {"covered_mm": known & covered_MPP, "elsewhere_mm": known & ~covered_MPP}
        means = {key: number(rise_MPP[rows].mean()) if rows.any() else None for key, rows in sides.items()}
        map_PP = [[number(value) if np.isfinite(value) else None for value in row] for row in _mean(rise_MPP)]
        told.append({"joint": name, **means, "map_mm": map_PP})
    return told


def _mean(rise_MPP: np.ndarray) -> np.ndarray:
    """Mean over the people whose joint is known."""
    known_M = np.isfinite(rise_MPP).all((1, 2))
    return rise_MPP[known_M].mean(0) if known_M.any() else np.full(rise_MPP.shape[1:], np.nan)


def _box(pixels_J2: np.ndarray, size: int) -> np.ndarray:
    """Box of a person in a crop, around the 2D joints that are known and in it; the whole crop where there are none."""
    inside = np.isfinite(pixels_J2).all(1) & (np.abs(pixels_J2 - (size - 1) / 2) <= size / 2).all(1)
    if not inside.any():
        return np.array([0, 0, size, size])
    low_2 = np.floor(pixels_J2[inside].min(0) - FLESH * size)
    high_2 = np.ceil(pixels_J2[inside].max(0) + FLESH * size) + 1
    return np.clip(np.concatenate([low_2, high_2]), 0, size).astype(int)


def _input(images_BSS3: np.ndarray, device: torch.device | str) -> Tensor:
    images = torch.from_numpy(images_BSS3).to(device)
    return normalise(images, torch.ones(len(images), 3, device=device))


def _predict(
    model: Metro, images_BSS3: np.ndarray, batch_size: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Joints (B, J, 3) regressed from the mesh, and cameras (B, 3)."""
    parts = []
    for first in range(0, len(images_BSS3), batch_size):
        output = model(_input(images_BSS3[first : first + batch_size], device), full=False)
        parts.append((_joints(output.mesh_joints), output.camera.float().cpu()))
    joints, cameras = zip(*parts, strict=True)
    return torch.cat(joints), torch.cat(cameras)


def _joints(joints_BJ3: Tensor | None) -> Tensor:
    assert joints_BJ3 is not None
    return joints_BJ3.float().cpu()
