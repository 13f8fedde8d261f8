"""What a clip's results are: ``NAME.npz``, ``NAME.glb`` and ``NAME_overlay.webm``.

The npz is a table with a row per person and frame, in the order of frames; ``rows = data["person"] == 3`` picks one.
N row, V vertex, J joint, F face.

================ =========================== =====================================================================
``frame``        (N,)                        from 0; divided by ``fps``, seconds
``person``       (N,)                        keeps its number over the clip
``box``          (N, 5) pixels               tight x, y, width, height, and the detector's score (NaN: none)
``left``         (N,)                        whether it is a left hand, whose ``faces`` turn the other way round
``vertices``     (N, V, 3) float16, metres   camera axes (x right, y down, z forward), relative to the root
``joints``       (N, J, 3) metres            the same; ``joint_names`` (J,)
``joints_2d``    (N, J, 2) pixels
``camera``       (N, 3)                      pixels per metre, and the pixel (x, y) of the root: a point falls on
                                             ``camera[:, 0] * xy + camera[:, 1:]``
``translation``  (N, 3) metres               added to vertices puts them before a pinhole camera of ``focal`` pixels
================ =========================== =====================================================================

Besides, ``faces`` (F, 3), ``fps``, ``frames`` (how many the clip has), ``image_size`` (width, height), ``focal``,
``units``, and ``key``, which tells what all this depends on. Half precision is within 0.3 mm up to a metre from the
root, and 0.5 mm beyond.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from metro.export.gltf import Moving, animated_glb
from metro.export.predictor import Predictor
from metro.files import atomic_file, read_arrays
from metro.video.clip import Clip
from metro.video.film import ENDING, film_size, join
from metro.video.people import outside
from metro.video.work import ROW, Work

REMEDY = "give --overwrite to replace it"
COLUMNS = ("frame", "person", "left", "box", "size", "root", "joints")
"""Of a part's rows, what is held for all of a clip at once: a third of a kilobyte each."""
UNITS = "metres, camera axes (x right, y down, z forward), relative to the root; 2D in image pixels"
MESHES = 240
"""Meshes in an animation, of all people together: 20 MB of the open body. Viewers keep morph targets as layers of a
texture, and 256 of those are sure."""


def paths(stem: Path) -> tuple[Path, Path, Path]:
    """Of npz, GLB and overlay."""
    return tuple(stem.with_name(stem.name + end) for end in (".npz", ".glb", f"_overlay{ENDING}"))  # type: ignore[return-value]


def is_done(stem: Path, key: str) -> bool:
    """Whether all the results of a clip are there, and depend on just that."""
    npz = paths(stem)[0]
    return all(path.is_file() for path in paths(stem)) and str(read_arrays(npz, REMEDY, ["key"]).get("key")) == key


def write(stem: Path, work: Work, clip: Clip, predictor: Predictor, focal: float | None, key: str) -> int:
    """Put the parts of a clip together and count its people; the npz comes last, and tells that all is there.

    Nothing is written if nobody is in it.

    `focal` is in pixels; none: the diagonal of the frames.

    Raises
    ------
    MetroError
        A part is damaged, or the disk is full.
    """
    npz, scene, film = paths(stem)
    parts = work.parts
    tables = [work.read(part, [ROW + name for name in COLUMNS]) for part in parts]
    rows = {name: np.concatenate([table[ROW + name] for table in tables]) for name in COLUMNS}
    if not len(rows["frame"]):
        return 0
    last = work.read(parts[-1], ["frames", "image_size"])
    width, height = last["image_size"].tolist()
    focal = focal or float(np.hypot(width, height))
    from_middle = rows["root"] - (np.array([width, height]) - 1) / 2
    translation_N3 = np.column_stack((from_middle, np.full(len(from_middle), focal))) / rows["size"][:, None]
    people = len({*rows["person"].tolist()})

    join(work.films, film, clip.fps, film_size(width, height))
    meshes = _animation(work, predictor.network.faces_F3, rows, translation_N3, clip.fps, int(last["frames"]))
    with atomic_file(scene) as temporary:
        temporary.write_bytes(animated_glb(meshes))
    arrays = {
        "frame": rows["frame"],
        "person": rows["person"],
        "left": rows["left"],
        "box": rows["box"],
        "vertices": _vertices(work),
        "joints": rows["joints"],
        "joints_2d": rows["root"][:, None] + rows["size"][:, None, None] * rows["joints"][..., :2],
        "camera": np.column_stack((rows["size"], rows["root"])),
        "translation": translation_N3,
    }
    arrays = {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in arrays.items()}
    told = {
        "faces": predictor.network.faces_F3.astype(np.int32),
        "joint_names": np.array(predictor.network.meta["joint_names"]),
        "fps": np.array(clip.fps),
        "frames": last["frames"],
        "image_size": last["image_size"],
        "focal": np.array(focal),
        "units": np.array(UNITS),
        "key": np.array(key),
    }
    with atomic_file(npz) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays, **told)
    return people


def _vertices(work: Work) -> np.ndarray:
    """All rows' meshes, which may be larger than the memory, in a file of the folder."""
    parts = work.parts
    counts = [len(work.read(part, [ROW + "frame"])[ROW + "frame"]) for part in parts]
    shape = work.read(parts[0], [ROW + "vertices"])[ROW + "vertices"].shape[1:]
    every = np.lib.format.open_memmap(work.folder / "vertices.npy", "w+", np.float16, (sum(counts), *shape))
    end = 0
    for part, count in zip(parts, counts, strict=True):
        every[end : end + count] = work.read(part, [ROW + "vertices"])[ROW + "vertices"]
        end += count
    return every


def _animation(
    work: Work,
    faces_F3: np.ndarray,
    rows: Mapping[str, np.ndarray],
    translation_N3: np.ndarray,
    fps: float,
    count: int,
) -> list[Moving]:
    """Evenly spaced moments of everybody, y up."""
    frame_N, person_N = rows["frame"], rows["person"]
    passed_N, step = frame_N - frame_N[0], -(-len(frame_N) // MESHES)
    while np.count_nonzero(passed_N % step == 0) > MESHES and step < count:  # people may be many in just these frames
        step += 1
    chosen = np.flatnonzero(passed_N % step == 0)
    vertices, end = [], 0
    for part in work.parts:
        found = work.read(part, [ROW + "vertices"])[ROW + "vertices"]
        vertices += [found[row - end] for row in chosen if end <= row < end + len(found)]
        end += len(found)
    verts_MV3 = np.array(vertices, np.float32) * np.array([1, -1, -1], np.float32)
    frames, people = frame_N[chosen], person_N[chosen]
    meshes = []
    for person in sorted({*people.tolist()}):
        mine = np.flatnonzero(people == person)
        when = frames[mine]
        runs = np.split(when, np.flatnonzero(np.diff(when) > step) + 1)
        spans = [(run[0] / fps, (run[-1] + step) / fps if run[-1] + step < count else math.inf) for run in runs]
        places_K3 = translation_N3[chosen][mine] * [1, -1, -1]
        faces = outside(faces_F3, bool(rows["left"][chosen][mine[0]]))
        meshes.append(Moving(f"person_{person}", when / fps, verts_MV3[mine], faces, places_K3, spans))
    return meshes
