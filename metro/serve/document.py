"""How to call the server: what OpenAPI cannot see in the code, and a page of it that needs no network.

FastAPI's own page loads its scripts from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

SUMMARY = "METRO: people of pictures as 3D joints and full meshes."
_PERSON = {
    "image": "photo.jpg",
    "image_size": [640, 480],
    "box_xywh": [200.0, 20.0, 180.0, 430.0],
    "box": "as given",
    "units": "metres, camera axes (x right, y down, z forward), relative to the root; 2D in image pixels",
    "joint_names": ["R_Ankle", "…"],
    "joints": [[-0.11, 0.85, 0.05]],
    "joints_2d": [[262.4, 431.7]],
    "camera": [0.84, 0.01, -0.02],
    "crop": {"size": 112, "affine": [[0.217, 0.0, -6.9], [0.0, 0.217, 5.2]], "turned_deg": 0.0},
    "perspective": {"focal": 800.0, "translation": [-0.13, 0.05, 3.4], "note": "for an assumed focal length, …"},
}
_REFUSALS = {
    400: ("The form is damaged.", "the form cannot be read (Missing boundary in multipart); send a multipart form …"),
    408: ("The request came too slowly.", "the request did not arrive within 30 seconds"),
    413: ("Too many bytes, pixels or people.", "the request is larger than 32 MB; send fewer or smaller pictures"),
    415: ("Not a multipart form, or not a picture.", "a.txt: not an image in a known format (JPEG, PNG, WebP, …)"),
    422: (
        "A box, an option or a picture is wrong.",
        "boxes: not JSON; expected [[x, y, width, height], ...] in pixels",
    ),
    429: ("Too many requests wait; try again later.", "32 requests are waiting already; try again in a moment"),
}
_FORM = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "One or several pictures: JPEG, PNG, WebP, GIF, BMP, TIFF or PPM.",
        },
        "boxes": {
            "type": "string",
            "description": "JSON: tight boxes [[x, y, width, height], …] in pixels of the upright picture, each "
            "perhaps with its score; for several pictures a list with the boxes, or null, of each. Without it the "
            "server looks for the people itself or takes the middle square; the answer says which.",
            "example": "[[200, 20, 180, 430]]",
        },
    },
}
PREDICT: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The people of each picture.",
            "content": {
                "application/json": {
                    "example": {"images": [{"image": "photo.jpg", "image_size": [640, 480], "people": [_PERSON]}]}
                },
                "image/png": {},
                "model/gltf-binary": {},
            },
        },
        **{
            status: {"description": why, "content": {"application/json": {"example": {"detail": told}}}}
            for status, (why, told) in _REFUSALS.items()
        },
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}},
        "x-codeSamples": [
            {"lang": "Shell", "label": label, "source": source}
            for label, source in (
                ("People of a picture", "curl -F image=@photo.jpg ADDRESS/predict"),
                (
                    "Two people whose boxes are known, with vertices",
                    "curl -F image=@photo.jpg -F 'boxes=[[30, 20, 180, 460], [230, 40, 150, 430]]' "
                    "'ADDRESS/predict?vertices=true'",
                ),
                ("The overlay alone", "curl -F image=@photo.jpg 'ADDRESS/predict?format=png' -o overlay.png"),
                ("The meshes alone", "curl -F image=@photo.jpg 'ADDRESS/predict?format=glb' -o people.glb"),
            )
        ],
    },
}
"""What `POST /predict` takes and gives, for the route's decorator."""


def document(schema: Mapping[str, Any], address: str) -> str:
    """A page about the OpenAPI schema of the server at `address`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("metro.serve", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = lambda value: json.dumps(value, indent=1, ensure_ascii=False)
    return environment.get_template("docs.html.j2").render(schema=schema, address=address)
