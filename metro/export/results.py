"""The files that the people of an image are written to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metro.export.predictor import Prediction, overlay, save_scene
from metro.viz.overlay import Image, save_image


def suffixes(people: int) -> list[str]:
    """What follows an image's name in the files of each of its people."""
    return [""] if people == 1 else [f"_{k}" for k in range(people)]


def files_of(name: str, people: int | None, scene: bool, npz: bool) -> list[str]:
    """Names of the files that `write_people` writes for an image of this name; None: of one with a single person."""
    kinds = ("obj", "glb", "json", *(("npz",) if npz else ()))
    files = [f"{name}{suffix}.{kind}" for suffix in suffixes(1 if people is None else people) for kind in kinds]
    return [*files, f"{name}_overlay.png", *([f"{name}_scene.glb"] if scene else [])]


def write_people(
    people: Sequence[Prediction],
    endings: Sequence[str],
    image: Image,
    stem: Path,
    *,
    vertices: bool = False,
    scene: bool = False,
    focal: float | None = None,
) -> None:
    """Write an overlay of all people, and OBJ, GLB and JSON of each; an npz too where parameters are known.

    Parameters
    ----------
    people, endings
        The people of one image, and for each what follows `stem` in the names of the files (`suffixes`).
    image
        The image's pixels.
    stem
        Folder and beginning of the names.
    vertices, focal
        As of `Prediction.to_json`.
    scene
        Also write one GLB of all people where they stand before the camera.
    """
    if people:
        save_image(overlay(people, image), stem.with_name(f"{stem.name}_overlay.png"))
        if scene:
            save_scene(stem.with_name(f"{stem.name}_scene.glb"), people, focal)
    for ending, person in zip(endings, people, strict=True):
        person.save_obj(stem.with_name(f"{stem.name}{ending}.obj"))
        person.save_glb(stem.with_name(f"{stem.name}{ending}.glb"))
        person.save_json(stem.with_name(f"{stem.name}{ending}.json"), vertices=vertices, focal=focal)
        if person.parameters is not None:
            person.save_npz(stem.with_name(f"{stem.name}{ending}.npz"), focal=focal)
