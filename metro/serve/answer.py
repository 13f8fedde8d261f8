"""What a client gets: JSON of the people of each picture, with drawings and meshes where asked for; or one of those."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import cv2
import numpy as np
from fastapi import HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from metro.export.predictor import Photo, Prediction, overlay, scene
from metro.viz.overlay import Image, resize

PNG, GLB = "image/png", "model/gltf-binary"
NOBODY = "nobody was found; give the box of the person as `boxes`, [[x, y, width, height]] in pixels"


class Options(BaseModel):
    """The query of a prediction."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "png", "glb"] = Field(
        "json",
        description="json: people of all pictures. png: the overlay of one picture. glb: the meshes of one picture, "
        "placed before its camera.",
    )
    vertices: bool = Field(False, description="JSON: with the vertices of each mesh, metres.")
    overlay: bool = Field(False, description="JSON: with the overlay of each picture, a PNG in base64.")
    obj: bool = Field(False, description="JSON: with each mesh as a Wavefront OBJ.")
    glb: bool = Field(False, description="JSON: with the meshes of each picture as one GLB in base64.")
    overlay_side: int | None = Field(None, ge=16, le=65535, description="Longer side of an overlay at most, pixels.")
    focal: float | None = Field(None, gt=0, le=1e7, description="Focal length in pixels; none: the picture's diagonal.")
    left_hand: bool = Field(False, description="Hand models know right hands; this mirrors the crop and the result.")


def answer(photos: Sequence[Photo], people: Sequence[list[Prediction]], options: Options) -> Response:
    """The response for pictures and their people.

    Raises
    ------
    HTTPException
        422: one drawing or mesh is asked for, and there are several pictures or nobody.
    """
    if options.format == "json":
        records = [_record(photo, found, options) for photo, found in zip(photos, people, strict=True)]
        return Response(json.dumps({"images": records}), media_type="application/json")
    if len(photos) != 1:
        raise HTTPException(422, f"format={options.format} is for one picture, here are {len(photos)}")
    if not people[0]:
        raise HTTPException(422, f"{photos[0].source}: {NOBODY}")
    if options.format == "png":
        return Response(_png(photos[0], people[0], options), media_type=PNG)
    return Response(scene(people[0], options.focal), media_type=GLB)


def _record(photo: Photo, people: list[Prediction], options: Options) -> dict[str, Any]:
    persons = [json.loads(person.to_json(vertices=options.vertices, focal=options.focal)) for person in people]
    if options.obj:
        for record, person in zip(persons, people, strict=True):
            record["obj"] = person.to_obj()
    height, width = photo.pixels.shape[:2]
    record = {"image": photo.source, "image_size": [width, height], "people": persons}
    if not people:
        record["note"] = NOBODY
    if options.overlay:
        record["overlay_png"] = base64.b64encode(_png(photo, people, options)).decode()
    if options.glb and people:
        record["glb"] = base64.b64encode(scene(people, options.focal)).decode()
    return record


def _png(photo: Photo, people: list[Prediction], options: Options) -> bytes:
    image: Image = photo.pixels
    if options.overlay_side and max(image.shape) > options.overlay_side:
        image = resize(image, max(1, round(image.shape[1] * options.overlay_side / max(image.shape))))
        people = [_shrunk(person, image.shape[1], image.shape[0]) for person in people]
    done, encoded = cv2.imencode(".png", cv2.cvtColor(overlay(people, image), cv2.COLOR_RGB2BGR))
    assert done
    return np.asarray(encoded).tobytes()


def _shrunk(person: Prediction, width: int, height: int) -> Prediction:
    """The prediction as one for a smaller version of its picture, on which drawing costs less."""
    factor = width / person.image_size[0]
    linear, shift = person.affine[:, :2], person.affine[:, 2:]
    # Integers are pixel centres: pixel x of the small picture is (x + 1/2) / factor - 1/2 of the large one.
    affine = np.hstack([linear / factor, shift + linear @ np.full((2, 1), 0.5 / factor - 0.5)])
    return replace(person, affine=affine, image_size=(width, height))
