"""Binary glTF 2.0 (GLB) of meshes, by the Khronos specification: a JSON chunk and one of plain arrays.

Metres, y up, as the format expects. Shape suffixes: V vertex, F face, K moment of an animation.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metro.viz.raster import smooth_normals

FLOAT, UINT32 = 5126, 5125
VERTICES, INDICES = 34962, 34963
MATERIAL = {
    "pbrMetallicRoughness": {
        "baseColorFactor": [140 / 255, 165 / 255, 210 / 255, 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": 0.7,
    }
}


@dataclass(frozen=True, eq=False)
class Moving:
    """A mesh that changes its shape and place: K moments, which ascend."""

    name: str
    seconds: np.ndarray
    """(K,)."""
    vertices: np.ndarray
    """(K, V, 3) metres, y up, around the origin."""
    faces: np.ndarray
    """(F, 3) anticlockwise from outside."""
    places: np.ndarray
    """(K, 3) where the origin is."""
    spans: Sequence[tuple[float, float]]
    """From when to when the mesh is there, seconds; they ascend, and the last may be without end."""


def glb(meshes: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> bytes:
    """One scene of meshes: names, vertices (V, 3) in metres, y up, and faces (F, 3), anticlockwise from outside."""
    arrays = _Arrays()
    drawn = []
    for name, vertices, faces in meshes:
        verts_V3 = np.ascontiguousarray(vertices, "<f4")
        normals_V3 = np.ascontiguousarray(smooth_normals(verts_V3, faces))
        attributes = {"POSITION": arrays.places(verts_V3), "NORMAL": arrays.add(normals_V3, "VEC3", FLOAT, VERTICES)}
        indices = arrays.corners(faces)
        drawn.append({"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]})
    nodes = [{"name": mesh["name"], "mesh": number} for number, mesh in enumerate(drawn)]
    return _file(arrays, nodes, drawn, {})


def animated_glb(meshes: Sequence[Moving]) -> bytes:
    """One scene and one animation: each moment of a mesh is a morph target, and between two both are mixed.

    There are no normals: viewers shade such meshes by their faces as they are at each moment, where those of the first
    shape would stay as they are while the body turns.
    """
    arrays = _Arrays()
    drawn: list[dict[str, Any]] = []
    nodes: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []
    samplers: list[dict[str, Any]] = []
    for number, mesh in enumerate(meshes):
        verts_KV3 = mesh.vertices.astype("<f4")
        targets = [{"POSITION": arrays.places(verts_V3 - verts_KV3[0])} for verts_V3 in verts_KV3[1:]]
        attributes, indices = {"POSITION": arrays.places(verts_KV3[0])}, arrays.corners(mesh.faces)
        primitive = {"attributes": attributes, "indices": indices, "material": 0}
        drawn.append({"name": mesh.name, "primitives": [primitive | ({"targets": targets} if targets else {})]})
        nodes.append({"name": mesh.name, "mesh": number})
        times = arrays.seconds(mesh.seconds)
        moved = [("translation", "LINEAR", times, mesh.places.astype("<f4"), "VEC3")]
        switches = _switches(mesh.spans)
        moved.append(("scale", "STEP", arrays.seconds(switches[:, 0]), np.repeat(switches[:, 1:], 3, 1), "VEC3"))
        if targets:  # moment k is target k - 1 alone, and the first is none
            weights = np.eye(len(verts_KV3), dtype="<f4")[:, 1:].reshape(-1)
            moved.append(("weights", "LINEAR", times, weights, "SCALAR"))
        for path, interpolation, when, values, kind in moved:
            output = arrays.add(np.ascontiguousarray(values), kind, FLOAT)
            channels.append({"sampler": len(samplers), "target": {"node": number, "path": path}})
            samplers.append({"input": when, "output": output, "interpolation": interpolation})
    animations = [{"name": "clip", "channels": channels, "samplers": samplers}]
    return _file(arrays, nodes, drawn, {"animations": animations})


def _switches(spans: Sequence[tuple[float, float]]) -> np.ndarray:
    """Moments (K, 2) at which a mesh comes (1) or goes (0), from the beginning on: seconds, and which of both."""
    hidden = [(0.0, 0.0)] if spans[0][0] > 0 else []
    changes = [(second, there) for span in spans for second, there in zip(span, (1.0, 0.0), strict=True)]
    return np.array([*hidden, *(change for change in changes if change[0] < math.inf)], "<f4")


class _Arrays:
    """The binary chunk, and what its parts are."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: np.ndarray, kind: str, component: int, target: int | None = None, **bounds: Any) -> int:
        """Number of the accessor of an array of four-byte numbers."""
        view = {"buffer": 0, "byteOffset": self.size, "byteLength": array.nbytes}
        self.views.append(view | ({"target": target} if target else {}))
        self.accessors.append(
            {
                "bufferView": len(self.views) - 1,
                "componentType": component,
                "count": len(array),
                "type": kind,
                **bounds,
            }
        )
        self.parts.append(array.tobytes())
        self.size += array.nbytes
        return len(self.accessors) - 1

    def places(self, verts_V3: np.ndarray) -> int:
        """Positions, or their differences, with the bounds that the format wants."""
        low, high = verts_V3.min(0).tolist(), verts_V3.max(0).tolist()
        return self.add(verts_V3, "VEC3", FLOAT, VERTICES, min=low, max=high)

    def seconds(self, seconds_K: np.ndarray) -> int:
        """Moments of an animation, with the bounds that the format wants."""
        low, high = float(np.float32(seconds_K[0])), float(np.float32(seconds_K[-1]))
        return self.add(np.ascontiguousarray(seconds_K, "<f4"), "SCALAR", FLOAT, min=[low], max=[high])

    def corners(self, faces_F3: np.ndarray) -> int:
        """Faces."""
        return self.add(np.ascontiguousarray(faces_F3, "<u4").reshape(-1), "SCALAR", UINT32, INDICES)


def _file(
    arrays: _Arrays, nodes: list[dict[str, Any]], meshes: list[dict[str, Any]], animations: dict[str, Any]
) -> bytes:
    content = {
        "asset": {"version": "2.0", "generator": "metro"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "meshes": meshes,
        "materials": [MATERIAL],
        **animations,
        "accessors": arrays.accessors,
        "bufferViews": arrays.views,
        "buffers": [{"byteLength": arrays.size}],
    }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)  # arrays of four-byte numbers need no padding
    size = 12 + 8 + len(text) + 8 + arrays.size
    return b"".join(
        [
            *(struct.pack("<4sII", b"glTF", 2, size), struct.pack("<I4s", len(text), b"JSON"), text),
            *(struct.pack("<I4s", arrays.size, b"BIN\0"), *arrays.parts),
        ]
    )
