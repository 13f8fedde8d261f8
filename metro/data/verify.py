"""Facts about a prepared dataset, and whether it is whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metro.data.records import implausible
from metro.data.shards import ShardDataset, read_manifest
from metro.errors import MetroError
from metro.files import sha256_of

_SHOWN = 20  # doubtful records named, of each shard


def statistics(dataset: ShardDataset) -> dict[str, Any]:
    """Facts about a dataset for its manifest: colours, joint visibility, boxes, kinds of labels.

    `colour_mean` and `colour_sd` are per RGB channel in [0, 1] over the stored crops, `joint_visibility` is the share
    of records in which each 2D joint has confidence, `box_px` gives percentiles of the square's side in frame pixels.
    """
    labels = dataset.labels
    count = len(dataset)
    mean, square = dataset.colour_moments()
    side = 200 * labels["scale"].astype(np.float64)
    visible = (labels["joints_2d"][..., 2] > 0).mean(0)
    return {
        "count": count,
        "image_size": dataset.image_size,
        **{name: int(labels[name].sum()) for name in ("has_2d", "has_3d", "has_mesh")},
        "colour_mean": [round(float(x), 6) for x in mean],
        "colour_sd": [round(float(x), 6) for x in np.sqrt(square - mean**2)],
        "joint_visibility": [round(float(x), 6) for x in visible],
        "box_px": {f"p{q}": round(float(np.percentile(side, q)), 3) for q in (0, 5, 50, 95, 100)},
    }


def distributions(dataset: ShardDataset) -> dict[str, dict[str, list[float]]]:
    """Histograms of a dataset, each `edges` (B + 1) and `counts` (B), where its labels tell.

    `box_px` is the side of the square in frame pixels; `heading_deg` where people look about the vertical axis, 0
    into the camera and 90 to the right of the picture; `bend_deg` how far the pose turns joints beside the root.
    """
    labels, found = dataset.labels, {}
    side = 200 * labels["scale"].astype(np.float64)
    found["box_px"] = _histogram(side, np.geomspace(16, 4096, 17).round())
    if labels["has_mesh"].any():
        turns = labels["pose_aa"][labels["has_mesh"]].reshape(labels["has_mesh"].sum(), -1, 3)
        if dataset.figure.upright:
            heading_N = _heading_deg(turns[:, 0].astype(np.float64))
            found["heading_deg"] = _histogram(heading_N, np.linspace(-180, 180, 13))
        bend = np.rad2deg(np.linalg.norm(turns[:, 1:], axis=2)).ravel()
        found["bend_deg"] = _histogram(bend, np.linspace(0, 180, 19))
    return found


def _heading_deg(root_aa_N3: np.ndarray) -> np.ndarray:
    """Heading (N,) in (-180, 180] of bodies turned by axis-angles (N, 3) into the camera frame (y down, z away)."""
    angle_N = np.linalg.norm(root_aa_N3, axis=1)
    axis_N3 = root_aa_N3 / np.maximum(angle_N, 1e-12)[:, None]
    # Rodrigues' formula for the body's forward axis, (0, 0, 1).
    x = axis_N3[:, 1] * np.sin(angle_N) + axis_N3[:, 0] * axis_N3[:, 2] * (1 - np.cos(angle_N))
    z = np.cos(angle_N) + axis_N3[:, 2] ** 2 * (1 - np.cos(angle_N))
    return np.rad2deg(np.arctan2(x, -z))


def _histogram(values: np.ndarray, edges: np.ndarray) -> dict[str, list[float]]:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def verify(folder: Path, fits: Path | None = None, samples: int = 16) -> list[str]:
    """Check a dataset: manifest, digests, layout, labels, checksums of the images, and a sample of them decoded.

    Parameters
    ----------
    folder
        Dataset written by `prepare`.
    fits
        Folder of its fit sidecars, checked as well.
    samples
        Images decoded per shard.

    Returns
    -------
    list of str
        One line per problem; empty if all is well.

    Raises
    ------
    MetroError
        The folder has no readable manifest.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    problems: list[str] = []
    keys: list[np.ndarray] = []
    for entry in manifest["shards"]:
        path = folder / entry["file"]
        try:
            problems += _verify_bytes(path, entry) or _verify_shard(path, entry["count"], keys, samples)
            if fits is not None:
                ShardDataset([path], fits)
        except MetroError as err:
            problems.append(str(err))
    listed = {entry["file"] for entry in manifest["shards"]}
    strays = [path for path in sorted(folder.glob("shard-*.h5")) if path.name not in listed]
    problems += [f"{path}: not in the manifest" for path in strays]
    names, counts = np.unique(np.concatenate(keys) if keys else np.empty(0, "S1"), return_counts=True)
    problems += [f"{folder}: {name.decode()} occurs {n} times" for name, n in zip(names, counts, strict=True) if n > 1]
    return problems


def _verify_bytes(path: Path, entry: dict[str, Any]) -> list[str]:
    if not path.exists():
        return [f"{path}: missing; run the prepare stage again"]
    if path.stat().st_size != entry["bytes"]:
        return [f"{path}: {path.stat().st_size} bytes instead of {entry['bytes']}; delete it and run prepare again"]
    if sha256_of(path) != entry["sha256"]:
        return [f"{path}: changed since it was written (sha256 differs); delete it and run prepare again"]
    return []


def _verify_shard(path: Path, count: int, keys: list[np.ndarray], samples: int) -> list[str]:
    dataset = ShardDataset([path])
    names = [key.decode() for key in dataset.labels["keys"]]
    keys.append(dataset.labels["keys"].copy())  # a view would keep all labels
    problems = [] if len(dataset) == count else [f"{path}: {len(dataset)} records instead of {count}"]
    problems += [f"{path}: {name}: {problem}" for name, problem in itertools.islice(_doubts(dataset), _SHOWN)]
    dataset.check_images()
    for index in np.unique(np.linspace(0, len(dataset) - 1, samples).astype(int)) if len(dataset) else ():
        shape = dataset.image(int(index)).shape
        if shape != (dataset.image_size, dataset.image_size, 3):
            problems.append(f"{path}: image of {names[index]} has shape {shape}, not {dataset.image_size} px square")
    return problems


def _doubts(dataset: ShardDataset) -> Iterator[tuple[str, str]]:
    """Labels that cannot be, as `Record.check` refuses them: record and problem."""
    labels = {{"joints_2d": "keypoints_2d"}.get(name, name): values for name, values in dataset.labels.items()}
    for row, name, problem in implausible(dataset.figure, labels):
        yield labels["keys"][row].decode(errors="replace"), f"{name} {problem}"
