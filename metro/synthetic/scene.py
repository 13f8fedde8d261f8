"""One person in one scene: what is around, the photograph, and the exact annotation.

`shoot` makes the picture of one person and `annotate` its record. The frame is just large enough that the stored crop
(`CropConfig`) is cut from it without enlarging.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from metro.config import BodyConfig, DatasetConfig
from metro.data.records import Record
from metro.options import SyntheticOptions
from metro.synthetic import exact
from metro.synthetic.archetypes import Support
from metro.synthetic.camera import BOX_SCALE, Camera, aim
from metro.synthetic.filters import blur, resize
from metro.synthetic.light import light_scene
from metro.synthetic.people import Figure, Person, Studio, make_people, open_studio
from metro.synthetic.photo import Picture, develop, photo_background
from metro.synthetic.props import add_bystander, add_occluder, add_person, add_seat
from metro.synthetic.rotations import rotation_vector
from metro.synthetic.shading import Layer, Paint, empty_layer, paint_sky, shade
from metro.synthetic.skinning import regress, rest_joints
from metro.synthetic.stage import Stage
from metro.synthetic.streams import Stream, stream
from metro.synthetic.textures import SURFACES
from metro.synthetic.world import Kind, World, build_world
from metro.viz.raster import pool

SSAA = 2
LEAST_VISIBLE = 0.3
"""Share of the person that occluders leave to be seen; a picture that would show less loses its occluders."""


@dataclass(frozen=True)
class Shot:
    """A picture and what is true in it."""

    image: Picture  # (H, W, 3) uint8 RGB
    camera: Camera
    person: Figure
    own: NDArray[np.bool_]  # (H · s, W · s) samples that show the person, dressed
    unhidden: int  # samples that would, if nothing stood in front

    @property
    def visible(self) -> NDArray[np.float32]:
        """Share of each pixel that shows the person, (H, W)."""
        return pool(self.own.astype(np.float32), SSAA)

    @property
    def hidden(self) -> float:
        """Share of the person inside of the frame that something else hides."""
        return 1 - np.count_nonzero(self.own) / max(self.unhidden, 1)


@dataclass(frozen=True)
class Company:
    """Who and what else is in a picture, decided before anything is made."""

    bystander: bool
    occluders: tuple[str, ...]

    @property
    def stranger(self) -> bool:
        """Whether another person has to be made."""
        return self.bystander or "stranger" in self.occluders


OCCLUDERS = {"block": 0.27, "bar": 0.2, "crate": 0.23, "rail": 0.1, "stranger": 0.2}


def company(config: SyntheticOptions, index: int) -> Company:
    """Draw the company of one person."""
    g = stream(config.seed, index, Stream.COMPANY)
    bystander = bool(g.random() < 0.1)
    if g.random() >= config.occlusion:
        return Company(bystander, ())
    kinds = g.choice(list(OCCLUDERS), size=1 + int(g.random() < 0.4), p=list(OCCLUDERS.values()))
    return Company(bystander, tuple(dict.fromkeys(str(kind) for kind in kinds)))


def shoot(studio: Studio, config: DatasetConfig, index: int, person: Person, other: Person | None) -> Shot:
    """Photograph a person; `other` is the stranger of its `company`, if there is one."""
    synthetic = config.chosen(SyntheticOptions)
    camera = aim(stream(synthetic.seed, index, Stream.CAMERA), person, config)
    g = stream(synthetic.seed, index, Stream.SCENE)
    world = build_world(g, studio, person, camera)
    stage = Stage()
    add_person(stage, studio, person)
    own = stage.num_faces
    if person.support == Support.SEAT:
        add_seat(stage, g, studio, person)
    around = company(synthetic, index)
    if around.bystander and other is not None:
        add_bystander(stage, g, studio, person, camera, other)
    unoccluded = stage.num_faces
    for kind in around.occluders:
        add_occluder(stage, g, kind, studio, person, camera, other)
    return photograph(g, studio, stage, world, person, camera, own, unoccluded)


def photograph(
    g: np.random.Generator,
    studio: Studio,
    stage: Stage,
    world: World,
    person: Figure,
    camera: Camera,
    own: int,
    unoccluded: int,
) -> Shot:
    """Take the picture of a stage whose first `own` faces are the person, and whose occluders follow `unoccluded`."""
    objects = stage.objects()
    layer = empty_layer(camera, camera.size * SSAA)
    layer.draw(camera, objects, stop=own)
    unhidden = int(np.count_nonzero(layer.face >= 0))
    layer.draw(camera, objects, first=own)
    mine = (layer.face >= 0) & (layer.face < own)
    if np.count_nonzero(mine) < LEAST_VISIBLE * unhidden:  # too little is left to see: take the occluders away
        objects = objects._replace(faces=objects.faces[:unoccluded], owner=objects.owner[:unoccluded])
        layer = empty_layer(camera, camera.size * SSAA)
        layer.draw(camera, objects)
        mine = (layer.face >= 0) & (layer.face < own)
    light = light_scene(g, world.kind == Kind.ROOM, world.feet, objects, person)
    paint = Paint(studio.marks, studio.noise, studio.tiles, len(SURFACES), light, world.sky)
    image = _background(g, studio, camera, world, paint, layer)
    clear = paint._replace(sky=world.sky._replace(haze=np.inf))  # haze is for the distance
    shade(layer, objects, clear, np.ones(image.shape[:2], np.bool_), image)
    return Shot(develop(g, image), camera, person, mine, unhidden)


def _background(
    g: np.random.Generator, studio: Studio, camera: Camera, world: World, paint: Paint, before: Layer
) -> NDArray[np.float32]:
    """What lies behind everything, out of focus now and then, linear light (H, W, 3).

    What no visible pixel takes its colour from, because the layer before it covers it, is left black.
    """
    defocus = float(g.uniform(0.4, 2.2)) if g.random() < 0.7 else 0.0
    if world.kind == Kind.BACKDROP:
        image = photo_background(g, studio, camera.size)
        return blur(image, defocus) if defocus else image
    # A blurred background holds no more than half of the detail: half of the samples along each axis do.
    step = 2 if defocus > 0.9 else 1
    size = camera.size // step
    layer, objects = empty_layer(camera, size), world.stage.objects()
    layer.draw(camera, objects)
    reach = int(np.ceil(3 * defocus / step)) + step  # of the blur's kernel, and of the interpolation
    seen = before.sees_through(SSAA * step).astype(np.uint8)
    wanted = cv2.dilate(seen, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
    image = np.zeros((size, size, 3), np.float32)
    paint_sky(layer, paint, wanted, image)
    shade(layer, objects, paint, wanted, image)
    if step > 1:  # the interpolation will blur a little more
        return resize(blur(image, np.sqrt(defocus**2 - 0.7) / step), camera.size, camera.size)
    return blur(image, defocus) if defocus else image


def annotate(studio: Studio, shot: Shot, seed: int, index: int) -> Record:
    """The exact labels of a shot."""
    person, camera = shot.person, shot.camera
    size = camera.size
    joints = camera.see(regress(studio.joints, person.verts[studio.joint_verts]))
    pixels = joints[:, :2] / joints[:, 2:] * camera.focal + [camera.cx, camera.cy]
    inside = (joints[:, 2] > 0) & (pixels > -0.5).all(1) & (pixels < size - 0.5).all(1)
    low, high = (np.clip(corner, 0, size - 1) for corner in camera.span(person.verts)[:2])
    centre, half = (low + high) / 2, (high - low) / 2 * BOX_SCALE
    rot = person.rot.copy()
    rot[0] = exact.matmul(camera.turn.T, rot[0])
    pose_aa = rotation_vector(rot)
    pose_aa[1:] -= studio.mean_pose
    rest_root = rest_joints(studio.skin, person.betas[None])[0, 0]
    transl = camera.see((rest_root + person.transl)[None])[0] - rest_root
    f32 = np.float32
    return Record(
        source="synthetic",
        frame=f"{seed}/{index:07d}",
        image=shot.image,
        box=np.concatenate([centre - half, 2 * half]).astype(f32),
        keypoints_2d=(np.concatenate([pixels, np.ones((len(pixels), 1))], 1) * inside[:, None]).astype(f32),
        joints_3d=np.concatenate([joints, np.ones((len(joints), 1))], 1).astype(f32),
        pose_aa=pose_aa.ravel().astype(f32),
        betas=person.betas.astype(f32),
        transl=transl.astype(f32),
        gender="neutral",
        intrinsics=camera.K.astype(f32),
        mesh_origin="synthetic",
    )


def photograph_people(config: DatasetConfig, body: BodyConfig, indices: Sequence[int]) -> Iterator[Shot]:
    """Shots of the people with these indices."""
    studio = open_studio(body, config.split)
    options = config.chosen(SyntheticOptions)
    people = make_people(studio, options, indices)
    strangers = [index for index in indices if company(options, index).stranger]
    others = dict(zip(strangers, make_people(studio, options, strangers, extra=True), strict=True))
    for index, person in zip(indices, people, strict=True):
        yield shoot(studio, config, index, person, others.get(index))
