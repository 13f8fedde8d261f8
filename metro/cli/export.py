"""`metro predict` and `metro export`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import Directory, PositiveInt

from metro.errors import MetroError


def predict(
    images: list[Path],
    /,
    *,
    model: str = "open",
    box: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    boxes: Path | None = None,
    out: Directory = Path("predictions"),
    vertices: bool = False,
    left_hand: bool = False,
    batch_size: PositiveInt = 16,
    device: str | None = None,
) -> str:
    """Predict meshes and joints; writes an overlay per image and OBJ, GLB and JSON per person.

    Parameters
    ----------
    images
        Image files.
    model
        Checkpoint or bundle folder, `open` for the one that ships, or an MLflow models:/ URI.
    box
        Tight box x,y,width,height in pixels around the person, for a single image; several people are separated by `;`.
        Without boxes the largest square in the middle of each image is used.
    boxes
        JSON file with the boxes of several images: {"NAME.jpg": [[x, y, width, height], ...], ...}. Images of one name
        need their paths.
    out
        Folder for the results.
    vertices
        Include the mesh in the JSON.
    left_hand
        Hand models know right hands; this mirrors the crop and the result.
    batch_size
        People per forward pass.
    device
        Where to run, e.g. `cuda`; none: a GPU if there is one.
    """
    import metro
    from metro.viz.overlay import save_image

    wanted = _boxes(images, box, boxes)
    out.mkdir(parents=True, exist_ok=True)
    predictions = metro.load(model, device)(images, wanted, batch_size=batch_size, left_hand=left_hand)
    groups = [[p for p in predictions if p.picture == number] for number in range(len(images))]
    lines = []
    for path, name, people in zip(images, _names(images, [len(people) for people in groups]), groups, strict=True):
        canvas = None
        for person in sorted(people, key=lambda p: -p.translation()[2]):  # the far ones first
            canvas = person.overlay(canvas)
        if canvas is not None:
            save_image(canvas, out / f"{name}_overlay.png")
        for k, person in enumerate(people):
            suffix = f"_{k}" if len(people) > 1 else ""
            person.save_obj(out / f"{name}{suffix}.obj")
            person.save_glb(out / f"{name}{suffix}.glb")
            (out / f"{name}{suffix}.json").write_text(person.to_json(vertices=vertices) + "\n")
        lines.append(f"{path}: {len(people)} predicted → {out / name}*")
    return "\n".join(lines)


def export(
    *, model: str = "open", out: Directory = Path("bundle"), onnx: bool = True, torch_export: bool = True
) -> dict[str, Any]:
    """Write a bundle that needs no body model, and ONNX and torch.export programs checked against the network.

    Parameters
    ----------
    model
        Checkpoint or bundle folder, `open` for the one that ships, or an MLflow models:/ URI.
    out
        Folder of the bundle.
    onnx
        Also write model.onnx.
    torch_export
        Also write model.pt2.
    """
    from metro.export.bundle import ONNX, PROGRAM, write_bundle
    from metro.export.load import open_bundle
    from metro.export.onnx import write_onnx, write_program

    bundle = open_bundle(model)
    write_bundle(out, bundle)
    report: dict[str, Any] = {"bundle": str(out)}
    if onnx:
        report["onnx_largest_difference_m"] = write_onnx(bundle, out / ONNX)
    if torch_export:
        report["torch_export_largest_difference_m"] = write_program(bundle, out / PROGRAM)
    report["bytes"] = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    return report


def _names(images: list[Path], people: list[int]) -> list[str]:
    """File names of the results, one per image: its own, all of them numbered where two results would meet."""
    names = [path.stem for path in images]
    written = [
        f"{name}_{k}" if count > 1 else name for name, count in zip(names, people, strict=True) for k in range(count)
    ]
    if len(set(written)) == len(written) and len(set(names)) == len(names):
        return names
    width = len(str(len(names) - 1))
    return [f"{number:0{width}}-{name}" for number, name in enumerate(names)]


def _boxes(images: list[Path], box: str | None, boxes: Path | None) -> list[Any]:
    if box and boxes:
        raise MetroError("give --box or --boxes, not both")
    if box:
        if len(images) != 1:
            raise MetroError(f"--box is for a single image, here are {len(images)}; use --boxes FILE.json")
        try:
            return [[[float(x) for x in one.split(",")] for one in box.split(";")]]
        except ValueError:
            raise MetroError(f"--box {box}: expected x,y,width,height in pixels, people separated by ;") from None
    if boxes is None:
        return [None] * len(images)
    try:
        table = json.loads(boxes.read_text(), parse_int=float)
    except (OSError, ValueError) as err:
        raise MetroError(f"{boxes}: cannot be read as JSON ({err})") from None
    if not isinstance(table, dict):
        raise MetroError(f'{boxes}: expected {{"NAME.jpg": [[x, y, width, height], ...], ...}}')
    # A path says more than a name, which is enough where no other image has it.
    alike = Counter(path.name for path in images)
    keys = [str(path) if str(path) in table or alike[path.name] > 1 else path.name for path in images]
    if missing := [key for key in keys if key not in table]:
        raise MetroError(f"{boxes}: has no boxes for {', '.join(missing[:3])}; its keys are file names or paths")
    return [table[key] for key in keys]
