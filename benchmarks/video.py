"""Videos: how fast, where the time goes, and what smoothing does: `python benchmarks/video.py` writes `video.md`.

The clip is rendered: a person who goes through poses of the synthetic set and walks to and fro before a fixed camera, so
that every joint of every frame is known. Boxes are the true ones with the jitter of a detector.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from metro.body.joints import names_of
from metro.config import BodyConfig
from metro.options import SyntheticOptions
from metro.synthetic.camera import Camera
from metro.synthetic.people import Person, make_people, open_studio
from metro.synthetic.scene import photograph
from metro.synthetic.skinning import regress, shape_and_pose
from metro.synthetic.stage import Stage
from metro.synthetic.props import add_person
from metro.synthetic.world import build_world

SEED = 5
FPS = 25.0
POSES = 8
"""Between which the person moves, one a second."""


def film(count: int, size: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Frames (size, size, 3), joints (count, 14, 3) in camera axes, metres, and tight boxes (count, 4)."""
    studio = open_studio(BodyConfig(kind="open"), "test")
    options = SyntheticOptions(seed=SEED, heading_sd_deg=40, heading_uniform=0, uniform_pose=0)
    people = make_people(studio, options, range(POSES))
    turns = [Slerp(np.arange(POSES), Rotation.from_matrix([p.rot[j] for p in people])) for j in range(24)]
    turn = np.diag([1.0, -1.0, -1.0])
    camera = Camera(1.5 * size, (size - 1) / 2, (size - 1) / 2, turn, np.array([0.0, 1.0, 4.6]), size)
    world = build_world(np.random.default_rng(SEED), studio, people[0], camera)
    names = names_of("J24")
    images, joints, boxes = [], [], []
    for frame in range(count):
        moment = min(frame / FPS, POSES - 1)
        moment = int(moment) + (1 - np.cos(np.pi * (moment % 1))) / 2  # people pause in a pose
        rot = np.stack([turn(moment).as_matrix() for turn in turns])
        verts, places, bones = shape_and_pose(studio.skin, people[0].betas, rot, np.zeros(3))
        shift = np.array([0.5 * np.sin(2 * np.pi * frame / FPS / 6), -verts[:, 1].min(), 0.0])
        person = replace(
            people[0], rot=rot, transl=shift, verts=(verts + shift).astype(np.float32), joints=places + shift, bones=bones
        )
        stage = Stage()
        add_person(stage, studio, person)
        shot = photograph(
            np.random.default_rng(SEED), studio, stage, world, person, camera, stage.num_faces, stage.num_faces
        )
        seen = camera.see(regress(studio.joints, person.verts[studio.joint_verts]))
        low, high = camera.span(person.verts)[:2]
        images.append(shot.image)
        joints.append(seen[[names.index(name) for name in names_of("J14")]])
        boxes.append([*low, *(high - low)])
    return images, np.array(joints), np.array(boxes)
