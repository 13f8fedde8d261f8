"""Binary glTF 2.0 (GLB) of meshes, by the Khronos specification: a JSON chunk and one of plain arrays.

Metres, y up, as the format expects. Shape suffixes: V vertex, F face.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
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


def glb(meshes: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> bytes:
    """One scene of meshes: names, vertices (V, 3) in metres, y up, and faces (F, 3), anticlockwise from outside."""
    binary, views, accessors = b"", [], []

    def add(array: np.ndarray, kind: str, component: int, target: int, **bounds: Any) -> int:
        nonlocal binary
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": array.nbytes, "target": target})
        count = len(array)
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": component, "count": count, "type": kind, **bounds}
        )
        binary += array.tobytes()
        return len(accessors) - 1

    drawn = []
    for name, vertices, faces in meshes:
        verts_V3 = np.ascontiguousarray(vertices, "<f4")
        low, high = verts_V3.min(0).tolist(), verts_V3.max(0).tolist()
        attributes = {
            "POSITION": add(verts_V3, "VEC3", FLOAT, VERTICES, min=low, max=high),
            "NORMAL": add(np.ascontiguousarray(smooth_normals(verts_V3, faces)), "VEC3", FLOAT, VERTICES),
        }
        indices = add(np.ascontiguousarray(faces, "<u4").reshape(-1), "SCALAR", UINT32, INDICES)
        drawn.append({"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]})
    content = {
        "asset": {"version": "2.0", "generator": "metro"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(drawn)))}],
        "nodes": [{"name": mesh["name"], "mesh": number} for number, mesh in enumerate(drawn)],
        "meshes": drawn,
        "materials": [MATERIAL],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)  # arrays of four-byte numbers need no padding
    size = 12 + 8 + len(text) + 8 + len(binary)
    return b"".join(
        [
            *(struct.pack("<4sII", b"glTF", 2, size), struct.pack("<I4s", len(text), b"JSON"), text),
            *(struct.pack("<I4s", len(binary), b"BIN\0"), binary),
        ]
    )
