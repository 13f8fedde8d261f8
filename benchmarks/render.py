"""How fast people are rendered: `python benchmarks/render.py` writes the table `benchmarks/render.md`.

CPU seconds of one process are counted, so that other jobs on the machine disturb the figures less; each figure is the
best of several repetitions. The painter's algorithm in OpenCV (sort the triangles, fill them far to near) is the
baseline that needs no code of ours.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numba
import numpy as np
from machine import machine

from metro.config import BodyConfig, CropConfig, DatasetConfig
from metro.mesh.topology import vertex_normals
from metro.options import SyntheticOptions
from metro.sources.synthetic import read
from metro.synthetic.people import make_people, open_studio
from metro.synthetic.poses import sample_poses
from metro.synthetic.raster import draw
from metro.synthetic.scene import photograph_people
from metro.synthetic.skinning import rest_joints, shape_and_pose
from metro.viz.raster import render_mesh, sample_intrinsics

PEOPLE = 64


def painter(verts: np.ndarray, faces: np.ndarray, k: np.ndarray, size: int) -> np.ndarray:
    """Flat-shaded triangles, far to near."""
    pixels = (verts @ k.T)[:, :2] / verts[:, 2:]
    corners = verts[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    front = (normals * corners[:, 0]).sum(1) < 0
    order = np.flatnonzero(front)[np.argsort(-corners[front, :, 2].mean(1))]
    shade = (60 + 190 * np.maximum(-normals[:, 2], 0)).astype(int)
    image = np.full((size, size, 3), 255, np.uint8)
    fixed = np.rint(pixels[faces] * 16).astype(np.int32)
    for f in order:
        value = int(shade[f])
        cv2.fillConvexPoly(image, fixed[f], (value, value, value), lineType=cv2.LINE_AA, shift=4)
    return image


def kernel(verts: np.ndarray, faces: np.ndarray, k: np.ndarray, size: int, ssaa: int) -> None:
    """Depth, face and weights of every sample, as synthetic people are drawn."""
    shape = size * ssaa, size * ssaa
    depth, bary = np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32)
    draw(verts, faces, *sample_intrinsics(k, ssaa), 0, True, np.full(shape, -1, np.int32), depth, bary)


def seconds(work: Callable[[], object], repeat: int = 5) -> float:
    """CPU seconds of one call, best of several, after a first call that compiles."""
    work()
    best = np.inf
    for _ in range(repeat):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def measure() -> list[tuple[str, float]]:
    """Rows of the table: what is done, milliseconds per picture."""
    body, config = BodyConfig(), DatasetConfig(options=SyntheticOptions(seed=1, count=PEOPLE))
    studio = open_studio(body, "train")
    shot = next(iter(photograph_people(config, body, range(1))))
    camera, faces = shot.camera, studio.skin.faces
    size = 224
    person = shot.person
    centre = (person.low + person.high) / 2
    verts = ((person.verts - centre) * [1, -1, -1]).astype(np.float32)
    reach = float(np.abs(verts[:, :2]).max())
    verts[:, 2] += 2.5 * reach / 0.85
    k = np.array([[2.5 * size / 2, 0, (size - 1) / 2], [0, 2.5 * size / 2, (size - 1) / 2], [0, 0, 1]])
    rest = rest_joints(studio.skin, np.zeros((PEOPLE, 10)))
    rows = [
        ("mesh filling 224 px, OpenCV painter, flat shading", seconds(lambda: painter(verts, faces, k, size))),
        ("mesh filling 224 px, numba, 1 sample", seconds(lambda: kernel(verts, faces, k, size, 1))),
        ("mesh filling 224 px, numba, 2 x 2 samples", seconds(lambda: kernel(verts, faces, k, size, 2))),
        ("mesh filling 224 px, NumPy, 2 x 2 samples, lit", seconds(lambda: render_mesh(verts, faces, k, (size, size)))),
        ("vertex normals", seconds(lambda: vertex_normals(person.verts, faces))),
        ("pose, with overlap check", seconds(lambda: sample_poses(1, range(PEOPLE), rest)) / PEOPLE),
        (
            "shape and skin one body",
            seconds(lambda: shape_and_pose(studio.skin, person.betas, person.rot, person.transl)),
        ),
        (
            "person: pose, shape, skin, look",
            seconds(lambda: make_people(studio, config.chosen(SyntheticOptions), range(PEOPLE)), 3) / PEOPLE,
        ),
    ]
    for box in (96, 128, 192):
        wide = config.model_copy(update={"crop": CropConfig(box_px=box)})
        each = seconds(lambda wide=wide: list(read(wide, body, rows(wide, body))), 3) / PEOPLE
        side = next(iter(photograph_people(wide, body, range(1)))).image.shape[0]
        rows.append((f"finished record, box {box} px, frame {side} px", each))
    assert camera.size == size
    return [(name, 1000 * each) for name, each in rows]


def main() -> None:
    """Measure and write the table."""
    cv2.setNumThreads(1)
    rows = measure()
    versions = f"Python {platform.python_version()}, numba {numba.__version__}, OpenCV {cv2.__version__}"
    lines = [
        f"Made by `python benchmarks/render.py` on one thread of {machine()}; {versions}. CPU time, best of 3 to 5.",
        "",
        "| work | ms | per second |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {ms:.2f} | {1000 / ms:.0f} |" for name, ms in rows),
        "",
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
