"""Synthetic right hands: a posed hand with its forearm, in the surroundings and under the light that people get.

Rest pose and axes are the model's: fingers along -x, palm towards -y, thumb and index finger on the side of +z.
Left hands are mirrored right ones, which is how METRO treats them, so none are made here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from metro.config import BodyConfig, DatasetConfig
from metro.mesh.topology import boundary_edges, vertex_normals
from metro.options import SyntheticOptions
from metro.synthetic import materials as mt
from metro.synthetic.camera import aim
from metro.synthetic.people import Figure, Studio, limits, open_studio
from metro.synthetic.props import add_occluder
from metro.synthetic.rotations import axis_rotations, product, uniform_rotation
from metro.synthetic.scene import Shot, photograph
from metro.synthetic.skinning import shape_and_pose
from metro.synthetic.stage import Array, Stage
from metro.synthetic.streams import Stream, stream
from metro.synthetic.world import build_world

OCCLUDERS = {"crate": 0.5, "bar": 0.25, "rail": 0.25}
FINGERS = {"index": (1, 5.0), "middle": (4, 1.0), "ring": (10, -3.0), "pinky": (7, -7.0)}
"""First joint of each finger, and how far it leans to the thumb's side when the hand is flat, degrees."""
THUMB = 13
CLOSEST = 0.25
"""Metres from the camera."""
ARM_LENGTH = 0.22
PALEST, DARKEST = np.array([0.62, 0.37, 0.27]), np.array([0.07, 0.037, 0.022])
"""Skin, linear RGB."""


def make_hands(studio: Studio, config: SyntheticOptions, indices: Sequence[int]) -> list[Figure]:
    """Pose hands in the air."""
    hands = []
    for index in indices:
        g = stream(config.seed, index, Stream.POSE)
        rot = finger_rotations(g, config.uniform_pose)
        rot[0] = _orientation(g, config)
        betas = np.clip(stream(config.seed, index, Stream.SHAPE).standard_normal(10), -2.5, 2.5)
        verts, joints, _ = shape_and_pose(studio.skin, betas, rot, np.zeros(3))
        low, high = limits(verts)
        transl = np.array([0, g.uniform(0.8, 1.5), 0]) - (low + high) / 2
        hands.append(Figure(betas, rot, transl, (verts + transl).astype(np.float32), joints + transl))
    return hands


def finger_rotations(g: np.random.Generator, uniform: float) -> Array:
    """Local rotations (16, 3, 3): relaxed, grasping, pointing and counting hands; the root is left alone.

    A share `uniform` of the hands has every joint anywhere within its limits.
    """
    angles = np.zeros((16, 3))  # degrees about x (twist), y (spread) and z (curl)
    together = g.beta(1.1, 1.4)
    curls = np.clip(together + 0.2 * g.standard_normal(4), 0, 1)
    if g.random() < 0.3:  # some fingers stretched, the others bent
        curls = np.where(g.random(4) < 0.5, g.uniform(0, 0.2, 4), g.uniform(0.75, 1.0, 4))
    spread = g.uniform(0.2, 2.2)
    free = g.random() < uniform
    for (first, lean), curl in zip(FINGERS.values(), curls, strict=True):
        n = g.standard_normal(4)
        base, middle = -8 + 90 * curl + 6 * n[0], 2 + 98 * curl + 7 * n[1]
        if free:
            base, middle = g.uniform(-15, 90), g.uniform(0, 108)
        angles[first, 2] = np.clip(base, -15, 92)
        angles[first + 1, 2] = np.clip(middle, 0, 110)
        angles[first + 2, 2] = np.clip(0.6 * middle + 5 * n[2], -3, 78)  # one tendon bends both
        angles[first, 1] = (spread * lean + 3 * n[3]) * (1 - 0.8 * curl)
    n, across = g.standard_normal(5), g.uniform(0, 1) if free else np.clip(together + 0.35 * g.standard_normal(), 0, 1)
    angles[THUMB] = [-5 + 25 * across + 5 * n[0], 5 - 25 * across + 6 * n[1], 12 * across + 6 * n[2]]
    angles[THUMB + 1, 1] = -np.clip(30 * across + 8 * n[3], -5, 45)
    angles[THUMB + 2, 1] = -np.clip(45 * across + 10 * n[4], -10, 70)
    rx, ry, rz = axis_rotations(angles)
    return product(ry, rz, rx)


def _orientation(g: np.random.Generator, config: SyntheticOptions) -> Array:
    """Turn of the whole hand, with the forearm never between camera and hand."""
    while True:
        if g.random() < config.heading_uniform:
            turn = uniform_rotation(g)
        else:  # fingers up, palm or back to the camera
            upright = axis_rotations(np.array([0.0, 0.0, -90.0]))[2]
            side = g.choice([-90.0, 90.0]) + config.heading_sd_deg * g.standard_normal()
            tilt = axis_rotations(np.array([20.0, 0.0, 20.0]) * g.standard_normal(3))
            turn = product(tilt[0], tilt[2], axis_rotations(np.array([0.0, side, 0.0]))[1], upright)
        if turn[2, 0] < 0.6:  # the arm points along +x of the hand, the camera stands towards +z of the world
            return turn


def add_hand(stage: Stage, g: np.random.Generator, studio: Studio, hand: Figure) -> int:
    """Put a hand and its arm on the stage; returns how many faces are the hand's own."""
    faces, rest = studio.skin.faces, studio.skin.template.astype(np.float64)
    rim = boundary_edges(faces)
    loop = np.unique(rim)
    place = np.searchsorted(loop, rim)  # of the rim's vertices in the loop
    arm = hand.rot[0][:, 0]  # along x of the hand
    verts = hand.verts.astype(np.float64)
    elbow = _extrude(verts, loop, arm, 1.35, ARM_LENGTH)
    elbow_rest = _extrude(rest, loop, np.array([1.0, 0.0, 0.0]), 1.35, ARM_LENGTH)
    whole = np.concatenate([verts, elbow]).astype(np.float32)
    everything = np.concatenate([faces, _wall(rim, len(verts) + place)]).astype(np.int32)
    tone = PALEST + (DARKEST - PALEST) * g.beta(1.1, 1.3)
    tone = tone * (1 + 0.08 * g.standard_normal(3))
    skin = mt.plain(tone)
    skin["kind"], skin["scale"], skin["rough"] = mt.CLOUDS, g.uniform(25, 60), g.uniform(0, 0.2)
    skin["other"] = tone * [0.92, 0.78, 0.76]
    owner = stage.paint(skin)
    normals = vertex_normals(whole, everything)
    stage.add(whole, normals, np.concatenate([studio.skin.template, elbow_rest]), everything, owner)
    if g.random() < 0.5:  # a sleeve
        cuff = g.uniform(0.015, 0.12)
        near, end = (_extrude(verts, loop, arm, g.uniform(1.25, 1.6), length) for length in (cuff, ARM_LENGTH))
        cloth = _wall(place, len(loop) + place).astype(np.int32)
        tube = np.concatenate([near, end]).astype(np.float32)
        kinds = [mt.FLAT, mt.STRIPES, mt.CLOUDS, mt.TILES]
        owner = stage.paint(mt.random_material(g, len(studio.tiles), kinds, (15, 60)))
        stage.add(tube, vertex_normals(tube, cloth), tube, cloth, owner)
    return len(faces)


def _wall(near_E2: NDArray[np.integer], far_E2: NDArray[np.integer]) -> NDArray[np.integer]:
    """Faces (2E, 3) between the edges of a rim and the same edges further along, where the rim is open."""
    (a, b), (c, d) = near_E2.T, far_E2.T
    return np.concatenate([np.stack([b, a, c], 1), np.stack([b, c, d], 1)])


def _extrude(verts: Array, loop: NDArray[np.integer], direction: Array, scale: float, length: float) -> Array:
    """The rim's loop of vertices, scaled about its middle and moved along a direction."""
    middle = verts[loop].mean(0)
    return middle + scale * (verts[loop] - middle) + length * direction


def shoot_hand(studio: Studio, config: DatasetConfig, index: int, hand: Figure) -> Shot:
    """Photograph a hand."""
    seed = config.chosen(SyntheticOptions).seed
    camera = aim(stream(seed, index, Stream.CAMERA), hand, config, CLOSEST)
    g = stream(seed, index, Stream.SCENE)
    world = build_world(g, studio, hand, camera)
    stage = Stage()
    own = add_hand(stage, g, studio, hand)
    unoccluded = stage.num_faces
    if g.random() < config.chosen(SyntheticOptions).occlusion:
        kind = str(g.choice(list(OCCLUDERS), p=list(OCCLUDERS.values())))
        add_occluder(stage, g, kind, studio, hand, camera, None)
    return photograph(g, studio, stage, world, hand, camera, own, unoccluded)


def photograph_hands(config: DatasetConfig, body: BodyConfig, indices: Sequence[int]) -> Iterator[Shot]:
    """Shots of the hands with these indices."""
    studio = open_studio(body, config.split)
    for index, hand in zip(indices, make_hands(studio, config.chosen(SyntheticOptions), indices), strict=True):
        yield shoot_hand(studio, config, index, hand)
