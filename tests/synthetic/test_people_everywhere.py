"""Poses, shapes, looks and hands have the same bytes whatever code the processor makes libraries choose.

Other processors are played by subprocesses: NumPy, OpenBLAS, glibc and numba are told not to use what this one has.
The recorded digests, which this file prints when it is run, let a machine notice that it is different altogether.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy._core._multiarray_umath import __cpu_dispatch__

from metro.body.load import load_body
from metro.config import SyntheticConfig
from metro.kernels import njit
from metro.synthetic.albedo import person_albedo
from metro.synthetic.garments import ease, long_hair, skirt
from metro.synthetic.hands import make_hands
from metro.synthetic.looks import LONG, landmarks, sample_look
from metro.synthetic.poses import sample_poses
from metro.synthetic.rotations import rotation_vector
from metro.synthetic.skinning import prepare_skin, rest_joints, shape_and_pose
from metro.synthetic.streams import Stream, stream
from metro.synthetic.textures import Noise

PEOPLE, SEED = 64, 11
RECORDED = {
    "landmarks": "bdfc5e5598fdbec8",
    "poses": "6ed0de435a3956df",
    "bodies": "c809ecfca95e5604",
    "looks": "ee31e1dc0b2d253c",
    "colours": "c74c9fdb4fae3d13",
    "garments": "d220c3eca1a38a12",
    "hands": "38daf44822df28ae",
}
MACHINES = {
    "without AVX": {
        "NPY_DISABLE_CPU_FEATURES": " ".join(__cpu_dispatch__),
        "OPENBLAS_CORETYPE": "PRESCOTT",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
    },
    "Haswell": {
        "NPY_DISABLE_CPU_FEATURES": " ".join(
            name for name in __cpu_dispatch__ if name not in ("X86_V3", "AVX2", "FMA3")
        ),
        "OPENBLAS_CORETYPE": "HASWELL",
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma",
    },
}


@njit
def _colours(rest, marks, look, noise, tiles):
    out = np.zeros((len(rest), 5), np.float32)
    for i in range(len(rest)):
        x, y, z = rest[i]
        out[i, 3], out[i, 4] = person_albedo(x, y, z, 0.01, marks, look, noise, tiles, 0, out[i])
    return out


def digests() -> dict[str, str]:
    """What is made of the seed, by name."""
    parts: dict[str, Any] = {}
    body, hand = load_body("open"), load_body("open_hand")
    skin, marks = prepare_skin(body), landmarks(body)
    g = np.random.default_rng(0)
    betas = g.standard_normal((PEOPLE, 10))
    poses = sample_poses(SEED, range(PEOPLE), rest_joints(skin, betas))
    bodies = [shape_and_pose(skin, *shape, np.zeros(3)) for shape in zip(betas, poses.rot, strict=True)]
    looks = [sample_look(stream(SEED, i, Stream.LOOK), marks, 4) for i in range(PEOPLE)]
    noise = Noise(g.random((32, 32, 32), np.float32), g.random((32, 32, 32, 3), np.float32))
    tiles = g.random((4, 384, 256, 3), np.float32)
    parts["landmarks"] = [marks]
    parts["poses"] = [poses.rot, poses.support, rotation_vector(poses.rot)]
    parts["bodies"] = [array for made in bodies for array in made]
    parts["looks"] = looks
    parts["colours"] = [_colours(skin.template, marks, look, noise, tiles) for look in looks[:16]]
    parts["garments"] = [ease(skin.template, marks, look) for look in looks]
    for look, shape, (_, _, bones) in zip(looks, betas, bodies, strict=True):
        if look["skirt"] > 0:
            parts["garments"] += skirt(skin, marks, look, shape, bones, np.zeros(3))
        if look["hair_style"] == LONG:
            parts["garments"] += long_hair(marks, look, bones, np.zeros(3))
    settings = SyntheticConfig(seed=SEED, heading_uniform=0.5)
    hands = make_hands(SimpleNamespace(skin=prepare_skin(hand)), settings, range(PEOPLE))
    parts["hands"] = [array for made in hands for array in (made.betas, made.rot, made.transl, made.verts, made.joints)]
    assert len(parts["garments"]) > PEOPLE + 20  # some wear skirts or long hair
    return {
        name: hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()[:16]
        for name, arrays in parts.items()
    }


def test_every_processor_makes_the_same_people():
    root = str(Path(__file__).parents[2])
    others = {
        name: subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **settings, "PYTHONPATH": root},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, settings in MACHINES.items()
    }
    made = {"this one": digests()}
    for name, process in others.items():
        out, errors = process.communicate()
        assert process.returncode == 0, errors
        made[name] = json.loads(out)
    assert made == dict.fromkeys(made, RECORDED)


if __name__ == "__main__":
    json.dump(digests(), sys.stdout)
