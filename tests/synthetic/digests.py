"""Digests of what is made of a seed, step by step: run as a script to record them anew when people are meant to change.

python -m tests.synthetic.digests
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from metro.body.figure import figure_of
from metro.body.load import load_body
from metro.config import BodyConfig, CropConfig, DatasetConfig
from metro.data.hdf5 import content_digest, open_h5, read_arrays
from metro.data.shards import ShardWriter
from metro.kernels import njit
from metro.options import SyntheticOptions
from metro.synthetic.albedo import person_albedo
from metro.synthetic.garments import ease, long_hair, skirt
from metro.synthetic.hands import make_hands
from metro.synthetic.looks import LONG, landmarks, sample_look
from metro.synthetic.poses import sample_poses
from metro.synthetic.rotations import rotation_vector
from metro.synthetic.skinning import prepare_skin, rest_joints, shape_and_pose
from metro.synthetic.streams import Stream, stream
from metro.synthetic.textures import Noise
from tests.synthetic.reading import read_shard

PEOPLE, SEED = 64, 11
SHARDS = {"open": 8, "open_hand": 4}


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
    settings = SyntheticOptions(seed=SEED, heading_uniform=0.5)
    hands = make_hands(SimpleNamespace(skin=prepare_skin(hand)), settings, range(PEOPLE))
    parts["hands"] = [array for made in hands for array in (made.betas, made.rot, made.transl, made.verts, made.joints)]
    assert len(parts["garments"]) > PEOPLE + 20  # some wear skirts or long hair
    return {
        name: hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()[:16]
        for name, arrays in parts.items()
    }


def shard_digests() -> dict[str, str]:
    """Digests of a small shard of people and one of hands: labels, and checksums of the pictures."""
    out = {}
    for kind, count in SHARDS.items():
        synthetic = SyntheticOptions(seed=SEED, count=count, occlusion=0.6)
        config = DatasetConfig(crop=CropConfig(box_px=64), options=synthetic)
        with tempfile.TemporaryDirectory() as folder:
            with ShardWriter(Path(folder, "shard.h5"), config.crop, figure=figure_of(kind)) as writer:
                for record in read_shard(config, BodyConfig(kind=kind), 0, count):
                    writer.add(record)
            with open_h5(Path(folder, "shard.h5")) as file:
                out[f"shard of {kind}"] = content_digest(read_arrays(file), {})[:16]
    return out


if __name__ == "__main__":
    print(json.dumps(digests() | shard_digests(), indent=4))
